//! Clients over TCP.

use std::sync::Arc;
use std::time::Duration;

use turnkey::worker::{self, Backend, Pool, Setup};

use crate::client::{Client, Data};
use crate::everyday::{CHANNEL, call_each_other, relays_in_channels_and_indications};
use crate::rig::{accept, echo, in_own_process, payload, peer, pool, resident, setup, until};

on_each_backend!(
    a_tcp_client_relays_in_channels_and_indications,
    the_stream_may_be_cut_anywhere,
    many_messages_in_one_write_and_large_ones,
    calls_between_tcp_and_udp_clients_are_padded_right,
    a_closed_connection_ends_its_allocation_at_once,
    garbage_closes_the_connection_at_once,
    an_idle_connection_without_allocation_is_closed,
    connections_are_bounded,
    a_busy_connection_does_not_starve_others,
);

fn a_tcp_client_relays_in_channels_and_indications(backend: Backend) {
    let pool = Arc::new(pool(backend));
    for loopback in ["127.0.0.1", "::1"] {
        relays_in_channels_and_indications(&mut Client::tcp(accept(&pool, loopback)), 1, 1200);
    }
}

fn the_stream_may_be_cut_anywhere(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let mut client = Client::tcp(accept(&pool, "127.0.0.1"));
    client.allocate(1);
    client.bind(CHANNEL, echo("127.0.0.1"));
    let messages: Vec<Vec<u8>> = (0..8).map(|n| payload(n, n * 3 + 1)).collect();
    let stream: Vec<u8> = messages.iter().flat_map(|message| client.channel_data(CHANNEL, message)).collect();
    for step in [1, 2, 3, 5, 11, stream.len()] {
        for piece in stream.chunks(step) {
            client.send_raw(piece);
        }
        for message in &messages {
            assert_eq!(client.recv(), Data::Channel(CHANNEL, message.clone()));
        }
    }
}

fn many_messages_in_one_write_and_large_ones(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let mut client = Client::tcp(accept(&pool, "127.0.0.1"));
    client.allocate(1);
    client.bind(CHANNEL, echo("127.0.0.1"));
    let many: Vec<u8> = (0..60).flat_map(|n| client.channel_data(CHANNEL, &payload(n, 1001))).collect();
    client.send_raw(&many);
    for n in 0..60 {
        assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(n, 1001)));
    }
    for len in [30_000, 65_507, 65_507] {
        client.send_channel(CHANNEL, &payload(len, len));
        assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(len, len)));
    }
}

fn calls_between_tcp_and_udp_clients_are_padded_right(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let tcp = accept(&pool, "127.0.0.1");
    let udp = pool.udp_addresses()[0];
    call_each_other(Client::tcp(tcp), Client::udp(udp));
    call_each_other(Client::udp(udp), Client::tcp(tcp));
    call_each_other(Client::tcp(tcp), Client::tcp(tcp));
}

fn a_closed_connection_ends_its_allocation_at_once(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let address = accept(&pool, "127.0.0.1");
    for _ in 0..20 {
        let mut client = Client::tcp(address);
        let relayed = client.allocate(1);
        drop(client);
        until("the relay port is free", || std::net::UdpSocket::bind(relayed).is_ok());
    }
    until("the connections are gone", || pool.connections() == 0);
    assert_eq!(pool.stats().allocations, 0);
}

fn garbage_closes_the_connection_at_once(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let address = accept(&pool, "127.0.0.1");
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x80],
        &[0x16, 3, 1, 2, 0, 1, 0, 1],
        &[0, 1, 0, 0, 0, 0, 0, 0],
        &[0x40, 0, 0, 0],
    ];
    for bytes in garbage {
        let mut client = Client::tcp(address);
        client.send_raw(bytes);
        assert_eq!(client.try_recv_raw(), None, "{bytes:?}");
    }
    // A message larger than any request, from a client that has shown no credentials.
    let mut client = Client::tcp(address);
    client.mapped();
    client.send_raw(&[0x40, 1, 0xFF, 0xF0]);
    assert_eq!(client.try_recv_raw(), None);
    assert_eq!(pool.io_stats().streams_garbage, 6);
    until("the connections are gone", || pool.connections() == 0);
}

fn an_idle_connection_without_allocation_is_closed(backend: Backend) {
    // Longer than an Allocate takes on a busy machine.
    let pool = worker::start(Setup { tcp_idle: Duration::from_secs(3), ..setup(backend) }).unwrap();
    let pool = Arc::new(pool);
    let address = accept(&pool, "127.0.0.1");
    let mut with = Client::tcp(address);
    with.allocate(1);
    let mut silent = Client::tcp(address);
    let mut partial = Client::tcp(address);
    partial.send_raw(&[0, 1, 0]);
    assert_eq!(silent.try_recv_raw(), None);
    assert_eq!(partial.try_recv_raw(), None);
    assert_eq!(with.mapped(), with.local(), "an allocation keeps its connection");
    assert_eq!(pool.io_stats().streams_idle, 2);
    with.release();
    assert_eq!(with.try_recv_raw(), None);
}

fn connections_are_bounded(backend: Backend) {
    let pool = Arc::new(worker::start(Setup { tcp_connections: 5, workers: 2, ..setup(backend) }).unwrap());
    let address = accept(&pool, "127.0.0.1");
    let mut held: Vec<Client> = (0..5).map(|_| Client::tcp(address)).collect();
    for client in &mut held {
        assert_eq!(client.mapped(), client.local());
    }
    assert_eq!(Client::tcp(address).try_recv_raw(), None);
    until("it is counted", || pool.io_stats().streams_refused == 1);
    assert_eq!(pool.connections(), 5);
    held.pop();
    until("a place is free", || pool.connections() == 4);
    let mut next = Client::tcp(address);
    assert_eq!(next.mapped(), next.local());
}

fn a_busy_connection_does_not_starve_others(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let address = accept(&pool, "127.0.0.1");
    let (_sink, sink) = peer("127.0.0.1");
    let mut busy = Client::tcp(address);
    busy.allocate(1);
    busy.bind(CHANNEL, sink);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let burst: Vec<u8> =
                (0..50).flat_map(|n| busy.channel_data(CHANNEL, &payload(n, 1200))).collect();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                busy.send_raw(&burst);
            }
        }
    });
    let mut client = Client::udp(pool.udp_addresses()[0]);
    for _ in 0..200 {
        assert_eq!(client.mapped(), client.local());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().unwrap();
}

/// Floods a client that does not read meanwhile.
pub(crate) fn loses_media_and_costs_no_memory(pool: &Pool, mut slow: Client) {
    let relayed = slow.allocate(1);
    let (peer, address) = peer("127.0.0.1");
    slow.bind(CHANNEL, address);
    let flood = |packets: usize| {
        for n in 0..packets {
            let _ = peer.send_to(&payload(n, 1200), relayed);
            if n % 50 == 0 {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
    };
    while pool.io_stats().stream_drops == 0 {
        flood(5_000);
    }
    let before = resident();
    flood(50_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes more");
    // A request still gets its answer, behind the media that waits, and the stream is whole.
    assert_eq!(slow.mapped(), slow.local());
    peer.send_to(b"again", relayed).unwrap();
    while slow.recv() != Data::Channel(CHANNEL, b"again".to_vec()) {}
    assert_eq!(pool.io_stats().streams_stuck, 0);
}

#[test]
fn a_slow_reader_loses_media_and_costs_no_memory() {
    in_own_process("streams::a_slow_reader_loses_media_and_costs_no_memory", || {
        let pool = Arc::new(pool(Backend::Auto));
        let slow = Client::tcp(accept(&pool, "127.0.0.1"));
        loses_media_and_costs_no_memory(&pool, slow);
    });
}

#[test]
fn a_client_that_never_reads_replies_is_given_up() {
    let pool = Arc::new(pool(Backend::Auto));
    let mut client = Client::tcp(accept(&pool, "127.0.0.1"));
    let (_, request) = client.write_request(turnkey::stun::Method::BINDING, &|_| {});
    let burst = request.repeat(500);
    let crate::client::Link::Tcp { stream, .. } = &mut client.link else { unreachable!() };
    let mut wrote = Ok(());
    while wrote.is_ok() && pool.io_stats().streams_stuck == 0 {
        wrote = std::io::Write::write_all(stream, &burst);
    }
    until("the connection is given up", || pool.io_stats().streams_stuck == 1 && pool.connections() == 0);
}
