//! Counts of durations in buckets that are about 1.6 % wide, for percentiles over any number of packets.

use std::time::Duration;

/// Buckets for each power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Buckets for up to 2^38 ns, nearly five minutes; what is longer counts as that.
const BUCKETS: usize = ((38 - STEP_BITS as usize) + 1) * STEPS as usize;

/// Durations, counted.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl Histogram {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into(), total: 0, sum_ns: 0, max_ns: 0 }
    }

    /// Counts one duration, in nanoseconds.
    pub(super) fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds the counts of another.
    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, n)| *sum += n);
        self.total += other.total;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The duration that `share` (0 to 1) of all do not exceed; zero when nothing was counted.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_bound(index).min(self.max_ns));
            }
        }
        Duration::from_nanos(self.max_ns)
    }

    /// The longest.
    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The mean; zero when nothing was counted.
    pub(super) fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.checked_div(u128::from(self.total)).unwrap_or(0) as u64)
    }
}

/// Below `STEPS` ns each nanosecond has its bucket; above, each power of two is cut into `STEPS`.
fn bucket(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let shift = ns.ilog2() - STEP_BITS;
    let index = (u64::from(shift) * STEPS + (ns >> shift)) as usize;
    index.min(BUCKETS - 1)
}

/// The largest duration of a bucket.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let mantissa = index - shift * STEPS;
    ((mantissa + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_hold_their_bounds() {
        for ns in (0..5_000).chain((5_000..1 << 37).step_by(7_777_777)) {
            let index = bucket(ns);
            assert!(ns <= upper_bound(index), "{ns}");
            assert!(index == 0 || ns > upper_bound(index - 1), "{ns}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_a_thousand() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|us| histogram.record(us * 1000));
        let near = |share: f64, us: f64| {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((found / us - 1.0).abs() < 0.02, "{share}: {found}");
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        assert_eq!(histogram.max(), Duration::from_millis(1));
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(1));
        near(0.0, 1.0);
    }

    #[test]
    fn merged_is_the_same_as_recorded_together() {
        let (mut one, mut two, mut both) = (Histogram::new(), Histogram::new(), Histogram::new());
        for ns in 0..100_000u64 {
            (if ns % 3 == 0 { &mut one } else { &mut two }).record(ns * 17);
            both.record(ns * 17);
        }
        one.merge(&two);
        assert_eq!(one.counts, both.counts);
        assert_eq!((one.total, one.sum_ns, one.max_ns), (both.total, both.sum_ns, both.max_ns));
    }

    #[test]
    fn nothing_counted_is_zero() {
        let empty = Histogram::new();
        assert_eq!((empty.quantile(0.99), empty.mean(), empty.max()), Default::default());
    }
}
