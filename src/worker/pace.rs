//! When a worker lets packets gather before it looks for more.
//!
//! A worker that is faster than its clients finds one packet at a time and pays for each what a batch costs:
//! waking up, a call to read, a call to send. Where so much goes on that a short rest brings several sockets
//! something, it rests, and takes them together. Where less goes on it never does, so what comes alone, or
//! after a silence, waits for nothing.

use std::time::Duration;

/// How long a rest is asked to be; the system's timers add about as much again.
const REST: Duration = Duration::from_micros(50);

/// Sockets become ready at least this often while a rest is worth its delay.
const BUSY: Duration = Duration::from_micros(50);

/// A turn this long was a silence: it takes some time of business until there is another rest.
const PAUSE: Duration = Duration::from_millis(1);

/// A turn that served so many sockets was batch enough.
const ENOUGH: usize = 32;

/// Share of the newest turn in the mean: one of so many.
const WEIGHT: u32 = 8;

/// How often sockets become ready.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the last turn began.
    last: Duration,
    /// Time between two sockets' becoming ready, a mean over the last turns.
    gap: Duration,
}

impl Pace {
    /// Nothing has happened yet.
    pub(super) fn new(now: Duration) -> Self {
        Self { last: now, gap: PAUSE }
    }

    /// A turn that began `now` has served so many sockets: how long to rest before the next one.
    pub(super) fn after(&mut self, now: Duration, served: usize) -> Option<Duration> {
        let turn = now.saturating_sub(self.last);
        self.last = now;
        let gap = turn / u32::try_from(served).unwrap_or(u32::MAX).max(1);
        self.gap = if turn < PAUSE { (self.gap * (WEIGHT - 1) + gap) / WEIGHT } else { PAUSE };
        ((1..ENOUGH).contains(&served) && self.gap < BUSY).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of that length, each of which serves so many sockets; how many of them rest.
    fn rests(pace: &mut Pace, turns: u32, length: Duration, served: usize) -> usize {
        (0..turns).filter(|_| pace.after(pace.last + length, served).is_some()).count()
    }

    #[test]
    fn who_is_never_busy_never_rests() {
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(rests(&mut pace, 1000, Duration::from_millis(1), 1), 0);
        assert_eq!(rests(&mut pace, 1000, Duration::from_micros(100), 1), 0, "10,000 a second");
        assert_eq!(rests(&mut pace, 1000, Duration::from_millis(10), 10), 0, "bursts with silence between");
        assert_eq!(rests(&mut pace, 1000, Duration::from_micros(900), 100), 0, "batches are large enough");
    }

    #[test]
    fn who_is_busy_rests_and_goes_on_resting() {
        let mut pace = Pace::new(Duration::ZERO);
        rests(&mut pace, 100, Duration::from_micros(20), 1);
        assert_eq!(rests(&mut pace, 100, Duration::from_micros(20), 1), 100);
        assert_eq!(rests(&mut pace, 100, Duration::from_micros(130), 7), 100, "the rest itself is no calm");
    }

    #[test]
    fn what_comes_after_a_silence_waits_for_nothing() {
        let mut pace = Pace::new(Duration::ZERO);
        rests(&mut pace, 100, Duration::from_micros(2), 1);
        assert_eq!(pace.after(pace.last + Duration::from_secs(1), 1), None);
        assert_eq!(pace.after(pace.last + Duration::from_micros(1), 0), None, "nothing to gather");
    }
}
