//! Relaying between UDP clients and peers.

use std::sync::Arc;

use turnkey::io::SendFailure;
use turnkey::worker::{self, Backend, Setup};

use crate::client::{Client, Data};
use crate::everyday::{CHANNEL, relays_in_channels_and_indications};
use crate::rig::{PATIENCE, echo, ip, low_port, payload, peer, pool, setup, until};

on_each_backend!(
    many_clients_each_get_their_own_echo,
    data_travels_in_channels_and_indications_over_both_families,
    bursts_of_mixed_sizes_arrive_whole_and_in_order,
    an_empty_datagram_stays_a_datagram,
    a_datagram_of_the_largest_size_passes,
    relay_to_relay_calls_stay_inside,
    an_unreachable_peer_costs_no_good_packet,
    a_peer_that_refuses_costs_no_good_packet,
    a_released_relay_port_is_closed,
    several_workers_serve_one_port,
    the_client_of_the_turn_crate_relays_both_ways,
);

fn many_clients_each_get_their_own_echo(backend: Backend) {
    let pool = pool(backend);
    let echo = echo("127.0.0.1");
    let mut clients: Vec<Client> = (0..100).map(|_| Client::udp(pool.udp_addresses()[0])).collect();
    for client in &mut clients {
        client.allocate(1);
        client.bind(CHANNEL, echo);
    }
    for round in 0..5 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send_channel(CHANNEL, &payload(n * 10 + round, 50 + n));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(n * 10 + round, 50 + n)));
        }
    }
    let stats = pool.stats();
    assert_eq!((stats.allocations, stats.to_peer_packets, stats.to_client_packets), (100, 500, 500));
    assert_eq!(pool.io_stats().send_failures, [0; SendFailure::ALL.len()]);
}

fn data_travels_in_channels_and_indications_over_both_families(backend: Backend) {
    let pool = pool(backend);
    for server in pool.udp_addresses() {
        for family in [1, 2] {
            relays_in_channels_and_indications(&mut Client::udp(*server), family, 1200);
        }
    }
}

fn bursts_of_mixed_sizes_arrive_whole_and_in_order(backend: Backend) {
    let pool = pool(backend);
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::udp(pool.udp_addresses()[0]);
    let relayed = client.allocate(1);
    client.bind(CHANNEL, address);
    let sizes = [1200, 1200, 1200, 1200, 700, 1200, 1200, 90, 0, 0, 90, 90, 90, 1200, 1, 1400, 1400];
    let mut buffer = [0; 2000];
    for round in 0..20 {
        for (n, len) in sizes.iter().enumerate() {
            client.send_channel(CHANNEL, &payload(n + round, *len));
        }
        for (n, len) in sizes.iter().enumerate() {
            assert_eq!(peer.recv_from(&mut buffer).unwrap(), (*len, relayed));
            assert_eq!(buffer[..*len], payload(n + round, *len));
        }
        for (n, len) in sizes.iter().enumerate() {
            peer.send_to(&payload(n + round, *len), relayed).unwrap();
        }
        for (n, len) in sizes.iter().enumerate() {
            assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(n + round, *len)));
        }
    }
}

fn an_empty_datagram_stays_a_datagram(backend: Backend) {
    let pool = pool(backend);
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::udp(pool.udp_addresses()[0]);
    let relayed = client.allocate(1);
    client.bind(CHANNEL, address);
    for _ in 0..10 {
        client.send_channel(CHANNEL, &[]);
        assert_eq!(peer.recv_from(&mut [0; 10]).unwrap(), (0, relayed));
        peer.send_to(&[], relayed).unwrap();
        assert_eq!(client.recv(), Data::Channel(CHANNEL, Vec::new()));
    }
    // To a listener an empty datagram is nothing, and no reason to stop reading.
    client.send_raw(&[]);
    assert_eq!(client.mapped(), client.local());
}

fn a_datagram_of_the_largest_size_passes(backend: Backend) {
    let pool = pool(backend);
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::udp(pool.udp_addresses()[0]);
    let relayed = client.allocate(1);
    client.bind(CHANNEL, address);
    let large = payload(1, 65_507 - 4);
    client.send_channel(CHANNEL, &large);
    let mut buffer = vec![0; 65_536];
    assert_eq!(peer.recv_from(&mut buffer).unwrap().0, large.len());
    assert_eq!(buffer[..large.len()], large);
    peer.send_to(&large, relayed).unwrap();
    assert_eq!(client.recv(), Data::Channel(CHANNEL, large));
    // One that has no room for the header on the way back is lost, alone.
    peer.send_to(&payload(1, 65_507), relayed).unwrap();
    peer.send_to(b"next", relayed).unwrap();
    assert_eq!(client.recv(), Data::Channel(CHANNEL, b"next".to_vec()));
    assert_eq!(pool.io_stats().send_failures[SendFailure::TooLarge as usize], 1);
}

fn relay_to_relay_calls_stay_inside(backend: Backend) {
    let pool = pool(backend);
    let mut a = Client::udp(pool.udp_addresses()[0]);
    let mut b = Client::udp(pool.udp_addresses()[1]);
    let (relayed_a, relayed_b) = (a.allocate(1), b.allocate(1));
    a.bind(CHANNEL, relayed_b);
    b.permit(relayed_a);
    let before = pool.io_stats();
    for n in 0..20 {
        a.send_channel(CHANNEL, &payload(n, 100 + n));
        assert_eq!(b.recv(), Data::Indication(relayed_a, payload(n, 100 + n)));
        b.send_indication(relayed_a, &payload(n, 30 + n));
        assert_eq!(a.recv(), Data::Channel(CHANNEL, payload(n, 30 + n)));
    }
    let after = pool.io_stats();
    assert_eq!(after.recv_packets - before.recv_packets, 40, "nothing went through a relay socket");
    assert_eq!(after.send_packets - before.send_packets, 40);
}

fn an_unreachable_peer_costs_no_good_packet(backend: Backend) {
    let pool = pool(backend);
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::udp(pool.udp_addresses()[0]);
    client.allocate(1);
    // A relay on the loopback address has no way to this one: the kernel refuses each packet.
    let unreachable = "192.0.2.1:9".parse().unwrap();
    client.bind(CHANNEL, address);
    client.bind(CHANNEL + 1, unreachable);
    for n in 0..50 {
        client.send_channel(CHANNEL + 1, &payload(n, 100));
        client.send_channel(CHANNEL, &payload(n, 100));
        client.send_channel(CHANNEL + 1, &payload(n, 100));
        client.send_channel(CHANNEL, &payload(n, 100));
    }
    let mut buffer = [0; 200];
    for n in 0..100 {
        assert_eq!(peer.recv(&mut buffer).unwrap(), 100);
        assert_eq!(buffer[..100], payload(n / 2, 100));
    }
    assert_eq!(pool.io_stats().send_failures.iter().sum::<u64>(), 100);
    assert_eq!(pool.stats().allocations, 1);
}

fn a_peer_that_refuses_costs_no_good_packet(backend: Backend) {
    let pool = pool(backend);
    let (peer, address) = peer("127.0.0.1");
    let closed = low_port("127.0.0.1");
    let mut client = Client::udp(pool.udp_addresses()[0]);
    let relayed = client.allocate(1);
    client.bind(CHANNEL, address);
    client.bind(CHANNEL + 1, closed);
    let mut buffer = [0; 200];
    for n in 0..100 {
        client.send_channel(CHANNEL + 1, &payload(n, 50));
        client.send_channel(CHANNEL, &payload(n, 100));
        assert_eq!(peer.recv(&mut buffer).unwrap(), 100);
        peer.send_to(&buffer[..100], relayed).unwrap();
        assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(n, 100)));
    }
}

fn a_released_relay_port_is_closed(backend: Backend) {
    let pool = pool(backend);
    let mut client = Client::udp(pool.udp_addresses()[0]);
    for _ in 0..50 {
        let relayed = client.allocate(1);
        assert!(std::net::UdpSocket::bind(relayed).is_err());
        client.release();
        until("the port is free again", || std::net::UdpSocket::bind(relayed).is_ok());
    }
    assert_eq!(pool.stats().allocations, 0);
    assert_eq!(pool.stats().allocations_total, 50);
}

fn several_workers_serve_one_port(backend: Backend) {
    let pool = worker::start(Setup { workers: 3, ..setup(backend) }).unwrap();
    let echo = echo("127.0.0.1");
    let mut clients: Vec<Client> = (0..60).map(|_| Client::udp(pool.udp_addresses()[0])).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.allocate(1);
        client.bind(CHANNEL, echo);
        client.send_channel(CHANNEL, &payload(n, 100));
        assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(n, 100)));
    }
    let each: Vec<u64> = pool.worker_stats().iter().map(|stats| stats.allocations).collect();
    assert_eq!(each.iter().sum::<u64>(), 60);
    assert!(each.iter().all(|n| *n > 0), "the kernel spreads clients over the workers: {each:?}");
    assert_eq!(pool.beats().len(), 3);
}

fn the_client_of_the_turn_crate_relays_both_ways(backend: Backend) {
    use rtc_turn::client::{Client, ClientConfig};
    use webrtc_util::Conn;

    let pool = pool(backend);
    let server = pool.udp_addresses()[0].to_string();
    let echo = echo("127.0.0.1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scenario = async {
        let conn = Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let client = Client::new(ClientConfig {
            stun_serv_addr: server.clone(),
            turn_serv_addr: server,
            username: "user".into(),
            password: "pass".into(),
            realm: "test".into(),
            software: String::new(),
            rto_in_ms: 0,
            conn,
            vnet: None,
        });
        let client = client.await.unwrap();
        client.listen().await.unwrap();
        let relay = client.allocate().await.unwrap();
        assert_eq!(relay.local_addr().unwrap().ip(), ip("127.0.0.1"));
        for n in 0..20 {
            let sent = payload(n, 10 + 40 * n);
            relay.send_to(&sent, echo).await.unwrap();
            let mut buffer = [0; 1500];
            let (len, from) = relay.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..len], from), (&sent[..], echo));
        }
        client.close().await.unwrap();
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, scenario).await }).expect("no answer");
}

/// A wildcard listener answers from the address it was asked at. The client is at 127.0.0.1, where the routing table
/// would have replies to it come from.
#[cfg(target_os = "linux")]
#[test]
fn replies_leave_from_the_address_the_request_came_to() {
    let of_interfaces = if_addrs::get_if_addrs().unwrap().into_iter().map(|interface| interface.ip());
    let own: Vec<_> = of_interfaces.filter(|own| own.is_ipv4()).map(|own| (0, own)).collect();
    answers_from(Backend::Portable, &[&own[..], &[(1, ip("::1"))]].concat());
    answers_from(Backend::Linux, &[&own[..], &[(0, ip("127.0.0.2")), (1, ip("::1"))]].concat());
}

/// A client asks, and is relayed, at each address of the listeners.
#[cfg(target_os = "linux")]
fn answers_from(backend: Backend, addresses: &[(usize, std::net::IpAddr)]) {
    use std::net::SocketAddr;

    let udp = ["0.0.0.0:0", "[::]:0"].map(|address| address.parse().unwrap()).to_vec();
    let pool = worker::start(Setup { udp, ..setup(backend) }).unwrap();
    let echo = echo("127.0.0.1");
    for &(listener, address) in addresses {
        let port = pool.udp_addresses()[listener].port();
        // The client's socket is connected, so it takes nothing from another address.
        let mut client = Client::udp(SocketAddr::new(address, port));
        assert_eq!(client.mapped(), client.local());
        client.allocate(1);
        client.bind(CHANNEL, echo);
        client.send_channel(CHANNEL, b"hello");
        assert_eq!(client.recv(), Data::Channel(CHANNEL, b"hello".to_vec()));
    }
}
