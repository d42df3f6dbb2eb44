//! Bytes a second: of one allocation, of a user's allocations, and of all (off by default).
//!
//! A [`Meter`] is a token bucket kept as one number, the time at which it will be full again, so it can
//! be shared between workers without a lock. Each limit holds for the two directions apart, to peers and
//! to clients, and counts the bytes of relayed data. What exceeds it is dropped, as a narrow link would.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much of its rate a meter passes at once after a rest.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket. Time is that of `Now::mono`, which all workers of a process share.
#[derive(Debug, Default)]
pub(super) struct Meter(
    /// Nanoseconds at which the bucket is full again.
    AtomicU64,
);

impl Meter {
    /// Whether something may pass now. What does may be larger than what is left; the next one waits
    /// for it, so that no packet is too large for a low rate.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        self.0.load(Ordering::Relaxed) < nanos(now + BURST)
    }

    /// Notes that something passed which takes the rate `cost` to make up for.
    pub(super) fn pass(&self, now: Duration, cost: Duration) {
        let advance = |full: u64| Some(full.max(nanos(now)).saturating_add(nanos(cost)));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance);
    }

    /// Both at once.
    pub(super) fn take(&self, now: Duration, cost: Duration) -> bool {
        let is_open = self.is_open(now);
        if is_open {
            self.pass(now, cost);
        }
        is_open
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
