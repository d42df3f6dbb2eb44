//! All timelines: those of calls and rooms that go on, and for a while those that are over.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Actor, Timeline, What};
use crate::signal::{Now, OwnIds, SessionId};

/// Timelines by the room they are of; a call's room has its id.
#[derive(Debug, Default)]
pub(crate) struct Timelines {
    all: HashMap<Arc<str>, Timeline>,
    /// Where a session was last.
    of_session: HashMap<SessionId, Arc<str>, OwnIds>,
    /// When each was over that is, the first one at the front; some have begun again since.
    over: VecDeque<(Duration, Arc<str>)>,
}

impl Timelines {
    pub(crate) fn get(&self, room: &str) -> Option<&Timeline> {
        self.all.get(room)
    }

    pub(crate) fn get_mut(&mut self, room: &str) -> Option<&mut Timeline> {
        self.all.get_mut(room)
    }

    /// Begins one, in place of an older one of that name. At the bound, one that is over gives way; while all go on
    /// the new one is not kept.
    pub(crate) fn begin(&mut self, room: Arc<str>, timeline: Timeline, bound: usize, memory: Duration) {
        self.remove(&room);
        let now = timeline.since;
        while let Some((ended, _)) = self.over.front()
            && (*ended + memory <= now || self.all.len() >= bound || self.over.len() >= 2 * bound)
        {
            let Some((ended, old)) = self.over.pop_front() else { break };
            // It may have begun again since.
            if self.all.get(&old).is_some_and(|one| one.ended.is_some_and(|end| end.mono == ended)) {
                self.remove(&old);
            }
        }
        if self.all.len() < bound {
            self.of_session.extend(timeline.sessions().map(|session| (session, room.clone())));
            self.all.insert(room, timeline);
        }
    }

    /// Takes an event in; one that nobody keeps a timeline for is let go. Whether it has to be written down.
    pub(crate) fn note(&mut self, room: &Arc<str>, at: Duration, who: Option<&Actor>, what: What) -> bool {
        let Some(timeline) = self.all.get_mut(room) else { return false };
        let is_news = timeline.note(at, who, what);
        if let Some(session) = who.and_then(|who| who.session).filter(|_| what == What::Joined) {
            self.of_session.insert(session, room.clone());
        }
        is_news
    }

    /// The call or the room is over; for a while its timeline can be looked at.
    pub(crate) fn end(&mut self, room: &Arc<str>, now: Now) {
        if let Some(timeline) = self.all.get_mut(room).filter(|timeline| timeline.ended.is_none()) {
            timeline.ended = Some(now);
            self.over.push_back((now.mono, room.clone()));
        }
    }

    /// The room a session was in last, as far as there is a timeline of it.
    pub(crate) fn room_of(&self, session: SessionId) -> Option<&Arc<str>> {
        self.of_session.get(&session)
    }

    /// Those that are not over.
    pub(crate) fn going_on(&self) -> impl Iterator<Item = &Arc<str>> {
        self.all.iter().filter(|(_, timeline)| timeline.ended.is_none()).map(|(room, _)| room)
    }

    /// A session is in a room whose timeline knows it.
    pub(crate) fn place(&mut self, session: SessionId, room: &Arc<str>) {
        self.of_session.insert(session, room.clone());
    }

    fn remove(&mut self, room: &str) {
        let Some(gone) = self.all.remove(room) else { return };
        for session in gone.sessions() {
            if self.of_session.get(&session).is_some_and(|of| **of == *room) {
                self.of_session.remove(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EVENTS, PARTIES};
    use super::*;
    use crate::signal::timeline::PeerState;

    const MEMORY: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), unix: 1_700_000_000 + seconds }
    }

    fn guest(n: u64) -> Actor {
        Actor { label: format!("guest {n}").into(), is_person: false, session: Some(SessionId(n)) }
    }

    fn begin(kept: &mut Timelines, name: &str, seconds: u64, bound: usize) -> Arc<str> {
        let room: Arc<str> = name.into();
        kept.begin(room.clone(), Timeline::of_room(at(seconds), name), bound, MEMORY);
        room
    }

    #[test]
    fn timelines_are_bounded_and_forgotten_after_a_while() {
        let mut kept = Timelines::default();
        let (a, b) = (begin(&mut kept, "a", 0, 2), begin(&mut kept, "b", 0, 2));
        kept.note(&a, at(0).mono, Some(&guest(1)), What::Joined);
        begin(&mut kept, "c", 1, 2);
        assert!(kept.get("c").is_none() && kept.get("a").is_some(), "all go on: the new one is not kept");
        kept.end(&a, at(2));
        kept.end(&b, at(3));
        begin(&mut kept, "c", 4, 2);
        assert!(
            kept.get("a").is_none() && kept.room_of(SessionId(1)).is_none(),
            "the one that ended first gives way"
        );
        assert!(kept.get("b").is_some() && kept.get("c").is_some());
        begin(&mut kept, "d", 603, 9);
        assert!(kept.get("b").is_none(), "its time is over");
        assert_eq!((kept.all.len(), kept.over.len()), (2, 0));
    }

    #[test]
    fn one_that_begins_again_replaces_the_old() {
        let mut kept = Timelines::default();
        let room = begin(&mut kept, "a", 0, 9);
        kept.end(&room, at(1));
        begin(&mut kept, "a", 2, 9);
        assert!(kept.get("a").is_some_and(|timeline| timeline.ended.is_none()));
        begin(&mut kept, "b", 1000, 9);
        assert!(kept.get("a").is_some(), "it goes on");
        assert_eq!(kept.over.len(), 0);
        for n in 0..100 {
            let room = begin(&mut kept, "a", 1001 + n, 9);
            kept.end(&room, at(1001 + n));
        }
        assert!(kept.over.len() <= 18 && kept.get("a").is_some(), "{}", kept.over.len());
    }

    #[test]
    fn of_too_many_events_the_first_and_the_latest_are_kept() {
        let mut timeline = Timeline::of_room(at(0), "a");
        for n in 0..1000 {
            let state = if n == 999 { PeerState::Failed } else { PeerState::Connecting };
            timeline.note(at(n).mono, Some(&guest(1)), What::State { state });
        }
        assert_eq!((timeline.events.len(), timeline.omitted), (EVENTS, 1000 - EVENTS as u64));
        assert_eq!(timeline.events[0].at, 0);
        let last = timeline.events.last().map(|event| (event.at, event.what));
        assert_eq!(last, Some((999_000, What::State { state: PeerState::Failed })));
        assert!(timeline.events.is_sorted_by_key(|event| event.at));
    }

    #[test]
    fn parties_and_their_sessions_are_bounded() {
        let mut timeline = Timeline::of_room(at(0), "a");
        for n in 0..1000 {
            timeline.note(at(0).mono, Some(&guest(n)), What::Joined);
            let ann = Actor { label: "ann".into(), is_person: true, session: Some(SessionId(5000 + n)) };
            timeline.note(at(0).mono, Some(&ann), What::Joined);
        }
        assert_eq!(timeline.parties.len(), PARTIES);
        assert!(timeline.parties.iter().all(|party| party.sessions.len() <= super::super::SESSIONS));
        assert!(timeline.actor_of(SessionId(5999)).is_some_and(|actor| &*actor.label == "ann"));
        assert!(timeline.omitted > 0);
    }

    #[test]
    fn what_the_relay_tells_late_stands_where_it_happened() {
        let mut timeline = Timeline::of_room(at(10), "a");
        timeline.note(at(11).mono, None, What::Offer);
        timeline.note(at(13).mono, None, What::Answer);
        timeline.note(at(12).mono, None, What::FirstByte);
        timeline.note(at(9).mono, None, What::Credentials);
        let order: Vec<_> = timeline.events.iter().map(|event| event.what).collect();
        assert_eq!(order, [What::Credentials, What::Offer, What::FirstByte, What::Answer]);
    }
}
