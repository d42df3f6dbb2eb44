//! Mobility: RFC 8016, on one worker and between two.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType, Class, Method, TransactionId};
use turnkey::turn::{Asked, ClientPath, LinkId, Settings, Shared, Transport, Verdict, WorkerId};

use crate::lab::{Answer, Client, Event, Lab, PEER, UDP, addr, data_indication, path, settings};

const HERE: &str = "192.0.2.9:40000";
const THERE: &str = "203.0.113.7:50000";

fn lab() -> Lab {
    Lab::with(|settings| settings.mobility = true)
}

fn ask_allocate(client: &Client, lab: &mut Lab, ticket: &[u8]) -> Answer {
    client.call(lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP)
            .attribute(AttributeType::MOBILITY_TICKET, ticket);
    })
}

/// A client with an allocation that may move, its relayed address and its ticket.
fn allocated(lab: &mut Lab, path: ClientPath) -> (Client, SocketAddr, Vec<u8>) {
    let client = Client::with(lab, path, "static", "pass");
    let answer = ask_allocate(&client, lab, &[]);
    let relayed = answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS).unwrap();
    client.permit(lab, PEER);
    (client, relayed, ticket(&answer))
}

fn ticket(answer: &Answer) -> Vec<u8> {
    answer.value(AttributeType::MOBILITY_TICKET).expect("a ticket")
}

fn refresh(client: &Client, lab: &mut Lab, ticket: &[u8]) -> Answer {
    client.call(lab, Method::REFRESH, |w| {
        w.attribute(AttributeType::MOBILITY_TICKET, ticket);
    })
}

/// The same client at another address.
fn elsewhere(lab: &mut Lab, client: &Client, path: ClientPath) -> Client {
    let mut moved = Client { path, ..client.clone() };
    moved.fetch_nonce(lab);
    moved
}

/// Where a peer's packet goes.
fn reaches(lab: &mut Lab, relayed: SocketAddr) -> Option<ClientPath> {
    match &lab.peer_sends(relayed, PEER, b"x")[..] {
        [Event::ToClient(path, bytes)] => {
            assert_eq!(data_indication(bytes), (addr(PEER), b"x".to_vec()));
            Some(*path)
        }
        [] => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc8016_3_1_a_ticket_is_given_to_who_asks_where_it_is_on() {
    let mut off = Lab::new();
    let client = Client::new(&mut off, HERE);
    assert_eq!(ask_allocate(&client, &mut off, &[]).error, Some(405));
    assert_eq!(refresh(&client, &mut off, &[1; 28]).error, Some(405));
    let mut lab = lab();
    let client = Client::new(&mut lab, HERE);
    assert_eq!(ask_allocate(&client, &mut lab, &[1]).error, Some(400));
    let answer = ask_allocate(&client, &mut lab, &[]);
    assert!(!ticket(&answer).contains(&0), "coturn's client keeps it as text");
    assert!(ticket(&answer).len() <= 32);
    let plain = Client::new(&mut lab, THERE);
    plain.allocate(&mut lab);
    let answer = plain.refresh(&mut lab, 600);
    assert_eq!(answer.value(AttributeType::MOBILITY_TICKET), None, "who does not ask gets none");
}

#[test]
fn rfc8016_3_2_a_client_comes_back_from_another_address() {
    let mut lab = lab();
    let (client, relayed, first) = allocated(&mut lab, path(HERE, Transport::Udp));
    assert_eq!(reaches(&mut lab, relayed), Some(client.path));
    let moved = elsewhere(&mut lab, &client, path(THERE, Transport::Udp));
    assert_eq!(moved.refresh(&mut lab, 600).error, Some(437), "without a ticket it is a stranger");
    let answer = refresh(&moved, &mut lab, &first);
    assert_eq!((answer.error, answer.lifetime()), (None, Some(600)));
    let second = ticket(&answer);
    assert_ne!(first, second);
    assert_eq!(reaches(&mut lab, relayed), Some(client.path), "until the new path is used");
    assert_eq!(client.send(&mut lab, PEER, b"x").len(), 1, "the old one still works");
    assert_eq!(moved.send(&mut lab, PEER, b"x").len(), 1);
    assert_eq!(reaches(&mut lab, relayed), Some(moved.path));
    assert_eq!(client.send(&mut lab, PEER, b"x"), [], "now it is over");
    assert_eq!((lab.allocations(), lab.open.len()), (1, 1), "it is the same allocation");
    let third = elsewhere(&mut lab, &client, path("203.0.113.8:1", Transport::Udp));
    assert_eq!(refresh(&third, &mut lab, &first).error, Some(437), "the first ticket is used up");
    assert_eq!(refresh(&third, &mut lab, &second).error, None);
}

#[test]
fn rfc8016_3_2_a_repeated_refresh_gets_the_same_ticket_and_confirms_nothing() {
    let mut lab = lab();
    let (client, relayed, first) = allocated(&mut lab, path(HERE, Transport::Udp));
    let moved = elsewhere(&mut lab, &client, path(THERE, Transport::Udp));
    let transaction = lab.transaction();
    let request = moved.signed(transaction, Method::REFRESH, |w| {
        w.attribute(AttributeType::MOBILITY_TICKET, &first);
    });
    let answers: Vec<_> = (0..3).map(|_| lab.ask(moved.path, &request)).collect();
    assert!(answers.iter().all(|answer| ticket(answer) == ticket(&answers[0])));
    assert_eq!(reaches(&mut lab, relayed), Some(client.path));
    // The answer was lost and the client moves on: the ticket it has is good still.
    let on = elsewhere(&mut lab, &client, path("203.0.113.8:1", Transport::Udp));
    let answer = refresh(&on, &mut lab, &first);
    assert_eq!(answer.error, None);
    assert_eq!(moved.send(&mut lab, PEER, b"x"), [], "the path between leads nowhere");
    assert_eq!(on.permit(&mut lab, PEER), None);
    assert_eq!(reaches(&mut lab, relayed), Some(on.path), "a request confirms as data do");
}

#[test]
fn rfc8016_3_2_a_ticket_is_for_its_user_and_cannot_be_made() {
    let mut lab = lab();
    let (client, relayed, first) = allocated(&mut lab, path(HERE, Transport::Udp));
    let other = Client::with(&mut lab, path(THERE, Transport::Udp), "other", "word");
    assert_eq!(refresh(&other, &mut lab, &first).error, Some(441));
    let moved = elsewhere(&mut lab, &client, path(THERE, Transport::Udp));
    for at in 0..first.len() {
        let mut forged = first.clone();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(refresh(&moved, &mut lab, &forged).error, Some(400), "byte {at}");
    }
    assert_eq!(refresh(&moved, &mut lab, &first[1..]).error, Some(400));
    // A request that somebody has recorded is of no use from another address.
    let stolen = Client { path: path("203.0.113.66:1", Transport::Udp), ..client.clone() };
    assert_eq!(refresh(&stolen, &mut lab, &first).error, Some(438));
    assert_eq!(reaches(&mut lab, relayed), Some(client.path));
    // Nor does a ticket refresh somebody else's allocation.
    let second = Client::with(&mut lab, path("203.0.113.9:1", Transport::Udp), "static", "pass");
    let ticket_of_second = ticket(&ask_allocate(&second, &mut lab, &[]));
    assert_eq!(refresh(&client, &mut lab, &ticket_of_second).error, Some(437));
}

#[test]
fn rfc8016_3_2_an_allocation_that_moves_keeps_its_lifetimes_and_ends_as_others_do() {
    let mut lab = lab();
    let (client, _, first) = allocated(&mut lab, path(HERE, Transport::Udp));
    lab.advance(Duration::from_secs(500));
    let moved = elsewhere(&mut lab, &client, path(THERE, Transport::Udp));
    assert_eq!(refresh(&moved, &mut lab, &first).lifetime(), Some(600));
    lab.advance(Duration::from_secs(599));
    assert_eq!(lab.allocations(), 1);
    lab.advance(Duration::from_secs(1));
    assert_eq!((lab.allocations(), lab.open.len()), (0, 0), "an unconfirmed path keeps nothing");
    let (client, _, first) = allocated(&mut lab, path(HERE, Transport::Udp));
    let moved = elsewhere(&mut lab, &client, path(THERE, Transport::Udp));
    let end = moved.call(&mut lab, Method::REFRESH, |w| {
        w.u32(AttributeType::LIFETIME, 0).attribute(AttributeType::MOBILITY_TICKET, &first);
    });
    assert_eq!((end.error, end.lifetime()), (None, Some(0)), "it may be ended from there as well");
    assert_eq!((lab.allocations(), lab.open.len()), (0, 0));
}

fn connection(port: u16) -> ClientPath {
    ClientPath { link: LinkId(port.into()), ..path(&format!("192.0.2.9:{port}"), Transport::Tcp) }
}

#[test]
fn rfc8016_3_2_an_allocation_outlives_its_connection() {
    let mut lab = lab();
    let (client, relayed, first) = allocated(&mut lab, connection(4000));
    lab.client_closes(client.path);
    assert_eq!((lab.allocations(), lab.open.len()), (1, 1));
    assert!(!lab.server.has_allocation(&client.path.five_tuple));
    let moved = elsewhere(&mut lab, &client, connection(4001));
    let second = ticket(&refresh(&moved, &mut lab, &first));
    assert_eq!(reaches(&mut lab, relayed), Some(moved.path), "at once: there is no other path");
    // Another client may have the old address by now; its end is not this allocation's.
    let heir = Client::with(&mut lab, ClientPath { link: LinkId(77), ..client.path }, "static", "pass");
    heir.allocate(&mut lab);
    lab.client_closes(heir.path);
    assert_eq!(lab.allocations(), 1);
    // The new connection breaks before it is confirmed, the old one stands.
    let third = elsewhere(&mut lab, &client, connection(4002));
    let answer = refresh(&third, &mut lab, &second);
    lab.client_closes(third.path);
    assert_eq!(reaches(&mut lab, relayed), Some(moved.path));
    let fourth = elsewhere(&mut lab, &client, connection(4003));
    assert_eq!(refresh(&fourth, &mut lab, &ticket(&answer)).error, None);
    lab.client_closes(moved.path);
    assert_eq!(reaches(&mut lab, relayed), Some(fourth.path), "the old one breaks first");
    lab.advance(Duration::from_secs(600));
    assert_eq!((lab.allocations(), lab.open.len()), (0, 0));
}

#[test]
fn rfc8016_3_2_what_cannot_move_gets_no_ticket() {
    let mut lab = Lab::with(|settings| (settings.mobility, settings.tcp) = (true, true));
    let client = Client::with(&mut lab, connection(4000), "static", "pass");
    let answer = client.call(&mut lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, &[6, 0, 0, 0])
            .attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    assert_eq!(answer.error, Some(405));
}

/// Two workers of one process; the first has an allocation.
fn two() -> (Lab, Lab) {
    let settings = Settings { mobility: true, ..settings() };
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    let worker = |n| Lab::worker(settings.clone(), Arc::clone(&shared), WorkerId(n));
    (worker(1), worker(2))
}

fn signed_refresh(client: &Client, transaction: TransactionId, ticket: &[u8]) -> Vec<u8> {
    client.signed(transaction, Method::REFRESH, |w| {
        w.attribute(AttributeType::MOBILITY_TICKET, ticket);
    })
}

#[test]
fn rfc8016_3_2_an_allocation_moves_to_the_worker_its_client_has_come_to() {
    let (mut one, mut other) = two();
    let (client, relayed, first) = allocated(&mut one, path(HERE, Transport::Udp));
    client.bind(&mut one, 0x4000, PEER);
    let moved = elsewhere(&mut other, &client, path(THERE, Transport::Udp));
    let transaction = other.transaction();
    let request = signed_refresh(&moved, transaction, &first);
    assert_eq!(other.verdict(moved.path, &request), Verdict::Elsewhere(WorkerId(1)));
    let Asked::Leaves(moving, relays) = one.asked(moved.path, &request) else { panic!("it leaves") };
    assert_eq!(one.part_with(&relays), [SocketAddr::new(addr("10.0.0.1:0").ip(), relayed.port())]);
    assert_eq!((one.allocations(), one.server.poll_output()), (0, None));
    let answer = other.takes_in(*moving, relayed.port());
    assert_eq!((answer.class, answer.error, answer.lifetime()), (Class::Success, None, Some(600)));
    assert!(answer.message().verify_integrity(&client.key));
    assert_eq!(other.allocations(), 1);
    // As on one worker: the old path until the new one is used; permissions and channels have come along.
    let [Event::ToClient(to, _)] = &other.peer_sends(relayed, PEER, b"x")[..] else { panic!("it goes on") };
    assert_eq!(*to, client.path);
    assert_eq!(ticket(&other.ask(moved.path, &request)), ticket(&answer), "a repeated request");
    assert_eq!(moved.channel(&mut other, 0x4000, b"x").len(), 1);
    let [Event::ToClient(to, _)] = &other.peer_sends(relayed, PEER, b"x")[..] else { panic!("it goes on") };
    assert_eq!(*to, moved.path);
    // A question that was asked twice finds nothing the second time.
    assert!(matches!(one.asked(moved.path, &request), Asked::Answered { .. }));
    other.advance(Duration::from_secs(600));
    assert_eq!((other.allocations(), other.open.len()), (0, 0), "the timers came along");
    let again = Client::new(&mut one, HERE);
    again.allocate(&mut one);
    assert_eq!(one.allocations(), 1, "the place it left is free");
}

#[test]
fn rfc8016_3_2_clients_of_other_workers_find_the_allocation_where_it_has_moved_to() {
    let (mut one, mut other) = two();
    let (client, relayed, first) = allocated(&mut one, path(HERE, Transport::Udp));
    let neighbour = Client::with(&mut other, path("192.0.2.77:1", Transport::Udp), "other", "word");
    let relayed_neighbour = neighbour.allocate(&mut other);
    client.permit(&mut one, &relayed_neighbour.to_string());
    neighbour.permit(&mut other, &relayed.to_string());
    let late = neighbour.send(&mut other, &relayed.to_string(), b"late");
    assert!(matches!(late[..], [Event::ToNeighbour(owner, ..)] if owner.worker() == WorkerId(1)));
    let moved = elsewhere(&mut other, &client, path(THERE, Transport::Udp));
    let transaction = other.transaction();
    let request = signed_refresh(&moved, transaction, &first);
    let Asked::Leaves(moving, relays) = one.asked(moved.path, &request) else { panic!("it leaves") };
    one.part_with(&relays);
    // Another client has the place it left.
    let heir = Client::with(&mut one, path("192.0.2.78:1", Transport::Udp), "other", "word");
    heir.allocate(&mut one);
    heir.permit(&mut one, &relayed_neighbour.to_string());
    assert_eq!(one.crosses(late), [], "it is for nobody here");
    let late = neighbour.send(&mut other, &relayed.to_string(), b"while it moves");
    assert_eq!(one.crosses(late), []);
    other.takes_in(*moving, relayed.port());
    let [Event::ToClient(to, _)] = &neighbour.send(&mut other, &relayed.to_string(), b"x")[..] else {
        panic!("it lives here now")
    };
    assert_eq!(*to, client.path);
}

#[test]
fn rfc8016_3_2_what_is_asked_of_another_worker_is_judged_there() {
    let (mut one, mut other) = two();
    let (client, _, first) = allocated(&mut one, path(HERE, Transport::Udp));
    let stranger = Client::with(&mut other, path(THERE, Transport::Udp), "other", "word");
    let transaction = other.transaction();
    let request = signed_refresh(&stranger, transaction, &first);
    assert_eq!(other.verdict(stranger.path, &request), Verdict::Elsewhere(WorkerId(1)));
    assert!(matches!(one.asked(stranger.path, &request), Asked::Answered { .. }));
    assert_eq!(one.allocations(), 1);
    // Without a nonce for its address nobody is asked.
    let thief = Client { path: path("203.0.113.66:1", Transport::Udp), ..client };
    let request = signed_refresh(&thief, transaction, &first);
    assert!(matches!(other.verdict(thief.path, &request), Verdict::Reply { .. }));
    // Anything but a Refresh is no question.
    let request = stranger.signed(transaction, Method::CREATE_PERMISSION, |_| {});
    assert!(matches!(one.asked(stranger.path, &request), Asked::Dropped));
    assert!(matches!(one.asked(stranger.path, &[0; 20]), Asked::Dropped));
}

#[test]
fn rfc8016_3_2_an_allocation_that_cannot_leave_is_taken_back() {
    let (mut one, mut other) = two();
    let (client, relayed, first) = allocated(&mut one, path(HERE, Transport::Udp));
    let moved = elsewhere(&mut other, &client, path(THERE, Transport::Udp));
    let transaction = other.transaction();
    let request = signed_refresh(&moved, transaction, &first);
    let Asked::Leaves(moving, relays) = one.asked(moved.path, &request) else { panic!("it leaves") };
    let binds = one.part_with(&relays);
    one.server.take_back(*moving);
    one.open.extend(relays.into_iter().zip(binds));
    assert_eq!(reaches(&mut one, relayed), Some(client.path), "nothing is lost");
    let Asked::Leaves(..) = one.asked(moved.path, &request) else { panic!("it may be tried again") };
}
