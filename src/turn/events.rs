//! What happens to credentials and allocations, for whoever keeps books: who was not believed, who got an allocation,
//! when its first byte was relayed, and every few seconds and at its end what it has carried.
//!
//! The data path only counts ([`Carried`]). What is told goes into a bounded queue that the worker empties once a
//! second; what finds no room is counted. Failures have a small share of it: who knows no password cannot crowd out
//! what is due to others, and nobody is told of who has not sent back a nonce.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng as _;

use super::Server;
use super::allocation::Allocation;
use super::auth::Caller;
use super::bandwidth::Direction;
use super::offload::{Count, FlowId, Usage};
use super::output::{Now, Transport};
use super::request::Request;
use super::table::AllocationId;
use crate::credential::{AuthFailure, parts_of};
use crate::stun::{AttributeType, ErrorCode};

/// Events that wait for the worker.
const EVENTS: usize = 4096;

/// Failures among them.
const FAILURES: usize = 128;

/// Allocations that are looked at in one go for their first byte.
const LOOK: usize = 256;

/// How often it is told what an allocation has carried so far.
const SO_FAR: Duration = Duration::from_secs(5);

/// Slots that are looked at for it in one go.
const SLOTS: usize = 2048;

/// Something that happened to a credential or an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The user of the credential.
    pub user: Box<str>,
    /// What the credential was made for: a signaling session or a call; empty where it was for neither.
    pub session: Box<str>,
    /// When, on the scale of [`Now::mono`].
    pub at: Duration,
    /// What happened.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The credential was not believed. Told only of those that were made for a session.
    AuthFailed(AuthFailure),
    /// The credential is good, and there was no allocation to be had.
    NotAllocated(ErrorCode),
    /// There is an allocation.
    Allocated {
        /// How the client reaches it.
        transport: Transport,
        /// Whether it has a relayed address of IPv4, and of IPv6.
        families: [bool; 2],
    },
    /// The first byte was relayed.
    FirstByte,
    /// An allocation stands, and has carried more than was told before.
    Carried(Account),
    /// An allocation has ended. Told of one that was made for no session only where it may have carried something.
    Ended(Account),
}

/// What an allocation has carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Names the allocation among all there are and were.
    pub name: u64,
    /// How the client reaches it.
    pub transport: Transport,
    /// For how long it has stood.
    pub lasted: Duration,
    /// Packets and bytes.
    pub usage: Usage,
}

/// What an allocation has carried. The data path sees allocations through a shared reference, hence the cells; what each packet
/// changes is at the front, in one cache line.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Carried {
    packets: [Cell<u64>; 2],
    bytes: [Cell<u64>; 2],
    /// When the first packet was; zero before.
    first: Cell<Duration>,
    /// When the allocation was granted.
    since: Duration,
    /// Whether the first byte is still to be told of.
    is_awaited: bool,
    /// Names the allocation to whoever keeps books.
    name: u64,
    /// The packets and bytes that were told, and when.
    told: u64,
    told_at: Duration,
}

impl Carried {
    /// Whether there was a packet.
    pub(super) fn is_any(&self) -> bool {
        !self.first.get().is_zero()
    }

    /// Counts packets of `bytes` each.
    pub(super) fn count(&self, direction: Direction, packets: usize, bytes: usize, now: Now) {
        if !self.is_any() {
            self.first.set(now.mono);
        }
        let at = direction as usize;
        self.packets[at].set(self.packets[at].get() + packets as u64);
        self.bytes[at].set(self.bytes[at].get() + (packets * bytes) as u64);
    }

    /// Counts what was carried without the core, and not told packet by packet.
    pub(super) fn add(&self, more: Usage, now: Option<Now>) {
        if let Some(now) = now.filter(|_| !self.is_any() && more != Usage::default()) {
            self.first.set(now.mono);
        }
        for (at, count) in [more.to_peer, more.to_client].into_iter().enumerate() {
            self.packets[at].set(self.packets[at].get() + count.packets);
            self.bytes[at].set(self.bytes[at].get() + count.bytes);
        }
    }

    fn usage(&self) -> Usage {
        let [to_peer, to_client] =
            [0, 1].map(|at| Count { packets: self.packets[at].get(), bytes: self.bytes[at].get() });
        Usage { to_peer, to_client }
    }

    /// Whether it is time to tell more, which is then taken as told.
    fn take_due(&mut self, now: Now) -> bool {
        // Some packets are empty, and connections count no packets.
        let count = self.packets.iter().chain(&self.bytes).map(Cell::get).fold(0, u64::wrapping_add);
        let is_due = count != self.told && now.mono.saturating_sub(self.told_at) >= SO_FAR;
        if is_due {
            (self.told, self.told_at) = (count, now.mono);
        }
        is_due
    }

    /// When the first byte was, once.
    fn take_first(&mut self) -> Option<Duration> {
        (self.is_any() && std::mem::take(&mut self.is_awaited)).then(|| self.first.get())
    }
}

/// Events on their way to the worker.
#[derive(Default)]
pub(super) struct Events {
    queue: Vec<(AllocationId, Event)>,
    failures: usize,
    dropped: u64,
    /// Allocations whose first byte is still to come, or has not been told of yet.
    awaited: VecDeque<AllocationId>,
    /// The slot that is looked at next for what its allocation has carried.
    next_slot: usize,
}

impl Events {
    /// Events that found no room, since start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn push(&mut self, of: AllocationId, event: Event) {
        let is_failure = matches!(event.what, Happening::AuthFailed(_) | Happening::NotAllocated(_));
        if self.queue.len() >= EVENTS || is_failure && self.failures >= FAILURES {
            self.dropped += 1;
            return;
        }
        self.failures += usize::from(is_failure);
        self.queue.push((of, event));
    }
}

impl Server {
    /// What has happened since the last call, in its order.
    pub fn take_events(&mut self, now: Now) -> Vec<Event> {
        for _ in 0..self.events.awaited.len().min(LOOK) {
            let Some(id) = self.events.awaited.pop_front() else { break };
            self.tell_first_byte(id);
            if self.table.get(id).is_some_and(|allocation| allocation.carried.is_awaited) {
                self.events.awaited.push_back(id);
            }
        }
        self.tell_carried(now);
        debug_assert!(self.events.queue.iter().all(|(_, event)| event.at <= now.mono));
        self.events.failures = 0;
        std::mem::take(&mut self.events.queue).into_iter().map(|(_, event)| event).collect()
    }

    /// Whether so much waits that it should be taken before its time.
    #[must_use]
    pub fn has_many_events(&self) -> bool {
        self.events.queue.len() >= EVENTS / 2
    }

    /// A credential was not believed. Only what may concern a call is told, and only of who can be reached at its
    /// address.
    pub(super) fn tell_failure(&mut self, request: &Request<'_>, failure: AuthFailure) {
        let value = |kind| request.message.attribute(kind).map(|attribute| attribute.value);
        let name = value(AttributeType::USERNAME).and_then(|name| std::str::from_utf8(name).ok());
        let Some((user, session)) = name.and_then(parts_of).filter(|(_, session)| !session.is_empty()) else {
            return;
        };
        let is_known = match failure {
            AuthFailure::StaleNonce | AuthFailure::ForeignNonce => false,
            _ => value(AttributeType::NONCE)
                .is_some_and(|nonce| self.check_nonce(request, nonce, None).is_ok()),
        };
        if is_known {
            let event = Event {
                user: user.into(),
                session: session.into(),
                at: request.now.mono,
                what: Happening::AuthFailed(failure),
            };
            self.events.push(AllocationId::default(), event);
        }
    }

    /// Somebody who may allocate was given nothing.
    pub(super) fn tell_refused(&mut self, now: Now, caller: &Caller, error: ErrorCode) {
        let session =
            session_of(&caller.username, caller.expiry.is_some_and(|expiry| !expiry.ends_allocation));
        // 437 is said to who has one.
        if !session.is_empty() && error != ErrorCode::AllocationMismatch {
            let what = Happening::NotAllocated(error);
            let event = Event { user: caller.user.clone(), session: session.into(), at: now.mono, what };
            self.events.push(AllocationId::default(), event);
        }
    }

    /// An allocation was granted.
    pub(super) fn tell_allocated(&mut self, now: Now, id: AllocationId) {
        let name = self.rng.next_u64();
        let Some(allocation) = self.table.get_mut(id) else { return };
        let carried = &mut allocation.carried;
        (carried.since, carried.told_at, carried.name) = (now.mono, now.mono, name);
        if session(allocation).is_empty() {
            return;
        }
        allocation.carried.is_awaited = true;
        let families = crate::turn::shared::Family::BOTH.map(|family| allocation.relay(family).is_some());
        let what = Happening::Allocated { transport: allocation.path.five_tuple.transport, families };
        let event = event(allocation, now.mono, what);
        self.events.awaited.push_back(id);
        self.events.push(id, event);
    }

    /// An allocation came from another worker.
    pub(super) fn await_first_byte(&mut self, id: AllocationId) {
        if self.table.get(id).is_some_and(|allocation| allocation.carried.is_awaited) {
            self.events.awaited.push_back(id);
        }
    }

    fn tell_first_byte(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        if let Some(first) = allocation.carried.take_first() {
            let event = event(allocation, first, Happening::FirstByte);
            self.events.push(id, event);
        }
    }

    /// What allocations that stand have carried so far; of many, some of them each time.
    fn tell_carried(&mut self, now: Now) {
        let slots = self.table.slots();
        for _ in 0..slots.min(SLOTS) {
            // What has ended or failed comes first: this is told again.
            if self.has_many_events() {
                return;
            }
            let slot = self.events.next_slot.min(slots - 1);
            self.events.next_slot = (slot + 1) % slots;
            let Some(allocation) = self.table.in_slot(slot) else { continue };
            if allocation.opening.is_none() && allocation.carried.take_due(now) {
                let id = allocation.id;
                let event = event(allocation, now.mono, Happening::Carried(account(allocation, now)));
                self.events.push(id, event);
            }
        }
    }

    /// An allocation is about to end. One that carried nothing is of interest to its session only.
    pub(super) fn tell_ended(&mut self, now: Now, id: AllocationId) {
        self.tell_first_byte(id);
        let Some(allocation) = self.table.get(id).filter(|allocation| allocation.opening.is_none()) else {
            return;
        };
        let account = account(allocation, now);
        // What the kernel has relayed may be counted after the end only.
        let is_all = self.shared.offload().is_none();
        if is_all && account.usage == Usage::default() && session(allocation).is_empty() {
            return;
        }
        let event = event(allocation, now.mono, Happening::Ended(account));
        self.events.push(id, event);
    }

    /// What a flow has carried without this core belongs to its allocation, also where that has just ended.
    pub(super) fn carried_elsewhere(&mut self, now: Now, flow: FlowId, more: Usage) {
        let Some(id) = self.mirror.owner_of(flow) else { return };
        if let Some(allocation) = self.table.get(id) {
            return allocation.carried.add(more, Some(now));
        }
        let ended = self.events.queue.iter_mut().rev().find(|(of, _)| *of == id);
        if let Some((_, Event { what: Happening::Ended(account), .. })) = ended {
            account.usage.add(more);
        }
    }

    /// Ends all allocations, so that what they have carried is told.
    pub fn handle_stop(&mut self, now: Now) {
        let all: Vec<_> = self.table.iter_mut().map(|allocation| allocation.id).collect();
        for id in all {
            self.close(id, now);
        }
    }
}

fn account(allocation: &Allocation, now: Now) -> Account {
    Account {
        name: allocation.carried.name,
        transport: allocation.path.five_tuple.transport,
        lasted: now.mono.saturating_sub(allocation.carried.since),
        usage: allocation.carried.usage(),
    }
}

fn event(allocation: &Allocation, at: Duration, what: Happening) -> Event {
    Event { user: allocation.user.clone(), session: session(allocation).into(), at, what }
}

fn session(allocation: &Allocation) -> &str {
    session_of(&allocation.username, allocation.expiry.is_some_and(|expiry| !expiry.ends_allocation))
}

/// The session in a time-limited user name; other names have none.
fn session_of(username: &str, is_time_limited: bool) -> &str {
    parts_of(username).filter(|_| is_time_limited).map_or("", |(_, session)| session)
}
