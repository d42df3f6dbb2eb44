//! Counts requests that failed to prove who sent them, and keeps the last one of each step until somebody asks:
//! what a log says about "why 401". As large with a million failures as with one.

use std::net::SocketAddr;

use crate::credential::AuthFailure;

/// How much of a user name is kept, in bytes.
const MAX_NAME: usize = 64;

/// Failures of one step since the last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthReport {
    /// The step at which the last one failed.
    pub failure: AuthFailure,
    /// How many there were.
    pub count: u64,
    /// Who sent the last one.
    pub client: SocketAddr,
    /// The user name of the last one, cut to 64 bytes; empty where there was none.
    pub username: String,
}

impl AuthReport {
    /// Adds the count of a later report of the same step.
    pub fn merge(&mut self, later: Self) {
        *self = Self { count: self.count + later.count, ..later };
    }
}

/// The failures of one relay core, by step.
#[derive(Default)]
pub(super) struct Failures([Option<AuthReport>; AuthFailure::STEPS.len()]);

impl Failures {
    pub(super) fn note(&mut self, failure: AuthFailure, client: SocketAddr, username: &[u8]) {
        let slot = &mut self.0[failure.index()];
        let (count, mut name) = slot.take().map_or((0, String::new()), |last| (last.count, last.username));
        name.clear();
        // The name's memory is used again: a flood of failures does not allocate.
        let text = username.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        name.push_str(&text[..text.floor_char_boundary(MAX_NAME)]);
        *slot = Some(AuthReport { failure, count: count + 1, client, username: name });
    }

    /// What has failed since the last call, at most one report a step.
    pub(super) fn take(&mut self) -> Vec<AuthReport> {
        self.0.iter_mut().filter_map(Option::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_a_step_with_the_last_sender_and_a_count() {
        let mut failures = Failures::default();
        let client = |port| SocketAddr::from(([192, 0, 2, 1], port));
        for port in 0..1000 {
            failures.note(AuthFailure::Expired { by: port.into() }, client(port), "é".repeat(300).as_bytes());
        }
        failures.note(AuthFailure::UnknownUser, client(7), b"a\xff");
        let reports = failures.take();
        assert_eq!(reports.len(), 2);
        assert_eq!((reports[0].failure.step(), &*reports[0].username), ("unknown_user", "a"));
        let expired = &reports[1];
        assert_eq!((expired.failure, expired.count), (AuthFailure::Expired { by: 999 }, 1000));
        assert_eq!((expired.client, expired.username.len()), (client(999), 64));
        assert_eq!(failures.take(), []);
    }
}
