//! What a Socket.IO client asks for (seeds 001, 002, 004): connect and recover, rooms, messages. Calls are in
//! `invites`.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::presence::forget_in;
use super::{Hub, Ice, Now, Output, close};
use crate::signal::dialect::socketio::moderate::Measure;
use crate::signal::dialect::socketio::{self, Join, Message, Packet, Request, Vocabulary, rooms};
use crate::signal::dialect::{Dialect, Sender};
use crate::signal::envelope::{Code, Envelope, Kind, Refusal};
use crate::signal::identity::Identity;
use crate::signal::line::Line;
use crate::signal::room::Room;
use crate::signal::{ConnId, MemberId, SessionId};

/// A join whose token is being checked, and the acknowledgement that waits for it.
#[derive(Debug)]
pub(super) struct Pending {
    ack: Option<Box<str>>,
    join: Join,
}

/// What an event is answered with.
type Answer = Result<Value, Refusal>;

impl Hub {
    pub(super) fn socketio_frame(&mut self, now: Now, id: ConnId, text: &str) {
        let packet = match socketio::parse(text, &self.limits) {
            Ok(packet) => packet,
            Err((ack, refusal)) => return self.refuse_with_strike(now, id, ack.as_deref(), &refusal),
        };
        let Some(conn) = self.conns.get(&id) else { return };
        match (conn.session, packet) {
            (None, Packet::Connect(hello)) => self.hello(now, id, hello),
            (None, Packet::Disconnect | Packet::Ack) | (Some(_), Packet::Ack) => {}
            (None, Packet::Event { ack, .. }) => {
                let refusal = Refusal::new(Code::BadFrame, "connect first");
                self.refuse_with_strike(now, id, ack.as_deref(), &refusal);
            }
            (Some(_), Packet::Connect(_)) => {
                let refusal = Refusal::new(Code::BadFrame, "this socket is connected already");
                self.refuse_with_strike(now, id, None, &refusal);
            }
            (Some(session), Packet::Disconnect) => {
                self.end_session(now, session, "left");
                self.close(now, id, close::NORMAL, "bye");
            }
            (Some(session), Packet::Event { ack, request }) => {
                self.socketio_event(now, id, session, ack, request, text);
            }
        }
    }

    /// Answers CONNECT: a new session, or one that is recovered and gets what it missed.
    pub(super) fn socketio_welcome(
        &mut self,
        now: Now,
        id: SessionId,
        conn: ConnId,
        resumed_after: Option<u64>,
        ice: &Ice,
    ) {
        let Some(session) = self.sessions.get(&id) else { return };
        if let Some(seq) = resumed_after {
            let replay: Vec<Arc<str>> =
                session.outbox.iter().filter(|f| f.seq > seq).map(|f| f.text.clone()).collect();
            let pid = self.conns.get_mut(&conn).and_then(|c| c.pid.take()).unwrap_or_default();
            self.send(conn, socketio::connected(&id.to_string(), &pid));
            for text in replay {
                self.send(conn, text);
            }
            return;
        }
        if !session.identity.is_nobody() {
            let user = session.identity.user.clone();
            self.log(Line::Authenticated { user });
        }
        let pid = self.rotate_resume(id);
        self.send(conn, socketio::connected(&id.to_string(), &pid));
        let hello = json!({
            "sid": id.to_string(), "ice_servers": ice.servers, "ice_ttl": ice.ttl.as_secs(),
            "ice_expires_at": ice.expires_at,
        });
        // The first event: from here on the client has an offset to recover from.
        self.emit(now, id, "connected", &hello.to_string());
        self.ring_latecomer(now, id);
    }

    /// Sends an event of the server in the session's order.
    pub(super) fn emit(&mut self, now: Now, session: SessionId, name: &str, payload: &str) {
        self.deliver(now, session, None, |_, seq| Some(socketio::emit(name, payload, seq)));
    }

    fn socketio_event(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionId,
        ack: Option<Box<str>>,
        request: Request,
        text: &str,
    ) {
        if let Some(answer) = self.answer_to_repeated(conn, session, ack.as_deref(), text) {
            self.stats.duplicates += 1;
            return self.send(conn, socketio::acknowledge(ack.as_deref().unwrap_or_default(), &answer));
        }
        if let Request::Join(join) = request {
            return self.socketio_join(now, conn, session, Pending { ack, join });
        }
        self.nobody_waits(ack.is_none() && request.only_passes());
        let answer = self.carry_out(now, session, request);
        self.answer_event(conn, session, ack.as_deref(), text, answer);
    }

    /// With `retries` the stock client sends an event again whose acknowledgement it did not get: one by one, so
    /// that after a cut only the first event of the new socket can be such a one. Where `ackTimeout` is shorter than
    /// the way there and back it does so on the same socket, where the same event may as well be meant twice: that
    /// one is carried out twice.
    fn answer_to_repeated(
        &mut self,
        conn: ConnId,
        session: SessionId,
        ack: Option<&str>,
        text: &str,
    ) -> Option<Value> {
        let is_first = self.conns.get_mut(&conn).is_some_and(|c| !std::mem::replace(&mut c.has_asked, true));
        let (event, answer) = self.sessions.get(&session)?.answered_event.as_ref()?;
        let is_repeated = is_first && ack.is_some() && **event == *without_ack(text);
        is_repeated.then(|| answer.clone())
    }

    fn answer_event(
        &mut self,
        conn: ConnId,
        session: SessionId,
        ack: Option<&str>,
        text: &str,
        answer: Answer,
    ) {
        match (answer, ack) {
            (Err(refusal), ack) => self.refuse(conn, ack, &refusal),
            (Ok(_), None) => {}
            (Ok(answer), Some(ack)) => {
                self.send(conn, socketio::acknowledge(ack, &answer));
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.answered_event = Some((without_ack(text).into(), answer));
                }
            }
        }
    }

    fn carry_out(&mut self, now: Now, session: SessionId, request: Request) -> Answer {
        match request {
            Request::Join(_) => Err(Refusal::new(Code::BadFrame, "a join is handled apart")),
            Request::Leave => {
                self.leave_room(now, session);
                Ok(json!({ "ok": true }))
            }
            Request::Relay(message) => self.socketio_relay(now, session, &message),
            Request::JoinChat(room) => self.join_chat(now, session, &room),
            Request::Chat(message) => self.socketio_chat(now, session, &message),
            Request::Identify(role) => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.declared_role = Some(role.into());
                }
                self.log(Line::Connected { role, session });
                Ok(json!({ "ok": true, "role": role }))
            }
            Request::Invite { callee, payload } => self.invite(now, session, callee, payload),
            Request::Call { verb, id } => self.act_on_call(now, session, verb, id),
            Request::Moderate { measure, to } => {
                let done = match measure {
                    Measure::Kick => self.kick(now, session, &to),
                    Measure::Mute(track) => self.mute(now, session, &to, track),
                };
                done.map(|()| json!({ "ok": true }))
            }
        }
    }

    // Rooms.

    fn socketio_join(&mut self, now: Now, conn: ConnId, session: SessionId, pending: Pending) {
        if let Err(wait) = self.take_join(now, conn) {
            let refusal = Refusal::later(Code::RateLimited, super::retry("too many joins", wait), wait);
            return self.refuse(conn, pending.ack.as_deref(), &refusal);
        }
        let Some(socket) = self.conns.get_mut(&conn) else { return };
        if let Some(token) = pending.join.token.clone() {
            // Tokens of consultations are the hub's own.
            if let Some(attendee) = self.consultations.admits(&pending.join.room, &token, now.unix) {
                return self.join_checked(now, conn, &pending, Ok(attendee));
            }
            socket.joining = Some(Box::new(pending));
            return self.outputs.push_back(Output::Authenticate { conn, token });
        }
        self.finish_join(now, conn, session, &pending);
    }

    /// The token of a join was checked.
    pub(super) fn join_checked(
        &mut self,
        now: Now,
        conn: ConnId,
        pending: &Pending,
        result: Result<Identity, String>,
    ) {
        let Some(session) = self.conns.get(&conn).and_then(|c| c.session) else { return };
        let Some(found) = self.sessions.get(&session) else { return };
        let refusal = match result {
            Err(why) => Refusal::new(Code::Unauthenticated, why),
            Ok(new) if found.identity.names_a_person() && new.user != found.identity.user => {
                Refusal::new(Code::Forbidden, "the token is another user's than the socket's")
            }
            Ok(new) => match self.spend(now, &new) {
                Ok(()) => {
                    self.set_identity(now, session, &new);
                    return self.finish_join(now, conn, session, pending);
                }
                Err(refusal) => refusal,
            },
        };
        self.log(Line::NotAuthenticated);
        self.refuse(conn, pending.ack.as_deref(), &refusal);
    }

    fn finish_join(&mut self, now: Now, conn: ConnId, session: SessionId, pending: &Pending) {
        let Pending { ack, join } = pending;
        match self.enter_by_event(now, session, join) {
            Err(refusal) => self.refuse(conn, ack.as_deref(), &refusal),
            Ok(None) => {}
            Ok(Some(place)) => self.joined_by_event(now, conn, session, pending, &place),
        }
    }

    fn enter_by_event(
        &mut self,
        now: Now,
        session: SessionId,
        join: &Join,
    ) -> Result<Option<(Arc<str>, MemberId)>, Refusal> {
        let Some(found) = self.sessions.get_mut(&session) else { return Ok(None) };
        if found.identity.is_nobody() {
            return Err(Refusal::new(
                Code::Unauthenticated,
                "a token is needed: auth.token, or token in the join",
            ));
        }
        let fields = [Some(&join.room), join.user.as_ref(), join.role.as_ref()];
        if fields.into_iter().flatten().any(|f| f.len() > self.limits.name) {
            let message = format!("room, user and role have at most {} bytes", self.limits.name);
            return Err(Refusal::new(Code::BadFrame, message));
        }
        if found.identity.names_a_person()
            && join.user.as_ref().is_some_and(|user| **user != *found.identity.user)
        {
            return Err(Refusal::new(Code::Forbidden, "user_id is not the token's user"));
        }
        found.dialect = Dialect::SocketIo(join.vocabulary);
        let role = join.role.clone().or(found.declared_role.as_deref().map(str::to_owned));
        if let Some((room, member)) = found.place.clone().filter(|(room, _)| **room == join.room) {
            return Ok(Some((room, member)));
        }
        self.leave_room(now, session);
        self.end_ghosts(now, session, &join.room);
        self.enter(now, session, &join.room, join.user.clone(), role).map(Some)
    }

    fn joined_by_event(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionId,
        Pending { ack, join }: &Pending,
        (room_name, member): &(Arc<str>, MemberId),
    ) {
        let Some(room) = self.rooms.get(room_name) else { return };
        let joined = joined(room, *member, join.vocabulary);
        // The other vocabularies have them in the answer.
        let others: Vec<(Sender, Option<Box<RawValue>>)> = room
            .members
            .iter()
            .filter(|m| join.vocabulary == Vocabulary::Rooms && m.id != *member)
            .map(|m| (Sender::new(room_name, m), m.media.clone()))
            .collect();
        if let Some(ack) = ack {
            let mut answer = joined.clone();
            answer["ok"] = json!(true);
            self.send(conn, socketio::acknowledge(ack, &answer));
        }
        self.log(Line::Joined { room: room_name.clone() });
        let name = match join.vocabulary {
            Vocabulary::Rooms => "joined_room",
            Vocabulary::Webrtc => "webrtc:joined_room",
            Vocabulary::WebrtcOld => "joined_consultation_room",
            Vocabulary::Invite => "call.joined",
        };
        self.emit(now, session, name, &joined.to_string());
        for (other, media) in &others {
            self.emit(now, session, "user_joined", &user_joined(other));
            let media = media.as_deref().map_or("null", RawValue::get);
            for (track, enabled) in rooms::tracks(media) {
                let (name, payload) = rooms::toggled(other.shown(), track, enabled);
                self.emit(now, session, name, &payload);
            }
        }
        self.give_mail(now, room_name, *member, None);
    }

    /// Tells a Socket.IO member of another one's coming or going, in its own words.
    pub(super) fn announce_by_event(
        &mut self,
        now: Now,
        session: SessionId,
        vocabulary: Vocabulary,
        about: &Sender,
        has_left: bool,
    ) {
        let user = crate::signal::json::text(&about.shown());
        let peer = crate::signal::json::text(&about.peer_id());
        let (name, payload) = match (vocabulary, has_left) {
            (Vocabulary::Rooms, false) => ("user_joined", user_joined(about)),
            (Vocabulary::Rooms, true) => ("user_left", format!(r#"{{"user_id":{user},"peer_id":{peer}}}"#)),
            (Vocabulary::Webrtc | Vocabulary::WebrtcOld, false) => ("webrtc:user_joined", user_joined(about)),
            (Vocabulary::Webrtc | Vocabulary::WebrtcOld, true) => {
                ("webrtc:user_left", format!(r#"{{"user_id":{user},"peer_id":{peer}}}"#))
            }
            // What happens to a call is told by the call's events.
            (Vocabulary::Invite, _) => return,
        };
        self.emit(now, session, name, &payload);
    }

    // Messages.

    fn socketio_relay(&mut self, now: Now, session: SessionId, message: &Message) -> Answer {
        let Some((room, _)) = self.sessions.get(&session).and_then(|s| s.place.clone()) else {
            return Err(Refusal::new(Code::NotJoined, "join a room first"));
        };
        if message.room.as_ref().is_some_and(|named| **named != *room) {
            return Err(Refusal::new(Code::NotJoined, format!("this socket is in {room}")));
        }
        if message.envelope.kind == Kind::Answer {
            self.answered_call(now, session, &room);
        }
        let to = message.to.as_ref().and_then(|to| self.member_by_peer_id(&room, session, to));
        let kind = Some(message.envelope.kind).filter(|kind| kind.is_description());
        if let (Some(kind), Some(found)) = (kind, self.sessions.get(&session)) {
            let user = found.identity.user.clone();
            self.log(Line::Sending { kind, user, room: room.clone() });
        }
        let delivery = self.relay(now, session, to, &message.envelope)?;
        if let Some(kind) = kind {
            self.log(Line::Forwarded { kind, room });
        }
        Ok(json!({ "ok": true, "delivered": delivery.delivered, "held": delivery.held }))
    }

    /// The other member a client means: by peer id, member id or user. Nobody: in a message that stands for the
    /// others in the room, as the one who joins second cannot know the first one's.
    pub(super) fn member_by_peer_id(
        &self,
        room: &Arc<str>,
        session: SessionId,
        name: &str,
    ) -> Option<MemberId> {
        let found = self.rooms.get(room)?;
        let others = || found.members.iter().filter(|m| m.session != session);
        let exact = others().find(|m| {
            let is_peer = m.peer.as_deref() == Some(name);
            is_peer || Sender::new(room, m).peer_id() == name || m.id.to_string() == name
        });
        exact.or_else(|| others().find(|m| *m.user == *name && !m.is_guest)).map(|m| m.id)
    }

    fn join_chat(&mut self, now: Now, session: SessionId, room: &str) -> Answer {
        let Some(found) = self.sessions.get(&session) else { return Ok(Value::Null) };
        if found.identity.is_nobody() || !found.identity.rooms.contains(room) || !found.identity.grants.chat {
            return Err(Refusal::new(Code::Forbidden, "the token is not for the chat of this room"));
        }
        self.may_enter(now, room, found.dialect, &found.identity)?;
        let Some(found) = self.sessions.get_mut(&session) else { return Ok(Value::Null) };
        if room.len() > self.limits.name || found.chats.len() >= self.limits.chats {
            let message = format!("a socket listens to at most {} chats", self.limits.chats);
            return Err(Refusal::new(Code::TooLarge, message));
        }
        if found.place.is_none() && found.chats.is_empty() {
            found.dialect = Dialect::SocketIo(Vocabulary::Webrtc);
        }
        if !found.chats.iter().any(|chat| **chat == *room) {
            found.chats.push(room.into());
            self.chats.entry(room.into()).or_default().push(session);
        }
        Ok(json!({ "ok": true, "roomId": room }))
    }

    /// Somebody listens to the chat of a room no longer.
    pub(super) fn leave_chat(&mut self, session: SessionId, room: &str) {
        let Some(found) = self.sessions.get_mut(&session) else { return };
        let Some(at) = found.chats.iter().position(|chat| **chat == *room) else { return };
        let chat = found.chats.swap_remove(at);
        forget_in(&mut self.chats, &chat, session);
        self.touch_session(session);
    }

    /// A line for all who listen to the chat of the room, and, if a member says it, for the members of the room.
    fn socketio_chat(&mut self, now: Now, session: SessionId, message: &Message) -> Answer {
        let Some(found) = self.sessions.get(&session) else { return Ok(Value::Null) };
        let place = found.place.clone();
        let room: Arc<str> = match (&message.room, &place) {
            (Some(room), _) => room.as_str().into(),
            (None, Some((room, _))) => room.clone(),
            (None, None) => return Err(Refusal::new(Code::NotJoined, "join a room first")),
        };
        let is_member = place.as_ref().is_some_and(|(inside, _)| *inside == room);
        if !is_member && !found.chats.contains(&room) {
            return Err(Refusal::new(Code::NotJoined, "join the room or its chat first"));
        }
        if !found.identity.grants.chat {
            return Err(Refusal::new(Code::Forbidden, "the token does not grant chat"));
        }
        let (user, guest) = (found.identity.user.clone(), found.identity.is_guest);
        let mut delivered = 0;
        if is_member {
            delivered += self.relay(now, session, None, &message.envelope)?.delivered;
        }
        let in_room = |s: &SessionId| {
            is_member
                && self.sessions.get(s).is_some_and(|s| s.place.as_ref().is_some_and(|(r, _)| *r == room))
        };
        let listeners: Vec<SessionId> = self.chats.get(&room).into_iter().flatten().copied().collect();
        let listeners: Vec<SessionId> =
            listeners.into_iter().filter(|s| *s != session && !in_room(s)).collect();
        let sender = Sender::outside(&room, user, guest);
        for listener in listeners {
            self.deliver(now, listener, None, |dialect, seq| dialect.render(&sender, seq, &message.envelope));
            delivered += 1;
        }
        Ok(json!({ "ok": true, "delivered": delivered }))
    }

    /// Splits what a vocabulary can only say piece by piece.
    pub(super) fn in_pieces(dialect: Dialect, envelope: &Envelope) -> Vec<Envelope> {
        let payload = envelope.payload.as_deref().map_or("null", RawValue::get);
        if envelope.kind != Kind::Media || dialect != Dialect::SocketIo(Vocabulary::Rooms) {
            return Vec::new();
        }
        let piece = |(track, on)| Envelope {
            payload: Some(crate::signal::json::raw(format!(r#"{{"{track}":{on}}}"#))),
            verbatim: None,
            ..envelope.clone()
        };
        rooms::tracks(payload).map(piece).collect()
    }
}

/// The event without its acknowledgement's id, which differs from try to try.
fn without_ack(text: &str) -> &str {
    text[1..].trim_start_matches(|c: char| c.is_ascii_digit())
}

fn joined(room: &Room, member: MemberId, vocabulary: Vocabulary) -> Value {
    let senders = || room.members.iter().map(|m| Sender::new(&room.name, m));
    let me = senders().find(|s| s.member == member);
    let card = |s: Sender| json!({ "user_id": s.shown(), "peer_id": s.peer_id(), "role": s.role() });
    let others: Vec<Value> = senders().filter(|s| s.member != member).map(card).collect();
    let (peer, role) = me.map_or((Value::Null, Value::Null), |s| (json!(s.peer_id()), json!(s.role())));
    match vocabulary {
        Vocabulary::Rooms => json!({
            "room_id": &*room.name, "peer_id": peer, "role": role,
            "participants_count": room.members.len(), "participants": others,
        }),
        Vocabulary::Webrtc | Vocabulary::WebrtcOld | Vocabulary::Invite => json!({
            "roomId": &*room.name, "peerId": peer, "role": role, "participants": others,
        }),
    }
}

fn user_joined(who: &Sender) -> String {
    json!({ "user_id": who.shown(), "peer_id": who.peer_id(), "role": who.role() }).to_string()
}
