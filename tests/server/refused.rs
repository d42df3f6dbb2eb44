//! The log says why a client was refused: one line for each step, none for the first challenge, no secrets, and
//! names only where they are asked for.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use turnkey::credential::{Credential, Secrets, mint};
use turnkey::stun::{AttributeType as A, Class, IntegrityKey, Message, MessageWriter, Method, TransactionId};

use crate::harness::{Client, Home, LOOPBACK, PATIENCE, Process};

const SECRET: &str = "the-right-secret-0123";

fn config(rest: &str) -> String {
    format!("{LOOPBACK}[credentials]\nsecrets = [\"{SECRET}\"]\nusers = {{ bob = \"builder\" }}\n{rest}")
}

fn minted(secret: &str, since: u64, ttl: u64) -> Credential {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    mint(&Secrets::new([secret]), now - since, Duration::from_secs(ttl), "alice").expect("minted")
}

/// An Allocate with any realm, nonce and further attributes, and the error it comes to.
fn allocate(server: SocketAddr, realm: &str, nonce: &[u8], further: &[(A, &[u8])]) -> Option<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let ask = |nonce: &[u8]| {
        let mut buffer = [0; 1500];
        let id = TransactionId([7; 12]);
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, id);
        if !nonce.is_empty() {
            writer.u32(A::REQUESTED_TRANSPORT, 17 << 24).attribute(A::USERNAME, b"bob");
            writer.attribute(A::REALM, realm.as_bytes()).attribute(A::NONCE, nonce);
            further.iter().for_each(|(kind, value)| {
                writer.attribute(*kind, value);
            });
            writer.integrity(&IntegrityKey::long_term("bob", realm, "builder"));
        }
        let len = writer.finish().expect("it fits");
        socket.send_to(&buffer[..len], server).expect("sent");
        let len = socket.recv(&mut buffer).expect("an answer");
        buffer[..len].to_vec()
    };
    let challenge = ask(b"");
    let challenge = Message::parse(&challenge).expect("STUN");
    let given = challenge.attribute(A::NONCE).expect("a nonce").value;
    let answer = ask(if nonce.is_empty() { given } else { nonce });
    let answer = Message::parse(&answer).expect("STUN");
    answer.attribute(A::ERROR_CODE).and_then(|error| error.as_error()).map(|(code, _)| code)
}

/// The line about a step.
#[track_caller]
fn line(process: &mut Process, step: &str) -> String {
    process.wait_for(&format!("step=\"{step}\""))
}

#[test]
fn each_step_has_its_line() {
    let home = Home::new();
    let mut process = home.serve(&config(""));
    let server = process.address("udp");
    let client = || Client::new(server);

    assert_eq!(client().allocate("carol", "x"), Err(401));
    assert!(line(&mut process, "unknown_user").contains("WARN"));

    let expired = minted(SECRET, 100, 58);
    assert_eq!(client().allocate(&expired.username, &expired.password), Err(401));
    let text = line(&mut process, "expired");
    let seconds =
        text.split_once("seconds=").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| (42..100).contains(&seconds)), "{text}");

    let other = minted("another-secret-4567", 0, 600);
    assert_eq!(client().allocate(&other.username, &other.password), Err(401));
    assert!(line(&mut process, "wrong_password").contains("count=1"));

    assert_eq!(allocate(server, "elsewhere", b"", &[]), Some(401));
    assert!(line(&mut process, "wrong_realm").contains("relay.realm"));

    assert_eq!(allocate(server, "turnkey", b"obMatJos2gAAAanybody", &[]), Some(438));
    line(&mut process, "foreign_nonce");

    assert_eq!(allocate(server, "turnkey", b"", &[(A::PASSWORD_ALGORITHM, &[0, 2, 0, 0])]), Some(400));
    line(&mut process, "bad_algorithms");

    assert_eq!(process.terminate(), Some(0));
    let log = process.log.join("\n");
    for secret in [SECRET, "builder", &*expired.password, &*other.password, "carol", "alice", "bob"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

#[test]
fn a_bad_token_has_its_line() {
    let home = Home::new();
    let key = "ERERERERERERERERERERERERERERERERERERERERERE=";
    let mut process = home.serve(&config(&format!(
        "third_party = {{ server = \"turn.example.org\", keys = {{ bob = \"{key}\" }} }}\n"
    )));
    let token = [(A::ACCESS_TOKEN, &b"no token at all, but long enough to look like one"[..])];
    assert_eq!(allocate(process.address("udp"), "turnkey", b"", &token), Some(401));
    line(&mut process, "bad_token");
    assert_eq!(process.terminate(), Some(0));
    assert!(!process.log.join("\n").contains(key));
}

#[test]
fn many_failures_are_one_line_with_a_count_and_the_first_challenge_is_none() {
    let home = Home::new();
    let mut process = home.serve(&config(""));
    let mut client = Client::new(process.address("udp"));
    for _ in 0..200 {
        assert_eq!(client.allocate("bob", "wrong"), Err(401));
    }
    let mut counted = 0;
    while counted < 200 {
        let text = line(&mut process, "wrong_password");
        let count =
            text.split_once("count=").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
        counted += count.expect("a count");
    }
    assert_eq!(counted, 200);
    assert!(client.allocate("bob", "builder").is_ok());
    assert_eq!(process.terminate(), Some(0));
    let lines = process.log.iter().filter(|line| line.contains("not authenticated")).count();
    assert!(lines < 100, "{lines} lines for 200 failures");
    assert!(process.log.iter().all(|line| !line.contains("step=") || line.contains("wrong_password")));
}

#[test]
fn names_and_addresses_where_they_are_asked_for() {
    let home = Home::new();
    let mut process = home.serve(&config("[log]\nlevel = \"info,turnkey::app::failures=debug\"\n"));
    assert_eq!(Client::new(process.address("udp")).allocate("ca\nrol", "x"), Err(401));
    let text = process.wait_for("user=");
    assert!(text.contains(r#"user="ca\nrol""#) && text.contains("client=127.0.0.1:"), "{text}");
    assert_eq!(process.terminate(), Some(0));
}
