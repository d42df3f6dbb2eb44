//! Pairs of ports: EVEN-PORT with the R bit and RESERVATION-TOKEN (RFC 8656 §7.2, §18.7, §18.10).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType, MessageWriter, Method};
use turnkey::turn::{Mode, OpenError, Settings, Shared, Transport};

use crate::lab::{Answer, Client, Lab, PEER, UDP, path, settings};

const HERE: &str = "192.0.2.9:40000";
const THERE: &str = "192.0.2.9:40001";
/// How long a port is reserved.
const HOLD: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(1);

fn pair(w: &mut MessageWriter<'_>) {
    w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP).attribute(AttributeType::EVEN_PORT, &[0x80]);
}

fn plain(w: &mut MessageWriter<'_>) {
    w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP);
}

fn with(token: &[u8]) -> impl FnOnce(&mut MessageWriter<'_>) {
    move |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP)
            .attribute(AttributeType::RESERVATION_TOKEN, token);
    }
}

fn relayed(answer: &Answer) -> SocketAddr {
    answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS).expect("a success")
}

fn token(answer: &Answer) -> Vec<u8> {
    answer.value(AttributeType::RESERVATION_TOKEN).expect("a token")
}

/// Reserves a pair; its lower port and the token for its upper one.
fn reserve(lab: &mut Lab, client: &Client) -> (SocketAddr, Vec<u8>) {
    let answer = client.call(lab, Method::ALLOCATE, pair);
    assert_eq!(answer.error, None);
    (relayed(&answer), token(&answer))
}

/// Cores of two workers with four ports.
fn two_workers() -> (Lab, Lab, Arc<Shared>) {
    let settings = Settings { ports: 50_000..=50_003, ..settings() };
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    (Lab::of(settings.clone(), Arc::clone(&shared)), Lab::of(settings, Arc::clone(&shared)), shared)
}

#[test]
fn rfc8656_7_2_the_upper_port_of_a_pair_is_there_for_its_token() {
    let mut lab = Lab::new();
    let rtp = Client::new(&mut lab, HERE);
    let rtcp = Client::with(&mut lab, path(THERE, Transport::Tcp), "static", "pass");
    let (lower, token) = reserve(&mut lab, &rtp);
    assert_eq!((lower.port() % 2, token.len()), (0, 8));
    let upper = SocketAddr::new(lower.ip(), lower.port() + 1);
    let held: Vec<_> = lab.reserved.iter().map(|bind| bind.port()).collect();
    assert_eq!(held, [upper.port()], "its socket is bound already");
    let answer = rtcp.call(&mut lab, Method::ALLOCATE, with(&token));
    assert_eq!((relayed(&answer), answer.lifetime()), (upper, Some(600)));
    assert_eq!(answer.value(AttributeType::RESERVATION_TOKEN), None);
    assert_eq!((lab.allocations(), lab.open.len(), lab.reserved.len()), (2, 2, 0));
    rtcp.permit(&mut lab, PEER);
    assert_eq!(lab.peer_sends(upper, PEER, b"x").len(), 1);
    lab.advance(HOLD);
    assert_eq!(lab.allocations(), 2, "a claimed port is an allocation like any other");
}

#[test]
fn rfc8656_7_2_a_retransmission_repeats_the_token() {
    let mut lab = Lab::new();
    let (rtp, rtcp) = (Client::new(&mut lab, HERE), Client::new(&mut lab, THERE));
    let first = rtp.signed(lab.transaction(), Method::ALLOCATE, pair);
    let answers = [(); 2].map(|()| lab.ask(rtp.path, &first));
    assert_eq!(token(&answers[0]), token(&answers[1]));
    assert_eq!(relayed(&answers[0]), relayed(&answers[1]));
    let second = rtcp.signed(lab.transaction(), Method::ALLOCATE, with(&token(&answers[0])));
    let claims = [(); 2].map(|()| lab.ask(rtcp.path, &second));
    assert_eq!(relayed(&claims[0]), relayed(&claims[1]), "the claim as well");
    assert_eq!((lab.allocations(), lab.open.len()), (2, 2));
}

#[test]
fn rfc8656_7_2_a_token_is_good_once_for_its_user_and_for_thirty_seconds() {
    let mut lab = Lab::new();
    let rtp = Client::new(&mut lab, HERE);
    let (lower, token) = reserve(&mut lab, &rtp);
    let mallory = Client::with(&mut lab, path("192.0.2.66:1", Transport::Udp), "other", "word");
    assert_eq!(mallory.call(&mut lab, Method::ALLOCATE, with(&token)).error, Some(508), "another user");
    let rtcp = Client::new(&mut lab, THERE);
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, with(&[7; 8])).error, Some(508), "not a token");
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, with(&[7; 7])).error, Some(400));
    lab.advance(HOLD - TICK);
    let answer = rtcp.call(&mut lab, Method::ALLOCATE, with(&token));
    assert_eq!(relayed(&answer).port(), lower.port() + 1);
    rtcp.refresh(&mut lab, 0);
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, with(&token)).error, Some(508), "used");

    let third = Client::new(&mut lab, "192.0.2.9:3");
    let (_, token) = reserve(&mut lab, &third);
    lab.advance(HOLD);
    assert!(lab.reserved.is_empty(), "released in time");
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, with(&token)).error, Some(508), "expired");
}

#[test]
fn rfc8656_7_2_any_worker_honours_the_token() {
    let (mut here, mut there, _) = two_workers();
    let rtp = Client::new(&mut here, HERE);
    let (lower, token) = reserve(&mut here, &rtp);
    let rtcp = Client::new(&mut there, THERE);
    let answer = rtcp.call(&mut there, Method::ALLOCATE, with(&token));
    assert_eq!(relayed(&answer).port(), lower.port() + 1);
    assert_eq!(there.open.len(), 1);
    // The core that reserved it does not take it back.
    here.advance(HOLD);
    there.advance(HOLD);
    assert_eq!((here.allocations(), there.allocations()), (1, 1));
    here.advance(Duration::from_secs(600));
    assert_eq!((here.allocations(), here.server.poll_timeout()), (0, None));
}

#[test]
fn rfc8656_7_2_an_expired_token_is_508_even_before_its_worker_has_noticed() {
    let (mut here, mut there, shared) = two_workers();
    let rtp = Client::new(&mut here, HERE);
    let (_, token) = reserve(&mut here, &rtp);
    there.advance(HOLD);
    let rtcp = Client::new(&mut there, THERE);
    assert_eq!(rtcp.call(&mut there, Method::ALLOCATE, with(&token)).error, Some(508));
    assert_eq!(shared.allocations(), 2, "the reservation is still counted");
    here.advance(HOLD);
    assert_eq!(shared.allocations(), 1);
}

#[test]
fn rfc8656_7_2_a_reserved_port_is_nobody_elses() {
    let (mut here, mut there, _) = two_workers();
    let rtp = Client::new(&mut here, HERE);
    let (lower, token) = reserve(&mut here, &rtp);
    let others: Vec<_> = (0..2)
        .map(|n| Client::new(&mut there, &format!("192.0.2.10:{}", 1 + n)).allocate(&mut there).port())
        .collect();
    assert!(!others.contains(&lower.port()) && !others.contains(&(lower.port() + 1)));
    let late = Client::new(&mut there, "192.0.2.10:9");
    assert_eq!(late.call(&mut there, Method::ALLOCATE, plain).error, Some(508));
    assert_eq!(late.call(&mut there, Method::ALLOCATE, pair).error, Some(508), "no pair is left");
    // The reservation outlives the allocation that made it, and is open to its user alone.
    rtp.refresh(&mut here, 0);
    let claimed = late.call(&mut there, Method::ALLOCATE, with(&token));
    assert_eq!(relayed(&claimed).port(), lower.port() + 1);
}

#[test]
fn rfc8656_7_2_what_expires_unclaimed_is_given_back_whole() {
    let (mut here, _, shared) = two_workers();
    for _ in 0..5 {
        let client = Client::new(&mut here, HERE);
        reserve(&mut here, &client);
        assert_eq!(shared.allocations(), 2);
        client.refresh(&mut here, 0);
        here.advance(HOLD);
        assert_eq!((shared.allocations(), here.reserved.len(), here.open.len()), (0, 0, 0));
    }
    // All four ports are there.
    for n in 0..4 {
        Client::new(&mut here, &format!("192.0.2.10:{}", 1 + n)).allocate(&mut here);
    }
}

#[test]
fn rfc8656_7_2_a_pair_with_a_taken_port_is_given_up_as_a_whole() {
    let (mut here, _, shared) = two_workers();
    let rtp = Client::new(&mut here, HERE);
    here.open_results = vec![Err(OpenError::InUse), Ok(())];
    let (lower, _) = reserve(&mut here, &rtp);
    let held: Vec<_> = here.reserved.iter().map(|bind| bind.port()).collect();
    assert_eq!(held, [lower.port() + 1]);
    rtp.refresh(&mut here, 0);
    here.advance(HOLD);
    for failure in [OpenError::Exhausted, OpenError::InUse] {
        here.open_results = vec![Err(failure); 20];
        assert_eq!(rtp.call(&mut here, Method::ALLOCATE, pair).error, Some(508));
        assert_eq!((shared.allocations(), here.reserved.len()), (0, 0));
    }
    here.open_results.clear();
    for n in 0..4 {
        Client::new(&mut here, &format!("192.0.2.10:{}", 1 + n)).allocate(&mut here);
    }
}

#[test]
fn rfc8656_7_2_a_reserved_port_that_cannot_be_opened_is_508_and_no_other_one() {
    let (mut here, mut there, shared) = two_workers();
    let rtp = Client::new(&mut here, HERE);
    let (_, token) = reserve(&mut here, &rtp);
    let rtcp = Client::new(&mut there, THERE);
    there.open_results = vec![Err(OpenError::InUse)];
    assert_eq!(rtcp.call(&mut there, Method::ALLOCATE, with(&token)).error, Some(508));
    assert_eq!((there.allocations(), shared.allocations()), (0, 1));
}

#[test]
fn rfc8656_7_2_a_pair_takes_two_places_of_the_quota() {
    let mut lab = Lab::with(|settings| settings.user_quota = 2);
    let rtp = Client::new(&mut lab, HERE);
    let (_, token) = reserve(&mut lab, &rtp);
    let rtcp = Client::new(&mut lab, THERE);
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, plain).error, Some(486), "the other is reserved");
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, with(&token)).error, None, "and taken over");
    rtp.refresh(&mut lab, 0);
    assert_eq!(rtp.call(&mut lab, Method::ALLOCATE, pair).error, Some(486), "one place is no pair");
    assert_eq!(rtp.call(&mut lab, Method::ALLOCATE, plain).error, None, "nothing of it stays counted");
    rtcp.refresh(&mut lab, 0);
    rtp.refresh(&mut lab, 0);
    reserve(&mut lab, &rtp);
    lab.advance(HOLD);
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, plain).error, None, "given back when it expires");
}

#[test]
fn rfc8656_7_2_508_goes_before_486() {
    let settings = Settings { ports: 50_000..=50_000, user_quota: 1, ..settings() };
    let shared = Arc::new(Shared::new(settings.ports.clone()));
    let mut lab = Lab::of(settings, shared);
    Client::new(&mut lab, HERE).allocate(&mut lab);
    let late = Client::new(&mut lab, THERE);
    assert_eq!(late.call(&mut lab, Method::ALLOCATE, plain).error, Some(508), "mistake 3");
}

#[test]
fn rfc8656_7_2_a_drain_reserves_nothing_and_honours_no_token() {
    let mut lab = Lab::new();
    let rtp = Client::new(&mut lab, HERE);
    let (_, token) = reserve(&mut lab, &rtp);
    lab.server.set_mode(Mode::Draining);
    let rtcp = Client::new(&mut lab, THERE);
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, with(&token)).error, Some(508));
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, pair).error, Some(508));
    lab.server.set_mode(Mode::Serving);
    assert_eq!(rtcp.call(&mut lab, Method::ALLOCATE, with(&token)).error, None);
}

#[test]
fn reservations_are_bounded() {
    let mut lab = Lab::new();
    let client = |lab: &mut Lab, n: u16| Client::new(lab, &format!("192.0.2.9:{}", 20_000 + n));
    for n in 0..1024 {
        let client = client(&mut lab, n);
        let (_, token) = reserve(&mut lab, &client);
        // Claimed or not, it counts for thirty seconds.
        client.refresh(&mut lab, 0);
        if n % 2 == 0 {
            assert_eq!(client.call(&mut lab, Method::ALLOCATE, with(&token)).error, None);
        }
    }
    let late = client(&mut lab, 2000);
    assert_eq!(late.call(&mut lab, Method::ALLOCATE, pair).error, Some(508));
    let single = late.call(&mut lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP).attribute(AttributeType::EVEN_PORT, &[0]);
    });
    assert_eq!(single.error, None, "no reservation is needed for this");
    lab.advance(HOLD);
    assert_eq!(client(&mut lab, 2001).call(&mut lab, Method::ALLOCATE, pair).error, None);
}
