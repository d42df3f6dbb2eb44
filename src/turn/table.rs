//! All allocations of one worker, found by 5-tuple and by relay socket.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::SeedableRandomState;

use super::allocation::Allocation;
use super::output::{FiveTuple, RelayId, WorkerId};
use super::shared::Family;

/// Names an allocation; the generation tells a slot's allocations apart over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AllocationId {
    index: u32,
    generation: u32,
}

impl AllocationId {
    /// The whole name as a number.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self { index: (bits >> 32) as u32, generation: bits as u32 }
    }

    /// The relay socket of this allocation for a family: two names are set aside for each allocation.
    pub(super) fn relay(self, family: Family) -> RelayId {
        RelayId(self.index * 2 + family as u32)
    }
}

/// An allocation of some worker of the process: no other one is ever called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub(super) worker: WorkerId,
    pub(super) allocation: AllocationId,
}

/// Bits of a slot's number in [`Owner::to_bits`]: each allocation holds a port, and 64 addresses have no more
/// than 2²² of them.
const INDEX_BITS: u32 = 24;

impl Owner {
    /// No owner's bits.
    pub(super) const NOBODY: u64 = u64::MAX;

    /// The worker that has the allocation.
    #[must_use]
    pub fn worker(self) -> WorkerId {
        self.worker
    }

    /// The whole name as a number.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        debug_assert!(self.allocation.index < 1 << INDEX_BITS);
        u64::from(self.worker.0) << (32 + INDEX_BITS) | self.allocation.to_bits()
    }

    /// The name that [`Owner::to_bits`] made the number of.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let allocation = AllocationId::from_bits(bits & ((1 << (32 + INDEX_BITS)) - 1));
        Self { worker: WorkerId((bits >> (32 + INDEX_BITS)) as u8), allocation }
    }
}

/// Removals between two looks at whether memory can be given back.
const LOOK_EVERY: u32 = 256;

/// The allocations.
pub(super) struct Table {
    slots: Vec<Option<Box<Allocation>>>,
    free: Vec<u32>,
    by_path: ByPath,
    /// Counts insertions: no two allocations have one id.
    generation: u32,
    removals: u32,
}

impl Table {
    pub(super) fn new(hasher: SeedableRandomState) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_path: ByPath::new(hasher), generation: 0, removals: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds an allocation; one that stands on the same 5-tuple has been removed before.
    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        self.enter(allocation, true)
    }

    /// The same; without `has_path` it is not found by its 5-tuple.
    pub(super) fn enter(&mut self, mut allocation: Allocation, has_path: bool) -> AllocationId {
        let index = self.free.pop().unwrap_or(self.slots.len() as u32);
        if index as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.generation = self.generation.wrapping_add(1);
        let id = AllocationId { index, generation: self.generation };
        if has_path {
            self.by_path.insert(&allocation.path.five_tuple, index);
        }
        allocation.id = id;
        self.slots[index as usize] = Some(Box::new(allocation));
        id
    }

    pub(super) fn remove(&mut self, id: AllocationId) -> Option<Box<Allocation>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        let allocation = slot.take_if(|allocation| allocation.id == id)?;
        self.free.push(id.index);
        self.by_path.remove(&allocation.path.five_tuple, id.index);
        self.removals = self.removals.wrapping_add(1);
        if self.removals.is_multiple_of(LOOK_EVERY) || self.len() == 0 {
            self.shrink();
        }
        Some(allocation)
    }

    /// Gives memory back when a crowd has gone.
    fn shrink(&mut self) {
        let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if used <= self.slots.len() / 2 {
            self.slots.truncate(used);
            self.slots.shrink_to_fit();
            self.free.retain(|index| (*index as usize) < used);
            self.free.shrink_to_fit();
        }
        self.by_path.shrink();
    }

    /// Finds an allocation by another 5-tuple as well.
    pub(super) fn add_path(&mut self, id: AllocationId, five_tuple: FiveTuple) {
        self.by_path.insert(&five_tuple, id.index);
    }

    /// Finds an allocation by this 5-tuple no longer.
    pub(super) fn remove_path(&mut self, id: AllocationId, five_tuple: FiveTuple) {
        self.by_path.remove(&five_tuple, id.index);
    }

    /// Undoes [`Self::remove`], before anything else was added.
    pub(super) fn put_back(&mut self, allocation: Box<Allocation>, has_path: bool) {
        let index = allocation.id.index;
        while self.slots.len() <= index as usize {
            self.free.push(self.slots.len() as u32);
            self.slots.push(None);
        }
        self.free.retain(|free| *free != index);
        if has_path {
            self.by_path.insert(&allocation.path.five_tuple, index);
        }
        self.slots[index as usize] = Some(allocation);
    }

    pub(super) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        self.at(id.index).filter(|allocation| allocation.id == id)
    }

    pub(super) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        let allocation = self.slots.get_mut(id.index as usize)?.as_deref_mut();
        allocation.filter(|allocation| allocation.id == id)
    }

    pub(super) fn id_of(&self, five_tuple: &FiveTuple) -> Option<AllocationId> {
        self.of_client(five_tuple).map(|allocation| allocation.id)
    }

    pub(super) fn of_client(&self, five_tuple: &FiveTuple) -> Option<&Allocation> {
        self.at(self.by_path.get(five_tuple)?)
    }

    pub(super) fn of_relay(&self, relay: RelayId) -> Option<&Allocation> {
        let allocation = self.named_by(relay)?;
        allocation.relay(family_of(relay)).map(|_| allocation)
    }

    /// The allocation that its relay sockets are called after; it may have lost this one.
    pub(super) fn named_by(&self, relay: RelayId) -> Option<&Allocation> {
        self.at(relay.0 / 2)
    }

    /// The allocation a relay socket belongs to, and the family of the socket.
    pub(super) fn id_of_relay(&self, relay: RelayId) -> Option<(AllocationId, Family)> {
        self.of_relay(relay).map(|allocation| (allocation.id, family_of(relay)))
    }

    /// Slots there are; not all are in use.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The allocation in a slot.
    pub(super) fn in_slot(&mut self, slot: usize) -> Option<&mut Allocation> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Allocation> {
        self.slots.iter_mut().filter_map(Option::as_deref_mut)
    }

    fn at(&self, index: u32) -> Option<&Allocation> {
        self.slots.get(index as usize)?.as_deref()
    }
}

/// Where in the table the allocations of 5-tuples are. Nearly all of these are of IPv4: such a one is looked for as two
/// words, in a third of the memory.
struct ByPath {
    ipv4: HashMap<[u64; 2], u32, SeedableRandomState>,
    others: HashMap<FiveTuple, u32, SeedableRandomState>,
}

impl ByPath {
    fn new(hasher: SeedableRandomState) -> Self {
        Self { ipv4: HashMap::with_hasher(hasher.clone()), others: HashMap::with_hasher(hasher) }
    }

    fn insert(&mut self, five_tuple: &FiveTuple, index: u32) {
        match words(five_tuple) {
            Some(words) => self.ipv4.insert(words, index),
            None => self.others.insert(*five_tuple, index),
        };
    }

    fn get(&self, five_tuple: &FiveTuple) -> Option<u32> {
        match words(five_tuple) {
            Some(words) => self.ipv4.get(&words),
            None => self.others.get(five_tuple),
        }
        .copied()
    }

    /// Removes it if it leads there.
    fn remove(&mut self, five_tuple: &FiveTuple, index: u32) {
        if self.get(five_tuple) == Some(index) {
            match words(five_tuple) {
                Some(words) => self.ipv4.remove(&words),
                None => self.others.remove(five_tuple),
            };
        }
    }

    /// Gives memory back when a crowd has gone.
    fn shrink(&mut self) {
        if self.ipv4.capacity() > 4 * self.ipv4.len() {
            self.ipv4.shrink_to_fit();
        }
        if self.others.capacity() > 4 * self.others.len() {
            self.others.shrink_to_fit();
        }
    }
}

/// All of a 5-tuple of IPv4.
fn words(five_tuple: &FiveTuple) -> Option<[u64; 2]> {
    let FiveTuple { client: SocketAddr::V4(client), server: SocketAddr::V4(server), transport } = five_tuple
    else {
        return None;
    };
    let ips = u64::from(client.ip().to_bits()) << 32 | u64::from(server.ip().to_bits());
    let ports = u64::from(client.port()) << 16 | u64::from(server.port());
    Some([ips, ports << 8 | *transport as u64])
}

fn family_of(relay: RelayId) -> Family {
    Family::BOTH[relay.0 as usize % 2]
}
