//! TCP allocations (RFC 6062) over real sockets, with four workers: the data connection always comes to
//! another worker than the control connection, and moves.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType, Method};
use turnkey::worker::{self, Backend, Pool, Setup};

use crate::client::{Client, Data};
use crate::rig::{self, PATIENCE, accept, in_own_process, low_port, resident, setup, until};

on_each_backend!(
    a_client_connects_to_a_peer,
    a_peer_connects_to_a_client,
    what_came_before_the_bind_is_kept_and_half_closes_pass,
    what_follows_the_bind_at_once_is_not_lost,
    a_slow_side_slows_the_other_down,
    a_connection_over_its_bandwidth_loses_nothing,
    two_clients_connect_to_each_other,
    what_ends_with_what,
    a_peer_that_is_not_there_is_447,
    a_relay_port_serves_many_connections_and_is_free_afterwards,
);

fn four(backend: Backend) -> Arc<Pool> {
    rig::four(backend, |settings| settings.tcp = true)
}

fn peer() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accepted(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, from)
}

fn outgoing(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a few bytes and expects them on the other side.
fn passes(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    let mut read = vec![0; bytes.len()];
    to.read_exact(&mut read).unwrap();
    assert_eq!(read, bytes);
}

/// Whether the other side has closed, whichever way.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 100]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted),
    }
}

/// A client, its relayed address, and a connection of it joined to a peer's.
fn joined(server: SocketAddr) -> (Client, TcpStream, TcpStream) {
    let (listener, address) = peer();
    let mut control = Client::tcp(server);
    control.allocate_tcp();
    let id = control.connect(address).unwrap();
    let (peer, _) = accepted(&listener);
    let data = Client::tcp(server).bind_connection(id).unwrap();
    (control, data, peer)
}

fn a_client_connects_to_a_peer(backend: Backend) {
    let pool = four(backend);
    let server = accept(&pool, "127.0.0.1");
    let (listener, address) = peer();
    let mut control = Client::tcp(server);
    let relayed = control.allocate_tcp();
    let id = control.connect(address).unwrap();
    let (mut peer, from) = accepted(&listener);
    assert_eq!(from, relayed, "the connection leaves from the relayed address");
    assert_eq!(control.connect(address), Err(446));
    let mut data = Client::tcp(server).bind_connection(id).unwrap();
    assert!(pool.io_stats().streams_moved >= 1, "the data connection came to another worker");
    passes(&mut data, &mut peer, b"from the client");
    passes(&mut peer, &mut data, b"from the peer");
    assert!(Client::tcp(server).bind_connection(id).is_none(), "it is bound already");
    // The control connection stays one.
    assert_eq!(control.mapped(), control.local());
    let stats = pool.stats();
    assert_eq!((stats.to_peer_bytes, stats.to_client_bytes), (15, 13));
}

fn a_peer_connects_to_a_client(backend: Backend) {
    let pool = four(backend);
    let server = accept(&pool, "127.0.0.1");
    let mut control = Client::tcp(server);
    let relayed = control.allocate_tcp();
    assert!(is_closed(&mut outgoing(relayed)), "without permission");
    control.permit(relayed);
    let mut peer = outgoing(relayed);
    peer.write_all(b"early").unwrap();
    let Data::Attempt(from, id) = control.recv() else { panic!("another message") };
    assert_eq!(from, peer.local_addr().unwrap());
    let mut data = Client::tcp(server).bind_connection(id).unwrap();
    let mut early = [0; 5];
    data.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
    passes(&mut data, &mut peer, b"answer");
}

fn what_came_before_the_bind_is_kept_and_half_closes_pass(backend: Backend) {
    let pool = four(backend);
    let server = accept(&pool, "127.0.0.1");
    let (listener, address) = peer();
    let mut control = Client::tcp(server);
    control.allocate_tcp();
    let id = control.connect(address).unwrap();
    let (mut peer, _) = accepted(&listener);
    let request: Vec<u8> = (0..30_000).map(|n| (n % 251) as u8).collect();
    peer.write_all(&request).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let mut data = Client::tcp(server).bind_connection(id).unwrap();
    let mut read = Vec::new();
    data.read_to_end(&mut read).unwrap();
    assert_eq!(read, request);
    passes(&mut data, &mut peer, b"the other direction goes on");
    data.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(&mut peer));
    until("both connections are gone", || pool.connections() == 1);
    assert!(control.connect(address).is_ok(), "another connection to the peer may follow");
}

fn what_follows_the_bind_at_once_is_not_lost(backend: Backend) {
    let pool = four(backend);
    let server = accept(&pool, "127.0.0.1");
    let (listener, address) = peer();
    let mut control = Client::tcp(server);
    control.allocate_tcp();
    let id = control.connect(address).unwrap();
    let (mut peer, _) = accepted(&listener);
    let mut data = Client::tcp(server);
    data.request(Method::REFRESH, |_| {});
    let (_, mut bytes) = data.write_request(Method::CONNECTION_BIND, &|writer| {
        writer.u32(AttributeType::CONNECTION_ID, id);
    });
    bytes.extend(b"in the same segment");
    data.send_raw(&bytes);
    let mut read = [0; 19];
    peer.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"in the same segment");
}

fn a_slow_side_slows_the_other_down(backend: Backend) {
    let pool = four(backend);
    let (_control, data, peer) = joined(accept(&pool, "127.0.0.1"));
    for (mut fast, mut slow) in [(peer.try_clone().unwrap(), data.try_clone().unwrap()), (data, peer)] {
        fast.set_nonblocking(true).unwrap();
        let chunk: Vec<u8> = (0..65_521).map(|n| (n % 253) as u8).collect();
        let mut sent = Vec::new();
        let mut refusals = 0;
        // Until nothing more is taken for a while: every buffer on the way is full.
        while refusals < 20 {
            match fast.write(&chunk) {
                Ok(len) => {
                    sent.extend_from_slice(&chunk[..len]);
                    refusals = 0;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    refusals += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) => panic!("{e}"),
            }
        }
        let mut read = vec![0; sent.len()];
        slow.set_nonblocking(false).unwrap();
        slow.read_exact(&mut read).unwrap();
        assert!(read == sent, "all {} bytes arrive in order", sent.len());
    }
}

fn a_connection_over_its_bandwidth_loses_nothing(backend: Backend) {
    let mut setup = Setup { workers: 2, ..setup(backend) };
    setup.settings.tcp = true;
    setup.settings.bandwidth.allocation = 400_000;
    let pool = Arc::new(worker::start(setup).unwrap());
    let (_control, mut data, mut peer) = joined(accept(&pool, "127.0.0.1"));
    let sent: Vec<u8> = (0..600_000).map(|n| (n % 251) as u8).collect();
    let sender = std::thread::spawn({
        let sent = sent.clone();
        move || {
            peer.write_all(&sent).unwrap();
            peer
        }
    });
    let mut read = vec![0; sent.len()];
    data.read_exact(&mut read).unwrap();
    assert!(read == sent);
    let mut peer = sender.join().unwrap();
    passes(&mut data, &mut peer, b"the other direction has its own");
}

fn two_clients_connect_to_each_other(backend: Backend) {
    let pool = four(backend);
    let server = accept(&pool, "127.0.0.1");
    let (mut a, mut b) = (Client::tcp(server), Client::tcp(server));
    let (relayed_a, relayed_b) = (a.allocate_tcp(), b.allocate_tcp());
    b.permit(relayed_a);
    let id_a = a.connect(relayed_b).unwrap();
    let Data::Attempt(from, id_b) = b.recv() else { panic!("another message") };
    assert_eq!(from, relayed_a);
    let mut data_a = Client::tcp(server).bind_connection(id_a).unwrap();
    let mut data_b = Client::tcp(server).bind_connection(id_b).unwrap();
    passes(&mut data_a, &mut data_b, b"there");
    passes(&mut data_b, &mut data_a, b"and back");
}

fn what_ends_with_what(backend: Backend) {
    let pool = four(backend);
    let server = accept(&pool, "127.0.0.1");
    let (control, data, mut peer) = joined(server);
    drop(data);
    assert!(is_closed(&mut peer), "the peer's with the client's");
    drop(peer);
    until("one connection is left", || pool.connections() == 1);
    drop(control);
    let (control, mut data, peer) = joined(server);
    drop(peer);
    assert!(is_closed(&mut data), "the client's with the peer's");
    drop((data, control));
    let (control, mut data, mut peer) = joined(server);
    drop(control);
    assert!(is_closed(&mut data) && is_closed(&mut peer), "both with the control connection");
    let (mut control, mut data, mut peer) = joined(server);
    control.release();
    assert!(is_closed(&mut data) && is_closed(&mut peer), "both with the allocation");
    drop(control);
    until("all connections are gone", || pool.connections() == 0);
    assert_eq!(pool.stats().allocations, 0);
}

fn a_peer_that_is_not_there_is_447(backend: Backend) {
    let pool = four(backend);
    let mut control = Client::tcp(accept(&pool, "127.0.0.1"));
    control.allocate_tcp();
    assert_eq!(control.connect(low_port("127.0.0.1")), Err(447));
    let (listener, address) = peer();
    assert!(control.connect(address).is_ok(), "the next one is tried as usual");
    drop(listener);
}

fn a_relay_port_serves_many_connections_and_is_free_afterwards(backend: Backend) {
    let pool = four(backend);
    let server = accept(&pool, "127.0.0.1");
    let mut control = Client::tcp(server);
    let relayed = control.allocate_tcp();
    let mut pairs = Vec::new();
    for _ in 0..20 {
        let (listener, address) = peer();
        let id = control.connect(address).unwrap();
        let (peer, from) = accepted(&listener);
        assert_eq!(from, relayed);
        pairs.push((Client::tcp(server).bind_connection(id).unwrap(), peer));
    }
    for (n, (data, peer)) in pairs.iter_mut().enumerate() {
        passes(data, peer, format!("connection {n}").as_bytes());
    }
    control.release();
    until("nobody listens any more", || TcpStream::connect(relayed).is_err());
    assert_eq!(pool.stats().allocations, 0);
}

#[test]
fn a_peer_that_floods_before_the_bind_costs_no_memory() {
    in_own_process("tcp_relaying::a_peer_that_floods_before_the_bind_costs_no_memory", || {
        let pool = four(Backend::Auto);
        let server = accept(&pool, "127.0.0.1");
        let mut control = Client::tcp(server);
        let (listener, address) = peer();
        control.allocate_tcp();
        let before = resident();
        control.connect(address).unwrap();
        let (mut peer, _) = accepted(&listener);
        peer.set_nonblocking(true).unwrap();
        let chunk = [7; 65_536];
        let mut sent = 0;
        while let Ok(len) = peer.write(&chunk) {
            sent += len;
        }
        assert_eq!(control.mapped(), control.local());
        let grown = resident().saturating_sub(before);
        assert!(sent > 0 && grown < 1 << 20, "{sent} bytes sent, {grown} held");
    });
}
