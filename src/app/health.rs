//! Whether the server still moves: each worker's beat and signaling's answer.
//!
//! Feeds the watchdog of the service manager, and only while everything moves: a stalled worker is a stalled
//! service, however well the rest does.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a part may stand still where no watchdog says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// When each part of the server was seen to move.
pub(super) struct Health {
    patience: Duration,
    seen: Mutex<Seen>,
}

struct Seen {
    workers: Vec<(u64, Instant)>,
    hub: Instant,
}

impl Health {
    /// All is well `now`. `watchdog` is the service manager's patience, where it has one.
    pub(super) fn new(watchdog: Option<Duration>, beats: &[u64], now: Instant) -> Self {
        let seen = Seen { workers: beats.iter().map(|beat| (*beat, now)).collect(), hub: now };
        // Half of the watchdog's patience: a beat that comes once a second must not look like a stall.
        Self { patience: watchdog.map_or(PATIENCE, |patience| patience / 2), seen: Mutex::new(seen) }
    }

    /// How often to look.
    pub(super) fn interval(&self) -> Duration {
        (self.patience / 4).min(Duration::from_secs(1))
    }

    /// Takes the workers' beats, and whether the hub answered.
    pub(super) fn note(&self, beats: &[u64], hub_answered: bool, now: Instant) {
        let mut seen = self.lock();
        for (worker, beat) in seen.workers.iter_mut().zip(beats) {
            if worker.0 != *beat {
                *worker = (*beat, now);
            }
        }
        if hub_answered {
            seen.hub = now;
        }
    }

    /// What has stood still for too long, in words.
    pub(super) fn check(&self, now: Instant) -> Result<(), String> {
        let seen = self.lock();
        let still = |since: Instant| now.saturating_duration_since(since) > self.patience;
        if let Some(worker) = seen.workers.iter().position(|(_, since)| still(*since)) {
            return Err(format!("worker {worker} stands still"));
        }
        if still(seen.hub) { Err("signaling stands still".into()) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_named() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let health = Health::new(Some(Duration::from_secs(8)), &[1, 1], start);
        health.note(&[2, 2], true, at(3));
        assert_eq!(health.check(at(6)), Ok(()));
        health.note(&[3, 2], true, at(6));
        assert_eq!(health.check(at(8)), Err("worker 1 stands still".into()));
        health.note(&[4, 3], true, at(8));
        assert_eq!(health.check(at(9)), Ok(()));
    }

    #[test]
    fn a_hub_that_does_not_answer_is_named() {
        let start = Instant::now();
        let later = start + Duration::from_secs(11);
        let health = Health::new(None, &[1], start);
        health.note(&[2], false, later);
        assert_eq!(health.check(later), Err("signaling stands still".into()));
    }
}
