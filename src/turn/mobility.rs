//! Mobility (RFC 8016): allocations that outlive the 5-tuple of their client.
//!
//! An allocation that moves has two paths for a while: the peers' data goes the old one until the client
//! has used the new one. Where the new 5-tuple belongs to another worker, that one asks for the
//! allocation ([`Server::handle_ask`]) and takes it over as it is ([`Server::handle_arrival`]).

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::allocation::Allocation;
use super::ip_header::IpFields;
use super::output::{ClientPath, Now, RelayId, Transport, Verdict, WorkerId};
use super::request::{Answered, Origin, Request};
use super::table::{AllocationId, Owner};
use super::{ReplyBuffer, Server};
use crate::credential::{Nonces, SEAL};
use crate::stun::{Class, Message, Method, TransactionId};

const BODY: usize = 11;

/// Characters of a ticket: text, and no longer than coturn's client takes.
pub(super) const TICKET_LEN: usize = 28;

/// What a MOBILITY-TICKET says (RFC 8016 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) worker: WorkerId,
    pub(super) id: AllocationId,
    /// Counts the tickets of an allocation; only the newest is good.
    pub(super) serial: u16,
}

impl Ticket {
    pub(super) fn encode(self, nonces: &Nonces) -> [u8; TICKET_LEN] {
        let mut raw = [0; BODY + SEAL];
        raw[0] = self.worker.0;
        raw[1..9].copy_from_slice(&self.id.to_bits().to_be_bytes());
        raw[9..BODY].copy_from_slice(&self.serial.to_be_bytes());
        let seal = nonces.seal(&raw[..BODY]);
        raw[BODY..].copy_from_slice(&seal);
        let mut text = [0; TICKET_LEN];
        URL_SAFE_NO_PAD.encode_slice(raw, &mut text).expect("21 bytes are 28 characters");
        text
    }

    pub(super) fn decode(text: &[u8], nonces: &Nonces) -> Option<Self> {
        let mut raw = [0; BODY + SEAL];
        if text.len() != TICKET_LEN || URL_SAFE_NO_PAD.decode_slice(text, &mut raw) != Ok(raw.len()) {
            return None;
        }
        let (body, seal) = raw.split_at(BODY);
        if !nonces.is_seal(seal, body) {
            return None;
        }
        let id = u64::from_be_bytes(*body[1..].first_chunk()?);
        let serial = u16::from_be_bytes([body[9], body[10]]);
        Some(Self { worker: WorkerId(body[0]), id: AllocationId::from_bits(id), serial })
    }
}

/// What is special about an allocation that may move.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mobile {
    /// Of the newest ticket.
    pub(super) serial: u16,
    /// The path it moves to, which its client has not used yet.
    pub(super) next: Option<ClientPath>,
    /// The Refresh that moved it last.
    pub(super) moved_by: TransactionId,
    /// Its path is gone, and only a ticket leads back.
    pub(super) is_lost: bool,
}

/// An allocation on its way to another worker.
pub struct Moving {
    pub(super) allocation: Box<Allocation>,
    /// Where its client is now.
    pub(super) to: ClientPath,
    pub(super) answer: Answered,
}

impl Moving {
    /// Its client.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.to.five_tuple.client
    }
}

/// What becomes of a message that another worker asks about.
pub enum Asked {
    /// The first `len` bytes of the reply buffer are to be sent by the worker that asked.
    Answered {
        /// How many bytes.
        len: usize,
    },
    /// The allocation leaves, and with it these relay sockets.
    Leaves(Box<Moving>, Vec<RelayId>),
    /// Nothing.
    Dropped,
}

impl Server {
    /// A message of a client of another worker, which names an allocation that is held here.
    pub fn handle_ask(
        &mut self,
        now: Now,
        path: ClientPath,
        packet: &[u8],
        reply: &mut ReplyBuffer,
    ) -> Asked {
        let Ok(message) = Message::parse(packet) else { return Asked::Dropped };
        if message.method() != Method::REFRESH || message.class() != Class::Request {
            return Asked::Dropped;
        }
        let request = Request { now, path, ip: IpFields::default(), message, origin: Origin::Asked };
        match self.handle_request(&request, reply) {
            Verdict::Reply { len, .. } => Asked::Answered { len },
            _ => match self.leaving.take() {
                Some(moving) => {
                    let id = moving.allocation.id;
                    let relays = moving.allocation.relays().map(|(family, _)| id.relay(family)).collect();
                    Asked::Leaves(moving, relays)
                }
                None => Asked::Dropped,
            },
        }
    }

    /// An allocation arrives from another worker. Its relay sockets go by these names from now on, in the
    /// order in which they left; the verdict answers the client.
    pub fn handle_arrival(
        &mut self,
        now: Now,
        moving: Moving,
        reply: &mut ReplyBuffer,
    ) -> (Vec<RelayId>, Verdict) {
        let Moving { mut allocation, to, answer } = moving;
        // Only over UDP can this worker send to where the client was.
        let has_old = allocation.path.five_tuple.transport == Transport::Udp
            && self.table.id_of(&allocation.path.five_tuple).is_none();
        let is_taken = self.table.id_of(&to.five_tuple).is_some();
        if let Some(mobile) = &mut allocation.mobile {
            mobile.next = None;
            mobile.is_lost = !has_old;
            mobile.moved_by = answer.transaction;
        }
        let id = self.settle(*allocation, has_old);
        self.own_relays(id);
        let relays = self.relays_of(id);
        if is_taken {
            // The client has allocated anew meanwhile.
            self.close(id, now);
            return (relays, Verdict::Consumed);
        }
        self.move_to(id, to, answer.transaction);
        (relays, self.answer_moved(id, to, &answer, reply))
    }

    /// An allocation that could not leave is taken back, under its old names and with its ticket.
    pub fn take_back(&mut self, moving: Moving) {
        let allocation = moving.allocation;
        let has_path = allocation.mobile.is_some_and(|mobile| !mobile.is_lost);
        self.timers.schedule(allocation.scheduled, allocation.id);
        let id = allocation.id;
        self.table.put_back(allocation, has_path);
        self.await_first_byte(id);
        self.settle_flows(id);
    }

    /// Tells the other workers whose the relayed addresses are now. What is on its way to the worker that
    /// had them finds nobody there.
    fn own_relays(&self, id: AllocationId) {
        let owner = Owner { worker: self.worker, allocation: id };
        for (_, relay) in self.table.get(id).into_iter().flat_map(Allocation::relays) {
            self.shared.set_owner(relay.bind, Some(owner));
        }
    }

    fn settle(&mut self, allocation: Allocation, has_path: bool) -> AllocationId {
        let scheduled = allocation.scheduled;
        let id = self.table.enter(allocation, has_path);
        self.timers.schedule(scheduled, id);
        self.await_first_byte(id);
        id
    }

    fn relays_of(&self, id: AllocationId) -> Vec<RelayId> {
        let relays = self.table.get(id).into_iter().flat_map(Allocation::relays);
        relays.map(|(family, _)| id.relay(family)).collect()
    }

    /// Takes an allocation out, for another worker.
    pub(super) fn depart(&mut self, id: AllocationId, to: ClientPath, answer: Answered) {
        self.forget_next(id);
        if let Some(allocation) = self.table.remove(id) {
            self.settle_flows(id);
            self.leaving = Some(Box::new(Moving { allocation, to, answer }));
        }
    }

    /// Gives an allocation a second path, to which it moves when the client uses it.
    pub(super) fn move_to(&mut self, id: AllocationId, to: ClientPath, transaction: TransactionId) {
        self.forget_next(id);
        self.table.add_path(id, to.five_tuple);
        let Some(allocation) = self.table.get_mut(id) else { return };
        let Some(mobile) = &mut allocation.mobile else { return };
        mobile.serial = mobile.serial.wrapping_add(1);
        mobile.moved_by = transaction;
        if std::mem::take(&mut mobile.is_lost) {
            allocation.path = to;
        } else {
            mobile.next = Some(to);
            self.moves += 1;
        }
        self.settle_flows(id);
    }

    /// The client uses the new path: the old one is forgotten. `transaction` is the message's, if it has
    /// one: a repeated Refresh uses nothing.
    pub(super) fn confirm_path(&mut self, path: &ClientPath, transaction: Option<TransactionId>) {
        let Some(id) = self.table.id_of(&path.five_tuple) else { return };
        let mobile = self.table.get(id).and_then(|allocation| allocation.mobile);
        let Some(mobile) = mobile.filter(|mobile| mobile.next == Some(*path)) else { return };
        if transaction != Some(mobile.moved_by) {
            self.promote(id);
        }
    }

    /// Data from a client use its path.
    pub(super) fn confirm_by_use(&mut self, path: &ClientPath) {
        if self.moves > 0 {
            self.confirm_path(path, None);
        }
    }

    fn promote(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        let Some(next) = allocation.mobile.as_mut().and_then(|mobile| mobile.next.take()) else { return };
        let before = std::mem::replace(&mut allocation.path, next);
        self.moves -= 1;
        self.table.remove_path(id, before.five_tuple);
        self.settle_flows(id);
    }

    /// The path an allocation was about to move to is of no use.
    pub(super) fn forget_next(&mut self, id: AllocationId) {
        let mobile = self.table.get_mut(id).and_then(|allocation| allocation.mobile.as_mut());
        if let Some(next) = mobile.and_then(|mobile| mobile.next.take()) {
            self.moves -= 1;
            self.table.remove_path(id, next.five_tuple);
        }
    }

    /// A connection of a client is gone. An allocation that may move stays, for its ticket to come back.
    pub(super) fn lose_path(&mut self, id: AllocationId, path: &ClientPath, now: Now) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        let is_current = allocation.path.link == path.link;
        match &mut allocation.mobile {
            None if is_current => drop(self.close(id, now)),
            None => {}
            Some(mobile) if mobile.next.is_some_and(|next| next.link == path.link) => self.forget_next(id),
            Some(mobile) if is_current && mobile.next.is_some() => self.promote(id),
            Some(mobile) if is_current => {
                mobile.is_lost = true;
                let five_tuple = allocation.path.five_tuple;
                self.table.remove_path(id, five_tuple);
                self.settle_flows(id);
            }
            Some(_) => {}
        }
    }

    /// The allocation a ticket leads to, if it is good: the newest one, or the one before while its
    /// successor may not have arrived.
    pub(super) fn allocation_of_ticket(&self, ticket: Ticket) -> Option<AllocationId> {
        let mobile = self.table.get(ticket.id)?.mobile?;
        let is_newest = ticket.serial == mobile.serial;
        let is_last = ticket.serial.wrapping_add(1) == mobile.serial && mobile.next.is_some();
        (is_newest || is_last).then_some(ticket.id)
    }

    /// MOBILITY-TICKET of an allocation, if it has one.
    pub(super) fn ticket_of(&self, id: AllocationId) -> Option<[u8; TICKET_LEN]> {
        let serial = self.table.get(id)?.mobile?.serial;
        Some(Ticket { worker: self.worker, id, serial }.encode(&self.settings.nonces))
    }
}
