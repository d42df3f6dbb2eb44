use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dimpl::{Config, DtlsCertificate};

use super::*;
use crate::dtls::{Cookies, IdentityError};

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    Identity::new(made.cert.der().to_vec(), made.signing_key.serialize_der()).expect("an ECDSA pair")
}

fn client(mtu: usize, now: Instant) -> Dtls {
    let made = rcgen::generate_simple_self_signed(["client".to_owned()]).expect("a certificate");
    let certificate = DtlsCertificate {
        certificate: made.cert.der().to_vec(),
        private_key: made.signing_key.serialize_der(),
    };
    let config = Config::builder().mtu(mtu).build().expect("a configuration");
    let mut client = Dtls::new_12(Arc::new(config), certificate, now);
    client.set_active(true);
    client.handle_timeout(now).expect("a first hello");
    client
}

fn client_output(client: &mut Dtls) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut datagrams, mut data, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        match client.poll_output(&mut buffer) {
            Output::Packet(packet) => datagrams.push(packet.to_vec()),
            Output::ApplicationData(bytes) => data.push(bytes.to_vec()),
            Output::Timeout(_) => return (datagrams, data),
            _ => {}
        }
    }
}

/// Everything the session has for its client, and whether it is connected and what it received.
fn server_output(session: &mut Session) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut datagrams, mut data, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        match session.poll(&mut buffer) {
            Event::Datagram(len) => datagrams.push(buffer[..len].to_vec()),
            Event::Data(len) => data.push(buffer[..len].to_vec()),
            Event::Wait(_) => return (datagrams, data),
            Event::Connected | Event::Closed | Event::TooSmall(_) => {}
        }
    }
}

/// A client, the front and a session, with a wire that loses what `is_lost` says by the datagram's number.
struct Wire {
    client: Dtls,
    session: Option<Session>,
    cookies: Cookies,
    identity: Identity,
    now: Instant,
    elapsed: Duration,
    sent: usize,
    is_lost: Box<dyn Fn(usize) -> bool>,
    /// Record numbers of the plaintext records from the server.
    numbers: Vec<u64>,
    received: Vec<Vec<u8>>,
}

impl Wire {
    fn new(mtu: usize, is_lost: impl Fn(usize) -> bool + 'static) -> Self {
        let now = Instant::now();
        Self {
            client: client(mtu, now),
            session: None,
            cookies: Cookies::new([1; 32]),
            identity: identity(),
            now,
            elapsed: Duration::ZERO,
            sent: 0,
            is_lost: Box::new(is_lost),
            numbers: Vec::new(),
            received: Vec::new(),
        }
    }

    fn arrives(&mut self) -> bool {
        self.sent += 1;
        !(self.is_lost)(self.sent)
    }

    /// What the server does with a datagram: the datagrams it answers with.
    fn serve(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let (from, to) = (SocketAddr::from(([192, 0, 2, 1], 7)), SocketAddr::from(([192, 0, 2, 2], 8)));
        if let Some(session) = &mut self.session {
            session.handle(datagram, self.now).expect("a healthy session");
        } else {
            let Some(hello) = Hello::parse(datagram) else { return Vec::new() };
            let Some(cookie) = self.cookies.verify(&hello, from, to, self.elapsed) else {
                let cookie = self.cookies.issue(&hello, from, to, self.elapsed);
                return vec![hello.verify_request(&cookie).to_vec()];
            };
            let accepted = Session::accept(&self.identity, datagram, &hello, cookie, self.now);
            self.session = Some(accepted.expect("a hello it speaks"));
        }
        let (datagrams, data) = server_output(self.session.as_mut().expect("just made"));
        self.received.extend(data);
        datagrams
    }

    fn note_numbers(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while rest.len() > 13 {
            if rest[3..5] == [0, 0] {
                self.numbers.push(rest[5..11].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
            }
            rest = &rest[13 + usize::from(u16::from_be_bytes([rest[11], rest[12]]))..];
        }
    }

    /// Passes datagrams to and fro until nobody has one, then lets a second pass; until both are connected.
    fn handshake(&mut self) {
        for _ in 0..60 {
            loop {
                let (datagrams, _) = client_output(&mut self.client);
                if datagrams.is_empty() {
                    break;
                }
                for datagram in datagrams {
                    let answers = if self.arrives() { self.serve(&datagram) } else { Vec::new() };
                    self.deliver(answers);
                }
            }
            if self.session.as_ref().is_some_and(Session::is_connected) && self.echoes() {
                return;
            }
            self.elapsed += Duration::from_millis(400);
            self.now += Duration::from_millis(400);
            self.client.handle_timeout(self.now).expect("a patient client");
            if let Some(session) = &mut self.session {
                session.handle_timeout(self.now).expect("a patient session");
                let answers = server_output(session).0;
                self.deliver(answers);
            }
        }
        panic!("no handshake: {:?}", self.client);
    }

    fn deliver(&mut self, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            self.note_numbers(&datagram);
            if self.arrives() {
                self.client.handle_packet(&datagram).expect("a healthy client");
            }
        }
    }

    /// Whether a message crosses and one comes back.
    fn echoes(&mut self) -> bool {
        self.received.clear();
        let _ = self.client.send_application_data(b"ping");
        let (datagrams, _) = client_output(&mut self.client);
        let answers: Vec<_> = datagrams.iter().flat_map(|datagram| self.serve(datagram)).collect();
        self.deliver(answers);
        if !self.received.iter().any(|data| data == b"ping") {
            return false;
        }
        let mut buffer = [0; 256];
        let session = self.session.as_mut().expect("connected");
        let len = session.seal(b"pong", &mut buffer).expect("a record");
        self.client.handle_packet(&buffer[..len]).expect("a healthy client");
        client_output(&mut self.client).1.iter().any(|data| data == b"pong")
    }
}

#[test]
fn rfc6347_4_2_1_a_session_begins_with_the_second_hello() {
    let mut wire = Wire::new(1200, |_| false);
    wire.handshake();
    assert_eq!(wire.elapsed, Duration::ZERO, "nothing was lost, nothing was sent twice");
    assert!(wire.numbers.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", wire.numbers);
}

#[test]
fn rfc6347_4_2_1_the_server_hello_has_the_number_of_the_hello_it_answers() {
    // The first two hellos are lost: the third, record 2, is asked for a cookie; record 3 brings it.
    let mut wire = Wire::new(1200, |n| n <= 2);
    wire.handshake();
    assert_eq!(wire.numbers[..2], [2, 3]);
    assert!(wire.numbers.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", wire.numbers);
}

#[test]
fn rfc6347_4_2_3_a_hello_in_fragments_is_put_together_after_its_cookie() {
    let mut wire = Wire::new(100, |_| false);
    let (first, _) = client_output(&mut wire.client);
    assert!(first.len() > 1, "the hello fits into one datagram");
    let answers: Vec<_> = first.iter().flat_map(|datagram| wire.serve(datagram)).collect();
    assert_eq!(answers.len(), 1, "only the first fragment is answered");
    wire.deliver(answers);
    wire.handshake();
}

#[test]
fn rfc6347_4_2_4_lost_flights_are_sent_again() {
    // Any datagram of the handshake and the one after it: at most two waits, far from the session's 10 s.
    for lost in 1..=12 {
        Wire::new(1200, move |n| n == lost || n == lost + 1).handshake();
    }
}

#[test]
fn a_handshake_that_takes_longer_than_10_s_is_given_up() {
    let mut wire = Wire::new(1200, |_| false);
    for _ in 0..2 {
        for datagram in client_output(&mut wire.client).0 {
            let answers = wire.serve(&datagram);
            if wire.session.is_none() {
                wire.deliver(answers);
            }
        }
    }
    let mut session = wire.session.expect("half a handshake");
    let mut flights = 0;
    for millis in (100..10_000).step_by(100) {
        session.handle_timeout(wire.now + Duration::from_millis(millis)).expect("it may go on");
        flights += usize::from(!server_output(&mut session).0.is_empty());
    }
    assert!((2..=4).contains(&flights), "{flights} retransmissions");
    assert_eq!(session.handle_timeout(wire.now + Duration::from_millis(10_001)), Err(Failed));
}

#[test]
fn rfc6347_4_1_2_7_what_is_not_authentic_is_no_end() {
    let mut wire = Wire::new(1200, |_| false);
    wire.handshake();
    let mut session = wire.session.take().expect("connected");
    let _ = wire.client.send_application_data(b"once");
    let record = client_output(&mut wire.client).0.remove(0);
    let mut forged = record.clone();
    *forged.last_mut().expect("a record") ^= 1;
    let plain_alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40];
    for strange in [&forged[..], &plain_alert[..], &record[..9], b"\x17", b""] {
        assert_eq!(session.handle(strange, wire.now), Ok(()));
        assert_eq!(server_output(&mut session), (vec![], vec![]), "{strange:?}");
    }
    assert_eq!(session.handle(&record, wire.now), Ok(()));
    assert_eq!(server_output(&mut session).1, [b"once"]);
    assert_eq!(session.handle(&record, wire.now), Ok(()));
    assert!(server_output(&mut session).1.is_empty(), "a replayed record");
}

#[test]
fn rfc7350_3_both_sides_say_goodbye() {
    let mut wire = Wire::new(1200, |_| false);
    wire.handshake();
    wire.client.close().expect("connected");
    let goodbye = client_output(&mut wire.client).0.remove(0);
    let mut session = wire.session.take().expect("connected");
    session.handle(&goodbye, wire.now).expect("authentic");
    let mut buffer = [0; 256];
    let closed = (0..8).any(|_| session.poll(&mut buffer) == Event::Closed);
    assert!(closed);

    let mut wire = Wire::new(1200, |_| false);
    wire.handshake();
    let session = wire.session.take().expect("connected");
    let len = session.close(&mut buffer).expect("a close_notify");
    wire.client.handle_packet(&buffer[..len]).expect("authentic");
    let closed = (0..8).any(|_| matches!(wire.client.poll_output(&mut buffer), Output::CloseNotify));
    assert!(closed);
}

#[test]
fn a_message_longer_than_a_record_is_refused_and_the_longest_is_not() {
    let mut wire = Wire::new(1200, |_| false);
    wire.handshake();
    let mut session = wire.session.take().expect("connected");
    let mut buffer = vec![0; MAX_PLAINTEXT + MAX_OVERHEAD];
    assert_eq!(session.seal(&vec![0; MAX_PLAINTEXT + 1], &mut buffer), None);
    let len = session.seal(&vec![7; MAX_PLAINTEXT], &mut buffer).expect("the longest");
    assert!(len <= buffer.len());
}

#[test]
fn a_certificate_that_is_not_ecdsa_or_not_the_keys_is_refused() {
    let pair = || rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
    let (one, other) = (pair(), pair());
    let mismatched = Identity::new(one.cert.der().to_vec(), other.signing_key.serialize_der());
    assert_eq!(mismatched.err(), Some(IdentityError::Mismatch));
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let parameters = rcgen::CertificateParams::new(["a".to_owned()]).expect("parameters");
    let certificate = parameters.self_signed(&ed25519).expect("a certificate");
    let refused = Identity::new(certificate.der().to_vec(), ed25519.serialize_der()).err();
    assert_eq!(refused, Some(IdentityError::NotEcdsa));
    assert!(refused.is_some_and(|error| error.to_string().contains("relay.listen")));
}
