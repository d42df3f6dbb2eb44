//! How long a poll may wait, without a timeout of its own where the system has something better.
//!
//! A timeout is a kernel timer that each wait starts and each packet stops again: of a worker that handles one packet at
//! a time it is the dearest part of waiting. A [`timerfd`](https://man7.org/linux/man-pages/man2/timerfd_create.2.html)
//! is set only when the time it stands at is not early enough.

use std::time::Duration;

use mio::{Registry, Token};

/// Ends the waits of one poll in time.
#[derive(Debug, Default)]
pub struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<super::linux::Timer>,
    /// When the timer rings, in the caller's time; it has rung if that is past.
    rings_at: Duration,
}

impl Alarm {
    /// Registers with a poll as `token`. Whatever the system refuses is replaced by timeouts.
    #[must_use]
    pub fn new(registry: &Registry, token: Token) -> Self {
        #[cfg(target_os = "linux")]
        return Self { timer: super::linux::Timer::new(registry, token).ok(), rings_at: Duration::ZERO };
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (registry, token);
            Self::default()
        }
    }

    /// The timeout to poll with, so that the poll ends `wait` after `now` at the latest; it may end earlier.
    pub fn timeout(&mut self, now: Duration, wait: Duration) -> Option<Duration> {
        if !wait.is_zero() && self.rings_within(now, wait) { None } else { Some(wait) }
    }

    #[cfg(target_os = "linux")]
    fn rings_within(&mut self, now: Duration, wait: Duration) -> bool {
        let Some(timer) = &self.timer else { return false };
        let due = now + wait;
        if now < self.rings_at && self.rings_at <= due {
            return true;
        }
        self.rings_at = due;
        if timer.set(wait).is_err() {
            self.timer = None;
        }
        self.timer.is_some()
    }

    #[cfg(not(target_os = "linux"))]
    fn rings_within(&mut self, _: Duration, _: Duration) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const RING: Token = Token(7);
    const MS: Duration = Duration::from_millis(1);

    /// Polls as a worker does until `wait` after `now` is over, and says how often the poll returned.
    fn poll(poll: &mut mio::Poll, alarm: &mut Alarm, origin: Instant, wait: Duration) -> u32 {
        let due = origin.elapsed() + wait;
        let mut turns = 0;
        while origin.elapsed() < due {
            let now = origin.elapsed();
            let timeout = alarm.timeout(now, due.saturating_sub(now));
            poll.poll(&mut mio::Events::with_capacity(4), timeout).expect("poll");
            turns += 1;
        }
        turns
    }

    #[test]
    fn a_wait_ends_again_and_again() {
        let mut waiting = mio::Poll::new().expect("poll");
        let mut alarm = Alarm::new(waiting.registry(), RING);
        let origin = Instant::now();
        for _ in 0..3 {
            assert!(poll(&mut waiting, &mut alarm, origin, 20 * MS) < 10, "it waits, it does not turn");
        }
    }

    #[test]
    fn what_is_due_first_ends_the_wait_and_what_is_due_later_does_not_put_it_off() {
        let mut waiting = mio::Poll::new().expect("poll");
        let mut alarm = Alarm::new(waiting.registry(), RING);
        let origin = Instant::now();
        let _ = alarm.timeout(origin.elapsed(), 100_000 * MS);
        poll(&mut waiting, &mut alarm, origin, 5 * MS);
        let _ = alarm.timeout(origin.elapsed(), 5 * MS);
        // Earlier than this: the poll returns although it may wait long.
        let timeout = alarm.timeout(origin.elapsed(), 100_000 * MS);
        waiting.poll(&mut mio::Events::with_capacity(4), timeout).expect("poll");
        assert!(origin.elapsed() < 50_000 * MS);
    }

    #[test]
    fn no_wait_is_no_wait() {
        let waiting = mio::Poll::new().expect("poll");
        let mut alarm = Alarm::new(waiting.registry(), RING);
        assert_eq!(alarm.timeout(MS, Duration::ZERO), Some(Duration::ZERO));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn waits_have_no_timeout_of_their_own() {
        let waiting = mio::Poll::new().expect("poll");
        let mut alarm = Alarm::new(waiting.registry(), RING);
        assert_eq!(alarm.timeout(MS, MS), None);
        assert_eq!(Alarm::default().timeout(MS, MS), Some(MS), "but where there is no timer");
    }
}
