//! Floods, and senders that use segmentation offload.

use std::net::UdpSocket;

use turnkey::worker::Backend;

use crate::client::Client;
use crate::rig::{in_own_process, peer, pool, resident, until};

const CHANNEL: u16 = 0x4001;

/// A sender that hands the kernel whole runs reaches the server as runs; they leave as runs too, and
/// the receivers see single datagrams.
#[cfg(target_os = "linux")]
#[test]
fn runs_in_are_runs_out() {
    use crate::client::Data;
    use turnkey::io::linux::Linux;
    use turnkey::io::{Counters, Datagrams, Fields, RecvBatch, Role, Route, SendBatch, SocketRef, Sockets};

    let pool = pool(Backend::Linux);
    let mut io = Linux::new();
    let mut socket =
        turnkey::io::UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Role::Relay, 1 << 20).unwrap();
    io.prepare(&mut socket);
    let sender = socket.local();
    let mut sockets = Sockets::default();
    sockets.insert(SocketRef(0), socket);
    let mut client = Client::udp(pool.udp_addresses()[0]);
    let relayed = client.allocate(1);
    client.bind(CHANNEL, sender);
    let before = pool.io_stats();
    for size in [1200, 100, 1] {
        let received = RecvBatch::new();
        let mut batch = SendBatch::new();
        for n in 0..50_u8 {
            let route = Route { socket: SocketRef(0), to: relayed, from: None };
            batch.push(route, Fields::default(), &[n], 0..size - 1, 0);
        }
        let mut counters = Counters::default();
        io.send(&sockets, &batch, &received, &mut counters);
        assert_eq!((counters.send_calls, counters.send_coalesced), (1, 50));
        for n in 0..50 {
            let Data::Channel(CHANNEL, data) = client.recv() else { panic!("another channel") };
            assert_eq!((data.len(), data[0]), (size, n));
        }
    }
    let after = pool.io_stats();
    assert_eq!(after.recv_packets - before.recv_packets, 150);
    assert_eq!(after.recv_calls - before.recv_calls, 3);
    assert_eq!(after.send_calls - before.send_calls, 3);
    assert_eq!(after.send_coalesced - before.send_coalesced, 150);
}

#[test]
fn a_flood_leaves_nothing_grown() {
    in_own_process("load::a_flood_leaves_nothing_grown", || {
        let pool = pool(Backend::Auto);
        let server = pool.udp_addresses()[0];
        let (sink, address) = peer("127.0.0.1");
        let mut client = Client::udp(server);
        let relayed = client.allocate(1);
        client.bind(CHANNEL, address);
        let good = client.channel_data(CHANNEL, &[1; 1200]);
        let (_, allocate) = Client::udp(server).write_request(turnkey::stun::Method::ALLOCATE, &|writer| {
            writer.u32(turnkey::stun::AttributeType::REQUESTED_TRANSPORT, 17 << 24);
        });
        let strangers: Vec<UdpSocket> = (0..200).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut flood = |rounds: usize| {
            for n in 0..rounds {
                let stranger = &strangers[n % strangers.len()];
                stranger.send_to(&allocate, server).unwrap();
                stranger.send_to(&[0x40, 1, 0, 4, 1, 2, 3, 4], server).unwrap();
                stranger.send_to(b"noise", server).unwrap();
                stranger.send_to(b"noise", relayed).unwrap();
                client.send_raw(&good);
            }
        };
        // The first round touches every buffer there is.
        flood(20_000);
        let before = resident();
        flood(40_000);
        until("the flood is over", || {
            let before = pool.io_stats().recv_packets;
            std::thread::sleep(std::time::Duration::from_millis(20));
            pool.io_stats().recv_packets == before
        });
        let grown = resident().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes more");
        assert_eq!(pool.stats().allocations, 1);
        assert!(pool.stats().drops.iter().sum::<u64>() > 0);
        drop(sink);
    });
}

/// What the kernel drops because the worker is behind shows in a counter.
#[cfg(target_os = "linux")]
#[test]
fn overflows_of_a_receive_queue_are_counted() {
    let small = turnkey::worker::Setup { sock_buf: 4096, ..crate::rig::setup(Backend::Linux) };
    let pool = turnkey::worker::start(small).unwrap();
    let mut client = Client::udp(pool.udp_addresses()[0]);
    client.mapped();
    let mut sent = 1;
    until("the worker is behind and drops are counted", || {
        pool.stall(0, std::time::Duration::from_millis(100));
        (0..500).for_each(|_| client.send_raw(&[0x40, 1, 0, 0]));
        sent += 500;
        pool.io_stats().recv_overflows > 0
    });
    until("all are accounted for", || {
        // The kernel tells of drops with the next datagram that it does not drop.
        client.send_raw(&[0x40, 1, 0, 0]);
        sent += 1;
        let io = pool.io_stats();
        io.recv_packets + io.recv_overflows == sent
    });
}

#[cfg(unix)]
#[test]
fn too_few_open_files_refuse_allocations_and_nothing_else() {
    crate::rig::in_own_process_with_files(
        100,
        "load::too_few_open_files_refuse_allocations_and_nothing_else",
        || {
            use turnkey::stun::{AttributeType, Message, Method};

            let mut many = crate::rig::setup(Backend::Auto);
            many.udp = vec!["127.0.0.1:0".parse().unwrap(); 200];
            let Err(error) = turnkey::worker::start(many) else { panic!("it started") };
            assert!(error.to_string().contains("too few file descriptors, raise ulimit -n"), "{error}");

            let pool = pool(Backend::Auto);
            let (peer, address) = peer("127.0.0.1");
            // More than half of the descriptors are the clients', so that it is a relay that gets none.
            let mut waiting = Vec::from_iter((0..50).map(|_| Client::udp(pool.udp_addresses()[0])));
            let mut clients = Vec::new();
            let code = loop {
                let mut client = waiting.pop().expect("a relay for each client");
                let reply = client.request(Method::ALLOCATE, |writer| {
                    writer.u32(AttributeType::REQUESTED_TRANSPORT, 17 << 24);
                });
                clients.push(client);
                let message = Message::parse(&reply).unwrap();
                if let Some(error) = message.attribute(AttributeType::ERROR_CODE) {
                    break error.as_error().unwrap().0;
                }
            };
            assert_eq!(code, 508);
            let mut refused = clients.pop().unwrap();
            for client in &mut clients {
                client.bind(CHANNEL, address);
                client.send_channel(CHANNEL, b"goes on");
                assert_eq!(peer.recv(&mut [0; 20]).unwrap(), 7);
            }
            clients.pop().unwrap().release();
            until("an allocation works again", || {
                let reply = refused.request(Method::ALLOCATE, |writer| {
                    writer.u32(AttributeType::REQUESTED_TRANSPORT, 17 << 24);
                });
                reply[0..2] == [1, 3]
            });
        },
    );
}

/// No state of any kind is kept for whoever has not returned a nonce.
#[cfg(target_os = "linux")]
#[test]
fn a_hundred_thousand_spoofed_allocates_leave_memory_where_it_was() {
    use turnkey::io::linux::Linux;
    use turnkey::io::{Counters, Datagrams, Fields, RecvBatch, Role, Route, SendBatch, SocketRef, Sockets};

    in_own_process("load::a_hundred_thousand_spoofed_allocates_leave_memory_where_it_was", || {
        let mut limited = crate::rig::setup(Backend::Auto);
        limited.settings.unauthenticated_rate = 4096;
        let pool = turnkey::worker::start(limited).unwrap();
        let server = pool.udp_addresses()[0];
        let (_, allocate) = Client::udp(server).write_request(turnkey::stun::Method::ALLOCATE, &|writer| {
            writer.u32(turnkey::stun::AttributeType::REQUESTED_TRANSPORT, 17 << 24);
        });
        let mut io = Linux::new();
        let mut socket =
            turnkey::io::UdpSocket::bind("0.0.0.0:0".parse().unwrap(), Role::Relay, 1 << 16).unwrap();
        io.prepare(&mut socket);
        let mut sockets = Sockets::default();
        sockets.insert(SocketRef(0), socket);
        let mut received = RecvBatch::new();
        let (start, slot) = received.claim().unwrap();
        slot[..allocate.len()].copy_from_slice(&allocate);
        let mut counters = Counters::default();
        let mut spoof = |sources: std::ops::Range<u32>| {
            for chunk in sources.collect::<Vec<_>>().chunks(50) {
                let mut batch = SendBatch::new();
                for n in chunk {
                    let from = std::net::Ipv4Addr::from_bits(0x7F10_0000 + n);
                    let route = Route { socket: SocketRef(0), to: server, from: Some(from.into()) };
                    batch.push(route, Fields::default(), &[], start..start + allocate.len(), 0);
                }
                let before = pool.io_stats().recv_packets;
                io.send(&sockets, &batch, &received, &mut counters);
                until("they are taken", || pool.io_stats().recv_packets == before + chunk.len() as u64);
            }
        };
        spoof(0..10_000);
        let before = resident();
        spoof(10_000..110_000);
        let grown = resident().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes more");
        assert_eq!(counters.send_packets, 110_000);
        assert_eq!(pool.stats().allocations, 0);
    });
}
