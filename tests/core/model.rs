//! Three relay cores that share their ports and quotas, against a plain reference: random requests of
//! every kind, data both ways, time, closed connections, new settings, drains, and sockets that fail to open.
//! Every answer, every packet and every effect is foretold.
//!
//! `TURNKEY_MODEL_SEED` and `TURNKEY_MODEL_STEPS` choose another run:
//! `TURNKEY_MODEL_STEPS=10000000 cargo test --release --test core model -- --nocapture`.

mod client;
mod offload;
mod reference;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turnkey::credential::{Nonces, Users, Verifier};
use turnkey::stun::{AttributeType as A, IntegrityKey, Message, MessageWriter, Method, TransactionId};
use turnkey::turn::{
    ClientPath, IpFields, Listener, MAX_REPLY, Mode, Now, OpenError, Output, PeerPolicy, Prefix,
    RelayAddress, RelayId, Server, Settings, Shared, Verdict, Via, WorkerId,
};

use crate::lab::{REALM, Rows, START_UNIX, UDP, channel_data, data_indication, send_indication};
use client::{Client, error_of, granted, plain};
use reference::{
    CLIENTS, Granted, LISTENER_PORT, Out, PORTS, Parity, Reference, TOTAL_QUOTA, USER_QUOTA, WORKERS, Want,
    ip, relay_ip, worker_of,
};

const SEED: u64 = 1;
const STEPS: u64 = 200_000;
/// Channels that data is sent on.
const NUMBERS: [u16; 5] = [0x4000, 0x4001, 0x4002, 0x4003, 0x4004];
const PAYLOAD: &[u8] = b"payload";
/// Must be understood, and is not.
const UNKNOWN: A = A(0x7F01);

/// Peers outside, forbidden ones, and our own addresses; ports are added.
const PEERS: [&str; 11] = [
    "8.8.8.8",
    "8.8.8.8",
    "8.8.4.4",
    "1.1.1.1",
    "10.9.9.9",
    "198.51.100.1",
    "198.51.100.1",
    "10.0.0.1",
    "2600::1",
    "2600::9",
    "2600::a",
];

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate,
    Retransmit,
    Refresh,
    Permit,
    Bind,
    Channel,
    Send,
    Receive,
    Advance,
    Close,
    Reconnect,
    Reconfigure,
    Drain,
    Refused,
}

/// How often each step is taken.
const WEIGHTS: [(Step, u32); 14] = [
    (Step::Allocate, 20),
    (Step::Retransmit, 4),
    (Step::Refresh, 8),
    (Step::Permit, 12),
    (Step::Bind, 12),
    (Step::Channel, 12),
    (Step::Send, 12),
    (Step::Receive, 12),
    (Step::Advance, 4),
    (Step::Close, 1),
    (Step::Reconnect, 1),
    (Step::Reconfigure, 1),
    (Step::Drain, 1),
    (Step::Refused, 2),
];

struct World {
    servers: Vec<Server>,
    shared: Arc<Shared>,
    reference: Reference,
    clients: Vec<Client>,
    open: [BTreeMap<RelayId, SocketAddr>; WORKERS],
    reserved: BTreeSet<SocketAddr>,
    /// Of all workers: there is but one kernel.
    rows: Rows,
    tokens: VecDeque<[u8; 8]>,
    rng: StdRng,
    transactions: u64,
    nonces: Nonces,
    seed: u64,
    steps: u64,
    history: VecDeque<String>,
    reply: Box<[u8; MAX_REPLY]>,
    counts: BTreeMap<&'static str, u64>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}, step {}; the last steps:", self.seed, self.steps);
            self.history.iter().for_each(|line| println!("  {line}"));
        }
    }
}

fn settings(nonces: &Nonces, is_strict: bool, has_v6: bool) -> Settings {
    let deny = if is_strict { vec!["8.8.4.4/32".parse().unwrap()] } else { vec![] };
    let own = (0..2).flat_map(|family| [relay_ip(family).0, relay_ip(family).1]).collect();
    let listener = (relay_ip(0).1, LISTENER_PORT).into();
    let relay = |family| RelayAddress { bind: relay_ip(family).0, public: relay_ip(family).1 };
    Settings {
        addresses: if has_v6 { vec![relay(0), relay(1)] } else { vec![relay(0)] },
        former: if has_v6 { vec![] } else { vec![relay(1)] },
        ports: PORTS,
        peers: Arc::new(PeerPolicy::new(vec![], deny, vec![Listener::Udp(listener)], own)),
        verifier: Arc::new(Verifier {
            users: Users::new(REALM, [("user0", "pass"), ("user1", "pass")]),
            ..Verifier::default()
        }),
        nonces: Arc::new(nonces.clone()),
        user_quota: USER_QUOTA as u32,
        total_quota: TOTAL_QUOTA as u32,
        ..crate::lab::settings()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let nonces = Nonces::new([4; 32]).with_lifetime(Duration::from_secs(1 << 40));
        let settings = settings(&nonces, false, true);
        let meters = Arc::new(Vec::from_iter((0..64).map(|_| AtomicU64::new(0))));
        let shared = Arc::new(Shared::new(PORTS).with_offload(256, meters));
        let server = |n: usize| {
            Server::new(settings.clone(), Arc::clone(&shared), WorkerId(n as u8), [n as u8 + 1; 32])
        };
        let clients = (0..CLIENTS).map(|n| Client::new(n, &nonces)).collect();
        Self {
            servers: (0..WORKERS).map(server).collect(),
            reference: Reference::new(Duration::from_secs(1000)),
            clients,
            open: Default::default(),
            reserved: BTreeSet::new(),
            rows: Rows::default(),
            tokens: VecDeque::new(),
            rng: StdRng::seed_from_u64(seed),
            transactions: 0,
            seed,
            steps: 0,
            history: VecDeque::new(),
            reply: Box::new([0; MAX_REPLY]),
            counts: BTreeMap::new(),
            shared,
            nonces,
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.reference.now, unix: START_UNIX }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    fn client(&mut self) -> usize {
        self.rng.random_range(0..CLIENTS)
    }

    /// Mostly one that has an allocation.
    fn busy_client(&mut self) -> usize {
        let busy: Vec<_> = self.reference.allocations.keys().copied().collect();
        if busy.is_empty() || self.chance(8) { self.client() } else { self.pick(&busy) }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.history.len() == 25 {
            self.history.pop_front();
        }
        self.history.push_back(line());
    }

    fn step(&mut self) {
        self.steps += 1;
        let total = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.random_range(0..total);
        let chosen = WEIGHTS.iter().find(|(_, weight)| match at.checked_sub(*weight) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        });
        match chosen.unwrap().0 {
            Step::Allocate => self.allocate(),
            Step::Retransmit => self.retransmit(),
            Step::Refresh => self.refresh(),
            Step::Permit => self.permit(),
            Step::Bind => self.bind(),
            Step::Channel => self.channel(),
            Step::Send => self.send(),
            Step::Receive => self.receive(),
            Step::Advance => self.advance(),
            Step::Close => self.close(),
            Step::Reconnect => self.reconnect(),
            Step::Reconfigure => self.reconfigure(),
            Step::Drain => self.drain_mode(),
            Step::Refused => self.refused(),
        }
        self.check();
    }

    // Requests.

    fn transaction(&mut self) -> [u8; 12] {
        self.transactions += 1;
        let mut id = [9; 12];
        id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        id
    }

    fn allocate(&mut self) {
        let client = self.client();
        let mut attributes: Vec<(A, Vec<u8>)> = vec![(A::REQUESTED_TRANSPORT, UDP.to_vec())];
        let with = |attributes: &mut Vec<_>, kind, value: &[u8]| attributes.push((kind, value.to_vec()));
        let new = |families, parity| Ok(Want::New { families, parity });
        let want = match self.rng.random_range(0..18) {
            0..4 => new([true, false], Parity::Any),
            4..6 => {
                with(&mut attributes, A::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                new([false, true], Parity::Any)
            }
            6..9 => {
                with(&mut attributes, A::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                let is_even = self.chance(3);
                if is_even {
                    with(&mut attributes, A::EVEN_PORT, &[0]);
                }
                new([true, true], if is_even { Parity::Even } else { Parity::Any })
            }
            9..11 => {
                with(&mut attributes, A::EVEN_PORT, &[0]);
                new([true, false], Parity::Even)
            }
            11..14 => {
                with(&mut attributes, A::EVEN_PORT, &[0x80]);
                let is_v6 = self.chance(3);
                if is_v6 {
                    with(&mut attributes, A::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                }
                new([!is_v6, is_v6], Parity::Pair)
            }
            14..17 => {
                let known: Vec<_> = self.tokens.iter().copied().chain(self.reference.tokens()).collect();
                let token = if known.is_empty() { [7; 8] } else { self.pick(&known) };
                with(&mut attributes, A::RESERVATION_TOKEN, &token);
                Ok(Want::Token(token))
            }
            _ => Err(self.impossible(&mut attributes)),
        };
        let lifetime = self.lifetime();
        if let Some(lifetime) = lifetime {
            with(&mut attributes, A::LIFETIME, &lifetime.to_be_bytes());
        }
        let transaction = self.transaction();
        self.note(|| format!("{client} allocates {want:?} for {lifetime:?}"));
        let packet = self.clients[client].signed(transaction, Method::ALLOCATE, |w| {
            attributes.iter().for_each(|(kind, value)| {
                w.attribute(*kind, value);
            });
        });
        self.clients[client].last = Some((packet.clone(), transaction));
        let path = self.clients[client].path;
        self.reference.see_link(client, path);
        let expected = self.reference.allocate(client, path, transaction, want, lifetime);
        self.ask_allocate(client, &packet, expected);
    }

    /// Attributes that cannot stand together, or alone, and what they are answered with.
    fn impossible(&mut self, attributes: &mut Vec<(A, Vec<u8>)>) -> u16 {
        let (v4, v6) = (vec![1, 0, 0, 0], vec![2, 0, 0, 0]);
        let (more, code) = match self.rng.random_range(0..9) {
            0 => (vec![(A::REQUESTED_ADDRESS_FAMILY, v6.clone()), (A::ADDITIONAL_ADDRESS_FAMILY, v6)], 400),
            1 => (vec![(A::ADDITIONAL_ADDRESS_FAMILY, v4)], 400),
            2 => (vec![(A::EVEN_PORT, vec![0x80]), (A::ADDITIONAL_ADDRESS_FAMILY, v6)], 400),
            3 => (vec![(A::EVEN_PORT, vec![0]), (A::RESERVATION_TOKEN, vec![0; 8])], 400),
            4 => (vec![(A::RESERVATION_TOKEN, vec![0; 8]), (A::REQUESTED_ADDRESS_FAMILY, v4)], 400),
            5 => (vec![(A::REQUESTED_ADDRESS_FAMILY, vec![3, 0, 0, 0])], 440),
            6 => (vec![(UNKNOWN, vec![])], 420),
            7 => (vec![(A::LIFETIME, vec![1])], 400),
            _ => {
                attributes.clear();
                (vec![], 400)
            }
        };
        attributes.extend(more);
        code
    }

    fn lifetime(&mut self) -> Option<u32> {
        self.pick(&[None, None, None, Some(0), Some(1), Some(700), Some(1800), Some(u32::MAX)])
    }

    fn retransmit(&mut self) {
        let client = self.client();
        let Some((packet, transaction)) = self.clients[client].last.clone() else { return };
        // One whose allocation has ended would be a new one, with a wish long forgotten.
        let path = self.clients[client].path;
        if self.reference.allocations.get(&client).is_none_or(|a| a.path.link != path.link) {
            return;
        }
        self.note(|| format!("{client} retransmits"));
        let expected = self.reference.allocate(client, path, transaction, Err(400), None);
        self.ask_allocate(client, &packet, expected);
    }

    fn ask_allocate(&mut self, client: usize, packet: &[u8], now: Option<Result<Granted, u16>>) {
        let answer = self.ask(client, packet).expect("every Allocate is answered");
        let expected = now.or_else(|| self.reference.take_answer()).expect("an answer is foretold");
        let message = Message::parse(&answer).unwrap();
        let seen = match error_of(&message) {
            Some(code) => Err(code),
            None => Ok(granted(&message, self.clients[client].path)),
        };
        let mut expected = expected;
        if let (Ok(expected), Ok(Granted { token: Some(token), .. })) = (&mut expected, &seen)
            && expected.token == Some([0; 8])
        {
            expected.token = Some(*token);
            self.reference.learn(client, *token);
            self.tokens.push_back(*token);
            if self.tokens.len() > 4 {
                self.tokens.pop_front();
            }
        }
        assert_eq!(seen, expected);
        self.count(match seen {
            Ok(granted) if granted.token.is_some() => "pairs",
            Ok(granted) if granted.refused.is_some() => "half dual allocations",
            Ok(granted) if granted.relayed.len() == 2 => "dual allocations",
            Ok(_) => "allocations",
            Err(486) => "486",
            Err(508) => "508",
            Err(_) => "other refused allocations",
        });
    }

    fn refresh(&mut self) {
        let client = self.client();
        let (family, lifetime) = (self.pick(&[None, None, Some(0), Some(1)]), self.lifetime());
        self.note(|| format!("{client} refreshes {family:?} for {lifetime:?}"));
        let answer = self.request(client, Method::REFRESH, |w| {
            if let Some(family) = family {
                w.attribute(A::REQUESTED_ADDRESS_FAMILY, &[family as u8 + 1, 0, 0, 0]);
            }
            if let Some(lifetime) = lifetime {
                w.u32(A::LIFETIME, lifetime);
            }
        });
        let message = Message::parse(&answer).unwrap();
        let seen = match error_of(&message) {
            Some(code) => Err(code),
            None => Ok(message.attribute(A::LIFETIME).unwrap().as_u32().unwrap()),
        };
        assert_eq!(seen, self.reference.refresh(client, family, lifetime));
        self.count("refreshes");
    }

    fn permit(&mut self) {
        let client = self.busy_client();
        let count = self.rng.random_range(0..4);
        let peers: Vec<SocketAddr> = (0..count).map(|_| self.peer_of(client)).collect();
        self.note(|| format!("{client} permits {peers:?}"));
        let answer = self.request(client, Method::CREATE_PERMISSION, |w| {
            peers.iter().for_each(|peer| {
                w.xor_address(A::XOR_PEER_ADDRESS, *peer);
            });
        });
        let ips: Vec<IpAddr> = peers.iter().map(SocketAddr::ip).collect();
        assert_eq!(plain(&answer), self.reference.permit(client, &ips));
    }

    fn bind(&mut self) {
        let client = self.busy_client();
        let peer = self.peer_of(client);
        let number = self.pick(&[0x4000, 0x4001, 0x4002, 0x4003, 0x4004, 0x4FFF, 0x5000]);
        self.note(|| format!("{client} binds {number:#x} to {peer}"));
        let answer = self.request(client, Method::CHANNEL_BIND, |w| {
            w.u32(A::CHANNEL_NUMBER, u32::from(number) << 16).xor_address(A::XOR_PEER_ADDRESS, peer);
        });
        assert_eq!(plain(&answer), self.reference.bind(client, number, peer));
    }

    /// Requests that are refused before their method is looked at.
    fn refused(&mut self) {
        let client = self.client();
        let path = self.clients[client].path;
        let is_there = {
            self.reference.see_link(client, path);
            self.reference.allocations.contains_key(&client)
        };
        let transaction = self.transaction();
        let (other, own) = (&self.clients[(client + WORKERS) % CLIENTS], &self.clients[client]);
        assert_ne!(other.username, own.username);
        let (signer, expected) = match self.rng.random_range(0..4) {
            0 => (Client { nonce: own.nonce.clone(), ..other.clone() }, if is_there { 441 } else { 437 }),
            1 => (Client { key: IntegrityKey::long_term("user0", REALM, "wrong"), ..own.clone() }, 401),
            2 => (Client { nonce: vec![1; 40], ..own.clone() }, 438),
            _ => (own.clone(), 420),
        };
        let packet = signer.signed(transaction, Method::REFRESH, |w| {
            if expected == 420 {
                w.attribute(UNKNOWN, &[]);
            }
        });
        self.note(|| format!("{client} is to be refused with {expected}"));
        let answer = self.ask(client, &packet).expect("an answer");
        assert_eq!(error_of(&Message::parse(&answer).unwrap()), Some(expected));
    }

    fn request(
        &mut self,
        client: usize,
        method: Method,
        fill: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let transaction = self.transaction();
        let path = self.clients[client].path;
        self.reference.see_link(client, path);
        let packet = self.clients[client].signed(transaction, method, fill);
        self.ask(client, &packet).expect("every request is answered")
    }

    /// Hands in a request; its answer, when all effects have been carried out.
    fn ask(&mut self, client: usize, packet: &[u8]) -> Option<Vec<u8>> {
        let (worker, path, now) = (worker_of(client), self.clients[client].path, self.now());
        let verdict = self.servers[worker].handle_client(
            now,
            path,
            IpFields::default(),
            packet.into(),
            &mut self.reply,
        );
        let mut answers = Vec::new();
        self.note_answer(verdict, path, &mut answers);
        self.drain(worker, path, &mut answers);
        assert!(answers.len() <= 1, "one answer a request");
        answers.pop()
    }

    fn note_answer(&self, verdict: Verdict, path: ClientPath, answers: &mut Vec<Vec<u8>>) {
        match verdict {
            Verdict::Reply { path: to, len } => {
                assert_eq!(to, path, "the answer goes back");
                answers.push(self.reply[..len].to_vec());
            }
            Verdict::Consumed => {}
            other => panic!("a request leads to {other:?}"),
        }
    }

    fn drain(&mut self, worker: usize, path: ClientPath, answers: &mut Vec<Vec<u8>>) {
        while let Some(output) = self.servers[worker].poll_output() {
            match output {
                Output::OpenRelay { relay, bind, reserve } => {
                    let result = self.open_relay(worker, relay, bind, reserve);
                    self.reference.open_relay(relay, bind, reserve, result);
                    let now = self.now();
                    let verdict =
                        self.servers[worker].handle_relay_opened(now, relay, result, &mut self.reply);
                    self.note_answer(verdict, path, answers);
                }
                Output::CloseRelay { relay } => {
                    self.open[worker].remove(&relay).expect("it was open");
                }
                Output::ReleaseRelay { bind } => {
                    assert!(self.reserved.remove(&bind), "it was reserved");
                }
                Output::Offload(row) => self.rows.install(row),
                Output::Unload(flow) => self.rows.remove(flow),
                other => panic!("no request of the model leads to {other:?}"),
            }
        }
    }

    /// Opens a socket, or finds that it cannot be opened.
    fn open_relay(
        &mut self,
        worker: usize,
        relay: RelayId,
        bind: SocketAddr,
        reserve: Option<SocketAddr>,
    ) -> Result<(), OpenError> {
        let bad_day = self.steps % 64 < 3;
        let result = match self.rng.random_range(0..if bad_day { 4 } else { 40 }) {
            0 => Err(OpenError::InUse),
            1 => Err(self.pick(&[OpenError::Exhausted, OpenError::Unavailable])),
            2 if bad_day => Err(OpenError::InUse),
            _ => Ok(()),
        };
        // A reserved socket is taken, whatever becomes of it.
        self.reserved.remove(&bind);
        if result.is_ok() {
            let is_open = |sockets: &BTreeMap<_, _>| sockets.values().any(|address| *address == bind);
            assert!(!self.open.iter().any(is_open), "{bind} is open already");
            assert_eq!(self.open[worker].insert(relay, bind), None, "the name was free");
            assert!(reserve.is_none_or(|reserve| self.reserved.insert(reserve)), "reserved once");
        }
        result
    }

    // Data.

    /// A peer a client might mean: one that it knows, a relay, or any.
    fn peer_of(&mut self, client: usize) -> SocketAddr {
        let likely = match self.rng.random_range(0..4) {
            0 => self.reference.relayed(),
            1..3 => self.reference.known_peers(client),
            _ => Vec::new(),
        };
        if likely.is_empty() { self.peer() } else { self.pick(&likely) }
    }

    fn peer(&mut self) -> SocketAddr {
        let port = if self.chance(8) { LISTENER_PORT } else { self.rng.random_range(PORTS) };
        SocketAddr::new(ip(self.pick(&PEERS)), port)
    }

    fn channel(&mut self) {
        let (client, number) = (self.busy_client(), self.pick(&NUMBERS));
        self.note(|| format!("{client} sends on {number:#x}"));
        let packet = channel_data(number, PAYLOAD);
        let expected = self.reference.channel_data(client, number);
        self.expect_from_client(client, &packet, &expected);
    }

    fn send(&mut self) {
        let client = self.busy_client();
        let peer = self.peer_of(client);
        self.note(|| format!("{client} sends to {peer}"));
        let packet = send_indication(TransactionId(self.transaction()), peer, PAYLOAD);
        let expected = self.reference.send(client, peer);
        self.expect_from_client(client, &packet, &expected);
    }

    fn expect_from_client(&mut self, client: usize, packet: &[u8], expected: &Out) {
        let (path, now) = (self.clients[client].path, self.now());
        let server = &mut self.servers[worker_of(client)];
        let verdict = server.handle_client(now, path, IpFields::default(), packet.into(), &mut self.reply);
        self.expect(verdict, packet, expected);
    }

    fn receive(&mut self) {
        let client = self.busy_client();
        let relays = self.reference.allocations.get(&client).map(|a| &a.relays);
        let relays: Vec<_> = relays.into_iter().flatten().flatten().map(|relay| relay.id).collect();
        if relays.is_empty() {
            return;
        }
        let relay = self.pick(&relays);
        let mut peer = self.peer_of(client);
        while peer.is_ipv6() != (relay.0 % 2 == 1) {
            peer = self.peer();
        }
        // Sockets of other relays are seen by their local address.
        if peer.ip() == relay_ip(0).1 {
            peer.set_ip(relay_ip(0).0);
        }
        self.note(|| format!("{peer} sends to {client}"));
        let now = self.now();
        let server = &mut self.servers[worker_of(client)];
        let verdict = server.handle_peer(now, relay, peer, IpFields::default(), PAYLOAD.into());
        let expected = self.reference.receive(client, peer);
        self.expect(verdict, PAYLOAD, &expected);
    }

    fn expect(&mut self, verdict: Verdict, packet: &[u8], expected: &Out) {
        let forward = match verdict {
            Verdict::Drop(_) => {
                assert_eq!(*expected, Out::Nowhere);
                return;
            }
            Verdict::Forward(forward) => forward,
            other => panic!("data leads to {other:?}"),
        };
        assert_eq!(&packet[forward.payload.clone()], PAYLOAD);
        let seen = match (forward.via, forward.prefix) {
            (Via::Relay(relay, to), Prefix::None) => Out::Peer(relay, to),
            (Via::Neighbour(to, from), Prefix::None) => {
                let now = self.now();
                let server = &mut self.servers[usize::from(to.worker().0)];
                let verdict = server.handle_neighbour(now, to, from, forward.ip, PAYLOAD);
                assert!(!matches!(&verdict, Verdict::Forward(next) if !matches!(next.via, Via::Client(_))));
                self.count("packets between workers");
                return self.expect(verdict, PAYLOAD, expected);
            }
            (Via::Client(path), Prefix::Channel(header)) => {
                let pad = if Reference::pads(path) { 1 } else { 0 };
                assert_eq!((forward.pad, &header[2..]), (pad, &[0, PAYLOAD.len() as u8][..]));
                Out::Channel(path, u16::from_be_bytes([header[0], header[1]]))
            }
            (Via::Client(path), prefix @ Prefix::Data(..)) => {
                let whole = [prefix.as_bytes(), PAYLOAD, &[0; 3][..forward.pad.into()]].concat();
                let (from, payload) = data_indication(&whole);
                assert_eq!(payload, PAYLOAD);
                Out::Data(path, from)
            }
            other => panic!("a packet goes {other:?}"),
        };
        assert_eq!(seen, *expected);
        self.count("packets relayed");
    }

    // Everything else that happens.

    fn advance(&mut self) {
        let worker = self.rng.random_range(0..WORKERS);
        let seconds = self.pick(&[0, 1, 5, 29, 30, 60, 119, 299, 301, 599, 700]);
        let now = self.reference.now;
        let next = self.reference.deadline(worker).unwrap_or(now);
        let to = match self.rng.random_range(0..8) {
            0..4 => now + Duration::from_secs(seconds.min(60)),
            4 => now + Duration::from_secs(seconds),
            // To the edge of what ends next, and over it.
            5 => next - Duration::from_nanos(1),
            _ => next,
        };
        let to = to.max(now);
        self.note(|| format!("time goes from {now:?} to {to:?}"));
        self.reference.advance(to);
        let path = self.clients[0].path;
        for worker in 0..WORKERS {
            let now = self.now();
            if self.servers[worker].poll_timeout().is_some_and(|at| at <= to) {
                self.servers[worker].handle_timeout(now);
                self.drain(worker, path, &mut Vec::new());
            }
        }
    }

    fn close(&mut self) {
        let client = self.client();
        let mut path = self.clients[client].path;
        let is_late = self.chance(3);
        path.link.0 -= u32::from(is_late);
        self.note(|| format!("the connection of {client} is closed; late: {is_late}"));
        if self.reference.allocations.get(&client).is_some_and(|a| a.path.link == path.link) {
            self.reference.end(client);
        }
        let now = self.now();
        self.servers[worker_of(client)].handle_client_closed(now, path);
        self.drain(worker_of(client), path, &mut Vec::new());
    }

    fn reconnect(&mut self) {
        let client = self.client();
        self.note(|| format!("{client} connects anew"));
        self.clients[client].path.link.0 += 1;
    }

    fn reconfigure(&mut self) {
        self.reference.is_strict = self.chance(2);
        self.reference.has_v6 = !self.chance(4);
        let (is_strict, has_v6) = (self.reference.is_strict, self.reference.has_v6);
        self.note(|| format!("settings: strict {is_strict}, IPv6 {has_v6}"));
        self.reference.reconfigure();
        let settings = settings(&self.nonces, is_strict, has_v6);
        let path = self.clients[0].path;
        for worker in 0..WORKERS {
            self.servers[worker].reconfigure(settings.clone());
            self.drain(worker, path, &mut Vec::new());
        }
    }

    fn drain_mode(&mut self) {
        let draining = self.chance(8);
        self.reference.draining = draining;
        self.note(|| format!("draining: {draining}"));
        let mode = if draining { Mode::Draining } else { Mode::Serving };
        self.servers.iter_mut().for_each(|server| server.set_mode(mode));
    }

    // What holds after every step.

    fn check(&mut self) {
        assert_eq!(self.shared.allocations() as usize, self.reference.charged(None), "the quota in all");
        assert_eq!(self.reserved, self.reference.reserved(), "reserved sockets");
        for worker in 0..WORKERS {
            let server = &mut self.servers[worker];
            assert_eq!(server.poll_output(), None, "all effects have been carried out");
            let own = self.reference.allocations.keys().filter(|client| worker_of(**client) == worker);
            assert_eq!(server.stats().allocations as usize, own.count());
            assert_eq!(self.open[worker], self.reference.open(worker), "sockets are relays");
            let (asked, due) = (server.poll_timeout(), self.reference.deadline(worker));
            assert!(due.is_none_or(|due| asked.is_some_and(|at| at <= due)), "{asked:?} is after {due:?}");
            assert!(asked.is_none_or(|at| at > self.reference.now), "nothing due is left");
        }
        for (client, known) in self.clients.iter().enumerate() {
            let is_there = self.servers[worker_of(client)].has_allocation(&known.path.five_tuple);
            assert_eq!(is_there, self.reference.allocations.contains_key(&client));
        }
        self.check_rows();
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

fn of_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn random_operations_lead_to_what_a_plain_reference_foretells() {
    let seed = of_environment("TURNKEY_MODEL_SEED", SEED);
    let steps = of_environment("TURNKEY_MODEL_STEPS", STEPS);
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    println!("seed {seed}, {steps} steps: {:?}", world.counts);
    // A run that never came to what matters has shown nothing.
    let kinds = [
        "pairs",
        "half dual allocations",
        "dual allocations",
        "allocations",
        "486",
        "508",
        "flows offloaded",
    ];
    let between = ["flows between clients offloaded", "flows between workers offloaded"];
    assert!(steps < STEPS || between.iter().all(|kind| world.counts.contains_key(kind)));
    assert!(kinds.iter().all(|kind| world.counts.contains_key(kind)));
    assert!(steps < STEPS || world.counts["packets relayed"] > steps / 1000);
}
