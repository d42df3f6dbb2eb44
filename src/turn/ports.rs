//! The relay ports of one local address: which are free, which rest, and drawing one.
//!
//! Every step here costs the same however many ports there are and however few of them are free: free ports
//! stand in bags, of which any member is drawn or removed at once, and resting ones in a queue linked through
//! the ports themselves. The memory is fixed by the range.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// A port that was given back rests this long before it is drawn again while others are free, so that
/// packets meant for the allocation before do not reach the next one.
pub(super) const COOL_DOWN: Duration = Duration::from_secs(120);

/// Rested ports that one draw takes note of: more than one, so that none rests for ever.
const WOKEN_AT_ONCE: usize = 8;

/// Which ports will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    Any,
    /// EVEN-PORT (RFC 8656 §18.7).
    Even,
    /// EVEN-PORT with the R bit: an even one whose next higher one is free as well.
    Pair,
}

/// Where a port of the range is; a pair is where the worse of its two is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Taken,
    Resting,
    Rested,
}

/// Indices by which ports are sorted: by their own parity.
const EVEN: usize = 0;
const ODD: usize = 1;

/// Free ports of one address: a random one of those that rested is drawn, or else the one that has rested
/// longest. Inside, a port is named by how far behind the first one it stands.
#[derive(Debug)]
pub(super) struct PortPool {
    first: u16,
    places: Box<[Place]>,
    rested: [Bag; 2],
    resting: [Queue; 2],
    links: Box<[Link]>,
    /// The lower ports of pairs that have rested.
    rested_pairs: Bag,
    /// The lower ports of pairs that are free, rested or not.
    free_pairs: Bag,
}

impl PortPool {
    pub(super) fn new(ports: RangeInclusive<u16>) -> Self {
        let count = ports.len();
        let mut pool = Self {
            first: *ports.start(),
            places: vec![Place::Taken; count].into(),
            rested: [Bag::new(count), Bag::new(count)],
            resting: [Queue::default(), Queue::default()],
            links: vec![Link::default(); count].into(),
            rested_pairs: Bag::new(count),
            free_pairs: Bag::new(count),
        };
        ports.for_each(|port| pool.put(port - pool.first, Place::Rested));
        pool
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        [EVEN, ODD].map(|side| self.rested[side].len() + self.resting[side].len).iter().sum()
    }

    /// Whether [`Self::take`] would find one.
    pub(super) fn has(&self, parity: Parity) -> bool {
        match parity {
            Parity::Any => self.free() > 0,
            Parity::Even => self.rested[EVEN].len() + self.resting[EVEN].len > 0,
            Parity::Pair => self.free_pairs.len() > 0,
        }
    }

    /// Draws a port; of a pair the lower one, and both are taken.
    pub(super) fn take(&mut self, parity: Parity, now: Duration, rng: &mut StdRng) -> Option<u16> {
        self.wake(now);
        let at = match parity {
            Parity::Any => self.any_rested(rng).or_else(|| self.longest_resting()),
            Parity::Even => self.rested[EVEN].draw(rng).or_else(|| self.resting[EVEN].front()),
            Parity::Pair => self.rested_pairs.draw(rng).or_else(|| self.free_pairs.draw(rng)),
        }?;
        self.put(at, Place::Taken);
        if parity == Parity::Pair {
            self.put(at + 1, Place::Taken);
        }
        Some(self.first + at)
    }

    /// Gives a port back, to rest first.
    pub(super) fn give_back(&mut self, port: u16, now: Duration) {
        let at = port - self.first;
        self.links[usize::from(at)].until = now + COOL_DOWN;
        self.put(at, Place::Resting);
    }

    /// Those that have rested long enough, a few at a time.
    fn wake(&mut self, now: Duration) {
        for side in [EVEN, ODD] {
            for _ in 0..WOKEN_AT_ONCE {
                step();
                let due = self.resting[side].front();
                let Some(at) = due.filter(|&at| self.until(at) <= now) else { break };
                self.put(at, Place::Rested);
            }
        }
    }

    fn any_rested(&self, rng: &mut StdRng) -> Option<u16> {
        let [even, odd] = [EVEN, ODD].map(|side| self.rested[side].len());
        let drawn = rng.random_range(0..(even + odd).max(1));
        self.rested[EVEN].nth(drawn).or_else(|| self.rested[ODD].nth(drawn - even))
    }

    fn longest_resting(&self) -> Option<u16> {
        let fronts = [EVEN, ODD].map(|side| self.resting[side].front());
        fronts.into_iter().flatten().min_by_key(|&at| self.until(at))
    }

    fn until(&self, at: u16) -> Duration {
        self.links[usize::from(at)].until
    }

    /// Moves a port from where it is to another place, and its pair with it.
    fn put(&mut self, at: u16, place: Place) {
        step();
        let pair = self.pair_of(at);
        let before = pair.map(|lower| self.place_of_pair(lower));
        let side = self.side(at);
        match std::mem::replace(&mut self.places[usize::from(at)], place) {
            Place::Rested => self.rested[side].remove(at),
            Place::Resting => self.resting[side].remove(at, &mut self.links),
            Place::Taken => {}
        }
        match place {
            Place::Rested => self.rested[side].insert(at),
            Place::Resting => self.resting[side].push_back(at, &mut self.links),
            Place::Taken => {}
        }
        if let Some((lower, before)) = pair.zip(before) {
            let after = self.place_of_pair(lower);
            self.rested_pairs.set(lower, before == Place::Rested, after == Place::Rested);
            self.free_pairs.set(lower, before != Place::Taken, after != Place::Taken);
        }
    }

    /// The index of the bags and queues that hold this port.
    fn side(&self, at: u16) -> usize {
        usize::from((self.first + at) % 2)
    }

    /// The lower port of the pair that a port belongs to; at the ends of the range there may be none.
    fn pair_of(&self, at: u16) -> Option<u16> {
        let lower = if self.side(at) == EVEN { Some(at) } else { at.checked_sub(1) };
        lower.filter(|&lower| usize::from(lower) + 1 < self.places.len())
    }

    fn place_of_pair(&self, lower: u16) -> Place {
        self.places[usize::from(lower)].min(self.places[usize::from(lower) + 1])
    }
}

/// Ports in no order.
#[derive(Debug)]
struct Bag {
    members: Vec<u16>,
    /// Where each member stands in the list; says nothing of other ports.
    position: Box<[u16]>,
}

impl Bag {
    fn new(count: usize) -> Self {
        Self { members: Vec::new(), position: vec![0; count].into() }
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn nth(&self, n: usize) -> Option<u16> {
        step();
        self.members.get(n).copied()
    }

    fn draw(&self, rng: &mut StdRng) -> Option<u16> {
        self.nth(rng.random_range(0..self.len().max(1)))
    }

    fn insert(&mut self, at: u16) {
        step();
        self.position[usize::from(at)] = self.members.len() as u16;
        self.members.push(at);
    }

    fn remove(&mut self, at: u16) {
        step();
        let position = self.position[usize::from(at)];
        self.members.swap_remove(usize::from(position));
        if let Some(&moved) = self.members.get(usize::from(position)) {
            self.position[usize::from(moved)] = position;
        }
    }

    /// Makes a member of what was none, or the other way round.
    fn set(&mut self, at: u16, was: bool, is: bool) {
        match (was, is) {
            (false, true) => self.insert(at),
            (true, false) => self.remove(at),
            (true, true) | (false, false) => {}
        }
    }
}

/// A resting port: its neighbours in the queue, and when it has rested.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    earlier: u16,
    later: u16,
    until: Duration,
}

/// Resting ports in the order in which they were given back.
#[derive(Debug, Default)]
struct Queue {
    first: u16,
    last: u16,
    len: usize,
}

impl Queue {
    fn front(&self) -> Option<u16> {
        (self.len > 0).then_some(self.first)
    }

    fn push_back(&mut self, at: u16, links: &mut [Link]) {
        step();
        if self.len == 0 {
            self.first = at;
        } else {
            links[usize::from(self.last)].later = at;
            links[usize::from(at)].earlier = self.last;
        }
        self.last = at;
        self.len += 1;
    }

    fn remove(&mut self, at: u16, links: &mut [Link]) {
        step();
        let Link { earlier, later, .. } = links[usize::from(at)];
        match (at == self.first, at == self.last) {
            (true, true) => {}
            (true, false) => self.first = later,
            (false, true) => self.last = earlier,
            (false, false) => {
                links[usize::from(earlier)].later = later;
                links[usize::from(later)].earlier = earlier;
            }
        }
        self.len -= 1;
    }
}

#[cfg(test)]
thread_local!(static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });

/// Counted by the tests: all that is done stands in steps.
fn step() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    fn rng() -> StdRng {
        StdRng::from_seed([5; 32])
    }

    /// The most steps that giving back and drawing takes in a pool of which `taken` of 1,000 ports are taken.
    fn most_steps(parity: Parity, taken: usize) -> usize {
        let (mut pool, mut rng, mut now) = (PortPool::new(50_000..=59_999), rng(), Duration::ZERO);
        let mut held: Vec<u16> =
            (0..taken * 10).filter_map(|_| pool.take(Parity::Any, now, &mut rng)).collect();
        let mut most = 0;
        for _ in 0..2_000 {
            now += Duration::from_millis(100);
            let (before, any) = (STEPS.get(), pool.has(parity));
            let drawn = pool.take(parity, now, &mut rng);
            assert_eq!(drawn.is_some(), any);
            most = most.max(STEPS.get() - before);
            held.extend(drawn.into_iter().flat_map(|port| match parity {
                Parity::Pair => vec![port, port + 1],
                Parity::Any | Parity::Even => vec![port],
            }));
            while held.len() > taken * 10 {
                let port = held.swap_remove(rng.random_range(0..held.len()));
                let before = STEPS.get();
                pool.give_back(port, now);
                most = most.max(STEPS.get() - before);
            }
        }
        most
    }

    #[test]
    fn drawing_a_port_costs_the_same_when_few_are_left() {
        // One draw notes at most 8 ports of either parity as rested, and each move is a handful of steps.
        const MOST: usize = 2 * (WOKEN_AT_ONCE + 1) * 8;
        for parity in [Parity::Any, Parity::Even, Parity::Pair] {
            for taken in [50, 500, 950, 999] {
                let steps = most_steps(parity, taken);
                assert!(steps <= MOST, "{parity:?}, {taken} of 1000 taken: {steps} steps");
            }
        }
    }

    #[test]
    fn those_that_have_rested_are_noted_a_few_at_a_time_and_none_is_lost() {
        let (mut pool, mut rng) = (PortPool::new(50_000..=50_099), rng());
        let all: Vec<u16> = std::iter::from_fn(|| pool.take(Parity::Any, Duration::ZERO, &mut rng)).collect();
        all.iter().for_each(|&port| pool.give_back(port, Duration::ZERO));
        let mut again: Vec<u16> =
            std::iter::from_fn(|| pool.take(Parity::Any, COOL_DOWN, &mut rng)).collect();
        again.sort_unstable();
        assert_eq!(again, (50_000..=50_099).collect::<Vec<_>>());
    }

    proptest! {
        /// Against the plain rule: a port is drawn once, rests, and what has rested goes first.
        #[test]
        fn a_pool_does_what_a_list_of_ports_does(
            first in 50_000_u16..50_002,
            count in 1_u16..12,
            acts in proptest::collection::vec((0_u8..6, any::<u16>(), 0_u64..60), 1..200),
        ) {
            let mut pool = PortPool::new(first..=first + count - 1);
            // Since when each free port is free; `None` is since ever.
            let mut free: BTreeMap<u16, Option<Duration>> = (first..first + count).map(|port| (port, None)).collect();
            let (mut rng, mut now) = (rng(), Duration::ZERO);
            for (act, which, later) in acts {
                now += Duration::from_secs(later);
                let parity = match act {
                    0 | 1 => Parity::Any,
                    2 => Parity::Even,
                    3 => Parity::Pair,
                    _ => {
                        let taken: Vec<u16> = (first..first + count).filter(|port| !free.contains_key(port)).collect();
                        if let Some(&port) = taken.get(usize::from(which) % taken.len().max(1)) {
                            pool.give_back(port, now);
                            free.insert(port, Some(now));
                        }
                        continue;
                    }
                };
                let fits = |port: u16, free: &BTreeMap<u16, Option<Duration>>| match parity {
                    Parity::Any => free.contains_key(&port),
                    Parity::Even => port.is_multiple_of(2) && free.contains_key(&port),
                    Parity::Pair => {
                        port.is_multiple_of(2) && free.contains_key(&port) && free.contains_key(&(port + 1))
                    }
                };
                let any = free.keys().any(|&port| fits(port, &free));
                prop_assert_eq!(pool.has(parity), any);
                let drawn = pool.take(parity, now, &mut rng);
                prop_assert_eq!(drawn.is_some(), any);
                let Some(port) = drawn else { continue };
                prop_assert!(fits(port, &free));
                let rested = |port: u16| free[&port].is_none_or(|since| since + COOL_DOWN <= now);
                let ports = if parity == Parity::Pair { vec![port, port + 1] } else { vec![port] };
                let all_rested = |port: u16| ports.iter().all(|&drawn| rested(port + (drawn - ports[0])));
                if !all_rested(port) {
                    prop_assert!(!free.keys().any(|&port| fits(port, &free) && all_rested(port)), "a rested one was free");
                }
                free.retain(|port, _| !ports.contains(port));
                prop_assert_eq!(pool.free(), free.len());
            }
        }
    }
}
