//! The second phase of Allocate (RFC 8656 §7.2): its relay sockets are open, or are not, and the client
//! is answered.

use super::{Success, answer_later};
use crate::stun::{ErrorCode, Method};
use crate::turn::allocation::Relayed;
use crate::turn::output::{Now, OpenError, Output, RelayId, Verdict};
use crate::turn::shared::Family;
use crate::turn::table::{AllocationId, Owner};
use crate::turn::{ReplyBuffer, Server};

/// How many ports may turn out to be taken by other programs before a relay cannot be had.
const MAX_TAKEN: u8 = 16;

impl Server {
    /// The answer to [`Output::OpenRelay`] or [`Output::OpenListener`]; the Allocate that waits for it is answered
    /// by the verdict.
    pub fn handle_relay_opened(
        &mut self,
        now: Now,
        relay: RelayId,
        result: Result<(), OpenError>,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        let found = self.table.id_of_relay(relay);
        let Some((id, family)) = found.filter(|(id, _)| self.is_opening(*id)) else {
            // The client left meanwhile.
            if result.is_ok() {
                self.outputs.push_back(Output::CloseRelay { relay });
            }
            return Verdict::Consumed;
        };
        match result {
            Ok(()) => self.note_open(id, family),
            Err(OpenError::InUse) if self.try_another_port(now, id, family) => return Verdict::Consumed,
            Err(OpenError::InUse | OpenError::Unavailable | OpenError::Exhausted) => {
                let is_only = self.table.get(id).is_some_and(|allocation| allocation.relays().count() == 1);
                if is_only {
                    return self.refuse(now, id, reply);
                }
                self.close_relay(id, family, now);
                if let Some(allocation) = self.table.get_mut(id) {
                    allocation.refused = Some((family, ErrorCode::InsufficientCapacity));
                }
            }
        }
        self.grant(now, id, reply)
    }

    fn is_opening(&self, id: AllocationId) -> bool {
        self.table.get(id).is_some_and(|allocation| allocation.opening.is_some())
    }

    fn note_open(&mut self, id: AllocationId, family: Family) {
        if let Some(relay) = self.table.get_mut(id).and_then(|allocation| allocation.relay_mut(family)) {
            relay.is_open = true;
        }
    }

    /// Answers with success, unless another relay of the allocation is still to be opened.
    fn grant(&mut self, now: Now, id: AllocationId, reply: &mut ReplyBuffer) -> Verdict {
        let Some(allocation) = self.table.get_mut(id) else { return Verdict::Consumed };
        if allocation.relays().any(|(_, relay)| !relay.is_open) {
            return Verdict::Consumed;
        }
        let owner = Owner { worker: self.worker, allocation: id };
        for (_, relay) in allocation.relays() {
            match allocation.carries {
                Relayed::Udp => self.shared.set_owner(relay.bind, Some(owner)),
                Relayed::Tcp => self.shared.set_listening(relay.bind, true),
            }
        }
        let Some(mut opening) = allocation.opening.take() else { return Verdict::Consumed };
        self.timers.schedule(allocation.scheduled, id);
        self.stats.allocations_total += 1;
        self.stats.count_request(Method::ALLOCATE, Ok(()));
        self.tell_allocated(now, id);
        let token = opening.reservation.take().map(|reservation| self.reserve(reservation, now));
        let ticket = self.ticket_of(id);
        let Some(allocation) = self.table.get_mut(id) else { return Verdict::Consumed };
        allocation.token = token;
        let success = Success::Allocated(allocation.granted(now.mono), ticket);
        let request = (Method::ALLOCATE, allocation.transaction);
        answer_later(allocation, request, Ok(success), opening.seal, reply)
    }

    /// Another program has the port: draw the next one. False when there is none.
    fn try_another_port(&mut self, now: Now, id: AllocationId, family: Family) -> bool {
        let Some(allocation) = self.table.get_mut(id) else { return false };
        let (Some(opening), Some(taken)) = (
            allocation.opening.as_ref().map(|opening| (opening.taken, opening.parity)),
            allocation.relay(family).map(|relay| relay.bind),
        ) else {
            return false;
        };
        let (count, Some(parity)) = opening else { return false };
        if count == MAX_TAKEN {
            return false;
        }
        let port = self.shared.take_port(taken.ip(), parity, now.mono, &mut self.rng);
        let Some(port) = port else { return false };
        self.shared.return_port(taken, now.mono);
        let mut reserve = None;
        if let Some(opening) = &mut allocation.opening {
            opening.taken += 1;
            if let Some(reservation) = &mut opening.reservation {
                self.shared.return_port(reservation.bind, now.mono);
                reservation.set_port(port + 1);
                reserve = Some(reservation.bind);
            }
        }
        let (relay, carries) = (id.relay(family), allocation.carries);
        let Some(bind) = allocation.set_relayed_port(family, port) else { return false };
        self.outputs.push_back(match carries {
            Relayed::Udp => Output::OpenRelay { relay, bind, reserve },
            Relayed::Tcp => Output::OpenListener { relay, bind },
        });
        true
    }

    fn refuse(&mut self, now: Now, id: AllocationId, reply: &mut ReplyBuffer) -> Verdict {
        let error = ErrorCode::InsufficientCapacity;
        self.stats.count_request(Method::ALLOCATE, Err(error));
        let Some(allocation) = self.close(id, now) else { return Verdict::Consumed };
        match &allocation.opening {
            Some(opening) => {
                let request = (Method::ALLOCATE, allocation.transaction);
                answer_later(&allocation, request, Err(error), opening.seal, reply)
            }
            None => Verdict::Consumed,
        }
    }
}
