//! Calls between users: what REST asks for, who hears of it, and what the sockets of a call's room
//! say about it (seed 003).

use std::sync::Arc;

use serde_json::value::RawValue;

use super::native::too_many_tokens;
use super::timeline::state;
use super::{Hub, Now, Output, Timer, close};
use crate::signal::call::{Call, CallAction, CallStatus, Step};
use crate::signal::dialect::socketio::{self, invite};
use crate::signal::dialect::{Dialect, call, native};
use crate::signal::envelope::{Code, Envelope, Kind, Refusal};
use crate::signal::identity::Identity;
use crate::signal::journal::Record;
use crate::signal::{ConnId, SessionId};

impl Hub {
    /// Carries out what somebody wants of a call and says how it stands now; several calls only
    /// where several were asked for.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn handle_call(
        &mut self,
        now: Now,
        who: &Identity,
        action: CallAction,
    ) -> Result<Vec<Call>, Refusal> {
        if !who.names_a_person() {
            return Err(Refusal::new(
                Code::Forbidden,
                "a call is between users: come with a token of your own",
            ));
        }
        let memory = now.mono + self.limits.call_memory;
        let step = match action {
            CallAction::Active => return Ok(self.calls.live_of(&who.user)),
            CallAction::View(id) => {
                let call = if who.is_admin() { self.calls.get(&id) } else { None };
                return match call {
                    Some(call) => Ok(vec![call.clone()]),
                    None => self.calls.of_party(&id, &who.user).map(|call| vec![call.clone()]),
                };
            }
            CallAction::Overview if who.is_admin() => return Ok(self.calls.live()),
            CallAction::Overview => {
                return Err(Refusal::new(Code::Forbidden, "the overview needs the role admin"));
            }
            CallAction::Initiate { callee, media } => {
                let call = self.new_call(now, who, callee, media);
                let step = self.calls.initiate(call, now.mono, &self.limits)?;
                self.stats.calls_made += 1;
                step
            }
            CallAction::Accept(id) => {
                self.calls.accept(&id, &who.user, now.unix, now.mono + self.limits.resume_window)?
            }
            CallAction::Reject(id) => self.calls.reject(&id, &who.user, now.unix, memory)?,
            CallAction::End(id) => self.calls.end(&id, &who.user, now.unix, memory)?,
        };
        let call = step.call.clone();
        self.call_changed(now, &step);
        Ok(vec![call])
    }

    fn new_call(&mut self, now: Now, who: &Identity, callee: Arc<str>, media: Option<Box<RawValue>>) -> Call {
        Call {
            id: format!("call_{:016x}", self.fresh_id()).into(),
            status: CallStatus::Pending,
            caller: who.user.clone(),
            callee,
            media,
            created_at: now.unix,
            updated_at: now.unix,
            accepted_at: None,
            ended_at: None,
            connection_state: "new".into(),
            ice_candidates_count: 0,
        }
    }

    /// Tells both parties, on all their connections; a call that is over closes its sockets.
    fn call_changed(&mut self, now: Now, step: &Step) {
        self.arm_call(&step.call.id);
        if !step.is_new {
            return;
        }
        let call = &step.call;
        self.touch_call(&call.id);
        self.note_call(now, call);
        self.record(|| Record::Call(Box::new(call.clone())));
        for user in [&call.caller, &call.callee] {
            for session in self.users.get(user).cloned().unwrap_or_default() {
                self.tell_of_call(now, session, call);
                if call.status == CallStatus::Pending {
                    self.ring(now, session, call);
                }
            }
        }
        if call.status.is_over() {
            self.revoke_call(now, &call.id, [&call.caller, &call.callee]);
            self.close_call_sockets(now, call);
        }
    }

    pub(super) fn tell_of_call(&mut self, now: Now, session: SessionId, call: &Call) {
        let is_inside =
            |place: &Option<(Arc<str>, _)>| place.as_ref().is_some_and(|(room, _)| *room == call.id);
        let Some(found) = self.sessions.get(&session) else { return };
        let (is_inside, user) = (is_inside(&found.place), found.identity.user.clone());
        self.deliver(now, session, None, |dialect, seq| match dialect {
            Dialect::Native => Some(native::event("call", seq, call)),
            Dialect::SocketIo(_) => {
                let (name, payload) = invite::event(call, &user)?;
                Some(socketio::emit(name, &payload, seq))
            }
            Dialect::Call if is_inside => Some(call::event(call)),
            Dialect::Call | Dialect::Broadcast | Dialect::PeerJs => None,
        });
    }

    fn close_call_sockets(&mut self, now: Now, call: &Call) {
        let Some(room) = self.rooms.get(&call.id) else { return };
        let inside: Vec<SessionId> =
            room.members.iter().filter(|m| m.dialect != Dialect::Native).map(|m| m.session).collect();
        for session in inside {
            if self.sessions.get(&session).is_some_and(|s| s.dialect.acknowledges()) {
                // The connection goes on without the call.
                self.leave_room(now, session);
                continue;
            }
            let conn = self.sessions.get(&session).and_then(|s| s.conn);
            self.end_session(now, session, "left");
            if let Some(conn) = conn {
                self.close(now, conn, close::NORMAL, "the call is over");
            }
        }
    }

    /// Whether the room is that of a call which nobody has taken yet.
    pub(super) fn rings(&self, room: &str) -> bool {
        self.calls.get(room).is_some_and(|call| call.status == CallStatus::Pending)
    }

    /// Whether somebody may enter a room as far as calls are concerned: that of a call is for its two
    /// parties, and for those whose token names it.
    pub(super) fn check_call(&self, room: &str, dialect: Dialect, who: &Identity) -> Result<(), Refusal> {
        let is_named = who.rooms.names(room);
        match self.calls.get(room) {
            Some(call) if call.status.is_over() => Err(Refusal::new(Code::NoSuchCall, "the call is over")),
            Some(call) if is_named || who.names_a_person() && call.has_party(&who.user) => Ok(()),
            Some(_) => Err(Refusal::new(Code::Forbidden, "this is a call between others")),
            None if dialect == Dialect::Call && !is_named => {
                Err(Refusal::new(Code::NoSuchCall, "there is no such call: POST /calls/initiate makes one"))
            }
            None => Ok(()),
        }
    }

    /// The seat of this user in the room of a call; a second socket takes it over at once.
    pub(super) fn seat_in_call(&self, dialect: Dialect, who: &Identity, room: &str) -> Option<SessionId> {
        if dialect != Dialect::Call || !who.names_a_person() {
            return None;
        }
        let members = &self.rooms.get(room)?.members;
        members.iter().find(|m| m.dialect == dialect && m.user == who.user).map(|m| m.session)
    }

    /// What is said in the room of a call is noted for those who look at it.
    pub(super) fn note_in_call(&mut self, now: Now, room: &str, envelope: &Envelope) {
        if let (Some(id), Kind::Candidate | Kind::State) = (self.calls.key(room), envelope.kind) {
            self.touch_call(&id);
        }
        match envelope.kind {
            Kind::Candidate => self.calls.note(room, now.unix, |call| {
                call.ice_candidates_count = call.ice_candidates_count.saturating_add(1);
            }),
            Kind::State => {
                let payload = envelope.payload.as_ref().map_or("null", |p| p.get());
                if let Some(state) = state(payload) {
                    self.calls.note(room, now.unix, |call| call.connection_state = state.as_str().into());
                }
            }
            Kind::Offer | Kind::Answer | Kind::Restart | Kind::Media | Kind::Chat | Kind::Custom => {}
        }
    }

    /// A member has left the room of a call for good: without both of its parties it is over.
    pub(super) fn left_call(&mut self, now: Now, room: &str, user: &str, reason: &str) {
        let is_ongoing = self.calls.get(room).is_some_and(|call| call.status == CallStatus::Ongoing);
        let is_still_there =
            self.rooms.get(room).is_some_and(|room| room.members.iter().any(|m| *m.user == *user));
        if !is_ongoing || is_still_there {
            return;
        }
        let has_failed = self.calls.get(room).is_some_and(|call| &*call.connection_state == "failed");
        let status = if has_failed || reason == "lost" { CallStatus::Failed } else { CallStatus::Ended };
        let memory = now.mono + self.limits.call_memory;
        if let Some(step) = self.calls.finish(room, status, now.unix, memory) {
            self.call_changed(now, &step);
        }
    }

    pub(super) fn call_timeout(&mut self, now: Now, id: &Arc<str>) {
        let Some(entry) = self.calls.entry(id) else { return };
        entry.armed = None;
        if entry.deadline.is_none_or(|at| at > now.mono) {
            return self.arm_call(id);
        }
        let status = match self.calls.get(id).map(|call| call.status) {
            Some(CallStatus::Ongoing) if self.rooms.contains_key(id) => {
                // Whoever leaves ends it.
                if let Some(entry) = self.calls.entry(id) {
                    entry.deadline = None;
                }
                return;
            }
            Some(CallStatus::Ongoing) => CallStatus::Failed,
            Some(_) | None => CallStatus::Missed,
        };
        let memory = now.mono + self.limits.call_memory;
        match self.calls.finish(id, status, now.unix, memory) {
            Some(step) => self.call_changed(now, &step),
            None => {
                self.calls.forget(id);
                self.touch_call(id);
            }
        }
    }

    pub(super) fn arm_call(&mut self, id: &Arc<str>) {
        let Some(entry) = self.calls.entry(id) else { return };
        super::rearm(&mut self.timers, &mut entry.armed, entry.deadline, || Timer::Call(id.clone()));
    }

    /// A frame of a call socket.
    pub(super) fn call_frame(&mut self, now: Now, id: ConnId, text: &str) {
        match call::parse(text, &self.limits) {
            Ok(call::Request::Relay(_)) if self.conns.get(&id).is_some_and(|c| c.unproven.is_some()) => {
                let why =
                    r#"a token is needed first: ?token=, a bearer subprotocol, or {"type":"auth","token":…}"#;
                self.raw_refused(now, id, &Refusal::new(Code::Unauthenticated, why));
            }
            Ok(call::Request::Relay(envelope)) => self.raw_message(now, id, envelope),
            Ok(call::Request::Ping) => self.send(id, r#"{"type":"pong"}"#.into()),
            Ok(call::Request::Token(token)) => {
                if let Err(wait) = self.take_join(now, id) {
                    return self.refuse(id, None, &too_many_tokens(wait));
                }
                self.outputs.push_back(Output::Authenticate { conn: id, token });
            }
            Err(refusal) => self.refuse_with_strike(now, id, None, &refusal),
        }
    }
}
