//! What the path to a peer does to packets and says about them: ICMP errors, DF and the TOS byte.

use std::net::SocketAddr;

use turnkey::io::SendFailure;
use turnkey::worker::{self, Backend};

use crate::client::{Client, Data};
use crate::rig::{accept, echo, in_own_network, low_port, pool, settings, setup, until};

/// The value of an ICMP attribute.
fn icmp(kind: u8, code: u8, mtu: u32) -> [u8; 8] {
    let mut value = [0; 8];
    value[2..4].copy_from_slice(&(u16::from(kind) << 9 | u16::from(code)).to_be_bytes());
    value[4..].copy_from_slice(&mtu.to_be_bytes());
    value
}

#[test]
fn rfc8656_11_5_a_closed_port_is_told_to_clients_on_datagrams_and_streams() {
    let pool = std::sync::Arc::new(pool(Backend::Linux));
    let tcp = accept(&pool, "127.0.0.1");
    for (family, loopback, expected) in [(1, "127.0.0.1", icmp(3, 3, 0)), (2, "::1", icmp(1, 4, 0))] {
        for mut client in [Client::udp(pool.udp_addresses()[0]), Client::tcp(tcp)] {
            let (closed, other) = (low_port(loopback), echo(loopback));
            client.allocate(family);
            client.permit(closed);
            client.send_indication(closed, b"anybody there?");
            assert_eq!(client.recv_icmp(), (closed, expected));
            // The allocation goes on.
            client.send_indication(other, b"and here?");
            assert_eq!(client.recv(), Data::Indication(other, b"and here?".to_vec()));
        }
    }
}

#[test]
fn rfc8656_7_2_dont_fragment_is_refused_by_the_portable_backend() {
    use turnkey::stun::{AttributeType, Message, Method};
    for (backend, error) in [(Backend::Portable, Some(420)), (Backend::Linux, None)] {
        let pool = pool(backend);
        // Reading the configuration again does not change what the backend can.
        pool.reconfigure(settings());
        let mut client = Client::udp(pool.udp_addresses()[0]);
        let reply = client.request(Method::ALLOCATE, |writer| {
            writer.u32(AttributeType::REQUESTED_TRANSPORT, 17 << 24);
            writer.attribute(AttributeType::DONT_FRAGMENT, &[]);
        });
        let message = Message::parse(&reply).unwrap();
        let code = message.attribute(AttributeType::ERROR_CODE).and_then(|error| Some(error.as_error()?.0));
        assert_eq!(code, error);
    }
}

/// The server's network, a router, and a peer behind a link that takes 1280 bytes.
const NARROW: &str = "
    mount -t tmpfs none /run
    ip link set lo up
    ip netns add router; ip netns add peer
    ip link add near type veth peer name out netns router
    ip -n router link add in mtu 1280 type veth peer name far mtu 1280 netns peer
    ip addr add 203.0.113.1/24 dev near; ip addr add 2001:db8:1::1/64 dev near nodad
    ip -n router addr add 203.0.113.2/24 dev out; ip -n router addr add 2001:db8:1::2/64 dev out nodad
    ip -n router addr add 198.51.100.1/24 dev in; ip -n router addr add 2001:db8:2::1/64 dev in nodad
    ip -n peer addr add 198.51.100.2/24 dev far; ip -n peer addr add 2001:db8:2::2/64 dev far nodad
    ip link set near up; ip -n router link set out up
    ip -n router link set in up; ip -n peer link set far up
    ip netns exec router sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
    ip netns exec router sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
    ip route add default via 203.0.113.2; ip -6 route add default via 2001:db8:1::2
    ip -n peer route add default via 198.51.100.1; ip -n peer -6 route add default via 2001:db8:2::1
";

#[test]
fn rfc8656_14_a_packet_with_df_too_large_for_the_path_comes_back_as_an_mtu() {
    let name = "path::rfc8656_14_a_packet_with_df_too_large_for_the_path_comes_back_as_an_mtu";
    let made = in_own_network(NARROW, name, || {
        let mut setup = setup(Backend::Linux);
        let own = ["203.0.113.1", "2001:db8:1::1"].map(|ip| ip.parse().unwrap());
        setup.settings.addresses =
            own.map(|ip| turnkey::turn::RelayAddress { bind: ip, public: ip }).to_vec();
        let allow = ["198.51.100.0/24", "2001:db8:2::/64"].map(|network| network.parse().unwrap());
        let policy = turnkey::turn::PeerPolicy::new(allow.to_vec(), Vec::new(), Vec::new(), Vec::new());
        setup.settings.peers = std::sync::Arc::new(policy);
        let pool = worker::start(setup).unwrap();
        let mut client = Client::udp(pool.udp_addresses()[0]);
        client.allocate(1);
        // Nobody listens there: what arrives is answered with port unreachable.
        let closed: SocketAddr = "198.51.100.2:9".parse().unwrap();
        client.permit(closed);
        client.send_whole(closed, &[0; 1000]);
        assert_eq!(client.recv_icmp(), (closed, icmp(3, 3, 0)), "it fits");
        for _ in 0..3 {
            client.send_whole(closed, &[0; 1400]);
            assert_eq!(client.recv_icmp(), (closed, icmp(3, 4, 1280)), "each one is told");
            client.send_indication(closed, &[0; 1400]);
            assert_eq!(client.recv_icmp(), (closed, icmp(3, 3, 0)), "without DF it arrives in fragments");
        }
        // Larger than the first link: no packet, so no answer to one.
        client.send_whole(closed, &[0; 3000]);
        until("it is counted", || pool.io_stats().send_failures[SendFailure::TooLarge as usize] == 1);

        let mut client = Client::udp(pool.udp_addresses()[0]);
        client.allocate(2);
        let closed: SocketAddr = "[2001:db8:2::2]:9".parse().unwrap();
        client.permit(closed);
        for _ in 0..3 {
            client.send_whole(closed, &[0; 1400]);
            assert_eq!(client.recv_icmp(), (closed, icmp(2, 0, 1280)));
            client.send_indication(closed, &[0; 1400]);
            assert_eq!(client.recv_icmp(), (closed, icmp(1, 4, 0)), "this host has learnt the path");
        }
        assert_eq!(pool.stats().allocations, 2);
    });
    if !made {
        eprintln!("not tested: this system gives its users no network namespaces");
    }
}

#[test]
fn a_source_has_as_many_connections_as_it_may() {
    // Loopback addresses are not counted, so the client needs another one.
    let network = "ip link set lo up; ip addr add 203.0.113.1/32 dev lo; ip addr add 203.0.113.2/32 dev lo";
    let made = in_own_network(network, "path::a_source_has_as_many_connections_as_it_may", || {
        let setup = worker::Setup { connections_per_source: 2, ..setup(Backend::Linux) };
        let pool = std::sync::Arc::new(worker::start(setup).unwrap());
        let address = accept(&pool, "203.0.113.1");
        let mut held = [Client::tcp(address), Client::tcp(address)];
        for client in &mut held {
            assert_eq!(client.mapped(), client.local());
        }
        assert_eq!(Client::tcp(address).try_recv_raw(), None, "the third is closed");
        until("it is counted", || pool.io_stats().streams_refused == 1);
        let [_kept, closed] = held;
        drop(closed);
        until("its place is free", || pool.connections() == 1);
        let mut next = Client::tcp(address);
        assert_eq!(next.mapped(), next.local());
        pool.limit_sources(3);
        let mut third = Client::tcp(address);
        assert_eq!(third.mapped(), third.local(), "a new configuration counts at once");
    });
    if !made {
        eprintln!("not tested: this system gives its users no network namespaces");
    }
}

#[test]
fn rfc8656_14_dscp_and_ecn_cross_the_relay_and_the_families() {
    use turnkey::io::linux::Linux;
    use turnkey::io::{Counters, Datagrams, RecvBatch, Role};

    let pool = pool(Backend::Linux);
    for (server, family, loopback) in [(0, 1, "127.0.0.1:0"), (0, 2, "[::1]:0"), (1, 1, "127.0.0.1:0")] {
        let mut client = Client::udp(pool.udp_addresses()[server]);
        // This backend is the one that tells what arrived.
        let (mut io, mut counters) = (Linux::new(), Counters::default());
        let mut peer = turnkey::io::UdpSocket::bind(loopback.parse().unwrap(), Role::Relay, 1 << 20).unwrap();
        io.prepare(&mut peer);
        client.allocate(family);
        client.permit(peer.local());
        for tos in [0xB8, 0x00, 0x03] {
            client.set_tos(tos);
            client.send_indication(peer.local(), b"marked");
            let mut received = RecvBatch::new();
            until("it arrives", || {
                io.recv(&peer, &mut received, 1, &mut counters);
                !received.list().is_empty()
            });
            assert_eq!(received.list()[0].tos, tos, "{family}");
        }
    }
}
