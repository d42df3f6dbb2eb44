//! What the core tells for timelines and books: of whom, when, and how much at most.

use std::sync::Arc;
use std::time::Duration;

use turnkey::credential::{AuthFailure, Secrets, id, mint};
use turnkey::stun::{AttributeType as A, ErrorCode, IntegrityKey, Method};
use turnkey::turn::{Count, Event, FlowId, Happening, Shared, Transport, Usage};

use crate::lab::{Client, Lab, PEER, REALM, UDP, path, settings};

const HERE: &str = "192.0.2.9:40000";
const THERE: &str = "192.0.2.10:40000";
const HOUR: Duration = Duration::from_secs(3600);

fn take(lab: &mut Lab) -> Vec<Event> {
    lab.server.take_events(lab.now())
}

fn happenings(lab: &mut Lab) -> Vec<Happening> {
    take(lab).into_iter().map(|event| event.what).collect()
}

fn in_session(lab: &mut Lab, address: &str) -> Client {
    Client::minted(lab, address, HOUR, &id("ann", Some("0123456789abcdef")))
}

fn usage(to_peer: (u64, u64), to_client: (u64, u64)) -> Usage {
    let count = |(packets, bytes)| Count { packets, bytes };
    Usage { to_peer: count(to_peer), to_client: count(to_client) }
}

#[test]
fn an_allocation_of_a_session_is_told_from_its_grant_to_its_end() {
    let mut lab = Lab::new();
    let client = in_session(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    let told = take(&mut lab);
    assert_eq!(told.len(), 1);
    assert_eq!((&*told[0].user, &*told[0].session, told[0].at), ("ann", "0123456789abcdef", lab.mono));
    assert_eq!(told[0].what, Happening::Allocated { transport: Transport::Udp, families: [true, false] });
    client.permit(&mut lab, PEER);
    assert_eq!(take(&mut lab), [], "nothing was relayed yet");
    lab.advance(Duration::from_secs(3));
    let first = lab.mono;
    assert_eq!(client.send(&mut lab, PEER, b"12345").len(), 1);
    lab.advance(Duration::from_secs(1));
    assert_eq!(lab.peer_sends(relayed, PEER, b"123").len(), 1);
    let told = take(&mut lab);
    assert_eq!(
        told.iter().map(|event| (&event.what, event.at)).collect::<Vec<_>>(),
        [(&Happening::FirstByte, first)]
    );
    client.refresh(&mut lab, 0);
    let ended = match happenings(&mut lab)[..] {
        [Happening::Ended(account)] => account,
        ref others => panic!("{others:?}"),
    };
    assert_eq!((ended.transport, ended.lasted), (Transport::Udp, Duration::from_secs(4)));
    assert_eq!(ended.usage, usage((1, 5), (1, 3)));
    assert_eq!(happenings(&mut lab), []);
}

#[test]
fn a_first_byte_nobody_has_asked_for_yet_is_told_before_the_end() {
    let mut lab = Lab::new();
    let client = in_session(&mut lab, HERE);
    client.allocate(&mut lab);
    client.permit(&mut lab, PEER);
    client.send(&mut lab, PEER, b"x");
    lab.advance(HOUR);
    assert!(matches!(
        happenings(&mut lab)[..],
        [Happening::Allocated { .. }, Happening::FirstByte, Happening::Ended(_)]
    ));
}

#[test]
fn of_others_only_what_was_relayed_is_told() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.permit(&mut lab, PEER);
    client.send(&mut lab, PEER, b"xy");
    client.refresh(&mut lab, 0);
    let told = take(&mut lab);
    assert_eq!((told.len(), &*told[0].user, &*told[0].session), (1, "static", ""));
    assert!(matches!(told[0].what, Happening::Ended(account) if account.usage == usage((1, 2), (0, 0))));
    for _ in 0..10 {
        client.allocate(&mut lab);
        assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
        client.refresh(&mut lab, 0);
    }
    assert_eq!(take(&mut lab), [], "nothing was relayed");
}

#[test]
fn what_an_allocation_has_carried_so_far_is_told_every_few_seconds_while_it_carries_more() {
    let mut lab = Lab::new();
    let client = in_session(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.permit(&mut lab, PEER);
    client.send(&mut lab, PEER, b"12345");
    take(&mut lab);
    let mut told = Vec::new();
    for second in 1..=20 {
        lab.advance(Duration::from_secs(1));
        if second < 12 {
            assert_eq!(lab.peer_sends(relayed, PEER, b"123").len(), 1);
        }
        for what in happenings(&mut lab) {
            let Happening::Carried(account) = what else { panic!("{what:?}") };
            told.push((second, account));
        }
    }
    let counts: Vec<_> = told.iter().map(|(second, account)| (*second, account.usage)).collect();
    let wanted = [(5, 5), (10, 10), (15, 11)].map(|(second, n)| (second, usage((1, 5), (n, 3 * n))));
    assert_eq!(counts, wanted, "nothing is said again once nothing is carried");
    assert_eq!(told[1].1.lasted, Duration::from_secs(10));
    client.refresh(&mut lab, 0);
    let [Happening::Ended(account)] = happenings(&mut lab)[..] else { panic!("it has ended") };
    assert_eq!(account.usage, usage((1, 5), (11, 33)));
    assert!(told.iter().all(|(_, one)| one.name == account.name), "one name for all of it");
    let another = in_session(&mut lab, HERE);
    another.allocate(&mut lab);
    another.refresh(&mut lab, 0);
    let last = happenings(&mut lab).pop();
    assert!(matches!(last, Some(Happening::Ended(other)) if other.name != account.name), "{last:?}");
}

#[test]
fn two_clients_of_one_server_count_each_their_own_side() {
    let mut lab = Lab::new();
    let (a, b) = (in_session(&mut lab, HERE), in_session(&mut lab, THERE));
    let (of_a, of_b) = (a.allocate(&mut lab).to_string(), b.allocate(&mut lab).to_string());
    a.permit(&mut lab, &of_b);
    assert!(a.send(&mut lab, &of_b, b"before").is_empty(), "b permits nobody yet");
    b.permit(&mut lab, &of_a);
    assert_eq!(a.send(&mut lab, &of_b, b"four").len(), 1);
    take(&mut lab);
    for client in [&a, &b] {
        client.refresh(&mut lab, 0);
    }
    let carried: Vec<_> = happenings(&mut lab)
        .into_iter()
        .filter_map(|what| if let Happening::Ended(account) = what { Some(account.usage) } else { None })
        .collect();
    assert_eq!(carried, [usage((1, 4), (0, 0)), usage((0, 0), (1, 4))]);
}

fn fails(lab: &mut Lab, client: &Client) {
    let answer = client.call(lab, Method::ALLOCATE, |w| {
        w.attribute(A::REQUESTED_TRANSPORT, UDP);
    });
    assert!(answer.error.is_some());
}

#[test]
fn failures_are_told_of_sessions_whose_client_has_sent_its_nonce_back() {
    let mut lab = Lab::new();
    let good = in_session(&mut lab, HERE);
    let wrong = Client { key: IntegrityKey::long_term(&good.username, REALM, "wrong"), ..good.clone() };
    fails(&mut lab, &wrong);
    let told = take(&mut lab);
    assert_eq!((told.len(), &*told[0].user, &*told[0].session), (1, "ann", "0123456789abcdef"));
    assert_eq!(told[0].what, Happening::AuthFailed(AuthFailure::WrongPassword));

    let old =
        mint(&Secrets::new(["secret"]), lab.now().unix - 100, Duration::from_secs(60), "ann.0123").unwrap();
    let key = IntegrityKey::long_term(&old.username, REALM, &old.password);
    fails(&mut lab, &Client { username: old.username, key, ..good });
    assert_eq!(happenings(&mut lab), [Happening::AuthFailed(AuthFailure::Expired { by: 40 })]);

    fails(&mut lab, &Client { nonce: b"obMatJos2gAAAx".to_vec(), ..wrong.clone() });
    fails(&mut lab, &Client { path: path(THERE, Transport::Udp), ..wrong });
    let stranger = Client::minted(&mut lab, THERE, HOUR, "bob");
    fails(&mut lab, &Client { key: IntegrityKey::long_term(&stranger.username, REALM, "x"), ..stranger });
    assert_eq!(happenings(&mut lab), [], "another's nonce, and a credential of no session");
}

#[test]
fn an_allocation_that_is_refused_is_told() {
    let mut lab = Lab::with(|settings| settings.user_quota = 1);
    let client = in_session(&mut lab, HERE);
    client.allocate(&mut lab);
    take(&mut lab);
    let second = in_session(&mut lab, THERE);
    fails(&mut lab, &second);
    assert_eq!(happenings(&mut lab), [Happening::NotAllocated(ErrorCode::AllocationQuotaReached)]);
}

#[test]
fn who_knows_no_password_cannot_crowd_out_what_is_due_to_others() {
    let mut lab = Lab::new();
    let good = in_session(&mut lab, HERE);
    let wrong = Client { key: IntegrityKey::long_term(&good.username, REALM, "wrong"), ..good.clone() };
    for _ in 0..1000 {
        fails(&mut lab, &wrong);
    }
    good.allocate(&mut lab);
    let told = happenings(&mut lab);
    assert!(told.len() < 200, "{}", told.len());
    assert!(matches!(told.last(), Some(Happening::Allocated { .. })));
    assert_eq!(lab.server.stats().events_dropped, 1000 - (told.len() as u64 - 1));
    fails(&mut lab, &wrong);
    assert_eq!(happenings(&mut lab).len(), 1, "there is room again");
}

#[test]
fn events_that_nobody_takes_are_bounded_and_counted() {
    let mut lab = Lab::new();
    let client = in_session(&mut lab, HERE);
    for _ in 0..2500 {
        client.allocate(&mut lab);
        client.refresh(&mut lab, 0);
    }
    assert!(lab.server.has_many_events());
    let told = take(&mut lab).len() as u64;
    assert!(told > 4000 && told + lab.server.stats().events_dropped == 5000, "{told}");
}

/// A lab whose flows are offloaded.
fn offloading() -> Lab {
    let shared = Shared::new(settings().ports).with_offload(64, Arc::new(Vec::new()));
    Lab::of(settings(), Arc::new(shared))
}

#[test]
fn what_is_relayed_elsewhere_counts_for_its_allocation_also_after_its_end() {
    let mut lab = offloading();
    let client = in_session(&mut lab, HERE);
    client.allocate(&mut lab);
    assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
    let flow: FlowId = lab.rows.0.values().next().expect("a row").flow;
    lab.server.count_offloaded(lab.now(), flow, usage((2, 20), (1, 10)));
    assert!(matches!(happenings(&mut lab)[..], [Happening::Allocated { .. }, Happening::FirstByte]));
    client.refresh(&mut lab, 0);
    lab.server.count_offloaded(lab.now(), flow, usage((1, 5), (0, 0)));
    lab.server.count_offloaded(lab.now(), flow, usage((7, 7), (7, 7)));
    let told = happenings(&mut lab);
    let carried = usage((3, 25), (1, 10));
    assert!(matches!(told[..], [Happening::Ended(account)] if account.usage == carried), "{told:?}");
}

#[test]
fn of_an_allocation_all_of_whose_packets_the_kernel_relayed_the_end_is_told() {
    let mut lab = offloading();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
    let flow: FlowId = lab.rows.0.values().next().expect("a row").flow;
    client.refresh(&mut lab, 0);
    lab.server.count_offloaded(lab.now(), flow, usage((1, 5), (0, 0)));
    let told = happenings(&mut lab);
    assert!(
        matches!(told[..], [Happening::Ended(account)] if account.usage == usage((1, 5), (0, 0))),
        "{told:?}"
    );
}

#[test]
fn a_server_that_stops_tells_of_what_still_stands() {
    let mut lab = Lab::new();
    in_session(&mut lab, HERE).allocate(&mut lab);
    take(&mut lab);
    lab.server.handle_stop(lab.now());
    while lab.server.poll_output().is_some() {}
    assert!(matches!(happenings(&mut lab)[..], [Happening::Ended(_)]));
    assert_eq!(lab.allocations(), 0);
}
