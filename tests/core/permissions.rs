//! CreatePermission and the peer policy: RFC 8656 §9, §10.

use std::sync::Arc;

use turnkey::stun::{AttributeType, MessageWriter, Method};
use turnkey::turn::{DropReason, Listener, PeerPolicy, Settings};

use crate::lab::{Client, Event, Lab, PEER, addr, settings};

const HERE: &str = "192.0.2.9:40000";

fn with_peers(peers: &'static [&'static str]) -> impl FnOnce(&mut MessageWriter<'_>) {
    move |w| {
        peers.iter().for_each(|peer| {
            w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(peer));
        })
    }
}

#[test]
fn rfc8656_10_2_without_allocation_437_and_without_address_400() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    assert_eq!(client.permit(&mut lab, PEER), Some(437));
    client.allocate(&mut lab);
    assert_eq!(client.call(&mut lab, Method::CREATE_PERMISSION, with_peers(&[])).error, Some(400));
    let malformed = client.call(&mut lab, Method::CREATE_PERMISSION, |w| {
        w.attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 2]);
    });
    assert_eq!(malformed.error, Some(400));
}

#[test]
fn rfc8656_10_2_several_addresses_are_all_or_nothing() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    for (bad, error) in [("10.1.2.3:1", 403), ("[2600::9]:1", 443), ("9.9.9.9:1", 403)] {
        let answer = client.call(&mut lab, Method::CREATE_PERMISSION, |w| {
            w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(PEER))
                .xor_address(AttributeType::XOR_PEER_ADDRESS, addr(bad));
        });
        assert_eq!(answer.error, Some(error), "{bad}");
        assert_eq!(client.send(&mut lab, PEER, b"x"), [], "nothing was permitted");
    }
    let both = client.call(&mut lab, Method::CREATE_PERMISSION, with_peers(&[PEER, "1.1.1.1:7"]));
    assert_eq!(both.error, None);
    assert_eq!(client.send(&mut lab, PEER, b"x").len(), 1);
    assert_eq!(client.send(&mut lab, "1.1.1.1:99", b"x").len(), 1);
}

#[test]
fn rfc8656_9_a_permission_is_for_an_address_whatever_the_port() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.permit(&mut lab, "8.8.8.8:1");
    assert_eq!(client.send(&mut lab, "8.8.8.8:2", b"x").len(), 1);
    assert_eq!(lab.peer_sends(relayed, "8.8.8.8:3", b"x").len(), 1);
    assert_eq!(lab.peer_sends(relayed, "8.8.8.9:1", b"x"), []);
    assert_eq!(client.send(&mut lab, "8.8.8.9:1", b"x"), []);
    assert_eq!(lab.server.stats().drops[DropReason::NoPermission as usize], 2);
}

#[test]
fn rfc8656_10_2_a_large_candidate_set_fits_and_the_bound_is_508() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let many = |range: std::ops::Range<u32>| {
        move |w: &mut MessageWriter<'_>| {
            range.for_each(|n| {
                let peer = (std::net::Ipv4Addr::from(0x0800_0000 + n), 5000).into();
                w.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
            });
        }
    };
    assert_eq!(client.call(&mut lab, Method::CREATE_PERMISSION, many(0..200)).error, None);
    assert_eq!(client.call(&mut lab, Method::CREATE_PERMISSION, many(150..257)).error, Some(508));
    assert_eq!(client.call(&mut lab, Method::CREATE_PERMISSION, many(150..256)).error, None);
    assert_eq!(client.call(&mut lab, Method::CREATE_PERMISSION, many(0..256)).error, None, "a refresh");
    assert_eq!(client.bind(&mut lab, 0x4000, "1.1.1.1:1"), Some(508), "a channel needs a permission too");
}

#[test]
fn design_4_4_inside_networks_are_403_for_every_request() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    for peer in ["127.0.0.1:80", "10.0.0.2:80", "169.254.169.254:80", "192.168.1.1:1", "0.0.0.0:1"] {
        assert_eq!(client.permit(&mut lab, peer), Some(403), "{peer}");
        assert_eq!(client.bind(&mut lab, 0x4000, peer), Some(403), "{peer}");
        assert_eq!(client.send(&mut lab, peer, b"x"), [], "{peer}");
    }
}

#[test]
fn design_4_4_own_listeners_are_unreachable_even_with_a_permission_for_the_address() {
    let mut lab = Lab::with(|settings| {
        settings.peers = Arc::new(PeerPolicy::new(
            vec!["0.0.0.0/0".parse().unwrap()],
            vec![],
            vec![
                Listener::Udp(addr("0.0.0.0:3478")),
                Listener::Udp(addr("10.0.0.1:8080")),
                Listener::Tcp(addr("0.0.0.0:443")),
            ],
            vec!["10.0.0.1".parse().unwrap(), "198.51.100.1".parse().unwrap()],
        ));
    });
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    for listener in
        ["198.51.100.1:3478", "10.0.0.1:3478", "10.0.0.1:8080", "198.51.100.1:8080", "127.0.0.1:3478"]
    {
        assert_eq!(client.permit(&mut lab, listener), None);
        assert_eq!(client.send(&mut lab, listener, b"x"), [], "{listener}");
        assert_eq!(client.bind(&mut lab, 0x4001, listener), Some(403), "{listener}");
    }
    assert_eq!(client.send(&mut lab, "10.0.0.1:9999", b"x").len(), 1, "allowed by name");
    assert_eq!(client.send(&mut lab, "10.0.0.1:443", b"x").len(), 1, "it listens for connections only");
}

#[test]
fn rfc8656_9_policy_is_checked_again_when_the_rules_change() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    client.permit(&mut lab, "1.1.1.1:1");
    assert_eq!(client.channel(&mut lab, 0x4000, b"x").len(), 1);
    assert_eq!(lab.peer_sends(relayed, PEER, b"x").len(), 1);
    let denied = PeerPolicy::new(vec![], vec!["8.8.8.0/24".parse().unwrap()], vec![], vec![]);
    lab.server.reconfigure(Settings { peers: Arc::new(denied), ..settings() });
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), []);
    assert_eq!(client.send(&mut lab, PEER, b"x"), []);
    assert_eq!(lab.peer_sends(relayed, PEER, b"x"), []);
    assert!(matches!(client.send(&mut lab, "1.1.1.1:1", b"x")[..], [Event::ToPeer(..)]));
}
