//! Seals on what this server hands out to get back later: nobody else can make one, and nothing has to be
//! remembered. Made with the keys of the nonces, apart from them by a label.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::nonce::Nonces;

/// Bytes of a seal: enough for something that can only be tried online, by who has a credential.
pub const SEAL: usize = 10;

/// What no nonce begins with.
const LABEL: &[u8] = b"turnkey ticket\0";

impl Nonces {
    /// A seal on `bytes`.
    #[must_use]
    pub fn seal(&self, bytes: &[u8]) -> [u8; SEAL] {
        seal(&self.current, bytes)
    }

    /// Whether `sealed` is a seal on `bytes`, with this key or the one before.
    #[must_use]
    pub fn is_seal(&self, sealed: &[u8], bytes: &[u8]) -> bool {
        let fits = |key: &Hmac<Sha256>| bool::from(seal(key, bytes).ct_eq(sealed));
        fits(&self.current) || self.previous.as_ref().is_some_and(fits)
    }
}

fn seal(key: &Hmac<Sha256>, bytes: &[u8]) -> [u8; SEAL] {
    let mac = key.clone().chain_update(LABEL).chain_update(bytes);
    *mac.finalize().into_bytes().first_chunk().expect("SHA-256 is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_its_bytes_and_its_keys() {
        let first = Nonces::new([1; 32]);
        let sealed = first.seal(b"allocation 1");
        assert!(first.is_seal(&sealed, b"allocation 1"));
        assert!(!first.is_seal(&sealed, b"allocation 2") && !first.is_seal(&sealed[..9], b"allocation 1"));
        let second = first.rotate([2; 32]);
        assert!(second.is_seal(&sealed, b"allocation 1"));
        assert!(!second.rotate([3; 32]).is_seal(&sealed, b"allocation 1"));
    }
}
