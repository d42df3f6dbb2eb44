//! Access tokens behind their seal: what an authorisation server may have put into one (RFC 7635 §6.2).

use std::time::Duration;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce};

use super::{Bench, REALM, UNIX, path};
use crate::credential::{ThirdParty, TokenKey};
use crate::stun::{AttributeType, Class, IntegrityKey, MessageWriter, Method, TransactionId};

const KID: &str = "kid";
const SERVER: &str = "turn";
const KEY: [u8; 16] = [7; 16];

pub(super) fn third_party() -> ThirdParty {
    let key = TokenKey::new(&KEY).expect("a good length");
    ThirdParty { server: SERVER.into(), keys: [(KID.into(), key)].into() }
}

/// Any bytes as the encrypted block of a token, in a request signed with the session key that stands in it, if one
/// does: who is let in stays no longer than the token.
pub fn access_token(block: &[u8]) {
    let mut bench = Bench::new();
    let packet = request(&bench, block);
    bench.send(0, &packet);
    bench.check();
    if let Some(ends) = bench.server.poll_timeout() {
        let (seconds, lifetime) = end_of(block).expect("only a whole block lets in");
        let left = (seconds + u64::from(lifetime) + 5).saturating_sub(UNIX);
        assert!(ends <= Duration::from_secs(left), "{ends:?} of {left} s");
    }
}

fn request(bench: &Bench, block: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; block.len() + 512];
    let nonce = bench.nonces.issue(path(0).five_tuple.client, UNIX);
    let transaction = TransactionId([1; 12]);
    let len = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, transaction)
        .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .attribute(AttributeType::USERNAME, KID.as_bytes())
        .attribute(AttributeType::REALM, REALM.as_bytes())
        .attribute(AttributeType::NONCE, &nonce)
        .attribute(AttributeType::ACCESS_TOKEN, &seal(block))
        .integrity(&IntegrityKey::from_bytes(mac_key(block).unwrap_or_default()))
        .finish();
    buffer.truncate(len.unwrap_or(0));
    buffer
}

fn seal(block: &[u8]) -> Vec<u8> {
    let mut sealed = block.to_vec();
    let aead = Aes128Gcm::new_from_slice(&KEY).expect("a good length");
    let tag = aead
        .encrypt_inout_detached(&Nonce::from([9; 12]), SERVER.as_bytes(), sealed.as_mut_slice().into())
        .expect("short enough");
    [&12_u16.to_be_bytes()[..], &[9; 12], &sealed, &tag].concat()
}

fn mac_key(block: &[u8]) -> Option<&[u8]> {
    let (length, rest) = block.split_first_chunk::<2>()?;
    rest.get(..u16::from_be_bytes(*length).into())
}

/// Seconds of the time stamp, and the lifetime.
fn end_of(block: &[u8]) -> Option<(u64, u32)> {
    let rest = block.get(2 + mac_key(block)?.len()..)?;
    let seconds = u64::from_be_bytes(*rest.first_chunk()?) >> 16;
    Some((seconds, u32::from_be_bytes(rest.get(8..)?.try_into().ok()?)))
}
