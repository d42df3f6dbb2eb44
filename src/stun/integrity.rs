//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §14.5 to §14.7), and the keys of the
//! long-term mechanism (§9.2.2, §18.5.1).

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of an HMAC-SHA1.
pub const INTEGRITY_LEN: usize = 20;

/// Bytes of an HMAC-SHA256. TURN allows no truncation (RFC 8489 §14.6).
pub const INTEGRITY_SHA256_LEN: usize = 32;

/// XORed into the CRC so that a fingerprint is told from another protocol's CRC (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// How a long-term password becomes a key (RFC 8489 §18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PasswordAlgorithm {
    /// MD5, what RFC 5389 knows.
    Md5,
    /// SHA-256.
    Sha256,
}

impl PasswordAlgorithm {
    /// PASSWORD-ALGORITHMS as this server sends it, the better one first (RFC 8489 §14.11).
    pub const OFFER: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

    /// PASSWORD-ALGORITHM (RFC 8489 §14.12); both algorithms take no parameters.
    #[must_use]
    pub const fn from_value(value: &[u8]) -> Option<Self> {
        match value {
            [0, 1, 0, 0] => Some(Self::Md5),
            [0, 2, 0, 0] => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The value of PASSWORD-ALGORITHM.
    #[must_use]
    pub const fn value(self) -> [u8; 4] {
        match self {
            Self::Md5 => [0, 1, 0, 0],
            Self::Sha256 => [0, 2, 0, 0],
        }
    }
}

/// Which integrity attributes a message carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY.
    #[default]
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
    /// Both, in this order.
    Both,
}

/// A key for the integrity attributes. Has no `Debug`: it is as good as the password.
#[derive(Clone)]
pub struct IntegrityKey(Box<[u8]>);

impl IntegrityKey {
    /// The long-term key MD5(username ":" realm ":" password) (RFC 8489 §9.2.2).
    #[must_use]
    pub fn long_term(username: &str, realm: &str, password: &str) -> Self {
        Self::long_term_by(PasswordAlgorithm::Md5, username, realm, password)
    }

    /// The long-term key of an algorithm over username ":" realm ":" password (RFC 8489 §18.5.1).
    #[must_use]
    pub fn long_term_by(algorithm: PasswordAlgorithm, username: &str, realm: &str, password: &str) -> Self {
        match algorithm {
            PasswordAlgorithm::Md5 => Self(joined::<Md5>(&[username, realm, password])),
            PasswordAlgorithm::Sha256 => Self(joined::<Sha256>(&[username, realm, password])),
        }
    }

    /// The short-term key: the password itself (RFC 8489 §9.1.1).
    #[must_use]
    pub fn short_term(password: &str) -> Self {
        Self::from_bytes(password.as_bytes())
    }

    /// A key as raw bytes of any length.
    #[must_use]
    pub fn from_bytes(key: &[u8]) -> Self {
        Self(key.into())
    }

    /// HMAC-SHA1 over `header` followed by `body`.
    pub(super) fn sign(&self, header: &[u8], body: &[u8]) -> [u8; INTEGRITY_LEN] {
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(header);
        mac.update(body);
        mac.finalize().into_bytes().into()
    }

    /// HMAC-SHA256 over `header` followed by `body`.
    pub(super) fn sign_sha256(&self, header: &[u8], body: &[u8]) -> [u8; INTEGRITY_SHA256_LEN] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(header);
        mac.update(body);
        mac.finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, header: &[u8], body: &[u8], expected: &[u8]) -> bool {
        self.sign(header, body).ct_eq(expected).into()
    }

    /// Compares in constant time; a truncated value does not match.
    pub(super) fn verify_sha256(&self, header: &[u8], body: &[u8], expected: &[u8]) -> bool {
        self.sign_sha256(header, body).ct_eq(expected).into()
    }
}

/// USERHASH: SHA-256(username ":" realm), both after OpaqueString (RFC 8489 §14.4).
#[must_use]
pub fn userhash(username: &str, realm: &str) -> [u8; 32] {
    let hash = joined::<Sha256>(&[username, realm]);
    *hash.first_chunk().expect("SHA-256 has 32 bytes")
}

/// The hash of parts with colons between.
fn joined<D: Digest>(parts: &[&str]) -> Box<[u8]> {
    let mut hash = D::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hash.update(":");
        }
        hash.update(part);
    }
    hash.finalize().as_slice().into()
}

/// The FINGERPRINT value of a message whose header already counts the attribute.
pub(super) fn fingerprint(header: &[u8], body: &[u8]) -> u32 {
    let crc = crc32(crc32(!0, header), body);
    !crc ^ FINGERPRINT_XOR
}

/// CRC-32 of ISO 3309 (the polynomial of zip and Ethernet).
fn crc32(mut crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc_table();
    for byte in bytes {
        crc = TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    crc
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xEDB8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}
