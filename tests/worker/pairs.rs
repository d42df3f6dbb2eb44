//! Several relay sockets for a client: dual allocations, and pairs of ports across workers.

use std::net::{SocketAddr, UdpSocket};

use turnkey::stun::{AttributeType as A, Class, Message, Method};
use turnkey::worker::{self, Backend, Setup};

use crate::client::{Client, Data};
use crate::rig::{echo, pool, setup, spread, until};

on_each_backend!(
    a_dual_allocation_relays_over_both_families,
    a_reserved_port_is_kept_from_other_programs_and_found_by_every_worker,
);

const UDP: u32 = 17 << 24;

/// Allocates; relayed addresses and token.
fn allocate(client: &mut Client, kind: A, value: &[u8]) -> (Vec<SocketAddr>, Option<Vec<u8>>) {
    let reply = client.request(Method::ALLOCATE, |writer| {
        writer.u32(A::REQUESTED_TRANSPORT, UDP).attribute(kind, value);
    });
    let message = Message::parse(&reply).unwrap();
    assert_eq!(message.class(), Class::Success);
    let relayed = message.attributes().filter(|attribute| attribute.kind == A::XOR_RELAYED_ADDRESS);
    let relayed = relayed.map(|attribute| attribute.as_xor_address(message.transaction()).unwrap());
    (relayed.collect(), message.attribute(A::RESERVATION_TOKEN).map(|token| token.value.to_vec()))
}

fn a_dual_allocation_relays_over_both_families(backend: Backend) {
    let pool = pool(backend);
    let mut client = Client::udp(pool.udp_addresses()[0]);
    let (relayed, _) = allocate(&mut client, A::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    assert!(matches!(relayed[..], [SocketAddr::V4(_), SocketAddr::V6(_)]), "{relayed:?}");
    for (channel, loopback) in [(0x4001, "127.0.0.1"), (0x4002, "::1")] {
        client.bind(channel, echo(loopback));
        client.send_channel(channel, loopback.as_bytes());
        assert_eq!(client.recv(), Data::Channel(channel, loopback.as_bytes().to_vec()));
    }
    client.release();
    for address in relayed {
        until("both sockets are closed", || UdpSocket::bind(address).is_ok());
    }
}

fn a_reserved_port_is_kept_from_other_programs_and_found_by_every_worker(backend: Backend) {
    let pool = worker::start(Setup { workers: 4, ..setup(backend) }).unwrap();
    let server = pool.udp_addresses()[0];
    let echo = echo("127.0.0.1");
    let mut crossed = 0;
    // The kernel decides which worker a client belongs to.
    for _ in 0..100 {
        let (mut rtp, mut rtcp) = (Client::udp(server), Client::udp(server));
        let (relayed, token) = allocate(&mut rtp, A::EVEN_PORT, &[0x80]);
        let home = spread(&pool, 1);
        let upper = SocketAddr::new(relayed[0].ip(), relayed[0].port() + 1);
        let taken = UdpSocket::bind(upper).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
        let (claimed, _) = allocate(&mut rtcp, A::RESERVATION_TOKEN, &token.unwrap());
        assert_eq!(claimed, [upper]);
        rtcp.bind(0x4001, echo);
        rtcp.send_channel(0x4001, b"over the reserved port");
        assert_eq!(rtcp.recv(), Data::Channel(0x4001, b"over the reserved port".to_vec()));
        crossed += u32::from(spread(&pool, 2).iter().zip(home).all(|(now, before)| *now < 2 && before < 2));
        rtp.release();
        rtcp.release();
        until("it is closed with its allocation", || UdpSocket::bind(upper).is_ok());
        if crossed == 3 {
            return;
        }
    }
    panic!("no pair was served by two workers");
}
