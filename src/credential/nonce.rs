//! Stateless nonces (RFC 8489 §9.2): a time stamp and a MAC over it and the client's address.
//!
//! Text form: the nonce cookie (`obMatJos2` and four base64 digits for the security features), then 22 digits
//! of base64url for 4 bytes of time and 12 bytes of MAC.
//!
//! Features are counted from the most significant bit, as RFC 8489 §9.2 says and the clients do that are known
//! to read them; an erratum proposes the other end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// What tells a nonce with security features (RFC 8489 §9.2).
const MARK: &[u8] = b"obMatJos2";
/// Bytes of the mark and the base64 of 24 bits.
const COOKIE: usize = MARK.len() + 4;
/// PASSWORD-ALGORITHMS is sent (RFC 8489 §18.1, bit 0).
const PASSWORD_ALGORITHMS: u8 = 0x80;
/// USERHASH is wanted (RFC 8489 §18.1, bit 1).
const USERNAME_ANONYMITY: u8 = 0x40;
const STAMP: usize = 4;
const MAC: usize = 12;
/// Seconds a nonce may come from the future: the worker that issued it may have read its clock later than the one
/// it comes back to, and a clock may be set back.
const CLOCKS_DIFFER: i32 = 5;
/// Digits of base64 for 16 bytes.
const DIGITS: usize = 22;
/// Length of a nonce in bytes.
const LEN: usize = COOKIE + DIGITS;

/// Keys of the nonces: the current one signs, the one before still verifies, so that a key can be
/// replaced under running calls. Has no `Debug`.
#[derive(Clone)]
pub struct Nonces {
    pub(super) current: Hmac<Sha256>,
    pub(super) previous: Option<Hmac<Sha256>>,
    lifetime: Duration,
    cookie: [u8; COOKIE],
}

/// What a nonce that came back is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceCheck {
    /// Ours, for this client, and young enough.
    Valid,
    /// Ours, but too old.
    Expired,
    /// Not ours or made for another address.
    Foreign,
}

impl Nonces {
    /// Nonces live an hour, the longest RFC 8656 §5 suggests: 438 in the middle of a call is something
    /// many clients mishandle.
    pub const LIFETIME: Duration = Duration::from_secs(3600);

    /// Keys from 32 random bytes.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        let cookie = cookie(PASSWORD_ALGORITHMS);
        Self { current: keyed(key), previous: None, lifetime: Self::LIFETIME, cookie }
    }

    /// The same with another lifetime.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// The same keys; whether clients are asked to send USERHASH in place of USERNAME.
    #[must_use]
    pub fn with_anonymity(self, is_wanted: bool) -> Self {
        let anonymity = if is_wanted { USERNAME_ANONYMITY } else { 0 };
        Self { cookie: cookie(PASSWORD_ALGORITHMS | anonymity), ..self }
    }

    /// Whether a nonce, of whomever, says that PASSWORD-ALGORITHMS came with it (RFC 8489 §9.2.4).
    #[must_use]
    pub fn offers_algorithms(nonce: &[u8]) -> bool {
        let features = nonce.strip_prefix(MARK).and_then(|rest| rest.first_chunk::<4>());
        let mut bits = [0; 3];
        features.is_some_and(|digits| STANDARD.decode_slice(digits, &mut bits) == Ok(3))
            && bits[0] & PASSWORD_ALGORITHMS != 0
    }

    /// Replaces the key; nonces of the one before stay valid until they expire.
    #[must_use]
    pub fn rotate(&self, key: [u8; 32]) -> Self {
        Self { current: keyed(key), previous: Some(self.current.clone()), ..*self }
    }

    /// A nonce for a client, written as text of fixed length.
    #[must_use]
    pub fn issue(&self, client: SocketAddr, now_unix: u64) -> [u8; LEN] {
        let stamp = (now_unix as u32).to_be_bytes();
        let mut raw = [0; STAMP + MAC];
        raw[..STAMP].copy_from_slice(&stamp);
        raw[STAMP..].copy_from_slice(&mac(&self.current, client, stamp));
        let mut nonce = [0; LEN];
        nonce[..COOKIE].copy_from_slice(&self.cookie);
        URL_SAFE_NO_PAD.encode_slice(raw, &mut nonce[COOKIE..]).expect("16 bytes are 22 digits");
        nonce
    }

    /// Checks a nonce that came back from `client`.
    #[must_use]
    pub fn check(&self, nonce: &[u8], client: SocketAddr, now_unix: u64) -> NonceCheck {
        let mut raw = [0; STAMP + MAC];
        let digits = nonce.strip_prefix(&self.cookie).filter(|digits| digits.len() == DIGITS);
        let decoded = digits.map(|digits| URL_SAFE_NO_PAD.decode_slice_unchecked(digits, &mut raw));
        if !matches!(decoded, Some(Ok(_))) {
            return NonceCheck::Foreign;
        }
        let stamp = [raw[0], raw[1], raw[2], raw[3]];
        let is_signed_by = |key: &Hmac<Sha256>| bool::from(mac(key, client, stamp).ct_eq(&raw[STAMP..]));
        if !is_signed_by(&self.current) && !self.previous.as_ref().is_some_and(is_signed_by) {
            return NonceCheck::Foreign;
        }
        // The stamp has 32 bits; the difference is right beyond 2106 as well.
        let age = (now_unix as u32).wrapping_sub(u32::from_be_bytes(stamp)).cast_signed();
        match age >= -CLOCKS_DIFFER && i64::from(age) <= self.lifetime.as_secs().cast_signed() {
            true => NonceCheck::Valid,
            false => NonceCheck::Expired,
        }
    }
}

/// The nonce cookie of features, which all stand in the first of its three bytes (RFC 8489 §9.2, §18.1).
fn cookie(features: u8) -> [u8; COOKIE] {
    let mut cookie = [0; COOKIE];
    cookie[..MARK.len()].copy_from_slice(MARK);
    STANDARD.encode_slice([features, 0, 0], &mut cookie[MARK.len()..]).expect("3 bytes are 4 digits");
    cookie
}

fn keyed(key: [u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(&key).expect("HMAC takes keys of any length")
}

fn mac(key: &Hmac<Sha256>, client: SocketAddr, stamp: [u8; STAMP]) -> [u8; MAC] {
    let mut mac = key.clone();
    match client.ip() {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&client.port().to_be_bytes());
    mac.update(&stamp);
    *mac.finalize().into_bytes().first_chunk().expect("SHA-256 is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn client(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn rfc8489_9_2_nonce_is_bound_to_address_and_time() {
        let nonces = Nonces::new([1; 32]);
        let here = client("192.0.2.1:1000");
        let nonce = nonces.issue(here, NOW);
        assert_eq!(nonces.check(&nonce, here, NOW + 3600), NonceCheck::Valid);
        assert_eq!(nonces.check(&nonce, here, NOW + 3601), NonceCheck::Expired);
        assert_eq!(nonces.check(&nonce, client("192.0.2.1:1001"), NOW), NonceCheck::Foreign);
        assert_eq!(nonces.check(&nonce, client("192.0.2.2:1000"), NOW), NonceCheck::Foreign);
        assert_eq!(nonces.check(&nonce, client("[2001:db8::1]:1000"), NOW), NonceCheck::Foreign);
        assert_eq!(Nonces::new([2; 32]).check(&nonce, here, NOW), NonceCheck::Foreign);
    }

    #[test]
    fn two_keys_verify_and_three_do_not() {
        let here = client("192.0.2.1:1000");
        let first = Nonces::new([1; 32]);
        let nonce = first.issue(here, NOW);
        let second = first.rotate([2; 32]);
        assert_eq!(second.check(&nonce, here, NOW), NonceCheck::Valid);
        assert_eq!(second.rotate([3; 32]).check(&nonce, here, NOW), NonceCheck::Foreign);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let nonces = Nonces::new([1; 32]);
        let here = client("[2001:db8::1]:1000");
        let nonce = nonces.issue(here, NOW);
        assert!(nonce.starts_with(b"obMatJos2"));
        for at in 0..nonce.len() {
            for bit in 0..7 {
                let mut changed = nonce;
                changed[at] ^= 1 << bit;
                assert_ne!(nonces.check(&changed, here, NOW), NonceCheck::Valid, "byte {at} bit {bit}");
            }
            assert_eq!(nonces.check(&nonce[..at], here, NOW), NonceCheck::Foreign);
        }
    }

    #[test]
    fn rfc8489_9_2_the_cookie_tells_the_features() {
        let here = client("192.0.2.1:1000");
        let plain = Nonces::new([1; 32]);
        let hidden = plain.clone().with_anonymity(true);
        assert!(plain.issue(here, NOW).starts_with(b"obMatJos2gAAA"));
        assert!(hidden.issue(here, NOW).starts_with(b"obMatJos2wAAA"));
        assert_eq!(plain.check(&hidden.issue(here, NOW), here, NOW), NonceCheck::Foreign);
        for offering in [&b"obMatJos2gAAAx"[..], b"obMatJos2wAAA", &hidden.issue(here, NOW)] {
            assert!(Nonces::offers_algorithms(offering));
        }
        for not in [&b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"[..], b"obMatJos2gAA", b"obMatJos2g***", b""]
        {
            assert!(!Nonces::offers_algorithms(not));
        }
    }

    #[test]
    fn time_stamps_from_the_future_are_valid_only_as_far_as_clocks_differ() {
        let nonces = Nonces::new([1; 32]);
        let here = client("192.0.2.1:1000");
        for (ahead, expected) in [(1, NonceCheck::Valid), (5, NonceCheck::Valid), (6, NonceCheck::Expired)] {
            assert_eq!(nonces.check(&nonces.issue(here, NOW + ahead), here, NOW), expected);
        }
    }
}
