//! Who gets a message, when, and what waits.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use super::{Hub, Now, Output};
use crate::signal::dialect::Dialect;
use crate::signal::envelope::{Code, Envelope, Kind, Refusal};
use crate::signal::room::{Kept, waits_for_description};
use crate::signal::{ConnId, MemberId, SessionId};

/// A ping that is due so soon need not wait for its time.
const NEARLY: Duration = Duration::from_millis(125);

/// How many have a message now, and how many will have it later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) delivered: usize,
    pub(super) held: usize,
}

/// What a call cannot be made without.
fn is_negotiation(kind: Kind) -> bool {
    kind.is_description() || kind == Kind::Candidate
}

impl Hub {
    /// Relays a message of a session to one member of its room, or to all others.
    pub(super) fn relay(
        &mut self,
        now: Now,
        session: SessionId,
        to: Option<MemberId>,
        envelope: &Envelope,
    ) -> Result<Delivery, Refusal> {
        let Some((room_name, from)) = self.sessions.get(&session).and_then(|s| s.place.clone()) else {
            return Err(Refusal::new(Code::NotJoined, "join a room first"));
        };
        self.check_grant(session, envelope.kind)?;
        self.note_in_call(now, &room_name, envelope);
        self.note_message(now, &room_name, from, envelope);
        let targets = self.targets(&room_name, from, to)?;
        let mut delivery = self.keep_mail(now, &room_name, from, to, envelope)?;
        for target in targets {
            let one = self.pass(now, &room_name, from, target, envelope);
            delivery.delivered += one.delivered;
            delivery.held += one.held;
        }
        self.arm_room(&room_name);
        Ok(delivery)
    }

    fn check_grant(&self, session: SessionId, kind: Kind) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&session) else { return Ok(()) };
        let grants = session.identity.grants;
        let (is_granted, word) = match kind {
            Kind::Offer | Kind::Answer | Kind::Candidate | Kind::Restart => (grants.signal, "signal"),
            Kind::Chat => (grants.chat, "chat"),
            Kind::Media | Kind::State | Kind::Custom => (true, "join"),
        };
        if is_granted {
            return Ok(());
        }
        Err(Refusal::new(Code::Forbidden, format!("the token does not grant {word}")))
    }

    fn targets(
        &self,
        room: &Arc<str>,
        from: MemberId,
        to: Option<MemberId>,
    ) -> Result<Vec<MemberId>, Refusal> {
        let Some(room) = self.rooms.get(room) else {
            return Err(Refusal::new(Code::NotJoined, "join a room first"));
        };
        match to {
            None => Ok(room.members.iter().map(|m| m.id).filter(|m| *m != from).collect()),
            Some(to) if to != from && room.member(to).is_some() => Ok(vec![to]),
            Some(_) => Err(Refusal::new(Code::NoSuchMember, "the room has no such member")),
        }
    }

    /// Keeps an offer to the room, and the candidates that belong to it, for whoever comes.
    ///
    /// An offer of a client that confirms nothing is kept until it is answered, even with others
    /// present: their sockets may be dead without anybody knowing.
    fn keep_mail(
        &mut self,
        now: Now,
        room_name: &Arc<str>,
        from: MemberId,
        to: Option<MemberId>,
        envelope: &Envelope,
    ) -> Result<Delivery, Refusal> {
        // More of the callee's connections may come while it rings.
        let rings = self.rings(room_name);
        let limits = &self.limits;
        let Some(room) = self.rooms.get_mut(room_name) else { return Ok(Delivery::default()) };
        let is_alone = !room.members.iter().any(|m| m.id != from && !m.is_away);
        let is_raw = room.member(from).is_some_and(|m| !m.dialect.acknowledges());
        let kept = match (envelope.kind, to) {
            (Kind::Answer, _) => {
                room.settle(from, to);
                self.touch_room(room_name);
                return Ok(Delivery::default());
            }
            (Kind::Offer, None) if is_alone || is_raw || rings => {
                room.keep_offer(from, envelope, now.mono, limits)
            }
            (Kind::Offer, None) => {
                room.mail.remove(&from);
                self.touch_room(room_name);
                return Ok(Delivery::default());
            }
            (Kind::Candidate, None) if is_alone || room.has_offer_of(from) => {
                room.keep_candidate(from, envelope, now.mono, limits)
            }
            (
                Kind::Offer
                | Kind::Candidate
                | Kind::Restart
                | Kind::Media
                | Kind::State
                | Kind::Chat
                | Kind::Custom,
                _,
            ) => return Ok(Delivery::default()),
        };
        self.touch_room(room_name);
        match kept {
            Kept::Yes => {
                self.stats.mail_held += u64::from(is_alone && envelope.kind == Kind::Offer);
                Ok(Delivery { delivered: 0, held: usize::from(is_alone) })
            }
            Kept::Full => {
                self.stats.overflowed += 1;
                if is_alone {
                    return Err(Refusal::new(
                        Code::MailboxFull,
                        "nobody is there and too much waits already",
                    ));
                }
                Ok(Delivery::default())
            }
        }
    }

    /// One message to one member: now, or with the description it must not overtake.
    pub(super) fn pass(
        &mut self,
        now: Now,
        room_name: &Arc<str>,
        from: MemberId,
        to: MemberId,
        envelope: &Envelope,
    ) -> Delivery {
        let (max, bytes) = (self.limits.mail_candidates, self.limits.mail_bytes);
        let Some(room) = self.rooms.get_mut(room_name) else { return Delivery::default() };
        let Some(target) = room.member_mut(to) else { return Delivery::default() };
        let (session, is_away) = (target.session, target.is_away);
        if waits_for_description(envelope.kind) && !target.described.contains(&from) {
            let waiting = target.early.iter().filter(|(sender, _)| *sender == from);
            let (count, size) = waiting.fold((0, 0), |(n, size), (_, e)| (n + 1, size + e.len()));
            if count >= max || size + envelope.len() > bytes {
                self.stats.overflowed += 1;
                return Delivery::default();
            }
            target.early.push((from, envelope.clone()));
            self.touch_room(room_name);
            return Delivery { delivered: 0, held: 1 };
        }
        let is_description = envelope.kind.is_description();
        let ready = if is_description { target.description_arrived(from) } else { Vec::new() };
        if envelope.kind == Kind::Offer
            && let Some(mail) = room.mail.get_mut(&from)
            && !mail.given_to.contains(&to)
        {
            mail.given_to.push(to);
        }
        if envelope.kind == Kind::Media
            && let Some(sender) = room.member_mut(from)
        {
            sender.note_media(envelope.payload.as_deref());
        }
        if room.member(from).is_none() {
            return Delivery::default();
        }
        if is_description || envelope.kind == Kind::Media {
            self.touch_room(room_name);
        }
        for message in iter::once(envelope).chain(&ready) {
            self.deliver_message(now, session, (room_name, from), message);
        }
        Delivery { delivered: usize::from(!is_away), held: usize::from(is_away) }
    }

    fn deliver_message(
        &mut self,
        now: Now,
        to: SessionId,
        (room, from): (&Arc<str>, MemberId),
        envelope: &Envelope,
    ) {
        let about = Some((from, envelope.kind));
        let Some(dialect) = self.sessions.get(&to).map(|s| s.dialect) else { return };
        if let Some(words) = dialect.verbatim(envelope) {
            return self.deliver(now, to, about, |_, _| Some(words.clone()));
        }
        let Some(sender) = self.sender(room, from) else { return };
        if dialect == Dialect::PeerJs {
            let words = self.peerjs_words(to, &sender, envelope);
            return self.deliver(now, to, about, |_, _| words);
        }
        let pieces = Self::in_pieces(dialect, envelope);
        for piece in pieces.iter().chain(pieces.is_empty().then_some(envelope)) {
            self.deliver(now, to, about, |dialect, seq| dialect.render(&sender, seq, piece));
        }
    }

    /// Puts a frame into a session's outbox and, if it has a socket, on its way.
    pub(super) fn deliver(
        &mut self,
        now: Now,
        to: SessionId,
        about: Option<(MemberId, Kind)>,
        render: impl FnOnce(Dialect, u64) -> Option<Arc<str>>,
    ) {
        let Some(session) = self.sessions.get_mut(&to) else { return };
        let Some(text) = render(session.dialect, session.outbox.next_seq()) else { return };
        let (confirms_itself, is_asked) = (session.dialect.acknowledges(), session.dialect.is_asked());
        if let (None, false, Some((from, Kind::Offer))) = (session.conn, confirms_itself, about) {
            session.outbox.forget_negotiation(from);
        }
        let conn = session.conn;
        if !confirms_itself && !about.is_some_and(|(_, kind)| is_negotiation(kind)) {
            // Kept for a raw client, it might meet whoever is taken for its successor.
            self.stats.missed += u64::from(conn.is_none());
            if let Some(conn) = conn {
                self.send(conn, text);
            }
            return;
        }
        let bounds = (self.limits.outbox_frames, self.limits.outbox_bytes);
        let dropped = session.outbox.push(text.clone(), about, self.era, bounds);
        let seq = session.outbox.last_seq();
        self.touch_outbox(now, to);
        if let Some(conn) = conn {
            self.send(conn, text);
            if is_asked {
                self.confirm_soon(now.mono, conn, about, seq);
            }
        } else {
            self.stats.overflowed += dropped;
        }
    }

    /// A candidate that comes again does no harm, a description may: that one is asked after sooner. A ping that is
    /// nearly due leaves with the message.
    fn confirm_soon(&mut self, now: Duration, conn: ConnId, about: Option<(MemberId, Kind)>, seq: u64) {
        let is_description = about.is_some_and(|(_, kind)| kind.is_description());
        let patience = if is_description { self.limits.confirm } else { self.limits.confirm_candidate };
        let Some(found) = self.conns.get_mut(&conn) else { return };
        if found.is_asked_by(now + NEARLY) {
            self.outputs.push_back(Output::Ping { conn, seq });
        } else {
            found.confirm_by(now + patience);
        }
        self.arm_conn(conn);
    }

    /// Gives a member the mail that waits in its room.
    pub(super) fn give_mail(
        &mut self,
        now: Now,
        room_name: &Arc<str>,
        to: MemberId,
        except: Option<MemberId>,
    ) {
        let Some(room) = self.rooms.get(room_name) else { return };
        for sender in room.mail_for(to, except, self.rings(room_name)) {
            self.give_mail_of(now, room_name, sender, to);
        }
    }

    /// Gives a member the mail of one sender, unless it has it.
    pub(super) fn give_mail_of(&mut self, now: Now, room_name: &Arc<str>, sender: MemberId, to: MemberId) {
        let Some(mail) = self.rooms.get(room_name).and_then(|r| r.mail.get(&sender)) else { return };
        if mail.offer.is_none() {
            return;
        }
        let messages: Vec<Envelope> = mail.messages().cloned().collect();
        self.stats.mail_delivered += 1;
        for envelope in &messages {
            self.pass(now, room_name, sender, to, envelope);
        }
    }
}
