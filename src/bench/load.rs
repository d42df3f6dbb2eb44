//! What every kind of load offers to the conductor, and the timing that all share.

use std::time::{Duration, Instant};

use super::plan::{Pace, Plan};
use super::session::Failure;
use super::tally::Outcome;

/// How often retransmissions and refreshes are looked at.
pub(super) const UPKEEP: Duration = Duration::from_millis(50);
/// How long to wait for the last packets after the end of a measurement.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// Nothing came for so long although the window is full: what is on its way is lost.
pub(super) const STALL: Duration = Duration::from_millis(200);
/// Packets sent at a time before what has come in is read.
pub(super) const BURST: u64 = 32;

/// How late a packet may leave when packets are spread evenly, and when they leave in bursts.
const EVEN_PATIENCE: Duration = Duration::from_millis(1);
const BURST_PATIENCE: Duration = Duration::from_millis(10);

/// One measurement as a worker is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// Number of the measurement.
    pub(super) run: u32,
    /// This worker's part.
    pub(super) pace: Pace,
    /// When traffic starts.
    pub(super) start: Instant,
    /// When measuring starts.
    pub(super) measure: Instant,
    /// When both end.
    pub(super) end: Instant,
}

/// The local ports of a load, to find the drop counters of the sockets concerned.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    /// Of the generator's own sockets.
    pub(super) own: Vec<u16>,
    /// Of the server's relay sockets.
    pub(super) relays: Vec<u16>,
}

/// A kind of load, in one worker.
pub(super) trait Load: Sized {
    /// Opens sockets and allocations. `worker` counts from 0.
    fn prepare(plan: &Plan, worker: u32) -> Result<Self, Failure>;

    /// Makes one measurement.
    fn run(&mut self, spec: &Spec) -> Result<Outcome, Failure>;

    /// Which ports are in use.
    fn ports(&self) -> Ports;

    /// Gives everything back to the server.
    fn finish(self, plan: &Plan);
}

/// The share of an interval by which the place of a packet differs from the one before: of all numbers the one whose
/// multiples are spread most evenly.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Tells how many packets of a rate are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    per_second: f64,
    tick: Duration,
    phase: f64,
    done: u64,
}

impl Schedule {
    /// Begins at `start`.
    pub(super) fn new(start: Instant, per_second: f64, tick: Duration) -> Self {
        Self { start, per_second, tick, phase: 0.0, done: 0 }
    }

    /// Schedules whose packets leave at other times than each other's: `phase` is a share of the interval.
    pub(super) fn shifted(self, phase: f64) -> Self {
        Self { phase, ..self }
    }

    /// Packets that should have left by now and have not. What is very late is skipped: a generator
    /// that was held up shows as a lower rate, not as a burst that fills the server's buffers.
    pub(super) fn due(&mut self, now: Instant) -> u64 {
        let elapsed = self.quantized(now.saturating_duration_since(self.start));
        let intervals = elapsed.as_secs_f64() * self.per_second;
        let mut wanted = intervals as u64;
        if self.tick.is_zero() {
            wanted += u64::from(self.place(wanted) <= intervals.fract());
        }
        let patience = if self.tick.is_zero() { EVEN_PATIENCE } else { BURST_PATIENCE.max(self.tick * 2) };
        let most = ((self.per_second * patience.as_secs_f64()) as u64).max(1);
        self.done = self.done.max(wanted.saturating_sub(most));
        wanted.saturating_sub(self.done)
    }

    /// So many packets have left.
    pub(super) fn sent(&mut self, count: u64) {
        self.done += count;
    }

    /// How long until the next packet is due; zero without ticks, which keeps a core busy but the
    /// packets evenly spread.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if self.tick.is_zero() {
            return Duration::ZERO;
        }
        let elapsed = now.saturating_duration_since(self.start);
        (self.quantized(elapsed) + self.tick).saturating_sub(elapsed)
    }

    /// Where in its interval packet `number` leaves without ticks, as a share of it. Packets a whole number of
    /// milliseconds apart would fall into step with the timers of the machine, for better or worse as it happens.
    fn place(&self, number: u64) -> f64 {
        (number as f64).mul_add(GOLDEN, self.phase).fract()
    }

    fn quantized(&self, elapsed: Duration) -> Duration {
        match self.tick.as_nanos() {
            0 => elapsed,
            tick => Duration::from_nanos((elapsed.as_nanos() / tick * tick) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn packets_are_due_in_ticks() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 20_000.0, MS);
        assert_eq!(schedule.due(start + MS / 2), 0);
        assert_eq!(schedule.due(start + MS * 3 / 2), 20);
        schedule.sent(20);
        assert_eq!(schedule.due(start + MS * 3 / 2), 0);
        assert_eq!(schedule.wait(start + MS * 3 / 2), MS / 2);
    }

    #[test]
    fn without_ticks_packets_are_due_one_by_one() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 10_000.0, Duration::ZERO);
        assert_eq!(schedule.due(start), 1);
        assert_eq!(schedule.due(start + Duration::from_micros(250)), 3);
        assert_eq!(schedule.due(start + Duration::from_micros(220)), 2);
        assert_eq!(schedule.wait(start), Duration::ZERO);
    }

    #[test]
    fn two_directions_leave_at_different_times() {
        let start = Instant::now();
        let mut one = Schedule::new(start, 1_000.0, Duration::ZERO);
        let mut other = one.shifted(0.5);
        let mut left = [0, 0];
        for micros in 0..1_000_000 {
            let now = start + Duration::from_micros(micros);
            let due = [one.due(now), other.due(now)];
            assert!(due.iter().sum::<u64>() <= 1, "{micros} µs: {due:?}");
            one.sent(due[0]);
            other.sent(due[1]);
            left = [left[0] + due[0], left[1] + due[1]];
        }
        assert_eq!(left, [1_000, 1_000]);
    }

    #[test]
    fn what_is_very_late_is_skipped() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 1000.0, MS);
        assert_eq!(schedule.due(start + MS * 500), 10);
        let mut slow = Schedule::new(start, 1.0, MS);
        assert_eq!(slow.due(start + MS * 1001), 1);
        let mut even = Schedule::new(start, 10_000.0, Duration::ZERO);
        assert_eq!(even.due(start + MS * 500), 10);
    }
}
