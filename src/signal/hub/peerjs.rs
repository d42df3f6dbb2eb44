//! Clients of PeerJS: connecting under an id is joining the room of their key.

use std::sync::Arc;

use super::{Connect, Hub, Now, close};
use crate::signal::dialect::peerjs::{self, Connection, Request};
use crate::signal::dialect::{Dialect, Sender};
use crate::signal::envelope::{Code, Envelope, Kind, Refusal};
use crate::signal::{ConnId, MemberId, SessionId};

/// Connections one peer has with peers of other dialects that are remembered.
const CONNECTIONS: usize = 64;

impl Hub {
    /// The id is in the key's `declared`, the client's own secret in its `cookie`.
    pub(super) fn peerjs_connected(&mut self, now: Now, id: ConnId, connect: Connect) {
        if let Err(refusal) = self.peerjs_enter(now, id, connect) {
            self.raw_refused(now, id, &refusal);
        }
    }

    fn peerjs_enter(&mut self, now: Now, id: ConnId, connect: Connect) -> Result<(), Refusal> {
        let needs_token = || Refusal::new(Code::Unauthenticated, "a JWT is needed as the client's token");
        let identity = connect.identity.ok_or_else(needs_token)?;
        let peer = connect.key.declared.as_deref().filter(|peer| peer.len() <= self.limits.name);
        let peer: Arc<str> = peer.ok_or_else(|| Refusal::new(Code::BadFrame, "an id is needed"))?.into();
        let room = connect.room.unwrap_or_default();
        if room.is_empty() || room.len() > self.limits.name {
            return Err(Refusal::new(Code::BadFrame, format!("key has 1 to {} bytes", self.limits.name)));
        }
        if identity.names_a_person() && identity.user != peer {
            return Err(Refusal::new(Code::Forbidden, "the id must be the token's user"));
        }
        if let Some((session, is_away)) = self.peer(&room, &peer) {
            let own = connect.key.cookie.as_deref();
            let is_same =
                own.is_some() && self.sessions.get(&session).is_some_and(|s| s.key.cookie.as_deref() == own);
            match (is_same, is_away) {
                (true, _) => {
                    self.spend(now, &identity)?;
                    self.send(id, peerjs::open());
                    self.take_seat(now, id, session, None);
                    return Ok(());
                }
                (false, true) => self.end_session(now, session, "left"),
                (false, false) => {
                    self.send(id, peerjs::id_taken());
                    self.close(now, id, close::FULL, "the id is taken");
                    return Ok(());
                }
            }
        }
        let session = self.open_session(now, id, identity, connect.key, false)?;
        let (room, member) = self.enter(now, session, &room, Some(peer.to_string()), None)?;
        if let Some(member) = self.rooms.get_mut(&room).and_then(|room| room.member_mut(member)) {
            member.peer = Some(peer);
        }
        self.send(id, peerjs::open());
        self.give_mail(now, &room, member, None);
        Ok(())
    }

    /// Who has this id in the room, and whether it has no socket at the moment.
    fn peer(&self, room: &str, peer: &str) -> Option<(SessionId, bool)> {
        let mut members = self.rooms.get(room)?.members.iter();
        members.find(|m| m.peer.as_deref() == Some(peer)).map(|m| (m.session, m.is_away))
    }

    /// A frame of a PeerJS client.
    pub(super) fn peerjs_frame(&mut self, now: Now, id: ConnId, text: &str) {
        match peerjs::parse(text, &self.limits) {
            Ok(Request::Heartbeat) => {}
            Ok(Request::Leave) => {
                if let Some(session) = self.conns.get(&id).and_then(|c| c.session) {
                    self.end_session(now, session, "left");
                }
                self.close(now, id, close::NORMAL, "bye");
            }
            Ok(Request::Relay { to, connection, envelope }) => {
                self.peerjs_relay(now, id, &to, connection, &envelope);
            }
            Err(refusal) => self.refuse_with_strike(now, id, None, &refusal),
        }
    }

    fn peerjs_relay(
        &mut self,
        now: Now,
        id: ConnId,
        name: &str,
        connection: Connection,
        envelope: &Envelope,
    ) {
        let Some((session, room, member)) = self.place_of(id) else { return };
        let by_id = self.peer(&room, name).and_then(|(found, _)| self.sessions.get(&found)?.place.clone());
        let to = by_id.map(|(_, to)| to).or_else(|| self.member_by_peer_id(&room, session, name));
        let Some(to) = to else {
            if envelope.kind == Kind::Offer {
                self.send(id, peerjs::expire(name));
            }
            return;
        };
        if let Some(member) = self.rooms.get_mut(&room).and_then(|room| room.member_mut(member)) {
            remember(&mut member.connections, to, connection);
        }
        if let Err(refusal) = self.relay(now, session, Some(to), envelope) {
            self.refuse(id, None, &refusal);
        }
    }

    /// A message for a PeerJS client, on the connection it has with the sender.
    pub(super) fn peerjs_words(
        &mut self,
        to: SessionId,
        sender: &Sender,
        envelope: &Envelope,
    ) -> Option<Arc<str>> {
        let (room, member) = self.sessions.get(&to)?.place.clone()?;
        let member = self.rooms.get_mut(&room)?.member_mut(member)?;
        let known = member.connections.iter().find(|(other, _)| *other == sender.member);
        // The sender's offers are all for one connection, which it does not name.
        let connection = known.map_or_else(
            || Connection { id: format!("mc_{}", sender.member).into(), kind: "media".into() },
            |(_, connection)| connection.clone(),
        );
        if envelope.verbatim_in(Dialect::PeerJs).is_none() {
            remember(&mut member.connections, sender.member, connection.clone());
            self.touch_room(&room);
        }
        peerjs::render(sender, &connection, envelope)
    }
}

fn remember(connections: &mut Vec<(MemberId, Connection)>, other: MemberId, connection: Connection) {
    connections.retain(|(known, _)| *known != other);
    if connections.len() >= CONNECTIONS {
        connections.remove(0);
    }
    connections.push((other, connection));
}
