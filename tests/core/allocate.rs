//! Allocate and Refresh: RFC 8656 §7 and §8.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType, Class, MessageWriter, Method};
use turnkey::turn::{Mode, OpenError, Output, Shared, Transport};

use crate::lab::{Client, Lab, UDP, addr, path, settings};

const HERE: &str = "192.0.2.9:40000";

fn plain(w: &mut MessageWriter<'_>) {
    w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP);
}

fn error_of(lab: &mut Lab, client: &Client, fill: impl FnOnce(&mut MessageWriter<'_>)) -> Option<u16> {
    client.call(lab, Method::ALLOCATE, fill).error
}

#[test]
fn rfc8656_7_2_success_carries_relayed_mapped_and_lifetime() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let answer = client.call(&mut lab, Method::ALLOCATE, plain);
    assert_eq!(answer.class, Class::Success);
    assert_eq!(answer.lifetime(), Some(600));
    assert_eq!(answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS), Some(addr(HERE)));
    let relayed = answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS).unwrap();
    assert_eq!(relayed.ip(), addr("198.51.100.1:1").ip(), "the public address, not the one it binds");
    assert_eq!(lab.relays()[0].1, (addr("10.0.0.1:1").ip(), relayed.port()).into());
}

#[test]
fn rfc8656_7_2_retransmitted_allocate_repeats_the_success() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let packet = client.signed(lab.transaction(), Method::ALLOCATE, plain);
    let first = lab.ask(client.path, &packet);
    lab.advance(Duration::from_secs(3));
    let second = lab.ask(client.path, &packet);
    let relayed = |a: &crate::lab::Answer| a.xor_address(AttributeType::XOR_RELAYED_ADDRESS);
    assert_eq!(relayed(&first), relayed(&second));
    assert_eq!(second.lifetime(), Some(597), "the lifetime that is left");
    assert_eq!((lab.allocations(), lab.open.len()), (1, 1));
}

#[test]
fn rfc8656_7_2_another_allocate_on_the_same_5_tuple_is_437() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    assert_eq!(error_of(&mut lab, &client, plain), Some(437));
    // Before anything else is looked at.
    assert_eq!(error_of(&mut lab, &client, |_| {}), Some(437));
}

#[test]
fn rfc8656_7_2_requested_transport_missing_or_malformed_is_400_and_unsupported_442() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let with = |value: &'static [u8]| {
        move |w: &mut MessageWriter<'_>| {
            w.attribute(AttributeType::REQUESTED_TRANSPORT, value);
        }
    };
    assert_eq!(error_of(&mut lab, &client, |_| {}), Some(400));
    assert_eq!(error_of(&mut lab, &client, with(&[17, 0, 0])), Some(400));
    assert_eq!(error_of(&mut lab, &client, with(&[6, 0, 0, 0])), Some(442));
    assert_eq!(error_of(&mut lab, &client, with(&[0, 0, 0, 0])), Some(442));
    assert_eq!(lab.allocations(), 0);
}

#[test]
fn rfc8656_7_2_unknown_attributes_are_420_after_the_transport() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let unknown = AttributeType(0x7F01);
    let answer = client.call(&mut lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP).attribute(unknown, b"x");
    });
    assert_eq!(answer.error, Some(420));
    assert_eq!(answer.value(AttributeType::UNKNOWN_ATTRIBUTES), Some(vec![0x7F, 0x01]));
    // Wrong transport wins over the unknown attribute.
    let both = |w: &mut MessageWriter<'_>| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, &[6, 0, 0, 0]).attribute(unknown, b"x");
    };
    assert_eq!(error_of(&mut lab, &client, both), Some(442));
    // What may be ignored is ignored.
    let optional = |w: &mut MessageWriter<'_>| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP).attribute(AttributeType(0xFF01), b"x");
    };
    assert_eq!(error_of(&mut lab, &client, optional), None);
}

#[test]
fn rfc8656_7_2_dont_fragment_is_420_where_it_cannot_be_served() {
    let mut lab = Lab::with(|settings| settings.dont_fragment = false);
    let client = Client::new(&mut lab, HERE);
    let fill = |w: &mut MessageWriter<'_>| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP).attribute(AttributeType::DONT_FRAGMENT, &[]);
    };
    assert_eq!(error_of(&mut lab, &client, fill), Some(420));
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    assert_eq!(error_of(&mut lab, &client, fill), None);
}

#[test]
fn rfc8656_7_2_the_checks_come_in_their_order() {
    // Mistake 3: each step breaks one more rule, and the first broken one is told.
    let settings = turnkey::turn::Settings { ports: 50_000..=50_000, user_quota: 1, ..settings() };
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    let mut lab = Lab::of(settings, shared);
    Client::new(&mut lab, "192.0.2.9:1").allocate(&mut lab);
    let (v4, v6, none): (&[u8], &[u8], &[u8]) = (&[1, 0, 0, 0], &[2, 0, 0, 0], &[9, 0, 0, 0]);
    let transport = (AttributeType::REQUESTED_TRANSPORT, UDP);
    let wrong_transport = (AttributeType::REQUESTED_TRANSPORT, none);
    let unknown = (AttributeType(0x7F01), none);
    let token = (AttributeType::RESERVATION_TOKEN, &[1; 8][..]);
    let family = (AttributeType::REQUESTED_ADDRESS_FAMILY, none);
    let additional = (AttributeType::ADDITIONAL_ADDRESS_FAMILY, v4);
    let client = Client::new(&mut lab, HERE);
    for (attributes, code) in [
        (vec![unknown, token, family, additional], 400),
        (vec![wrong_transport, unknown, token, family, additional], 442),
        (vec![transport, unknown, token, family, additional], 420),
        (vec![transport, token, family, additional], 400),
        (vec![transport, family, additional], 400),
        (vec![transport, family], 440),
        (vec![transport, additional], 400),
        (vec![transport, token], 508),
        (vec![transport], 508),
        (vec![transport, (AttributeType::REQUESTED_ADDRESS_FAMILY, v6)], 486),
    ] {
        let error = error_of(&mut lab, &client, |w| {
            for (kind, value) in &attributes {
                w.attribute(*kind, value);
            }
        });
        assert_eq!(error, Some(code), "{attributes:?}");
    }
    // In front of all of it: who asks, and from where.
    let taken = Client::new(&mut lab, "192.0.2.9:1");
    assert_eq!(error_of(&mut lab, &taken, |_| {}), Some(437));
    let stranger = Client::with(&mut lab, path("192.0.2.9:1", Transport::Udp), "nobody", "pass");
    assert_eq!(error_of(&mut lab, &stranger, |_| {}), Some(401));
}

#[test]
fn rfc8656_7_2_forbidden_combinations_are_400() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let (token, even, family, additional) = (
        (AttributeType::RESERVATION_TOKEN, &[1; 8][..]),
        (AttributeType::EVEN_PORT, &[0][..]),
        (AttributeType::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0][..]),
        (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0][..]),
    );
    for pair in [[token, even], [token, family], [token, additional], [family, additional]] {
        let answer = client.call(&mut lab, Method::ALLOCATE, |w| {
            plain(w);
            pair.iter().for_each(|(kind, value)| {
                w.attribute(*kind, value);
            });
        });
        assert_eq!(answer.error, Some(400), "{pair:?}");
    }
}

#[test]
fn rfc8656_7_2_address_families() {
    let mut lab = Lab::new();
    let family = |value: u8| {
        move |w: &mut MessageWriter<'_>| {
            plain(w);
            w.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[value, 0, 0, 0]);
        }
    };
    let relayed = |lab: &mut Lab, port: u16, value: u8| {
        let client = Client::new(lab, &format!("192.0.2.9:{port}"));
        let answer = client.call(lab, Method::ALLOCATE, family(value));
        (answer.error, answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS).map(|a| a.ip()))
    };
    assert_eq!(relayed(&mut lab, 1001, 1), (None, Some("198.51.100.1".parse().unwrap())));
    assert_eq!(relayed(&mut lab, 1002, 2), (None, Some("2600::1".parse().unwrap())));
    assert_eq!(relayed(&mut lab, 1003, 3), (Some(440), None));
    // Without the attribute IPv4 is meant, whatever the client talks; a server without it says 440.
    let mut v6_only = Lab::with(|settings| {
        settings.addresses.remove(0);
    });
    let client = Client::new(&mut v6_only, "[2001:db8::5]:1000");
    assert_eq!(error_of(&mut v6_only, &client, plain), Some(440));
}

#[test]
fn rfc8656_7_2_even_port_is_even() {
    let mut lab = Lab::new();
    let even = |bits: &'static [u8]| {
        move |w: &mut MessageWriter<'_>| {
            plain(w);
            w.attribute(AttributeType::EVEN_PORT, bits);
        }
    };
    for port in 1000..1050 {
        let client = Client::new(&mut lab, &format!("192.0.2.9:{port}"));
        let answer = client.call(&mut lab, Method::ALLOCATE, even(&[0]));
        assert_eq!(answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS).unwrap().port() % 2, 0);
        assert_eq!(answer.value(AttributeType::RESERVATION_TOKEN), None);
    }
    let client = Client::new(&mut lab, HERE);
    assert_eq!(error_of(&mut lab, &client, even(&[0, 0])), Some(400));
}

#[test]
fn rfc8656_7_2_lifetime_is_clamped_between_default_and_maximum() {
    let mut lab = Lab::new();
    for (index, (asked, granted)) in
        [(0, 600), (1, 600), (601, 601), (3600, 3600), (u32::MAX, 3600)].into_iter().enumerate()
    {
        let client = Client::new(&mut lab, &format!("192.0.2.9:{}", 1000 + index));
        let answer = client.call(&mut lab, Method::ALLOCATE, |w| {
            plain(w);
            w.u32(AttributeType::LIFETIME, asked);
        });
        assert_eq!(answer.lifetime(), Some(granted), "asked for {asked}");
        let refreshed = client.refresh(&mut lab, asked.max(1)).lifetime();
        assert_eq!(refreshed, Some(granted), "refreshed with {asked}");
    }
    let client = Client::new(&mut lab, HERE);
    let malformed = |w: &mut MessageWriter<'_>| {
        plain(w);
        w.attribute(AttributeType::LIFETIME, &[0, 0, 1]);
    };
    assert_eq!(error_of(&mut lab, &client, malformed), Some(400));
}

#[test]
fn rfc8656_7_2_ports_are_in_the_range_and_unpredictable() {
    let mut lab = Lab::with(|settings| settings.ports = 50_000..=50_999);
    let ports: Vec<u16> = (0..200)
        .map(|n| Client::new(&mut lab, &format!("192.0.2.9:{}", 1000 + n)).allocate(&mut lab).port())
        .collect();
    assert!(ports.iter().all(|port| (50_000..=50_999).contains(port)));
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 200);
    assert!(ports.windows(2).filter(|pair| pair[1] == pair[0].wrapping_add(1)).count() < 5);
}

#[test]
fn rfc8656_7_2_a_port_another_program_has_is_passed_over() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    lab.open_results = vec![Err(OpenError::InUse), Err(OpenError::InUse), Ok(())];
    let relayed = client.allocate(&mut lab);
    let opened: Vec<_> = lab.outputs.iter().filter(|o| matches!(o, Output::OpenRelay { .. })).collect();
    assert_eq!(opened.len(), 3);
    assert_eq!(lab.relays()[0].1.port(), relayed.port());
}

#[test]
fn rfc8656_7_2_no_socket_is_508_and_leaves_nothing_behind() {
    let shared = Arc::new(Shared::new(50_000..=50_009));
    let mut lab = Lab::of(settings(), Arc::clone(&shared));
    let client = Client::new(&mut lab, HERE);
    for failure in [OpenError::Exhausted, OpenError::Unavailable] {
        lab.open_results = vec![Err(failure)];
        assert_eq!(error_of(&mut lab, &client, plain), Some(508));
        assert_eq!((lab.allocations(), shared.allocations(), lab.open.len()), (0, 0, 0));
    }
    lab.open_results = vec![Err(OpenError::InUse); 30];
    assert_eq!(error_of(&mut lab, &client, plain), Some(508), "not for ever");
    lab.open_results.clear();
    // All ten ports are still there to be had.
    for n in 0..10 {
        Client::new(&mut lab, &format!("192.0.2.9:{}", 2000 + n)).allocate(&mut lab);
    }
    assert_eq!(error_of(&mut lab, &client, plain), Some(508), "the eleventh");
    assert_eq!(shared.allocations(), 10);
}

#[test]
fn rfc8656_7_2_quotas_are_486_and_given_back() {
    let mut lab = Lab::with(|settings| (settings.user_quota, settings.total_quota) = (2, 3));
    let hour = Duration::from_secs(3600);
    // Sessions of one user count together.
    let alice: Vec<_> = (0..3)
        .map(|n| Client::minted(&mut lab, &format!("192.0.2.1:{}", 1000 + n), hour, &format!("alice.s{n}")))
        .collect();
    let bob: Vec<_> = (0..2)
        .map(|n| Client::minted(&mut lab, &format!("192.0.2.2:{}", 1000 + n), hour, &format!("bob.s{n}")))
        .collect();
    alice[0].allocate(&mut lab);
    alice[1].allocate(&mut lab);
    assert_eq!(error_of(&mut lab, &alice[2], plain), Some(486));
    bob[0].allocate(&mut lab);
    assert_eq!(error_of(&mut lab, &bob[1], plain), Some(486), "the total quota");
    alice[0].refresh(&mut lab, 0);
    bob[1].allocate(&mut lab);
    lab.advance(Duration::from_secs(601));
    assert_eq!(lab.allocations(), 0);
    alice[2].allocate(&mut lab);
}

#[test]
fn rfc8656_8_2_refresh_of_zero_ends_the_allocation_and_the_next_is_437() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    assert_eq!(client.refresh(&mut lab, 0).lifetime(), Some(0));
    assert_eq!((lab.allocations(), lab.open.len()), (0, 0));
    assert_eq!(client.refresh(&mut lab, 0).error, Some(437));
    assert_eq!(client.refresh(&mut lab, 600).error, Some(437));
    client.allocate(&mut lab);
}

#[test]
fn rfc8656_8_2_refresh_for_another_family_is_443() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let ask = |lab: &mut Lab, family: u8| {
        client
            .call(lab, Method::REFRESH, |w| {
                w.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
            })
            .error
    };
    assert_eq!((ask(&mut lab, 2), ask(&mut lab, 1)), (Some(443), None));
}

#[test]
fn rfc8656_7_2_a_draining_server_refuses_new_allocations_and_keeps_the_old() {
    let mut lab = Lab::new();
    let old = Client::new(&mut lab, HERE);
    old.allocate(&mut lab);
    lab.server.set_mode(Mode::Draining);
    let new = Client::new(&mut lab, "192.0.2.10:1");
    assert_eq!(error_of(&mut lab, &new, plain), Some(508));
    assert_eq!(old.refresh(&mut lab, 600).error, None);
    lab.server.set_mode(Mode::Serving);
    new.allocate(&mut lab);
}

#[test]
fn two_clients_behind_one_address_and_one_that_moves() {
    let mut lab = Lab::new();
    let one = Client::new(&mut lab, "192.0.2.9:1000");
    let two = Client::new(&mut lab, "192.0.2.9:1001");
    assert_ne!(one.allocate(&mut lab), two.allocate(&mut lab));
    // The same user comes back from elsewhere while its old allocation still stands.
    let moved = Client::new(&mut lab, "198.18.0.1:1000");
    moved.allocate(&mut lab);
    assert_eq!(lab.allocations(), 3);
}

#[test]
fn rfc8656_7_2_a_new_connection_with_the_same_5_tuple_starts_afresh() {
    let mut lab = Lab::new();
    let mut client = Client::with(&mut lab, path(HERE, Transport::Tcp), "static", "pass");
    let first = client.allocate(&mut lab);
    client.path.link.0 = 7;
    let second = client.allocate(&mut lab);
    assert_ne!(first, second);
    assert_eq!(lab.allocations(), 1);
    // The late report about the old connection does not touch the new allocation.
    let mut old = client.path;
    old.link.0 = 0;
    lab.server.handle_client_closed(lab.now(), old);
    assert_eq!(lab.allocations(), 1);
    lab.server.handle_client_closed(lab.now(), client.path);
    assert_eq!(lab.allocations(), 0);
}
