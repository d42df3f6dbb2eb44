//! What RFC 8489 adds to the long-term mechanism: SHA-256, password algorithms, USERHASH.

use std::sync::Arc;
use std::time::Duration;

use turnkey::credential::{Issued, Secrets, Users, Verifier, mint};
use turnkey::stun::{
    AttributeType as A, Class, Integrity, IntegrityKey, MessageWriter, Method, PasswordAlgorithm, userhash,
};
use turnkey::turn::{Settings, Transport};

use crate::lab::{Answer, Client, Lab, REALM, UDP, path, settings};

const HERE: &str = "192.0.2.9:40000";
const SHA256: PasswordAlgorithm = PasswordAlgorithm::Sha256;
const MD5: PasswordAlgorithm = PasswordAlgorithm::Md5;

/// An Allocate, put together from what is under test.
struct Ask<'a> {
    name: (A, &'a [u8]),
    nonce: Vec<u8>,
    algorithm: Option<&'a [u8]>,
    algorithms: Option<&'a [u8]>,
    key: IntegrityKey,
    integrity: Integrity,
}

impl<'a> Ask<'a> {
    /// What a client of RFC 8489 sends after the challenge.
    fn modern(lab: &mut Lab, name: &'a str, password: &str) -> Self {
        Self {
            name: (A::USERNAME, name.as_bytes()),
            nonce: Client::new(lab, HERE).nonce,
            algorithm: Some(&[0, 2, 0, 0]),
            algorithms: Some(&PasswordAlgorithm::OFFER),
            key: IntegrityKey::long_term_by(SHA256, name, REALM, password),
            integrity: Integrity::Sha256,
        }
    }

    fn packet(&self, lab: &mut Lab, method: Method) -> Vec<u8> {
        let mut buffer = vec![0; 1024];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, lab.transaction());
        writer.attribute(A::REQUESTED_TRANSPORT, UDP).attribute(self.name.0, self.name.1);
        writer.attribute(A::REALM, REALM.as_bytes()).attribute(A::NONCE, &self.nonce);
        for (kind, value) in
            [(A::PASSWORD_ALGORITHMS, self.algorithms), (A::PASSWORD_ALGORITHM, self.algorithm)]
        {
            value.into_iter().for_each(|value| {
                writer.attribute(kind, value);
            });
        }
        let len = writer.sign(&self.key, self.integrity).finish().unwrap();
        buffer.truncate(len);
        buffer
    }

    fn send(&self, lab: &mut Lab, method: Method) -> Answer {
        let packet = self.packet(lab, method);
        lab.ask(path(HERE, Transport::Udp), &packet)
    }

    fn allocate(&self, lab: &mut Lab) -> Answer {
        self.send(lab, Method::ALLOCATE)
    }
}

/// Which integrity attributes the answer has; each of them must be right.
fn signed_with(answer: &Answer, key: &IntegrityKey) -> (bool, bool) {
    let message = answer.message();
    assert_eq!(message.has_integrity(), message.verify_integrity(key));
    assert_eq!(message.has_integrity_sha256(), message.verify_integrity_sha256(key));
    (message.has_integrity(), message.has_integrity_sha256())
}

#[test]
fn rfc8489_9_2_4_the_challenge_offers_algorithms_in_100_bytes_with_the_default_realm() {
    let mut lab = Lab::new();
    let mut stale = Client::new(&mut lab, HERE);
    let challenge = unsigned(&mut lab);
    let challenge = lab.ask(stale.path, &challenge);
    assert_eq!(challenge.value(A::PASSWORD_ALGORITHMS).as_deref(), Some(&[0, 2, 0, 0, 0, 1, 0, 0][..]));
    assert!(challenge.value(A::NONCE).unwrap().starts_with(b"obMatJos2gAAA"), "bit 0 of the features");
    assert_eq!(challenge.bytes.len(), 100);
    stale.nonce = b"obMatJos2gAAAx".to_vec();
    let answer = stale.call(&mut lab, Method::ALLOCATE, |_| {});
    assert_eq!(answer.error, Some(438));
    assert!(answer.value(A::PASSWORD_ALGORITHMS).is_some() && answer.bytes.len() <= 100);
}

/// An Allocate with FINGERPRINT alone.
fn unsigned(lab: &mut Lab) -> Vec<u8> {
    let mut buffer = [0; 64];
    let mut writer = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, lab.transaction());
    let len = writer.fingerprint().finish().unwrap();
    buffer[..len].to_vec()
}

#[test]
fn rfc8489_9_2_4_sha256_is_answered_with_sha256() {
    let mut lab = Lab::new();
    let ask = Ask::modern(&mut lab, "static", "pass");
    let answer = ask.allocate(&mut lab);
    assert_eq!((answer.error, signed_with(&answer, &ask.key)), (None, (false, true)));
    let refreshed = ask.send(&mut lab, Method::REFRESH);
    assert_eq!((refreshed.error, signed_with(&refreshed, &ask.key)), (None, (false, true)));
    // Errors to a known key are signed alike.
    let again = ask.allocate(&mut lab);
    assert_eq!((again.error, signed_with(&again, &ask.key)), (Some(437), (false, true)));
}

#[test]
fn rfc8489_9_2_4_answers_are_signed_like_their_requests() {
    let cases = [
        // Chosen algorithm, key, integrity of the request; integrity of the answer.
        (None, MD5, Integrity::Sha1, (true, false)),
        (Some(SHA256), SHA256, Integrity::Sha256, (false, true)),
        (Some(MD5), MD5, Integrity::Sha256, (false, true)),
        (Some(SHA256), SHA256, Integrity::Both, (false, true)),
        // RFC 8489 wants SHA-256 in the answer; the client showed that it reads SHA-1.
        (Some(MD5), MD5, Integrity::Sha1, (true, true)),
        (None, MD5, Integrity::Both, (true, true)),
    ];
    for (chosen, algorithm, integrity, expected) in cases {
        let mut lab = Lab::new();
        let value = chosen.map(PasswordAlgorithm::value);
        let ask = Ask {
            algorithm: value.as_ref().map(|value| &value[..]),
            algorithms: chosen.map(|_| &PasswordAlgorithm::OFFER[..]),
            key: IntegrityKey::long_term_by(algorithm, "static", REALM, "pass"),
            integrity,
            ..Ask::modern(&mut lab, "static", "pass")
        };
        let answer = ask.allocate(&mut lab);
        assert_eq!(answer.error, None, "{chosen:?} {integrity:?}");
        assert_eq!(signed_with(&answer, &ask.key), expected, "{chosen:?} {integrity:?}");
    }
}

#[test]
fn rfc8489_9_2_1_a_changed_or_partial_list_of_algorithms_is_400() {
    let mut lab = Lab::new();
    type Value = Option<&'static [u8]>;
    let cases: [(Value, Value); 8] = [
        (Some(&[0, 1, 0, 0]), None),
        (Some(&[0, 2, 0, 0]), None),
        (None, Some(&PasswordAlgorithm::OFFER)),
        (Some(&[0, 1, 0, 0]), Some(&[0, 1, 0, 0])),
        (Some(&[0, 2, 0, 0]), Some(&[0, 1, 0, 0, 0, 2, 0, 0])),
        (Some(&[0, 2, 0, 0]), Some(&[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0])),
        (Some(&[0, 3, 0, 0]), Some(&PasswordAlgorithm::OFFER)),
        (Some(&[0, 2, 0, 4, 0, 0, 0, 0]), Some(&PasswordAlgorithm::OFFER)),
    ];
    for (algorithm, algorithms) in cases {
        let ask = Ask { algorithm, algorithms, ..Ask::modern(&mut lab, "static", "pass") };
        let answer = ask.allocate(&mut lab);
        assert_eq!(answer.error, Some(400), "{algorithm:?} {algorithms:?}");
        assert_eq!(answer.value(A::NONCE), None);
    }
    assert_eq!(lab.server.stats().auth_failures[1], 8);
}

#[test]
fn rfc8489_9_2_4_only_a_nonce_that_says_so_came_with_algorithms() {
    let mut lab = Lab::new();
    let key = IntegrityKey::long_term("static", REALM, "pass");
    let integrity = Integrity::Sha1;
    for (nonce, error) in [("obMatJos2AAAAx", 438), ("bare", 438), ("obMatJos2gAAAx", 400)] {
        let modern = Ask::modern(&mut lab, "static", "pass");
        let ask = Ask { nonce: nonce.into(), algorithms: None, key: key.clone(), integrity, ..modern };
        assert_eq!(ask.allocate(&mut lab).error, Some(error), "{nonce}");
    }
}

#[test]
fn rfc8489_9_2_4_the_checks_come_in_their_order() {
    let mut lab = Lab::new();
    let stale = || b"obMatJos2gAAAx".to_vec();
    let algorithm = Some(&[0, 9, 0, 0][..]);
    // 400 for the algorithms before 401 for the user, 401 before 438 for the nonce.
    let ask = Ask { algorithm, nonce: stale(), ..Ask::modern(&mut lab, "nobody", "pass") };
    assert_eq!(ask.allocate(&mut lab).error, Some(400));
    let ask = Ask { nonce: stale(), ..Ask::modern(&mut lab, "nobody", "pass") };
    assert_eq!(ask.allocate(&mut lab).error, Some(401));
    let ask = Ask { nonce: stale(), ..Ask::modern(&mut lab, "static", "wrong") };
    assert_eq!(ask.allocate(&mut lab).error, Some(401));
    let ask = Ask { nonce: stale(), ..Ask::modern(&mut lab, "static", "pass") };
    let answer = ask.allocate(&mut lab);
    assert_eq!(answer.error, Some(438));
    let ask = Ask { nonce: answer.value(A::NONCE).unwrap(), ..ask };
    assert_eq!(ask.allocate(&mut lab).error, None);
}

#[test]
fn rfc8489_14_6_a_truncated_integrity_is_refused() {
    let mut lab = Lab::new();
    let ask = Ask::modern(&mut lab, "static", "pass");
    for length in [16, 20, 28] {
        let whole = ask.packet(&mut lab, Method::ALLOCATE);
        let mut packet = whole[..whole.len() - (32 - length)].to_vec();
        let at = packet.len() - length;
        packet[at - 2..at].copy_from_slice(&(length as u16).to_be_bytes());
        let total = (packet.len() - 20) as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        assert_eq!(lab.ask(path(HERE, Transport::Udp), &packet).error, Some(401), "{length} bytes");
    }
}

#[test]
fn rfc8489_14_4_userhash_finds_static_users() {
    let mut lab = Lab::new();
    let hash = userhash("static", REALM);
    let ask = Ask { name: (A::USERHASH, &hash), ..Ask::modern(&mut lab, "static", "pass") };
    assert_eq!(ask.allocate(&mut lab).error, None);
    assert_eq!(ask.send(&mut lab, Method::REFRESH).error, None);
    // The name in full is the same user.
    let named = Ask::modern(&mut lab, "static", "pass");
    assert_eq!(named.send(&mut lab, Method::REFRESH).error, None);
    let stranger = userhash("nobody", REALM);
    let ask = Ask { name: (A::USERHASH, &stranger), ..Ask::modern(&mut lab, "static", "pass") };
    assert_eq!(ask.send(&mut lab, Method::REFRESH).error, Some(401));
    let ask = Ask { name: (A::USERHASH, &hash[..31]), ..Ask::modern(&mut lab, "static", "pass") };
    assert_eq!(ask.send(&mut lab, Method::REFRESH).error, Some(400));
}

#[test]
fn rfc8489_14_4_userhash_finds_credentials_minted_here_and_no_others() {
    let secrets = Secrets::new(["secret"]).noting(Arc::new(Issued::new(REALM)));
    let verifier = Verifier { secrets: secrets.clone(), ..(*settings().verifier).clone() };
    let mut lab = Lab::with(|settings| settings.verifier = Arc::new(verifier));
    let hour = Duration::from_secs(3600);
    let here = mint(&secrets, lab.now().unix, hour, "alice").unwrap();
    let elsewhere = mint(&Secrets::new(["secret"]), lab.now().unix, hour, "bob").unwrap();
    for (credential, hashed, named) in [(elsewhere, Some(401), None), (here, None, None)] {
        let hash = userhash(&credential.username, REALM);
        let modern = Ask::modern(&mut lab, &credential.username, &credential.password);
        let ask = Ask { name: (A::USERHASH, &hash), ..modern };
        assert_eq!(ask.allocate(&mut lab).error, hashed, "{}", credential.username);
        let ask = Ask::modern(&mut lab, &credential.username, &credential.password);
        assert_eq!(ask.send(&mut lab, Method::REFRESH).error, named.or(hashed.map(|_| 437)));
    }
}

#[test]
fn rfc8489_9_2_the_cookie_asks_for_userhash_only_where_it_is_wanted() {
    let hidden = |settings: &mut Settings| {
        settings.nonces = Arc::new((*settings.nonces).clone().with_anonymity(true));
    };
    let mut lab = Lab::with(hidden);
    let client = Client::new(&mut lab, HERE);
    assert!(client.nonce.starts_with(b"obMatJos2wAAA"));
    client.allocate(&mut lab);
}

#[test]
fn rfc8489_9_2_2_users_are_known_by_their_opaque_strings() {
    let users = Users::new(REALM, [("Ame\u{301}lie", "pass\u{a0}word")]);
    let verifier = Verifier { users, ..Verifier::default() };
    let mut lab = Lab::with(|settings| settings.verifier = Arc::new(verifier));
    let ask = Ask::modern(&mut lab, "Am\u{e9}lie", "pass word");
    assert_eq!(ask.allocate(&mut lab).error, None);
}

#[test]
fn one_user_may_change_the_algorithm_of_a_running_allocation() {
    let mut lab = Lab::new();
    let old = Client::new(&mut lab, HERE);
    old.allocate(&mut lab);
    let modern = Ask::modern(&mut lab, "static", "pass");
    assert_eq!(modern.send(&mut lab, Method::REFRESH).error, None);
    assert_eq!(modern.send(&mut lab, Method::REFRESH).error, None);
    assert_eq!(old.refresh(&mut lab, 600).error, None);
    let other = Ask::modern(&mut lab, "other", "word");
    let answer = other.send(&mut lab, Method::REFRESH);
    assert_eq!((answer.error, signed_with(&answer, &other.key)), (Some(441), (false, true)));
}
