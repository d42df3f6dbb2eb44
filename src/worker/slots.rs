//! A table whose names are never confused with earlier ones.

/// Bits of a name that count slots; those above count generations.
const SLOT_BITS: u32 = 20;
const GENERATIONS: u32 = 1 << (30 - SLOT_BITS);
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

/// Entries by a name of 30 bits: a slot and how often it was reused.
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Puts in what `make` makes of its name; `None` if the table is full.
    pub(super) fn insert(&mut self, make: impl FnOnce(u32) -> T) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < 1 << SLOT_BITS => {
                self.slots.push(Slot { generation: 0, entry: None });
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let place = &mut self.slots[slot as usize];
        let name = place.generation << SLOT_BITS | slot;
        place.entry = Some(make(name));
        Some(name)
    }

    fn slot_mut(&mut self, name: u32) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut((name & SLOT_MASK) as usize)?;
        (slot.generation == name >> SLOT_BITS).then_some(slot)
    }

    pub(super) fn get_mut(&mut self, name: u32) -> Option<&mut T> {
        self.slot_mut(name)?.entry.as_mut()
    }

    pub(super) fn remove(&mut self, name: u32) -> Option<T> {
        let slot = self.slot_mut(name)?;
        let entry = slot.entry.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(name & SLOT_MASK);
        Some(entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref())
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_outlive_its_entry() {
        let mut slots = Slots::default();
        let first = slots.insert(|name| name).expect("room");
        assert_eq!(slots.remove(first), Some(first));
        let second = slots.insert(|name| name).expect("room");
        assert_eq!(second & SLOT_MASK, first & SLOT_MASK, "the slot is used again");
        assert!(slots.get_mut(first).is_none() && slots.remove(first).is_none());
        assert_eq!((slots.get_mut(second).copied(), slots.len()), (Some(second), 1));
        assert!(second < 1 << 30);
    }
}
