//! One TURN client as a state machine: the requests it sends and what the answers mean.
//!
//! Owns the challenge handshake (RFC 8489 §9.2), retransmission (§6.2.1) and the words for a
//! refusal. Pure: bytes and time go in, bytes come out; the sockets belong to the workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::stun::{
    AttributeType, ChannelNumber, Class, IntegrityKey, Message, MessageWriter, Method, TransactionId,
};

use super::account::Account;

/// First retransmission over UDP; doubles each time (RFC 8489 §6.2.1).
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Requests in all before giving up: 250 ms · (1 + 2 + 4 + 8 + 16), nearly 8 s.
const MAX_TRIES: u32 = 5;
/// Over a stream nothing is lost, so one long wait (RFC 8489 §6.2.2: Ti).
const STREAM_PATIENCE: Duration = Duration::from_secs(8);
/// A server that answers 438 again and again is broken.
const MAX_STALE: u32 = 3;

/// One thing a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A relayed address.
    Allocate,
    /// A permission for the peer's address.
    Permission(SocketAddr),
    /// A channel, which is also a permission.
    Channel(SocketAddr, ChannelNumber),
    /// A longer life.
    Refresh,
    /// The end of the allocation.
    Delete,
}

impl Step {
    fn method(self) -> Method {
        match self {
            Self::Allocate => Method::ALLOCATE,
            Self::Permission(_) => Method::CREATE_PERMISSION,
            Self::Channel(..) => Method::CHANNEL_BIND,
            Self::Refresh | Self::Delete => Method::REFRESH,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Allocate => "Allocate",
            Self::Permission(_) => "CreatePermission",
            Self::Channel(..) => "ChannelBind",
            Self::Refresh => "Refresh",
            Self::Delete => "Refresh with lifetime 0",
        }
    }
}

/// Why a client cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing came back to this request.
    NoAnswer(&'static str),
    /// The server refused: step, code, reason.
    Refused(Step, u16, String),
    /// The answer makes no sense.
    Nonsense(&'static str, &'static str),
    /// The server wants credentials and none were given.
    NoCredentials,
    /// The socket failed.
    Socket(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer(step) => write!(
                f,
                "no answer to {step}: is the server running at this address, and does a firewall drop its port?"
            ),
            Self::Refused(step, code, reason) => write_refusal(f, *step, *code, reason),
            Self::Nonsense(step, what) => write!(f, "the answer to {step} is wrong: {what}"),
            Self::NoCredentials => {
                f.write_str("the server asks for credentials: give --user and --password, or --secret")
            }
            Self::Socket(text) => f.write_str(text),
        }
    }
}

fn write_refusal(f: &mut std::fmt::Formatter<'_>, step: Step, code: u16, reason: &str) -> std::fmt::Result {
    write!(f, "the server answers {code} {reason} to {}", step.name())?;
    let hint = match (code, step) {
        (300, _) => "it sends clients elsewhere: it is draining or full",
        (401, _) => "it does not accept these credentials: check --user and --password, or --secret",
        (403, Step::Permission(peer) | Step::Channel(peer, _)) => {
            return write!(
                f,
                "; its peer policy forbids {ip}: for turnkey set [peers] allow = [\"{ip}\"], for coturn \
                 --allowed-peer-ip or --allow-loopback-peers",
                ip = peer.ip()
            );
        }
        (437, _) => "it has an allocation for this address left from before: wait, or use other ports",
        (438, _) => "it refuses its own nonces: are several servers behind one address without shared keys?",
        (440, _) => "it has no relay address of this family",
        (441, _) => "it knows this allocation under another user",
        (442, _) => "it relays no UDP",
        (443, _) => "its relay is of another address family than our peers: see --peer-address",
        (486, _) => "the user's quota is used up: raise it or lower --allocations",
        (508, _) => "it is out of relay ports or sockets, or draining",
        _ => return Ok(()),
    };
    write!(f, "; {hint}")
}

/// What an incoming message meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It was not for the pending request.
    Ignored,
    /// Send [`Session::request`] again: it changed.
    Again,
    /// This step succeeded.
    Done(Step),
    /// The client cannot go on.
    Failed(Failure),
}

/// What time asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Send [`Session::request`] once more.
    Resend,
    /// The request has failed.
    GiveUp(Failure),
}

struct Pending {
    step: Step,
    transaction: TransactionId,
    bytes: Vec<u8>,
    sent: Instant,
    tries: u32,
    stale: u32,
}

struct Challenge {
    realm: Box<str>,
    nonce: Box<[u8]>,
    key: IntegrityKey,
}

/// One TURN client.
pub(super) struct Session {
    account: Arc<Account>,
    stream: bool,
    ipv6: bool,
    ids: TransactionIds,
    challenge: Option<Challenge>,
    pending: Option<Pending>,
    relayed: Option<SocketAddr>,
}

impl Session {
    /// A client that has not asked for anything yet. `stream`: it speaks TCP; `ipv6`: it wants an
    /// IPv6 relay.
    pub(super) fn new(account: Arc<Account>, stream: bool, ipv6: bool) -> Self {
        let ids = TransactionIds::new();
        Self { account, stream, ipv6, ids, challenge: None, pending: None, relayed: None }
    }

    /// The relayed address, once allocated.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// Whether an answer is awaited.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Begins a step; send [`Session::request`].
    pub(super) fn start(&mut self, step: Step, now: Instant) {
        self.write(step, now, 0);
    }

    /// The bytes of the pending request, empty without one.
    pub(super) fn request(&self) -> &[u8] {
        self.pending.as_ref().map_or(&[], |pending| &pending.bytes)
    }

    /// A message from the server.
    pub(super) fn handle(&mut self, message: &Message<'_>, now: Instant) -> Progress {
        let Some(pending) = &self.pending else { return Progress::Ignored };
        if pending.transaction != message.transaction() {
            return Progress::Ignored;
        }
        let (step, stale) = (pending.step, pending.stale);
        match message.class() {
            Class::Success => self.handle_success(step, message),
            Class::Error => self.handle_error(step, stale, message, now),
            Class::Request | Class::Indication => Progress::Ignored,
        }
    }

    /// Retransmits or gives up.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Due {
        let stream = self.stream;
        let Some(pending) = &mut self.pending else { return Due::Nothing };
        let patience = if stream { STREAM_PATIENCE } else { FIRST_RETRY * 2u32.pow(pending.tries - 1) };
        if now.saturating_duration_since(pending.sent) < patience {
            return Due::Nothing;
        }
        if stream || pending.tries == MAX_TRIES {
            let step = pending.step.name();
            self.pending = None;
            return Due::GiveUp(Failure::NoAnswer(step));
        }
        pending.tries += 1;
        pending.sent = now;
        Due::Resend
    }

    fn handle_success(&mut self, step: Step, message: &Message<'_>) -> Progress {
        if let Some(challenge) = &self.challenge
            && !message.verify_integrity(&challenge.key)
        {
            // RFC 8489 §9.2.5: as if never received; the real answer may still come.
            return Progress::Ignored;
        }
        if step == Step::Allocate {
            let relayed = message.attribute(AttributeType::XOR_RELAYED_ADDRESS);
            self.relayed = relayed.and_then(|value| value.as_xor_address(message.transaction()));
            if self.relayed.is_none() {
                self.pending = None;
                return Progress::Failed(Failure::Nonsense(step.name(), "no XOR-RELAYED-ADDRESS"));
            }
        }
        self.pending = None;
        Progress::Done(step)
    }

    fn handle_error(&mut self, step: Step, stale: u32, message: &Message<'_>, now: Instant) -> Progress {
        let error = message.attribute(AttributeType::ERROR_CODE);
        let (code, reason) = error.as_ref().and_then(|value| value.as_error()).unwrap_or((0, ""));
        let challenged = (code == 401 && self.challenge.is_none()) || (code == 438 && stale < MAX_STALE);
        if !challenged {
            self.pending = None;
            return Progress::Failed(Failure::Refused(step, code, reason.to_owned()));
        }
        if self.account.is_anonymous() {
            self.pending = None;
            return Progress::Failed(Failure::NoCredentials);
        }
        match self.read_challenge(message) {
            Ok(challenge) => self.challenge = Some(challenge),
            Err(what) => {
                self.pending = None;
                return Progress::Failed(Failure::Nonsense(step.name(), what));
            }
        }
        self.write(step, now, stale + 1);
        Progress::Again
    }

    fn read_challenge(&self, message: &Message<'_>) -> Result<Challenge, &'static str> {
        let realm = message.attribute(AttributeType::REALM).and_then(|value| value.as_str());
        let realm = realm.ok_or("a challenge without REALM")?;
        let nonce = message.attribute(AttributeType::NONCE).ok_or("a challenge without NONCE")?.value;
        Ok(Challenge { realm: realm.into(), nonce: nonce.into(), key: self.account.key(realm)? })
    }

    fn write(&mut self, step: Step, now: Instant, stale: u32) {
        let transaction = self.ids.next();
        let mut buffer = [0; 1024];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, step.method(), transaction);
        match step {
            Step::Allocate => {
                writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
                if self.ipv6 {
                    writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                }
            }
            Step::Permission(peer) => {
                writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
            }
            Step::Channel(peer, number) => {
                writer.u32(AttributeType::CHANNEL_NUMBER, u32::from(number.to_u16()) << 16);
                writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
            }
            Step::Refresh => {}
            Step::Delete => {
                writer.u32(AttributeType::LIFETIME, 0);
            }
        }
        if let Some(challenge) = &self.challenge {
            writer.attribute(AttributeType::USERNAME, self.account.username().as_bytes());
            writer.attribute(AttributeType::REALM, challenge.realm.as_bytes());
            writer.attribute(AttributeType::NONCE, &challenge.nonce);
            writer.integrity(&challenge.key);
        }
        let len = writer.finish().expect("names, realm and nonce were checked to fit 1 KiB");
        let bytes = buffer[..len].to_vec();
        self.pending = Some(Pending { step, transaction, bytes, sent: now, tries: 1, stale });
    }
}

/// Transaction ids: a random start for each run, then counted, so that no two requests share one.
#[derive(Clone, Debug)]
pub(super) struct TransactionIds {
    prefix: u64,
    next: u32,
}

impl TransactionIds {
    /// Ids that differ from those of every other call.
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher, Hasher};
        let prefix = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Self { prefix, next: 0 }
    }

    /// The next one.
    pub(super) fn next(&mut self) -> TransactionId {
        self.next = self.next.wrapping_add(1);
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.prefix.to_be_bytes());
        id[8..].copy_from_slice(&self.next.to_be_bytes());
        TransactionId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::ErrorCode;

    fn session(stream: bool) -> Session {
        Session::new(Arc::new(Account::of("u", "p")), stream, false)
    }

    fn transaction(session: &Session) -> TransactionId {
        Message::parse(session.request()).expect("a request").transaction()
    }

    /// An answer to the pending request, written by `fill`.
    fn answer(session: &Session, class: Class, fill: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
        let mut buffer = [0; 512];
        let mut writer = MessageWriter::new(&mut buffer, class, Method::ALLOCATE, transaction(session));
        fill(&mut writer);
        let len = writer.finish().expect("fits");
        buffer[..len].to_vec()
    }

    fn refuse(session: &mut Session, error: ErrorCode, nonce: &str) -> Progress {
        let bytes = answer(session, Class::Error, |writer| {
            writer
                .error(error)
                .attribute(AttributeType::REALM, b"r")
                .attribute(AttributeType::NONCE, nonce.as_bytes());
        });
        session.handle(&Message::parse(&bytes).expect("valid"), Instant::now())
    }

    fn grant(session: &mut Session, key: &IntegrityKey) -> Progress {
        let relayed = "192.0.2.1:50000".parse().expect("an address");
        let bytes = answer(session, Class::Success, |writer| {
            writer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, relayed).integrity(key);
        });
        session.handle(&Message::parse(&bytes).expect("valid"), Instant::now())
    }

    fn key() -> IntegrityKey {
        IntegrityKey::long_term("u", "r", "p")
    }

    #[test]
    fn rfc8489_9_2_the_challenge_is_answered_with_credentials() {
        let mut session = session(false);
        session.start(Step::Allocate, Instant::now());
        assert!(!Message::parse(session.request()).expect("valid").has_integrity());
        assert_eq!(refuse(&mut session, ErrorCode::Unauthenticated, "n1"), Progress::Again);
        let signed = Message::parse(session.request()).expect("valid");
        assert!(signed.verify_integrity(&key()));
        let nonce = signed.attribute(AttributeType::NONCE).map(|value| value.value.to_vec());
        assert_eq!(nonce.as_deref(), Some(&b"n1"[..]));
        assert_eq!(grant(&mut session, &key()), Progress::Done(Step::Allocate));
        assert_eq!(session.relayed().map(|address| address.port()), Some(50_000));
        assert!(!session.is_pending());
    }

    #[test]
    fn rfc8489_9_2_5_a_second_401_and_endless_438_are_failures() {
        let mut twice = session(false);
        twice.start(Step::Allocate, Instant::now());
        refuse(&mut twice, ErrorCode::Unauthenticated, "n");
        let failed = refuse(&mut twice, ErrorCode::Unauthenticated, "n");
        assert!(matches!(failed, Progress::Failed(Failure::Refused(Step::Allocate, 401, _))));
        let mut stale = session(false);
        stale.start(Step::Allocate, Instant::now());
        refuse(&mut stale, ErrorCode::Unauthenticated, "n");
        let last =
            (0..9).map(|_| refuse(&mut stale, ErrorCode::StaleNonce, "m")).find(|p| *p != Progress::Again);
        assert!(matches!(last, Some(Progress::Failed(Failure::Refused(_, 438, _)))));
    }

    #[test]
    fn rfc8489_9_2_5_a_success_that_is_not_signed_with_our_key_is_ignored() {
        let mut session = session(false);
        session.start(Step::Allocate, Instant::now());
        refuse(&mut session, ErrorCode::Unauthenticated, "n");
        let forged = IntegrityKey::long_term("u", "r", "other");
        assert_eq!(grant(&mut session, &forged), Progress::Ignored);
        assert!(session.is_pending());
    }

    #[test]
    fn rfc8489_6_2_1_requests_are_repeated_and_given_up() {
        let mut session = session(false);
        let mut now = Instant::now();
        session.start(Step::Allocate, now);
        let first = transaction(&session);
        let mut sent = 1;
        let given_up = loop {
            now += Duration::from_millis(50);
            match session.handle_timeout(now) {
                Due::Nothing => {}
                Due::Resend => sent += 1,
                Due::GiveUp(failure) => break failure,
            }
            assert_eq!(transaction(&session), first);
        };
        assert_eq!((sent, given_up), (MAX_TRIES, Failure::NoAnswer("Allocate")));
        assert_eq!(session.handle_timeout(now), Due::Nothing);
    }

    #[test]
    fn rfc8489_6_2_2_nothing_is_repeated_over_a_stream() {
        let mut session = session(true);
        let now = Instant::now();
        session.start(Step::Allocate, now);
        assert_eq!(session.handle_timeout(now + STREAM_PATIENCE / 2), Due::Nothing);
        assert!(matches!(session.handle_timeout(now + STREAM_PATIENCE), Due::GiveUp(_)));
    }

    #[test]
    fn every_step_is_a_request_that_parses() {
        let mut session = session(false);
        session.start(Step::Allocate, Instant::now());
        refuse(&mut session, ErrorCode::Unauthenticated, "n");
        grant(&mut session, &key());
        let peer = "[2001:db8::1]:9".parse().expect("an address");
        let channel = ChannelNumber::from_wire(0x4000).expect("in range");
        for step in [Step::Permission(peer), Step::Channel(peer, channel), Step::Refresh, Step::Delete] {
            session.start(step, Instant::now());
            let request = Message::parse(session.request()).expect("valid");
            assert_eq!((request.method(), request.verify_integrity(&key())), (step.method(), true));
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let peer = "192.0.2.7:9".parse().expect("an address");
        let said = |step, code| Failure::Refused(step, code, "Reason".into()).to_string();
        assert!(said(Step::Permission(peer), 403).contains("[peers] allow = [\"192.0.2.7\"]"));
        assert!(said(Step::Allocate, 401).contains("--secret"));
        assert!(said(Step::Allocate, 486).contains("quota"));
        assert!(said(Step::Allocate, 599).ends_with("599 Reason to Allocate"));
    }
}
