//! The key set of whoever issues tokens (RFC 7517): from a file or a URL, kept while it cannot be read, read again
//! now and then and when a token names a key that is not in it, so that keys rotate without a restart.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Notify;

/// Keys of one set.
const KEYS: usize = 64;

/// Bytes of one set.
const SIZE: u64 = 256 * 1024;

/// How long the issuer's server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the set is read again at most, whatever keys tokens name.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// How often it is read again in any case.
const EVERY: Duration = Duration::from_secs(300);

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `https://` or `http://`.
    Url(String),
    /// A file.
    File(PathBuf),
}

/// One key that checks tokens.
pub(super) struct SetKey {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// A key set and where it comes from.
pub struct KeySet {
    source: Source,
    keys: RwLock<Vec<Arc<SetKey>>>,
    read_at: Mutex<Option<Instant>>,
    wanted: Notify,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("source", &self.source).finish_non_exhaustive()
    }
}

impl KeySet {
    /// A set that has not been read; [`Self::read`] does.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source, keys: RwLock::default(), read_at: Mutex::new(None), wanted: Notify::new() }
    }

    /// Reads the set; blocks. Where it cannot be read, the keys there are stay. Returns how many there are.
    ///
    /// # Errors
    /// Why it cannot be read, in one line.
    pub fn read(&self) -> Result<usize, String> {
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let text = match &self.source {
            Source::Url(url) => fetch(url)?,
            Source::File(path) => fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?,
        };
        let keys = parse(&text)?;
        let count = keys.len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(count)
    }

    /// Takes over what `newer` has read, if that comes from the same place.
    pub(super) fn replace_with(&self, newer: &Self) -> bool {
        if self.source != newer.source {
            return false;
        }
        let keys = newer.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !keys.is_empty() {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
        true
    }

    /// Returns when it is time to read the set again.
    pub async fn is_due(&self) {
        let last = *self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = last else { return };
        let soonest = AT_MOST_EVERY.saturating_sub(last.elapsed());
        tokio::select! {
            () = tokio::time::sleep(EVERY.saturating_sub(last.elapsed())) => {}
            () = async { tokio::time::sleep(soonest).await; self.wanted.notified().await } => {}
        }
    }

    /// The keys a token may be signed with: the one it names, or all of its algorithm where it names none.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<Arc<SetKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |key: &&Arc<SetKey>| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id);
        let found: Vec<_> = keys.iter().filter(is_it).cloned().collect();
        if found.is_empty() {
            // It may be one that was added meanwhile.
            self.wanted.notify_one();
        }
        found
    }
}

fn fetch(url: &str) -> Result<String, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let answer = agent.get(url).call().map_err(|e| format!("{url}: {e}"))?;
    let mut text = String::new();
    let body = answer.into_body().into_reader();
    body.take(SIZE).read_to_string(&mut text).map_err(|e| format!("{url}: {e}"))?;
    Ok(text)
}

fn parse(text: &str) -> Result<Vec<Arc<SetKey>>, String> {
    if text.len() as u64 >= SIZE {
        return Err(format!("a key set has less than {SIZE} bytes"));
    }
    let set: JwkSet = serde_json::from_str(text).map_err(|e| format!("no JSON Web Key Set: {e}"))?;
    let keys: Vec<_> = set.keys.iter().filter_map(key).take(KEYS).map(Arc::new).collect();
    if keys.is_empty() {
        return Err("the key set has no key for RS256, ES256 or EdDSA".into());
    }
    Ok(keys)
}

/// A public key for signatures. The algorithm follows from the kind of key; a shared secret has no place in a set
/// that others can read.
fn key(jwk: &Jwk) -> Option<SetKey> {
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|said| said != name) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(SetKey { id: jwk.common.key_id.clone(), algorithm, key })
}
