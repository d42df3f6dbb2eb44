//! What a native client asks for: hello and resume, rooms, messages, ICE servers.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use serde_json::json;

use super::{AskedIce, Hub, Ice, Now, Output, close};
use crate::signal::dialect::native::{self, Frame, Hello, Join, Request};
use crate::signal::dialect::{Dialect, socketio};
use crate::signal::envelope::{Code, Envelope, Refusal};
use crate::signal::identity::Identity;
use crate::signal::line::Line;
use crate::signal::session::split_resume;
use crate::signal::{ConnId, MemberId, SessionId};

/// What this server can do beyond the first version of the protocol.
const FEATURES: [&str; 4] = ["resume", "mailbox", "polite", "ice-push"];

impl Hub {
    pub(super) fn native_frame(&mut self, now: Now, id: ConnId, text: &str) {
        let frame = match native::parse(text, &self.limits) {
            Ok(frame) => frame,
            Err((reference, refusal)) => {
                return self.refuse_with_strike(now, id, reference.as_deref(), &refusal);
            }
        };
        let Some(conn) = self.conns.get(&id) else { return };
        match (conn.session, frame.request) {
            (None, Request::Hello(hello)) => self.hello(now, id, hello),
            (None, _) => self.refuse_with_strike(
                now,
                id,
                frame.id.as_deref(),
                &Refusal::new(Code::BadFrame, "the first frame is hello"),
            ),
            (Some(session), request) => {
                self.acknowledge(session, frame.ack);
                self.request(now, id, session, Frame { request, ..frame });
            }
        }
    }

    fn acknowledge(&mut self, session: SessionId, ack: Option<u64>) {
        if let (Some(ack), Some(session)) = (ack, self.sessions.get_mut(&session)) {
            session.outbox.confirm(ack);
            session.resume.confirmed();
        }
    }

    pub(super) fn hello(&mut self, now: Now, id: ConnId, hello: Hello) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.greeting.is_some() {
            return;
        }
        if let Some(token) = hello.token.clone() {
            conn.greeting = Some(hello);
            self.outputs.push_back(Output::Authenticate { conn: id, token });
            return;
        }
        let identity = conn.identity.clone();
        self.greet(now, id, &hello, identity);
    }

    /// The token of a hello was checked.
    pub fn handle_identity(&mut self, now: Now, id: ConnId, result: Result<Identity, String>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(pending) = conn.joining.take() {
            self.join_checked(now, id, &pending, result);
            return self.touch_conn(id);
        }
        if let Some(connect) = conn.unproven.take() {
            self.raw_proven(now, id, *connect, result);
            self.touch_conn(id);
            return self.arm_conn(id);
        }
        let Some(hello) = conn.greeting.take() else {
            self.renew(now, id, result);
            return self.touch_conn(id);
        };
        match result {
            Ok(identity) => self.greet(now, id, &hello, Some(identity)),
            Err(why) => {
                if self.conns.get(&id).is_some_and(|c| matches!(c.dialect, Dialect::SocketIo(_))) {
                    self.log(Line::NotAuthenticated);
                }
                self.refuse(id, None, &Refusal::new(Code::Unauthenticated, why.clone()));
                self.close(now, id, close::UNAUTHENTICATED, &why);
            }
        }
        self.arm_conn(id);
    }

    /// The token of a session that goes on was checked: one of the same user takes the place of the old.
    fn renew(&mut self, now: Now, id: ConnId, result: Result<Identity, String>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (dialect, reference, session) = (conn.dialect, conn.renewal.take(), conn.session);
        let Some(session) = session.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else { return };
        let (session_id, session) = session;
        let room = session.place.as_ref().map(|(room, _)| room.clone());
        let refusal = match result {
            Ok(new) if new.user != session.identity.user => {
                Refusal::new(Code::Forbidden, "the token is another user's")
            }
            Ok(new) if room.is_some_and(|room| !new.rooms.contains(&room)) => {
                Refusal::new(Code::Forbidden, "the token is for another room")
            }
            Ok(new) if new.ticket.is_some() => {
                Refusal::new(Code::Forbidden, "a ticket opens a session, it does not prolong one")
            }
            Ok(new) => {
                self.set_identity(now, session_id, &new);
                let text = match dialect {
                    Dialect::Native => native::reply("ok", reference.as_deref(), &json!({})),
                    Dialect::Call | Dialect::Broadcast | Dialect::PeerJs | Dialect::SocketIo(_) => {
                        r#"{"type":"token_refreshed"}"#.into()
                    }
                };
                return self.send(id, text);
            }
            Err(why) => Refusal::new(Code::Unauthenticated, why),
        };
        self.refuse(id, reference.as_deref(), &refusal);
    }

    fn greet(&mut self, now: Now, id: ConnId, hello: &Hello, identity: Option<Identity>) {
        if let Some(resume) = &hello.resume {
            match self.resume(now, id, resume, hello.last_seq.unwrap_or(0), identity.as_ref()) {
                Resumed::Yes => return,
                Resumed::Closed => return,
                Resumed::No => self.stats.resume_failed += 1,
            }
        }
        let is_socketio = self.conns.get(&id).is_some_and(|c| matches!(c.dialect, Dialect::SocketIo(_)));
        // Seed 004 shows its token when it joins.
        let Some(identity) = identity.or_else(|| is_socketio.then(Identity::nobody)) else {
            let why = "a token is needed: ?token=, Authorization: Bearer, or hello.token";
            self.refuse(id, None, &Refusal::new(Code::Unauthenticated, why));
            return self.close(now, id, close::UNAUTHENTICATED, why);
        };
        let Some(key) = self.conns.get(&id).map(|c| c.key.clone()) else { return };
        match self.open_session(now, id, identity, key, false) {
            Ok(session) => self.ask_ice(session, AskedIce::Welcome(None)),
            Err(refusal) => {
                let code = match refusal.code {
                    Code::Unauthenticated => close::UNAUTHENTICATED,
                    _ => close::FULL,
                };
                self.refuse(id, None, &refusal);
                self.close(now, id, code, &refusal.message);
            }
        }
    }

    /// Puts a session on this socket if the secret is right and nothing it missed is gone.
    fn resume(
        &mut self,
        now: Now,
        id: ConnId,
        resume: &str,
        last_seq: u64,
        identity: Option<&Identity>,
    ) -> Resumed {
        let Some(ip) = self.conns.get(&id).map(|c| c.ip) else { return Resumed::Closed };
        let per_minute = self.limits.resumes_per_minute;
        if let Err(wait) = self.resumes.check(now.mono, ip, per_minute) {
            let reason = super::retry("too many failed resumes", wait);
            self.close(now, id, close::RATE, &reason);
            return Resumed::Closed;
        }
        let found = split_resume(resume);
        // A hello that was long under way, of a socket whose client has gone on with a younger one.
        if found.is_some_and(|(session, _)| {
            self.sessions.get(&session).is_some_and(|s| s.conn.is_some_and(|younger| younger > id))
        }) {
            self.close(now, id, close::GONE, "a younger socket of this session took over");
            return Resumed::Closed;
        }
        let found = found.filter(|(session, secret)| {
            self.sessions.get_mut(session).is_some_and(|s| s.resume.accept(secret))
        });
        let Some((session, _)) = found else {
            // Only wrong secrets count; that a window is over is nobody's fault, but looks the same.
            let _ = self.resumes.take(now.mono, ip, per_minute);
            return Resumed::No;
        };
        let Some(known) = self.sessions.get(&session) else { return Resumed::No };
        let room = known.place.as_ref().map(|(room, _)| room);
        if identity.filter(|i| !i.is_guest).is_some_and(|fresh| {
            fresh.user != known.identity.user || room.is_some_and(|room| !fresh.rooms.contains(room))
        }) {
            return Resumed::No;
        }
        if !known.outbox.can_replay_from(last_seq) {
            self.end_session_and_socket(now, session);
            return Resumed::No;
        }
        // A ticket has opened this session, or opens another one.
        if let Some(fresh) = identity.filter(|i| !i.is_guest && i.ticket.is_none()) {
            self.set_identity(now, session, fresh);
        }
        let Some(known) = self.sessions.get_mut(&session) else { return Resumed::No };
        if known.expires_at.is_some_and(|at| at <= now.mono) {
            self.close(now, id, close::UNAUTHENTICATED, "the token has expired, come back with a new one");
            return Resumed::Closed;
        }
        known.outbox.confirm(last_seq);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.pid = Some(resume.into());
        }
        self.attach(now, session, id);
        self.ask_ice(session, AskedIce::Welcome(Some(last_seq)));
        Resumed::Yes
    }

    fn end_session_and_socket(&mut self, now: Now, session: SessionId) {
        let conn = self.sessions.get(&session).and_then(|s| s.conn);
        self.end_session(now, session, "lost");
        if let Some(conn) = conn {
            self.close(now, conn, close::REPLACED, "another socket of this session took over");
        }
    }

    /// ICE servers for a session, as [`Output::NeedIce`] asked.
    pub fn handle_ice(&mut self, now: Now, id: SessionId, asked: AskedIce, ice: &Ice) {
        self.touch_session(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        self.stats.credentials += u64::from(session.identity.may_relay);
        session.ice_at = Some(now.mono + ice.ttl / 2);
        if session.identity.may_relay {
            // Those it was given before may end later.
            session.leased_until = session.leased_until.max(ice.expires_at);
        }
        let conn = session.conn;
        self.note_credentials(now, id);
        let (Some(conn), Some(session)) = (conn, self.sessions.get_mut(&id)) else { return };
        let servers =
            json!({ "ice_servers": ice.servers, "ttl": ice.ttl.as_secs(), "expires_at": ice.expires_at });
        let dialect = session.dialect;
        match asked {
            AskedIce::Welcome(resumed_after) if matches!(dialect, Dialect::SocketIo(_)) => {
                self.socketio_welcome(now, id, conn, resumed_after, ice);
            }
            AskedIce::Push if matches!(dialect, Dialect::SocketIo(_)) => {
                self.deliver(now, id, None, |_, seq| {
                    Some(socketio::emit("ice_servers", &servers.to_string(), seq))
                });
            }
            AskedIce::Push => self.send(conn, native::reply("ice", None, &servers)),
            AskedIce::Reply(reference) => {
                self.send(conn, native::reply("ice", reference.as_deref(), &servers))
            }
            AskedIce::Welcome(resumed_after) => self.welcome(now, id, conn, resumed_after, ice),
        }
        self.arm_session(id);
    }

    /// A new resume secret for a session.
    pub(super) fn rotate_resume(&mut self, id: SessionId) -> String {
        let mut secret = [0; 32];
        self.rng.fill_bytes(&mut secret);
        self.touch_session(id);
        self.sessions.get_mut(&id).map(|session| session.resume.rotate(id, secret)).unwrap_or_default()
    }

    fn welcome(&mut self, now: Now, id: SessionId, conn: ConnId, resumed_after: Option<u64>, ice: &Ice) {
        let resume = self.rotate_resume(id);
        let Some(session) = self.sessions.get(&id) else { return };
        let replay: Vec<Arc<str>> = match resumed_after {
            None => Vec::new(),
            Some(seq) => session.outbox.iter().filter(|f| f.seq > seq).map(|f| f.text.clone()).collect(),
        };
        let l = &self.limits;
        let welcome = json!({
            "session": id.to_string(),
            "user": &*session.identity.user,
            "resume": resume,
            "resume_window": l.resume_window.as_secs(),
            "ping": l.ping.as_secs(),
            "limits": {
                "frame": l.frame, "sdp": l.sdp, "candidate": l.candidate, "chat": l.chat, "depth": l.depth,
                "rate": l.frame_rate, "burst": l.frame_burst, "members": l.members,
            },
            "server_time": now.unix,
            "features": FEATURES,
            "ice_servers": ice.servers,
            "ice_ttl": ice.ttl.as_secs(),
            "ice_expires_at": ice.expires_at,
            "resumed": resumed_after.is_some(),
            "replayed": replay.len(),
        });
        self.send(conn, native::reply("welcome", None, &welcome));
        for text in replay {
            self.send(conn, text);
        }
    }

    fn request(&mut self, now: Now, conn: ConnId, session: SessionId, frame: Frame) {
        let reference = frame.id.as_deref();
        match frame.request {
            Request::Hello(_) => {
                let refusal = Refusal::new(Code::BadFrame, "hello was said already");
                self.refuse_with_strike(now, conn, reference, &refusal);
            }
            Request::Join(join) => self.join(now, conn, session, reference, join),
            Request::Leave => {
                self.send(conn, native::reply("left", reference, &json!({})));
                self.leave_room(now, session);
            }
            Request::Relay { to, envelope } => {
                self.relay_once(now, conn, session, reference, to.as_deref(), &envelope);
            }
            Request::Kick { to } => {
                let result = self.kick(now, session, &to);
                self.answer_moderator(conn, reference, result);
            }
            Request::Mute { to, track } => {
                let result = self.mute(now, session, &to, track);
                self.answer_moderator(conn, reference, result);
            }
            Request::Token(token) => {
                if let Err(wait) = self.take_join(now, conn) {
                    return self.refuse(conn, reference, &too_many_tokens(wait));
                }
                if let Some(socket) = self.conns.get_mut(&conn) {
                    socket.renewal = frame.id;
                }
                self.outputs.push_back(Output::Authenticate { conn, token });
            }
            Request::Ice => self.ask_ice(session, AskedIce::Reply(frame.id)),
            Request::Ping => self.send(conn, native::reply("pong", reference, &json!({}))),
            Request::Pong | Request::Ack => {}
            Request::Bye => {
                self.end_session(now, session, "left");
                self.close(now, conn, close::NORMAL, "bye");
            }
        }
    }

    fn join(&mut self, now: Now, conn: ConnId, session: SessionId, reference: Option<&str>, join: Join) {
        if let Err(wait) = self.take_join(now, conn) {
            let refusal = Refusal::later(Code::RateLimited, super::retry("too many joins", wait), wait);
            return self.refuse(conn, reference, &refusal);
        }
        let place = self.sessions.get(&session).and_then(|s| s.place.clone());
        let is_there = place.filter(|(room, _)| **room == join.room);
        let entered = match is_there {
            // A join is repeated when its answer was lost.
            Some(place) => Ok((place, false)),
            None => {
                self.leave_room(now, session);
                self.end_ghosts(now, session, &join.room);
                self.enter(now, session, &join.room, join.name, join.role).map(|place| (place, true))
            }
        };
        match entered {
            Err(refusal) => self.refuse(conn, reference, &refusal),
            Ok(((room, member), is_new)) => {
                if let Some(roster) = self.roster(&room, member) {
                    self.send(conn, native::reply("joined", reference, &roster));
                }
                if is_new {
                    self.give_mail(now, &room, member, None);
                }
            }
        }
    }

    pub(super) fn take_join(&mut self, now: Now, conn: ConnId) -> Result<(), Duration> {
        let per_minute = self.limits.joins_per_minute;
        let Some(conn) = self.conns.get_mut(&conn) else { return Ok(()) };
        conn.joins.take(now.mono, f64::from(per_minute) / 60.0, per_minute)
    }

    /// A user who comes back without resuming, by a reload for instance, leaves no ghost behind: an
    /// absent member of the same user goes, one with a socket is asked whether it lives.
    pub(super) fn end_ghosts(&mut self, now: Now, session: SessionId, room: &str) {
        let Some(me) = self.sessions.get(&session).map(|s| s.identity.clone()) else { return };
        let Some(room) = self.rooms.get(room).filter(|_| me.names_a_person()) else { return };
        let same = room.members.iter().filter(|m| !m.is_guest && m.user == me.user && m.session != session);
        let (away, present): (Vec<_>, Vec<_>) =
            same.map(|m| (m.session, m.is_away)).partition(|(_, away)| *away);
        for (ghost, _) in away {
            self.end_session(now, ghost, "lost");
        }
        for (twin, _) in present {
            let Some(conn) =
                self.sessions.get(&twin).filter(|s| s.dialect == Dialect::Native).and_then(|s| s.conn)
            else {
                continue;
            };
            if let Some(socket) = self.conns.get_mut(&conn) {
                socket.must_answer_by(now.mono + self.limits.probe);
            }
            self.outputs.push_back(Output::Ping { conn, seq: 0 });
            self.arm_conn(conn);
        }
    }

    fn answer_moderator(&mut self, conn: ConnId, reference: Option<&str>, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.send(conn, native::reply("ok", reference, &json!({}))),
            Err(refusal) => self.refuse(conn, reference, &refusal),
        }
    }

    /// Relays a message; one whose id was answered already is only answered again.
    fn relay_once(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionId,
        reference: Option<&str>,
        to: Option<&str>,
        envelope: &Envelope,
    ) {
        if let Some(answer) = reference.and_then(|id| self.sessions.get(&session)?.answered.find(id)) {
            self.stats.duplicates += 1;
            return self.send(conn, answer);
        }
        let to = match to.map(MemberId::parse) {
            None => Ok(None),
            Some(Some(member)) => Ok(Some(member)),
            Some(None) => Err(Refusal::new(Code::NoSuchMember, "the room has no such member")),
        };
        match to.and_then(|to| self.relay(now, session, to, envelope)) {
            Err(refusal) => self.refuse(conn, reference, &refusal),
            Ok(delivery) => {
                let Some(id) = reference else { return };
                let data = json!({ "delivered": delivery.delivered, "held": delivery.held });
                let answer = native::reply("ok", Some(id), &data);
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.answered.remember(id, answer.clone(), self.limits.message_ids);
                }
                self.send(conn, answer);
            }
        }
    }
}

/// A token takes longer to check than a message to relay.
pub(super) fn too_many_tokens(wait: Duration) -> Refusal {
    Refusal::later(Code::RateLimited, super::retry("too many tokens", wait), wait)
}

/// What became of a wish to resume.
enum Resumed {
    Yes,
    No,
    /// The socket was closed.
    Closed,
}
