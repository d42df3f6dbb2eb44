//! Credentials that were taken back before they end: of who left, was sent out, or whose call is over.

use std::sync::{PoisonError, RwLock};

use super::Ends;

/// How many are kept. Those that end first go first.
const CAPACITY: usize = 1 << 16;

/// A bounded table of credentials' ids. Only the server's own decisions add to it, never a client.
pub struct Revoked {
    capacity: usize,
    ids: RwLock<Ends>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self { capacity: CAPACITY, ids: RwLock::default() }
    }
}

impl Revoked {
    /// Takes back the credentials of an id, see [`super::id()`]; they would have ended at the Unix second `until`.
    pub fn add(&self, id: &str, until: u64, now: u64) {
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        ids.insert(id.into(), until, self.capacity, now);
    }

    /// Whether credentials of this id were taken back.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        // Also where their time is over: an allocation made with them may stand.
        self.ids.read().unwrap_or_else(PoisonError::into_inner).of(id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocations_are_bounded_and_go_when_the_credential_has_ended() {
        let revoked = Revoked { capacity: 2, ..Revoked::default() };
        revoked.add("a", 100, 10);
        revoked.add("b", 50, 10);
        assert!(revoked.contains("a") && revoked.contains("b"));
        revoked.add("c", 200, 10);
        assert!(!revoked.contains("b"), "the one that ends first goes first");
        revoked.add("d", 300, 150);
        assert!(!revoked.contains("a") && revoked.contains("c") && revoked.contains("d"));
        revoked.add("e", 120, 150);
        assert!(revoked.contains("e") && !revoked.contains("c"), "what has ended stands until the next one");
    }
}
