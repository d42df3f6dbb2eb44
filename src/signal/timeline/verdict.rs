//! What became of a call, in one sentence: the judgement over a timeline's events, and nothing else.
//!
//! It says what the server has seen and what follows from it. Where the clients tell nothing, it says that.

use std::time::Duration;

use serde::Serialize;

use super::candidate::{CandidateKind, Protocol};
use super::{PeerState, RelayTransport, Timeline, What};
use crate::signal::call::CallStatus;

/// Less than this after the first description, no client has given up on a server that does not answer.
const TOO_SOON: Duration = Duration::from_secs(5);

/// Why a call did not come about, or that it did. The words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing has gone wrong so far.
    InProgress,
    /// Packets flow, or did until the call was ended.
    Connected,
    /// The callee did not want it.
    Rejected,
    /// Nobody came to talk to.
    PeerNeverJoined,
    /// Nobody sent an offer.
    NoOffer,
    /// The offer was never answered.
    NoAnswer,
    /// The password was not made with this server's secret.
    WrongSecret,
    /// The relay credentials were over.
    CredentialExpired,
    /// The relay credentials were taken back.
    CredentialRevoked,
    /// The relay did not believe the credentials for another reason.
    CredentialRefused,
    /// The credentials were right, and there was no allocation to be had.
    RelayRefused,
    /// A side reaches nothing over UDP, and no relay over TCP or TLS.
    UdpBlocked,
    /// No side offered a relay, and there was no way without one.
    NoRelayCandidate,
    /// There were relays, and no pair of candidates worked.
    IceFailed,
    /// It had connected, and then no path was left.
    IceFailedAfterConnected,
    /// It was over before anything could be said.
    EndedEarly,
    /// The clients told nothing of their connection.
    Unknown,
}

impl Cause {
    /// The word on the wire and in the books.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Connected => "connected",
            Self::Rejected => "rejected",
            Self::PeerNeverJoined => "peer_never_joined",
            Self::NoOffer => "no_offer",
            Self::NoAnswer => "no_answer",
            Self::WrongSecret => "wrong_secret",
            Self::CredentialExpired => "credential_expired",
            Self::CredentialRevoked => "credential_revoked",
            Self::CredentialRefused => "credential_refused",
            Self::RelayRefused => "relay_refused",
            Self::UdpBlocked => "udp_blocked",
            Self::NoRelayCandidate => "no_relay_candidate",
            Self::IceFailed => "ice_failed",
            Self::IceFailedAfterConnected => "ice_failed_after_connected",
            Self::EndedEarly => "ended_early",
            Self::Unknown => "unknown",
        }
    }
}

impl Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// For programs.
    pub cause: Cause,
    /// For people.
    pub sentence: String,
}

fn verdict(cause: Cause, sentence: String) -> Verdict {
    Verdict { cause, sentence }
}

/// What is known of one side.
struct Side<'a> {
    label: &'a str,
    has_joined: bool,
    has_described: bool,
    /// When it said first that it is connected.
    connected: Option<Duration>,
    /// When it said that it has failed, if it has not connected since. It may be trying again.
    failed: Option<Duration>,
    /// When it said that nothing arrives, and has said nothing since.
    interrupted: Option<Duration>,
    reports: bool,
    /// The step at which its credentials failed, if the relay has given nothing.
    auth_failed: Option<&'static str>,
    /// The code it was refused with, if the relay has given nothing.
    not_allocated: Option<u16>,
    /// The transports it has reached the relay over.
    transports: Vec<RelayTransport>,
    has_candidates: bool,
    has_srflx: bool,
    has_relay: bool,
}

impl Side<'_> {
    /// Whether it has the use of a relay.
    fn is_relayed(&self) -> bool {
        self.has_relay || !self.transports.is_empty()
    }

    /// Nothing came back over UDP, and no relay was reached over anything else.
    fn is_cut_off(&self) -> bool {
        self.has_candidates && !self.has_srflx && !self.is_relayed()
    }
}

/// The judgement, as of `now`.
pub(super) fn judge(timeline: &Timeline, now: Duration) -> Verdict {
    let sides = sides(timeline);
    let here: Vec<&Side<'_>> = sides.iter().filter(|side| side.has_joined).collect();
    if timeline.status == Some(CallStatus::Rejected) {
        return verdict(Cause::Rejected, format!("{} rejected the call.", callee(&sides)));
    }
    if let Some(since) = sides.iter().filter_map(|side| side.connected).min() {
        return after_connected(timeline, &sides, since);
    }
    if let Some(found) = credentials(&sides) {
        return found;
    }
    let is_over = timeline.ended.is_some();
    if here.len() < 2 {
        return alone(timeline, &sides, &here, now);
    }
    let has_failed = here.iter().any(|side| side.failed.is_some());
    let reports = here.iter().any(|side| side.reports);
    match (has_failed, is_over) {
        (true, _) => not_connected(&here),
        (false, false) => verdict(Cause::InProgress, format!("{} are connecting.", names(&here))),
        (false, true) => negotiation(&here).unwrap_or_else(|| match (reports, time_to_connect(timeline)) {
            (true, time) if time >= TOO_SOON => not_connected(&here),
            (true, _) => verdict(Cause::EndedEarly, "The call was ended before it could connect.".into()),
            (false, _) => {
                let sentence =
                    "The clients reported no connection state, so whether they connected is not known.";
                verdict(Cause::Unknown, sentence.into())
            }
        }),
    }
}

fn after_connected(timeline: &Timeline, sides: &[Side<'_>], since: Duration) -> Verdict {
    let is_lost = timeline.status == Some(CallStatus::Failed);
    let broken = sides.iter().find_map(|side| side.failed.or(side.interrupted.filter(|_| is_lost)));
    if let Some(at) = broken {
        let after = seconds(at.saturating_sub(since));
        let anew = restored_between(timeline, since, at).map_or(String::new(), |restored| {
            let gone = seconds(at.saturating_sub(restored));
            format!(" The server had started anew {gone} before, and the relay with it.")
        });
        let sentence = format!(
            "ICE failed {after} after it had connected: packets no longer pass between {}, and no other path was \
             found.{anew}",
            names(&sides.iter().collect::<Vec<_>>())
        );
        return verdict(Cause::IceFailedAfterConnected, sentence);
    }
    let began = began_to_connect(timeline).unwrap_or_default();
    let took = seconds(since.saturating_sub(began));
    let blocked = sides.iter().find(|side| {
        !side.has_srflx
            && !side.transports.is_empty()
            && !side.transports.iter().any(|one| is_datagrams(*one))
    });
    let note = blocked.map_or(String::new(), |side| {
        format!(
            " {} reached the relay over {} only: UDP is blocked there.",
            side.label,
            side.transports[0].as_str().to_uppercase()
        )
    });
    verdict(Cause::Connected, format!("The call connected {took} after the first offer.{note}"))
}

/// When the server started anew between two times, for the last time.
fn restored_between(timeline: &Timeline, from: Duration, to: Duration) -> Option<Duration> {
    let restored = timeline.events.iter().filter(|event| event.what == What::Restored);
    let times = restored.map(|event| Duration::from_millis(event.at.into()));
    times.filter(|at| (from..=to).contains(at)).max()
}

/// Credentials that the relay did not believe say why before anybody has given up.
fn credentials(sides: &[Side<'_>]) -> Option<Verdict> {
    let refused = sides.iter().filter(|side| !side.is_relayed());
    let refused: Vec<_> = refused.filter_map(|side| Some((side, side.auth_failed?))).collect();
    let (_, step) = refused.first()?;
    let (cause, why) = meaning_of(step);
    let same: Vec<&Side<'_>> =
        refused.iter().filter(|(_, step)| meaning_of(step).0 == cause).map(|(side, _)| *side).collect();
    Some(verdict(cause, format!("The relay refused the credentials of {}: {why}.", names(&same))))
}

/// What is behind a step of the authentication that failed.
fn meaning_of(step: &str) -> (Cause, String) {
    let (cause, why) = match step {
        "wrong_password" | "wrong_realm" => {
            let why = "wrong secret, their password was not made with this server's credentials.secrets";
            (Cause::WrongSecret, why)
        }
        "expired" | "token_expired" => {
            (Cause::CredentialExpired, "they have expired, the client kept them too long or a clock is wrong")
        }
        "revoked" => (Cause::CredentialRevoked, "they were taken back before"),
        other => return (Cause::CredentialRefused, format!("the step {other} failed")),
    };
    (cause, why.to_owned())
}

/// There are not two to talk to each other.
fn alone(timeline: &Timeline, sides: &[Side<'_>], here: &[&Side<'_>], now: Duration) -> Verdict {
    let waited = seconds(timeline.age(timeline.ended.map_or(now, |ended| ended.mono)));
    let is_over = timeline.ended.is_some();
    let sentence = match (timeline.status, here) {
        (Some(CallStatus::Pending), _) => {
            return verdict(Cause::InProgress, format!("It rings at {}.", callee(sides)));
        }
        (None, [one]) if !is_over => format!("{} waits for somebody to join.", one.label),
        (Some(CallStatus::Ongoing), _) if !is_over => {
            "The call was accepted, and not all are there yet.".into()
        }
        (Some(CallStatus::Missed), _) => {
            format!("{} never joined: nobody answered for {waited}.", callee(sides))
        }
        (Some(CallStatus::Cancelled), _) => {
            let caller = sides.first().map_or("The caller", |side| side.label);
            format!("{} never joined: {caller} gave up after {waited}.", callee(sides))
        }
        (Some(_), _) => {
            let missing: Vec<&Side<'_>> = sides.iter().filter(|side| !side.has_joined).collect();
            format!("{} never joined: the call was accepted, and they did not enter it.", names(&missing))
        }
        (None, [one]) => format!("Nobody else ever joined: {} waited alone for {waited}.", one.label),
        (None, _) => "Nobody ever joined.".into(),
    };
    verdict(if is_over { Cause::PeerNeverJoined } else { Cause::InProgress }, sentence)
}

/// What was never said.
fn negotiation(here: &[&Side<'_>]) -> Option<Verdict> {
    let silent: Vec<&Side<'_>> = here.iter().copied().filter(|side| !side.has_described).collect();
    if silent.len() == here.len() {
        return Some(verdict(
            Cause::NoOffer,
            format!("Nobody sent an offer: {} were there and said nothing.", names(here)),
        ));
    }
    let spoke = here.iter().filter(|side| side.has_described).count();
    (spoke == 1).then(|| verdict(Cause::NoAnswer, format!("{} never answered the offer.", names(&silent))))
}

/// No pair of candidates worked.
fn not_connected(here: &[&Side<'_>]) -> Verdict {
    if let Some(found) = negotiation(here) {
        return found;
    }
    if let Some((side, code)) =
        here.iter().find_map(|side| Some((side, side.not_allocated.filter(|_| !side.is_relayed())?)))
    {
        let sentence =
            format!("The relay gave {} no allocation: error {code}, {}.", side.label, meaning(code));
        return verdict(Cause::RelayRefused, sentence);
    }
    let cut_off: Vec<&Side<'_>> = here.iter().copied().filter(|side| side.is_cut_off()).collect();
    if !cut_off.is_empty() {
        let sentence = format!(
            "UDP is blocked for {}: no STUN or TURN server was reached over UDP, nor a relay over TCP or TLS.",
            names(&cut_off)
        );
        return verdict(Cause::UdpBlocked, sentence);
    }
    if here.iter().all(|side| !side.is_relayed()) {
        let sentence = format!(
            "No relay candidate came from {}, and there is no way between them without one: the pages were given no \
             TURN server, or did not use it.",
            names(here)
        );
        return verdict(Cause::NoRelayCandidate, sentence);
    }
    let sentence = format!("ICE failed: none of the candidates of {} reached each other.", names(here));
    verdict(Cause::IceFailed, sentence)
}

fn sides(timeline: &Timeline) -> Vec<Side<'_>> {
    let mut sides: Vec<Side<'_>> = timeline
        .parties
        .iter()
        .map(|party| Side {
            label: &party.label,
            has_joined: false,
            has_described: false,
            connected: None,
            failed: None,
            interrupted: None,
            reports: false,
            auth_failed: None,
            not_allocated: None,
            transports: Vec::new(),
            has_candidates: false,
            has_srflx: false,
            has_relay: false,
        })
        .collect();
    for event in &timeline.events {
        if let Some(side) = event.who.and_then(|who| sides.get_mut(usize::from(who))) {
            note(side, Duration::from_millis(event.at.into()), event.what);
        }
    }
    // A connection of the callee is in the room already while it rings.
    let begins_midway = timeline.events.first().is_some_and(|event| event.what == What::Restored);
    let was_accepted = begins_midway || timeline.events.iter().any(|event| event.what == What::Accepted);
    if let (Some(_), false, Some(callee)) = (timeline.status, was_accepted, sides.get_mut(1)) {
        callee.has_joined = false;
    }
    sides
}

fn note(side: &mut Side<'_>, at: Duration, what: What) {
    match what {
        What::Joined | What::Back => side.has_joined = true,
        What::Offer | What::Answer => side.has_described = true,
        What::State { state } => note_state(side, at, state),
        What::AuthFailed { step } => side.auth_failed = Some(step),
        What::NotAllocated { code } => side.not_allocated = Some(code),
        What::Allocated { transport, .. } => {
            side.transports.push(transport);
        }
        What::Candidate(candidate) => {
            side.has_candidates = true;
            match candidate.kind {
                CandidateKind::Srflx | CandidateKind::Prflx => {
                    side.has_srflx |= candidate.protocol == Protocol::Udp
                }
                CandidateKind::Relay => side.has_relay = true,
                CandidateKind::Host => {}
            }
        }
        What::Initiated
        | What::Ringing
        | What::Accepted
        | What::Ended { .. }
        | What::Restored
        | What::Away
        | What::Left { .. }
        | What::Credentials
        | What::Restart
        | What::FirstByte
        | What::Released { .. } => {}
    }
}

fn note_state(side: &mut Side<'_>, at: Duration, state: PeerState) {
    side.reports = true;
    match state {
        PeerState::Connected => {
            side.connected.get_or_insert(at);
            (side.failed, side.interrupted) = (None, None);
        }
        PeerState::Failed => {
            side.failed.get_or_insert(at);
        }
        PeerState::Disconnected => side.interrupted = Some(at),
        PeerState::New | PeerState::Connecting | PeerState::Closed => {}
    }
}

fn began_to_connect(timeline: &Timeline) -> Option<Duration> {
    timeline
        .events
        .iter()
        .find(|event| event.what == What::Offer)
        .map(|event| Duration::from_millis(event.at.into()))
}

/// How long there was to connect, from the first offer on.
fn time_to_connect(timeline: &Timeline) -> Duration {
    let end = timeline.ended.map_or(Duration::ZERO, |ended| timeline.age(ended.mono));
    began_to_connect(timeline).map_or(Duration::ZERO, |began| end.saturating_sub(began))
}

fn callee<'a>(sides: &[Side<'a>]) -> &'a str {
    sides.get(1).map_or("The callee", |side| side.label)
}

/// `a`, `a and b`, `a, b and c`.
fn names(sides: &[&Side<'_>]) -> String {
    let labels: Vec<&str> = sides.iter().map(|side| side.label).collect();
    match labels.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "nobody".to_owned(),
    }
}

fn is_datagrams(transport: RelayTransport) -> bool {
    matches!(transport, RelayTransport::Udp | RelayTransport::Dtls)
}

fn meaning(code: u16) -> &'static str {
    match code {
        300 => "it sends its clients elsewhere",
        486 => "the user has as many as quota.user allows, or the server as many as quota.total",
        508 => "it has no port left, or takes no new calls",
        440 => "it relays no addresses of that family",
        442 => "it relays nothing over that transport",
        _ => "see the request counters in /metrics",
    }
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..100 => format!("{:.1} s", time.as_secs_f64()),
        whole => format!("{whole} s"),
    }
}

#[cfg(test)]
mod tests;
