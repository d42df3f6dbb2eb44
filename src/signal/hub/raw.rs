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

use super::conn::Conn;
use super::{Connect, Hub, Now, Output, close};
use crate::signal::dialect::{Dialect, broadcast};
use crate::signal::envelope::{Code, Envelope, Kind, Refusal};
use crate::signal::identity::{ClientKey, Identity};
use crate::signal::room::Member;
use crate::signal::session::Doubt;
use crate::signal::{ConnId, MemberId, SessionId};

impl Hub {
    pub(super) fn raw_connected(&mut self, now: Now, id: ConnId, connect: Connect) {
        if connect.dialect == Dialect::Call && connect.identity.is_none() {
            // Its first frame brings the token.
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.unproven = Some(Box::new(connect));
            }
            return;
        }
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

    /// The token of a call socket's first frame was checked.
    pub(super) fn raw_proven(
        &mut self,
        now: Now,
        id: ConnId,
        mut connect: Connect,
        result: Result<Identity, String>,
    ) {
        let identity = match result {
            Ok(identity) => identity,
            Err(why) => return self.raw_refused(now, id, &Refusal::new(Code::Unauthenticated, why)),
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.said_hello();
            conn.identity = Some(identity.clone());
        }
        connect.key.user = identity.names_a_person().then(|| identity.user.clone());
        connect.identity = Some(identity);
        self.raw_connected(now, id, connect);
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
        let Some(session) = conn.session else { return };
        if envelope.kind == Kind::Candidate && !conn.has_described {
            // Whether it belongs to the older socket's description is known in a moment.
            let doubt = self.sessions.get_mut(&session).and_then(|s| s.doubt.as_mut());
            if let Some(doubt) = doubt.filter(|d| d.deferred.len() < self.limits.mail_candidates) {
                return doubt.deferred.push(envelope);
            }
        }
        let is_description = envelope.kind.is_description();
        conn.has_described |= is_description;
        self.nobody_waits(!is_description);
        if let Err(refusal) = self.relay(now, session, None, &envelope) {
            self.refuse(id, None, &refusal);
        }
        if is_description {
            let doubt = self.sessions.get_mut(&session).and_then(|s| s.doubt.as_mut());
            let deferred = doubt.map(|d| std::mem::take(&mut d.deferred));
            self.relay_deferred(now, session, deferred.unwrap_or_default());
        }
    }

    fn relay_deferred(&mut self, now: Now, session: SessionId, deferred: Vec<Envelope>) {
        for candidate in deferred {
            if let Err(refusal) = self.relay(now, session, None, &candidate)
                && let Some(conn) = self.sessions.get(&session).and_then(|s| s.conn)
            {
                self.refuse(conn, None, &refusal);
            }
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
        let Some((member, conn)) = twin else { return };
        let Some(session) = self.conns.get(&id).and_then(|c| c.session) else { return };
        let patience = if is_strong { self.limits.probe } else { self.limits.doubt };
        let Some(found) = self.sessions.get_mut(&session) else { return };
        // An earlier socket of this seat may have asked already, and its era is the seat's.
        if found.doubt.is_none() {
            self.era += 1;
            let (until, era) = (now.mono + patience, self.era);
            found.doubt = Some(Box::new(Doubt { member, conn, until, era, deferred: Vec::new() }));
        }
        self.ask_for(session);
    }

    /// Asks the socket that a client may be the successor of.
    fn ask_for(&mut self, younger: SessionId) {
        let doubt = self.sessions.get(&younger).and_then(|s| s.doubt.as_ref());
        let Some(older) = doubt.map(|d| d.conn) else { return };
        let Some(conn) = self.conns.get_mut(&older) else { return };
        if !conn.suspected_by.contains(&younger) {
            conn.suspected_by.push(younger);
        }
        let seq = conn.session.and_then(|s| self.sessions.get(&s)).map_or(0, |s| s.outbox.last_seq());
        self.outputs.push_back(Output::Ping { conn: older, seq });
        self.arm_session(younger);
    }

    /// A socket is alive: those that suspected it to be their own older one are other clients.
    pub(super) fn shows_life(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.is_alive(now);
        for younger in std::mem::take(&mut conn.suspected_by) {
            self.is_another(now, younger);
        }
    }

    fn is_another(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(doubt) = session.doubt.take() else { return };
        if let Some((room, member)) = session.place.clone() {
            self.give_mail_of(now, &room, doubt.member, member);
        }
        self.relay_deferred(now, id, doubt.deferred);
        self.arm_session(id);
    }

    /// The older socket had its time. A browser would have answered, so its socket is dead; a bare
    /// client may only not be reading, so it gets the benefit of the doubt.
    pub(super) fn probe_timeout(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(doubt) = session.doubt.as_ref().filter(|d| d.until <= now.mono) else { return };
        let (older, is_strong) = (doubt.conn, session.key.is_strong());
        if is_strong {
            self.stats.dead_sockets += 1;
            self.close(now, older, close::REPLACED, "a younger socket of this client took over");
        } else if let Some(conn) = self.conns.get_mut(&older) {
            conn.suspected_by.retain(|s| *s != id);
        }
        // Closing it has made this one its heir, unless it was no longer there, or another one was first.
        let doubts = self.sessions.get(&id).and_then(|s| s.doubt.as_ref());
        if doubts.is_some_and(|d| d.conn == older) {
            self.is_another(now, id);
        }
    }

    /// A socket is gone: the first that suspected it goes on with what waited for it. The others may be the first
    /// one's own younger sockets, as when a client is cut twice in quick succession.
    pub(super) fn suspicion_ends_with(&mut self, now: Now, id: ConnId, gone: &Conn) {
        let suspects = |s: &&SessionId| {
            self.sessions.get(s).and_then(|s| s.doubt.as_ref()).is_some_and(|d| d.conn == id)
        };
        let younger: Vec<SessionId> = gone.suspected_by.iter().filter(suspects).copied().collect();
        let Some((heir, others)) = younger.split_first() else { return };
        match gone.session {
            Some(dead) => self.inherit(now, *heir, dead),
            None => self.is_another(now, *heir),
        }
        let successor = self.sessions.get(heir).and_then(|s| Some((s.place.as_ref()?.1, s.conn?)));
        for other in others {
            let doubt = self.sessions.get_mut(other).and_then(|s| s.doubt.as_mut());
            match (successor, doubt) {
                (Some((member, conn)), Some(doubt)) => {
                    (doubt.member, doubt.conn) = (member, conn);
                    doubt.until = now.mono + self.limits.probe;
                    self.ask_for(*other);
                }
                _ => self.is_another(now, *other),
            }
        }
    }

    /// `heir` goes on with what waited for the session of a dead socket, and keeps its own seat.
    fn inherit(&mut self, now: Now, heir: SessionId, dead: SessionId) {
        let Some(session) = self.sessions.get_mut(&heir) else { return };
        let Some(doubt) = session.doubt.take() else { return };
        let Some((room_name, member)) = session.place.clone() else { return };
        let Some(old) = self.sessions.get(&dead) else { return };
        // What came after the heir's arrival went to the heir as well.
        let mut missed: Vec<_> = old.outbox.iter().filter(|f| f.era < doubt.era).cloned().collect();
        missed.sort_by_key(|f| f.era);
        let room = self.rooms.get_mut(&room_name);
        let ready = room.map(|r| r.succeed(doubt.member, member)).unwrap_or_default();
        self.touch_room(&room_name);
        for (reader, candidate) in ready {
            self.pass(now, &room_name, member, reader, &candidate);
        }
        let era = self.era;
        for frame in &missed {
            // To the heir's own heir it is as old as it was.
            self.era = frame.era;
            self.deliver(now, heir, frame.about, |_, _| Some(frame.text.clone()));
        }
        // Candidates that waited for a description which only the dead socket had.
        let member_now = self.rooms.get_mut(&room_name).and_then(|r| r.member_mut(member));
        let ready = member_now.map(Member::take_ready).unwrap_or_default();
        self.era = doubt.era;
        for (sender, candidate) in ready {
            let text = candidate.verbatim.as_ref().map(|v| &v.text);
            if !missed.iter().any(|f| text.is_some_and(|text| Arc::ptr_eq(text, &f.text))) {
                self.pass(now, &room_name, sender, member, &candidate);
            }
        }
        self.era = era;
        self.end_session(now, dead, "lost");
        self.relay_deferred(now, heir, doubt.deferred);
        self.arm_session(heir);
    }
}
