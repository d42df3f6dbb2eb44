//! Time-limited credentials: `username = expiry[:id]`, `password = base64(HMAC-SHA1(secret, username))`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::issued::Issued;
use super::revoked::Revoked;

/// Longest id that is minted, in bytes; leaves room for the expiry within USERNAME's 508 bytes.
const MAX_ID: usize = 256;

/// Shared secrets of time-limited credentials, newest first: the first signs, each verifies. Kept as
/// keyed HMACs, so that using one costs no key schedule.
#[derive(Clone, Default)]
pub struct Secrets {
    keyed: Vec<Hmac<Sha1>>,
    issued: Option<Arc<Issued>>,
    revoked: Option<Arc<Revoked>>,
}

impl Secrets {
    /// Takes secrets as they stand in the configuration, newest first.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let keyed = |secret: &[u8]| Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        let keyed = secrets.into_iter().map(|secret| keyed(secret.as_ref())).collect();
        Self { keyed, issued: None, revoked: None }
    }

    /// The same secrets; user names minted with them are remembered, so that a USERHASH finds them.
    #[must_use]
    pub fn noting(self, issued: Arc<Issued>) -> Self {
        Self { issued: Some(issued), ..self }
    }

    /// The same secrets; credentials that were taken back are not accepted.
    #[must_use]
    pub fn refusing(self, revoked: Arc<Revoked>) -> Self {
        Self { revoked: Some(revoked), ..self }
    }

    /// Whether the credentials of this id were taken back.
    pub(super) fn is_revoked(&self, id: &str) -> bool {
        self.revoked.as_ref().is_some_and(|revoked| revoked.contains(id))
    }

    /// The name a USERHASH stands for, if it was minted with these secrets in this process.
    pub(super) fn name_of(&self, hash: &[u8; 32]) -> Option<Arc<str>> {
        self.issued.as_ref()?.find(hash)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keyed.is_empty()
    }

    /// The password of a user name under each secret, newest first.
    pub(super) fn passwords(&self, username: &str) -> impl Iterator<Item = String> {
        self.keyed.iter().map(|secret| {
            let mut mac = secret.clone();
            mac.update(username.as_bytes());
            STANDARD.encode(mac.finalize().into_bytes())
        })
    }
}

/// A time-limited credential. Has no `Debug`: the password is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `expiry:id`, expiry in Unix seconds.
    pub username: String,
    /// base64(HMAC-SHA1(secret, username)), 28 characters.
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
    /// The lifetime is shorter than a second.
    BadLifetime,
}

impl std::fmt::Display for MintError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoSecret => "no secret to sign with: set credentials.secrets",
            Self::BadId => "a user id has 1 to 256 bytes, no ':' and no control characters",
            Self::BadLifetime => "the lifetime must be at least one second",
        })
    }
}

impl std::error::Error for MintError {}

/// The id of a credential: `user` or `user.session`. The last dot ends the user's name, so a name
/// with dots and no session gets one more.
#[must_use]
pub fn id(user: &str, session: Option<&str>) -> String {
    match session {
        Some(session) => format!("{user}.{session}"),
        None if user.contains('.') => format!("{user}."),
        None => user.to_owned(),
    }
}

/// Mints a credential that is valid for `ttl` from `now_unix`, signed with the newest secret. For `id`
/// see [`id()`].
///
/// # Errors
/// See [`MintError`].
pub fn mint(secrets: &Secrets, now_unix: u64, ttl: Duration, id: &str) -> Result<Credential, MintError> {
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(|c| c == ':' || c.is_control()) {
        return Err(MintError::BadId);
    }
    if ttl.as_secs() == 0 {
        return Err(MintError::BadLifetime);
    }
    let expires_at = now_unix.saturating_add(ttl.as_secs());
    let username = format!("{expires_at}:{id}");
    let password = secrets.passwords(&username).next().ok_or(MintError::NoSecret)?;
    if let Some(issued) = &secrets.issued {
        issued.note(&username);
    }
    Ok(Credential { username, password, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_draft_formula_is_what_openssl_prints() {
        // printf 1712345678:alice | openssl dgst -sha1 -hmac north -binary | base64
        let credential =
            mint(&Secrets::new(["north"]), 1_712_342_078, Duration::from_secs(3600), "alice").expect("valid");
        assert_eq!(credential.username, "1712345678:alice");
        assert_eq!(credential.password, "0ZD6cnpTkaID21yeVWnCwmsDr9I=");
        assert_eq!(credential.expires_at, 1_712_345_678);
    }

    #[test]
    fn the_newest_secret_signs() {
        let mint_with = |secrets: &[&str]| {
            mint(&Secrets::new(secrets), 0, Duration::from_secs(9), "a").map(|c| c.password)
        };
        assert_eq!(mint_with(&["new", "old"]), mint_with(&["new"]));
        assert_ne!(mint_with(&["new", "old"]), mint_with(&["old"]));
        assert_eq!(mint_with(&[]), Err(MintError::NoSecret));
    }

    #[test]
    fn ids_that_would_confuse_the_parser_are_refused() {
        let mint_id = |id: &str| mint(&Secrets::new(["s"]), 0, Duration::from_secs(9), id).err();
        for bad in ["", "a:b", "a\n", "\0", &"x".repeat(257)] {
            assert_eq!(mint_id(bad), Some(MintError::BadId), "{bad:?}");
        }
        assert_eq!(mint_id(&"x".repeat(256)), None);
        assert_eq!(
            mint(&Secrets::new(["s"]), 0, Duration::from_millis(999), "a").err(),
            Some(MintError::BadLifetime)
        );
    }
}
