//! Calls by Socket.IO events (seed 001): who is called rings on all connections, the first that accepts has the call.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Hub, Now};
use crate::signal::call::{Call, CallAction, CallStatus};
use crate::signal::dialect::Dialect;
use crate::signal::dialect::socketio::{Verb, Vocabulary, invite};
use crate::signal::envelope::{Code, Refusal};
use crate::signal::identity::Identity;
use crate::signal::{MemberId, SessionId};

impl Hub {
    pub(super) fn identity_of(&self, session: SessionId) -> Result<Identity, Refusal> {
        let found = self.sessions.get(&session).map(|s| s.identity.clone());
        found.filter(Identity::names_a_person).ok_or_else(|| {
            Refusal::new(Code::Unauthenticated, "a call is between users: come with a token of your own")
        })
    }

    pub(super) fn invite(
        &mut self,
        now: Now,
        session: SessionId,
        callee: Option<String>,
        payload: Box<RawValue>,
    ) -> Result<Value, Refusal> {
        let who = self.identity_of(session)?;
        if let Some(conn) = self.sessions.get(&session).and_then(|s| s.conn)
            && let Err(wait) = self.take_join(now, conn)
        {
            return Err(Refusal::later(Code::RateLimited, super::retry("too many calls", wait), wait));
        }
        let callee =
            callee.ok_or_else(|| Refusal::new(Code::BadFrame, "call.invite needs to, the user to call"))?;
        let media = (payload.get().starts_with('{')).then_some(payload);
        let action = CallAction::Initiate { callee: callee.into(), media };
        let call = self.handle_call(now, &who, action)?.remove(0);
        self.leave_room(now, session);
        self.enter(now, session, &call.id, None, None)?;
        Ok(json!({ "ok": true, "callId": &*call.id, "delivered": self.ringing(&call) }))
    }

    /// How many connections of the callee ring.
    fn ringing(&self, call: &Call) -> usize {
        self.users.get(&call.callee).map_or(0, Vec::len)
    }

    /// A connection of the callee that is in no room waits in the call's, so that an offer which comes
    /// before anybody accepts reaches it.
    pub(super) fn ring(&mut self, now: Now, session: SessionId, call: &Call) {
        let Some(found) = self.sessions.get(&session) else { return };
        let is_free = matches!(found.dialect, Dialect::SocketIo(Vocabulary::Invite)) && found.place.is_none();
        if !is_free || *found.identity.user != *call.callee {
            return;
        }
        if let Ok((room, member)) = self.enter(now, session, &call.id, None, None) {
            self.give_mail(now, &room, member, None);
        }
    }

    /// Somebody who connects while its phone rings hears it.
    pub(super) fn ring_latecomer(&mut self, now: Now, session: SessionId) {
        let Ok(who) = self.identity_of(session) else { return };
        for call in self.calls.live_of(&who.user) {
            if call.status == CallStatus::Pending && call.callee == who.user {
                self.tell_of_call(now, session, &call);
                self.ring(now, session, &call);
            }
        }
    }

    pub(super) fn act_on_call(
        &mut self,
        now: Now,
        session: SessionId,
        verb: Verb,
        id: Option<String>,
    ) -> Result<Value, Refusal> {
        let who = self.identity_of(session)?;
        let place = self.sessions.get(&session).and_then(|s| s.place.clone()).map(|(room, _)| room);
        let newest = || self.calls.live_of(&who.user).pop().map(|call| call.id);
        let id =
            id.map(Arc::from).or_else(|| place.filter(|room| self.calls.get(room).is_some())).or_else(newest);
        let id: Arc<str> = id.ok_or_else(|| Refusal::new(Code::NoSuchCall, "you have no call"))?;
        let action = match verb {
            Verb::Accept => CallAction::Accept(id.clone()),
            Verb::Reject => CallAction::Reject(id.clone()),
            Verb::End => CallAction::End(id.clone()),
        };
        if verb == Verb::Accept {
            self.take_call(now, session, &id)?;
        }
        let call = self.handle_call(now, &who, action)?.remove(0);
        Ok(json!({ "ok": true, "callId": &*call.id, "status": call.status }))
    }

    /// An answer takes the call for those whose front-end knows no accept; the first one wins.
    pub(super) fn answered_call(&mut self, now: Now, session: SessionId, room: &Arc<str>) {
        let Ok(who) = self.identity_of(session) else { return };
        if self.rings(room) && self.take_call(now, session, room).is_ok() {
            // The callee's own, as it has just been let in: nothing stands against it.
            let _ = self.handle_call(now, &who, CallAction::Accept(room.clone()));
        }
    }

    /// This connection has the call; the user's others leave it.
    fn take_call(&mut self, now: Now, session: SessionId, id: &Arc<str>) -> Result<(), Refusal> {
        let who = self.identity_of(session)?;
        let call = self.calls.of_party(id, &who.user)?.clone();
        if call.status != CallStatus::Pending || call.callee != who.user {
            return Ok(());
        }
        let is_inside =
            |place: &Option<(Arc<str>, MemberId)>| place.as_ref().is_some_and(|(room, _)| room == id);
        if !self.sessions.get(&session).is_some_and(|s| is_inside(&s.place)) {
            self.leave_room(now, session);
            let (room, member) = self.enter(now, session, id, None, None)?;
            self.give_mail(now, &room, member, None);
        }
        for other in self.users.get(&who.user).cloned().unwrap_or_default() {
            if other == session {
                continue;
            }
            if self.sessions.get(&other).is_some_and(|s| is_inside(&s.place)) {
                self.leave_room(now, other);
            }
            let (name, payload) = invite::answered_elsewhere(&call);
            if self.sessions.get(&other).is_some_and(|s| matches!(s.dialect, Dialect::SocketIo(_))) {
                self.emit(now, other, name, &payload);
            }
        }
        Ok(())
    }
}
