//! Deadlines of allocations: a heap that is corrected when an entry comes up, so that refreshing a
//! lifetime costs nothing and the next deadline is O(1).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::table::AllocationId;

/// Room for as many entries is kept.
const MIN_CAPACITY: usize = 1024;

/// When which allocation wants to be looked at. An allocation whose deadline moved further away keeps
/// its early entry; one whose deadline came nearer gets a second one.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Duration, AllocationId)>>,
}

impl Timers {
    pub(super) fn schedule(&mut self, at: Duration, id: AllocationId) {
        self.heap.push(Reverse((at, id)));
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Forgets the entries that nobody waits for any more.
    pub(super) fn retain(&mut self, is_awaited: impl Fn(Duration, AllocationId) -> bool) {
        self.heap.retain(|Reverse((at, id))| is_awaited(*at, *id));
        self.heap.shrink_to(2 * self.heap.len());
    }

    /// The next entry that is due, with the moment it was made for.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<(Duration, AllocationId)> {
        if self.next()? > now {
            return None;
        }
        let entry = self.heap.pop().map(|Reverse(entry)| entry);
        if self.heap.capacity() > 4 * self.heap.len().max(MIN_CAPACITY) {
            self.heap.shrink_to(2 * self.heap.len());
        }
        entry
    }
}
