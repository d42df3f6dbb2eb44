//! The judgement as a table: what happened, and what is said about it.

use std::sync::Arc;

use super::super::{Actor, Candidate, Families};
use super::*;
use crate::signal::{Now, SessionId};

const ANN: u64 = 1;
const BOB: u64 = 2;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn now(seconds: f64) -> Now {
    Now { mono: at(seconds), unix: 1_700_000_000 }
}

fn actor(who: u64) -> Actor {
    let label = if who == ANN { "ann" } else { "bob" };
    Actor { label: label.into(), is_person: true, session: Some(SessionId(who)) }
}

/// A call between ann and bob, or with no status their meeting in a room, in which this happens.
fn timeline(status: Option<CallStatus>, ended: Option<f64>, events: &[(f64, u64, What)]) -> Timeline {
    let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
    let mut timeline = match status {
        Some(_) => Timeline::of_call(now(0.0), "call", &ann, &bob),
        None => Timeline::of_room(now(0.0), "room"),
    };
    for (seconds, who, what) in events {
        timeline.note(at(*seconds), Some(&actor(*who)), *what);
    }
    timeline.status = status;
    timeline.ended = ended.map(now);
    timeline
}

fn offered(index: usize) -> What {
    What::Candidate(Candidate::ALL[index].0)
}
fn host() -> What {
    offered(0)
}
fn srflx() -> What {
    offered(1)
}
fn relay() -> What {
    offered(3)
}
fn says(state: PeerState) -> What {
    What::State { state }
}
fn allocated(transport: RelayTransport) -> What {
    What::Allocated { transport, relayed: Families::Ipv4 }
}

/// Both are there and have agreed on what to send.
fn negotiated() -> Vec<(f64, u64, What)> {
    vec![
        (0.0, ANN, What::Joined),
        (1.0, BOB, What::Joined),
        (1.5, ANN, What::Offer),
        (1.6, ANN, host()),
        (2.0, BOB, What::Answer),
        (2.1, BOB, host()),
    ]
}

fn with(more: &[(f64, u64, What)]) -> Vec<(f64, u64, What)> {
    [negotiated(), more.to_vec()].concat()
}

#[track_caller]
fn expect(timeline: &Timeline, cause: Cause, words: &[&str]) {
    let found = judge(timeline, at(30.0));
    assert_eq!(found.cause, cause, "{}", found.sentence);
    for word in words {
        assert!(found.sentence.contains(word), "{word:?} is not in {:?}", found.sentence);
    }
    assert!(found.sentence.ends_with('.'), "{}", found.sentence);
}

#[test]
fn what_goes_on_is_not_judged() {
    expect(&timeline(Some(CallStatus::Pending), None, &[]), Cause::InProgress, &["rings at bob"]);
    let waits = timeline(None, None, &[(0.0, ANN, What::Joined)]);
    expect(&waits, Cause::InProgress, &["ann waits"]);
    expect(&timeline(None, None, &negotiated()), Cause::InProgress, &["ann and bob are connecting"]);
    let tries = with(&[(3.0, ANN, says(PeerState::Connecting))]);
    expect(&timeline(None, None, &tries), Cause::InProgress, &[]);
}

#[test]
fn peer_never_joined() {
    let missed = timeline(Some(CallStatus::Missed), Some(45.0), &[(0.0, ANN, What::Joined)]);
    expect(&missed, Cause::PeerNeverJoined, &["bob never joined: nobody answered for 45.0 s"]);
    let waits_in_the_room = [(0.0, ANN, What::Joined), (0.1, BOB, What::Joined)];
    let cancelled = timeline(Some(CallStatus::Cancelled), Some(3.0), &waits_in_the_room);
    expect(&cancelled, Cause::PeerNeverJoined, &["bob never joined: ann gave up after 3.0 s"]);
    let stays_away = [(0.0, ANN, What::Joined), (1.0, BOB, What::Accepted)];
    let ended = timeline(Some(CallStatus::Ended), Some(9.0), &stays_away);
    expect(&ended, Cause::PeerNeverJoined, &["bob never joined: the call was accepted"]);
    let room = timeline(None, Some(125.0), &[(0.0, ANN, What::Joined)]);
    expect(&room, Cause::PeerNeverJoined, &["Nobody else ever joined: ann waited alone for 125 s."]);
    let rejected = timeline(Some(CallStatus::Rejected), Some(1.0), &[]);
    expect(&rejected, Cause::Rejected, &["bob rejected the call."]);
}

#[test]
fn wrong_secret() {
    let failed = [(3.0, ANN, What::AuthFailed { step: "wrong_password" })];
    expect(&timeline(None, None, &with(&failed)), Cause::WrongSecret, &["credentials of ann: wrong secret"]);
    let both = [failed[0], (3.5, BOB, failed[0].2)];
    expect(&timeline(None, None, &with(&both)), Cause::WrongSecret, &["credentials of ann and bob: wrong"]);
    let later = [failed[0], (4.0, ANN, allocated(RelayTransport::Udp)), failed[0]];
    expect(&timeline(None, None, &with(&later)), Cause::InProgress, &[]);
}

#[test]
fn credential_expired() {
    let failed =
        with(&[(3.0, BOB, What::AuthFailed { step: "expired" }), (20.0, ANN, says(PeerState::Failed))]);
    expect(
        &timeline(None, None, &failed),
        Cause::CredentialExpired,
        &["credentials of bob: they have expired"],
    );
}

#[test]
fn other_credentials_that_are_not_believed() {
    let failed = |step| timeline(None, None, &with(&[(3.0, BOB, What::AuthFailed { step })]));
    expect(&failed("revoked"), Cause::CredentialRevoked, &["bob: they were taken back"]);
    expect(&failed("too_far_ahead"), Cause::CredentialRefused, &["bob: the step too_far_ahead failed."]);
}

#[test]
fn udp_blocked() {
    let bob_only = with(&[(2.2, ANN, srflx()), (2.3, ANN, relay()), (20.0, ANN, says(PeerState::Failed))]);
    let room = timeline(None, None, &bob_only);
    expect(&room, Cause::UdpBlocked, &["UDP is blocked for bob:", "nor a relay over TCP or TLS"]);
    let both = with(&[(20.0, ANN, says(PeerState::Failed))]);
    expect(&timeline(None, None, &both), Cause::UdpBlocked, &["for ann and bob"]);
    let ended = with(&[(2.0, ANN, says(PeerState::Connecting))]);
    expect(&timeline(None, Some(25.0), &ended), Cause::UdpBlocked, &["ann and bob"]);
}

#[test]
fn no_relay_candidate() {
    let failed = with(&[(2.2, ANN, srflx()), (2.3, BOB, srflx()), (20.0, BOB, says(PeerState::Failed))]);
    let room = timeline(None, None, &failed);
    expect(&room, Cause::NoRelayCandidate, &["No relay candidate came from ann and bob", "TURN server"]);
}

#[test]
fn the_relay_gave_nothing() {
    let refused = [(2.2, ANN, srflx()), (2.3, BOB, What::NotAllocated { code: 486 })];
    let failed = with(&[refused[0], refused[1], (20.0, BOB, says(PeerState::Failed))]);
    expect(
        &timeline(None, None, &failed),
        Cause::RelayRefused,
        &["gave bob no allocation: error 486", "quota"],
    );
}

#[test]
fn ice_failed_with_relays_on_both_sides() {
    let failed = with(&[
        (2.2, ANN, relay()),
        (2.3, BOB, allocated(RelayTransport::Tcp)),
        (2.3, BOB, What::FirstByte),
        (20.0, BOB, says(PeerState::Failed)),
    ]);
    expect(&timeline(None, None, &failed), Cause::IceFailed, &["none of the candidates of ann and bob"]);
}

#[test]
fn ice_failed_after_it_had_connected() {
    let lost = with(&[
        (3.0, ANN, says(PeerState::Connected)),
        (3.1, BOB, says(PeerState::Connected)),
        (10.0, BOB, says(PeerState::Disconnected)),
        (15.5, BOB, says(PeerState::Failed)),
        (16.0, BOB, says(PeerState::Closed)),
    ]);
    let words = ["ICE failed 12.5 s after it had connected", "between ann and bob"];
    expect(&timeline(None, None, &lost), Cause::IceFailedAfterConnected, &words);
    let tries_again = [lost.clone(), vec![(17.0, BOB, says(PeerState::Connecting))]].concat();
    expect(&timeline(None, None, &tries_again), Cause::IceFailedAfterConnected, &words);
    let anew = [vec![(10.0, ANN, What::Restored)], lost.clone()].concat();
    let words =
        ["12.5 s after it had connected", "The server had started anew 5.5 s before, and the relay with it."];
    expect(&timeline(None, None, &anew), Cause::IceFailedAfterConnected, &words);
    let back = [lost, vec![(17.0, BOB, says(PeerState::Connected))]].concat();
    expect(&timeline(None, Some(60.0), &back), Cause::Connected, &[]);
    let gone = timeline(
        Some(CallStatus::Failed),
        Some(80.0),
        &with(&[
            (0.5, BOB, What::Accepted),
            (3.0, ANN, says(PeerState::Connected)),
            (10.0, ANN, says(PeerState::Disconnected)),
        ]),
    );
    expect(&gone, Cause::IceFailedAfterConnected, &["7.0 s"]);
}

#[test]
fn a_call_that_connected_says_how_long_it_took() {
    let fine = with(&[(2.2, ANN, srflx()), (3.0, ANN, says(PeerState::Connected))]);
    expect(&timeline(None, None, &fine), Cause::Connected, &["connected 1.5 s after the first offer."]);
    let over_tcp =
        with(&[(2.2, BOB, allocated(RelayTransport::Tcp)), (3.0, ANN, says(PeerState::Connected))]);
    expect(&timeline(None, None, &over_tcp), Cause::Connected, &["bob reached the relay over TCP only"]);
}

#[test]
fn what_was_never_said() {
    let silent = [(0.0, ANN, What::Joined), (1.0, BOB, What::Joined)];
    expect(&timeline(None, Some(60.0), &silent), Cause::NoOffer, &["ann and bob were there"]);
    let unanswered = [silent[0], silent[1], (2.0, ANN, What::Offer), (2.1, ANN, host())];
    expect(&timeline(None, Some(60.0), &unanswered), Cause::NoAnswer, &["bob never answered the offer."]);
}

#[test]
fn what_cannot_be_known_is_not_guessed() {
    expect(&timeline(None, Some(60.0), &negotiated()), Cause::Unknown, &["not known"]);
    let hasty = with(&[(2.5, ANN, says(PeerState::Connecting))]);
    expect(&timeline(None, Some(4.0), &hasty), Cause::EndedEarly, &["before it could connect"]);
}
