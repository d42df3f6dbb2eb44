//! A worker's part where all allocations share a relay port: its own socket on that port, and the rings
//! to and from the others. The kernel gives a peer's packets to any worker; the one that has the
//! allocation gets them through its ring, and judges them as if it had received them.

use std::net::SocketAddr;

use super::ring::{Ends, Label};
use super::run::Worker;
use crate::io::{Datagrams, SocketRef, UdpSocket};
use crate::turn::{IpFields, RelayId, Verdict, WorkerId};

/// Packets taken from the rings in one turn before others have theirs.
const SHARE: usize = 64;

/// What a worker gets for it at start.
pub(super) struct Share {
    /// One for each relay address.
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) ends: Ends,
}

/// The shared sockets and the rings of one worker.
pub(super) struct OnePort {
    /// The sockets' names begin here.
    first: u32,
    relays: Vec<SocketAddr>,
    /// By `RelayId`: which of the sockets it leaves through.
    by_relay: Vec<u8>,
    ends: Ends,
    /// The rings were left with something to read.
    pub(super) is_unfinished: bool,
}

impl OnePort {
    pub(super) fn new(first: u32, relays: Vec<SocketAddr>, ends: Ends) -> Self {
        Self { first, relays, by_relay: Vec::new(), ends, is_unfinished: false }
    }

    /// How many sockets there are.
    pub(super) fn sockets(&self) -> u32 {
        self.relays.len() as u32
    }

    /// Notes which socket a relay leaves through; `false` if none is bound to the address.
    pub(super) fn open(&mut self, relay: RelayId, bind: SocketAddr) -> bool {
        let Some(index) = self.relays.iter().position(|local| *local == bind) else { return false };
        let place = relay.0 as usize;
        if place >= self.by_relay.len() {
            self.by_relay.resize(place + 1, 0);
        }
        self.by_relay[place] = index as u8;
        true
    }

    /// The socket a relay leaves through.
    pub(super) fn name_of(&self, relay: RelayId) -> SocketRef {
        let index = self.by_relay.get(relay.0 as usize).copied().unwrap_or_default();
        SocketRef(self.first + u32::from(index))
    }

    /// Which of the shared sockets that is.
    fn index_of(&self, name: SocketRef) -> Option<u8> {
        let index = name.0.checked_sub(self.first)?;
        ((index as usize) < self.relays.len()).then_some(index as u8)
    }
}

impl<D: Datagrams> Worker<D> {
    /// What peers sent to a shared socket. `false` if the socket is no shared one.
    pub(super) fn handle_shared_relay(&mut self, name: SocketRef) -> bool {
        let index = self.one_port.as_ref().and_then(|one_port| one_port.index_of(name));
        let Some(socket) = index else { return false };
        for index in 0..self.received.list().len() {
            let received = self.received.list()[index];
            let (ip, label) =
                (IpFields { tos: received.tos }, Label { socket, tos: received.tos, from: received.from });
            for datagram in received.datagrams() {
                if self.outgoing.is_full() {
                    self.send();
                }
                let bytes = self.received.bytes(datagram.clone());
                match self.core.handle_shared_relay(self.now, socket, received.from, ip, bytes) {
                    Verdict::Elsewhere(worker) => self.hand_on(worker, label, datagram),
                    verdict => self.carry_out(verdict, datagram.start),
                }
                self.drain();
            }
        }
        true
    }

    fn hand_on(&mut self, worker: WorkerId, label: Label, datagram: std::ops::Range<usize>) {
        let Some(one_port) = &mut self.one_port else { return };
        match one_port.ends.push(worker, label, self.received.bytes(datagram)) {
            true => self.counters.handed_on += 1,
            false => self.counters.ring_drops += 1,
        }
    }

    /// Takes what other workers have put into the rings.
    pub(super) fn serve_rings(&mut self) {
        let Some(one_port) = &mut self.one_port else { return };
        let was_rung = one_port.ends.was_rung();
        if !was_rung && !one_port.is_unfinished {
            return;
        }
        one_port.is_unfinished = true;
        for _ in 0..SHARE {
            if self.received.vacant() == 0 {
                self.flush();
            }
            let (Some(one_port), Some((start, slot))) = (&mut self.one_port, self.received.claim()) else {
                return;
            };
            let Some((label, len)) = one_port.ends.pop(slot) else {
                one_port.is_unfinished = false;
                self.received.unclaim();
                return;
            };
            if self.outgoing.is_full() {
                self.send();
            }
            let (bytes, ip) = (self.received.bytes(start..start + len), IpFields { tos: label.tos });
            match self.core.handle_shared_relay(self.now, label.socket, label.from, ip, bytes) {
                // It moved on meanwhile; no packet travels twice.
                Verdict::Elsewhere(_) => self.counters.ring_drops += 1,
                verdict => self.carry_out(verdict, start),
            }
            self.drain();
        }
    }

    /// Wakes those who were given something in this turn.
    pub(super) fn wake_others(&mut self) {
        let Some(one_port) = &mut self.one_port else { return };
        for worker in one_port.ends.sleepers() {
            // Fails only when that worker has ended.
            let _ = self.hands[worker].waker.wake();
        }
    }
}
