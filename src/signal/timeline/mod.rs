//! What happened in a call, in one order: its signaling, the candidates each side offered, what the relay did for
//! the credentials of its parties, and what the clients say about their connection. `verdict` says in words what
//! became of it.
//!
//! Keeps no address: of a candidate its type and protocol, of an allocation its transport. Each timeline is bounded,
//! and so is their number; one whose call is over is forgotten with the call.

mod candidate;
mod event;
mod kept;
mod past;
mod verdict;
mod view;

pub(crate) use candidate::candidates;
pub use candidate::{Candidate, CandidateKind, Protocol};
pub(crate) use event::Event;
pub use event::{Carried, Families, PeerState, RelayNews, RelayStep, RelayTransport, What};
pub(crate) use kept::Timelines;
pub use past::read_timeline;
pub(crate) use past::{may_read, none};
pub use verdict::{Cause, Verdict};
pub use view::{EventView, PartyView, TimelineView};

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call::CallStatus;
use super::{Now, SessionId};

/// Events of one timeline.
const EVENTS: usize = 200;

/// Those among them that are kept from its beginning; the others are the latest.
const FIRST: usize = 160;

/// Sides of one timeline. Guests who come again are others each time.
const PARTIES: usize = 32;

/// Sessions of one side that are remembered: a page that is loaded again has another one.
const SESSIONS: usize = 16;

/// Candidates of one kind and side that are counted. There are seldom more, and a client that sends them without end
/// must not cost a row each time.
pub(crate) const COUNTED: u8 = 8;

/// One side of a call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Party {
    /// What it is called in sentences.
    pub(crate) label: Arc<str>,
    /// Whether the label is a user that a token names.
    pub(crate) is_person: bool,
    sessions: Vec<SessionId>,
    /// Candidates it has offered, by [`Candidate::ALL`].
    candidates: [u8; Candidate::ALL.len()],
}

/// Who does something.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) label: Arc<str>,
    pub(crate) is_person: bool,
    pub(crate) session: Option<SessionId>,
}

/// The timeline of one call, or of one room from its first member's coming to its last one's leaving. The journal has
/// those that are not over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Timeline {
    /// Names it in the books.
    pub(crate) name: Box<str>,
    /// When it began, in Unix seconds.
    began: u64,
    /// Since when this process has it, and how old it was then.
    #[serde(skip)]
    since: Duration,
    #[serde(skip)]
    before: Duration,
    /// When it was over.
    #[serde(skip)]
    pub(crate) ended: Option<Now>,
    /// How the call stands; a room has none.
    pub(crate) status: Option<CallStatus>,
    /// A call's caller and callee come first.
    pub(crate) parties: Vec<Party>,
    events: Vec<Event>,
    /// Events between the first and the latest ones that were let go.
    omitted: u64,
}

impl Timeline {
    pub(crate) fn of_room(now: Now, name: &str) -> Self {
        Self {
            name: name.into(),
            began: now.unix,
            since: now.mono,
            before: Duration::ZERO,
            ended: None,
            status: None,
            parties: Vec::new(),
            events: Vec::new(),
            omitted: 0,
        }
    }

    pub(crate) fn of_call(now: Now, id: &str, caller: &Arc<str>, callee: &Arc<str>) -> Self {
        let mut timeline = Self { status: Some(CallStatus::Pending), ..Self::of_room(now, id) };
        for user in [caller, callee] {
            timeline.party(&Actor { label: user.clone(), is_person: true, session: None });
        }
        timeline
    }

    /// One that a process before this has written down.
    pub(crate) fn restore(now: Now, value: &str) -> serde_json::Result<Self> {
        let mut timeline: Self = serde_json::from_str(value)?;
        let last = timeline.events.last().map_or(0, |event| event.at);
        let before = Duration::from_secs(now.unix.saturating_sub(timeline.began));
        (timeline.since, timeline.before) = (now.mono, before.max(Duration::from_millis(last.into())));
        Ok(timeline)
    }

    /// How old it is at a time of this process.
    pub(crate) fn age(&self, at: Duration) -> Duration {
        (self.before + at).saturating_sub(self.since)
    }

    /// Takes an event in; whether it has to be written down.
    pub(crate) fn note(&mut self, at: Duration, who: Option<&Actor>, what: What) -> bool {
        let who = match who {
            Some(actor) => match self.party(actor) {
                Some(party) => Some(party),
                // Beyond the bound nobody could say whose it is.
                None => {
                    self.omitted += 1;
                    return true;
                }
            },
            None => None,
        };
        if let What::Candidate(candidate) = what
            && let Some(party) = who.and_then(|who| self.parties.get_mut(usize::from(who)))
        {
            let count = &mut party.candidates[candidate.index()];
            if *count == COUNTED {
                return false;
            }
            *count += 1;
            if *count > 1 {
                return true;
            }
        }
        if self.events.len() == EVENTS {
            self.events.remove(FIRST);
            self.omitted += 1;
        }
        let at = u32::try_from(self.age(at).as_millis()).unwrap_or(u32::MAX);
        // The relay tells a moment later what it did.
        let place = self.events.iter().rposition(|event| event.at <= at).map_or(0, |before| before + 1);
        self.events.insert(place, Event { at, who, what });
        true
    }

    /// The side's place among the parties; a new one gets the next.
    fn party(&mut self, actor: &Actor) -> Option<u8> {
        let is_it = |party: &Party| match actor.is_person {
            true => party.is_person && party.label == actor.label,
            false => actor.session.is_some_and(|session| party.sessions.contains(&session)),
        };
        let at = match self.parties.iter().position(is_it) {
            Some(at) => at,
            None if self.parties.len() < PARTIES => {
                let (label, is_person) = (actor.label.clone(), actor.is_person);
                self.parties.push(Party {
                    label,
                    is_person,
                    sessions: Vec::new(),
                    candidates: Default::default(),
                });
                self.parties.len() - 1
            }
            None => return None,
        };
        let sessions = &mut self.parties[at].sessions;
        if let Some(session) = actor.session.filter(|session| !sessions.contains(session)) {
            if sessions.len() == SESSIONS {
                sessions.remove(0);
            }
            sessions.push(session);
        }
        u8::try_from(at).ok()
    }

    /// Whether a person takes part.
    pub(crate) fn has_person(&self, user: &str) -> bool {
        self.parties.iter().any(|party| party.is_person && *party.label == *user)
    }

    /// Whose session it is.
    pub(crate) fn actor_of(&self, session: SessionId) -> Option<Actor> {
        let party = self.parties.iter().find(|party| party.sessions.contains(&session))?;
        Some(Actor { label: party.label.clone(), is_person: party.is_person, session: Some(session) })
    }

    /// All sessions that took part.
    fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.parties.iter().flat_map(|party| party.sessions.iter().copied())
    }

    /// Whether there was an attempt to connect, which is worth to be kept for later.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.status.is_some()
            || self.events.iter().any(|event| matches!(event.what, What::Offer | What::Answer))
    }
}
