//! The clock of a worker: one read of the monotonic clock a turn, the calendar once a second.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::turn::Now;

/// Turns the system's clocks into [`Now`]. Workers of a pool share the origin, so that times the
/// cores exchange mean the same.
pub(super) struct Clock {
    origin: Instant,
    /// Unix time at the origin, as of the last look at the calendar.
    epoch: Duration,
}

impl Clock {
    pub(super) fn new(origin: Instant) -> Self {
        let mut clock = Self { origin, epoch: Duration::ZERO };
        clock.read_calendar();
        clock
    }

    pub(super) fn now(&self) -> Now {
        let mono = self.origin.elapsed();
        Now { mono, unix: (self.epoch + mono).as_secs() }
    }

    /// Follows the calendar when somebody sets it.
    pub(super) fn read_calendar(&mut self) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.epoch = unix.saturating_sub(self.origin.elapsed());
    }
}
