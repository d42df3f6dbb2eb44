//! One relay port for all allocations of four workers: the kernel gives a peer's packets to any of them.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::time::Duration;

use turnkey::turn::DropReason;
use turnkey::worker::{self, Backend, Pool, Setup};

use crate::client::{Client, Data};
use crate::rig::{echo, low_port, peer, settings, setup, until};

const WORKERS: usize = 4;

fn pool(backend: Backend) -> Pool {
    worker::start(Setup { workers: WORKERS, shared_relay_port: Some(0), ..setup(backend) }).unwrap()
}

fn every_peer_of_every_worker_is_heard(backend: Backend) {
    let pool = pool(backend);
    for (listener, family, ip) in [(0, 1, "127.0.0.1"), (1, 2, "::1")] {
        let mut clients: Vec<_> = (0..16).map(|_| Client::udp(pool.udp_addresses()[listener])).collect();
        let relayed: HashSet<_> = clients.iter_mut().map(|client| client.allocate(family)).collect();
        assert_eq!(relayed.len(), 1, "one port for all: {relayed:?}");
        for (n, client) in (0..).zip(&mut clients) {
            // Each client has its own peers; half of them on a channel.
            for channel in 0x4000..0x4004_u16 {
                let echo = echo(ip);
                match channel % 2 {
                    0 => client.bind(channel, echo),
                    _ => client.permit(echo),
                }
                for round in 0..5 {
                    let payload = [n, round, channel as u8];
                    let expected = if channel % 2 == 0 {
                        client.send_channel(channel, &payload);
                        Data::Channel(channel, payload.to_vec())
                    } else {
                        client.send_indication(echo, &payload);
                        Data::Indication(echo, payload.to_vec())
                    };
                    assert_eq!(client.recv(), expected);
                }
            }
        }
    }
    let busy = pool.worker_stats().iter().filter(|stats| stats.allocations > 0).count();
    assert!(busy > 1, "32 clients of one worker");
    // The kernel does not know whose a packet is: of four workers three are the wrong one.
    until("packets were handed on", || pool.io_stats().handed_on > 0);
    assert_eq!(pool.io_stats().ring_drops, 0);
}

fn a_peer_that_speaks_first_is_heard_by_the_only_one_who_permitted_it(backend: Backend) {
    let pool = pool(backend);
    let mut client = Client::udp(pool.udp_addresses()[0]);
    let relayed = client.allocate(1);
    client.permit("127.0.0.2:1".parse().unwrap());
    for n in 0..20 {
        let (socket, address) = peer("127.0.0.2");
        socket.send_to(&[n], relayed).unwrap();
        assert_eq!(client.recv(), Data::Indication(address, vec![n]));
    }
    let mut other = Client::udp(pool.udp_addresses()[0]);
    other.allocate(1);
    other.permit("127.0.0.2:1".parse().unwrap());
    // Both may be meant: nobody gets it, until one of them has sent to that peer.
    let (socket, address) = peer("127.0.0.2");
    socket.send_to(b"lost", relayed).unwrap();
    until("it was dropped", || pool.stats().drops[DropReason::NoPermission as usize] == 1);
    other.send_indication(address, b"x");
    assert_eq!(socket.recv_from(&mut [0; 9]).unwrap(), (1, relayed));
    socket.send_to(b"heard", relayed).unwrap();
    assert_eq!(other.recv(), Data::Indication(address, b"heard".to_vec()));
}

fn a_worker_that_stands_still_loses_packets_and_nothing_else(backend: Backend) {
    let pool = pool(backend);
    let mut client = Client::udp(pool.udp_addresses()[0]);
    let relayed = client.allocate(1);
    client.permit("127.0.0.2:1".parse().unwrap());
    client.bind(0x4000, echo("127.0.0.3"));
    let owner = pool.worker_stats().iter().position(|stats| stats.allocations == 1).unwrap();
    let peers: Vec<UdpSocket> = (0..16).map(|_| peer("127.0.0.2").0).collect();
    // Claims, so that each has its place.
    for peer in &peers {
        peer.send_to(b"x", relayed).unwrap();
        client.recv();
    }
    // More than fits into the rings: what does is bounded, the rest is counted.
    until("the rings are full", || {
        pool.stall(owner, Duration::from_secs(1));
        for peer in peers.iter().cycle().take(2000) {
            peer.send_to(&[7; 1000], relayed).unwrap();
        }
        pool.io_stats().ring_drops > 0
    });
    let Data::Indication(..) = client.recv() else { panic!("what was waiting comes first") };
    // The client's own socket may overflow as well, so this may take more than one.
    until("it is well again", || {
        client.send_channel(0x4000, b"well again");
        client.waiting().contains(&Data::Channel(0x4000, b"well again".to_vec()))
    });
}

on_each_backend!(
    every_peer_of_every_worker_is_heard,
    a_peer_that_speaks_first_is_heard_by_the_only_one_who_permitted_it,
    a_worker_that_stands_still_loses_packets_and_nothing_else,
);

#[test]
fn tcp_clients_share_the_port_too() {
    let pool = std::sync::Arc::new(pool(Backend::Auto));
    let address = crate::rig::accept(&pool, "127.0.0.1");
    let mut clients: Vec<_> = (0..8).map(|_| Client::tcp(address)).collect();
    for client in &mut clients {
        client.allocate(1);
        let echo = echo("127.0.0.1");
        client.bind(0x4000, echo);
        client.send_channel(0x4000, b"over tcp");
        assert_eq!(client.recv(), Data::Channel(0x4000, b"over tcp".to_vec()));
    }
}

#[test]
fn the_shared_port_is_told_when_it_is_taken_and_free_after_a_stop() {
    let taken = UdpSocket::bind(low_port("127.0.0.1")).unwrap();
    let port = taken.local_addr().unwrap().port();
    let setup = || Setup {
        workers: 2,
        shared_relay_port: Some(port),
        settings: turnkey::turn::Settings { addresses: vec![settings().addresses[0]], ..settings() },
        ..setup(Backend::Auto)
    };
    let error = worker::start(setup()).map(drop).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{port}/udp is in use (127.0.0.1:{port})")), "{error}");
    drop(taken);
    let pool = worker::start(setup()).unwrap();
    let mut client = Client::udp(pool.udp_addresses()[0]);
    assert_eq!(client.allocate(1).port(), port);
    pool.stop();
    until("the port is free", || UdpSocket::bind(("127.0.0.1", port)).is_ok());
}
