//! MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489 §14.5, §14.7) and the key of the long-term mechanism (§9.2.2).

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use subtle::ConstantTimeEq;

/// Bytes of an HMAC-SHA1.
pub const INTEGRITY_LEN: usize = 20;

/// XORed into the CRC so that a fingerprint is told from another protocol's CRC (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// A key for MESSAGE-INTEGRITY, kept as a keyed HMAC so that using it costs no key schedule.
/// Has no `Debug`: it is as good as the password.
#[derive(Clone)]
pub struct IntegrityKey(Hmac<Sha1>);

impl IntegrityKey {
    /// The long-term key MD5(username ":" realm ":" password) (RFC 8489 §9.2.2).
    #[must_use]
    pub fn long_term(username: &str, realm: &str, password: &str) -> Self {
        let mut md5 = Md5::new();
        md5.update(username);
        md5.update(":");
        md5.update(realm);
        md5.update(":");
        md5.update(password);
        Self::from_bytes(&md5.finalize())
    }

    /// The short-term key: the password itself (RFC 8489 §9.1.1).
    #[must_use]
    pub fn short_term(password: &str) -> Self {
        Self::from_bytes(password.as_bytes())
    }

    /// A key as raw bytes of any length.
    #[must_use]
    pub fn from_bytes(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// HMAC-SHA1 over `header` followed by `body`.
    pub(super) fn sign(&self, header: &[u8], body: &[u8]) -> [u8; INTEGRITY_LEN] {
        let mut mac = self.0.clone();
        mac.update(header);
        mac.update(body);
        mac.finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, header: &[u8], body: &[u8], expected: &[u8]) -> bool {
        self.sign(header, body).ct_eq(expected).into()
    }
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
