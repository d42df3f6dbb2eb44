//! Access tokens of an authorisation server: RFC 7635.

use std::sync::Arc;
use std::time::Duration;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use turnkey::credential::{ThirdParty, TokenKey, Verifier};
use turnkey::stun::{AttributeType as A, Class, IntegrityKey, MessageWriter, Method};
use turnkey::turn::Transport;

use crate::lab::{Answer, Client, Lab, REALM, UDP, path, settings};

const HERE: &str = "192.0.2.9:40000";
const SERVER: &str = "turn.example.org";
const AS_KEY: [u8; 32] = [0x11; 32];
const HOUR: u32 = 3600;

fn lab() -> Lab {
    let keys = [("kid1".into(), TokenKey::new(&AS_KEY).unwrap())].into();
    let third_party = Some(ThirdParty { server: SERVER.into(), keys });
    let verifier = Verifier { third_party, ..(*settings().verifier).clone() };
    Lab::with(|settings| settings.verifier = Arc::new(verifier))
}

/// A token as an authorisation server seals it.
fn token(mac_key: &[u8], issued_at: u64, lifetime: u32) -> Vec<u8> {
    let mut block = (mac_key.len() as u16).to_be_bytes().to_vec();
    block.extend(mac_key);
    block.extend((issued_at << 16).to_be_bytes());
    block.extend(lifetime.to_be_bytes());
    let aead = Aes256Gcm::new_from_slice(&AS_KEY).unwrap();
    let tag = aead
        .encrypt_inout_detached(&Nonce::from([5; 12]), SERVER.as_bytes(), block.as_mut_slice().into())
        .unwrap();
    [&12_u16.to_be_bytes()[..], &[5; 12], &block, &tag].concat()
}

fn client(lab: &mut Lab, address: &str, mac_key: &[u8]) -> Client {
    let mut client = Client::with(lab, path(address, Transport::Udp), "kid1", "");
    client.key = IntegrityKey::from_bytes(mac_key);
    client
}

fn ask(client: &Client, lab: &mut Lab, method: Method, token: &[u8]) -> Answer {
    client.call(lab, method, |w| {
        w.attribute(A::REQUESTED_TRANSPORT, UDP).attribute(A::ACCESS_TOKEN, token);
    })
}

#[test]
fn rfc7635_6_1_the_challenge_names_the_server_only_where_tokens_are_taken() {
    let challenge = |lab: &mut Lab| {
        let mut buffer = [0; 64];
        let writer =
            &mut MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, lab.transaction());
        let len = writer.finish().unwrap();
        lab.ask(path(HERE, Transport::Udp), &buffer[..len])
    };
    let answer = challenge(&mut lab());
    assert_eq!(answer.value(A::THIRD_PARTY_AUTHORIZATION).as_deref(), Some(SERVER.as_bytes()));
    assert_eq!(challenge(&mut Lab::new()).value(A::THIRD_PARTY_AUTHORIZATION), None);
}

#[test]
fn rfc7635_7_a_token_lets_in_and_the_session_key_signs() {
    let mut lab = lab();
    let client = client(&mut lab, HERE, &[7; 20]);
    let now = lab.now().unix;
    let answer = ask(&client, &mut lab, Method::ALLOCATE, &token(&[7; 20], now, HOUR));
    assert_eq!((answer.error, answer.lifetime()), (None, Some(600)));
    // Later requests need no token, and other users are let in as before.
    assert_eq!(client.refresh(&mut lab, 600).error, None);
    Client::new(&mut lab, "192.0.2.8:1").allocate(&mut lab);
}

#[test]
fn rfc7635_7_clients_of_coturn_sign_with_the_first_16_bytes_of_the_session_key() {
    let mut lab = lab();
    let now = lab.now().unix;
    let mac_key: Vec<u8> = (0..20).collect();
    let client = client(&mut lab, HERE, &mac_key[..16]);
    assert_eq!(ask(&client, &mut lab, Method::ALLOCATE, &token(&mac_key, now, HOUR)).error, None);
    assert_eq!(client.refresh(&mut lab, 600).error, None);
    let short = self::client(&mut lab, "192.0.2.8:1", &mac_key[..15]);
    assert_eq!(ask(&short, &mut lab, Method::ALLOCATE, &token(&mac_key, now, HOUR)).error, Some(401));
}

#[test]
fn rfc7635_7_what_is_wrong_with_a_token_is_401() {
    let mut lab = lab();
    let now = lab.now().unix;
    let good = client(&mut lab, HERE, &[7; 20]);
    let mut other_key = good.clone();
    other_key.key = IntegrityKey::from_bytes(&[8; 20]);
    let mut other_kid = good.clone();
    other_kid.username = "kid2".into();
    let mut changed = token(&[7; 20], now, HOUR);
    changed[40] ^= 1;
    for (client, token) in [
        (&good, changed),
        (&good, b"no token".to_vec()),
        (&good, token(&[7; 20], now - 4000, HOUR)),
        (&good, token(&[7; 20], now + 4000, HOUR)),
        (&good, token(&[7; 15], now, HOUR)),
        (&other_key, token(&[7; 20], now, HOUR)),
        (&other_kid, token(&[7; 20], now, HOUR)),
    ] {
        let answer = ask(client, &mut lab, Method::ALLOCATE, &token);
        assert_eq!(answer.error, Some(401));
        assert!(answer.value(A::THIRD_PARTY_AUTHORIZATION).is_some(), "where to get another one");
    }
    assert_eq!(lab.allocations(), 0);
    let steps: Vec<_> = lab.server.take_auth_failures().iter().map(|report| report.failure.step()).collect();
    assert_eq!(steps, ["unknown_user", "wrong_password", "bad_token", "token_expired"]);
}

#[test]
fn rfc7635_9_an_allocation_ends_with_its_token_unless_another_one_comes() {
    let mut lab = lab();
    let now = lab.now().unix;
    let first = client(&mut lab, HERE, &[7; 20]);
    assert_eq!(ask(&first, &mut lab, Method::ALLOCATE, &token(&[7; 20], now, 700)).lifetime(), Some(600));
    lab.advance(Duration::from_secs(500));
    // Five seconds for the clocks.
    assert_eq!(first.refresh(&mut lab, 600).lifetime(), Some(205));
    let second = client(&mut lab, HERE, &[9; 20]);
    let fresh = token(&[9; 20], now + 500, HOUR);
    assert_eq!(ask(&second, &mut lab, Method::REFRESH, &fresh).lifetime(), Some(600));
    assert_eq!(first.refresh(&mut lab, 600).error, Some(401), "its key is replaced");
    lab.advance(Duration::from_secs(550));
    assert_eq!(second.refresh(&mut lab, 600).lifetime(), Some(600));
    assert_eq!(lab.allocations(), 1);
}

#[test]
fn rfc7635_off_by_default_a_token_is_worth_nothing() {
    let mut lab = Lab::new();
    let client = client(&mut lab, HERE, &[7; 20]);
    let now = lab.now().unix;
    let answer = ask(&client, &mut lab, Method::ALLOCATE, &token(&[7; 20], now, HOUR));
    assert_eq!((answer.error, answer.value(A::REALM).as_deref()), (Some(401), Some(REALM.as_bytes())));
}
