//! What REST asks of consultations (seed 004), and what that means for the sockets in their rooms.

use std::sync::Arc;

use rand::Rng as _;

use super::{Hub, Now, Timer, close};
use crate::signal::consultation::{self, Admission, Appointment, Consultation, ConsultationAction};
use crate::signal::dialect::{Dialect, native, socketio};
use crate::signal::envelope::{Code, Refusal};
use crate::signal::identity::Identity;
use crate::signal::journal::Record;
use crate::signal::{MemberId, SessionId};

impl Hub {
    /// Carries out what somebody wants of a consultation and says how it stands now; who joins also
    /// gets a token for the room.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn handle_consultation(
        &mut self,
        now: Now,
        who: &Identity,
        action: ConsultationAction,
    ) -> Result<(Consultation, Option<Admission>), Refusal> {
        if !who.names_a_person() {
            let message = "a session is between users: come with a token of your own";
            return Err(Refusal::new(Code::Forbidden, message));
        }
        let mut chance = [0; 64];
        match action {
            ConsultationAction::Create { doctor, patient, start, end } => {
                self.rng.fill_bytes(&mut chance);
                let appointment = Appointment { doctor, patient, start, end };
                let made = self.consultations.create(who, appointment, now.unix, &chance, &self.limits)?;
                self.touch_consultation(&made.id);
                self.arm_consultation(now, &made.id);
                Ok((made, None))
            }
            ConsultationAction::Join(id) => {
                self.rng.fill_bytes(&mut chance);
                let member = MemberId(self.fresh_id());
                let admission = self.consultations.join(&id, who, now.unix, (member, &chance))?;
                let joined = self.consultations.visible(&id, who)?.clone();
                self.touch_consultation(&joined.id);
                let (session, room) = (Box::from(&*joined.id), Box::from(&*joined.room));
                self.record(|| Record::Began { session, room, at: now.unix });
                Ok((joined, Some(admission)))
            }
            ConsultationAction::End(id) => {
                let ended = self.consultations.end(&id, who, now.unix)?;
                self.consultation_ended(now, &ended);
                Ok((ended, None))
            }
            ConsultationAction::Delete(id) => {
                let ended = self.consultations.end(&id, who, now.unix)?;
                self.consultation_ended(now, &ended);
                if let Some(armed) = self.consultations.entry(&id).and_then(|found| found.armed.take()) {
                    self.timers.remove(&(armed, Timer::Consultation(id.clone())));
                }
                self.consultations.forget(&id);
                self.touch_consultation(&id);
                Ok((ended, None))
            }
            ConsultationAction::View(id) => Ok((self.consultations.visible(&id, who)?.clone(), None)),
        }
    }

    /// Whether somebody may enter a room as far as consultations are concerned, and the place that is
    /// kept for it there.
    pub(super) fn check_consultation(&self, room: &str, who: &Identity) -> Result<Option<MemberId>, Refusal> {
        let Some(found) = self.consultations.of_room(room) else { return Ok(None) };
        if found.is_over() {
            return Err(Refusal::new(Code::NoSuchCall, "the session is over"));
        }
        let is_party = who.names_a_person() && found.role_of(&who.user).is_some();
        if !is_party && !who.rooms.names(room) {
            return Err(Refusal::new(Code::Forbidden, "this session is between others"));
        }
        let place = found.attendees.iter().find(|one| one.user_id == who.user).map(|one| one.member);
        let is_free = |place: &MemberId| self.rooms.get(room).is_none_or(|r| r.member(*place).is_none());
        Ok(place.filter(is_free))
    }

    /// Its tokens have ended, or it is to be forgotten.
    pub(super) fn consultation_timeout(&mut self, now: Now, id: &Arc<str>) {
        let Some(found) = self.consultations.entry(id) else { return };
        found.armed = None;
        if found.is_over() {
            self.consultations.forget(id);
            return self.touch_consultation(id);
        }
        if let Some(ended) = self.consultations.finish(id, now.unix) {
            self.consultation_ended(now, &ended);
        }
    }

    /// Sets the timer of its end, or of its being forgotten.
    pub(super) fn arm_consultation(&mut self, now: Now, id: &Arc<str>) {
        let memory = self.limits.call_memory;
        let Some(found) = self.consultations.entry(id) else { return };
        let at = now.mono + consultation::life(found, now.unix, memory);
        super::rearm(&mut self.timers, &mut found.armed, Some(at), || Timer::Consultation(id.clone()));
    }

    /// Tells everybody in the room, closes their sockets, and takes back the relay credentials that both parties
    /// were given for it.
    fn consultation_ended(&mut self, now: Now, ended: &Consultation) {
        self.touch_consultation(&ended.id);
        self.arm_consultation(now, &ended.id);
        self.revoke_call(now, &ended.id, [&ended.doctor, &ended.patient]);
        let members = self.rooms.get(&ended.room).map(|room| room.members.as_slice()).unwrap_or_default();
        let inside: Vec<SessionId> = members.iter().map(|member| member.session).collect();
        for session in inside {
            let data = serde_json::json!({ "session_id": &*ended.id, "room_id": &*ended.room });
            self.deliver(now, session, None, |dialect, seq| match dialect {
                Dialect::SocketIo(_) => Some(socketio::emit("session_ended", &data.to_string(), seq)),
                Dialect::Native => Some(native::event("session-ended", seq, &data)),
                Dialect::Call | Dialect::Broadcast | Dialect::PeerJs => None,
            });
            let conn = self.sessions.get(&session).and_then(|s| s.conn);
            self.end_session(now, session, "ended");
            if let Some(conn) = conn {
                self.close(now, conn, close::NOT_FOUND, "the session is over");
            }
        }
        let at = ended.ended_at.unwrap_or(now.unix);
        self.record(|| Record::Ended { session: (&*ended.id).into(), at });
    }
}
