//! Raw sockets (seeds 000 and 003): connecting is joining, and a socket says little about whose it is.
//!
//! Three mechanisms stand in for what such a client lacks. A pong confirms every frame sent before
//! its ping, so the server knows what a dead socket never received. A new socket that may belong to
//! the client of an older one ([`ClientKey::may_be`]) takes over its seat if that one is closed. If
//! that one is open, it is asked for a sign of life, and until it gives one its own held messages
//! are not given to the new socket: a sign of life proves two clients, silence proves a successor.
//!
//! [`ClientKey::may_be`]: crate::signal::ClientKey::may_be

use std::sync::Arc;

use super::conn::{Conn, Suspect};
use super::{Connect, Hub, Now, Output, close};
use crate::signal::dialect::{Dialect, broadcast};
use crate::signal::envelope::{Code, Envelope, Kind, Refusal};
use crate::signal::identity::ClientKey;
use crate::signal::room::Member;
use crate::signal::{ConnId, MemberId, SessionId};

impl Hub {
    pub(super) fn raw_connected(&mut self, now: Now, id: ConnId, connect: Connect) {
        let Some(identity) = connect.identity else {
            return self.close(
                now,
                id,
                close::UNAUTHENTICATED,
                "a token is needed: ?token= or a bearer subprotocol",
            );
        };
        let room = connect.room.unwrap_or_default();
        if room.is_empty() || room.len() > self.limits.name {
            let reason = format!("a room name has 1 to {} bytes", self.limits.name);
            return self.close(now, id, close::BAD_FRAME, &reason);
        }
        let seat = self.seat_in_call(connect.dialect, &identity, &room);
        let suspect =
            if seat.is_some() { None } else { self.silent_twin(&room, connect.dialect, &connect.key) };
        let is_strong = connect.key.is_strong();
        if let Some(seat) = seat.or_else(|| self.free_seat(&room, connect.dialect, &connect.key))
            && identity.rooms.contains(&room)
            && identity.grants.join
        {
            if let Err(refusal) = self.spend(now, &identity) {
                return self.raw_refused(now, id, &refusal);
            }
            self.set_identity(now, seat, &identity);
            if let Some(session) = self.sessions.get_mut(&seat) {
                session.wants_events = connect.wants_events;
                session.key = connect.key;
            }
            self.take_seat(now, id, seat, suspect.map(|(member, _)| member));
            return self.suspect(now, id, suspect, is_strong);
        }
        let entered = self
            .open_session(now, id, identity, connect.key, connect.wants_events)
            .and_then(|session| self.enter(now, session, &room, None, None).map(|place| (session, place)));
        match entered {
            Err(refusal) => self.raw_refused(now, id, &refusal),
            Ok((_, (room, member))) => {
                self.give_mail(now, &room, member, suspect.map(|(member, _)| member));
                self.suspect(now, id, suspect, is_strong);
            }
        }
    }

    pub(super) fn raw_refused(&mut self, now: Now, id: ConnId, refusal: &Refusal) {
        self.refuse(id, None, refusal);
        let code = match refusal.code {
            Code::Forbidden => close::FORBIDDEN,
            Code::Unauthenticated => close::UNAUTHENTICATED,
            Code::NoSuchCall => close::NOT_FOUND,
            Code::RoomFull | Code::Busy => close::FULL,
            _ => close::BAD_FRAME,
        };
        if let Some(session) = self.conns.get(&id).and_then(|c| c.session) {
            self.end_session(now, session, "left");
        }
        self.close(now, id, code, &refusal.message);
    }

    pub(super) fn raw_frame(&mut self, now: Now, id: ConnId, text: &str) {
        let envelope = match broadcast::parse(text, &self.limits) {
            Ok(envelope) => envelope,
            Err(refusal) => return self.refuse_with_strike(now, id, None, &refusal),
        };
        self.raw_message(now, id, envelope);
    }

    /// Relays a message of a raw socket, once it is known whose it is.
    pub(super) fn raw_message(&mut self, now: Now, id: ConnId, envelope: Envelope) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let is_unsure = conn.suspect.is_some() && !conn.has_described;
        if envelope.kind == Kind::Candidate && is_unsure && conn.deferred.len() < self.limits.mail_candidates
        {
            // Whether it belongs to the older socket's description is known in a moment.
            return conn.deferred.push(envelope);
        }
        let is_description = envelope.kind.is_description();
        conn.has_described |= is_description;
        self.relay_raw(now, id, &envelope);
        if is_description {
            self.relay_deferred(now, id);
        }
    }

    fn relay_raw(&mut self, now: Now, id: ConnId, envelope: &Envelope) {
        let Some(session) = self.conns.get(&id).and_then(|c| c.session) else { return };
        if let Err(refusal) = self.relay(now, session, None, envelope) {
            self.refuse(id, None, &refusal);
        }
    }

    fn relay_deferred(&mut self, now: Now, id: ConnId) {
        let deferred = self.conns.get_mut(&id).map(|c| std::mem::take(&mut c.deferred));
        for candidate in deferred.unwrap_or_default() {
            self.relay_raw(now, id, &candidate);
        }
    }

    /// The seat in `room` that waits for this client's next socket; the longest empty one first.
    fn free_seat(&self, room: &str, dialect: Dialect, key: &ClientKey) -> Option<SessionId> {
        let twins = self.twins(room, dialect, key).filter(|(_, member)| member.is_away);
        twins.min_by_key(|(session, _)| self.sessions.get(session).and_then(|s| s.away_until)).map(|(s, _)| s)
    }

    /// The member with an open socket that may be this client's own older one; the one that has been
    /// silent for longest.
    fn silent_twin(&self, room: &str, dialect: Dialect, key: &ClientKey) -> Option<(MemberId, ConnId)> {
        let twins = self.twins(room, dialect, key).filter(|(_, member)| !member.is_away);
        twins
            .filter_map(|(session, member)| Some((member.id, self.sessions.get(&session)?.conn?)))
            .min_by_key(|(_, conn)| (self.conns.get(conn).map(|c| c.alive_at), *conn))
    }

    fn twins<'a>(
        &'a self,
        room: &str,
        dialect: Dialect,
        key: &'a ClientKey,
    ) -> impl Iterator<Item = (SessionId, &'a Member)> {
        let members = self.rooms.get(room).map(|r| r.members.as_slice()).unwrap_or_default();
        members
            .iter()
            .filter(move |m| m.dialect == dialect)
            .filter(|m| self.sessions.get(&m.session).is_some_and(|s| s.key.may_be(key)))
            .map(|m| (m.session, m))
    }

    /// Goes on with a session whose socket is closed: what that one did not confirm comes again,
    /// then the unanswered offers of the others.
    pub(super) fn take_seat(&mut self, now: Now, id: ConnId, seat: SessionId, except: Option<MemberId>) {
        self.attach(now, seat, id);
        self.touch_conn(id);
        let Some(session) = self.sessions.get(&seat) else { return };
        let Some((room, member)) = session.place.clone() else { return };
        let replay: Vec<Arc<str>> = session.outbox.iter().map(|f| f.text.clone()).collect();
        let has_offer_of: Vec<MemberId> = session
            .outbox
            .iter()
            .filter_map(|f| f.about.filter(|(_, kind)| *kind == Kind::Offer).map(|(from, _)| from))
            .collect();
        let wait = now.mono + self.limits.confirm;
        for text in replay {
            self.send(id, text);
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.confirm_by(wait);
            }
        }
        let senders = self.rooms.get(&room).map(|r| r.mail_for(member, except, false)).unwrap_or_default();
        for sender in senders.into_iter().filter(|s| !has_offer_of.contains(s)) {
            self.give_mail_of(now, &room, sender, member);
        }
    }

    /// Asks the older socket for a sign of life.
    fn suspect(&mut self, now: Now, id: ConnId, twin: Option<(MemberId, ConnId)>, is_strong: bool) {
        let Some((member, older)) = twin else { return };
        let patience = if is_strong { self.limits.probe } else { self.limits.doubt };
        let Some(conn) = self.conns.get_mut(&older) else { return };
        conn.suspected_by.push(id);
        let last_seq = conn.session.and_then(|s| self.sessions.get(&s)).map_or(0, |s| s.outbox.last_seq());
        self.outputs.push_back(Output::Ping { conn: older, seq: last_seq });
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.suspect = Some(Suspect { member, conn: older, until: now.mono + patience, last_seq });
        }
    }

    /// A socket is alive: those that suspected it to be their own older one are other clients.
    pub(super) fn shows_life(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.is_alive(now);
        for younger in std::mem::take(&mut conn.suspected_by) {
            self.is_another(now, younger);
        }
    }

    fn is_another(&mut self, now: Now, id: ConnId) {
        let Some(suspect) = self.conns.get_mut(&id).and_then(|c| c.suspect.take()) else { return };
        if let Some((_, room, member)) = self.place_of(id) {
            self.give_mail_of(now, &room, suspect.member, member);
        }
        self.relay_deferred(now, id);
        self.arm_conn(id);
    }

    /// The older socket had its time. A browser would have answered, so its socket is dead; a bare
    /// client may only not be reading, so it gets the benefit of the doubt.
    pub(super) fn probe_timeout(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let Some(suspect) = conn.suspect.filter(|s| s.until <= now.mono) else { return };
        if !conn.key.is_strong() {
            if let Some(older) = self.conns.get_mut(&suspect.conn) {
                older.suspected_by.retain(|c| *c != id);
            }
            return self.is_another(now, id);
        }
        self.stats.dead_sockets += 1;
        self.close(now, suspect.conn, close::REPLACED, "a younger socket of this client took over");
        // Closing it has made this one its heir, unless it was no longer there.
        self.is_another(now, id);
    }

    /// A socket is gone: a younger one that suspected it takes over, one that it suspected is free.
    pub(super) fn suspicion_ends_with(&mut self, now: Now, id: ConnId, gone: &Conn) {
        if let Some(older) = gone.suspect.and_then(|s| self.conns.get_mut(&s.conn)) {
            older.suspected_by.retain(|c| *c != id);
        }
        let mut younger = gone.suspected_by.iter().copied();
        let heir = younger.next();
        if let (Some(heir), Some(session)) = (heir, gone.session) {
            self.inherit(now, heir, session);
        }
        let heir = heir.and_then(|h| self.place_of(h)).map(|(_, _, member)| member);
        for other in younger {
            if let (Some(heir), Some(conn)) = (heir, self.conns.get_mut(&other)) {
                conn.suspect = conn.suspect.map(|s| Suspect { member: heir, ..s });
            }
            self.is_another(now, other);
        }
    }

    /// `heir` goes on with what waited for the session of a dead socket, and keeps its own seat.
    fn inherit(&mut self, now: Now, heir: ConnId, dead: SessionId) {
        let Some(suspect) = self.conns.get_mut(&heir).and_then(|c| c.suspect.take()) else { return };
        let Some((session, room_name, member)) = self.place_of(heir) else { return };
        let Some(old) = self.sessions.get(&dead) else { return };
        // What came after the heir's arrival went to the heir as well.
        let missed: Vec<_> = old
            .outbox
            .iter()
            .filter(|f| f.seq <= suspect.last_seq)
            .map(|f| (f.text.clone(), f.about))
            .collect();
        let room = self.rooms.get_mut(&room_name);
        let ready = room.map(|r| r.succeed(suspect.member, member)).unwrap_or_default();
        self.touch_room(&room_name);
        for (reader, candidate) in ready {
            self.pass(now, &room_name, member, reader, &candidate);
        }
        for (text, about) in missed {
            self.deliver(now, session, about, |_, _| Some(text));
        }
        self.end_session(now, dead, "lost");
        self.relay_deferred(now, heir);
        self.arm_conn(heir);
    }
}
