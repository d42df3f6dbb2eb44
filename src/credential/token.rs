//! Third-party authorisation (RFC 7635): self-contained access tokens, sealed by an authorisation server with a
//! key it shares with this one.
//!
//! USERNAME names the key (kid), ACCESS-TOKEN carries the session key under it. Nothing is looked up anywhere,
//! and a token that does not open leaves nothing behind.

use std::collections::HashMap;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, Nonce, Tag};

use super::failure::AuthFailure;
use crate::stun::IntegrityKey;

/// The longest token that is looked at; the real ones have less than 100 bytes.
const MAX_TOKEN: usize = 256;
/// Length of an AES-GCM nonce, the only one that is taken (RFC 5116 §5.1).
const NONCE: usize = 12;
const TAG: usize = 16;
/// The shortest session key that is taken, in bytes.
const MIN_MAC_KEY: usize = 16;
/// By how much the clocks may differ, in seconds (RFC 7635 §7).
const CLOCK_SKEW: u64 = 5;

/// The authorisation server and the keys it seals tokens with.
#[derive(Clone)]
pub struct ThirdParty {
    /// What THIRD-PARTY-AUTHORIZATION says (RFC 7635 §6.1), and the associated data of every token: the name
    /// of this server as the authorisation server knows it.
    pub server: Box<str>,
    /// Keys by kid, which is the USERNAME of who uses them.
    pub keys: HashMap<Box<str>, TokenKey>,
}

/// A key shared with an authorisation server. Has no `Debug`.
#[derive(Clone)]
pub enum TokenKey {
    /// AEAD_AES_128_GCM (RFC 5116 §5.1).
    Aes128(Box<Aes128Gcm>),
    /// AEAD_AES_256_GCM (RFC 5116 §5.2).
    Aes256(Box<Aes256Gcm>),
}

/// A key has neither 16 nor 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError;

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key has 16 bytes (AES-128-GCM) or 32 bytes (AES-256-GCM)")
    }
}

impl std::error::Error for KeyError {}

impl TokenKey {
    /// A key of 16 bytes for AES-128-GCM or 32 bytes for AES-256-GCM.
    ///
    /// # Errors
    /// Another length.
    pub fn new(key: &[u8]) -> Result<Self, KeyError> {
        match key.len() {
            16 => Aes128Gcm::new_from_slice(key).map(|key| Self::Aes128(Box::new(key))),
            _ => Aes256Gcm::new_from_slice(key).map(|key| Self::Aes256(Box::new(key))),
        }
        .map_err(|_| KeyError)
    }

    /// Decrypts in place; false when the tag does not match.
    fn open(&self, nonce: &[u8; NONCE], associated: &[u8], block: &mut [u8], tag: &[u8; TAG]) -> bool {
        let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
        match self {
            Self::Aes128(key) => key.decrypt_inout_detached(&nonce, associated, block.into(), &tag),
            Self::Aes256(key) => key.decrypt_inout_detached(&nonce, associated, block.into(), &tag),
        }
        .is_ok()
    }
}

/// What a valid token says.
pub(super) struct Grant {
    /// The session key, and its first 16 bytes: coturn and its clients sign with no more of it.
    pub(super) keys: [IntegrityKey; 2],
    /// When the token ends, in Unix seconds.
    pub(super) expires_at: u64,
}

impl ThirdParty {
    /// Opens a token that was sent under `kid`, and checks its lifetime (RFC 7635 §6.2, §7).
    pub(super) fn open(&self, kid: &str, token: &[u8], now: u64) -> Result<Grant, AuthFailure> {
        let key = self.keys.get(kid).ok_or(AuthFailure::UnknownUser)?;
        let mut copy = [0; MAX_TOKEN];
        let copy = copy.get_mut(..token.len()).ok_or(AuthFailure::BadToken)?;
        copy.copy_from_slice(token);
        let block = unseal(key, self.server.as_bytes(), copy).ok_or(AuthFailure::BadToken)?;
        let block = Block::parse(block).ok_or(AuthFailure::BadToken)?;
        let lifetime = u64::from(block.lifetime);
        let distance = now.abs_diff(block.issued_at);
        if distance >= lifetime + CLOCK_SKEW {
            return Err(AuthFailure::TokenExpired { by: distance - lifetime });
        }
        let expires_at = block.issued_at.saturating_add(lifetime + CLOCK_SKEW);
        let keys = [block.mac_key, &block.mac_key[..MIN_MAC_KEY]].map(IntegrityKey::from_bytes);
        Ok(Grant { keys, expires_at })
    }
}

/// The encrypted block of a token, in the clear (RFC 7635 §6.2).
struct Block<'a> {
    mac_key: &'a [u8],
    /// Unix seconds.
    issued_at: u64,
    /// Seconds.
    lifetime: u32,
}

impl<'a> Block<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (key_length, rest) = bytes.split_first_chunk()?;
        let (mac_key, rest) = rest.split_at_checked(u16::from_be_bytes(*key_length).into())?;
        let (timestamp, lifetime) = rest.split_first_chunk()?;
        // 48 bits of seconds, then 16 bits of their fractions.
        let issued_at = u64::from_be_bytes(*timestamp) >> 16;
        let lifetime = u32::from_be_bytes(lifetime.try_into().ok()?);
        (mac_key.len() >= MIN_MAC_KEY).then_some(Self { mac_key, issued_at, lifetime })
    }
}

/// Decrypts a token where it lies: length of the nonce, nonce, encrypted block, tag. Every byte is
/// authenticated but the length, which has one right value.
fn unseal<'a>(key: &TokenKey, server: &[u8], token: &'a mut [u8]) -> Option<&'a [u8]> {
    let (length, rest) = token.split_first_chunk_mut()?;
    if usize::from(u16::from_be_bytes(*length)) != NONCE {
        return None;
    }
    let (nonce, rest) = rest.split_first_chunk_mut()?;
    let (block, tag) = rest.split_last_chunk_mut()?;
    key.open(nonce, server, block, tag).then_some(&*block)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const SERVER: &str = "turn.example.org";

    fn third_party(key: &[u8]) -> ThirdParty {
        let keys = HashMap::from([("kid1".into(), TokenKey::new(key).expect("a good length"))]);
        ThirdParty { server: SERVER.into(), keys }
    }

    /// Tokens made with python's `cryptography` (AESGCM): nonce 000102…0b, mac key 40 41 … 53, the time of
    /// [`NOW`], one hour, "turn.example.org" as associated data, key 16 or 32 times 0x11.
    const TOKEN_256: &str = "000c000102030405060708090a0b13f7f65239e071b152ff9bd68ee4bb6b87ee50394726522fccb34e7ffd40632e79a2\
         5cba665ff7000d5f83cc4b6bc2dc6474";
    const TOKEN_128: &str = "000c000102030405060708090a0b3b78230c3382b5f6ee0ebedb8165787bde911679854aebc6c27c5c5a572c628d5546\
         55d081445a4bede33dcfa1749f1cc797";

    /// One of coturn's `turnutils_oauth`, of the same contents as [`TOKEN_256`] but for its nonce, which is random.
    const TOKEN_COTURN: &str = "000ca0ba37175362a0362e162f2d2092d14f4b99b05ccd1f3522b2ea0a53f614e76a453b58bbea7c001e6ed7c8ec2f4d\
         7ef5a022860d6a0068a3bd245086c0d8";

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn rfc7635_6_2_tokens_of_another_implementation_open() {
        for (key, token) in
            [(&[0x11; 32][..], TOKEN_256), (&[0x11; 16], TOKEN_128), (&[0x11; 32], TOKEN_COTURN)]
        {
            let grant = third_party(key).open("kid1", &bytes(token), NOW).map_err(AuthFailure::step);
            assert_eq!(grant.map(|grant| grant.expires_at), Ok(NOW + 3600 + CLOCK_SKEW));
        }
    }

    #[test]
    fn rfc7635_6_2_every_changed_byte_is_noticed() {
        let (party, token) = (third_party(&[0x11; 32]), bytes(TOKEN_256));
        let refused = |token: &[u8]| party.open("kid1", token, NOW).err();
        for at in 0..token.len() {
            let mut changed = token.clone();
            changed[at] ^= 1;
            assert_eq!(refused(&changed), Some(AuthFailure::BadToken), "byte {at}");
            assert_eq!(refused(&token[..at]), Some(AuthFailure::BadToken), "cut at {at}");
        }
        assert_eq!(refused(&[token.as_slice(), &[0; 300]].concat()), Some(AuthFailure::BadToken));
    }

    #[test]
    fn rfc7635_6_2_a_token_is_for_one_server_and_one_key() {
        let token = bytes(TOKEN_256);
        let elsewhere = ThirdParty { server: "other.example.org".into(), ..third_party(&[0x11; 32]) };
        assert_eq!(elsewhere.open("kid1", &token, NOW).err(), Some(AuthFailure::BadToken));
        assert_eq!(third_party(&[0x12; 32]).open("kid1", &token, NOW).err(), Some(AuthFailure::BadToken));
        assert_eq!(third_party(&[0x11; 32]).open("kid2", &token, NOW).err(), Some(AuthFailure::UnknownUser));
    }

    #[test]
    fn rfc7635_7_a_token_lives_its_lifetime_give_or_take_the_clocks() {
        let (party, token) = (third_party(&[0x11; 32]), bytes(TOKEN_256));
        let at = |now| party.open("kid1", &token, now).err();
        assert_eq!((at(NOW + 3604), at(NOW - 3604)), (None, None));
        assert_eq!(at(NOW + 3605), Some(AuthFailure::TokenExpired { by: 5 }));
        assert_eq!(at(NOW + 4600), Some(AuthFailure::TokenExpired { by: 1000 }));
        assert_eq!(at(0), Some(AuthFailure::TokenExpired { by: NOW - 3600 }));
    }

    #[test]
    fn keys_have_16_or_32_bytes() {
        for length in 0..40 {
            assert_eq!(TokenKey::new(&vec![7; length]).is_ok(), length == 16 || length == 32);
        }
    }
}
