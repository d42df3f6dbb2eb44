//! Bytes a second: each limit by itself, in each direction by itself.

use std::sync::Arc;
use std::time::Duration;

use turnkey::turn::{Bandwidth, DropReason, Settings, Shared, WorkerId};

use crate::lab::{Client, Lab, PEER, settings};

const HERE: &str = "192.0.2.9:40000";
const THERE: &str = "192.0.2.10:40000";
/// Ten of these make up the limits below.
const PIECE: &[u8] = &[0; 1000];

fn allocation() -> Bandwidth {
    Bandwidth { allocation: 10_000, ..Bandwidth::default() }
}

/// How many of 50 packets the client gets through to its peer now.
fn sent(lab: &mut Lab, client: &Client) -> usize {
    (0..50).filter(|_| !client.send(lab, PEER, PIECE).is_empty()).count()
}

fn over(lab: &Lab) -> u64 {
    lab.server.stats().drops[DropReason::OverBandwidth as usize]
}

/// An allocation with a permission for the peer and a channel to it.
fn ready(lab: &mut Lab, address: &str, user: &str) -> Client {
    let client = Client::minted(lab, address, Duration::from_secs(600), user);
    client.allocate(lab);
    client.bind(lab, 0x4000, PEER);
    client
}

#[test]
fn without_limits_everything_passes() {
    let mut lab = Lab::new();
    let client = ready(&mut lab, HERE, "a");
    assert_eq!((sent(&mut lab, &client), over(&lab)), (50, 0));
}

#[test]
fn an_allocation_has_its_bandwidth_in_each_direction() {
    let mut lab = Lab::with(|settings| settings.bandwidth = allocation());
    let (one, two) = (ready(&mut lab, HERE, "a"), ready(&mut lab, THERE, "a"));
    assert_eq!(sent(&mut lab, &one), 10);
    let through = (0..50).filter(|_| !one.channel(&mut lab, 0x4000, PIECE).is_empty()).count();
    assert_eq!(through, 0, "channels and indications are one flow");
    let relays = lab.relays();
    let relayed = relays[0].1;
    let back = (0..50).filter(|_| !lab.peer_sends(relayed, PEER, PIECE).is_empty()).count();
    assert_eq!(back, 10, "the other direction is counted apart");
    assert_eq!(sent(&mut lab, &two), 10, "and so is the other allocation");
    assert_eq!(over(&lab), 40 + 50 + 40 + 40);
    lab.mono += Duration::from_millis(500);
    assert_eq!(sent(&mut lab, &one), 5);
    // What was dropped is not counted as relayed.
    assert_eq!(lab.server.stats().to_peer_packets, 25);
}

#[test]
fn a_user_shares_its_bandwidth_between_allocations_and_workers() {
    let mut settings = settings();
    settings.bandwidth = Bandwidth { user: 10_000, ..Bandwidth::default() };
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    let mut first = Lab::worker(settings.clone(), Arc::clone(&shared), WorkerId(0));
    let mut second = Lab::worker(settings, shared, WorkerId(1));
    let here = ready(&mut first, HERE, "a");
    let there = ready(&mut second, THERE, "a");
    let other = ready(&mut second, "192.0.2.11:5", "b");
    assert_eq!(sent(&mut first, &here), 10);
    assert_eq!(sent(&mut second, &there), 0);
    assert_eq!(sent(&mut second, &other), 10);
}

#[test]
fn all_allocations_share_the_total() {
    let bandwidth = Bandwidth { total: 10_000, user: 7_000, allocation: 5_000 };
    let mut lab = Lab::with(|settings| settings.bandwidth = bandwidth);
    let clients = [(HERE, "a"), (THERE, "a"), ("192.0.2.11:5", "b")];
    let clients = clients.map(|(address, user)| ready(&mut lab, address, user));
    let passed = clients.each_ref().map(|client| sent(&mut lab, client));
    assert_eq!(passed, [5, 2, 3], "the allocation's, the user's, and the total");
}

#[test]
fn calls_inside_the_server_count_for_both_clients() {
    let mut lab = Lab::with(|settings| settings.bandwidth = allocation());
    let (one, two) = (Client::new(&mut lab, HERE), Client::new(&mut lab, THERE));
    let third = Client::new(&mut lab, "192.0.2.11:5");
    let [first, second, last] = [&one, &two, &third].map(|client| client.allocate(&mut lab).to_string());
    one.permit(&mut lab, &second);
    third.permit(&mut lab, &second);
    two.permit(&mut lab, &first);
    two.permit(&mut lab, &last);
    let call =
        |lab: &mut Lab, from: &Client| (0..50).filter(|_| !from.send(lab, &second, PIECE).is_empty()).count();
    assert_eq!(call(&mut lab, &one), 10, "the sender's");
    assert_eq!(call(&mut lab, &third), 0, "the receiver's");
    assert_eq!(over(&lab), 90);
}

#[test]
fn calls_between_workers_count_for_both_clients() {
    let settings = Settings { bandwidth: allocation(), ..settings() };
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    let mut here = Lab::worker(settings.clone(), Arc::clone(&shared), WorkerId(0));
    let mut there = Lab::worker(settings, shared, WorkerId(1));
    let (one, two) = (Client::new(&mut here, HERE), Client::new(&mut there, THERE));
    let third = Client::new(&mut here, "192.0.2.11:5");
    let (first, last) = (one.allocate(&mut here).to_string(), third.allocate(&mut here).to_string());
    let second = two.allocate(&mut there).to_string();
    one.permit(&mut here, &second);
    third.permit(&mut here, &second);
    two.permit(&mut there, &first);
    two.permit(&mut there, &last);
    let mut call = |here: &mut Lab, from: &Client| {
        let sent = (0..50).flat_map(|_| from.send(here, &second, PIECE)).collect::<Vec<_>>();
        (sent.len(), there.crosses(sent).len())
    };
    assert_eq!(call(&mut here, &one), (10, 10), "the sender's");
    assert_eq!(call(&mut here, &third), (10, 0), "the receiver's");
    assert_eq!((over(&here), over(&there)), (80, 10));
}

#[test]
fn a_new_configuration_changes_the_limits_of_running_allocations() {
    let mut lab = Lab::with(|settings| settings.bandwidth = allocation());
    let client = ready(&mut lab, HERE, "a");
    assert_eq!(sent(&mut lab, &client), 10);
    lab.reconfigure(settings());
    assert_eq!(sent(&mut lab, &client), 50);
    let mut narrow = settings();
    narrow.bandwidth.total = 3_000;
    lab.reconfigure(narrow);
    assert_eq!(sent(&mut lab, &client), 3);
}
