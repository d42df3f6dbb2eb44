//! Clients over TLS: everything that works over TCP, and what encryption adds.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use turnkey::io::stream::Socket;
use turnkey::worker::{Arrival, Backend, Pool};

use crate::client::{Client, Data, Link};
use crate::everyday::{CHANNEL, call_each_other, relays_in_channels_and_indications};
use crate::rig::{accept, echo, four, in_own_process, payload, pool, until};
use crate::streams::loses_media_and_costs_no_memory;

on_each_backend!(
    a_tls_client_relays_in_channels_and_indications,
    many_messages_in_one_record_and_large_ones,
    calls_between_tls_and_other_clients_are_padded_right,
    rfc8446_6_1_either_side_may_say_goodbye,
    each_message_has_a_record_of_its_own,
    garbage_inside_tls_closes_the_connection,
    rfc6062_4_3_a_data_connection_inside_tls_moves_to_its_allocation,
    a_record_that_was_tampered_with_closes_the_connection,
);

/// A certificate for localhost: what the server shows and what a client trusts.
fn certificate() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Accepts TLS on loopback into the pool: where, and how a client connects.
fn accept_tls(pool: &Arc<Pool>) -> (SocketAddr, Arc<ClientConfig>) {
    let (server, client) = certificate();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pool = Arc::clone(pool);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let mut session = rustls::ServerConnection::new(Arc::clone(&server)).unwrap();
            while session.is_handshaking() || session.wants_write() {
                session.complete_io(&mut stream).unwrap();
            }
            let (from, to) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
            let socket = Socket::tls(stream, session).unwrap();
            pool.adopt(Arrival::between(socket, from, to, Vec::new())).unwrap();
        }
    });
    (address, client)
}

fn a_tls_client_relays_in_channels_and_indications(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let (address, config) = accept_tls(&pool);
    relays_in_channels_and_indications(&mut Client::tls(address, &config), 1, 1200);
}

fn many_messages_in_one_record_and_large_ones(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let (address, config) = accept_tls(&pool);
    let mut client = Client::tls(address, &config);
    client.allocate(1);
    client.bind(CHANNEL, echo("127.0.0.1"));
    let many: Vec<u8> = (0..60).flat_map(|n| client.channel_data(CHANNEL, &payload(n, 1001))).collect();
    client.send_raw(&many);
    for n in 0..60 {
        assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(n, 1001)));
    }
    // One message over several records, and one record for a few bytes of a message.
    for len in [30_000, 65_507, 65_507] {
        client.send_channel(CHANNEL, &payload(len, len));
        assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(len, len)));
    }
    for piece in client.channel_data(CHANNEL, &payload(9, 99)).chunks(3) {
        client.send_raw(piece);
    }
    assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(9, 99)));
}

fn calls_between_tls_and_other_clients_are_padded_right(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let (tls, config) = accept_tls(&pool);
    let secure = || Client::tls(tls, &config);
    let udp = pool.udp_addresses()[0];
    call_each_other(secure(), Client::udp(udp));
    call_each_other(Client::udp(udp), secure());
    call_each_other(secure(), Client::tcp(accept(&pool, "127.0.0.1")));
    call_each_other(secure(), secure());
}

/// coturn's client takes each record for one message.
fn each_message_has_a_record_of_its_own(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let (address, config) = accept_tls(&pool);
    let mut client = Client::tls(address, &config);
    client.mapped();
    let (_, request) = client.write_request(turnkey::stun::Method::BINDING, &|_| {});
    client.send_raw(&request.repeat(20));
    let Link::Tls { stream, .. } = &mut client.link else { unreachable!() };
    for _ in 0..20 {
        let mut header = [0; 5];
        stream.sock.read_exact(&mut header).unwrap();
        // The answer, the kind of the record, and the tag.
        assert_eq!(header, [23, 3, 3, 0, 32 + 1 + 16]);
        stream.sock.read_exact(&mut [0; 49]).unwrap();
    }
}

fn rfc8446_6_1_either_side_may_say_goodbye(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let (address, config) = accept_tls(&pool);
    let mut client = Client::tls(address, &config);
    let relayed = client.allocate(1);
    let Link::Tls { stream, .. } = &mut client.link else { unreachable!() };
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    // The TCP connection still stands: it is the alert that ends the allocation.
    until("the relay port is free", || std::net::UdpSocket::bind(relayed).is_ok());
    // rustls tells an end without the server's alert as an error.
    assert_eq!(client.try_recv_raw(), None);
    until("the connection is gone", || pool.connections() == 0);
    let mut client = Client::tls(address, &config);
    client.allocate(1);
    pool.stop();
    assert_eq!(client.try_recv_raw(), None);
}

fn rfc6062_4_3_a_data_connection_inside_tls_moves_to_its_allocation(backend: Backend) {
    let pool = four(backend, |settings| settings.tcp = true);
    let (server, config) = accept_tls(&pool);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut control = Client::tls(server, &config);
    control.allocate_tcp();
    let id = control.connect(listener.local_addr().unwrap()).unwrap();
    let mut peer = listener.accept().unwrap().0;
    let mut data = Client::tls(server, &config).bind_secure_connection(id).unwrap();
    assert!(pool.io_stats().streams_moved >= 1, "it came to another worker");
    // More than fits into what lies between, both ways at once, each side ending when it has sent all.
    let sent = payload(5, 3_000_000);
    let upload = std::thread::spawn({
        let (mut peer, sent) = (peer.try_clone().unwrap(), sent.clone());
        move || {
            peer.write_all(&sent).unwrap();
            peer.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    let mut got = Vec::new();
    data.read_to_end(&mut got).unwrap();
    assert!(got == sent, "{} bytes", got.len());
    upload.join().unwrap();
    data.write_all(b"the other way still stands").unwrap();
    data.conn.send_close_notify();
    data.flush().unwrap();
    let mut got = String::new();
    peer.read_to_string(&mut got).unwrap();
    assert_eq!(got, "the other way still stands");
}

fn garbage_inside_tls_closes_the_connection(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let (address, config) = accept_tls(&pool);
    let mut client = Client::tls(address, &config);
    client.send_raw(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.try_recv_raw(), None);
    until("it is counted", || pool.io_stats().streams_garbage == 1);
}

fn a_record_that_was_tampered_with_closes_the_connection(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let (address, config) = accept_tls(&pool);
    let mut client = Client::tls(address, &config);
    let relayed = client.allocate(1);
    let Link::Tls { stream, .. } = &mut client.link else { unreachable!() };
    let forged = [&[23, 3, 3, 0, 32][..], &[0xA5; 32]].concat();
    stream.sock.write_all(&forged).unwrap();
    until("the relay port is free", || std::net::UdpSocket::bind(relayed).is_ok());
    until("the connection is gone", || pool.connections() == 0);
}

#[test]
fn a_slow_tls_reader_loses_media_and_costs_no_memory() {
    in_own_process("tls::a_slow_tls_reader_loses_media_and_costs_no_memory", || {
        let pool = Arc::new(pool(Backend::Auto));
        let (address, config) = accept_tls(&pool);
        loses_media_and_costs_no_memory(&pool, Client::tls(address, &config));
    });
}
