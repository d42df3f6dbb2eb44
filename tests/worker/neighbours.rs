//! Two clients of one server, on different workers: what they send to each other goes from worker to worker
//! and enters no relay socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::AttributeType as A;
use turnkey::turn::{Bandwidth, DropReason, RelayAddress};
use turnkey::worker::{self, Backend, Pool, Setup};

use crate::client::{Client, Data};
use crate::mobility::{allocate, take_along};
use crate::rig::{accept, four, ip, setup, spread, until};

on_each_backend!(
    calls_between_workers_enter_no_relay_socket,
    behind_one_to_one_nat_the_public_addresses_lead_inside,
    each_worker_holds_its_client_to_its_permissions_and_limits,
    a_worker_that_stands_still_loses_packets_that_are_counted,
    a_client_that_moves_is_found_by_its_neighbours,
    connections_take_part,
);

const CHANNEL: u16 = 0x4000;

/// A client with an allocation.
struct Party {
    client: Client,
    relayed: SocketAddr,
    /// The worker that has the allocation.
    home: usize,
}

impl Party {
    fn new(pool: &Pool, mut client: Client, family: u8) -> Self {
        let before = spread(pool, pool.allocations());
        let relayed = client.allocate(family);
        let home =
            spread(pool, pool.allocations()).iter().zip(before).position(|(now, before)| *now > before);
        Self { client, relayed, home: home.expect("some worker has it") }
    }

    /// Each on a channel of the other's.
    fn call(&mut self, other: &mut Self) {
        self.client.bind(CHANNEL, other.relayed);
        other.client.bind(CHANNEL, self.relayed);
    }

    fn says(&mut self, to: &mut Self, payload: &[u8]) {
        self.client.send_channel(CHANNEL, payload);
        assert_eq!(to.client.recv(), Data::Channel(CHANNEL, payload.to_vec()));
    }
}

/// Two clients of two workers. The kernel decides who comes to which.
fn apart(pool: &Pool, server: SocketAddr, family: u8) -> [Party; 2] {
    let first = Party::new(pool, Client::udp(server), family);
    // The others keep their ports, so that each new one is another.
    let mut others = Vec::new();
    for _ in 0..200 {
        let other = Party::new(pool, Client::udp(server), family);
        if other.home != first.home {
            return [first, other];
        }
        others.push(other);
    }
    panic!("200 clients of one worker");
}

fn workers(backend: Backend, workers: usize) -> Pool {
    worker::start(Setup { workers, ..setup(backend) }).unwrap()
}

fn calls_between_workers_enter_no_relay_socket(backend: Backend) {
    for (count, server, family) in [(2, 0, 1), (4, 1, 2), (4, 0, 2)] {
        let pool = workers(backend, count);
        let [mut one, mut two] = apart(&pool, pool.udp_addresses()[server], family);
        one.call(&mut two);
        // Both have been told before they are asked.
        spread(&pool, pool.allocations());
        let (io, before) = (pool.io_stats(), pool.stats());
        for n in 0..100_usize {
            let payload = vec![n as u8; n * 12];
            one.says(&mut two, &payload);
            two.says(&mut one, &payload);
        }
        one.client.send_indication(two.relayed, b"not on the channel");
        assert_eq!(two.client.recv(), Data::Channel(CHANNEL, b"not on the channel".to_vec()));
        // Through a relay socket each would have been sent and received twice.
        until("each was received once and sent once", || {
            let now = pool.io_stats();
            let moved = (now.recv_packets - io.recv_packets, now.send_packets - io.send_packets);
            (moved, now.handed_on - io.handed_on, now.ring_drops) == ((201, 201), 201, 0)
        });
        until("each was counted both ways", || {
            let now = pool.stats();
            let bytes =
                (now.to_peer_bytes - before.to_peer_bytes, now.to_client_bytes - before.to_client_bytes);
            let counts = [
                now.to_peer_packets - before.to_peer_packets,
                now.to_client_packets - before.to_client_packets,
            ];
            counts == [201; 2] && bytes == (2 * 12 * 4950 + 18, 2 * 12 * 4950 + 18)
        });
    }
}

fn behind_one_to_one_nat_the_public_addresses_lead_inside(backend: Backend) {
    let mut setup = Setup { workers: 2, ..setup(backend) };
    setup.settings.addresses = vec![RelayAddress { bind: ip("127.0.0.1"), public: ip("192.0.2.1") }];
    let pool = worker::start(setup).unwrap();
    let [mut one, mut two] = apart(&pool, pool.udp_addresses()[0], 1);
    assert_eq!((one.relayed.ip(), two.relayed.ip()), (ip("192.0.2.1"), ip("192.0.2.1")));
    one.call(&mut two);
    one.says(&mut two, b"there");
    two.says(&mut one, b"and back");
    assert_eq!(pool.io_stats().handed_on, 2);
}

fn each_worker_holds_its_client_to_its_permissions_and_limits(backend: Backend) {
    let mut setup = Setup { workers: 2, ..setup(backend) };
    // A packet of a thousand bytes takes a hundred seconds to make up for.
    setup.settings.bandwidth = Bandwidth { user: 0, total: 0, allocation: 10 };
    let pool = worker::start(setup).unwrap();
    let [mut one, mut two] = apart(&pool, pool.udp_addresses()[0], 1);
    let drops = |of: &Party, reason: DropReason| pool.worker_stats()[of.home].drops[reason as usize];
    one.client.send_indication(two.relayed, b"x");
    until("the sender's worker drops it", || drops(&one, DropReason::NoPermission) == 1);
    one.client.permit(two.relayed);
    one.client.send_indication(two.relayed, b"x");
    until("the receiver's worker drops it", || drops(&two, DropReason::NoPermission) == 1);
    two.client.permit(one.relayed);
    one.client.send_indication(two.relayed, &[1; 1000]);
    assert_eq!(two.client.recv(), Data::Indication(one.relayed, vec![1; 1000]));
    for _ in 0..5 {
        one.client.send_indication(two.relayed, &[2; 1000]);
    }
    until("the sender's worker drops them", || drops(&one, DropReason::OverBandwidth) == 5);
    let mut third = Party::new(&pool, Client::udp(pool.udp_addresses()[0]), 1);
    while third.home == two.home {
        third = Party::new(&pool, Client::udp(pool.udp_addresses()[0]), 1);
    }
    third.client.permit(two.relayed);
    third.client.send_indication(two.relayed, &[3; 1000]);
    until("the receiver's worker drops it", || drops(&two, DropReason::OverBandwidth) == 1);
    two.client.send_indication(third.relayed, b"the other way is counted apart");
    let Data::Indication(from, _) = third.client.recv() else { panic!("no channel is bound") };
    assert_eq!(from, two.relayed);
}

fn a_worker_that_stands_still_loses_packets_that_are_counted(backend: Backend) {
    let pool = workers(backend, 2);
    let [mut one, mut two] = apart(&pool, pool.udp_addresses()[0], 1);
    one.call(&mut two);
    until("the ring is full", || {
        pool.stall(two.home, Duration::from_secs(1));
        (0..500).for_each(|_| one.client.send_channel(CHANNEL, &[7; 1000]));
        pool.io_stats().ring_drops > 0
    });
    assert_eq!(two.client.recv(), Data::Channel(CHANNEL, vec![7; 1000]), "what was waiting comes first");
    until("the ring is read", || {
        one.client.send_channel(CHANNEL, b"well again");
        two.client.recv() == Data::Channel(CHANNEL, b"well again".to_vec())
    });
}

fn a_client_that_moves_is_found_by_its_neighbours(backend: Backend) {
    let pool = four(backend, |settings| settings.mobility = true);
    let server = pool.udp_addresses()[0];
    let mut still = Party::new(&pool, Client::udp(server), 1);
    let mut client = Client::udp(server);
    let (relayed, mut ticket) = allocate(&mut client, A::REQUESTED_ADDRESS_FAMILY, 1);
    let mut moving = Party { client, relayed: relayed[0], home: 0 };
    moving.call(&mut still);
    for round in 0..12_u8 {
        moving.client = Client::udp(server);
        ticket = take_along(&mut moving.client, &ticket);
        moving.says(&mut still, &[round; 100]);
        still.says(&mut moving, &[round; 100]);
    }
    until("it has moved, and packets with it", || {
        let io = pool.io_stats();
        io.allocations_moved > 0 && io.handed_on > 0 && io.ring_drops == 0
    });
}

fn connections_take_part(backend: Backend) {
    let pool = Arc::new(workers(backend, 2));
    let address = accept(&pool, "127.0.0.1");
    // Connections are spread evenly.
    let mut one = Party::new(&pool, Client::tcp(address), 1);
    let mut two = Party::new(&pool, Client::tcp(address), 1);
    assert_ne!(one.home, two.home);
    one.call(&mut two);
    for len in [0, 1, 2, 3, 1200, 60_000] {
        one.says(&mut two, &vec![9; len]);
        two.says(&mut one, &vec![9; len]);
    }
    until("no datagram was needed", || {
        let io = pool.io_stats();
        (io.handed_on, io.recv_packets, io.send_packets) == (12, 0, 0)
    });
}
