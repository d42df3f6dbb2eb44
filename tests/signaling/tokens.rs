//! Tokens of every algorithm, and what must not pass for one.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::time::Duration;
use turnkey::http::jwks::{KeySet, Source};
use turnkey::http::token::{Claims, JwtKey, TokenError, mint};
use turnkey::signal::{Grants, Rooms};

const NOW: u64 = 1_800_000_000;
const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEApV/ZiLU8sFSbDs15MeoZ\n\
VHU7+jxx8qFS6/OjJeXl+RCz2BqbICj/LwMCTTzlm6uhOb+6rgCrZ+DIeoi06PM4\n\
KcGkphD0bd4mlmdsfJYze9ttwq3hPk04AjBwZ++V0GeCbL9fTrIfya8/Wdk7w3Wh\n\
uAoagf+wN0GBlDGFacfP0ykSf4LpCDt8Yxiphs0riar0RQLoLBaQV113hfoOPs7O\n\
IGgd+2+dFw4cEu+XhyVPIQg8Ri0cmWo4RFATZoHsVYaoQCsr1CvdNMC2SaO0RP/8\n\
urGKYk6mBRt4NA3PpBIC3j9KFXp1zAT6iqqFsYxRJUfTv/EUQ6/QPOkngZkjorxX\n\
pwIDAQAB\n\
-----END PUBLIC KEY-----\n";

/// Signed with RS256 by the key above, whose private half is gone; valid until 2100.
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJyaXRhIiwiZXhwIjo0MTAyNDQ0ODAwLCJyb29tIjoiciJ9.cqBwSB75NC52lfEF6INbsBrbqyJRiGMLbnwUos9vGoPr8c4dLXeVb73tWuxdl9FE3g6QTDJRfqUhQAd1uY0lguX10qWUD2FDcTYHTUw1XoX4pu-0kkuw1NBpRmQeOmHpXGvldhUbInOLENHtRS_ISGvjUYvxON5Eif1HmNcxl4HWAiLSDFebksq9kqlZ_-yCcxJHZkeHn5IZC5eG0TRECKToYEJfrme7sbY1KPxht88rXFBJyEs5Tm_wViCnC2HTAgOUYqziEs4FiCZ1eMw1Dg_jvld3zsgWlywGA9ptust1ednO7Me4GvKsCvUDfdtkNVkik_0w9v3JrfuuL7-x-w";

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).expect("token")
}

#[test]
fn public_keys_of_each_kind_check_their_own_algorithm() {
    let rsa = JwtKey::from_pem(RSA_PUBLIC.as_bytes()).expect("RSA key");
    let rita = rsa.check(RSA_TOKEN, NOW).expect("valid");
    assert_eq!((&*rita.user, rita.rooms.contains("r"), rita.rooms.contains("s")), ("rita", true, false));

    let claims = json!({ "sub": "ann", "exp": NOW + 60 });
    let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
    let signer = EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes()).expect("key");
    let by_ec = sign(Algorithm::ES256, &signer, &claims);
    let signer = EncodingKey::from_ed_pem(ed.serialize_pem().as_bytes()).expect("key");
    let by_ed = sign(Algorithm::EdDSA, &signer, &claims);
    let ec = JwtKey::from_pem(ec.public_key_pem().as_bytes()).expect("EC key");
    let ed = JwtKey::from_pem(ed.public_key_pem().as_bytes()).expect("Ed25519 key");
    assert_eq!(&*ec.check(&by_ec, NOW).expect("valid").user, "ann");
    assert_eq!(&*ed.check(&by_ed, NOW).expect("valid").user, "ann");
    for (key, token) in [(&ec, &by_ed), (&ed, &by_ec), (&rsa, &by_ec)] {
        assert_eq!(key.check(token, NOW).err(), Some(TokenError::Invalid));
    }
    assert_eq!(JwtKey::from_pem(b"no key at all").err(), Some(TokenError::BadKey));
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let rsa = JwtKey::from_pem(RSA_PUBLIC.as_bytes()).expect("RSA key");
    let signer = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let forged = sign(Algorithm::HS256, &signer, &json!({ "sub": "eve", "exp": NOW + 60 }));
    assert_eq!(rsa.check(&forged, NOW).err(), Some(TokenError::Invalid));
}

#[test]
fn other_hmacs_and_missing_claims_are_refused() {
    let key = JwtKey::hs256(b"secret");
    let signer = EncodingKey::from_secret(b"secret");
    let check = |algorithm, claims: Value| key.check(&sign(algorithm, &signer, &claims), NOW).err();
    assert_eq!(check(Algorithm::HS512, json!({ "sub": "a", "exp": NOW + 60 })), Some(TokenError::Invalid));
    assert_eq!(check(Algorithm::HS256, json!({ "sub": "a" })), Some(TokenError::Claims));
    assert_eq!(check(Algorithm::HS256, json!({ "exp": NOW + 60 })), Some(TokenError::Claims));
    assert_eq!(check(Algorithm::HS256, json!({ "sub": "", "exp": NOW + 60 })), Some(TokenError::Claims));
    assert_eq!(
        check(Algorithm::HS256, json!({ "sub": "a", "exp": NOW + 60, "rooms": 7 })),
        Some(TokenError::Claims)
    );
    assert_eq!(check(Algorithm::HS256, json!({ "sub": "a", "exp": NOW })), Some(TokenError::Expired));
    assert_eq!(check(Algorithm::HS256, json!({ "sub": "a", "exp": NOW + 60, "aud": "x" })), None);
}

#[test]
fn rfc7519_4_1_a_token_of_another_issuer_for_another_audience_or_before_its_time_is_refused() {
    let signer = EncodingKey::from_secret(b"secret");
    let key = JwtKey::hs256(b"secret");
    let strict = JwtKey::hs256(b"secret").expecting("https://id.example.org", "calls");
    let check = |key: &JwtKey, more: Value| {
        let mut claims = json!({ "sub": "a", "exp": NOW + 600 });
        claims.as_object_mut().expect("claims").extend(more.as_object().expect("claims").clone());
        key.check(&sign(Algorithm::HS256, &signer, &claims), NOW).err()
    };
    let (iss, aud) = ("https://id.example.org", "calls");
    for (more, expected) in [
        (json!({ "iss": iss, "aud": aud }), None),
        (json!({ "iss": iss, "aud": ["mail", aud] }), None),
        (json!({ "iss": iss }), Some(TokenError::Elsewhere)),
        (json!({ "aud": aud }), Some(TokenError::Elsewhere)),
        (json!({ "iss": "https://evil.example", "aud": aud }), Some(TokenError::Elsewhere)),
        (json!({ "iss": iss, "aud": "mail" }), Some(TokenError::Elsewhere)),
    ] {
        assert_eq!(check(&strict, more.clone()), expected, "{more}");
        assert_eq!(check(&key, more), None, "where nothing is asked for");
    }
    assert_eq!(check(&key, json!({ "nbf": NOW + 30 })), None, "clocks differ");
    assert_eq!(check(&key, json!({ "nbf": NOW + 120 })), Some(TokenError::Early));
    let own = Claims { iss: Some(iss.into()), aud: Some(aud.into()), sub: "a".into(), ..Claims::default() };
    let token = mint(b"secret", own, NOW, Duration::from_secs(60)).expect("token");
    assert!(strict.check(&token, NOW).is_ok(), "those of `turnkey token`");
}

#[test]
fn a_reload_goes_on_with_the_keys_that_were_read_before() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("keys.json");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
    let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("key");
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&signer, Algorithm::ES256).expect("a public key");
    std::fs::write(&path, json!({ "keys": [jwk] }).to_string()).expect("written");
    let set = || std::sync::Arc::new(KeySet::new(Source::File(path.clone())));
    let old = set();
    assert_eq!(old.read(), Ok(1));
    let old = JwtKey::set(old);
    std::fs::remove_file(&path).expect("removed");
    let unread = set();
    assert!(unread.read().is_err());
    let mut new = JwtKey::set(unread);
    let token = sign(Algorithm::ES256, &signer, &json!({ "sub": "ann", "exp": NOW + 60 }));
    assert_eq!(new.check(&token, NOW).err(), Some(TokenError::Invalid));
    new.go_on_with(&old);
    assert!(new.check(&token, NOW).is_ok());
    let mut another =
        JwtKey::set(std::sync::Arc::new(KeySet::new(Source::Url("http://127.0.0.1:1/".into()))));
    another.go_on_with(&old);
    assert!(another.check(&token, NOW).is_err(), "of another place");
}

#[test]
fn minted_tokens_carry_their_claims() {
    let claims = Claims {
        sub: "ann".into(),
        rooms: Some(vec!["a".into(), "b".into()]),
        role: Some("doctor".into()),
        grants: Some(vec!["join".into()]),
        name: Some("Dr. Ann".into()),
        ..Claims::default()
    };
    let token = mint(b"secret", claims, NOW, Duration::from_secs(60)).expect("token");
    let ann = JwtKey::hs256(b"secret").check(&token, NOW).expect("valid");
    assert_eq!(ann.expires_at, Some(NOW + 60));
    assert_eq!((ann.role.as_deref(), ann.name.as_deref()), (Some("doctor"), Some("Dr. Ann")));
    assert_eq!(ann.grants, Grants { join: true, signal: false, chat: false, moderate: false });
    assert!(matches!(&ann.rooms, Rooms::Named(rooms) if rooms.len() == 2));
    assert!(!ann.is_guest && ann.may_relay && ann.names_a_person());
    let invite = Claims { sub: "guest".into(), shared: true, ..Claims::default() };
    let invite = mint(b"secret", invite, NOW, Duration::from_secs(60)).expect("token");
    assert!(!JwtKey::hs256(b"secret").check(&invite, NOW).expect("valid").names_a_person());
}

#[test]
fn a_key_set_names_its_keys_and_rotates() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("keys.json");
    let pair = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
    let jwk = |id: &str, pair: &rcgen::KeyPair| {
        let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("key");
        let mut jwk = serde_json::to_value(
            jsonwebtoken::jwk::Jwk::from_encoding_key(&signer, Algorithm::ES256).expect("a public key"),
        )
        .expect("JSON");
        jwk["kid"] = id.into();
        (signer, jwk)
    };
    let (old, old_jwk) = jwk("old", &pair());
    let (new, new_jwk) = jwk("new", &pair());
    let write =
        |keys: &[&Value]| std::fs::write(&path, json!({ "keys": keys }).to_string()).expect("written");
    let sign = |kid: &str, key: &EncodingKey| {
        let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::ES256) };
        encode(&header, &json!({ "sub": "ann", "exp": NOW + 60 }), key).expect("token")
    };
    write(&[&old_jwk]);
    let set = std::sync::Arc::new(KeySet::new(Source::File(path.clone())));
    assert_eq!(set.read(), Ok(1));
    let key = JwtKey::set(set.clone());
    assert_eq!(&*key.check(&sign("old", &old), NOW).expect("valid").user, "ann");
    assert_eq!(key.check(&sign("new", &new), NOW).err(), Some(TokenError::Invalid), "not in the set yet");
    assert_eq!(key.check(&sign("old", &new), NOW).err(), Some(TokenError::Invalid), "another key's name");
    write(&[&new_jwk]);
    assert_eq!(set.read(), Ok(1));
    assert_eq!(&*key.check(&sign("new", &new), NOW).expect("valid").user, "ann");
    assert_eq!(key.check(&sign("old", &old), NOW).err(), Some(TokenError::Invalid), "gone");
    std::fs::write(&path, "no JSON").expect("written");
    assert!(set.read().is_err());
    assert!(key.check(&sign("new", &new), NOW).is_ok(), "the keys there are stay");
    let secret = json!({ "keys": [{ "kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256" }] });
    std::fs::write(&path, secret.to_string()).expect("written");
    assert!(set.read().is_err(), "a shared secret has no place in it");
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjo0MTAyNDQ0ODAwfQ.";
    for key in [&key, &JwtKey::hs256(b"secret")] {
        assert!(key.check(none, NOW).is_err(), "alg: none");
    }
}
