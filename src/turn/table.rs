//! All allocations of one worker, found by 5-tuple, by relay socket and by its local address.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::SeedableRandomState;

use super::allocation::{Allocation, Relay};
use super::output::{FiveTuple, RelayId};
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

/// Removals between two looks at whether memory can be given back.
const LOOK_EVERY: u32 = 256;

/// The allocations.
pub(super) struct Table {
    slots: Vec<Option<Box<Allocation>>>,
    free: Vec<u32>,
    by_five_tuple: HashMap<FiveTuple, u32, SeedableRandomState>,
    by_relay_address: HashMap<SocketAddr, u32, SeedableRandomState>,
    /// Counts insertions: no two allocations have one id.
    generation: u32,
    removals: u32,
}

impl Table {
    pub(super) fn new(hasher: SeedableRandomState) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_five_tuple: HashMap::with_hasher(hasher.clone()),
            by_relay_address: HashMap::with_hasher(hasher),
            generation: 0,
            removals: 0,
        }
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
            self.by_five_tuple.insert(allocation.path.five_tuple, index);
        }
        self.by_relay_address.extend(allocation.relays().map(|(_, relay)| (relay.bind, index)));
        allocation.id = id;
        self.slots[index as usize] = Some(Box::new(allocation));
        id
    }

    pub(super) fn remove(&mut self, id: AllocationId) -> Option<Box<Allocation>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        let allocation = slot.take_if(|allocation| allocation.id == id)?;
        self.free.push(id.index);
        if self.by_five_tuple.get(&allocation.path.five_tuple) == Some(&id.index) {
            self.by_five_tuple.remove(&allocation.path.five_tuple);
        }
        for (_, relay) in allocation.relays() {
            self.by_relay_address.remove(&relay.bind);
        }
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
        if self.by_five_tuple.capacity() > 4 * self.by_five_tuple.len() {
            self.by_five_tuple.shrink_to_fit();
            self.by_relay_address.shrink_to_fit();
        }
    }

    /// Finds an allocation by another 5-tuple as well.
    pub(super) fn add_path(&mut self, id: AllocationId, five_tuple: FiveTuple) {
        self.by_five_tuple.insert(five_tuple, id.index);
    }

    /// Finds an allocation by this 5-tuple no longer.
    pub(super) fn remove_path(&mut self, id: AllocationId, five_tuple: FiveTuple) {
        if self.by_five_tuple.get(&five_tuple) == Some(&id.index) {
            self.by_five_tuple.remove(&five_tuple);
        }
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
            self.by_five_tuple.insert(allocation.path.five_tuple, index);
        }
        self.by_relay_address.extend(allocation.relays().map(|(_, relay)| (relay.bind, index)));
        self.slots[index as usize] = Some(allocation);
    }

    /// Takes one relay of a dual allocation away.
    pub(super) fn remove_relay(&mut self, id: AllocationId, family: Family) -> Option<Relay> {
        let relay = self.get_mut(id)?.remove_relay(family)?;
        self.by_relay_address.remove(&relay.bind);
        Some(relay)
    }

    /// Moves a relay that is still to be opened to another port; its local address.
    pub(super) fn set_relayed_port(
        &mut self,
        id: AllocationId,
        family: Family,
        port: u16,
    ) -> Option<SocketAddr> {
        let relay = self.get_mut(id)?.relay_mut(family)?;
        let before = relay.bind;
        relay.relayed.set_port(port);
        relay.bind.set_port(port);
        let after = relay.bind;
        self.by_relay_address.remove(&before);
        self.by_relay_address.insert(after, id.index);
        Some(after)
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
        self.at(*self.by_five_tuple.get(five_tuple)?)
    }

    pub(super) fn of_relay(&self, relay: RelayId) -> Option<&Allocation> {
        let allocation = self.at(relay.0 / 2)?;
        allocation.relay(family_of(relay)).map(|_| allocation)
    }

    /// The allocation a relay socket belongs to, and the family of the socket.
    pub(super) fn id_of_relay(&self, relay: RelayId) -> Option<(AllocationId, Family)> {
        self.of_relay(relay).map(|allocation| (allocation.id, family_of(relay)))
    }

    /// The allocation whose relay socket is bound to this local address.
    pub(super) fn of_relay_address(&self, bind: SocketAddr) -> Option<&Allocation> {
        self.at(*self.by_relay_address.get(&bind)?)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Allocation> {
        self.slots.iter_mut().filter_map(Option::as_deref_mut)
    }

    fn at(&self, index: u32) -> Option<&Allocation> {
        self.slots.get(index as usize)?.as_deref()
    }
}

fn family_of(relay: RelayId) -> Family {
    Family::BOTH[relay.0 as usize % 2]
}
