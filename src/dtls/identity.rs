//! The certificate a DTLS listener shows, and the cryptography behind its sessions.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dimpl::crypto::{CryptoProvider, HashAlgorithm, HmacProvider, rust_crypto};
use dimpl::{Config, CryptoError, DtlsCertificate};

use super::hello::COOKIE_LEN;

/// Handshakes that take longer are given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest datagram of a handshake: what passes any path of the Internet.
const HANDSHAKE_MTU: usize = 1200;

/// A certificate with its key. Cheap to clone; sessions keep the one they began with.
#[derive(Clone)]
pub struct Identity {
    pub(super) certificate: DtlsCertificate,
    pub(super) config: Arc<Config>,
}

/// Why a certificate cannot be shown by a DTLS listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificate's key is none of ECDSA on P-256 or P-384: most likely RSA.
    NotEcdsa,
    /// The private key is not the certificate's.
    Mismatch,
}

impl std::error::Error for IdentityError {}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotEcdsa => {
                "DTLS needs an ECDSA certificate (P-256 or P-384), this one is RSA or of another kind: \
                 take an ECDSA one, or remove dtls:// from relay.listen"
            }
            Self::Mismatch => "the private key does not belong to the certificate",
        })
    }
}

impl Identity {
    /// The identity of a certificate and its key, both as DER; the key as PKCS #8 or SEC 1.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn new(certificate: Vec<u8>, private_key: Vec<u8>) -> Result<Self, IdentityError> {
        prove(&certificate, &private_key)?;
        let certificate = DtlsCertificate { certificate, private_key };
        Ok(Self { certificate, config: config(HANDSHAKE_TIMEOUT) })
    }

    /// Gives handshakes another time than 10 s, which must be between a millisecond and a day.
    #[must_use]
    pub fn with_handshake_timeout(self, timeout: Duration) -> Self {
        let timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(86_400));
        Self { config: config(timeout), ..self }
    }
}

fn config(handshake_timeout: Duration) -> Arc<Config> {
    let config = Config::builder()
        .with_crypto_provider(PROVIDER.clone())
        .require_client_certificate(false)
        .handshake_timeout(handshake_timeout)
        .mtu(HANDSHAKE_MTU)
        .build();
    Arc::new(config.expect("constants and a provider that passes its own check"))
}

/// Signs with the key and verifies with the certificate.
fn prove(certificate: &[u8], private_key: &[u8]) -> Result<(), IdentityError> {
    const PROOF: &[u8] = b"a key and its certificate";
    dimpl::crypto::cert_named_group(certificate).map_err(|_| IdentityError::NotEcdsa)?;
    let key = PROVIDER.key_provider.load_private_key(private_key);
    let mut key = key.map_err(|_| IdentityError::Mismatch)?;
    let mut signature = dimpl::crypto::Buf::new();
    let hash = key.hash_algorithm();
    key.sign(PROOF, hash, &mut signature).map_err(|_| IdentityError::Mismatch)?;
    let verifier = PROVIDER.signature_verification;
    let verified = verifier.verify_signature(certificate, PROOF, &signature, hash, key.algorithm());
    verified.map_err(|_| IdentityError::Mismatch)
}

static PROVIDER: LazyLock<CryptoProvider> =
    LazyLock::new(|| CryptoProvider { hmac_provider: &OurCookie, ..rust_crypto::default_provider() });

/// The library's HMACs, except that of its cookie.
///
/// The library checks the cookie of every hello against one of its own, computed with a secret of the session;
/// ours was issued when there was no session. `hmac_sha256` has no other use than that cookie (keys are derived
/// with `hmac`), so it says here what the front has found valid. `tests::` in `session.rs` hold it to that.
#[derive(Debug)]
struct OurCookie;

thread_local! {
    /// The cookie of the hello that is being handled on this thread.
    static COOKIE: Cell<Option<[u8; COOKIE_LEN]>> = const { Cell::new(None) };
}

/// Runs `f` while `cookie` is the one the library finds valid.
pub(super) fn with_cookie<T>(cookie: [u8; COOKIE_LEN], f: impl FnOnce() -> T) -> T {
    COOKIE.set(Some(cookie));
    let result = f();
    COOKIE.set(None);
    result
}

impl HmacProvider for OurCookie {
    fn hmac_sha256(&self, key: &[u8], data: &[u8]) -> Result<[u8; 32], CryptoError> {
        match COOKIE.get() {
            Some(cookie) => Ok(cookie),
            None => rust_crypto::default_provider().hmac_provider.hmac_sha256(key, data),
        }
    }

    fn hmac(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CryptoError> {
        rust_crypto::default_provider().hmac_provider.hmac(hash, key, data, out)
    }
}
