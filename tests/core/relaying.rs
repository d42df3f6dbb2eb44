//! Send and Data indications, and calls between two clients of this server: RFC 8656 §11.

use std::sync::Arc;

use turnkey::stun::{AttributeType, Class, MessageWriter, Method};
use turnkey::turn::{DropReason, IpFields, Output, RelayId, Shared, Transport};

use crate::lab::{Client, Event, Lab, PEER, addr, channel_data, data_indication, path, settings};

const HERE: &str = "192.0.2.9:40000";

fn to_client(events: &[Event]) -> Vec<u8> {
    match events {
        [Event::ToClient(_, bytes)] => bytes.clone(),
        other => panic!("not one packet to a client: {other:?}"),
    }
}

#[test]
fn rfc8656_11_3_data_indications_for_every_length_and_family() {
    let mut lab = Lab::new();
    let four = Client::new(&mut lab, HERE);
    let six = Client::new(&mut lab, "192.0.2.9:6");
    let relayed4 = four.allocate(&mut lab);
    let relayed6 = six.allocate_v6(&mut lab);
    four.permit(&mut lab, PEER);
    six.permit(&mut lab, "[2600::9]:1");
    let mut transactions = std::collections::HashSet::new();
    for len in [0, 1, 2, 3, 4, 5, 160, 1200, 9000, 65_504] {
        let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
        for (relayed, peer) in [(relayed4, PEER), (relayed6, "[2600::9]:1234")] {
            let bytes = to_client(&lab.peer_sends(relayed, peer, &data));
            assert_eq!(data_indication(&bytes), (addr(peer), data.clone()));
            assert!(transactions.insert(bytes[8..20].to_vec()), "a fresh transaction id");
        }
    }
    // What does not fit into a STUN message cannot be told.
    assert_eq!(lab.peer_sends(relayed6, "[2600::9]:1", &[0; 65_507]), []);
}

#[test]
fn rfc8656_11_2_send_reaches_the_peer_and_its_errors_are_silent() {
    let mut lab = Lab::with(|settings| settings.dont_fragment = false);
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.permit(&mut lab, PEER);
    let relay = lab.relays()[0].0;
    assert_eq!(client.send(&mut lab, PEER, b"abc"), [Event::ToPeer(relay, addr(PEER), b"abc".to_vec())]);
    assert_eq!(client.send(&mut lab, PEER, b""), [Event::ToPeer(relay, addr(PEER), vec![])]);
    assert_eq!(client.send(&mut lab, "[2600::9]:1", b"x"), [], "wrong family");
    let broken: [&dyn Fn(&mut MessageWriter<'_>); 4] = [
        &|w| {
            w.attribute(AttributeType::DATA, b"x");
        },
        &|w| {
            w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(PEER));
        },
        &|w| {
            w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(PEER)).attribute(AttributeType::DATA, b"x");
            w.attribute(AttributeType::DONT_FRAGMENT, &[]);
        },
        &|w| {
            w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(PEER)).attribute(AttributeType::DATA, b"x");
            w.attribute(AttributeType(0x7F00), &[]);
        },
    ];
    for fill in broken {
        let mut buffer = [0; 256];
        let transaction = lab.transaction();
        let mut writer = MessageWriter::new(&mut buffer, Class::Indication, Method::SEND, transaction);
        fill(&mut writer);
        let len = writer.finish().unwrap();
        lab.silent(client.path, &buffer[..len]);
    }
    assert_eq!(lab.server.stats().drops[DropReason::UnusableIndication as usize], 4);
}

#[test]
fn rfc8489_14_the_first_peer_address_of_a_send_counts() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.permit(&mut lab, "1.1.1.1:1");
    let mut buffer = [0; 256];
    let transaction = lab.transaction();
    let len = MessageWriter::new(&mut buffer, Class::Indication, Method::SEND, transaction)
        .xor_address(AttributeType::XOR_PEER_ADDRESS, addr(PEER))
        .xor_address(AttributeType::XOR_PEER_ADDRESS, addr("1.1.1.1:1"))
        .attribute(AttributeType::DATA, b"x")
        .finish()
        .unwrap();
    lab.silent(client.path, &buffer[..len]);
}

/// Two clients that permitted each other's relayed addresses.
fn pair(lab: &mut Lab, second: Transport) -> [(Client, std::net::SocketAddr); 2] {
    let one = Client::new(lab, HERE);
    let two = Client::with(lab, path("192.0.2.10:1", second), "other", "word");
    let (relayed_one, relayed_two) = (one.allocate(lab), two.allocate(lab));
    assert_eq!(one.permit(lab, &relayed_two.to_string()), None);
    assert_eq!(two.permit(lab, &relayed_one.to_string()), None);
    [(one, relayed_one), (two, relayed_two)]
}

#[test]
fn design_4_6_relay_to_relay_never_enters_a_relay_socket() {
    let mut lab = Lab::new();
    let [(one, relayed_one), (two, relayed_two)] = pair(&mut lab, Transport::Tcp);
    let bytes = to_client(&one.send(&mut lab, &relayed_two.to_string(), b"hello"));
    assert_eq!(data_indication(&bytes), (relayed_one, b"hello".to_vec()));

    one.bind(&mut lab, 0x4001, &relayed_two.to_string());
    two.bind(&mut lab, 0x4002, &relayed_one.to_string());
    let mut padded = channel_data(0x4002, b"hello");
    padded.extend([0; 3]);
    assert_eq!(one.channel(&mut lab, 0x4001, b"hello"), [Event::ToClient(two.path, padded)]);
    assert_eq!(
        two.channel(&mut lab, 0x4002, b"hello"),
        [Event::ToClient(one.path, channel_data(0x4001, b"hello"))]
    );
    let stats = lab.server.stats();
    assert_eq!((stats.to_peer_packets, stats.to_client_packets), (3, 3));
}

#[test]
fn design_4_6_relay_to_relay_needs_both_permissions() {
    let mut lab = Lab::new();
    let one = Client::new(&mut lab, HERE);
    let two = Client::with(&mut lab, path("192.0.2.10:1", Transport::Udp), "other", "word");
    let (relayed_one, relayed_two) = (one.allocate(&mut lab), two.allocate(&mut lab));
    assert_eq!(one.send(&mut lab, &relayed_two.to_string(), b"x"), []);
    one.permit(&mut lab, &relayed_two.to_string());
    // One public address for all relays: the permission of `two` is for the address of the server.
    assert_eq!(one.send(&mut lab, &relayed_two.to_string(), b"x"), []);
    two.permit(&mut lab, &relayed_one.to_string());
    assert_eq!(one.send(&mut lab, &relayed_two.to_string(), b"x").len(), 1);
}

#[test]
fn design_4_4_an_own_address_is_reachable_only_where_an_allocation_lives() {
    let mut lab = Lab::with(|settings| {
        // As on a host whose only address is private.
        settings.addresses[0].public = settings.addresses[0].bind;
    });
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    assert_eq!(client.permit(&mut lab, "10.0.0.1:22"), None, "ports are judged later");
    assert_eq!(client.send(&mut lab, "10.0.0.1:22", b"x"), []);
    assert_eq!(client.bind(&mut lab, 0x4000, "10.0.0.1:22"), Some(403));
    let own = lab.relays()[0].1;
    assert_eq!(lab.peer_sends(own, "10.0.0.1:22", b"x"), [], "nor does anything come from there");
    let other = Client::new(&mut lab, "192.0.2.10:1");
    let relayed = other.allocate(&mut lab);
    other.permit(&mut lab, "10.0.0.1:1");
    assert_eq!(client.bind(&mut lab, 0x4000, &relayed.to_string()), None);
    assert_eq!(client.channel(&mut lab, 0x4000, b"x").len(), 1);
    other.refresh(&mut lab, 0);
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), [], "gone with the allocation");
}

#[test]
fn design_4_5_relays_of_another_worker_meet_behind_one_to_one_nat() {
    let shared = Arc::new(Shared::new(49152..=65535));
    let mut here = Lab::of(settings(), Arc::clone(&shared));
    let mut there = Lab::of(settings(), shared);
    let one = Client::new(&mut here, HERE);
    let two = Client::new(&mut there, "192.0.2.10:1");
    let (relayed_one, relayed_two) = (one.allocate(&mut here), two.allocate(&mut there));
    one.permit(&mut here, &relayed_two.to_string());
    two.permit(&mut there, &relayed_one.to_string());
    // The public address never leaves the host: the packet goes to the local address of the other relay ...
    let local_one = here.relays()[0].1;
    let events = one.send(&mut here, &relayed_two.to_string(), b"x");
    assert_eq!(events, [Event::ToPeer(RelayId(0), there.relays()[0].1, b"x".to_vec())]);
    // ... where its source is known by its public name.
    let bytes = to_client(&there.peer_sends(relayed_two, &local_one.to_string(), b"x"));
    assert_eq!(data_indication(&bytes), (relayed_one, b"x".to_vec()));
}

#[test]
fn a_packet_for_a_relay_that_has_just_closed_is_dropped() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let relay = lab.relays()[0].0;
    client.refresh(&mut lab, 0);
    assert_eq!(lab.outputs.last(), Some(&Output::CloseRelay { relay }));
    let verdict = lab.server.handle_peer(lab.now(), relay, addr(PEER), IpFields::default(), b"x");
    assert_eq!(verdict, turnkey::turn::Verdict::Drop(DropReason::RelayGone));
}
