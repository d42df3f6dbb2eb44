//! Static users: name and password from the configuration, both in their OpaqueString form; or a name and the key
//! made of the password, as coturn keeps it.

use std::collections::HashMap;

use super::opaque::opaque_string;
use crate::stun::{IntegrityKey, userhash};

/// What a static user proves to know.
#[derive(Clone)]
pub(super) enum Proof {
    /// The password.
    Password(Box<str>),
    /// MD5(name ":" realm ":" password), for clients of that algorithm only.
    Key(IntegrityKey),
}

/// Static users of a realm, found by name and by USERHASH. Has no `Debug`: passwords are secrets.
#[derive(Clone, Default)]
pub struct Users {
    proofs: HashMap<Box<str>, Proof>,
    by_hash: HashMap<[u8; 32], Box<str>>,
}

impl Users {
    /// Names with their passwords. A name or password that has no OpaqueString form is kept as it is; the
    /// configuration refuses those.
    #[must_use]
    pub fn new<'a>(realm: &str, users: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut table = Self::default();
        for (name, password) in users {
            let opaque = |text: &'a str| opaque_string(text).unwrap_or(text.into());
            let name: Box<str> = opaque(name).into();
            table.by_hash.insert(userhash(&name, realm), name.clone());
            table.proofs.insert(name, Proof::Password(opaque(password).into()));
        }
        table
    }

    /// The same, and users whose password is not known, but the key MD5(name ":" realm ":" password).
    #[must_use]
    pub fn with_keys<'a>(mut self, realm: &str, keys: impl IntoIterator<Item = (&'a str, [u8; 16])>) -> Self {
        for (name, key) in keys {
            let name = &*opaque_string(name).unwrap_or(name.into());
            self.by_hash.insert(userhash(name, realm), name.into());
            self.proofs.insert(name.into(), Proof::Key(IntegrityKey::from_bytes(&key)));
        }
        self
    }

    /// What a user must know.
    pub(super) fn proof(&self, name: &str) -> Option<&Proof> {
        self.proofs.get(name)
    }

    /// The user a USERHASH stands for (RFC 8489 §14.4).
    pub(super) fn name_of(&self, hash: &[u8; 32]) -> Option<&str> {
        self.by_hash.get(hash).map(|name| &**name)
    }
}
