//! Timelines: what the rooms and calls of the hub write into them, what the relay tells of the credentials it gave, and
//! who may read them.

use std::sync::Arc;
use std::time::Duration;

use super::{Hub, Now};
use crate::signal::call::{Call, CallStatus};
use crate::signal::dialect::peerjs;
use crate::signal::envelope::{Envelope, Kind, Refusal};
use crate::signal::identity::Identity;
use crate::signal::journal::{Record, Usage};
use crate::signal::room::Member;
use crate::signal::timeline::{
    Actor, Carried, PeerState, RelayNews, RelayStep, Timeline, TimelineView, What, candidates, may_read, none,
};
use crate::signal::{MemberId, SessionId};

/// How late something may still change what is in the books: the relay tells of an allocation's end, members leave.
const AFTERMATH: Duration = Duration::from_secs(60);

impl Hub {
    /// The timeline of a call, or of a room that is none's: for those who take part, those whose token names it,
    /// and admins.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn handle_timeline(&mut self, now: Now, who: &Identity, id: &str) -> Result<TimelineView, Refusal> {
        let timeline = self.timelines.get(id).filter(|timeline| {
            let is_remembered =
                timeline.ended.is_none_or(|ended| ended.mono + self.limits.call_memory > now.mono);
            is_remembered && may_read(who, id, |user| timeline.has_person(user))
        });
        timeline.map(|timeline| timeline.view(id.into(), now.mono)).ok_or_else(none)
    }

    /// What the relay did with credentials: it goes into the timeline of their call, and what was relayed into the
    /// books.
    pub fn handle_relay_news(&mut self, now: Now, news: &RelayNews) {
        if let RelayStep::Carried(carried) | RelayStep::Released(carried) = news.step
            && carried.is_something()
        {
            self.record(|| Record::Usage(Box::new(usage(now, news, carried))));
        }
        let Some(what) = news.step.event() else { return };
        let Some((room, actor)) = self.credential_of(news) else { return };
        self.note(now, &room, news.at, Some(&actor), what);
        self.record_aftermath(now, &room);
    }

    /// What comes a little after the end goes into the books as well.
    fn record_aftermath(&mut self, now: Now, room: &Arc<str>) {
        if let Some(ended) = self.timelines.get(room).and_then(|timeline| timeline.ended)
            && now.mono.saturating_sub(ended.mono) < AFTERMATH
        {
            self.record_timeline(now, room);
        }
    }

    /// Whose credentials they are, and of which call.
    fn credential_of(&self, news: &RelayNews) -> Option<(Arc<str>, Actor)> {
        let person = || Actor { label: (&*news.user).into(), is_person: true, session: None };
        if self.timelines.get(&news.scope).is_some_and(|timeline| timeline.has_person(&news.user)) {
            return Some(((&*news.scope).into(), person()));
        }
        let session = news.scope.split('-').next().and_then(MemberId::parse).map(|id| SessionId(id.0));
        if let Some(session) = session {
            let room = self.timelines.room_of(session)?;
            return Some((room.clone(), self.timelines.get(room)?.actor_of(session)?));
        }
        // Credentials that were made for the user: for the one call it is in.
        let sessions = self.users.get(&*news.user).filter(|_| news.scope.is_empty())?;
        let mut rooms = sessions.iter().filter_map(|id| Some(self.sessions.get(id)?.place.clone()?.0));
        let room = rooms.next()?;
        rooms.all(|other| other == room).then(|| (room, person()))
    }

    /// The call begins, goes on in another state, or is over.
    pub(super) fn note_call(&mut self, now: Now, call: &Call) {
        let (caller, callee) = [&call.caller, &call.callee].map(person).into();
        let note = |hub: &mut Self, who, what| hub.note(now, &call.id, now.mono, who, what);
        match call.status {
            CallStatus::Pending => {
                self.begin_call(now, call);
                note(self, Some(&caller), What::Initiated);
                if self.users.contains_key(&call.callee) {
                    note(self, Some(&callee), What::Ringing);
                }
            }
            CallStatus::Ongoing => note(self, Some(&callee), What::Accepted),
            status => note(self, None, What::Ended { status }),
        }
        if let Some(timeline) = self.timelines.get_mut(&call.id) {
            timeline.status = Some(call.status);
        }
        if call.status.is_over() {
            self.end_timeline(now, &call.id);
        } else {
            self.write_timeline_now(&call.id);
        }
    }

    /// Something has happened in a room or a call.
    fn note(&mut self, now: Now, room: &Arc<str>, at: Duration, who: Option<&Actor>, what: What) {
        if self.timelines.note(room, at, who, what) {
            self.touch_timeline(now, room);
        }
    }

    fn begin_call(&mut self, now: Now, call: &Call) {
        let timeline = Timeline::of_call(now, &call.id, &call.caller, &call.callee);
        self.timelines.begin(call.id.clone(), timeline, self.limits.timelines, self.limits.call_memory);
    }

    /// A timeline goes on that was not over before a restart.
    pub(super) fn restore_timeline(&mut self, now: Now, room: &str, value: &str) -> Option<()> {
        let (room, timeline) = (Arc::from(room), Timeline::restore(now, value).ok()?);
        self.timelines.begin(Arc::clone(&room), timeline, self.limits.timelines, self.limits.call_memory);
        match self.timelines.get(&room) {
            Some(_) => self.note(now, &room, now.mono, None, What::Restored),
            None => self.forget_timeline(&room),
        }
        Some(())
    }

    /// Ends the timelines of what has not come back after a restart.
    pub(super) fn end_orphans(&mut self, now: Now) {
        let goes_on = |room: &Arc<str>| {
            self.rooms.contains_key(room) || self.calls.get(room).is_some_and(|call| !call.status.is_over())
        };
        let orphans: Vec<_> = self.timelines.going_on().filter(|room| !goes_on(room)).cloned().collect();
        orphans.iter().for_each(|room| self.end_timeline(now, room));
    }

    /// A call that was going on before a restart: where its timeline was not written down, its record says what is
    /// left of the time before.
    pub(super) fn restore_call_timeline(&mut self, now: Now, id: &str) {
        let Some(call) = self.calls.get(id).filter(|call| !call.status.is_over()).cloned() else { return };
        if let Some(timeline) = self.timelines.get_mut(id).filter(|timeline| timeline.status.is_some()) {
            timeline.status = Some(call.status);
            return;
        }
        self.begin_call(now, &call);
        self.note_restored(now, &call.id);
        let caller = person(&call.caller);
        if let Some(state) = PeerState::parse(&call.connection_state) {
            self.note(now, &call.id, now.mono, Some(&caller), What::State { state });
        }
        if let Some(timeline) = self.timelines.get_mut(&call.id) {
            timeline.status = Some(call.status);
        }
    }

    /// A room is in use from now on. That of a call has its timeline already.
    pub(super) fn begin_room_timeline(&mut self, now: Now, room: &Arc<str>, name: &str) {
        let has_one = self.timelines.get(room).is_some_and(|timeline| timeline.ended.is_none());
        if !has_one && **room != *peerjs::LOBBY {
            let timeline = Timeline::of_room(now, name);
            self.timelines.begin(room.clone(), timeline, self.limits.timelines, self.limits.call_memory);
        }
    }

    /// A room that was in use before a restart.
    pub(super) fn restore_room_timeline(&mut self, now: Now, room: &Arc<str>) {
        let Some(name) = self.rooms.get(room).map(|found| found.session.clone()) else { return };
        if self.timelines.get(room).is_some() {
            return self.note_strangers(now, room);
        }
        self.begin_room_timeline(now, room, &name);
        self.note_restored(now, room);
    }

    fn note_restored(&mut self, now: Now, room: &Arc<str>) {
        self.note(now, room, now.mono, None, What::Restored);
        self.note_strangers(now, room);
    }

    /// Members whose coming the timeline does not have yet.
    fn note_strangers(&mut self, now: Now, room: &Arc<str>) {
        let members = self.rooms.get(room).into_iter().flat_map(|found| &found.members);
        let members: Vec<_> = members.map(|member| (member.id, member.session)).collect();
        for (member, session) in members {
            match self.timelines.get(room).and_then(|timeline| timeline.actor_of(session)) {
                Some(_) => self.timelines.place(session, room),
                None => self.note_member(now, room, member, What::Joined),
            }
        }
    }

    /// The last member has left. A call ends by itself, and sends them away then.
    pub(super) fn end_room_timeline(&mut self, now: Now, room: &Arc<str>) {
        match self.timelines.get(room).map(|timeline| timeline.status) {
            Some(None) => self.end_timeline(now, room),
            Some(Some(_)) => self.record_aftermath(now, room),
            None => {}
        }
    }

    fn end_timeline(&mut self, now: Now, room: &Arc<str>) {
        self.timelines.end(room, now);
        self.forget_timeline(room);
        self.record_timeline(now, room);
    }

    fn record_timeline(&mut self, now: Now, room: &Arc<str>) {
        if !self.keeps_journal() {
            return;
        }
        let Some(timeline) = self.timelines.get(room).filter(|timeline| timeline.is_worth_keeping()) else {
            return;
        };
        let (name, view) = (timeline.name.clone(), timeline.view(room.clone(), now.mono));
        self.record(|| Record::Timeline { name, view: Box::new(view) });
    }

    /// A member does something.
    pub(super) fn note_member(&mut self, now: Now, room: &Arc<str>, member: MemberId, what: What) {
        if let Some(found) = self.rooms.get(room).and_then(|found| found.member(member)) {
            let actor = self.actor(found);
            self.note(now, room, now.mono, Some(&actor), what);
        }
    }

    /// Relay credentials were handed to a session, in a room or before it enters one.
    pub(super) fn note_credentials(&mut self, now: Now, session: SessionId) {
        let Some(found) = self.sessions.get(&session).filter(|found| found.leased_until > now.unix) else {
            return;
        };
        if let Some((room, member)) = found.place.clone() {
            self.note_member(now, &room, member, What::Credentials);
        }
    }

    /// A message goes through a room.
    pub(super) fn note_message(&mut self, now: Now, room: &Arc<str>, from: MemberId, envelope: &Envelope) {
        let payload = envelope.payload.as_ref().map_or("", |payload| payload.get());
        let what = match envelope.kind {
            Kind::Offer => What::Offer,
            Kind::Answer => What::Answer,
            Kind::Restart => What::Restart,
            Kind::State => match state(payload) {
                Some(state) => What::State { state },
                None => return,
            },
            Kind::Candidate => return self.note_candidates(now, room, from, payload),
            Kind::Media | Kind::Chat | Kind::Custom => return,
        };
        self.note_member(now, room, from, what);
        if envelope.kind.is_description() {
            self.note_candidates(now, room, from, payload);
        }
    }

    fn note_candidates(&mut self, now: Now, room: &Arc<str>, from: MemberId, payload: &str) {
        for candidate in candidates(payload) {
            let member = self.rooms.get_mut(room).and_then(|found| found.member_mut(from));
            if !member.is_some_and(|member| member.counts(candidate)) {
                continue;
            }
            self.note_member(now, room, from, What::Candidate(candidate));
        }
    }

    /// A member is who its token says; of a guest, the session tells who it is.
    fn actor(&self, member: &Member) -> Actor {
        let session = self.sessions.get(&member.session);
        let is_person = session.is_some_and(|session| session.identity.names_a_person());
        let name = member.name.as_ref().filter(|_| !is_person);
        Actor { label: name.unwrap_or(&member.user).clone(), is_person, session: Some(member.session) }
    }
}

/// What the books get of an allocation.
fn usage(now: Now, news: &RelayNews, carried: Carried) -> Usage {
    let Carried { allocation, transport, lasted, to_peer, to_client } = carried;
    Usage {
        usage: format!("{allocation:016x}").into(),
        user: news.user.clone(),
        scope: news.scope.clone(),
        transport,
        is_over: matches!(news.step, RelayStep::Released(_)),
        ended_at: now.unix.saturating_sub(now.mono.saturating_sub(news.at).as_secs()),
        lasted,
        to_peer,
        to_client,
    }
}

fn person(user: &Arc<str>) -> Actor {
    Actor { label: user.clone(), is_person: true, session: None }
}

/// The state in a report.
pub(super) fn state(payload: &str) -> Option<PeerState> {
    let word = serde_json::from_str::<String>(crate::signal::dialect::call::state(payload)).ok()?;
    PeerState::parse(&word)
}
