//! ICMP errors as Data indications: RFC 8656 §11.5.

use std::time::Duration;

use turnkey::stun::{AttributeType, Class, Method};
use turnkey::turn::{DropReason, Icmp};

use crate::lab::{Client, Event, Lab, PEER, addr};

const HERE: &str = "192.0.2.9:40000";
const SIX: &str = "[2600::9]:1234";
const PORT_UNREACHABLE: Icmp = Icmp { kind: 3, code: 3, data: 0 };

/// The peer and the ICMP attribute of the one indication that left.
fn told(lab: &Lab, client: &Client, events: &[Event]) -> (String, Vec<u8>) {
    let [Event::Answer(path, answer)] = events else { panic!("not one indication: {events:?}") };
    assert_eq!(*path, client.path);
    assert_eq!((answer.class, answer.message().method()), (Class::Indication, Method::DATA));
    assert_eq!(answer.message().attributes().count(), 2, "no DATA");
    assert_eq!(lab.allocations(), 1);
    let peer = answer.xor_address(AttributeType::XOR_PEER_ADDRESS).unwrap();
    (peer.to_string(), answer.value(AttributeType::ICMP).unwrap())
}

/// A client that relays to this peer.
fn permitted(lab: &mut Lab, peer: &str) -> Client {
    let client = Client::new(lab, HERE);
    if peer == SIX {
        client.allocate_v6(lab)
    } else {
        client.allocate(lab)
    };
    client.permit(lab, peer);
    client
}

fn drops(lab: &Lab, reason: DropReason) -> u64 {
    lab.server.stats().drops[reason as usize]
}

#[test]
fn rfc8656_11_5_errors_of_both_families_are_told_with_type_code_and_mtu() {
    // (peer, type, code, data as the system gives it, the attribute's last six bytes)
    let table: [(&str, u8, u8, u32, [u8; 6]); 9] = [
        (PEER, 3, 0, 0, [6, 0, 0, 0, 0, 0]),
        (PEER, 3, 3, 77, [6, 3, 0, 0, 0, 0]),
        (PEER, 3, 4, 0xFFFF_0514, [6, 4, 0, 0, 0x05, 0x14]),
        (PEER, 3, 13, 5, [6, 13, 0, 0, 0, 0]),
        (PEER, 11, 0, 5, [22, 0, 0, 0, 0, 0]),
        (SIX, 1, 4, 5, [2, 4, 0, 0, 0, 0]),
        (SIX, 2, 0, 0x0001_0500, [4, 0, 0, 1, 5, 0]),
        (SIX, 3, 0, 5, [6, 0, 0, 0, 0, 0]),
        (SIX, 3, 1, 5, [6, 1, 0, 0, 0, 0]),
    ];
    for (peer, kind, code, data, last) in table {
        let mut lab = Lab::new();
        let client = permitted(&mut lab, peer);
        let events = lab.peer_error(peer, Icmp { kind, code, data });
        let (from, value) = told(&lab, &client, &events);
        assert_eq!((from.as_str(), &value[..2], &value[2..]), (peer, &[0, 0][..], &last[..]));
    }
}

#[test]
fn rfc8656_11_5_other_types_are_ignored() {
    for (peer, kinds) in [(PEER, [0, 1, 2, 4, 5, 12, 255]), (SIX, [0, 4, 11, 127, 128, 137, 255])] {
        let mut lab = Lab::new();
        permitted(&mut lab, peer);
        for kind in kinds {
            assert_eq!(lab.peer_error(peer, Icmp { kind, code: 0, data: 0 }), [], "{peer} {kind}");
        }
        assert_eq!((drops(&lab, DropReason::PeerError), lab.allocations()), (7, 1));
    }
}

#[test]
fn rfc8656_11_5_a_peer_without_permission_says_nothing() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    assert_eq!(lab.peer_error(PEER, PORT_UNREACHABLE), []);
    client.permit(&mut lab, PEER);
    assert_eq!(lab.peer_error("9.9.8.8:1", PORT_UNREACHABLE), []);
    assert_eq!(lab.peer_error(PEER, PORT_UNREACHABLE).len(), 1);
    lab.advance(Duration::from_secs(300));
    assert_eq!(lab.peer_error(PEER, PORT_UNREACHABLE), [], "the permission has expired");
    assert_eq!(drops(&lab, DropReason::NoPermission), 3);
}

#[test]
fn rfc8656_11_5_a_client_is_told_of_twenty_at_once_and_twenty_a_second() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.permit(&mut lab, PEER);
    let flood =
        |lab: &mut Lab| (0..1000).filter(|_| !lab.peer_error(PEER, PORT_UNREACHABLE).is_empty()).count();
    assert_eq!(flood(&mut lab), 20);
    lab.mono += Duration::from_millis(500);
    assert_eq!(flood(&mut lab), 10);
    assert_eq!(drops(&lab, DropReason::PeerError), 2000 - 30);
    assert_eq!(lab.peer_sends(relayed, PEER, b"x").len(), 1, "data goes on");
}

#[test]
fn an_error_of_an_allocation_that_is_gone_is_dropped() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.permit(&mut lab, PEER);
    let relay = lab.relays()[0].0;
    client.refresh(&mut lab, 0);
    assert_eq!(lab.peer_error_at(relay, addr(PEER), PORT_UNREACHABLE), []);
    assert_eq!(drops(&lab, DropReason::RelayGone), 1);
}
