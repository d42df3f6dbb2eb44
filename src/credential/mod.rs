//! Who may use the relay: time-limited HMAC credentials, static users, and the stateless nonces of
//! the challenge. Pure: time is an argument. Keeps no table of clients.

use std::collections::HashMap;
use std::time::Duration;

/// Shared secrets of time-limited credentials, newest first: the first signs, each verifies.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Box<[u8]>>);

impl Secrets {
    /// Takes secrets as they stand in the configuration, newest first.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self(secrets.into_iter().map(|s| s.into().into_boxed_slice()).collect())
    }
}

/// A time-limited credential (draft-uberti-behave-turn-rest-00).
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `expiry:id`, expiry in Unix seconds.
    pub username: String,
    /// base64(HMAC-SHA1(secret, username)).
    pub password: String,
    /// Unix seconds.
    pub expires_at: u64,
}

/// Why a credential cannot be minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintError {
    /// There is no secret to sign with.
    NoSecret,
    /// The id is empty, longer than 256 bytes, or has a `:` or a control character.
    BadId,
    /// The lifetime is zero.
    BadLifetime,
}

/// Mints a credential that is valid for `ttl` from `now_unix`. `id` is `user` or `user.session`.
///
/// # Errors
/// See [`MintError`].
pub fn mint(_secrets: &Secrets, _now_unix: u64, _ttl: Duration, _id: &str) -> Result<Credential, MintError> {
    Err(MintError::NoSecret)
}

/// Checks user names and derives their keys.
#[derive(Clone, Default)]
pub struct Verifier {
    /// Time-limited credentials.
    pub secrets: Secrets,
    /// Static users: name to password.
    pub users: HashMap<Box<str>, Box<str>>,
    /// An expiry further away than this is refused.
    pub max_ttl: Duration,
}

/// Keys of the stateless nonces.
pub struct Nonces {}
