//! Finds the highest rate that a server carries. Pure: it is told how each try went.

/// Steps of the last, finest search: the answer is this exact.
const PRECISION: f64 = 0.02;
/// No server is asked for more.
const CEILING: f64 = 20_000_000.0;

/// How one try went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The loss stayed within the limit.
    Carried,
    /// It did not.
    Lost,
    /// The generator could not send as fast as asked.
    Unreachable,
}

/// A search that doubles the rate until it is too high and then halves the interval.
#[derive(Clone, Debug)]
pub(super) struct Search {
    carried: f64,
    failed: Option<f64>,
    next: f64,
    retried: bool,
    /// The generator was the limit, not the server.
    pub(super) limited: bool,
}

impl Search {
    /// Begins with this rate.
    pub(super) fn new(first: f64) -> Self {
        Self { carried: 0.0, failed: None, next: first, retried: false, limited: false }
    }

    /// The rate to try next; `None` when the answer is known.
    pub(super) fn next(&self) -> Option<f64> {
        let fine = self.failed.is_some_and(|failed| failed - self.carried <= failed * PRECISION);
        (!fine && self.next <= CEILING && self.next >= 1.0).then_some(self.next)
    }

    /// The highest rate that was carried.
    pub(super) fn best(&self) -> f64 {
        self.carried
    }

    /// Takes in how the rate of [`Search::next`] went. A loss is believed the second time: other work
    /// on the machine disturbs single tries.
    pub(super) fn tried(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Carried => self.carried = self.next,
            Verdict::Lost | Verdict::Unreachable if !self.retried => {
                self.retried = true;
                return;
            }
            Verdict::Lost | Verdict::Unreachable => {
                self.limited = verdict == Verdict::Unreachable;
                self.failed = Some(self.next);
            }
        }
        self.retried = false;
        self.next = match self.failed {
            Some(failed) => f64::midpoint(self.carried, failed),
            None => self.next * 2.0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(first: f64, capacity: f64, mut disturbed: impl FnMut(usize) -> bool) -> (f64, usize) {
        let mut search = Search::new(first);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            let lost = rate > capacity || disturbed(tries);
            search.tried(if lost { Verdict::Lost } else { Verdict::Carried });
            tries += 1;
            assert!(tries < 60);
        }
        (search.best(), tries)
    }

    #[test]
    fn the_capacity_is_found_to_two_percent() {
        for capacity in [700.0, 20_000.0, 123_456.0, 2_000_000.0] {
            let (found, _) = find(10_000.0, capacity, |_| false);
            assert!(found <= capacity && found >= capacity * 0.97, "{capacity}: {found}");
        }
    }

    #[test]
    fn single_disturbed_tries_do_not_matter() {
        let (found, _) = find(10_000.0, 150_000.0, |n| n % 3 == 2);
        assert!(found >= 145_000.0, "{found}");
    }

    #[test]
    fn a_server_that_carries_nothing_ends_the_search() {
        assert_eq!(find(10_000.0, 0.0, |_| false).0, 0.0);
    }

    #[test]
    fn a_slow_generator_is_told_from_a_slow_server() {
        let mut search = Search::new(8.0);
        while let Some(rate) = search.next() {
            search.tried(if rate > 100.0 { Verdict::Unreachable } else { Verdict::Carried });
        }
        assert!(search.limited);
    }
}
