//! What a member with the grant `moderate` may do to the others of its room: send them out, and mute them.

use std::sync::Arc;

use serde_json::json;

use super::{Hub, Now, close};
use crate::signal::dialect::native::{self, Track};
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
            let conn = self.sessions.get(&id).and_then(|s| s.conn);
            if let Some(conn) = conn {
                self.refuse(conn, None, &Refusal::new(Code::Forbidden, SENT_OUT));
            }
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
        let (muted, word) = (member.session, track.as_str());
        let by =
            self.sessions.get(&session).and_then(|s| s.place.as_ref()).map(|(_, member)| member.to_string());
        let data = json!({ "track": word, "by": by });
        self.deliver(now, muted, None, |dialect, seq| match dialect {
            crate::signal::Dialect::Native => Some(native::event("mute", seq, &data)),
            _ => None,
        });
        let state = json::raw(format!(r#"{{"{word}":false}}"#));
        let envelope = Envelope { kind: Kind::Media, payload: Some(state), verbatim: None, ufrag: None };
        let readers: Vec<MemberId> =
            self.rooms.get(&room).map(|r| r.members.iter().map(|m| m.id).collect()).unwrap_or_default();
        for reader in readers {
            self.pass(now, &room, target, reader, &envelope);
        }
        Ok(())
    }

    /// The room a moderator is in, and the member that is meant.
    fn moderated(&self, session: SessionId, to: &str) -> Result<(Arc<str>, MemberId), Refusal> {
        let Some(found) = self.sessions.get(&session) else { return Err(no_such_member()) };
        let Some((room, me)) = found.place.clone() else {
            return Err(Refusal::new(Code::NotJoined, "join a room first"));
        };
        if !found.identity.grants.moderate || found.identity.is_guest {
            return Err(Refusal::new(Code::Forbidden, "the token does not grant moderate"));
        }
        let target = MemberId::parse(to).filter(|to| *to != me).ok_or_else(no_such_member)?;
        Ok((room, target))
    }
}

fn no_such_member() -> Refusal {
    Refusal::new(Code::NoSuchMember, "the room has no such member")
}
