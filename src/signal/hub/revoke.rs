//! What is taken back before its time: the relay credentials of who leaves, of who is sent out, and of a call that
//! is over. A session that was only lost keeps its own until they end: media may still flow.

use std::sync::Arc;

use super::{AskedIce, Hub, Now, Output, lease_name};
use crate::signal::SessionId;
use crate::signal::envelope::{Code, Refusal};
use crate::signal::identity::Identity;
use crate::signal::voids::RELAY;

impl Hub {
    /// Takes back the relay credentials a session has.
    pub(super) fn revoke_lease(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let until = std::mem::take(&mut session.leased_until);
        if until <= now.unix {
            return;
        }
        let (scope, user) = (lease_name(id, session.lease), session.identity.user.clone());
        session.lease += 1;
        self.touch_session(id);
        self.void(now, &format!("{RELAY}{scope}:{user}"), until);
    }

    /// Takes back those of a session that goes on, and gives it others.
    pub(super) fn renew_lease(&mut self, now: Now, id: SessionId) {
        let has_some = self.sessions.get(&id).is_some_and(|s| s.leased_until > now.unix);
        self.revoke_lease(now, id);
        if has_some && self.sessions.get(&id).is_some_and(|s| s.conn.is_some()) {
            self.ask_ice(id, AskedIce::Push);
        }
    }

    /// Takes back those that both parties were given for a call.
    pub(super) fn revoke_call(&mut self, now: Now, call: &str, parties: [&Arc<str>; 2]) {
        let until = now.unix + self.limits.credentials.as_secs();
        for user in parties {
            self.void(now, &format!("{RELAY}{call}:{user}"), until);
        }
    }

    /// Takes back those that REST has given a user for the call or the consultation of a room.
    pub(super) fn revoke_in_room(&mut self, now: Now, room: &Arc<str>, user: &Arc<str>) {
        let consultation = self.consultations.of_room(room).map(|found| found.id.clone());
        if let Some(scope) = consultation.or_else(|| self.calls.get(room).map(|call| call.id.clone())) {
            let until = now.unix + self.limits.credentials.as_secs();
            self.void(now, &format!("{RELAY}{scope}:{user}"), until);
        }
    }

    /// Uses a ticket up; one that was used opens nothing any more.
    pub(super) fn spend(&mut self, now: Now, who: &Identity) -> Result<(), Refusal> {
        let Some(ticket) = &who.ticket else { return Ok(()) };
        let name = format!("ticket:{ticket}");
        if self.voids.contains(&name, now) {
            return Err(Refusal::new(
                Code::Unauthenticated,
                "the ticket was used already, come back with a new one",
            ));
        }
        // Another one is not forgotten for it: it could be used again.
        if !self.voids.has_room(self.limits.voids, now) {
            return Err(Refusal::new(Code::Busy, "the server has as many used tickets as it may have"));
        }
        self.void(now, &name, who.expires_at.unwrap_or(now.unix));
        Ok(())
    }

    /// Somebody was sent out of a room, and stays out as long as the token would be valid.
    pub(super) fn ban(&mut self, now: Now, room: &str, who: &Identity) {
        if who.names_a_person() {
            let until = who.expires_at.unwrap_or(now.unix + self.limits.credentials.as_secs());
            self.void(now, &banned(room, &who.user), until);
            for session in self.users.get(&who.user).cloned().unwrap_or_default() {
                self.leave_chat(session, room);
            }
        }
    }

    /// Whether somebody was sent out of the room.
    pub(super) fn is_banned(&self, now: Now, room: &str, who: &Identity) -> bool {
        who.names_a_person() && self.voids.contains(&banned(room, &who.user), now)
    }

    /// Tells the relay, where it is the relay's business.
    pub(super) fn tell_void(&mut self, name: &str, until: u64) {
        if let Some((scope, user)) = name.strip_prefix(RELAY).and_then(|rest| rest.split_once(':')) {
            self.outputs.push_back(Output::Revoke { user: user.into(), scope: scope.into(), until });
        }
    }
}

fn banned(room: &str, user: &str) -> String {
    format!("out:{}:{room}:{user}", room.len())
}
