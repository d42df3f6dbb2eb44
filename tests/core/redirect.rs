//! 300 ALTERNATE-SERVER for those there is no room for: RFC 8489 §10.

use turnkey::stun::{
    AttributeType as A, Class, Integrity, IntegrityKey, MessageWriter, Method, PasswordAlgorithm,
};
use turnkey::turn::{Mode, Redirect, Settings, Transport};

use crate::lab::{Answer, Client, Lab, REALM, UDP, addr, path};

const HERE: &str = "192.0.2.9:40000";
const OVER_THERE: &str = "203.0.113.7:3478";

fn redirecting(settings: &mut Settings) {
    let to = vec![addr("[2001:db8::7]:3478"), addr(OVER_THERE)];
    settings.redirect = Some(Redirect { to, domain: "turn2.example.org".into() });
}

fn allocate(client: &Client, lab: &mut Lab) -> Answer {
    client.call(lab, Method::ALLOCATE, |w| {
        w.attribute(A::REQUESTED_TRANSPORT, UDP);
    })
}

fn servers(answer: &Answer) -> Vec<String> {
    let message = answer.message();
    let servers = message.attributes().filter(|attribute| attribute.kind == A::ALTERNATE_SERVER);
    servers.map(|server| server.as_address().unwrap().to_string()).collect()
}

#[test]
fn rfc8489_10_a_drain_sends_new_clients_on_and_running_calls_stay() {
    let mut lab = Lab::with(redirecting);
    let running = Client::new(&mut lab, HERE);
    running.allocate(&mut lab);
    lab.server.set_mode(Mode::Draining);
    assert_eq!(running.refresh(&mut lab, 600).error, None);
    let four = allocate(&Client::new(&mut lab, "192.0.2.8:1"), &mut lab);
    assert_eq!(
        (four.error, servers(&four)),
        (Some(300), vec![OVER_THERE.into(), "[2001:db8::7]:3478".into()])
    );
    let six = allocate(&Client::new(&mut lab, "[2001:db8::9]:40000"), &mut lab);
    assert_eq!((six.error, servers(&six)), (Some(300), vec!["[2001:db8::7]:3478".into(), OVER_THERE.into()]));
    lab.server.set_mode(Mode::Serving);
    assert_eq!(allocate(&Client::new(&mut lab, "192.0.2.8:2"), &mut lab).error, None);
}

#[test]
fn rfc8489_10_the_answer_is_signed_and_strangers_are_not_redirected() {
    let mut lab = Lab::with(redirecting);
    lab.server.set_mode(Mode::Draining);
    let mut client = Client::new(&mut lab, HERE);
    let answer = allocate(&client, &mut lab);
    assert!(answer.error == Some(300) && answer.message().verify_integrity(&client.key));
    client.key = IntegrityKey::long_term("static", REALM, "wrong");
    let refused = allocate(&client, &mut lab);
    assert_eq!((refused.error, servers(&refused)), (Some(401), vec![]));
}

#[test]
fn rfc8489_10_no_address_of_the_clients_family_no_redirect() {
    let only_v6 = |settings: &mut Settings| {
        settings.redirect = Some(Redirect { to: vec![addr("[2001:db8::7]:3478")], domain: "".into() });
    };
    let mut lab = Lab::with(only_v6);
    lab.server.set_mode(Mode::Draining);
    assert_eq!(allocate(&Client::new(&mut lab, HERE), &mut lab).error, Some(508));
    assert_eq!(allocate(&Client::new(&mut lab, "[2001:db8::9]:40000"), &mut lab).error, Some(300));
    let mut lab = Lab::new();
    lab.server.set_mode(Mode::Draining);
    assert_eq!(allocate(&Client::new(&mut lab, HERE), &mut lab).error, Some(508));
}

#[test]
fn design_4_10_a_full_server_sends_on_and_a_full_user_stays() {
    let mut lab = Lab::with(|settings| {
        redirecting(settings);
        (settings.total_quota, settings.user_quota) = (2, 1);
    });
    Client::new(&mut lab, "192.0.2.9:1").allocate(&mut lab);
    assert_eq!(allocate(&Client::new(&mut lab, "192.0.2.9:2"), &mut lab).error, Some(486), "of one user");
    Client::with(&mut lab, path("192.0.2.9:3", Transport::Udp), "other", "word").allocate(&mut lab);
    assert_eq!(allocate(&Client::new(&mut lab, "192.0.2.9:4"), &mut lab).error, Some(300), "of all");
    let mut lab = Lab::with(|settings| {
        redirecting(settings);
        settings.ports = 50_000..=50_000;
    });
    Client::new(&mut lab, "192.0.2.9:1").allocate(&mut lab);
    assert_eq!(allocate(&Client::new(&mut lab, "192.0.2.9:2"), &mut lab).error, Some(300), "out of ports");
}

#[test]
fn rfc8489_10_the_domain_is_for_those_who_verify_certificates_and_know_the_attribute() {
    for (transport, integrity, expected) in [
        (Transport::Tls, Integrity::Sha256, Some(b"turn2.example.org".to_vec())),
        (Transport::Dtls, Integrity::Sha256, Some(b"turn2.example.org".to_vec())),
        (Transport::Tcp, Integrity::Sha256, None),
        (Transport::Tls, Integrity::Sha1, None),
    ] {
        let mut lab = Lab::with(redirecting);
        lab.server.set_mode(Mode::Draining);
        let client = Client::with(&mut lab, path(HERE, transport), "static", "pass");
        let mut buffer = [0; 512];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, lab.transaction());
        writer.attribute(A::REQUESTED_TRANSPORT, UDP).attribute(A::USERNAME, b"static");
        writer.attribute(A::REALM, REALM.as_bytes()).attribute(A::NONCE, &client.nonce);
        let mut key = client.key.clone();
        if integrity == Integrity::Sha256 {
            writer.attribute(A::PASSWORD_ALGORITHMS, &PasswordAlgorithm::OFFER);
            writer.attribute(A::PASSWORD_ALGORITHM, &PasswordAlgorithm::Sha256.value());
            key = IntegrityKey::long_term_by(PasswordAlgorithm::Sha256, "static", REALM, "pass");
        }
        let len = writer.sign(&key, integrity).finish().unwrap();
        let answer = lab.ask(client.path, &buffer[..len]);
        assert_eq!((answer.error, answer.value(A::ALTERNATE_DOMAIN)), (Some(300), expected), "{transport:?}");
    }
}
