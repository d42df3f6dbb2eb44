//! What the core reports about clients it refuses: each step by its name, never the first challenge.

use std::time::Duration;

use turnkey::credential::{AuthFailure, Secrets, mint};
use turnkey::stun::{AttributeType as A, IntegrityKey, Method};

use crate::lab::{Client, Lab, REALM, UDP};

const HERE: &str = "192.0.2.9:40000";

/// Allocates in vain and returns the steps that were reported.
fn steps(lab: &mut Lab, client: &Client) -> Vec<(AuthFailure, String)> {
    let answer = client.call(lab, Method::ALLOCATE, |w| {
        w.attribute(A::REQUESTED_TRANSPORT, UDP);
    });
    assert!(answer.error.is_some());
    let reports = lab.server.take_auth_failures();
    reports.into_iter().map(|report| (report.failure, report.username)).collect()
}

#[test]
fn each_step_is_reported_with_the_name_that_was_sent() {
    let mut lab = Lab::new();
    let good = Client::new(&mut lab, HERE);
    let one = |failure, name: &str| vec![(failure, name.to_owned())];

    let wrong = Client { key: IntegrityKey::long_term("static", REALM, "wrong"), ..good.clone() };
    assert_eq!(steps(&mut lab, &wrong), one(AuthFailure::WrongPassword, "static"));

    let stranger = Client { username: "nobody".into(), ..good.clone() };
    assert_eq!(steps(&mut lab, &stranger), one(AuthFailure::UnknownUser, "nobody"));

    let stale = Client { nonce: b"obMatJos2gAAAx".to_vec(), ..good.clone() };
    assert_eq!(steps(&mut lab, &stale), one(AuthFailure::ForeignNonce, "static"));

    let now = lab.now().unix;
    let old = mint(&Secrets::new(["secret"]), now - 100, Duration::from_secs(60), "alice").unwrap();
    let key = IntegrityKey::long_term(&old.username, REALM, &old.password);
    let expired = Client { username: old.username.clone(), key, ..good.clone() };
    assert_eq!(steps(&mut lab, &expired), one(AuthFailure::Expired { by: 40 }, &old.username));

    let far = mint(&Secrets::new(["secret"]), now, Duration::from_secs(1 << 20), "alice").unwrap();
    let key = IntegrityKey::long_term(&far.username, REALM, &far.password);
    let far = Client { username: far.username, key, ..good.clone() };
    assert_eq!(steps(&mut lab, &far), one(AuthFailure::TooFarAhead, &far.username));

    lab.advance(Duration::from_secs(3601));
    assert_eq!(steps(&mut lab, &good), one(AuthFailure::StaleNonce, "static"));

    assert_eq!(lab.server.stats().auth_failures.iter().sum::<u64>(), 6);
}

#[test]
fn another_realm_is_told_from_a_wrong_password() {
    let mut lab = Lab::new();
    let good = Client::new(&mut lab, HERE);
    let mut buffer = [0; 256];
    let transaction = lab.transaction();
    let len = turnkey::stun::MessageWriter::new(
        &mut buffer,
        turnkey::stun::Class::Request,
        Method::ALLOCATE,
        transaction,
    )
    .attribute(A::USERNAME, b"static")
    .attribute(A::REALM, b"elsewhere")
    .attribute(A::NONCE, &good.nonce)
    .integrity(&IntegrityKey::long_term("static", "elsewhere", "pass"))
    .finish()
    .unwrap();
    assert_eq!(lab.ask(good.path, &buffer[..len]).error, Some(401));
    assert_eq!(lab.server.take_auth_failures()[0].failure, AuthFailure::WrongRealm);
}

#[test]
fn the_first_challenge_and_a_login_that_works_are_no_failures() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    assert_eq!(client.refresh(&mut lab, 600).error, None);
    assert_eq!(lab.server.take_auth_failures(), []);
}

#[test]
fn another_user_at_the_same_address_is_reported() {
    let mut lab = Lab::new();
    let owner = Client::new(&mut lab, HERE);
    owner.allocate(&mut lab);
    let thief = Client::with(&mut lab, owner.path, "other", "word");
    assert_eq!(steps(&mut lab, &thief), [(AuthFailure::OtherUser, "other".to_owned())]);
}
