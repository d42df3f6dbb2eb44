//! Who is in a room: entering, leaving, a socket that goes away and one that comes back.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Hub, Now, close};
use crate::signal::dialect::{Dialect, Sender, broadcast, native, peerjs};
use crate::signal::envelope::{Code, Refusal};
use crate::signal::identity::{ClientKey, Identity};
use crate::signal::journal::Record;
use crate::signal::outbox::Outbox;
use crate::signal::room::{Member, Policy, Room};
use crate::signal::session::{Answered, ResumeSecrets, Session};
use crate::signal::timeline::What;
use crate::signal::{ConnId, MemberId, SessionId};

/// A member as the others see it.
#[derive(Serialize)]
pub(super) struct Card<'a> {
    id: String,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    /// Whether the reader is the polite one toward this member.
    polite: bool,
    away: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    media: Option<&'a RawValue>,
}

impl<'a> Card<'a> {
    fn new(member: &'a Member, reader: &Member) -> Self {
        Self {
            id: member.id.to_string(),
            user: &member.user,
            name: member.name.as_deref(),
            role: member.role.as_deref(),
            polite: reader.is_polite_toward(member),
            away: member.is_away,
            media: member.media.as_deref(),
        }
    }
}

/// What the others are told of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Joined,
    Away,
    Back,
    Left(&'static str),
}

impl Presence {
    fn native_word(self) -> &'static str {
        match self {
            Self::Joined => "member-joined",
            Self::Away => "member-away",
            Self::Back => "member-back",
            Self::Left(_) => "member-left",
        }
    }

    fn raw_word(self) -> &'static str {
        match self {
            Self::Joined => "peer-joined",
            Self::Away => "peer-away",
            Self::Back => "peer-back",
            Self::Left(_) => "peer-left",
        }
    }
}

/// Members of a room that speak seed 003's words, in which a message has no addressee.
const PARTIES: usize = 2;

impl Hub {
    /// Opens a session on a socket.
    pub(super) fn open_session(
        &mut self,
        now: Now,
        conn: ConnId,
        identity: Identity,
        key: ClientKey,
        wants_events: bool,
    ) -> Result<SessionId, Refusal> {
        if self.sessions.len() >= self.limits.sessions {
            return Err(Refusal::new(Code::Busy, "the server has as many sessions as it may have"));
        }
        self.spend(now, &identity)?;
        let Some(socket) = self.conns.get_mut(&conn) else {
            return Err(Refusal::new(Code::BadFrame, "the socket is gone"));
        };
        let dialect = socket.dialect;
        socket.said_hello();
        let id = SessionId(self.fresh_id());
        if let Some(socket) = self.conns.get_mut(&conn) {
            socket.session = Some(id);
        }
        let expires_at = token_end(now, &identity);
        self.note_user(&identity, id);
        let session = Session {
            dialect,
            identity,
            key,
            conn: Some(conn),
            place: None,
            outbox: Outbox::default(),
            resume: ResumeSecrets::default(),
            answered: Answered::default(),
            answered_event: None,
            declared_role: None,
            chats: Vec::new(),
            wants_events,
            away_until: None,
            ice_at: None,
            lease: 0,
            leased_until: 0,
            expires_at,
            armed: None,
            doubt: None,
            written: 0,
            is_written_later: false,
        };
        self.sessions.insert(id, Box::new(session));
        self.touch_session(id);
        self.arm_session(id);
        Ok(id)
    }

    pub(super) fn note_user(&mut self, identity: &Identity, id: SessionId) {
        if identity.names_a_person() {
            self.users.entry(identity.user.clone()).or_default().push(id);
        }
    }

    /// Another token for a session, or its first one.
    pub(super) fn set_identity(&mut self, now: Now, id: SessionId, new: &Identity) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.expires_at = token_end(now, new);
        let old = std::mem::replace(&mut session.identity, new.clone());
        forget_in(&mut self.users, &old.user, id);
        self.note_user(new, id);
        self.touch_session(id);
        self.arm_session(id);
    }

    /// Puts a session on another socket; one it still has is closed.
    pub(super) fn attach(&mut self, now: Now, id: SessionId, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let older = session.conn.replace(conn);
        session.away_until = None;
        if let Some(socket) = self.conns.get_mut(&conn) {
            socket.session = Some(id);
            socket.said_hello();
        }
        if let Some(older) = older.filter(|o| *o != conn) {
            if let Some(socket) = self.conns.get_mut(&older) {
                socket.session = None;
            }
            self.close(now, older, close::REPLACED, "another socket of this session took over");
        }
        self.touch_session(id);
        self.stats.resumed += 1;
        self.set_away(now, id, false);
        self.arm_session(id);
    }

    /// The socket of a session is gone; the session waits for another one.
    pub(super) fn detach(&mut self, now: Now, id: SessionId, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        // What has left may have gone down with the socket.
        let is_only_copy = session.outbox.has_unwritten();
        session.away_until = Some(now.mono + self.limits.resume_window);
        if is_only_copy {
            self.touch_session(id);
        }
        self.set_away(now, id, true);
        self.arm_session(id);
    }

    fn set_away(&mut self, now: Now, id: SessionId, is_away: bool) {
        let Some((room_name, member)) = self.sessions.get(&id).and_then(|s| s.place.clone()) else { return };
        let Some(room) = self.rooms.get_mut(&room_name) else { return };
        let before = room.present();
        match room.member_mut(member) {
            Some(found) if found.is_away != is_away => found.is_away = is_away,
            Some(_) | None => return,
        }
        let after = room.present();
        self.count_present(before, after);
        let presence = if is_away { Presence::Away } else { Presence::Back };
        self.note_member(now, &room_name, member, if is_away { What::Away } else { What::Back });
        if let Some(who) = self.sender(&room_name, member) {
            self.announce(now, &who, presence);
        }
    }

    /// Puts a session into a room.
    pub(super) fn enter(
        &mut self,
        now: Now,
        id: SessionId,
        room_name: &str,
        name: Option<String>,
        role: Option<String>,
    ) -> Result<(Arc<str>, MemberId), Refusal> {
        let protects = self.protects_rooms;
        let Some(session) = self.sessions.get(&id) else {
            return Err(Refusal::new(Code::BadFrame, "the session is gone"));
        };
        let identity = session.identity.clone();
        let dialect = session.dialect;
        check_identity(&identity, room_name)?;
        let place = self.may_enter(now, room_name, dialect, &identity)?;
        let room_name = self.room_for(room_name)?;
        let names_it = protects && identity.rooms.names(&room_name);
        if names_it && !self.is_protected(&room_name) {
            self.turn_guests_out(now, &room_name);
        }
        let max = self.most_members(&room_name, dialect)?;
        self.make_room(now, &room_name, max);
        let member = place.unwrap_or_else(|| MemberId(self.fresh_id()));
        if !self.rooms.contains_key(&room_name) {
            let session = self.record_began(now, &room_name);
            self.begin_room_timeline(now, &room_name, &session);
            self.rooms.insert(room_name.clone(), Room::new(room_name.clone(), session));
        }
        let Some(room) = self.rooms.get_mut(&room_name) else {
            return Err(Refusal::new(Code::Busy, "the room is gone"));
        };
        if names_it {
            room.policy = Policy::Protected;
        }
        if room.members.len() >= max {
            return Err(Refusal::new(Code::RoomFull, format!("the room has {max} members already")));
        }
        if dialect == Dialect::Call && room.members.iter().filter(|m| m.dialect == dialect).count() >= PARTIES
        {
            return Err(Refusal::new(Code::RoomFull, "a call is between two, and both are there"));
        }
        let before = room.present();
        let arrival = room.next_arrival();
        room.members.push(Member {
            id: member,
            session: id,
            user: identity.user.clone(),
            name: identity.name.clone().or_else(|| name.map(Arc::from)),
            role: identity.role.clone().or_else(|| role.map(Arc::from)),
            dialect,
            is_guest: identity.is_guest,
            arrival,
            is_away: false,
            media: None,
            described: Vec::new(),
            peer: None,
            connections: Vec::new(),
            early: Vec::new(),
            counted: Default::default(),
        });
        let after = room.present();
        self.count_present(before, after);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.place = Some((room_name.clone(), member));
        }
        self.touch_session(id);
        self.touch_room(&room_name);
        self.note_member(now, &room_name, member, What::Joined);
        self.note_credentials(now, id);
        if let Some(who) = self.sender(&room_name, member) {
            self.record_joined(now, &who);
            self.announce(now, &who, Presence::Joined);
        }
        Ok((room_name, member))
    }

    /// Whether somebody whose token is for the room may be in it, or hear its chat; the place that is kept for it
    /// there.
    pub(super) fn may_enter(
        &self,
        now: Now,
        room: &str,
        dialect: Dialect,
        who: &Identity,
    ) -> Result<Option<MemberId>, Refusal> {
        if self.is_banned(now, room, who) {
            return Err(Refusal::new(Code::Forbidden, "a moderator has sent you out of this room"));
        }
        self.check_call(room, dialect, who)?;
        let place = self.check_consultation(room, who)?;
        if self.protects_rooms && who.is_guest && self.is_protected(room) {
            return Err(Refusal::new(Code::Forbidden, "this room is open only with a token for it"));
        }
        Ok(place)
    }

    fn is_protected(&self, room: &str) -> bool {
        self.rooms.get(room).is_some_and(|room| room.policy == Policy::Protected)
    }

    /// The room's name as the table has it; makes sure there is room for another one.
    fn room_for(&self, name: &str) -> Result<Arc<str>, Refusal> {
        if let Some((known, _)) = self.rooms.get_key_value(name) {
            return Ok(known.clone());
        }
        if self.rooms.len() >= self.limits.rooms {
            return Err(Refusal::new(Code::Busy, "the server has as many rooms as it may have"));
        }
        Ok(Arc::from(name))
    }

    /// How many members a room may have. That of PeerJS clients without a key is a switchboard, not a
    /// room: many are in it, and nobody else.
    fn most_members(&self, room: &str, dialect: Dialect) -> Result<usize, Refusal> {
        match (room == peerjs::LOBBY, dialect == Dialect::PeerJs) {
            (false, _) => Ok(self.limits.members),
            (true, true) => Ok(self.limits.peers),
            (true, false) => {
                let message = "this room is that of PeerJS clients without a key: set one to meet others";
                Err(Refusal::new(Code::Forbidden, message))
            }
        }
    }

    /// In a full room, the one who has been away for longest gives way.
    fn make_room(&mut self, now: Now, room_name: &Arc<str>, max: usize) {
        let Some(room) = self.rooms.get(room_name) else { return };
        if room.members.len() < max {
            return;
        }
        let away = room.members.iter().filter(|m| m.is_away).map(|m| m.session);
        let longest = away.min_by_key(|s| self.sessions.get(s).and_then(|s| s.away_until));
        if let Some(session) = longest {
            self.end_session(now, session, "lost");
        }
    }

    /// A room that became protected keeps nobody who came without a token, nor does its chat.
    fn turn_guests_out(&mut self, now: Now, room_name: &Arc<str>) {
        let members = self.rooms.get(room_name).map(|room| room.members.as_slice()).unwrap_or_default();
        let guests: Vec<SessionId> = members.iter().filter(|m| m.is_guest).map(|m| m.session).collect();
        for guest in guests {
            let conn = self.sessions.get(&guest).and_then(|s| s.conn);
            self.end_session(now, guest, "kicked");
            if let Some(conn) = conn {
                self.close(now, conn, close::FORBIDDEN, "this room is open only with a token for it");
            }
        }
        for listener in self.chats.get(room_name).cloned().unwrap_or_default() {
            if self.sessions.get(&listener).is_some_and(|session| session.identity.is_guest) {
                self.leave_chat(listener, room_name);
            }
        }
    }

    /// Takes a session out of its room.
    fn leave(&mut self, now: Now, id: SessionId, reason: &'static str) -> bool {
        let Some((room_name, member)) = self.sessions.get_mut(&id).and_then(|s| s.place.take()) else {
            return false;
        };
        self.note_member(now, &room_name, member, What::Left { reason });
        let Some(room) = self.rooms.get_mut(&room_name) else { return false };
        let before = room.present();
        let gone = room.remove(member).map(|gone| Sender::new(&room_name, &gone));
        let (after, is_empty) = (room.present(), room.members.is_empty());
        self.count_present(before, after);
        let attendee = self.attendee(&room_name, member);
        self.record(|| Record::Left { attendee, reason, at: now.unix });
        if is_empty {
            if let Some(room) = self.rooms.remove(&room_name) {
                self.record_emptied(now, room);
            }
            self.end_room_timeline(now, &room_name);
        } else {
            if let Some(gone) = &gone {
                self.announce(now, gone, Presence::Left(reason));
            }
        }
        self.touch_session(id);
        self.touch_room(&room_name);
        self.arm_room(&room_name);
        if let Some(gone) = gone {
            self.left_call(now, &room_name, gone.user(), reason);
        }
        true
    }

    /// Takes a session that goes on out of its room; it gets other relay credentials than it had there.
    pub(super) fn leave_room(&mut self, now: Now, id: SessionId) {
        if self.leave(now, id, "left") {
            self.renew_lease(now, id);
        }
    }

    /// The room comes into use; the name of the time until it is no longer.
    fn record_began(&mut self, now: Now, room: &str) -> Box<str> {
        let consultation = self.consultations.of_room(room).map(|found| Box::from(&*found.id));
        let session: Box<str> = consultation.unwrap_or_else(|| format!("{:016x}", self.fresh_id()).into());
        self.record(|| Record::Began { session: session.clone(), room: room.into(), at: now.unix });
        session
    }

    /// Nobody is left in the room. A consultation goes on until it is ended.
    pub(super) fn record_emptied(&mut self, now: Now, room: Room) {
        if self.consultations.of_room(&room.name).is_none() {
            self.record(|| Record::Ended { session: room.session, at: now.unix });
        }
    }

    /// What a member is called in the books.
    fn attendee(&self, room: &str, member: MemberId) -> Box<str> {
        let named = self.consultations.of_room(room).and_then(|found| found.attendee_id(member));
        named.map_or_else(|| member.to_string().into(), Box::from)
    }

    fn record_joined(&mut self, now: Now, who: &Sender) {
        let Some(session) = self.rooms.get(&who.room).map(|room| room.session.clone()) else { return };
        let attendee = self.attendee(&who.room, who.member);
        self.record(|| Record::Joined {
            session,
            attendee,
            user: who.shown().into(),
            role: who.role().map(Into::into),
            peer: who.peer_id().into(),
            at: now.unix,
        });
    }

    /// Ends a session; its socket, if it has one, is left to the caller.
    pub(super) fn end_session(&mut self, now: Now, id: SessionId, reason: &'static str) {
        self.leave(now, id, reason);
        if reason != "lost" {
            self.revoke_lease(now, id);
        }
        self.touch_session(id);
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(at) = session.armed {
            self.timers.remove(&(at, super::Timer::Session(id)));
        }
        forget_in(&mut self.users, &session.identity.user, id);
        for chat in &session.chats {
            forget_in(&mut self.chats, chat, id);
        }
        if let Some(conn) = session.conn.and_then(|c| self.conns.get_mut(&c)) {
            conn.session = None;
        }
    }

    /// A member as others are told of it.
    pub(super) fn sender(&self, room_name: &Arc<str>, member: MemberId) -> Option<Sender> {
        self.rooms.get(room_name)?.member(member).map(|found| Sender::new(room_name, found))
    }

    /// Tells the others in the room.
    pub(super) fn announce(&mut self, now: Now, who: &Sender, presence: Presence) {
        let (room_name, about) = (&who.room, who.member);
        let Some(room) = self.rooms.get(room_name) else { return };
        let readers: Vec<(SessionId, MemberId)> =
            room.members.iter().filter(|m| m.id != about).map(|m| (m.session, m.id)).collect();
        for (session, reader) in readers {
            let Some(found) = self.sessions.get(&session) else { continue };
            match found.dialect {
                Dialect::Broadcast | Dialect::Call if !found.wants_events => {}
                Dialect::Broadcast | Dialect::Call => {
                    let text = broadcast::event(presence.raw_word(), &about.to_string());
                    self.deliver(now, session, None, |_, _| Some(text));
                }
                Dialect::SocketIo(vocabulary) => {
                    let has_left = matches!(presence, Presence::Left(_));
                    // A client that may come back has not left.
                    if has_left || presence == Presence::Joined {
                        self.announce_by_event(now, session, vocabulary, who, has_left);
                    }
                }
                Dialect::PeerJs => {
                    if matches!(presence, Presence::Left(_)) && **room_name != *peerjs::LOBBY {
                        self.deliver(now, session, None, |_, _| Some(peerjs::leave(who)));
                    }
                }
                Dialect::Native => self.announce_native(now, room_name, session, reader, about, presence),
            }
        }
    }

    fn announce_native(
        &mut self,
        now: Now,
        room_name: &Arc<str>,
        session: SessionId,
        reader: MemberId,
        about: MemberId,
        presence: Presence,
    ) {
        let word = presence.native_word();
        let data = match presence {
            Presence::Joined => {
                let Some(room) = self.rooms.get(room_name) else { return };
                let (Some(member), Some(reader)) = (room.member(about), room.member(reader)) else { return };
                let card = Card::new(member, reader);
                serde_json::json!({ "room": &**room_name, "member": card })
            }
            Presence::Away | Presence::Back => {
                serde_json::json!({ "room": &**room_name, "member": about.to_string() })
            }
            Presence::Left(reason) => {
                serde_json::json!({ "room": &**room_name, "member": about.to_string(), "reason": reason })
            }
        };
        self.deliver(now, session, None, |_, seq| Some(native::event(word, seq, &data)));
    }

    /// The answer to a join.
    pub(super) fn roster(&self, room_name: &str, member: MemberId) -> Option<serde_json::Value> {
        let room = self.rooms.get(room_name)?;
        let me = room.member(member)?;
        let others: Vec<Card<'_>> =
            room.members.iter().filter(|m| m.id != member).map(|m| Card::new(m, me)).collect();
        Some(serde_json::json!({
            "room": &*room.name,
            "member": member.to_string(),
            "role": me.role.as_deref(),
            "members": others,
        }))
    }

    pub(super) fn count_present(&mut self, before: usize, after: usize) {
        self.stats.members = (self.stats.members + after as u64).saturating_sub(before as u64);
        match (before, after) {
            (0, 1..) => self.stats.rooms += 1,
            (1.., 0) => self.stats.rooms = self.stats.rooms.saturating_sub(1),
            (_, _) => {}
        }
    }
}

/// Takes a session out of a list, and the list out of the table with its last one.
pub(super) fn forget_in(table: &mut HashMap<Arc<str>, Vec<SessionId>>, key: &Arc<str>, id: SessionId) {
    let Some(sessions) = table.get_mut(key) else { return };
    sessions.retain(|one| *one != id);
    if sessions.is_empty() {
        table.remove(key);
    }
}

/// When the token ends, on the clock of the timers.
pub(super) fn token_end(now: Now, identity: &Identity) -> Option<std::time::Duration> {
    let left = identity.expires_at?.saturating_sub(now.unix);
    Some(now.mono + std::time::Duration::from_secs(left))
}

fn check_identity(identity: &Identity, room: &str) -> Result<(), Refusal> {
    if !identity.rooms.contains(room) {
        return Err(Refusal::new(Code::Forbidden, "the token is for another room"));
    }
    if !identity.grants.join {
        return Err(Refusal::new(Code::Forbidden, "the token does not grant join"));
    }
    Ok(())
}
