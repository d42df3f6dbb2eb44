//! A timeline as its readers get it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::verdict::{Verdict, judge};
use super::{Candidate, PeerState, Timeline, What};
use crate::signal::call::CallStatus;
use crate::signal::json;

/// The timeline of a call.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineView {
    /// The call, or the room.
    pub call_id: Arc<str>,
    /// How the call stands; a room that nobody was called to has no status.
    pub status: Option<CallStatus>,
    /// Unix seconds; ISO 8601 on the wire, as the other times.
    #[serde(serialize_with = "json::time")]
    pub began_at: u64,
    /// Unix seconds.
    #[serde(serialize_with = "json::maybe_time")]
    pub ended_at: Option<u64>,
    /// What became of it.
    pub verdict: Verdict,
    /// Who took part; a call's caller and callee come first.
    pub parties: Vec<PartyView>,
    /// What happened, in its order.
    pub events: Vec<EventView>,
    /// Events that found no room; those that are missing are neither the first nor the last ones.
    pub omitted: u64,
}

/// One side.
#[derive(Clone, Debug, Serialize)]
pub struct PartyView {
    /// The user, or what a guest calls itself.
    pub who: Arc<str>,
    /// Whether a token names this user.
    pub is_person: bool,
    /// Candidates it has offered, by type and protocol; of each, no more than eight are counted.
    pub candidates: BTreeMap<&'static str, u8>,
    /// What it said last about its connection.
    pub connection_state: Option<PeerState>,
}

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    /// Milliseconds since the timeline began.
    pub after_ms: u32,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<Arc<str>>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

impl TimelineView {
    /// As on the wire.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::text(self)
    }
}

impl Timeline {
    /// The timeline as it is `now`.
    pub(crate) fn view(&self, call_id: Arc<str>, now: Duration) -> TimelineView {
        let label = |who: Option<u8>| {
            who.and_then(|who| self.parties.get(usize::from(who))).map(|party| party.label.clone())
        };
        let events = self.events.iter().map(|event| EventView {
            after_ms: event.at,
            who: label(event.who),
            what: event.what,
        });
        TimelineView {
            call_id,
            status: self.status,
            began_at: self.began,
            ended_at: self.ended.map(|ended| ended.unix),
            verdict: judge(self, now),
            parties: (0..).zip(&self.parties).map(|(at, _)| self.party_view(at)).collect(),
            events: events.collect(),
            omitted: self.omitted,
        }
    }

    fn party_view(&self, at: u8) -> PartyView {
        let party = &self.parties[usize::from(at)];
        let counts = Candidate::ALL.iter().zip(party.candidates);
        let said = self.events.iter().rev().find_map(|event| match event.what {
            What::State { state } if event.who == Some(at) => Some(state),
            _ => None,
        });
        PartyView {
            who: party.label.clone(),
            is_person: party.is_person,
            candidates: counts.filter(|(_, n)| *n > 0).map(|((_, name), n)| (*name, n)).collect(),
            connection_state: said,
        }
    }
}
