//! The time-limited user names this process minted, so that a USERHASH of one can be resolved
//! (RFC 8489 §14.4): a hash says nothing about a name that was minted elsewhere.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::stun::userhash;

/// How many names are kept. The oldest ones go first.
const CAPACITY: usize = 1 << 16;

/// A bounded table from USERHASH to user name. Only minting adds to it, never a client.
pub struct Issued {
    realm: Box<str>,
    capacity: usize,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    by_hash: HashMap<[u8; 32], Arc<str>>,
    oldest_first: VecDeque<[u8; 32]>,
}

impl Issued {
    /// An empty table for names of a realm.
    #[must_use]
    pub fn new(realm: &str) -> Self {
        Self { realm: realm.into(), capacity: CAPACITY, names: Mutex::default() }
    }

    /// Remembers a name.
    pub fn note(&self, username: &str) {
        let hash = userhash(username, &self.realm);
        let mut names = self.lock();
        if names.by_hash.insert(hash, username.into()).is_some() {
            return;
        }
        names.oldest_first.push_back(hash);
        if names.oldest_first.len() > self.capacity
            && let Some(oldest) = names.oldest_first.pop_front()
        {
            names.by_hash.remove(&oldest);
        }
    }

    /// The name a hash stands for.
    #[must_use]
    pub fn find(&self, hash: &[u8; 32]) -> Option<Arc<str>> {
        self.lock().by_hash.get(hash).cloned()
    }

    /// A name goes in and out in whole steps: a panic elsewhere cannot leave half of one.
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_their_hash_and_the_oldest_go_first() {
        let issued = Issued { capacity: 2, ..Issued::new("turnkey") };
        let find = |name: &str| issued.find(&userhash(name, "turnkey"));
        for name in ["1:a", "2:b", "2:b", "3:c"] {
            issued.note(name);
        }
        assert_eq!(find("1:a"), None);
        assert_eq!((find("2:b").as_deref(), find("3:c").as_deref()), (Some("2:b"), Some("3:c")));
        assert_eq!(issued.find(&userhash("3:c", "elsewhere")), None);
        let names = issued.lock();
        assert_eq!((names.by_hash.len(), names.oldest_first.len()), (2, 2));
    }
}
