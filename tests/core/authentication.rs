//! The long-term mechanism: RFC 8489 §9.2.4.

use std::sync::Arc;
use std::time::Duration;

use turnkey::credential::{Nonces, Revoked, Secrets, Verifier};
use turnkey::stun::{AttributeType, Class, IntegrityKey, MessageWriter, Method};

use crate::lab::{Client, Lab, REALM, START_UNIX, UDP, settings};

const HERE: &str = "192.0.2.9:40000";
const METHODS: [Method; 4] =
    [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];

fn plain(w: &mut MessageWriter<'_>) {
    w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP);
}

#[test]
fn rfc8489_9_2_4_without_integrity_401_with_realm_and_nonce() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    for method in METHODS {
        let mut buffer = [0; 64];
        let transaction = lab.transaction();
        let len = MessageWriter::new(&mut buffer, Class::Request, method, transaction).finish().unwrap();
        let answer = lab.ask(client.path, &buffer[..len]);
        assert_eq!(answer.error, Some(401));
        assert_eq!(answer.value(AttributeType::REALM).as_deref(), Some(REALM.as_bytes()));
        assert!(answer.value(AttributeType::NONCE).unwrap().starts_with(b"obMatJos2"));
        assert!(!answer.message().has_integrity());
        assert!(answer.bytes.len() <= 128, "{} bytes", answer.bytes.len());
    }
}

#[test]
fn rfc8489_9_2_4_integrity_without_username_realm_or_nonce_is_400() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let all = [
        (AttributeType::USERNAME, b"static".as_slice()),
        (AttributeType::REALM, REALM.as_bytes()),
        (AttributeType::NONCE, &client.nonce),
    ];
    for left_out in 0..all.len() {
        let mut buffer = [0; 512];
        let transaction = lab.transaction();
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, transaction);
        for (index, (kind, value)) in all.iter().enumerate() {
            if index != left_out {
                writer.attribute(*kind, value);
            }
        }
        let len = writer.integrity(&client.key).finish().unwrap();
        assert_eq!(lab.ask(client.path, &buffer[..len]).error, Some(400));
    }
}

#[test]
fn rfc8489_9_2_4_unknown_user_and_wrong_password_are_401_with_a_challenge() {
    let mut lab = Lab::new();
    let mut client = Client::new(&mut lab, HERE);
    client.key = IntegrityKey::long_term("static", REALM, "wrong");
    let wrong = client.call(&mut lab, Method::ALLOCATE, plain);
    client.username = "nobody".into();
    let unknown = client.call(&mut lab, Method::ALLOCATE, plain);
    for answer in [wrong, unknown] {
        assert_eq!(answer.error, Some(401));
        assert!(answer.value(AttributeType::NONCE).is_some() && answer.value(AttributeType::REALM).is_some());
    }
    assert_eq!(lab.allocations(), 0);
}

#[test]
fn rfc8489_9_2_4_bad_nonces_are_438_for_every_method_and_the_allocation_stays() {
    let mut lab = Lab::new();
    let mut client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let good = client.nonce.clone();
    let foreign = Client::new(&mut lab, "192.0.2.9:40001").nonce;
    for nonce in [b"".to_vec(), b"x".to_vec(), vec![b'A'; 763], foreign] {
        client.nonce = nonce;
        for method in METHODS {
            let answer = client.call(&mut lab, method, plain);
            assert_eq!(answer.error, Some(438));
            assert!(answer.bytes.len() <= 128);
        }
    }
    client.nonce = good;
    assert_eq!(client.refresh(&mut lab, 600).error, None);
}

#[test]
fn rfc8656_5_nonces_live_an_hour_and_the_new_one_in_the_438_works() {
    let mut lab = Lab::new();
    let mut client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    for _ in 0..6 {
        lab.advance(Duration::from_secs(600) - Duration::from_millis(1));
        assert_eq!(client.refresh(&mut lab, 600).error, None);
    }
    lab.advance(Duration::from_secs(10));
    let stale = client.refresh(&mut lab, 600);
    assert_eq!(stale.error, Some(438));
    client.nonce = stale.value(AttributeType::NONCE).unwrap();
    assert_eq!(client.refresh(&mut lab, 600).error, None);
    assert_eq!(lab.allocations(), 1);
}

#[test]
fn rfc8489_9_2_4_the_nonce_before_a_key_rotation_still_works() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let nonces = Nonces::new([9; 32]).rotate([10; 32]);
    lab.server.reconfigure(turnkey::turn::Settings { nonces: Arc::new(nonces), ..settings() });
    client.allocate(&mut lab);
}

#[test]
fn rfc8656_5_other_credentials_on_a_live_5_tuple_are_441() {
    let mut lab = Lab::new();
    let owner = Client::new(&mut lab, HERE);
    owner.allocate(&mut lab);
    let thief = Client::with(&mut lab, owner.path, "other", "word");
    for method in METHODS {
        assert_eq!(thief.call(&mut lab, method, plain).error, Some(441));
    }
    let stranger = Client::with(&mut lab, owner.path, "other", "wrong");
    assert_eq!(stranger.call(&mut lab, Method::REFRESH, plain).error, Some(401));
    assert_eq!(owner.refresh(&mut lab, 600).error, None);
}

#[test]
fn expiry_is_enforced_at_allocate_and_a_live_allocation_refreshes_on() {
    let mut lab = Lab::new();
    let minute = Duration::from_secs(60);
    let client = Client::minted(&mut lab, HERE, minute, "alice");
    let late = Client::minted(&mut lab, "192.0.2.9:2", minute, "alice");
    client.allocate(&mut lab);
    lab.advance(minute);
    assert_eq!(late.call(&mut lab, Method::ALLOCATE, plain).error, Some(401));
    assert_eq!(client.refresh(&mut lab, 600).lifetime(), Some(600));
}

/// A lab whose secrets refuse what is in the list.
fn lab_with_revocations() -> (Lab, Arc<Revoked>) {
    let revoked = Arc::new(Revoked::default());
    let lab = Lab::with(|settings| {
        let secrets = Secrets::new(["secret"]).refusing(Arc::clone(&revoked));
        settings.verifier = Arc::new(Verifier { secrets, ..(*settings.verifier).clone() });
    });
    (lab, revoked)
}

#[test]
fn a_credential_taken_back_signs_nothing_more_for_its_own_allocation() {
    let (mut lab, revoked) = lab_with_revocations();
    let ann = Client::minted(&mut lab, HERE, Duration::from_secs(600), "ann.1");
    let bob = Client::minted(&mut lab, "192.0.2.9:40001", Duration::from_secs(600), "bob.1");
    ann.allocate(&mut lab);
    bob.allocate(&mut lab);
    revoked.add("ann.1", START_UNIX + 600, START_UNIX);
    // No worker has been told yet, or ever will be.
    for method in [Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND, Method::ALLOCATE] {
        assert_eq!(ann.call(&mut lab, method, plain).error, Some(401));
    }
    assert_eq!(bob.refresh(&mut lab, 600).error, None);
    assert_eq!(lab.allocations(), 2);
}

#[test]
fn allocations_made_with_a_credential_taken_back_end() {
    let (mut lab, revoked) = lab_with_revocations();
    let ids = ["ann.1", "ann.2", "bob.1"];
    for (id, from) in ids.into_iter().zip(["192.0.2.9:1001", "192.0.2.9:1002", "192.0.2.9:1003"]) {
        Client::minted(&mut lab, from, Duration::from_secs(600), id).allocate(&mut lab);
    }
    let fixed = Client::new(&mut lab, HERE);
    fixed.allocate(&mut lab);
    let now = lab.now();
    lab.server.handle_revoked(now);
    assert_eq!(lab.allocations(), 4, "nothing was taken back");
    ids[1..].iter().for_each(|id| revoked.add(id, START_UNIX + 600, START_UNIX));
    lab.server.handle_revoked(now);
    assert_eq!(lab.allocations(), 2);
    assert_eq!(fixed.refresh(&mut lab, 600).error, None);
}

#[test]
fn strict_expiry_ends_the_allocation_with_the_credential() {
    let mut lab = Lab::with(|settings| settings.strict_expiry = true);
    let client = Client::minted(&mut lab, HERE, Duration::from_secs(900), "alice");
    client.allocate(&mut lab);
    lab.advance(Duration::from_secs(599));
    assert_eq!(client.refresh(&mut lab, 600).lifetime(), Some(301));
    lab.advance(Duration::from_secs(300));
    assert_eq!(client.refresh(&mut lab, 600).lifetime(), Some(1));
    lab.advance(Duration::from_secs(1));
    assert_eq!(lab.allocations(), 0);
    assert_eq!(client.refresh(&mut lab, 600).error, Some(401));
}

#[test]
fn rfc8489_14_5_attributes_behind_the_integrity_are_not_read() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let mut packet = client.signed(lab.transaction(), Method::REFRESH, |_| {});
    packet.extend([0x00, 0x0D, 0, 4, 0, 0, 0, 0]);
    let length = (packet.len() - 20) as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(lab.ask(client.path, &packet).lifetime(), Some(600), "not the LIFETIME of 0 behind it");
    assert_eq!(lab.allocations(), 1);
}

#[test]
fn rfc8489_14_the_first_of_two_attributes_counts() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let answer = client.call(&mut lab, Method::REFRESH, |w| {
        w.u32(AttributeType::LIFETIME, 700).u32(AttributeType::LIFETIME, 0);
    });
    assert_eq!(answer.lifetime(), Some(700));
}

#[test]
fn rfc8489_7_fingerprint_is_mirrored_and_checked() {
    let mut lab = Lab::new();
    let mut client = Client::new(&mut lab, HERE);
    client.fingerprint = true;
    client.allocate(&mut lab);
    let mut packet = client.signed(lab.transaction(), Method::REFRESH, |_| {});
    *packet.last_mut().unwrap() ^= 1;
    lab.silent(client.path, &packet);
}

#[test]
fn a_reload_changes_who_may_come_in_and_leaves_running_calls() {
    let mut lab = Lab::new();
    let running = Client::minted(&mut lab, HERE, Duration::from_secs(3600), "alice");
    running.allocate(&mut lab);
    let new_secret = Verifier { secrets: Secrets::new(["another"]), ..(*settings().verifier).clone() };
    lab.server.reconfigure(turnkey::turn::Settings { verifier: Arc::new(new_secret), ..settings() });
    assert_eq!(running.refresh(&mut lab, 600).error, None);
    let late = Client::minted(&mut lab, "192.0.2.9:2", Duration::from_secs(3600), "alice");
    assert_eq!(late.call(&mut lab, Method::ALLOCATE, plain).error, Some(401));
}
