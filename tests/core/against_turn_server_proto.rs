//! The same sequences of requests, right, odd and hostile ones, to our core and to `turn-server-proto`, which others
//! wrote from the same RFCs. What differs must stand in [`DIFFERENCES`], with the sentence that makes ours right.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turn_server_proto::api::{Transmit, TurnServerApi, TurnServerPollRet};
use turn_server_proto::server::TurnServer;
use turn_server_proto::stun::Instant;
use turn_server_proto::stun::types::TransportType;
use turnkey::stun::{
    AttributeType as A, Class, Integrity, IntegrityKey, Message, MessageWriter, Method, PasswordAlgorithm,
    TransactionId, userhash,
};
use turnkey::turn::Transport;

use crate::lab::{Event, Lab, REALM, SERVER, addr, path};

const CLIENT: &str = "192.0.2.9:40000";
const SEQUENCES: u64 = 1000;
const STEPS: usize = 12;

/// How a request proves who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    None,
    Right,
    WrongPassword,
    UnknownUser,
    /// Another user's right password.
    Other,
    /// USERHASH in place of USERNAME.
    Hashed,
    ChangedNonce,
    ChangedNonceAndWrongPassword,
    NoUsername,
    NoRealm,
    NoNonce,
    /// PASSWORD-ALGORITHMS without the better one.
    BidDown,
    NoAlgorithm,
    Truncated,
}

/// One request.
#[derive(Clone, Debug)]
struct Step {
    method: Method,
    class: Class,
    proof: Proof,
    is_modern: bool,
    transaction: TransactionId,
    attributes: Vec<(A, Vec<u8>)>,
    /// It repeats the transaction of the one before.
    is_again: bool,
    wait: u64,
}

impl Step {
    fn has(&self, kind: A) -> bool {
        self.attributes.iter().any(|(own, _)| *own == kind)
    }

    fn value(&self, kind: A) -> Option<&[u8]> {
        self.attributes.iter().find(|(own, _)| *own == kind).map(|(_, value)| value.as_slice())
    }

    fn has_unknown(&self) -> bool {
        self.has(A(0x7001))
    }

    /// The request's bytes with the nonce one server gave.
    fn packet(&self, nonce: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        let mut writer = MessageWriter::new(&mut buffer, self.class, self.method, self.transaction);
        self.attributes.iter().for_each(|(kind, value)| {
            writer.attribute(*kind, value);
        });
        if self.proof != Proof::None {
            self.sign(&mut writer, nonce);
        }
        let len = writer.finish().unwrap();
        buffer.truncate(len);
        if self.proof == Proof::Truncated && self.is_modern {
            let at = len - 34;
            buffer[at..at + 2].copy_from_slice(&16_u16.to_be_bytes());
            buffer.truncate(len - 16);
            let length = (buffer.len() - 20) as u16;
            buffer[2..4].copy_from_slice(&length.to_be_bytes());
        }
        buffer
    }

    fn sign(&self, writer: &mut MessageWriter<'_>, nonce: &[u8]) {
        let (user, password) = self.credential();
        let mut nonce = nonce.to_vec();
        if matches!(self.proof, Proof::ChangedNonce | Proof::ChangedNonceAndWrongPassword) {
            *nonce.last_mut().unwrap() ^= 1;
        }
        match self.proof {
            Proof::NoUsername => {}
            Proof::Hashed => drop(writer.attribute(A::USERHASH, &userhash(user, REALM)).finish()),
            _ => drop(writer.attribute(A::USERNAME, user.as_bytes()).finish()),
        }
        if self.proof != Proof::NoRealm {
            writer.attribute(A::REALM, REALM.as_bytes());
        }
        if self.proof != Proof::NoNonce {
            writer.attribute(A::NONCE, &nonce);
        }
        let key = |algorithm| IntegrityKey::long_term_by(algorithm, user, REALM, password);
        if !self.is_modern {
            writer.integrity(&key(PasswordAlgorithm::Md5));
            return;
        }
        match self.proof {
            Proof::BidDown => writer.attribute(A::PASSWORD_ALGORITHMS, &[0, 1, 0, 0]),
            _ => writer.attribute(A::PASSWORD_ALGORITHMS, &PasswordAlgorithm::OFFER),
        };
        if self.proof != Proof::NoAlgorithm {
            writer.attribute(A::PASSWORD_ALGORITHM, &PasswordAlgorithm::Sha256.value());
        }
        writer.sign(&key(PasswordAlgorithm::Sha256), Integrity::Sha256);
    }

    fn credential(&self) -> (&'static str, &'static str) {
        match self.proof {
            Proof::WrongPassword | Proof::ChangedNonceAndWrongPassword => ("static", "wrong"),
            Proof::UnknownUser => ("nobody", "pass"),
            Proof::Other => ("other", "word"),
            _ => ("static", "pass"),
        }
    }
}

/// What of an answer is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Success {
        relayed: BTreeSet<bool>,
        lifetime: Option<u32>,
        mapped: Option<SocketAddr>,
        sha256: Option<bool>,
    },
    Error {
        code: u16,
        unknown: Option<Vec<u8>>,
        has_challenge: bool,
        sha256: Option<bool>,
    },
}

impl Answer {
    fn of(bytes: Option<&[u8]>, step: &Step) -> Self {
        let Some(bytes) = bytes else { return Self::Nothing };
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.method(), message.transaction()), (step.method, step.transaction));
        let xor =
            |kind| message.attribute(kind).and_then(|value| value.as_xor_address(message.transaction()));
        let relayed = message.attributes().filter(|attribute| attribute.kind == A::XOR_RELAYED_ADDRESS);
        // In which order two families come is up to the server.
        let families = relayed.map(|value| value.as_xor_address(message.transaction()).unwrap().is_ipv4());
        let relayed = families.collect::<BTreeSet<_>>();
        let is_signed = message.has_integrity() || message.has_integrity_sha256();
        let sha256 = is_signed.then(|| message.has_integrity_sha256());
        let Some((code, _)) = message.attribute(A::ERROR_CODE).and_then(|error| error.as_error()) else {
            let lifetime = message.attribute(A::LIFETIME).and_then(|lifetime| lifetime.as_u32());
            return Self::Success { relayed, lifetime, mapped: xor(A::XOR_MAPPED_ADDRESS), sha256 };
        };
        // Whether 400, 401 and 438 are signed is up to the server (RFC 8489 §9.2.4).
        let sha256 = sha256.filter(|_| !matches!(code, 400 | 401 | 438));
        let unknown = message.attribute(A::UNKNOWN_ATTRIBUTES).map(|list| list.value.to_vec());
        let has_challenge = matches!(code, 401 | 438) && message.has(A::NONCE) && message.has(A::REALM);
        Self::Error { code, unknown, has_challenge, sha256 }
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Error { code, .. } => Some(*code),
            Self::Nothing | Self::Success { .. } => None,
        }
    }

    fn is_success(&self) -> bool {
        matches!(self, Self::Success { .. })
    }
}

/// A difference that is meant to be.
struct Difference {
    name: &'static str,
    because: &'static str,
    is_it: fn(&Step, &Answer, &Answer) -> bool,
}

/// Where ours and theirs part, and why ours is right. `docs/rfc-coverage.md` has the same list.
const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "a wrong password is told before a wrong nonce",
        because: "RFC 8489 §9.2.4 lists the check of the integrity (401) before the one of the nonce (438)",
        is_it: |step, our, their| !is_genuine(step.proof) && codes(our, their) == (Some(401), Some(438)),
    },
    Difference {
        name: "a Binding request may bring a credential",
        because: "RFC 8489 §6.3.1 wants 420 for unknown attributes; USERNAME and its like are known",
        is_it: |step, our, their| {
            step.method == Method::BINDING
                && their.code() == Some(420)
                && (our.is_success() || step.has_unknown())
        },
    },
    Difference {
        name: "a method that is not served gets no answer",
        because: "RFC 8489 §6.3: a message whose method is not supported is silently discarded",
        is_it: |step, our, _| !SERVED.contains(&step.method) && *our == Answer::Nothing,
    },
    Difference {
        name: "an unknown attribute is told before what TURN checks",
        because: "RFC 8489 §6.3.1: 420 belongs to the processing of every request, before the usage's own checks",
        is_it: |step, our, their| {
            step.has_unknown() && our.code() == Some(420) && matches!(their.code(), Some(400 | 437 | 441))
        },
    },
    Difference {
        name: "TCP is a transport this server was not told to relay",
        because: "RFC 8656 §7.2: a transport that is not supported is 442",
        is_it: |step, our, their| {
            step.value(A::REQUESTED_TRANSPORT).is_some_and(|value| value[0] == 6)
                && codes(our, their) == (Some(442), Some(400))
        },
    },
    Difference {
        name: "the transport of an Allocate is told before its other attributes",
        because: "RFC 8656 §7.2: the transport is its third check, unknown DONT-FRAGMENT its fourth, families later",
        is_it: |step, our, their| {
            let is_udp = step.value(A::REQUESTED_TRANSPORT).is_some_and(|value| value[0] == 17);
            let (our, their) = codes(our, their);
            step.method == Method::ALLOCATE
                && !is_udp
                && matches!(our, Some(400 | 442))
                && matches!(their, Some(400 | 420))
        },
    },
    Difference {
        name: "a retransmitted Allocate is answered again",
        because: "RFC 8656 §7.2: a request with the transaction id of the one that made the allocation gets its success",
        is_it: |step, our, their| {
            step.is_again && step.method == Method::ALLOCATE && our.is_success() && their.code() == Some(437)
        },
    },
    Difference {
        name: "channel numbers from 0x5000 on are reserved, and looked at before the peer",
        because: "RFC 8656 §12.2: the number must be there and in 0x4000 to 0x4FFF, or it is 400",
        is_it: |step, our, their| {
            let number =
                step.value(A::CHANNEL_NUMBER).map_or(0, |value| u16::from_be_bytes([value[0], value[1]]));
            step.method == Method::CHANNEL_BIND
                && !(0x4000..=0x4FFF).contains(&number)
                && our.code() == Some(400)
                && (their.is_success() || their.code() == Some(443))
        },
    },
    Difference {
        name: "a channel is held five minutes after its end",
        because: "RFC 8656 §12: for five more minutes neither number nor peer may be bound otherwise",
        is_it: |step, our, their| {
            step.method == Method::CHANNEL_BIND && our.code() == Some(400) && their.is_success()
        },
    },
    Difference {
        name: "a family that is not served is told by its own code",
        because: "RFC 8656 §7.2: a requested family that the server does not support is 440",
        is_it: |step, our, their| {
            step.method == Method::ALLOCATE
                && has_strange_family(step)
                && codes(our, their) == (Some(440), Some(400))
        },
    },
    Difference {
        name: "a Refresh of a family that is not allocated is refused",
        because: "RFC 8656 §8.2: a family that does not match the allocation is 443",
        is_it: |step, our, their| {
            step.method == Method::REFRESH
                && has_strange_family(step)
                && our.code() == Some(443)
                && their.is_success()
        },
    },
    Difference {
        name: "a name and its hash are one user",
        because: "RFC 8656 §5 wants the same username, and RFC 8489 §14.4 makes USERHASH another form of it",
        is_it: |step, our, their| {
            step.proof != Proof::Other && their.code() == Some(441) && our.code() != Some(441)
        },
    },
];

const SERVED: [Method; 5] =
    [Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];

fn codes(our: &Answer, their: &Answer) -> (Option<u16>, Option<u16>) {
    (our.code(), their.code())
}

/// Whether the password is the user's own.
fn is_genuine(proof: Proof) -> bool {
    use Proof::{ChangedNonceAndWrongPassword, Truncated, UnknownUser, WrongPassword};
    !matches!(proof, ChangedNonceAndWrongPassword | Truncated | UnknownUser | WrongPassword)
}

fn has_strange_family(step: &Step) -> bool {
    step.value(A::REQUESTED_ADDRESS_FAMILY).is_some_and(|value| value[0] == 3)
}

struct Theirs {
    server: TurnServer,
    start: Duration,
}

impl Theirs {
    fn new(lab: &Lab) -> Self {
        let mut server = TurnServer::new(TransportType::Udp, addr(SERVER), REALM.into());
        server.add_user("static".into(), "pass".into());
        server.add_user("other".into(), "word".into());
        Self { server, start: lab.mono }
    }

    fn ask(&mut self, lab: &Lab, packet: &[u8]) -> Option<Vec<u8>> {
        let now = Instant::ZERO + (lab.mono - self.start);
        self.server.poll(now);
        let transmit = Transmit::new(packet.to_vec(), TransportType::Udp, addr(CLIENT), addr(SERVER));
        let mut answer = self.server.recv(transmit, now).map(|transmit| transmit.build().data);
        while let TurnServerPollRet::AllocateSocket {
            transport,
            listen_addr,
            client_addr,
            allocation_transport,
            family,
        } = self.server.poll(now)
        {
            let is_v4 = family == turn_server_proto::types::AddressFamily::IPV4;
            let relayed = addr(if is_v4 { "198.51.100.1:50000" } else { "[2600::1]:50000" });
            let (server, result) = (&mut self.server, Ok(relayed));
            server.allocated_socket(
                transport,
                listen_addr,
                client_addr,
                allocation_transport,
                family,
                result,
                now,
            );
        }
        while let Some(transmit) = self.server.poll_transmit(now) {
            assert!(answer.replace(transmit.data).is_none(), "one answer");
        }
        answer
    }
}

fn ours(lab: &mut Lab, packet: &[u8]) -> Option<Vec<u8>> {
    let mut events = lab.client_sends(path(CLIENT, Transport::Udp), packet);
    assert!(events.len() <= 1);
    events.pop().map(|event| match event {
        Event::Answer(_, answer) => answer.bytes,
        other => panic!("{other:?}"),
    })
}

fn nonce_of(answer: Option<&[u8]>) -> Option<Vec<u8>> {
    let message = Message::parse(answer?).unwrap();
    message.attribute(A::NONCE).map(|nonce| nonce.value.to_vec())
}

fn pick<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

fn peer(rng: &mut StdRng, transaction: TransactionId) -> Vec<u8> {
    let peer = addr(pick(rng, &["8.8.8.8:5000", "8.8.8.8:5001", "8.8.4.4:5000", "[2606:4700::1]:5000"]));
    let mut buffer = [0; 64];
    let mut writer = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, transaction);
    let len = writer.xor_address(A::XOR_PEER_ADDRESS, peer).finish().unwrap();
    buffer[24..len].to_vec()
}

/// A request of the kinds clients send, with an oddity here and there.
fn step(rng: &mut StdRng, number: u32, before: Option<&Step>) -> Step {
    if let Some(before) = before.filter(|_| rng.random_ratio(1, 12)) {
        return Step { is_again: true, wait: 0, ..before.clone() };
    }
    let mut transaction = [3; 12];
    transaction[..4].copy_from_slice(&number.to_be_bytes());
    let transaction = TransactionId(transaction);
    let methods = [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];
    let method = match rng.random_range(0..40) {
        0 => Method::from_u16(pick(rng, &[0x005, 0x123, 0x7FF])),
        1 => Method::BINDING,
        _ => pick(rng, &methods),
    };
    let mut attributes = Vec::new();
    let often = |rng: &mut StdRng| rng.random_ratio(19, 20);
    if method == Method::ALLOCATE && often(rng) {
        let protocol = if often(rng) { 17 } else { pick(rng, &[6, 0, 99]) };
        attributes.push((A::REQUESTED_TRANSPORT, vec![protocol, 0, 0, 0]));
    }
    if method == Method::CHANNEL_BIND && often(rng) {
        let number: u16 = pick(rng, &[0x4000, 0x4001, 0x4FFF, 0x4000, 0x4001, 0x5000, 0x3FFF, 0x8000, 0]);
        attributes.push((A::CHANNEL_NUMBER, [number.to_be_bytes(), [0, 0]].concat()));
    }
    if matches!(method, Method::CHANNEL_BIND | Method::CREATE_PERMISSION) && often(rng) {
        let value = peer(rng, transaction);
        let cut = if often(rng) { value.len() } else { 4 };
        attributes.push((A::XOR_PEER_ADDRESS, value[..cut].to_vec()));
        if method == Method::CREATE_PERMISSION && rng.random_ratio(1, 4) {
            attributes.push((A::XOR_PEER_ADDRESS, peer(rng, transaction)));
        }
    }
    if matches!(method, Method::ALLOCATE | Method::REFRESH) {
        if rng.random_ratio(1, 3) {
            let lifetime = pick(rng, &[0, 1, 599, 600, 1200, 3600, 3601, u32::MAX]);
            attributes.push((A::LIFETIME, lifetime.to_be_bytes().to_vec()));
        }
        if rng.random_ratio(1, 6) {
            attributes.push((A::REQUESTED_ADDRESS_FAMILY, vec![pick(rng, &[1, 2, 2, 3]), 0, 0, 0]));
        }
    }
    if method == Method::ALLOCATE && rng.random_ratio(1, 10) {
        attributes.push((A::ADDITIONAL_ADDRESS_FAMILY, vec![pick(rng, &[2, 2, 1]), 0, 0, 0]));
    }
    if rng.random_ratio(1, 15) {
        attributes.push((A(pick(rng, &[0x7001, 0x9001])), vec![1, 2, 3]));
    }
    let odd = [
        Proof::None,
        Proof::WrongPassword,
        Proof::UnknownUser,
        Proof::Other,
        Proof::Hashed,
        Proof::ChangedNonce,
        Proof::ChangedNonceAndWrongPassword,
        Proof::NoUsername,
        Proof::NoRealm,
        Proof::NoNonce,
        Proof::BidDown,
        Proof::NoAlgorithm,
        Proof::Truncated,
    ];
    let proof = if rng.random_ratio(4, 5) { Proof::Right } else { pick(rng, &odd) };
    let class = if rng.random_ratio(1, 40) {
        pick(rng, &[Class::Indication, Class::Success, Class::Error])
    } else {
        Class::Request
    };
    let wait = if rng.random_ratio(1, 6) { pick(rng, &[7, 131, 317, 1237]) } else { 0 };
    Step {
        method,
        class,
        proof,
        is_modern: rng.random_ratio(1, 2),
        transaction,
        attributes,
        is_again: false,
        wait,
    }
}

/// Runs one sequence until the two part, and notes the differences that are known.
fn run(seed: u64, seen: &mut BTreeSet<&'static str>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut lab = Lab::new();
    let mut theirs = Theirs::new(&lab);
    let first = Step {
        method: Method::ALLOCATE,
        class: Class::Request,
        proof: Proof::None,
        is_modern: false,
        transaction: TransactionId([1; 12]),
        attributes: vec![],
        is_again: false,
        wait: 0,
    };
    let challenge = first.packet(b"");
    let mut nonces = [
        nonce_of(ours(&mut lab, &challenge).as_deref()).unwrap(),
        nonce_of(theirs.ask(&lab, &challenge).as_deref()).unwrap(),
    ];
    let mut steps: Vec<Step> = Vec::new();
    for number in 0..STEPS {
        let step = step(&mut rng, number as u32, steps.last());
        lab.advance(Duration::from_secs(step.wait));
        let packets = [step.packet(&nonces[0]), step.packet(&nonces[1])];
        let answers = [ours(&mut lab, &packets[0]), theirs.ask(&lab, &packets[1])];
        let [our, their] = [0, 1].map(|side| Answer::of(answers[side].as_deref(), &step));
        for side in 0..2 {
            let fresh = nonce_of(answers[side].as_deref()).filter(|_| our.code() == Some(438));
            nonces[side] = fresh.unwrap_or_else(|| nonces[side].clone());
        }
        steps.push(step.clone());
        if our == their {
            continue;
        }
        let known = DIFFERENCES.iter().find(|difference| (difference.is_it)(&step, &our, &their));
        let Some(known) = known else {
            panic!(
                "seed {seed}\n{step:?}\nours   {our:?}\ntheirs {their:?}\nafter {}",
                steps[..number].iter().map(|step| format!("\n{step:?}")).collect::<String>()
            );
        };
        seen.insert(known.name);
        // Where one let something happen and the other did not, what follows cannot be compared.
        if our.is_success() != their.is_success() {
            return;
        }
    }
}

#[test]
fn what_differs_from_turn_server_proto_is_known_and_has_a_reason() {
    let mut seen = BTreeSet::new();
    (0..SEQUENCES).for_each(|seed| run(seed, &mut seen));
    let listed: BTreeSet<_> = DIFFERENCES.iter().map(|difference| difference.name).collect();
    assert_eq!(seen, listed, "each listed difference occurs");
    assert!(DIFFERENCES.iter().all(|difference| difference.because.contains("RFC ")));
}
