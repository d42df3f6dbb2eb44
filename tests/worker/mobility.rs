//! Mobility (RFC 8016) over real sockets, with four workers: the kernel decides which of them a client's new
//! 5-tuple comes to.

use std::net::SocketAddr;
use std::sync::Arc;

use turnkey::stun::{AttributeType as A, Message, MessageWriter, Method};
use turnkey::worker::{Backend, Pool};

use crate::client::{Client, Data};
use crate::rig::{self, accept, peer, until};

on_each_backend!(
    a_udp_client_goes_on_from_other_addresses,
    a_tcp_client_goes_on_over_other_connections,
    a_client_changes_between_udp_and_tcp,
    packets_on_their_way_arrive_after_the_move,
    a_worker_that_stalls_loses_nothing,
    a_dual_allocation_moves_with_both_its_sockets,
);

/// Moves that make it all but certain that some of four workers took part in them.
const MOVES: usize = 12;

fn four(backend: Backend) -> Arc<Pool> {
    rig::four(backend, |settings| settings.mobility = true)
}

fn value(reply: &[u8], kind: A) -> Option<Vec<u8>> {
    Message::parse(reply).unwrap().attribute(kind).map(|attribute| attribute.value.to_vec())
}

/// Allocates with a ticket; the relayed addresses and the ticket.
pub(crate) fn allocate(client: &mut Client, family: A, number: u8) -> (Vec<SocketAddr>, Vec<u8>) {
    let reply = client.request(Method::ALLOCATE, |writer| {
        writer
            .u32(A::REQUESTED_TRANSPORT, 17 << 24)
            .u32(family, u32::from(number) << 24)
            .attribute(A::MOBILITY_TICKET, &[]);
    });
    let message = Message::parse(&reply).unwrap();
    let relayed = message.attributes().filter(|attribute| attribute.kind == A::XOR_RELAYED_ADDRESS);
    let relayed = relayed.map(|address| address.as_xor_address(message.transaction()).unwrap()).collect();
    (relayed, value(&reply, A::MOBILITY_TICKET).expect("a ticket"))
}

/// The allocation is taken along to another client socket; the next ticket.
pub(crate) fn take_along(client: &mut Client, ticket: &[u8]) -> Vec<u8> {
    let reply = client.request(Method::REFRESH, |writer: &mut MessageWriter<'_>| {
        writer.attribute(A::MOBILITY_TICKET, ticket);
    });
    value(&reply, A::MOBILITY_TICKET).unwrap_or_else(|| panic!("{:?}", value(&reply, A::ERROR_CODE)))
}

/// A packet each way.
fn passes(client: &mut Client, peer: &std::net::UdpSocket, address: SocketAddr, relayed: SocketAddr) {
    let mut buffer = [0; 100];
    client.send_indication(address, b"to the peer");
    assert_eq!(peer.recv_from(&mut buffer).unwrap(), (11, relayed));
    peer.send_to(b"to the client", relayed).unwrap();
    assert_eq!(client.recv(), Data::Indication(address, b"to the client".to_vec()));
}

fn a_udp_client_goes_on_from_other_addresses(backend: Backend) {
    let pool = four(backend);
    let server = pool.udp_addresses()[0];
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::udp(server);
    let (relayed, mut ticket) = allocate(&mut client, A::REQUESTED_ADDRESS_FAMILY, 1);
    client.permit(address);
    passes(&mut client, &peer, address, relayed[0]);
    for _ in 0..MOVES {
        client = Client::udp(server);
        ticket = take_along(&mut client, &ticket);
        passes(&mut client, &peer, address, relayed[0]);
    }
    assert!(pool.io_stats().allocations_moved > 0, "it has moved between workers");
    assert_eq!(pool.stats().allocations, 1);
    client.release();
    until("the relay port is free", || std::net::UdpSocket::bind(relayed[0]).is_ok());
    assert_eq!(pool.stats().allocations, 0);
}

fn a_tcp_client_goes_on_over_other_connections(backend: Backend) {
    let pool = four(backend);
    let server = accept(&pool, "127.0.0.1");
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::tcp(server);
    let (relayed, mut ticket) = allocate(&mut client, A::REQUESTED_ADDRESS_FAMILY, 1);
    client.permit(address);
    for n in 0..MOVES {
        // Every other time the old connection has broken before.
        let before = client;
        let kept = (n % 2 == 0).then_some(before);
        client = Client::tcp(server);
        ticket = take_along(&mut client, &ticket);
        passes(&mut client, &peer, address, relayed[0]);
        drop(kept);
    }
    assert!(pool.io_stats().streams_moved > 0, "connections have moved to the worker of the allocation");
    client.release();
    drop(client);
    until("the connections are gone", || pool.connections() == 0);
    assert_eq!(pool.stats().allocations, 0);
}

fn a_client_changes_between_udp_and_tcp(backend: Backend) {
    let pool = four(backend);
    let (udp, tcp) = (pool.udp_addresses()[0], accept(&pool, "127.0.0.1"));
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::udp(udp);
    let (relayed, mut ticket) = allocate(&mut client, A::REQUESTED_ADDRESS_FAMILY, 1);
    client.permit(address);
    for n in 0..MOVES {
        client = if n % 2 == 0 { Client::tcp(tcp) } else { Client::udp(udp) };
        ticket = take_along(&mut client, &ticket);
        passes(&mut client, &peer, address, relayed[0]);
    }
}

fn packets_on_their_way_arrive_after_the_move(backend: Backend) {
    let pool = four(backend);
    let server = pool.udp_addresses()[0];
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::udp(server);
    let (relayed, mut ticket) = allocate(&mut client, A::REQUESTED_ADDRESS_FAMILY, 1);
    client.permit(address);
    for round in 0..MOVES {
        let before = client;
        client = Client::udp(server);
        // The client's first request there tells it a nonce and moves nothing.
        client.request(Method::REFRESH, |_| {});
        for n in 0..20_u8 {
            peer.send_to(&[n; 50], relayed[0]).unwrap();
        }
        ticket = take_along(&mut client, &ticket);
        client.permit(address);
        peer.send_to(b"last", relayed[0]).unwrap();
        // Each packet has gone to one of the two addresses.
        let mut arrived = Vec::new();
        loop {
            match client.recv() {
                Data::Indication(_, data) if data == b"last" => break,
                Data::Indication(_, data) => arrived.push(data[0]),
                other => panic!("{other:?}"),
            }
        }
        arrived.extend(before.received(20));
        arrived.sort_unstable();
        assert_eq!(arrived, (0..20).collect::<Vec<u8>>(), "round {round}");
    }
}

fn a_worker_that_stalls_loses_nothing(backend: Backend) {
    let pool = four(backend);
    let server = pool.udp_addresses()[0];
    let (peer, address) = peer("127.0.0.1");
    let mut client = Client::udp(server);
    let (relayed, mut ticket) = allocate(&mut client, A::REQUESTED_ADDRESS_FAMILY, 1);
    client.permit(address);
    for _ in 0..4 {
        (0..4).for_each(|worker| pool.stall(worker, std::time::Duration::from_millis(300)));
        client = Client::udp(server);
        ticket = take_along(&mut client, &ticket);
        passes(&mut client, &peer, address, relayed[0]);
    }
    assert_eq!(pool.stats().allocations, 1);
}

fn a_dual_allocation_moves_with_both_its_sockets(backend: Backend) {
    let pool = four(backend);
    let server = pool.udp_addresses()[0];
    let peers = [peer("127.0.0.1"), peer("::1")];
    let mut client = Client::udp(server);
    let (relayed, mut ticket) = allocate(&mut client, A::ADDITIONAL_ADDRESS_FAMILY, 2);
    for (_, address) in &peers {
        client.permit(*address);
    }
    for _ in 0..MOVES {
        client = Client::udp(server);
        ticket = take_along(&mut client, &ticket);
        for ((peer, address), relayed) in peers.iter().zip(&relayed) {
            passes(&mut client, peer, *address, *relayed);
        }
    }
    assert!(pool.io_stats().allocations_moved > 0);
}
