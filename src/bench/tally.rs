//! What was sent and what came back.

use super::histogram::Histogram;
use super::packet::Stamp;
use super::session::Failure;

/// The result of one measurement of one worker, or of all together.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Client to peer and peer to client; other modes use the first only.
    pub(super) ways: [Way; 2],
    /// Clients that could not go on.
    pub(super) failures: u64,
    /// The first of these.
    pub(super) first_failure: Option<Failure>,
}

impl Outcome {
    /// Nothing sent yet.
    pub(super) fn new() -> Self {
        Self { ways: [Way::new(), Way::new()], failures: 0, first_failure: None }
    }

    /// Adds what another worker saw.
    pub(super) fn merge(&mut self, other: Self) {
        self.ways.iter_mut().zip(&other.ways).for_each(|(sum, way)| sum.merge(way));
        self.failures += other.failures;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    /// Counts a client that could not go on.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.failures += 1;
        self.first_failure.get_or_insert(failure);
    }

    /// Packets or requests sent.
    pub(super) fn sent(&self) -> u64 {
        self.ways.iter().map(|way| way.sent).sum()
    }

    /// Packets or answers received.
    pub(super) fn received(&self) -> u64 {
        self.ways.iter().map(|way| way.received).sum()
    }

    /// The part that did not come back, 0 to 1.
    pub(super) fn loss(&self) -> f64 {
        loss(self.sent(), self.received())
    }
}

/// The part of `sent` that is missing in `received`.
pub(super) fn loss(sent: u64, received: u64) -> f64 {
    if sent == 0 { 0.0 } else { sent.saturating_sub(received) as f64 / sent as f64 }
}

/// One direction.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Sent while measuring.
    pub(super) sent: u64,
    /// Of these, received.
    pub(super) received: u64,
    /// Received after a later one of the same flow.
    pub(super) reordered: u64,
    /// Time from sending to receiving.
    pub(super) latency: Histogram,
}

impl Way {
    fn new() -> Self {
        Self { sent: 0, received: 0, reordered: 0, latency: Histogram::new() }
    }

    fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.reordered += other.reordered;
        self.latency.merge(&other.latency);
    }
}

/// Follows the packets of one worker through one measurement.
pub(super) struct Tracker {
    run: u32,
    /// Nanoseconds since the epoch; only packets sent within count.
    measured: std::ops::Range<u64>,
    /// Of each flow, the sequence number after the highest that came.
    expected: Vec<u64>,
    /// Packets on their way in each direction.
    in_flight: [i64; 2],
    outcome: Outcome,
}

impl Tracker {
    /// A tracker for `flows` flows; flow `n` goes in direction `n % 2`.
    pub(super) fn new(run: u32, flows: usize, measured: std::ops::Range<u64>) -> Self {
        Self { run, measured, expected: vec![0; flows], in_flight: [0; 2], outcome: Outcome::new() }
    }

    /// `count` packets have left, the first of them with this stamp.
    pub(super) fn sent(&mut self, stamp: &Stamp, count: u64) {
        let way = stamp.flow as usize % 2;
        self.in_flight[way] += count.cast_signed();
        if self.measured.contains(&stamp.sent_ns) {
            self.outcome.ways[way].sent += count;
        }
    }

    /// A payload came in at `now_ns`. Strangers and packets of earlier runs are left out.
    pub(super) fn received(&mut self, payload: &[u8], now_ns: u64) {
        let Some(stamp) = Stamp::read(payload).filter(|stamp| stamp.run == self.run) else { return };
        let Some(expected) = self.expected.get_mut(stamp.flow as usize) else { return };
        let index = stamp.flow as usize % 2;
        let late = stamp.sequence < *expected;
        if late {
            // Given up when a later one came.
        } else {
            // Those in between are lost or late: neither is waited for.
            self.in_flight[index] -= (stamp.sequence + 1 - *expected).cast_signed();
            *expected = stamp.sequence + 1;
        }
        if self.measured.contains(&stamp.sent_ns) {
            let way = &mut self.outcome.ways[index];
            way.received += 1;
            way.reordered += u64::from(late);
            way.latency.record(now_ns.saturating_sub(stamp.sent_ns));
        }
    }

    /// Packets on their way in a direction.
    pub(super) fn in_flight(&self, way: usize) -> u64 {
        self.in_flight[way].max(0).cast_unsigned()
    }

    /// Gives up on everything that is on its way in a direction.
    pub(super) fn write_off(&mut self, way: usize, next_sequence: impl Fn(usize) -> u64) {
        self.in_flight[way] = 0;
        for flow in (way..self.expected.len()).step_by(2) {
            self.expected[flow] = next_sequence(flow);
        }
    }

    /// Whether everything that was sent has come or was given up.
    pub(super) fn is_settled(&self) -> bool {
        self.in_flight.iter().all(|&count| count <= 0)
    }

    /// A client could not go on.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.outcome.fail(failure);
    }

    /// The result.
    pub(super) fn finish(self) -> Outcome {
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(flow: u32, sequence: u64) -> Stamp {
        Stamp { run: 1, flow, sequence, sent_ns: 100 }
    }

    fn payload(stamp: Stamp) -> Vec<u8> {
        let mut template = crate::bench::packet::Template::bare(24);
        template.stamped(stamp, 1).to_vec()
    }

    #[test]
    fn losses_and_reorders_are_told_apart() {
        let mut tracker = Tracker::new(1, 2, 0..1000);
        tracker.sent(&stamp(0, 0), 1);
        tracker.sent(&stamp(0, 1), 3);
        [0, 3, 2].iter().for_each(|&n| tracker.received(&payload(stamp(0, n)), 150));
        assert!(tracker.is_settled());
        let outcome = tracker.finish();
        let way = &outcome.ways[0];
        assert_eq!((way.sent, way.received, way.reordered), (4, 3, 1));
        assert_eq!(outcome.loss(), 0.25);
        assert_eq!(way.latency.max().as_nanos(), 50);
    }

    #[test]
    fn warm_up_and_strangers_do_not_count() {
        let mut tracker = Tracker::new(1, 2, 200..1000);
        tracker.sent(&stamp(1, 0), 1);
        tracker.received(&payload(stamp(1, 0)), 150);
        tracker.received(&payload(Stamp { run: 2, ..stamp(1, 0) }), 150);
        tracker.received(&payload(stamp(9, 0)), 150);
        tracker.received(b"short", 150);
        let outcome = tracker.finish();
        assert_eq!((outcome.sent(), outcome.received(), outcome.loss()), (0, 0, 0.0));
    }

    #[test]
    fn what_is_on_its_way_can_be_written_off() {
        let mut tracker = Tracker::new(1, 2, 0..1000);
        tracker.sent(&stamp(0, 0), 5);
        assert_eq!((tracker.in_flight(0), tracker.in_flight(1)), (5, 0));
        tracker.write_off(0, |_| 5);
        assert!(tracker.is_settled());
        tracker.received(&payload(stamp(0, 4)), 150);
        assert_eq!(tracker.in_flight(0), 0);
    }
}
