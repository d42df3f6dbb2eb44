//! Static users: name and password from the configuration, both in their OpaqueString form.

use std::collections::HashMap;

use super::opaque::opaque_string;
use crate::stun::userhash;

/// Static users of a realm, found by name and by USERHASH. Has no `Debug`: passwords are secrets.
#[derive(Clone, Default)]
pub struct Users {
    passwords: HashMap<Box<str>, Box<str>>,
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
            table.passwords.insert(name, opaque(password).into());
        }
        table
    }

    /// The password of a user.
    pub(super) fn password(&self, name: &str) -> Option<&str> {
        self.passwords.get(name).map(|password| &**password)
    }

    /// The user a USERHASH stands for (RFC 8489 §14.4).
    pub(super) fn name_of(&self, hash: &[u8; 32]) -> Option<&str> {
        self.by_hash.get(hash).map(|name| &**name)
    }
}
