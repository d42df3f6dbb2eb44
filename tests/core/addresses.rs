//! Several relay addresses, 1:1 NAT, and addresses that change: section 4.5 of the design.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use turnkey::turn::{ClientPath, RelayAddress, Settings, Shared, Transport, WorkerId};

use crate::lab::{Client, Event, Lab, PEER, addr, data_indication, path, settings};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn behind_nat(public: &str, bind: &str) -> RelayAddress {
    RelayAddress { bind: ip(bind), public: ip(public) }
}

/// Two IPv4 addresses, each behind 1:1 NAT.
fn two_addresses(settings: &mut Settings) {
    settings.addresses = vec![behind_nat("198.51.100.1", "10.0.0.1"), behind_nat("198.51.100.2", "10.0.0.2")];
}

/// A client that came to `server`.
fn came_to(lab: &mut Lab, client: &str, server: &str) -> Client {
    let mut path: ClientPath = path(client, Transport::Udp);
    path.five_tuple.server = addr(server);
    Client::with(lab, path, "static", "pass")
}

fn to_client(events: &[Event]) -> (SocketAddr, Vec<u8>) {
    let [Event::ToClient(_, bytes)] = events else { panic!("not one packet to a client: {events:?}") };
    data_indication(bytes)
}

#[test]
fn a_client_gets_the_relay_address_it_came_to() {
    let mut lab = Lab::with(two_addresses);
    for n in 0..6 {
        for (server, public) in [("10.0.0.1:3478", "198.51.100.1"), ("10.0.0.2:3478", "198.51.100.2")] {
            let client = came_to(&mut lab, &format!("192.0.2.{n}:40000"), server);
            assert_eq!(client.allocate(&mut lab).ip(), ip(public));
        }
    }
}

#[test]
fn others_get_the_relay_address_with_most_free_ports() {
    let mut lab = Lab::with(|settings| {
        two_addresses(settings);
        settings.ports = 50_000..=50_003;
    });
    // One address has a head start of two.
    for n in 0..2 {
        came_to(&mut lab, &format!("192.0.2.{n}:1"), "10.0.0.1:3478").allocate(&mut lab);
    }
    let elsewhere: Vec<_> = (2..8)
        .map(|n| came_to(&mut lab, &format!("192.0.2.{n}:1"), "10.9.9.9:3478").allocate(&mut lab))
        .collect();
    let on = |public: &str| elsewhere.iter().filter(|relayed| relayed.ip() == ip(public)).count();
    assert_eq!((on("198.51.100.1"), on("198.51.100.2")), (2, 4));
    // Both addresses have used the whole range: ports are unique for each address, not in all.
    let mut all: Vec<_> = lab.relays().into_iter().map(|(_, bind)| bind).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 8);
}

#[test]
fn a_full_address_does_not_keep_its_clients_out() {
    let mut lab = Lab::with(|settings| {
        two_addresses(settings);
        settings.ports = 50_000..=50_000;
    });
    let first = came_to(&mut lab, "192.0.2.1:1", "10.0.0.1:3478").allocate(&mut lab);
    let second = came_to(&mut lab, "192.0.2.2:1", "10.0.0.1:3478").allocate(&mut lab);
    assert_eq!((first, second), (addr("198.51.100.1:50000"), addr("198.51.100.2:50000")));
}

#[test]
fn design_4_5_two_clients_behind_different_public_addresses_meet_inside() {
    let mut lab = Lab::with(two_addresses);
    let one = came_to(&mut lab, "192.0.2.1:1", "10.0.0.1:3478");
    let two = came_to(&mut lab, "192.0.2.2:1", "10.0.0.2:3478");
    let (relayed_one, relayed_two) = (one.allocate(&mut lab), two.allocate(&mut lab));
    assert_eq!(one.permit(&mut lab, &relayed_two.to_string()), None);
    assert_eq!(two.permit(&mut lab, &relayed_one.to_string()), None);
    let events = one.send(&mut lab, &relayed_two.to_string(), b"there");
    assert_eq!(to_client(&events), (relayed_one, b"there".to_vec()));
    let events = two.send(&mut lab, &relayed_one.to_string(), b"back");
    assert_eq!(to_client(&events), (relayed_two, b"back".to_vec()));
    // The same port of the other address is somebody else's, or nobody's.
    let elsewhere = SocketAddr::new(relayed_one.ip(), relayed_two.port());
    assert_eq!(one.permit(&mut lab, &elsewhere.to_string()), None);
    assert!(!matches!(&one.send(&mut lab, &elsewhere.to_string(), b"x")[..], [Event::ToClient(..)]));
}

#[test]
fn design_4_5_relays_of_different_addresses_and_workers_meet_behind_nat() {
    let mut settings = settings();
    two_addresses(&mut settings);
    let shared = Arc::new(Shared::new(49152..=65535));
    let mut here = Lab::worker(settings.clone(), Arc::clone(&shared), WorkerId(0));
    let mut there = Lab::worker(settings, shared, WorkerId(1));
    let one = came_to(&mut here, "192.0.2.1:1", "10.0.0.1:3478");
    let two = came_to(&mut there, "192.0.2.2:1", "10.0.0.2:3478");
    let (relayed_one, relayed_two) = (one.allocate(&mut here), two.allocate(&mut there));
    one.permit(&mut here, &relayed_two.to_string());
    two.permit(&mut there, &relayed_one.to_string());
    let locals = (here.relays()[0].1.ip(), there.relays()[0].1.ip());
    assert_eq!(locals, (ip("10.0.0.1"), ip("10.0.0.2")));
    let events = one.send(&mut here, &relayed_two.to_string(), b"x");
    assert_eq!(to_client(&there.crosses(events)), (relayed_one, b"x".to_vec()));
}

#[test]
fn a_changed_address_is_given_to_new_allocations_and_old_ones_keep_theirs() {
    let mut before = settings();
    before.addresses = vec![behind_nat("198.51.100.1", "10.0.0.1")];
    let mut after = before.clone();
    after.addresses = vec![behind_nat("198.51.100.77", "10.0.0.1")];
    after.former = before.addresses.clone();
    let shared = Arc::new(Shared::new(49152..=65535));
    let mut here = Lab::worker(before.clone(), Arc::clone(&shared), WorkerId(0));
    let mut there = Lab::worker(before, shared, WorkerId(1));
    let old = Client::new(&mut here, "192.0.2.1:1");
    let relayed_old = old.allocate(&mut here);
    assert_eq!(relayed_old.ip(), ip("198.51.100.1"));
    here.server.reconfigure(after.clone());
    there.server.reconfigure(after);

    // The old allocation goes on, with its peers and for its retransmissions.
    assert_eq!(old.permit(&mut here, PEER), None);
    assert_eq!(old.send(&mut here, PEER, b"x").len(), 1);
    assert_eq!(old.refresh(&mut here, 600).error, None);

    // New ones get the new address, on this worker and on another, and old and new reach each other.
    for lab in [&mut here, &mut there] {
        let new = Client::new(lab, "192.0.2.2:1");
        let relayed_new = new.allocate(lab);
        assert_eq!(relayed_new.ip(), ip("198.51.100.77"));
        assert_eq!(new.permit(lab, &relayed_old.to_string()), None);
    }
    let new = Client::new(&mut there, "192.0.2.3:1");
    let relayed_new = new.allocate(&mut there);
    new.permit(&mut there, &relayed_old.to_string());
    old.permit(&mut here, &relayed_new.to_string());
    // Each side is known by the name it was given.
    let sent = new.send(&mut there, &relayed_old.to_string(), b"x");
    assert_eq!(to_client(&here.crosses(sent)).0, relayed_new);
    let sent = old.send(&mut here, &relayed_new.to_string(), b"x");
    assert_eq!(to_client(&there.crosses(sent)).0, relayed_old);
}
