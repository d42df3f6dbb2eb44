//! The journal's side of the hub: what has changed since the last turn, and how all of it comes back after a
//! restart. What is decided in a turn is found by comparing with what was written last, so that no rule of the
//! other files has to think of the journal.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::presence::token_end;
use super::{Hub, Now};
use crate::signal::consultation::Kept;
use crate::signal::dialect::peerjs::LOBBY;
use crate::signal::journal::{self, CallValue, Change, Record, Row, Table};
use crate::signal::room::Room;
use crate::signal::session::Session;
use crate::signal::{ConnId, MemberId, SessionId};

/// How long a frame that has left may wait for others before it is written down. Most are confirmed by then.
const LATER: Duration = Duration::from_secs(1);

/// Changes after which the rest has to wait for the next turn: messages go between them.
const AT_ONCE: usize = 8;

/// What is nearly due is written with what is due.
const GRACE: Duration = Duration::from_millis(125);

/// Timelines that are written in one turn: each may be some kilobytes.
const TIMELINES: usize = 16;

/// What may differ from the journal.
#[derive(Default)]
pub(super) struct Touched {
    is_on: bool,
    sessions: BTreeSet<SessionId>,
    rooms: BTreeSet<Arc<str>>,
    calls: BTreeSet<Arc<str>>,
    consultations: BTreeSet<Arc<str>>,
    /// Changes that are complete already.
    changes: Vec<Change>,
    /// Whether nobody waits to hear that what is done now was done.
    is_unasked: bool,
    /// Sessions whose outbox is written later, since when, and the last frame that is.
    later: VecDeque<(Duration, SessionId, u64)>,
    /// Timelines that are written later, and since when the first of them waits. Each of them goes on.
    timelines: BTreeSet<Arc<str>>,
    timelines_since: Option<Duration>,
}

impl Hub {
    /// From now on the hub says what it has to be restored from; [`Self::take_changes`] wants to be called after
    /// each input.
    pub fn keep_journal(&mut self) {
        self.touched.is_on = true;
    }

    /// Whether something may have changed that [`Self::take_changes`] has not taken.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        let Touched { sessions, rooms, calls, consultations, changes, .. } = &self.touched;
        let is_untouched = sessions.is_empty() && rooms.is_empty() && calls.is_empty();
        !(is_untouched && consultations.is_empty() && changes.is_empty())
    }

    /// What has changed since the last call, without what waits for [`Self::take_later`].
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.touched.changes);
        for id in std::mem::take(&mut self.touched.sessions) {
            self.write_session(id, u64::MAX, &mut changes);
        }
        for name in std::mem::take(&mut self.touched.rooms) {
            self.write_room(&name, &mut changes);
        }
        for id in std::mem::take(&mut self.touched.calls) {
            changes.push(match self.calls.get(&id) {
                Some(call) => Change::Put(journal::row(Table::Call, &*id, 0, &CallValue(call.clone()))),
                None => drop_all(Table::Call, &id),
            });
        }
        for id in std::mem::take(&mut self.touched.consultations) {
            changes.push(match self.consultations.get(&id) {
                Some(found) => Change::Put(journal::row(Table::Consultation, &*id, 0, &Kept::from(found))),
                None => drop_all(Table::Consultation, &id),
            });
        }
        changes
    }

    /// Everything there is, for a journal that was emptied. Records of changes that were not taken stay.
    pub fn snapshot(&mut self) -> Vec<Change> {
        for session in self.sessions.values_mut() {
            session.written = 0;
            session.outbox.unwrite();
            session.answered.unwrite();
        }
        self.rooms.values_mut().for_each(|room| room.written = 0);
        self.touched.sessions = self.sessions.keys().copied().collect();
        self.touched.rooms = self.rooms.keys().cloned().collect();
        self.touched.calls = self.calls.ids().into_iter().collect();
        self.touched.consultations = self.consultations.ids().into_iter().collect();
        self.touched.changes.retain(|change| matches!(change, Change::Record(_)));
        let voids = self.voids.iter().map(|(name, until)| Change::Put(void(name, until)));
        self.touched.changes.extend(voids);
        let timelines: Vec<_> = self.timelines.going_on().cloned().collect();
        timelines.iter().for_each(|room| self.write_timeline_now(room));
        self.take_changes()
    }

    /// When [`Self::take_later`] is due.
    #[must_use]
    pub fn poll_later(&self) -> Option<Duration> {
        let frames = self.touched.later.front().map(|(since, ..)| *since);
        [frames, self.touched.timelines_since].into_iter().flatten().min().map(|since| since + LATER)
    }

    /// What nobody waits for: frames that have left for their recipients, of senders who asked for no
    /// acknowledgement, and timelines. Empty until some of it is due; not all of it at once, so that it is due again at once.
    pub fn take_later(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.poll_later().is_none_or(|at| at > now.mono) {
            return changes;
        }
        while changes.len() < AT_ONCE
            && let Some((_, id, last)) =
                self.touched.later.pop_front_if(|(since, ..)| *since + LATER <= now.mono + GRACE)
        {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.is_written_later = false;
            // Its recipient has confirmed it by now, as nearly always.
            if session.outbox.differs(last) {
                self.write_session(id, last, &mut changes);
            }
            if self.sessions.get(&id).is_some_and(|s| s.outbox.has_unwritten()) {
                self.touch_later(now, id);
            }
        }
        if self.touched.timelines_since.is_some_and(|since| since + LATER <= now.mono + GRACE) {
            self.take_timelines(&mut changes);
        }
        changes
    }

    /// The timelines that wait are written with what else has changed: nothing comes after it.
    pub fn hasten_timelines(&mut self) {
        self.touched.timelines_since = None;
        for room in std::mem::take(&mut self.touched.timelines) {
            let row = self.timeline_row(&room);
            self.touched.changes.extend(row.map(Change::Put));
        }
    }

    fn take_timelines(&mut self, changes: &mut Vec<Change>) {
        for _ in 0..TIMELINES {
            let Some(room) = self.touched.timelines.pop_first() else { break };
            changes.extend(self.timeline_row(&room).map(Change::Put));
        }
        if self.touched.timelines.is_empty() {
            self.touched.timelines_since = None;
        }
    }

    fn timeline_row(&self, room: &Arc<str>) -> Option<Row> {
        let timeline = self.timelines.get(room).filter(|timeline| timeline.ended.is_none())?;
        Some(journal::row(Table::Timeline, &**room, 0, timeline))
    }

    fn write_session(&mut self, id: SessionId, upto: u64, changes: &mut Vec<Change>) {
        let owner = id.to_string();
        let Some(session) = self.sessions.get_mut(&id) else {
            let tables = [Table::Session, Table::Frame, Table::Answer];
            return changes.extend(tables.map(|table| drop_all(table, &owner)));
        };
        session.outbox.take_changes(&owner, upto, changes);
        session.answered.take_changes(&owner, changes);
        let row = journal::row(Table::Session, &*owner, 0, session);
        let digest = journal::digest(&row.value);
        if std::mem::replace(&mut session.written, digest) != digest {
            changes.push(Change::Put(row));
        }
    }

    fn write_room(&mut self, name: &Arc<str>, changes: &mut Vec<Change>) {
        // A switchboard of thousands where nothing waits; who comes back takes its place there anew.
        if **name == *LOBBY {
            return;
        }
        let Some(room) = self.rooms.get_mut(name) else { return changes.push(drop_all(Table::Room, name)) };
        let row = journal::row(Table::Room, &**name, 0, room);
        let digest = journal::digest(&row.value);
        if std::mem::replace(&mut room.written, digest) != digest {
            changes.push(Change::Put(row));
        }
    }

    /// Brings back what the journal has. Nobody has a socket; everybody has the resume window to come back. Returns
    /// how many rows could not be read.
    pub fn restore(&mut self, now: Now, mut rows: Vec<Row>) -> usize {
        rows.sort_by(|a, b| (a.table, &a.owner, a.number).cmp(&(b.table, &b.owner, b.number)));
        let unread = rows.iter().filter(|row| self.restore_row(now, row).is_none()).count();
        let mut sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        sessions.sort_unstable();
        sessions.into_iter().for_each(|id| self.arm_session(id));
        let rooms: Vec<Arc<str>> = self.rooms.keys().cloned().collect();
        rooms.iter().for_each(|name| self.arm_room(name));
        self.calls.ids().iter().for_each(|id| self.arm_call(id));
        self.consultations.ids().iter().for_each(|id| self.arm_consultation(now, id));
        self.end_orphans(now);
        unread
    }

    fn restore_row(&mut self, now: Now, row: &Row) -> Option<()> {
        let session = || MemberId::parse(&row.owner).map(|id| SessionId(id.0));
        match row.table {
            Table::Session => self.restore_session(now, session()?, &row.value),
            Table::Frame => self.sessions.get_mut(&session()?)?.outbox.restore(row.number, &row.value).ok(),
            Table::Answer => self.sessions.get_mut(&session()?)?.answered.restore(&row.value).ok(),
            Table::Consultation => self.consultations.restore(&row.value).ok(),
            Table::Timeline => self.restore_timeline(now, &row.owner, &row.value),
            Table::Room => self.restore_room(now, &row.value),
            Table::Call => {
                let CallValue(call) = serde_json::from_str(&row.value).ok()?;
                self.calls.restore(call, now, &self.limits);
                self.restore_call_timeline(now, &row.owner);
                Some(())
            }
            Table::Void => {
                let gone = self.voids.insert(row.owner.clone(), row.number, self.limits.voids, now);
                self.touched.changes.extend(gone.iter().map(|name| drop_all(Table::Void, name)));
                self.tell_void(&row.owner, row.number);
                Some(())
            }
        }
    }

    fn restore_session(&mut self, now: Now, id: SessionId, value: &str) -> Option<()> {
        let mut session = serde_json::from_str::<Session>(value).ok()?;
        session.written = journal::digest(value);
        session.outbox.resume();
        session.away_until = Some(now.mono + self.limits.resume_window);
        session.expires_at = token_end(now, &session.identity);
        self.note_user(&session.identity, id);
        for chat in &session.chats {
            self.chats.entry(chat.clone()).or_default().push(id);
        }
        self.sessions.insert(id, Box::new(session));
        Some(())
    }

    fn restore_room(&mut self, now: Now, value: &str) -> Option<()> {
        let mut room = serde_json::from_str::<Room>(value).ok()?;
        room.written = journal::digest(value);
        let strangers: Vec<MemberId> =
            room.members.iter().filter(|m| !self.sessions.contains_key(&m.session)).map(|m| m.id).collect();
        for stranger in strangers {
            room.remove(stranger);
        }
        if room.members.is_empty() {
            self.touch_room(&room.name);
            self.record_emptied(now, room);
            return Some(());
        }
        for member in &mut room.members {
            member.is_away = true;
            if let Some(session) = self.sessions.get_mut(&member.session) {
                session.place = Some((room.name.clone(), member.id));
            }
        }
        room.mail.values_mut().for_each(|mail| mail.since = now.mono);
        let name = room.name.clone();
        self.rooms.insert(name.clone(), room);
        self.restore_room_timeline(now, &name);
        Some(())
    }

    // What the other files call.

    pub(super) fn touch_session(&mut self, id: SessionId) {
        if self.touched.is_on {
            self.touched.sessions.insert(id);
        }
    }

    /// Says whether somebody waits to hear that what is done now was done; of what came in last.
    pub(super) fn nobody_waits(&mut self, is_so: bool) {
        self.touched.is_unasked = is_so;
    }

    /// A frame was put into a session's outbox.
    pub(super) fn touch_outbox(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let has_left = session.conn.is_some() && session.outbox.keeps_its_numbers();
        if self.touched.is_unasked && has_left { self.touch_later(now, id) } else { self.touch_session(id) }
    }

    /// An outbox has changed, which nobody waits for.
    pub(super) fn touch_later(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|_| self.touched.is_on) else { return };
        if !std::mem::replace(&mut session.is_written_later, true) {
            self.touched.later.push_back((now.mono, id, session.outbox.last_seq()));
        }
    }

    /// A timeline has got an event, which nobody waits for.
    pub(super) fn touch_timeline(&mut self, now: Now, room: &Arc<str>) {
        let goes_on = self.timelines.get(room).is_some_and(|timeline| timeline.ended.is_none());
        if self.touched.is_on && goes_on && !self.touched.timelines.contains(room) {
            self.touched.timelines.insert(room.clone());
            self.touched.timelines_since.get_or_insert(now.mono);
        }
    }

    /// The timeline is written with what else has changed.
    pub(super) fn write_timeline_now(&mut self, room: &Arc<str>) {
        if self.touched.is_on {
            self.written_timeline(room);
            self.touched.changes.extend(self.timeline_row(room).map(Change::Put));
        }
    }

    /// The timeline is over, or was not kept.
    pub(super) fn forget_timeline(&mut self, room: &Arc<str>) {
        if self.touched.is_on {
            self.written_timeline(room);
            self.touched.changes.push(drop_all(Table::Timeline, room));
        }
    }

    fn written_timeline(&mut self, room: &Arc<str>) {
        self.touched.timelines.remove(room);
        if self.touched.timelines.is_empty() {
            self.touched.timelines_since = None;
        }
    }

    pub(super) fn touch_room(&mut self, name: &Arc<str>) {
        if self.touched.is_on && !self.touched.rooms.contains(name) {
            self.touched.rooms.insert(name.clone());
        }
    }

    pub(super) fn touch_call(&mut self, id: &Arc<str>) {
        if self.touched.is_on {
            self.touched.calls.insert(id.clone());
        }
    }

    pub(super) fn touch_consultation(&mut self, id: &Arc<str>) {
        if self.touched.is_on {
            self.touched.consultations.insert(id.clone());
        }
    }

    /// What somebody has just sent may have changed the own session and room.
    pub(super) fn touch_conn(&mut self, id: ConnId) {
        let (session, room) = self.concerned(id);
        self.touch(session, room.as_ref());
    }

    /// The session and room of a socket, where there is a journal.
    pub(super) fn concerned(&self, id: ConnId) -> (Option<SessionId>, Option<Arc<str>>) {
        let session = self.conns.get(&id).and_then(|conn| conn.session).filter(|_| self.touched.is_on);
        let place = session.and_then(|session| self.sessions.get(&session)?.place.as_ref());
        (session, place.map(|(room, _)| room.clone()))
    }

    /// A frame was carried out. It may have taken the session out of the room it was in `before`.
    pub(super) fn touch_sender(&mut self, id: ConnId, before: &(Option<SessionId>, Option<Arc<str>>)) {
        if !std::mem::take(&mut self.touched.is_unasked) {
            self.touch(before.0, before.1.as_ref());
            self.touch_conn(id);
        }
    }

    fn touch(&mut self, session: Option<SessionId>, room: Option<&Arc<str>>) {
        session.into_iter().for_each(|session| self.touch_session(session));
        room.into_iter().for_each(|room| self.touch_room(room));
    }

    /// Whether anybody takes what is recorded.
    pub(super) fn keeps_journal(&self) -> bool {
        self.touched.is_on
    }

    pub(super) fn record(&mut self, record: impl FnOnce() -> Record) {
        if self.touched.is_on {
            self.touched.changes.push(Change::Record(record()));
        }
    }

    /// Something is valid no longer, until it would have ended anyway.
    pub(super) fn void(&mut self, now: Now, name: &str, until: u64) {
        let gone = self.voids.insert(name.into(), until, self.limits.voids, now);
        if self.touched.is_on {
            let gone = gone.iter().map(|name| drop_all(Table::Void, name));
            self.touched.changes.extend(gone);
            self.touched.changes.push(Change::Put(void(name, until)));
        }
        self.tell_void(name, until);
    }
}

fn drop_all(table: Table, owner: &str) -> Change {
    Change::Drop { table, owner: owner.into(), from: 0, to: i64::MAX as u64 }
}

fn void(name: &str, until: u64) -> Row {
    Row { table: Table::Void, owner: name.into(), number: until, value: "null".into() }
}
