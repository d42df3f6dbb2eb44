//! When to give memory back to the system: after many allocations have ended. The allocator keeps what is
//! freed in small pieces, so a night after a busy day would look as expensive as the day.

/// Fewer allocations than this are not worth a look.
const CROWD: u32 = 512;

/// The most allocations there were since memory was last given back.
#[derive(Default)]
pub(super) struct Ebb {
    peak: u32,
}

impl Ebb {
    /// Takes the number of allocations; whether half of a crowd has gone.
    pub(super) fn note(&mut self, allocations: u32) -> bool {
        self.peak = self.peak.max(allocations);
        let is_ebb = allocations <= self.peak / 2 && self.peak - allocations >= CROWD;
        if is_ebb {
            self.peak = allocations;
        }
        is_ebb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_for_each_half_of_a_crowd_that_goes() {
        let mut ebb = Ebb::default();
        let told: Vec<bool> =
            [0, 500, 0, 10_000, 5_001, 5_000, 4_999, 600, 600, 0, 0].map(|n| ebb.note(n)).into();
        let wanted = [5, 7, 9];
        assert!(told.iter().enumerate().all(|(at, is_ebb)| *is_ebb == wanted.contains(&at)), "{told:?}");
    }
}
