//! The keys of time-limited credentials that were proven lately: a client that allocates again, as one does for each
//! of its interfaces and after each change of network, costs no derivation. Bounded, and only who has proven a
//! credential adds to it. A key from here is checked against the message in constant time like any other; whether
//! the credential is still good is not decided here.

use std::collections::HashMap;

use crate::stun::{IntegrityKey, PasswordAlgorithm};

/// Keys of a generation; two are kept.
const CAPACITY: usize = 512;

/// Keys by user name. Has no `Debug`: keys are secrets. Belongs to one realm and one set of secrets.
#[derive(Default)]
pub struct KnownKeys {
    young: Keys,
    old: Keys,
}

type Keys = HashMap<Box<str>, (PasswordAlgorithm, IntegrityKey)>;

impl KnownKeys {
    /// The key that this user proved.
    pub(super) fn find(&self, username: &str, algorithm: PasswordAlgorithm) -> Option<&IntegrityKey> {
        let (of, key) = self.young.get(username).or_else(|| self.old.get(username))?;
        (*of == algorithm).then_some(key)
    }

    /// Keeps a key that was proven. The generation before the last is forgotten when this one is full.
    pub(super) fn note(&mut self, username: &str, algorithm: PasswordAlgorithm, key: &IntegrityKey) {
        if self.young.len() == CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(username.into(), (algorithm, key.clone()));
    }

    /// How many are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: PasswordAlgorithm = PasswordAlgorithm::Md5;

    #[test]
    fn keys_are_found_under_their_name_and_algorithm() {
        let mut known = KnownKeys::default();
        known.note("a", MD5, &IntegrityKey::from_bytes(b"key"));
        assert!(known.find("a", MD5).is_some());
        assert!(known.find("a", PasswordAlgorithm::Sha256).is_none() && known.find("b", MD5).is_none());
    }

    #[test]
    fn there_is_room_for_two_generations() {
        let mut known = KnownKeys::default();
        for n in 0..10 * CAPACITY {
            known.note(&n.to_string(), MD5, &IntegrityKey::from_bytes(b"key"));
            assert!(known.len() <= 2 * CAPACITY);
        }
        assert!(
            known.find(&(10 * CAPACITY - 1).to_string(), MD5).is_some() && known.find("0", MD5).is_none()
        );
    }
}
