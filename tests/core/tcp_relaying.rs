//! TCP allocations: RFC 6062, section by section.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType, Class, Method};
use turnkey::turn::{
    Bandwidth, ClientPath, LinkId, Output, PeerLink, PeerPolicy, Settings, Shared, Transport, Verdict,
    WorkerId,
};

use crate::lab::{Answer, Client, Event, Lab, PEER, Peer, addr, path, settings};

const TCP: &[u8] = &[6, 0, 0, 0];
const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(1);

fn lab() -> Lab {
    Lab::with(|settings| settings.tcp = true)
}

/// A path over TCP; each connection has a link of its own.
fn connection(port: u16) -> ClientPath {
    ClientPath { link: LinkId(port.into()), ..path(&format!("192.0.2.9:{port}"), Transport::Tcp) }
}

fn client(lab: &mut Lab, port: u16) -> Client {
    let path = connection(port);
    Client::with(lab, path, "static", "pass")
}

fn ask_allocate(client: &Client, lab: &mut Lab, extra: Option<(AttributeType, &[u8])>) -> Answer {
    client.call(lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, TCP);
        if let Some((kind, value)) = extra {
            w.attribute(kind, value);
        }
    })
}

/// A client with a TCP allocation, and its relayed address.
fn allocated(lab: &mut Lab, port: u16) -> (Client, SocketAddr) {
    let client = client(lab, port);
    let answer = ask_allocate(&client, lab, None);
    (client, answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS).unwrap())
}

/// Sends a Connect; what left at once.
fn connect(client: &Client, lab: &mut Lab, peer: &str) -> Vec<Event> {
    let transaction = lab.transaction();
    let request = client.signed(transaction, Method::CONNECT, |w| {
        w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(peer));
    });
    lab.client_sends(client.path, &request)
}

/// The error of a Connect that is refused at once.
fn refused(client: &Client, lab: &mut Lab, peer: &str) -> Option<u16> {
    let [Event::Answer(_, answer)] = &connect(client, lab, peer)[..] else { panic!("one answer") };
    answer.error
}

/// A Connect that succeeds: the connection and its identifier.
fn connected(client: &Client, lab: &mut Lab, peer: &str) -> (PeerLink, u32) {
    assert_eq!(connect(client, lab, peer), [], "the answer waits for the peer");
    let (&link, _) = lab.peers.iter().rev().find(|(_, peer)| matches!(peer, Peer::Connecting(_))).unwrap();
    let answer = only_answer(&lab.peer_connected(link, true), client);
    assert_eq!((answer.class, answer.message().method()), (Class::Success, Method::CONNECT));
    assert!(answer.message().verify_integrity(&client.key));
    (link, connection_id(&answer))
}

fn only_answer(events: &[Event], client: &Client) -> Answer {
    let [Event::Answer(to, answer)] = events else { panic!("one answer: {events:?}") };
    assert_eq!(*to, client.path, "on the control connection");
    answer.clone()
}

fn connection_id(answer: &Answer) -> u32 {
    answer.message().attribute(AttributeType::CONNECTION_ID).unwrap().as_u32().unwrap()
}

fn bind(client: &Client, lab: &mut Lab, id: u32) -> Answer {
    client.call(lab, Method::CONNECTION_BIND, |w| {
        w.u32(AttributeType::CONNECTION_ID, id);
    })
}

#[test]
fn rfc6062_5_1_tcp_is_served_over_streams_only_and_where_it_is_on() {
    let mut off = Lab::new();
    let tcp = client(&mut off, 4000);
    assert_eq!(ask_allocate(&tcp, &mut off, None).error, Some(442));
    let mut lab = lab();
    let udp = Client::new(&mut lab, "192.0.2.9:4001");
    assert_eq!(ask_allocate(&udp, &mut lab, None).error, Some(400));
    for (kind, value) in [
        (AttributeType::EVEN_PORT, &[0][..]),
        (AttributeType::RESERVATION_TOKEN, &[0; 8]),
        (AttributeType::DONT_FRAGMENT, &[]),
    ] {
        let tcp = client(&mut lab, 4002);
        assert_eq!(ask_allocate(&tcp, &mut lab, Some((kind, value))).error, Some(400), "{kind:?}");
    }
    assert_eq!(lab.allocations(), 0);
    let (_, relayed) = allocated(&mut lab, 4003);
    assert_eq!(lab.relays()[0].1, SocketAddr::new(addr("10.0.0.1:0").ip(), relayed.port()));
    let tls = ClientPath { link: LinkId(9), ..path("192.0.2.9:4004", Transport::Tls) };
    let tls = Client::with(&mut lab, tls, "static", "pass");
    assert_eq!(ask_allocate(&tls, &mut lab, None).error, None);
}

#[test]
fn rfc6062_5_1_datagrams_do_not_pass_a_tcp_allocation() {
    let mut lab = lab();
    let (client, relayed) = allocated(&mut lab, 4000);
    assert_eq!(client.permit(&mut lab, PEER), None);
    assert_eq!(client.send(&mut lab, PEER, b"x"), []);
    assert_eq!(client.bind(&mut lab, 0x4000, PEER), Some(400));
    // Nor does another client's datagram reach it from inside.
    let udp = Client::new(&mut lab, "192.0.2.8:4001");
    udp.allocate(&mut lab);
    udp.permit(&mut lab, "198.51.100.1:1");
    assert_eq!(udp.send(&mut lab, &relayed.to_string(), b"x"), []);
    let other = self::client(&mut lab, 4001);
    assert_eq!(refused(&other, &mut lab, PEER), Some(437), "without an allocation");
    let udp_over_tcp = self::client(&mut lab, 4002);
    udp_over_tcp.allocate(&mut lab);
    assert_eq!(refused(&udp_over_tcp, &mut lab, PEER), Some(437), "with an allocation for datagrams");
}

#[test]
fn rfc6062_5_2_a_connect_is_answered_when_the_peer_is_reached() {
    let mut lab = lab();
    let (client, _) = allocated(&mut lab, 4000);
    let (link, id) = connected(&client, &mut lab, PEER);
    let data = self::client(&mut lab, 4001);
    let answer = bind(&data, &mut lab, id);
    assert_eq!(answer.class, Class::Success);
    assert_eq!(lab.peers[&link], Peer::Joined(data.path));
    assert_eq!(lab.advance(10 * PATIENCE), [], "a bound connection has no deadline of its own");
    lab.peer_closes(link);
    let (_, again) = connected(&client, &mut lab, PEER);
    assert_ne!(again, id);
}

#[test]
fn rfc6062_5_2_what_a_connect_is_refused_for() {
    let mut lab = lab();
    let (client, relayed) = allocated(&mut lab, 4000);
    assert_eq!(client.call(&mut lab, Method::CONNECT, |_| {}).error, Some(400));
    for (peer, error) in [
        ("[2600::9]:5000", 443),
        ("10.1.2.3:80", 403),
        ("9.9.9.9:80", 403),
        ("169.254.169.254:80", 403),
        ("198.51.100.1:3478", 403),
        ("10.0.0.1:3478", 403),
        ("198.51.100.1:22", 403),
    ] {
        assert_eq!(refused(&client, &mut lab, peer), Some(error), "{peer}");
    }
    assert_eq!(refused(&client, &mut lab, &relayed.to_string()), Some(403), "itself");
    assert!(lab.peers.is_empty());
}

#[test]
fn rfc6062_5_2_a_second_connection_to_a_peer_is_446() {
    let mut lab = lab();
    let (client, _) = allocated(&mut lab, 4000);
    assert_eq!(connect(&client, &mut lab, PEER), []);
    assert_eq!(refused(&client, &mut lab, PEER), Some(446), "while the first is being made");
    let (&link, _) = lab.peers.first_key_value().unwrap();
    let id = connection_id(&only_answer(&lab.peer_connected(link, true), &client));
    assert_eq!(refused(&client, &mut lab, PEER), Some(446), "while the first is pending");
    let data = self::client(&mut lab, 4001);
    bind(&data, &mut lab, id);
    assert_eq!(refused(&client, &mut lab, PEER), Some(446), "while the first is bound");
    let (other, _) = allocated(&mut lab, 4002);
    assert_eq!(connect(&other, &mut lab, PEER), [], "of another allocation it is the first");
    lab.peer_closes(link);
    assert_eq!(connect(&client, &mut lab, PEER), []);
    assert_eq!(connect(&client, &mut lab, "8.8.8.8:5001"), [], "another port is another peer");
}

#[test]
fn rfc6062_5_2_a_failed_connect_is_447_at_once_and_a_silent_one_after_30_s() {
    let mut lab = lab();
    let (client, _) = allocated(&mut lab, 4000);
    assert_eq!(connect(&client, &mut lab, PEER), []);
    let (&link, _) = lab.peers.first_key_value().unwrap();
    assert_eq!(only_answer(&lab.peer_connected(link, false), &client).error, Some(447));
    assert_eq!(connect(&client, &mut lab, PEER), [], "it may be tried again");
    assert_eq!(lab.advance(PATIENCE - TICK), []);
    let answer = only_answer(&lab.advance(TICK), &client);
    assert_eq!((answer.error, answer.message().method()), (Some(447), Method::CONNECT));
    assert!(answer.message().verify_integrity(&client.key));
    assert!(lab.peers.is_empty());
}

#[test]
fn rfc6062_5_5_a_connect_whose_allocation_has_ended_meanwhile_is_not_answered() {
    let mut lab = lab();
    let (client, _) = allocated(&mut lab, 4000);
    assert_eq!(connect(&client, &mut lab, PEER), []);
    let (&link, _) = lab.peers.first_key_value().unwrap();
    // A worker that was held up looks at both deadlines at once.
    lab.mono += Duration::from_secs(1000);
    lab.server.handle_timeout(lab.now());
    let effects: Vec<Output> = std::iter::from_fn(|| lab.server.poll_output()).collect();
    let closed: [bool; 2] = [
        effects.contains(&Output::ClosePeer { link }),
        effects.iter().any(|effect| matches!(effect, Output::CloseRelay { .. })),
    ];
    assert_eq!((closed, effects.len()), ([true, true], 2), "{effects:?}");
}

#[test]
fn rfc6062_5_2_a_connection_that_nobody_binds_is_closed_after_30_s() {
    let mut lab = lab();
    let (client, relayed) = allocated(&mut lab, 4000);
    client.permit(&mut lab, PEER);
    let (_, id) = connected(&client, &mut lab, "1.1.1.1:80");
    let (link, _) = lab.peer_connects(relayed, PEER);
    assert!(link.is_some());
    lab.advance(PATIENCE - TICK);
    assert_eq!(lab.peers.len(), 2);
    lab.advance(TICK);
    assert!(lab.peers.is_empty());
    let data = self::client(&mut lab, 4001);
    assert_eq!(bind(&data, &mut lab, id).error, Some(400));
}

#[test]
fn rfc6062_5_3_a_peer_with_permission_is_told_to_the_client_and_others_are_closed() {
    let mut lab = lab();
    let (client, relayed) = allocated(&mut lab, 4000);
    assert_eq!(lab.peer_connects(relayed, PEER), (None, vec![]));
    client.permit(&mut lab, PEER);
    assert_eq!(lab.peer_connects(relayed, "8.8.4.4:5000"), (None, vec![]));
    let (link, events) = lab.peer_connects(relayed, PEER);
    let attempt = only_answer(&events, &client);
    let message = attempt.message();
    assert_eq!((message.class(), message.method()), (Class::Indication, Method::CONNECTION_ATTEMPT));
    assert_eq!(attempt.xor_address(AttributeType::XOR_PEER_ADDRESS), Some(addr(PEER)));
    let data = self::client(&mut lab, 4001);
    assert_eq!(bind(&data, &mut lab, connection_id(&attempt)).error, None);
    assert_eq!(lab.peers[&link.unwrap()], Peer::Joined(data.path));
    lab.advance(Duration::from_secs(300));
    assert_eq!(lab.peer_connects(relayed, "8.8.8.8:5001"), (None, vec![]), "the permission is over");
    assert_eq!(lab.peers.len(), 1, "the connection it let in goes on");
}

#[test]
fn rfc6062_5_4_what_a_connection_bind_is_refused_for() {
    let mut lab = lab();
    let (client, _) = allocated(&mut lab, 4000);
    let (_, id) = connected(&client, &mut lab, PEER);
    let data = self::client(&mut lab, 4001);
    assert_eq!(data.call(&mut lab, Method::CONNECTION_BIND, |_| {}).error, Some(400));
    assert_eq!(bind(&data, &mut lab, id ^ 1).error, Some(400), "unknown");
    assert_eq!(bind(&client, &mut lab, id).error, Some(437), "on the control connection");
    let udp = Client::new(&mut lab, "192.0.2.9:4002");
    assert_eq!(bind(&udp, &mut lab, id).error, Some(400), "over UDP");
    let path = connection(4003);
    let other = Client::with(&mut lab, path, "other", "word");
    assert_eq!(bind(&other, &mut lab, id).error, Some(441), "another user");
    assert_eq!(bind(&data, &mut lab, id).error, None);
    let late = self::client(&mut lab, 4004);
    assert_eq!(bind(&late, &mut lab, id).error, Some(400), "twice");
}

#[test]
fn rfc6062_5_4_the_connection_of_a_credential_that_has_expired_may_be_bound() {
    let mut lab = lab();
    let minted = Client::minted(&mut lab, "192.0.2.9:1", Duration::from_secs(60), "alice");
    let path = connection(4000);
    let mut client = Client { path, ..minted };
    client.fetch_nonce(&mut lab);
    assert_eq!(ask_allocate(&client, &mut lab, None).error, None);
    lab.advance(Duration::from_secs(90));
    let (_, id) = connected(&client, &mut lab, PEER);
    let mut data = Client { path: connection(4001), ..client.clone() };
    data.fetch_nonce(&mut lab);
    assert_eq!(bind(&data, &mut lab, id).error, None);
}

#[test]
fn rfc6062_5_5_all_connections_end_with_their_allocation() {
    let mut lab = lab();
    for by in ["expiry", "refresh", "close"] {
        let (client, relayed) = allocated(&mut lab, 4000);
        let (_, id) = connected(&client, &mut lab, PEER);
        let data = self::client(&mut lab, 4001);
        bind(&data, &mut lab, id);
        client.permit(&mut lab, PEER);
        lab.peer_connects(relayed, "8.8.8.8:7");
        connect(&client, &mut lab, "1.1.1.1:80");
        assert_eq!(lab.peers.len(), 3);
        match by {
            "expiry" => drop(lab.advance(Duration::from_secs(600))),
            "refresh" => assert_eq!(client.refresh(&mut lab, 0).error, None),
            _ => lab.client_closes(client.path),
        }
        assert!(lab.peers.is_empty() && lab.open.is_empty(), "{by}");
    }
}

#[test]
fn rfc6062_5_5_a_client_connection_that_ends_before_its_bind_changes_nothing() {
    let mut lab = lab();
    let (client, _) = allocated(&mut lab, 4000);
    let (_, id) = connected(&client, &mut lab, PEER);
    let first = self::client(&mut lab, 4001);
    lab.client_closes(first.path);
    let second = self::client(&mut lab, 4002);
    assert_eq!(bind(&second, &mut lab, id).error, None);
}

#[test]
fn connections_of_an_allocation_are_bounded() {
    let mut lab = lab();
    let (client, relayed) = allocated(&mut lab, 4000);
    client.permit(&mut lab, PEER);
    for port in 0..64 {
        assert_eq!(connect(&client, &mut lab, &format!("8.8.8.8:{}", 1000 + port)), []);
    }
    assert_eq!(refused(&client, &mut lab, PEER), Some(508));
    assert_eq!(lab.peer_connects(relayed, PEER), (None, vec![]), "nor does the peer get in");
    let (other, _) = allocated(&mut lab, 4001);
    assert_eq!(connect(&other, &mut lab, PEER), []);
}

#[test]
fn two_clients_of_this_server_reach_each_other_by_their_public_names() {
    let mut lab = lab();
    let (a, relayed_a) = allocated(&mut lab, 4000);
    let (b, relayed_b) = allocated(&mut lab, 4001);
    b.permit(&mut lab, &relayed_a.to_string());
    assert_eq!(connect(&a, &mut lab, &relayed_b.to_string()), []);
    let local_a = format!("10.0.0.1:{}", relayed_a.port());
    let local_b = format!("10.0.0.1:{}", relayed_b.port());
    let (&link, peer) = lab.peers.first_key_value().unwrap();
    assert_eq!(*peer, Peer::Connecting(addr(&local_b)), "by the local address");
    lab.peer_connected(link, true);
    let (_, events) = lab.peer_connects(relayed_b, &local_a);
    let attempt = only_answer(&events, &b);
    assert_eq!(attempt.xor_address(AttributeType::XOR_PEER_ADDRESS), Some(relayed_a));
    assert_eq!(lab.peer_connects(relayed_b, "10.0.0.1:22"), (None, vec![]), "only relays are let in");
}

#[test]
fn new_settings_close_the_connections_they_forbid() {
    let mut lab = lab();
    let (client, _) = allocated(&mut lab, 4000);
    connected(&client, &mut lab, PEER);
    let (kept, _) = connected(&client, &mut lab, "1.1.1.1:80");
    let peers = PeerPolicy::new(vec![], vec!["8.8.8.8/32".parse().unwrap()], vec![], vec![]);
    lab.reconfigure(Settings { peers: Arc::new(peers), tcp: true, ..settings() });
    assert_eq!(lab.peers.keys().copied().collect::<Vec<_>>(), [kept]);
}

#[test]
fn rfc6062_6_2_1_a_connection_id_names_its_worker() {
    let settings = Settings { tcp: true, ..settings() };
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    let mut owner = Lab::worker(settings.clone(), Arc::clone(&shared), WorkerId(3));
    let mut other = Lab::worker(settings, shared, WorkerId(1));
    let (client, _) = allocated(&mut owner, 4000);
    let (link, id) = connected(&client, &mut owner, PEER);
    // The data connection came to another worker, which has challenged it.
    let data = self::client(&mut other, 4001);
    let transaction = other.transaction();
    let request = data.signed(transaction, Method::CONNECTION_BIND, |w| {
        w.u32(AttributeType::CONNECTION_ID, id);
    });
    assert_eq!(other.verdict(data.path, &request), Verdict::Elsewhere(WorkerId(3)));
    // Where it cannot be moved it is refused, and never moved twice.
    assert!(matches!(other.verdict_unmoved(data.path, &request), Verdict::Reply { .. }));
    assert!(
        matches!(owner.verdict_unmoved(data.path, &request), Verdict::Join { link: joined, .. } if joined == link)
    );
}

#[test]
fn rfc6062_4_3_a_data_connection_may_bring_the_nonce_of_its_control_connection() {
    let mut lab = lab();
    let (client, _) = allocated(&mut lab, 4000);
    let (_, id) = connected(&client, &mut lab, PEER);
    let foreign = self::client(&mut lab, 4001);
    let data = Client { path: connection(4002), nonce: foreign.nonce, ..client.clone() };
    assert_eq!(bind(&data, &mut lab, id).error, Some(438), "the nonce of somebody else");
    let data = Client { path: connection(4002), ..client };
    assert_eq!(bind(&data, &mut lab, id).error, None);
}

#[test]
fn a_connection_over_its_bandwidth_waits_in_that_direction() {
    let mut lab = Lab::with(|settings| {
        settings.tcp = true;
        settings.bandwidth = Bandwidth { allocation: 100_000, ..Bandwidth::default() };
    });
    let (client, _) = allocated(&mut lab, 4000);
    let (link, id) = connected(&client, &mut lab, PEER);
    let data = self::client(&mut lab, 4001);
    bind(&data, &mut lab, id);
    assert_eq!(lab.server.stream_shares(lab.now(), link, 4), [1, 1]);
    let now = lab.now();
    lab.server.count_streamed(now, link, [250_000, 50_000]);
    assert_eq!(lab.server.stream_shares(now, link, 4), [0, 1]);
    lab.advance(Duration::from_millis(1400));
    assert_eq!(lab.server.stream_shares(lab.now(), link, 4), [0, 1]);
    lab.advance(Duration::from_millis(200));
    assert_eq!(lab.server.stream_shares(lab.now(), link, 4), [1, 1]);
    lab.reconfigure(Settings { tcp: true, ..settings() });
    lab.server.count_streamed(now, link, [250_000, 250_000]);
    assert_eq!(lab.server.stream_shares(lab.now(), link, 4), [4, 4], "no limit, no waiting");
    let stats = lab.server.stats();
    assert_eq!((stats.to_peer_bytes, stats.to_client_bytes), (500_000, 300_000));
}
