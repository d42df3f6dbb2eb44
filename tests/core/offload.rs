//! Which flows are offloaded: each event in an allocation's life says the right rows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use turnkey::stun::{AttributeType, Method};
use turnkey::turn::{
    Asked, Bandwidth, Count, FlowId, Mode, NO_METER, OffloadRow, PeerPolicy, RelayAddress, Settings, Shared,
    Transport, Usage, WorkerId,
};

use crate::lab::{Client, Lab, PEER, SERVER, UDP, addr, path, settings};

const HERE: &str = "192.0.2.9:40000";
const THERE: &str = "192.0.2.10:40000";
const OTHER: &str = "8.8.4.4:5000";

fn shared(slots: u32, meters: usize) -> (Arc<Shared>, Arc<Vec<AtomicU64>>) {
    let words = Arc::new(Vec::from_iter((0..2 * meters).map(|_| AtomicU64::new(7))));
    (Arc::new(Shared::new(settings().ports).with_offload(slots, words.clone())), words)
}

/// A lab that offloads.
fn lab_with(change: impl FnOnce(&mut Settings)) -> Lab {
    let mut settings = settings();
    change(&mut settings);
    Lab::of(settings, shared(64, 64).0)
}

fn lab() -> Lab {
    lab_with(|_| {})
}

/// A client with an allocation and a channel to the peer.
fn bound(lab: &mut Lab) -> (Client, SocketAddr) {
    let client = Client::new(lab, HERE);
    let relayed = client.allocate(lab);
    assert_eq!(client.bind(lab, 0x4000, PEER), None);
    (client, relayed)
}

fn only_row(lab: &Lab) -> OffloadRow {
    let rows: Vec<_> = lab.rows.0.values().collect();
    let [row] = rows[..] else { panic!("one row: {rows:?}") };
    *row
}

fn left(lab: &Lab) -> Duration {
    only_row(lab).expires - lab.mono
}

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[test]
fn a_channel_over_udp_is_a_row_with_the_addresses_of_the_wire() {
    let mut lab = lab();
    let (client, relayed) = bound(&mut lab);
    let row = only_row(&lab);
    let local = SocketAddr::new(addr("10.0.0.1:0").ip(), relayed.port());
    assert_eq!((row.client, row.server), (client.path.five_tuple.client, addr(SERVER)));
    assert_eq!((row.relay, row.peer, row.channel), (local, addr(PEER), 0x4000));
    assert!(!row.peer_is_relay && row.flow.generation != 0);
    assert_eq!(left(&lab), minutes(5), "a permission ends before its channel");
}

#[test]
fn permissions_alone_are_no_flows() {
    let mut lab = lab();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.permit(&mut lab, PEER);
    assert_eq!(client.send(&mut lab, PEER, b"x").len(), 1);
    assert!(lab.rows.0.is_empty());
}

#[test]
fn where_nothing_offloads_nothing_is_said() {
    let mut lab = Lab::new();
    bound(&mut lab);
    assert!(lab.rows.0.is_empty());
}

#[test]
fn clients_of_streams_and_of_dtls_keep_their_flows_here() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let mut lab = lab();
        let client = Client::with(&mut lab, path(HERE, transport), "static", "pass");
        client.allocate(&mut lab);
        assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
        assert!(lab.rows.0.is_empty(), "{transport:?}");
    }
}

#[test]
fn one_family_to_the_other_stays_here() {
    let mut lab = lab();
    let client = Client::new(&mut lab, HERE);
    client.allocate_v6(&mut lab);
    assert_eq!(client.bind(&mut lab, 0x4000, "[2600::9]:5000"), None);
    assert!(lab.rows.0.is_empty());
}

#[test]
fn an_end_that_moves_is_said_under_the_same_name() {
    let mut lab = lab();
    let (client, _) = bound(&mut lab);
    let first = only_row(&lab).flow;
    lab.advance(minutes(4));
    assert_eq!(left(&lab), minutes(1));
    client.permit(&mut lab, PEER);
    assert_eq!(left(&lab), minutes(5));
    lab.advance(minutes(4));
    client.permit(&mut lab, PEER);
    assert_eq!(left(&lab), minutes(2), "the channel and the allocation end in ten minutes");
    assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
    assert_eq!(left(&lab), minutes(2), "now only the allocation does");
    assert_eq!(client.refresh(&mut lab, 600).error, None);
    assert_eq!((left(&lab), only_row(&lab).flow), (minutes(5), first));
    let said = lab.outputs.len();
    assert_eq!(client.refresh(&mut lab, 3600).error, None);
    assert_eq!(lab.outputs.len(), said, "what does not change is not said");
}

#[test]
fn a_permission_that_ends_takes_the_flow_with_it() {
    let mut lab = lab();
    let (client, _) = bound(&mut lab);
    lab.advance(minutes(5));
    assert!(lab.rows.0.is_empty());
    client.permit(&mut lab, PEER);
    assert_eq!(left(&lab), minutes(5), "its channel is bound still");
}

#[test]
fn a_channel_that_has_ended_has_no_live_row_while_its_number_is_held() {
    let mut lab = lab();
    let (client, _) = bound(&mut lab);
    client.refresh(&mut lab, 3600);
    for _ in 0..3 {
        lab.advance(minutes(4));
        client.permit(&mut lab, PEER);
    }
    let client_addr = client.path.five_tuple.client;
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), []);
    assert_eq!(lab.rows.of_channel(client_addr, 0x4000, lab.mono), None);
    assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
    assert!(lab.rows.of_channel(client_addr, 0x4000, lab.mono).is_some());
}

#[test]
fn an_allocation_that_is_deleted_or_ends_takes_its_flows_with_it() {
    let mut lab = lab();
    let (client, _) = bound(&mut lab);
    client.bind(&mut lab, 0x4001, OTHER);
    assert_eq!(lab.rows.0.len(), 2);
    assert_eq!(client.refresh(&mut lab, 0).error, None);
    assert!(lab.rows.0.is_empty());
    let (client, _) = bound(&mut lab);
    lab.advance(minutes(10));
    assert!(lab.rows.0.is_empty());
    assert_eq!(client.refresh(&mut lab, 600).error, Some(437));
}

#[test]
fn half_a_dual_allocation_takes_its_flows_with_it() {
    let mut lab = lab();
    let client = Client::new(&mut lab, HERE);
    let answer = client.call(&mut lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP)
            .attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    assert_eq!(answer.error, None);
    client.bind(&mut lab, 0x4000, PEER);
    client.bind(&mut lab, 0x4001, "[2600::9]:5000");
    assert_eq!(lab.rows.0.len(), 1);
    let answer = client.call(&mut lab, Method::REFRESH, |w| {
        w.u32(AttributeType::LIFETIME, 0).attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]);
    });
    assert_eq!(answer.error, None);
    assert!(lab.rows.0.is_empty());
}

#[test]
fn peers_that_policy_takes_away_have_no_flow_any_more() {
    let mut lab = lab();
    let (client, _) = bound(&mut lab);
    client.bind(&mut lab, 0x4001, OTHER);
    let peers = PeerPolicy::new(vec![], vec!["8.8.8.8/32".parse().unwrap()], vec![], vec![]);
    lab.reconfigure(Settings { peers: Arc::new(peers), ..settings() });
    assert_eq!(only_row(&lab).peer, addr(OTHER));
}

#[test]
fn a_drain_lets_running_flows_go_on() {
    let mut lab = lab();
    bound(&mut lab);
    lab.server.set_mode(Mode::Draining);
    assert_eq!(left(&lab), minutes(5));
}

#[test]
fn two_clients_with_channels_to_each_other_are_two_rows_that_meet() {
    let mut lab = lab();
    let (one, two) = (Client::new(&mut lab, HERE), Client::new(&mut lab, THERE));
    let (first, second) = (one.allocate(&mut lab), two.allocate(&mut lab));
    assert_eq!(one.bind(&mut lab, 0x4000, &second.to_string()), None);
    assert_eq!(two.bind(&mut lab, 0x4001, &first.to_string()), None);
    let rows: Vec<_> = lab.rows.0.values().copied().collect();
    let [to, fro] = rows[..] else { panic!("{rows:?}") };
    assert!(to.peer_is_relay && fro.peer_is_relay);
    assert_eq!((to.relay, to.peer), (fro.peer, fro.relay), "by their local addresses");
    assert_eq!(to.peer.ip(), addr("10.0.0.1:0").ip());
}

#[test]
fn a_relay_that_clients_know_by_another_name_stays_here() {
    let mut lab = lab();
    let (one, two) = (Client::new(&mut lab, HERE), Client::new(&mut lab, THERE));
    let second = two.allocate(&mut lab);
    one.allocate(&mut lab);
    let by_local_name = SocketAddr::new(addr("10.0.0.1:0").ip(), second.port()).to_string();
    assert_eq!(one.bind(&mut lab, 0x4000, &by_local_name), None);
    assert!(lab.rows.0.is_empty(), "the other one's channels are to its public name");
    assert_eq!(one.bind(&mut lab, 0x4001, &second.to_string()), None);
    assert_eq!(lab.rows.0.len(), 1);
    let former = vec![RelayAddress { bind: addr("10.0.0.1:0").ip(), public: addr("198.51.100.7:0").ip() }];
    lab.reconfigure(Settings { former, ..settings() });
    assert!(lab.rows.0.is_empty(), "an address that changed has two names");
}

#[test]
fn a_flow_keeps_to_the_path_its_client_uses() {
    let mut lab = lab_with(|settings| settings.mobility = true);
    let client = Client::new(&mut lab, HERE);
    let ticket = client.call(&mut lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP).attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    let ticket = ticket.value(AttributeType::MOBILITY_TICKET).expect("a ticket");
    client.bind(&mut lab, 0x4000, PEER);
    let mut moved = Client { path: path(THERE, Transport::Udp), ..client.clone() };
    moved.fetch_nonce(&mut lab);
    let answer = moved.call(&mut lab, Method::REFRESH, |w| {
        w.attribute(AttributeType::MOBILITY_TICKET, &ticket);
    });
    assert_eq!(answer.error, None);
    assert_eq!(only_row(&lab).client, addr(HERE), "until the new path is used");
    let before = only_row(&lab).flow;
    assert_eq!(moved.channel(&mut lab, 0x4000, b"x").len(), 1);
    assert_eq!(only_row(&lab).client, addr(THERE));
    assert_ne!(only_row(&lab).flow, before);
}

#[test]
fn a_flow_moves_with_its_allocation_to_another_worker() {
    let settings = Settings { mobility: true, ..settings() };
    let (shared, _) = shared(64, 64);
    let mut old = Lab::worker(settings.clone(), Arc::clone(&shared), WorkerId(0));
    let mut new = Lab::worker(settings, shared, WorkerId(1));
    let client = Client::new(&mut old, HERE);
    let answer = client.call(&mut old, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP).attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    let ticket = answer.value(AttributeType::MOBILITY_TICKET).expect("a ticket");
    client.bind(&mut old, 0x4000, PEER);
    let (port, transaction) = (only_row(&old).relay.port(), old.transaction());
    let mut moved = Client { path: path(THERE, Transport::Udp), ..client };
    moved.fetch_nonce(&mut new);
    let request = moved.signed(transaction, Method::REFRESH, |w| {
        w.attribute(AttributeType::MOBILITY_TICKET, &ticket);
    });
    let Asked::Leaves(moving, relays) = old.asked(moved.path, &request) else { panic!("it leaves") };
    old.part_with(&relays);
    old.advance(Duration::ZERO);
    while let Some(output) = old.server.poll_output() {
        match output {
            turnkey::turn::Output::Unload(flow) => old.rows.remove(flow),
            other => panic!("{other:?}"),
        }
    }
    assert!(old.rows.0.is_empty());
    new.takes_in(*moving, port);
    assert_eq!((only_row(&new).client, only_row(&new).relay.port()), (addr(HERE), port));
    assert_eq!(moved.channel(&mut new, 0x4000, b"x").len(), 1);
    assert_eq!(only_row(&new).client, addr(THERE));
}

#[test]
fn flows_beyond_the_slots_stay_here_and_are_counted() {
    let mut lab = Lab::of(settings(), shared(1, 64).0);
    let (client, _) = bound(&mut lab);
    assert_eq!(client.bind(&mut lab, 0x4001, OTHER), None);
    assert_eq!(only_row(&lab).channel, 0x4000);
    assert_eq!(lab.server.stats().offload_full, 1);
    assert_eq!(client.channel(&mut lab, 0x4001, b"x").len(), 1, "it is relayed all the same");
}

#[test]
fn both_paths_count_on_the_same_meters() {
    let (shared, words) = shared(64, 64);
    let bandwidth = Bandwidth { allocation: 10_000, user: 20_000, total: 40_000 };
    let mut lab = Lab::of(Settings { bandwidth, ..settings() }, shared);
    let (client, relayed) = bound(&mut lab);
    let [allocation, user, total] = only_row(&lab).meters;
    assert!(total == 0 && allocation != user && allocation != 0 && user != 0);
    let word = |pair: u32, direction: u32| words[(2 * pair + direction) as usize].load(Ordering::Relaxed);
    let now = lab.mono.as_nanos() as u64;
    assert_eq!(client.channel(&mut lab, 0x4000, &[0; 1000]).len(), 1);
    assert_eq!(word(allocation, 0), now + 100_000_000, "1000 bytes of 10,000 a second");
    assert_eq!([word(user, 0), word(total, 0)], [now + 50_000_000, now + 25_000_000]);
    assert_eq!([word(allocation, 1), word(user, 1)], [0, 0]);
    assert_eq!(lab.peer_sends(relayed, PEER, &[0; 1000]).len(), 1);
    assert_eq!(word(allocation, 1), now + 100_000_000);
    // What somebody else has let through counts here.
    words[2 * user as usize].store(now + 1_000_000_000, Ordering::Relaxed);
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), []);
}

#[test]
fn a_limit_whose_meter_nobody_else_sees_keeps_the_flow_here() {
    let (shared, _) = shared(64, 2);
    let mut lab = Lab::of(settings(), shared);
    let (client, _) = bound(&mut lab);
    let [allocation, user, total] = only_row(&lab).meters;
    assert_eq!(
        (total, [allocation, user].contains(&1), [allocation, user].contains(&NO_METER)),
        (0, true, true)
    );
    let limited = Bandwidth { allocation: 1000, user: 1000, total: 0 };
    lab.reconfigure(Settings { bandwidth: limited, ..settings() });
    assert!(lab.rows.0.is_empty());
    assert_eq!(client.channel(&mut lab, 0x4000, b"x").len(), 1);
    lab.reconfigure(settings());
    assert_eq!(lab.rows.0.len(), 1);
}

#[test]
fn what_was_relayed_elsewhere_is_counted_here() {
    let mut lab = lab();
    let count = |packets, bytes| Count { packets, bytes };
    let flow = FlowId { slot: 9, generation: 1 };
    lab.server.count_offloaded(lab.now(), flow, Usage { to_peer: count(2, 320), to_client: count(1, 100) });
    let stats = lab.server.stats();
    assert_eq!((stats.to_peer_packets, stats.to_peer_bytes), (2, 320));
    assert_eq!((stats.to_client_packets, stats.to_client_bytes), (1, 100));
}
