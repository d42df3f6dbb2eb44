//! As whom the generator asks, and the key that follows from it.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::credential::{Secrets, mint};
use crate::stun::IntegrityKey;

use super::{Args, Error};

/// Longest USERNAME (RFC 8489 §14.3: fewer than 509 bytes), and what is left for REALM.
const MAX_NAME: usize = 508;
const MAX_REALM: usize = 128;

/// One user for all allocations of a run. Has no `Debug`: it holds the password.
pub(super) struct Account {
    username: String,
    password: String,
    expected_realm: Option<String>,
    key: OnceLock<(Box<str>, IntegrityKey)>,
}

impl Account {
    /// Reads the credentials from the command line; with a secret, makes time-limited ones.
    pub(super) fn from_args(args: &Args) -> Result<Self, Error> {
        let (username, password) = match (&args.user, &args.password, &args.secret) {
            (Some(user), Some(password), _) => (user.clone(), password.clone()),
            (_, _, Some(secret)) => minted(secret)?,
            _ => (String::new(), String::new()),
        };
        if username.len() > MAX_NAME {
            return Err(Error::Usage(format!("--user is longer than {MAX_NAME} bytes")));
        }
        Ok(Self { username, password, expected_realm: args.realm.clone(), key: OnceLock::new() })
    }

    /// Whether no credentials were given.
    pub(super) fn is_anonymous(&self) -> bool {
        self.username.is_empty()
    }

    /// USERNAME as sent.
    pub(super) fn username(&self) -> &str {
        &self.username
    }

    /// The long-term key in this realm; made once, since all clients meet the same realm.
    pub(super) fn key(&self, realm: &str) -> Result<IntegrityKey, &'static str> {
        if self.expected_realm.as_deref().is_some_and(|expected| expected != realm) {
            return Err("its REALM is not the one of --realm");
        }
        if realm.len() > MAX_REALM {
            return Err("its REALM is longer than 128 bytes");
        }
        let make = || IntegrityKey::long_term(&self.username, realm, &self.password);
        let (cached, key) = self.key.get_or_init(|| (realm.into(), make()));
        Ok(if **cached == *realm { key.clone() } else { make() })
    }
}

fn minted(secret: &str) -> Result<(String, String), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let credential = mint(&Secrets::new([secret]), now, Duration::from_secs(6 * 3600), "bench")
        .map_err(|error| Error::Usage(error.to_string()))?;
    Ok((credential.username, credential.password))
}

#[cfg(test)]
impl Account {
    /// A user with a password.
    pub(super) fn of(username: &str, password: &str) -> Self {
        let (username, password) = (username.to_owned(), password.to_owned());
        Self { username, password, expected_realm: None, key: OnceLock::new() }
    }
}
