//! What a member with the grant `moderate` may do to the others of its room: send them out, and mute them.

use std::sync::Arc;

use serde_json::json;

use super::{Hub, Now, close};
use crate::signal::dialect::native::{self, Track};
use crate::signal::dialect::{Dialect, broadcast, socketio};
use crate::signal::envelope::{Code, Envelope, Kind, Refusal};
use crate::signal::{MemberId, SessionId, json};

const SENT_OUT: &str = "a moderator has sent you out of the room";

impl Hub {
    /// Sends a member out, with all that the same user has in the room, and takes its relay credentials back.
    pub(super) fn kick(&mut self, now: Now, session: SessionId, to: &str) -> Result<(), Refusal> {
        let (room, target) = self.moderated(session, to)?;
        let Some(found) = self.rooms.get(&room) else { return Err(no_such_member()) };
        let Some(who) = found.member(target).map(|m| (m.session, m.user.clone(), m.is_guest)) else {
            return Err(no_such_member());
        };
        let same =
            found.members.iter().filter(|m| m.id == target || !who.2 && !m.is_guest && m.user == who.1);
        let is_person =
            |id: &SessionId| self.sessions.get(id).is_some_and(|session| session.identity.names_a_person());
        let gone: Vec<SessionId> =
            same.map(|m| m.session).filter(|id| *id == who.0 || is_person(id) && is_person(&who.0)).collect();
        for id in gone {
            let Some(identity) = self.sessions.get(&id).map(|s| s.identity.clone()) else { continue };
            self.ban(now, &room, &identity);
            self.revoke_in_room(now, &room, &identity.user);
            let conn = self.sessions.get(&id).and_then(|s| s.conn);
            self.say_sent_out(now, id, &room);
            self.end_session(now, id, "kicked");
            if let Some(conn) = conn {
                self.close(now, conn, close::KICKED, SENT_OUT);
            }
        }
        self.stats.kicked += 1;
        Ok(())
    }

    /// Asks a member to turn a track off, and shows it to all as off: media does not pass here, so that its client
    /// has to do it.
    pub(super) fn mute(
        &mut self,
        now: Now,
        session: SessionId,
        to: &str,
        track: Track,
    ) -> Result<(), Refusal> {
        let (room, target) = self.moderated(session, to)?;
        let Some(member) = self.rooms.get(&room).and_then(|r| r.member(target)) else {
            return Err(no_such_member());
        };
        let muted = member.session;
        let by = self.sessions.get(&session).and_then(|s| s.place.as_ref()).map(|(_, member)| *member);
        self.say_muted(now, muted, &room, track, by);
        let word = track.as_str();
        let state = json::raw(format!(r#"{{"{word}":false}}"#));
        let envelope = Envelope { kind: Kind::Media, payload: Some(state), verbatim: None, ufrag: None };
        let readers: Vec<MemberId> =
            self.rooms.get(&room).map(|r| r.members.iter().map(|m| m.id).collect()).unwrap_or_default();
        for reader in readers {
            self.pass(now, &room, target, reader, &envelope);
        }
        Ok(())
    }

    /// Tells somebody, in its own words, that it is sent out.
    fn say_sent_out(&mut self, now: Now, id: SessionId, room: &str) {
        let Some(session) = self.sessions.get(&id) else { return };
        match (session.dialect, session.conn) {
            (Dialect::SocketIo(vocabulary), _) => {
                self.deliver(now, id, None, |_, seq| {
                    Some(socketio::moderate::kicked(vocabulary, room, SENT_OUT, seq))
                });
            }
            (Dialect::Native | Dialect::Broadcast | Dialect::Call | Dialect::PeerJs, Some(conn)) => {
                self.refuse(conn, None, &Refusal::new(Code::Forbidden, SENT_OUT));
            }
            (_, None) => {}
        }
    }

    /// Asks somebody, in its own words, to turn a track off.
    fn say_muted(&mut self, now: Now, id: SessionId, room: &Arc<str>, track: Track, by: Option<MemberId>) {
        let wants_events = self.sessions.get(&id).is_some_and(|session| session.wants_events);
        let peer_id = by.and_then(|by| self.sender(room, by)).map(|by| by.peer_id()).unwrap_or_default();
        let data = json!({ "track": track.as_str(), "by": by.map(|by| by.to_string()) });
        self.deliver(now, id, None, |dialect, seq| match dialect {
            Dialect::Native => Some(native::event("mute", seq, &data)),
            Dialect::SocketIo(vocabulary) => {
                Some(socketio::moderate::muted(vocabulary, room, track, &peer_id, seq))
            }
            Dialect::Broadcast | Dialect::Call if wants_events => Some(broadcast::mute(&data)),
            Dialect::Broadcast | Dialect::Call | Dialect::PeerJs => None,
        });
    }

    /// The room a moderator is in, and the member that is meant.
    fn moderated(&self, session: SessionId, to: &str) -> Result<(Arc<str>, MemberId), Refusal> {
        let Some(found) = self.sessions.get(&session) else { return Err(no_such_member()) };
        let Some((room, _)) = found.place.clone() else {
            return Err(Refusal::new(Code::NotJoined, "join a room first"));
        };
        if !found.identity.grants.moderate || found.identity.is_guest {
            return Err(Refusal::new(Code::Forbidden, "the token does not grant moderate"));
        }
        let target = self.member_by_peer_id(&room, session, to).ok_or_else(no_such_member)?;
        Ok((room, target))
    }
}

fn no_such_member() -> Refusal {
    Refusal::new(Code::NoSuchMember, "the room has no such member")
}
