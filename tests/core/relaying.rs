//! Send and Data indications, and calls between two clients of this server: RFC 8656 §11.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType, Class, MessageWriter, Method};
use turnkey::turn::{DropReason, IpFields, Output, PeerPolicy, Settings, Shared, Transport, WorkerId};

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
fn pair(lab: &mut Lab, second: Transport) -> [(Client, SocketAddr); 2] {
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
fn design_4_4_an_own_address_that_may_be_reached_leads_out_only_while_no_relay_is_there() {
    let mut settings = settings();
    let own = settings.addresses[0].bind;
    settings.addresses[0].public = own;
    settings.ports = 50_000..=50_001;
    let allow = vec!["10.0.0.1/32".parse().unwrap()];
    settings.peers = Arc::new(PeerPolicy::new(allow, vec![], vec![], vec![own]));
    let mut lab = Lab::of(settings.clone(), Arc::new(Shared::new(settings.ports.clone())));
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    // The port that is left.
    let peer = SocketAddr::new(own, relayed.port() ^ 1);
    assert_eq!(client.bind(&mut lab, 0x4000, &peer.to_string()), None);
    let leaves = |events: Vec<Event>| matches!(&events[..], [Event::ToPeer(_, to, _)] if *to == peer);
    let arrives = |events: Vec<Event>| to_client(&events) == channel_data(0x4000, b"x");
    let relay = lab.relays()[0].1;
    for _ in 0..2 {
        assert!(leaves(client.channel(&mut lab, 0x4000, b"x")));
        assert!(arrives(lab.peer_sends(relay, &peer.to_string(), b"x")));
    }

    let other = Client::new(&mut lab, "192.0.2.10:1");
    assert_eq!(other.allocate(&mut lab), peer);
    other.permit(&mut lab, &relayed.to_string());
    for _ in 0..2 {
        let events = client.channel(&mut lab, 0x4000, b"x");
        assert!(
            matches!(&events[..], [Event::ToClient(path, _)] if *path == other.path),
            "inside: {events:?}"
        );
    }
    other.refresh(&mut lab, 0);
    for _ in 0..2 {
        assert!(leaves(client.channel(&mut lab, 0x4000, b"x")));
        assert!(arrives(lab.peer_sends(relay, &peer.to_string(), b"x")));
    }

    // What was allowed before is not remembered.
    settings.peers = Arc::new(PeerPolicy::new(vec![], vec![], vec![], vec![own]));
    lab.reconfigure(settings);
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), []);
    assert_eq!(lab.peer_sends(relay, &peer.to_string(), b"x"), []);
}

#[test]
fn design_4_5_relays_of_another_worker_meet_behind_one_to_one_nat() {
    let (mut here, mut there) = workers(&settings());
    let [(one, relayed_one), (_two, relayed_two)] = apart(&mut here, &mut there);
    // The public address never leaves the host, nor does the packet leave this program; its source is known
    // by its public name. The local name of the other relay leads there as well.
    one.permit(&mut here, &there.relays()[0].1.to_string());
    for name in [relayed_two, there.relays()[0].1] {
        let events = one.send(&mut here, &name.to_string(), b"x");
        let bytes = to_client(&there.crosses(events));
        assert_eq!(data_indication(&bytes), (relayed_one, b"x".to_vec()));
    }
}

/// Two workers of one process.
fn workers(settings: &Settings) -> (Lab, Lab) {
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    let worker = |n| Lab::worker(settings.clone(), Arc::clone(&shared), WorkerId(n));
    (worker(0), worker(3))
}

/// Clients of two workers that permitted each other's relayed addresses.
fn apart(here: &mut Lab, there: &mut Lab) -> [(Client, SocketAddr); 2] {
    let one = Client::new(here, HERE);
    let two = Client::with(there, path("192.0.2.10:1", Transport::Tcp), "other", "word");
    let (relayed_one, relayed_two) = (one.allocate(here), two.allocate(there));
    assert_eq!(one.permit(here, &relayed_two.to_string()), None);
    assert_eq!(two.permit(there, &relayed_one.to_string()), None);
    [(one, relayed_one), (two, relayed_two)]
}

#[test]
fn design_4_6_between_workers_each_judges_its_own_half() {
    let (mut here, mut there) = workers(&settings());
    let [(one, relayed_one), (two, relayed_two)] = apart(&mut here, &mut there);
    one.bind(&mut here, 0x4001, &relayed_two.to_string());
    two.bind(&mut there, 0x4002, &relayed_one.to_string());
    here.ip = IpFields { tos: 0xB8 };
    let sent = one.channel(&mut here, 0x4001, b"hello");
    assert_eq!(here.left_with, Some((IpFields { tos: 0xB8 }, false)));
    let [Event::ToNeighbour(owner, from, payload)] = &sent[..] else { panic!("across: {sent:?}") };
    assert_eq!((owner.worker(), *from, &payload[..]), (WorkerId(3), relayed_one, &b"hello"[..]));
    let mut padded = channel_data(0x4002, b"hello");
    padded.extend([0; 3]);
    assert_eq!(there.crosses(sent), [Event::ToClient(two.path, padded)]);
    let sent = two.channel(&mut there, 0x4002, b"back");
    assert_eq!(here.crosses(sent), [Event::ToClient(one.path, channel_data(0x4001, b"back"))]);
    // Each worker counts what it has judged.
    for lab in [&here, &there] {
        let stats = lab.server.stats();
        assert_eq!((stats.to_peer_packets, stats.to_client_packets), (1, 1));
        assert_eq!(stats.to_peer_bytes + stats.to_client_bytes, 9);
    }
}

#[test]
fn design_4_6_between_workers_both_permissions_count_as_long_as_they_live() {
    let (mut here, mut there) = workers(&settings());
    let one = Client::new(&mut here, HERE);
    let two = Client::with(&mut there, path("192.0.2.10:1", Transport::Udp), "other", "word");
    let (relayed_one, relayed_two) = (one.allocate(&mut here), two.allocate(&mut there));
    let there_drops = |lab: &Lab, reason| lab.server.stats().drops[reason as usize];
    assert_eq!(one.send(&mut here, &relayed_two.to_string(), b"x"), [], "the sender's is missing");
    one.permit(&mut here, &relayed_two.to_string());
    let sent = one.send(&mut here, &relayed_two.to_string(), b"x");
    assert_eq!(sent.len(), 1);
    assert_eq!(there.crosses(sent), [], "the receiver's is missing");
    assert_eq!(there_drops(&there, DropReason::NoPermission), 1);
    two.permit(&mut there, &relayed_one.to_string());
    let sent = one.send(&mut here, &relayed_two.to_string(), b"x");
    assert_eq!(there.crosses(sent).len(), 1);
    // Permissions live five minutes (RFC 8656 §9).
    there.advance(Duration::from_secs(300));
    let sent = one.send(&mut here, &relayed_two.to_string(), b"x");
    assert_eq!((sent.len(), there.crosses(sent).len()), (1, 0));
    here.advance(Duration::from_secs(300));
    assert_eq!(one.send(&mut here, &relayed_two.to_string(), b"x"), []);
}

#[test]
fn a_packet_on_its_way_reaches_no_successor() {
    // One port: whoever comes next gets it.
    let (mut here, mut there) = workers(&Settings { ports: 50_000..=50_001, ..settings() });
    let [(one, relayed_one), (two, relayed_two)] = apart(&mut here, &mut there);
    let late = one.send(&mut here, &relayed_two.to_string(), b"late");
    two.refresh(&mut there, 0);
    assert_eq!(one.send(&mut here, &relayed_two.to_string(), b"x"), [], "nobody lives there");
    let heir = Client::with(&mut there, path("192.0.2.11:1", Transport::Udp), "other", "word");
    assert_eq!(heir.allocate(&mut there), relayed_two);
    heir.permit(&mut there, &relayed_one.to_string());
    assert_eq!(there.crosses(late), []);
    assert_eq!(there.server.stats().drops[DropReason::RelayGone as usize], 1);
    let sent = one.send(&mut here, &relayed_two.to_string(), b"x");
    assert_eq!(there.crosses(sent).len(), 1, "the heir is as good a peer as any");
}

#[test]
fn a_packet_for_a_relay_that_has_just_closed_is_dropped() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let relay = lab.relays()[0].0;
    client.refresh(&mut lab, 0);
    assert_eq!(lab.outputs.last(), Some(&Output::CloseRelay { relay }));
    let verdict = lab.server.handle_peer(lab.now(), relay, addr(PEER), IpFields::default(), b"x"[..].into());
    assert_eq!(verdict, turnkey::turn::Verdict::Drop(DropReason::RelayGone));
}
