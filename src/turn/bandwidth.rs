//! Bytes a second: of one allocation, of a user's allocations, and of all (off by default).
//!
//! A [`Meter`] is a token bucket kept as one number, the time at which it will be full again, so workers
//! can share one without a lock. Each limit holds for the two directions apart, to peers and to clients,
//! and counts the payload of what is relayed. What exceeds it is dropped, as a narrow link would drop it.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::shared::lock;

/// How much of its rate a meter passes at once after a rest.
const BURST: Duration = Duration::from_secs(1);

/// Bytes a second in each direction; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Of one allocation.
    pub allocation: u64,
    /// Of all allocations of one user.
    pub user: u64,
    /// Of all allocations of all workers.
    pub total: u64,
}

impl Bandwidth {
    /// Whether there is any limit.
    pub(super) fn is_limited(&self) -> bool {
        self.allocation | self.user | self.total != 0
    }

    /// Whether `bytes` may pass the meters of an allocation, its user and all; if so they are counted.
    /// Workers that ask at the same time may both be let through: the excess is theirs to make up for.
    pub(super) fn may_pass(&self, meters: [&Meter; 3], bytes: usize, now: Duration) -> bool {
        let is_open = self.is_open(meters, now);
        if is_open {
            self.pass(meters, bytes, now);
        }
        is_open
    }

    /// Whether something may pass.
    pub(super) fn is_open(&self, meters: [&Meter; 3], now: Duration) -> bool {
        self.limited(meters).all(|(_, meter)| is_open(meter, now))
    }

    /// Counts what has passed.
    pub(super) fn pass(&self, meters: [&Meter; 3], bytes: usize, now: Duration) {
        self.limited(meters).for_each(|(rate, meter)| pass(meter, now, time_of(bytes, rate)));
    }

    /// Of an allocation, its user and all.
    #[must_use]
    pub fn rates(&self) -> [u64; 3] {
        [self.allocation, self.user, self.total]
    }

    /// The meters that have a rate.
    fn limited<'a>(&self, meters: [&'a Meter; 3]) -> impl Iterator<Item = (u64, &'a Meter)> + use<'a> {
        self.rates().into_iter().zip(meters).filter(|(rate, _)| *rate != 0)
    }
}

/// How long a rate takes for so many bytes.
fn time_of(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000).div_ceil(rate))
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToPeer = 0,
    ToClient = 1,
}

/// A meter for each direction.
#[derive(Debug)]
pub(super) enum Meters {
    /// Seen by this program only.
    Own([Meter; 2]),
    /// Seen by whoever relays offloaded flows as well.
    Lent(Lent),
}

impl Default for Meters {
    fn default() -> Self {
        Self::Own(Default::default())
    }
}

impl Meters {
    pub(super) fn of(&self, direction: Direction) -> &Meter {
        match self {
            Self::Own(meters) => &meters[direction as usize],
            Self::Lent(lent) => &lent.of.all[2 * lent.pair as usize + direction as usize],
        }
    }

    /// Which of the lent ones, if it is one.
    pub(super) fn pair(&self) -> Option<u32> {
        match self {
            Self::Own(_) => None,
            Self::Lent(lent) => Some(lent.pair),
        }
    }
}

/// Words that something outside of this program reads and writes as well.
pub type SharedWords = Arc<dyn Deref<Target = [AtomicU64]> + Send + Sync>;

/// Meters that something outside of this program reads and writes as well, by the rule of [`take`].
pub(super) struct Lender {
    all: SharedWords,
    /// Pairs nobody has, the one that was given back last at the end.
    free: Mutex<VecDeque<u32>>,
}

impl Lender {
    pub(super) fn new(all: SharedWords) -> Self {
        let free = Mutex::new((0..all.len() as u32 / 2).collect());
        Self { all, free }
    }

    /// A pair of meters that are at rest; of this program's own when there are no more.
    pub(super) fn lend(self: &Arc<Self>) -> Meters {
        let Some(pair) = lock(&self.free).pop_front() else { return Meters::default() };
        let words = &self.all[2 * pair as usize..][..2];
        words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        Meters::Lent(Lent { of: Arc::clone(self), pair })
    }
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lender of {} words", self.all.len())
    }
}

/// A pair of a [`Lender`], given back when dropped.
#[derive(Debug)]
pub(super) struct Lent {
    of: Arc<Lender>,
    pair: u32,
}

impl Drop for Lent {
    fn drop(&mut self) {
        lock(&self.of.free).push_back(self.pair);
    }
}

/// A token bucket: nanoseconds at which it is full again. Time is that of `Now::mono`, which all workers of a
/// process share.
pub(super) type Meter = AtomicU64;

/// Whether something may pass now. What does may be more than what is left, and the next waits for it, so
/// that no packet is too large for a low rate.
fn is_open(meter: &Meter, now: Duration) -> bool {
    meter.load(Ordering::Relaxed) < nanos(now + BURST)
}

/// Notes that something passes which takes the rate `cost` to make up for.
fn pass(meter: &Meter, now: Duration, cost: Duration) {
    let later = |full: u64| Some(full.max(nanos(now)).saturating_add(nanos(cost)));
    let _ = meter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
}

/// Both at once.
pub(super) fn take(meter: &Meter, now: Duration, cost: Duration) -> bool {
    let is_open = is_open(meter, now);
    if is_open {
        pass(meter, now, cost);
    }
    is_open
}

/// A time as meters and rows of offloaded flows have it.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rest_earns_one_second_and_no_more() {
        let (limit, meter) = (Bandwidth { allocation: 1000, ..Bandwidth::default() }, Meter::default());
        let passed = |at: u64| {
            let now = Duration::from_millis(at);
            (0..100).filter(|_| limit.may_pass([&meter; 3], 100, now)).count()
        };
        assert_eq!(passed(5000), 10);
        assert_eq!(passed(5100), 1);
        assert_eq!(passed(100_000), 10);
    }

    #[test]
    fn a_packet_larger_than_the_rate_passes_and_is_made_up_for() {
        let (limit, meter) = (Bandwidth { user: 100, ..Bandwidth::default() }, Meter::default());
        let may_pass = |at: u64| limit.may_pass([&meter; 3], 1000, Duration::from_secs(at));
        assert_eq!([1, 2, 9, 10, 11].map(may_pass), [true, false, false, false, true]);
    }

    #[test]
    fn what_one_limit_refuses_costs_the_others_nothing() {
        let limit = Bandwidth { allocation: 1 << 40, user: 1000, total: 1 << 40 };
        let meters: [Meter; 3] = Default::default();
        let [allocation, user, total] = &meters;
        let now = Duration::from_secs(9);
        let passed = (0..50).filter(|_| limit.may_pass([allocation, user, total], 1000, now)).count();
        assert_eq!(passed, 1);
        let one = Meter::default();
        pass(&one, now, time_of(1000, 1 << 40));
        assert_eq!(total.load(Ordering::Relaxed), one.load(Ordering::Relaxed));
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_its_rate_a_burst_and_a_packet(
            rate in 1_000_u64..10_000_000,
            packets in proptest::collection::vec((0_u64..200_000, 0_usize..1500), 1..300),
        ) {
            let (limit, meter) = (Bandwidth { total: rate, ..Bandwidth::default() }, Meter::default());
            let (mut now, mut passed) = (0, Vec::new());
            for (micros, bytes) in packets {
                now += micros;
                if limit.may_pass([&meter; 3], bytes, Duration::from_micros(now)) {
                    passed.push((now, bytes as u64));
                }
            }
            for (first, (start, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (at, bytes) in &passed[first..] {
                    sum += bytes;
                    let window = (at - start) as u128 * u128::from(rate) / 1_000_000;
                    prop_assert!(u128::from(sum) <= window + u128::from(rate) + 1500 + 1);
                }
            }
        }
    }
}
