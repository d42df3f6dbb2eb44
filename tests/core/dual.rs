//! Dual allocations: an address of each family (RFC 8656 §7.2, §8).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType, Class, MessageWriter, Method};
use turnkey::turn::{OpenError, Shared};

use crate::lab::{Answer, Client, Event, Lab, PEER, UDP, addr, channel_data, data_indication, settings};

const HERE: &str = "192.0.2.9:40000";
const PEER6: &str = "[2600::9]:5000";

fn both(w: &mut MessageWriter<'_>) {
    w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP)
        .attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
}

fn relayed(answer: &Answer) -> Vec<SocketAddr> {
    let message = answer.message();
    let found = message.attributes().filter(|a| a.kind == AttributeType::XOR_RELAYED_ADDRESS);
    found.map(|a| a.as_xor_address(message.transaction()).unwrap()).collect()
}

/// Family and number of ADDRESS-ERROR-CODE.
fn refused(answer: &Answer) -> Option<(u8, u16)> {
    let value = answer.value(AttributeType::ADDRESS_ERROR_CODE)?;
    Some((value[0], u16::from(value[2]) * 100 + u16::from(value[3])))
}

fn allocated() -> (Lab, Client, Vec<SocketAddr>) {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let answer = client.call(&mut lab, Method::ALLOCATE, both);
    let relayed = relayed(&answer);
    assert_eq!((answer.error, relayed.len()), (None, 2));
    (lab, client, relayed)
}

fn refresh(lab: &mut Lab, client: &Client, family: u8, lifetime: u32) -> Answer {
    client.call(lab, Method::REFRESH, |w| {
        w.u32(AttributeType::LIFETIME, lifetime)
            .attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
    })
}

#[test]
fn rfc8656_7_2_a_dual_allocation_has_two_relayed_addresses_and_its_retransmission_repeats_them() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let packet = client.signed(lab.transaction(), Method::ALLOCATE, both);
    let answer = lab.ask(client.path, &packet);
    assert_eq!((answer.class, answer.lifetime()), (Class::Success, Some(600)));
    assert_eq!(refused(&answer), None);
    let addresses = relayed(&answer);
    assert_eq!(addresses.len(), 2);
    assert_eq!(addresses[0].ip(), addr("198.51.100.1:1").ip());
    assert_eq!(addresses[1].ip(), addr("[2600::1]:1").ip());
    let open: Vec<_> = lab.relays().iter().map(|(relay, bind)| (relay.0, bind.port())).collect();
    assert_eq!(open, [(0, addresses[0].port()), (1, addresses[1].port())]);
    assert_eq!(relayed(&lab.ask(client.path, &packet)), addresses);
    assert_eq!((lab.allocations(), lab.open.len()), (1, 2));
}

#[test]
fn rfc8656_7_2_half_a_dual_allocation_says_why_the_other_half_is_missing() {
    // As the sockets open: IPv4 first.
    for (results, family, missing) in
        [(vec![Err(OpenError::Exhausted), Ok(())], 2, 1), (vec![Ok(()), Err(OpenError::Unavailable)], 1, 2)]
    {
        let mut lab = Lab::new();
        let client = Client::new(&mut lab, HERE);
        lab.open_results = results;
        let packet = client.signed(lab.transaction(), Method::ALLOCATE, both);
        let answer = lab.ask(client.path, &packet);
        let addresses = relayed(&answer);
        assert_eq!((addresses.len(), addresses[0].is_ipv4()), (1, family == 1));
        assert_eq!(refused(&answer), Some((missing, 508)));
        let again = lab.ask(client.path, &packet);
        assert_eq!((relayed(&again), refused(&again)), (addresses, Some((missing, 508))), "mistake 1");
        assert_eq!(lab.open.len(), 1);
        assert_eq!(refresh(&mut lab, &client, missing, 600).error, Some(443));
    }
    for (absent, missing) in [(1, 2), (0, 1)] {
        let mut lab = Lab::with(|settings| {
            settings.addresses.remove(absent);
        });
        let client = Client::new(&mut lab, HERE);
        let answer = client.call(&mut lab, Method::ALLOCATE, both);
        assert_eq!((relayed(&answer).len(), refused(&answer)), (1, Some((missing, 440))));
    }
}

#[test]
fn rfc8656_7_2_when_both_halves_fail_there_is_no_allocation() {
    let settings = turnkey::turn::Settings { ports: 50_000..=50_001, ..settings() };
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    let mut lab = Lab::of(settings, Arc::clone(&shared));
    let client = Client::new(&mut lab, HERE);
    lab.open_results = vec![Err(OpenError::Exhausted); 2];
    assert_eq!(client.call(&mut lab, Method::ALLOCATE, both).error, Some(508));
    assert_eq!((lab.allocations(), shared.allocations(), lab.open.len()), (0, 0, 0));
    // Nothing was lost: two dual allocations fit, the third finds no port.
    for port in 1..=2 {
        let client = Client::new(&mut lab, &format!("192.0.2.9:{port}"));
        assert_eq!(relayed(&client.call(&mut lab, Method::ALLOCATE, both)).len(), 2);
    }
    assert_eq!(client.call(&mut lab, Method::ALLOCATE, both).error, Some(508));
    let mut none = Lab::with(|settings| settings.addresses.clear());
    let client = Client::new(&mut none, HERE);
    assert_eq!(client.call(&mut none, Method::ALLOCATE, both).error, Some(440));
}

#[test]
fn rfc8656_7_2_another_port_is_drawn_for_the_half_whose_port_is_taken() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    lab.open_results = vec![Err(OpenError::InUse), Ok(()), Err(OpenError::InUse), Ok(())];
    let answer = client.call(&mut lab, Method::ALLOCATE, both);
    let addresses = relayed(&answer);
    assert_eq!((addresses.len(), refused(&answer)), (2, None));
    let open: Vec<_> = lab.relays().iter().map(|(_, bind)| bind.port()).collect();
    assert_eq!(open, [addresses[0].port(), addresses[1].port()]);
}

#[test]
fn rfc8656_7_2_what_cannot_be_combined_with_two_families_is_400() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let with = |lab: &mut Lab, additional: &[u8], kind: AttributeType, value: &[u8]| {
        let answer = client.call(lab, Method::ALLOCATE, |w| {
            w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP)
                .attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, additional)
                .attribute(kind, value);
        });
        answer.error
    };
    let v6: &[u8] = &[2, 0, 0, 0];
    assert_eq!(with(&mut lab, v6, AttributeType::REQUESTED_ADDRESS_FAMILY, v6), Some(400));
    assert_eq!(with(&mut lab, v6, AttributeType::EVEN_PORT, &[0x80]), Some(400));
    assert_eq!(with(&mut lab, v6, AttributeType::RESERVATION_TOKEN, &[1; 8]), Some(400));
    for malformed in [&[1, 0, 0, 0][..], &[3, 0, 0, 0], &[2], &[]] {
        assert_eq!(with(&mut lab, malformed, AttributeType(0x8F00), &[]), Some(400), "{malformed:?}");
    }
    assert_eq!(lab.allocations(), 0);
    assert_eq!(with(&mut lab, v6, AttributeType::EVEN_PORT, &[0]), None);
    assert!(lab.relays().iter().all(|(_, bind)| bind.port() % 2 == 0));
}

#[test]
fn rfc8656_9_each_family_has_its_permissions_channels_and_socket() {
    let (mut lab, client, relayed) = allocated();
    let [(relay4, _), (relay6, _)] = lab.relays()[..] else { panic!("two relays") };
    assert_eq!(client.permit(&mut lab, PEER), None);
    assert_eq!(client.send(&mut lab, PEER6, b"x"), [], "a permission of one family is none of the other");
    assert_eq!(client.bind(&mut lab, 0x4006, PEER6), None);
    assert_eq!(client.bind(&mut lab, 0x4006, PEER), Some(400), "one number, one peer, whatever the family");
    assert_eq!(client.send(&mut lab, PEER, b"4"), [Event::ToPeer(relay4, addr(PEER), b"4".to_vec())]);
    assert_eq!(client.send(&mut lab, PEER6, b"6"), [Event::ToPeer(relay6, addr(PEER6), b"6".to_vec())]);
    assert_eq!(client.channel(&mut lab, 0x4006, b"c"), [Event::ToPeer(relay6, addr(PEER6), b"c".to_vec())]);
    let verdict = lab.peer_sends(relayed[1], PEER6, b"y");
    assert_eq!(verdict, [Event::ToClient(client.path, channel_data(0x4006, b"y"))]);
    let [Event::ToClient(_, bytes)] = &lab.peer_sends(relayed[0], PEER, b"y")[..] else { panic!() };
    assert_eq!(data_indication(bytes), (addr(PEER), b"y".to_vec()));
}

#[test]
fn design_4_6_two_dual_clients_meet_on_both_families() {
    let (mut lab, one, from) = allocated();
    let two = Client::new(&mut lab, "192.0.2.10:1");
    let to = relayed(&two.call(&mut lab, Method::ALLOCATE, both));
    for (from, to) in from.into_iter().zip(to) {
        one.permit(&mut lab, &to.to_string());
        two.permit(&mut lab, &from.to_string());
        let [Event::ToClient(path, bytes)] = &one.send(&mut lab, &to.to_string(), b"x")[..] else { panic!() };
        assert_eq!((*path, data_indication(bytes)), (two.path, (from, b"x".to_vec())));
    }
}

#[test]
fn rfc8656_8_1_one_family_can_be_deleted_and_the_other_goes_on() {
    let (mut lab, client, relayed) = allocated();
    client.bind(&mut lab, 0x4004, PEER);
    client.bind(&mut lab, 0x4006, PEER6);
    assert_eq!(refresh(&mut lab, &client, 1, 0).lifetime(), Some(0));
    assert_eq!((lab.allocations(), lab.relays().len()), (1, 1));
    assert_eq!(client.channel(&mut lab, 0x4004, b"x"), [], "channels go with their family");
    assert_eq!(client.send(&mut lab, PEER, b"x"), []);
    assert_eq!((client.permit(&mut lab, PEER), client.bind(&mut lab, 0x4004, PEER)), (Some(443), Some(443)));
    assert_eq!(client.channel(&mut lab, 0x4006, b"x").len(), 1, "those of the other one stay");
    assert_eq!(lab.peer_sends(relayed[1], PEER6, b"x").len(), 1);
    assert_eq!(refresh(&mut lab, &client, 1, 600).error, Some(443), "§8.2");
    assert_eq!(refresh(&mut lab, &client, 1, 0).error, Some(443));
    // The number is free again for another peer.
    assert_eq!(client.bind(&mut lab, 0x4004, "[2600::a]:1"), None);
    assert_eq!(refresh(&mut lab, &client, 2, 0).lifetime(), Some(0));
    assert_eq!((lab.allocations(), lab.relays().len()), (0, 0));
    assert_eq!(refresh(&mut lab, &client, 2, 0).error, Some(437));
}

#[test]
fn rfc8656_8_1_without_a_family_a_refresh_is_for_both() {
    let (mut lab, client, _) = allocated();
    assert_eq!(client.refresh(&mut lab, 1200).lifetime(), Some(1200));
    lab.advance(Duration::from_secs(1199));
    assert_eq!(lab.relays().len(), 2);
    assert_eq!(client.refresh(&mut lab, 0).lifetime(), Some(0));
    assert_eq!((lab.allocations(), lab.relays().len()), (0, 0));
    assert_eq!(lab.server.poll_output(), None);
}

#[test]
fn rfc8656_8_1_each_family_has_a_lifetime_of_its_own() {
    let (mut lab, client, _) = allocated();
    assert_eq!(refresh(&mut lab, &client, 2, 1800).lifetime(), Some(1800));
    client.bind(&mut lab, 0x4006, PEER6);
    client.bind(&mut lab, 0x4004, PEER);
    lab.advance(Duration::from_secs(600));
    let left: Vec<_> = lab.relays().iter().map(|(relay, bind)| (relay.0, bind.is_ipv6())).collect();
    assert_eq!((left, lab.allocations()), (vec![(1, true)], 1));
    assert_eq!(client.permit(&mut lab, PEER), Some(443));
    lab.advance(Duration::from_secs(1200));
    assert_eq!((lab.allocations(), lab.relays().len(), lab.server.poll_timeout()), (0, 0, None));
}

#[test]
fn the_number_of_the_drafts_asks_for_two_addresses_too() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let answer = client.call(&mut lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP)
            .attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY_OF_DRAFTS, &[2, 0, 0, 0]);
    });
    assert_eq!((answer.error, relayed(&answer).len()), (None, 2));
}
