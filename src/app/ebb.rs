//! When to give memory back to the system: after many allocations have ended. The allocator keeps what is
//! freed in small pieces, so a night after a busy day would look as expensive as the day.

/// Fewer allocations than this are not worth a look.
const CROWD: u32 = 512;

/// Follows the number of allocations.
#[derive(Default)]
pub(super) struct Ebb {
    /// The most there were since memory was last given back.
    peak: u32,
    last: u32,
    is_settling: bool,
}

impl Ebb {
    /// Takes the number of allocations; whether half of a crowd has gone, or its stragglers have.
    pub(super) fn note(&mut self, allocations: u32) -> bool {
        self.peak = self.peak.max(allocations);
        let has_gone = allocations <= self.peak / 2 && self.peak - allocations >= CROWD;
        let has_settled = self.is_settling && allocations >= self.last;
        self.last = allocations;
        let is_ebb = has_gone || has_settled;
        if is_ebb {
            self.peak = allocations;
            self.is_settling = has_gone;
        }
        is_ebb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_for_each_half_of_a_crowd_that_goes_and_when_no_more_go() {
        let mut ebb = Ebb::default();
        let told: Vec<bool> =
            [0, 500, 0, 10_000, 5_001, 5_000, 4_999, 600, 500, 500, 500, 0, 0].map(|n| ebb.note(n)).into();
        let wanted = [5, 7, 9];
        assert!(told.iter().enumerate().all(|(at, is_ebb)| *is_ebb == wanted.contains(&at)), "{told:?}");
    }
}
