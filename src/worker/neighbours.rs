//! A worker's part in what goes from one worker to another: packets between clients of two of them, and
//! packets that came to the wrong one at a shared port. Each worker judges its own half, and what does not
//! fit into the ring between the two is dropped and counted.

use std::ops::Range;

use super::ring::{Label, Way};
use super::run::Worker;
use crate::io::{Datagrams, SLOT_LEN};
use crate::turn::{IpFields, Verdict, WorkerId};

/// Packets taken from the rings in one turn before others have theirs.
const SHARE: usize = 256;

impl<D: Datagrams> Worker<D> {
    /// Puts a part of the receive buffer into the ring to another worker.
    pub(super) fn hand_on(&mut self, to: WorkerId, label: Label, packet: Range<usize>) {
        match self.rings.push(to, label, self.received.bytes(packet)) {
            true => self.counters.handed_on += 1,
            false => self.counters.ring_drops += 1,
        }
    }

    /// Takes what other workers have put into the rings.
    pub(super) fn serve_rings(&mut self) {
        let was_rung = self.rings.was_rung();
        if !was_rung && !self.rings.is_unfinished {
            return;
        }
        self.rings.is_unfinished = true;
        let mut room = 0..0;
        for _ in 0..SHARE {
            let Some((label, packet)) = self.take_from_rings(&mut room) else {
                self.rings.is_unfinished = false;
                return;
            };
            if self.outgoing.is_full() {
                self.send();
            }
            let (bytes, ip) = (self.received.bytes(packet.clone()), IpFields { tos: label.tos });
            let verdict = match label.way {
                Way::Shared(socket) => self.core.handle_shared_relay(self.now, socket, label.from, ip, bytes),
                Way::Neighbour(owner) => self.core.handle_neighbour(self.now, owner, label.from, ip, bytes),
            };
            match verdict {
                // It moved on meanwhile; no packet travels twice.
                Verdict::Elsewhere(_) => self.counters.ring_drops += 1,
                verdict => self.carry_out(verdict, packet.start),
            }
            self.drain();
        }
    }

    /// The next packet of the rings, and where in the receive buffer it has been put: into what is left of
    /// `room`, or else into another slot.
    fn take_from_rings(&mut self, room: &mut Range<usize>) -> Option<(Label, Range<usize>)> {
        let taken = self.rings.pop(self.received.bytes_mut(room.clone())).or_else(|| {
            if self.received.vacant() == 0 {
                self.flush();
            }
            let (start, slot) = self.received.claim()?;
            let taken = self.rings.pop(slot);
            *room = start..start + SLOT_LEN;
            if taken.is_none() {
                self.received.unclaim();
            }
            taken
        });
        let (label, len) = taken?;
        let packet = room.start..room.start + len;
        room.start = packet.end;
        Some((label, packet))
    }

    /// Wakes those who were given something in this turn.
    pub(super) fn wake_others(&mut self) {
        for worker in self.rings.sleepers() {
            // Fails only when that worker has ended.
            let _ = self.hands[worker].waker.wake();
        }
    }
}
