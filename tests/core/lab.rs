//! A relay core, a clock that only the test moves, and clients that know how to sign.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turnkey::credential::{self, Nonces, Secrets, Users, Verifier};
use turnkey::stun::{AttributeType, Class, IntegrityKey, Message, MessageWriter, Method, TransactionId};
use turnkey::turn::{
    Asked, Bandwidth, ClientPath, FiveTuple, FlowId, Icmp, IpFields, LinkId, Listener, MAX_REPLY, Moving,
    Now, OffloadRow, OpenError, Output, Owner, PeerLink, PeerPolicy, RelayAddress, RelayId, Run, Server,
    Settings, Shared, Transport, Verdict, Via, WorkerId,
};

pub(crate) const START_UNIX: u64 = 1_700_000_000;
pub(crate) const REALM: &str = "turnkey";
pub(crate) const PEER: &str = "8.8.8.8:5000";
pub(crate) const SERVER: &str = "198.51.100.1:3478";

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings {
        realm: REALM.into(),
        addresses: vec![
            RelayAddress { bind: "10.0.0.1".parse().unwrap(), public: "198.51.100.1".parse().unwrap() },
            RelayAddress { bind: "2600::1".parse().unwrap(), public: "2600::1".parse().unwrap() },
        ],
        former: Vec::new(),
        ports: 49152..=65535,
        peers: Arc::new(PeerPolicy::new(
            vec![],
            vec!["9.9.9.0/24".parse().unwrap()],
            ["0.0.0.0:3478", "[::]:3478"]
                .iter()
                .flat_map(|text| [Listener::Udp(addr(text)), Listener::Tcp(addr(text))])
                .collect(),
            vec!["10.0.0.1".parse().unwrap(), "198.51.100.1".parse().unwrap(), "2600::1".parse().unwrap()],
        )),
        verifier: Arc::new(Verifier {
            secrets: Secrets::new(["secret"]),
            users: Users::new(REALM, [("static", "pass"), ("other", "word")]),
            max_ttl: Duration::from_secs(86_400),
            third_party: None,
        }),
        nonces: Arc::new(Nonces::new([9; 32])),
        user_quota: 0,
        total_quota: 0,
        bandwidth: Bandwidth::default(),
        max_lifetime: Duration::from_secs(3600),
        tcp: false,
        mobility: false,
        dont_fragment: true,
        legacy_channels: false,
        strict_expiry: false,
        unauthenticated_rate: 0,
        redirect: None,
        vantages: None,
    }
}

/// An answer, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) class: Class,
    pub(crate) error: Option<u16>,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    pub(crate) fn value(&self, kind: AttributeType) -> Option<Vec<u8>> {
        self.message().attribute(kind).map(|attribute| attribute.value.to_vec())
    }

    pub(crate) fn xor_address(&self, kind: AttributeType) -> Option<SocketAddr> {
        let message = self.message();
        message.attribute(kind)?.as_xor_address(message.transaction())
    }

    pub(crate) fn lifetime(&self) -> Option<u32> {
        self.message().attribute(AttributeType::LIFETIME)?.as_u32()
    }
}

/// What left the core, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Answer(ClientPath, Answer),
    ToClient(ClientPath, Vec<u8>),
    ToPeer(RelayId, SocketAddr, Vec<u8>),
    ToNeighbour(Owner, SocketAddr, Vec<u8>),
}

/// How far a peer's connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Connecting(SocketAddr),
    Waiting,
    Joined(ClientPath),
}

pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) mono: Duration,
    /// Open relay sockets.
    pub(crate) open: HashMap<RelayId, SocketAddr>,
    /// Sockets that are bound and wait for an allocation.
    pub(crate) reserved: HashSet<SocketAddr>,
    /// Results for the next relay sockets; `Ok` when empty.
    pub(crate) open_results: Vec<Result<(), OpenError>>,
    /// Connections of peers.
    pub(crate) peers: BTreeMap<PeerLink, Peer>,
    /// Flows that may be relayed without the core.
    pub(crate) rows: Rows,
    /// Effects seen, for tests about them.
    pub(crate) outputs: Vec<Output>,
    /// What the IP headers of the next packets say.
    pub(crate) ip: IpFields,
    /// What the last forwarded packet's IP header shall say, and whether with DF.
    pub(crate) left_with: Option<(IpFields, bool)>,
    /// How often the core was asked about a run.
    pub(crate) looks: usize,
    next_transaction: u32,
    reply: Box<[u8; MAX_REPLY]>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let shared = Arc::new(Shared::new(settings.ports.clone()));
        Self::of(settings, shared)
    }

    pub(crate) fn of(settings: Settings, shared: Arc<Shared>) -> Self {
        Self::worker(settings, shared, WorkerId(0))
    }

    /// One of several workers.
    pub(crate) fn worker(settings: Settings, shared: Arc<Shared>, worker: WorkerId) -> Self {
        Self {
            server: Server::new(settings, shared, worker, [3; 32]),
            mono: Duration::from_secs(1000),
            open: HashMap::new(),
            reserved: HashSet::new(),
            open_results: Vec::new(),
            peers: BTreeMap::new(),
            rows: Rows::default(),
            outputs: Vec::new(),
            ip: IpFields::default(),
            left_with: None,
            looks: 0,
            next_transaction: 0,
            reply: Box::new([0xAA; MAX_REPLY]),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: self.mono, unix: START_UNIX + self.mono.as_secs() - 1000 }
    }

    /// Lets time pass in the steps the core asks for, and returns what left.
    pub(crate) fn advance(&mut self, by: Duration) -> Vec<Event> {
        let end = self.mono + by;
        let mut events = Vec::new();
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= end) {
            self.mono = self.mono.max(at);
            self.server.handle_timeout(self.now());
            self.drain(&mut events);
        }
        self.mono = end;
        events
    }

    pub(crate) fn transaction(&mut self) -> TransactionId {
        self.next_transaction += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.next_transaction.to_be_bytes());
        TransactionId(id)
    }

    /// Hands in a packet of a client and returns all that left.
    pub(crate) fn client_sends(&mut self, path: ClientPath, packet: &[u8]) -> Vec<Event> {
        let verdict = self.server.handle_client(self.now(), path, self.ip, packet.into(), &mut self.reply);
        self.collect(verdict, packet)
    }

    /// Hands in packets of a client that came as one, each of `stride` bytes but the last.
    pub(crate) fn client_sends_run(&mut self, path: ClientPath, run: &[u8], stride: usize) -> Vec<Event> {
        self.sends_run(run, stride, |lab, run| {
            lab.server.handle_client(lab.now(), path, lab.ip, run, &mut lab.reply)
        })
    }

    /// The same of a peer.
    pub(crate) fn peer_sends_run(
        &mut self,
        relayed: SocketAddr,
        peer: &str,
        run: &[u8],
        stride: usize,
    ) -> Vec<Event> {
        let relay = self.relay_of(relayed);
        self.sends_run(run, stride, |lab, run| {
            lab.server.handle_peer(lab.now(), relay, addr(peer), lab.ip, run)
        })
    }

    fn sends_run(
        &mut self,
        mut rest: &[u8],
        stride: usize,
        mut ask: impl FnMut(&mut Self, Run<'_>) -> Verdict,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let verdict = ask(self, Run::new(rest, stride));
            self.looks += 1;
            let count = if let Verdict::Forward(forward) = &verdict { forward.count } else { 1 };
            for _ in 0..count {
                let (datagram, behind) = rest.split_at(stride.min(rest.len()));
                events.extend(self.collect(verdict.clone(), datagram));
                rest = behind;
            }
            if rest.is_empty() {
                return events;
            }
        }
    }

    /// Hands in a packet of a peer.
    pub(crate) fn peer_sends(&mut self, relayed: SocketAddr, peer: &str, packet: &[u8]) -> Vec<Event> {
        let relay = self.relay_of(relayed);
        let verdict = self.server.handle_peer(self.now(), relay, addr(peer), self.ip, packet.into());
        self.collect(verdict, packet)
    }

    /// Hands in what other workers' clients have sent to relayed addresses of this one.
    pub(crate) fn crosses(&mut self, events: Vec<Event>) -> Vec<Event> {
        let mut arrived = Vec::new();
        for event in events {
            let Event::ToNeighbour(to, from, payload) = event else { panic!("not across: {event:?}") };
            let verdict = self.server.handle_neighbour(self.now(), to, from, self.ip, &payload);
            arrived.extend(self.collect(verdict, &payload));
        }
        arrived
    }

    /// What the core says about a client's packet, and nothing more.
    pub(crate) fn verdict(&mut self, path: ClientPath, packet: &[u8]) -> Verdict {
        self.server.handle_client(self.now(), path, self.ip, packet.into(), &mut self.reply)
    }

    /// The same for one that has been moved.
    pub(crate) fn verdict_unmoved(&mut self, path: ClientPath, packet: &[u8]) -> Verdict {
        self.server.handle_unmoved(self.now(), path, packet, &mut self.reply)
    }

    /// What the core says about a message that another worker asks about.
    pub(crate) fn asked(&mut self, path: ClientPath, packet: &[u8]) -> Asked {
        self.server.handle_ask(self.now(), path, packet, &mut self.reply)
    }

    /// Relay sockets leave with their allocation; their local addresses.
    pub(crate) fn part_with(&mut self, relays: &[RelayId]) -> Vec<SocketAddr> {
        relays.iter().map(|relay| self.open.remove(relay).expect("it was open")).collect()
    }

    /// An allocation arrives with one relay socket; what its client is told.
    pub(crate) fn takes_in(&mut self, moving: Moving, port: u16) -> Answer {
        let (relays, verdict) = self.server.handle_arrival(self.now(), moving, &mut self.reply);
        let [relay] = relays[..] else { panic!("one relay: {relays:?}") };
        assert_eq!(self.open.insert(relay, SocketAddr::new(addr("10.0.0.1:0").ip(), port)), None);
        match self.collect(verdict, &[]).pop() {
            Some(Event::Answer(_, answer)) => answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// A client's connection ends.
    pub(crate) fn client_closes(&mut self, path: ClientPath) {
        self.server.handle_client_closed(self.now(), path);
        self.drain(&mut Vec::new());
    }

    pub(crate) fn reconfigure(&mut self, settings: Settings) {
        self.server.reconfigure(settings);
        self.drain(&mut Vec::new());
    }

    /// A peer connects to a relayed address: its name if it is not turned away, and all that left.
    pub(crate) fn peer_connects(
        &mut self,
        relayed: SocketAddr,
        peer: &str,
    ) -> (Option<PeerLink>, Vec<Event>) {
        let relay = self.relay_of(relayed);
        let accepted = self.server.handle_peer_accepted(self.now(), relay, addr(peer), &mut self.reply);
        let Some((link, verdict)) = accepted else { return (None, self.collect(Verdict::Consumed, &[])) };
        assert_eq!(self.peers.insert(link, Peer::Waiting), None, "the name was free");
        (Some(link), self.collect(verdict, &[]))
    }

    /// A connection that the core asked for is established, or fails.
    pub(crate) fn peer_connected(&mut self, link: PeerLink, is_connected: bool) -> Vec<Event> {
        match is_connected {
            true => self.peers.insert(link, Peer::Waiting),
            false => self.peers.remove(&link),
        };
        let verdict = self.server.handle_peer_connected(self.now(), link, is_connected, &mut self.reply);
        self.collect(verdict, &[])
    }

    /// A connection ends by itself.
    pub(crate) fn peer_closes(&mut self, link: PeerLink) {
        self.peers.remove(&link).expect("it was open");
        self.server.handle_peer_closed(link);
        assert_eq!(self.collect(Verdict::Consumed, &[]), []);
    }

    fn relay_of(&self, relayed: SocketAddr) -> RelayId {
        let of_port = |(_, bind): &(RelayId, SocketAddr)| bind.port() == relayed.port();
        self.relays().into_iter().find(of_port).expect("an open relay socket").0
    }

    /// Hands in an ICMP error of the only relay socket about a packet to `peer`.
    pub(crate) fn peer_error(&mut self, peer: &str, icmp: Icmp) -> Vec<Event> {
        let relay = self.relays()[0].0;
        self.peer_error_at(relay, addr(peer), icmp)
    }

    pub(crate) fn peer_error_at(&mut self, relay: RelayId, peer: SocketAddr, icmp: Icmp) -> Vec<Event> {
        let verdict = self.server.handle_peer_error(self.now(), relay, peer, icmp, &mut self.reply);
        self.collect(verdict, &[])
    }

    fn collect(&mut self, verdict: Verdict, packet: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        self.note(verdict, packet, &mut events);
        self.drain(&mut events);
        events
    }

    fn note(&mut self, verdict: Verdict, packet: &[u8], events: &mut Vec<Event>) {
        if let Verdict::Join { path, link, .. } = verdict {
            assert_eq!(self.peers.insert(link, Peer::Joined(path)), Some(Peer::Waiting));
        }
        match verdict {
            Verdict::Reply { path, len } | Verdict::Join { path, len, .. } => {
                let bytes = self.reply[..len].to_vec();
                let message = Message::parse(&bytes).expect("replies are valid");
                let error =
                    message.attribute(AttributeType::ERROR_CODE).and_then(|e| e.as_error()).map(|e| e.0);
                let class = message.class();
                events.push(Event::Answer(path, Answer { class, error, bytes }));
            }
            Verdict::Forward(forward) => {
                self.left_with = Some((forward.ip, forward.dont_fragment));
                let mut bytes = forward.prefix.as_bytes().to_vec();
                bytes.extend_from_slice(&packet[forward.payload.clone()]);
                bytes.extend(std::iter::repeat_n(0, forward.pad.into()));
                events.push(match forward.via {
                    Via::Client(path) => Event::ToClient(path, bytes),
                    Via::Relay(relay, to) => Event::ToPeer(relay, to, bytes),
                    Via::Neighbour(owner, from) => Event::ToNeighbour(owner, from, bytes),
                });
            }
            Verdict::Elsewhere(worker) => panic!("{worker:?} is asked for"),
            Verdict::Consumed | Verdict::Drop(_) => {}
        }
    }

    fn drain(&mut self, events: &mut Vec<Event>) {
        while let Some(output) = self.server.poll_output() {
            self.outputs.push(output.clone());
            match output {
                Output::OpenRelay { relay, bind, reserve } => {
                    let result =
                        if self.open_results.is_empty() { Ok(()) } else { self.open_results.remove(0) };
                    if result.is_ok() {
                        self.reserved.remove(&bind);
                        if let Some(reserve) = reserve {
                            assert!(self.reserved.insert(reserve), "reserved once");
                        }
                        assert_eq!(self.open.insert(relay, bind), None, "the name was free");
                    }
                    let verdict = self.server.handle_relay_opened(self.now(), relay, result, &mut self.reply);
                    self.note(verdict, &[], events);
                }
                Output::OpenListener { relay, bind } => {
                    let result =
                        if self.open_results.is_empty() { Ok(()) } else { self.open_results.remove(0) };
                    if result.is_ok() {
                        assert_eq!(self.open.insert(relay, bind), None, "the name was free");
                    }
                    let verdict = self.server.handle_relay_opened(self.now(), relay, result, &mut self.reply);
                    self.note(verdict, &[], events);
                }
                Output::ReleaseRelay { bind } => {
                    self.reserved.remove(&bind);
                }
                Output::CloseRelay { relay } => {
                    self.open.remove(&relay).expect("it was open");
                }
                Output::Connect { link, from, to } => {
                    assert!(self.open.values().any(|bind| *bind == from), "from an open listener");
                    assert_eq!(self.peers.insert(link, Peer::Connecting(to)), None, "the name was free");
                }
                Output::GiveUp { link } => {
                    assert!(matches!(self.peers.remove(&link), Some(Peer::Connecting(_))));
                    let verdict = self.server.handle_peer_connected(self.now(), link, false, &mut self.reply);
                    self.note(verdict, &[], events);
                }
                Output::ClosePeer { link } => {
                    self.peers.remove(&link).expect("it was open");
                }
                Output::Offload(row) => self.rows.install(row),
                Output::Unload(flow) => self.rows.remove(flow),
            }
        }
    }

    /// Sends a request and expects one answer to the same client.
    pub(crate) fn ask(&mut self, path: ClientPath, packet: &[u8]) -> Answer {
        let mut events = self.client_sends(path, packet);
        assert_eq!(events.len(), 1, "one answer: {events:?}");
        match events.remove(0) {
            Event::Answer(to, answer) if to == path => answer,
            other => panic!("not an answer to the client: {other:?}"),
        }
    }

    /// Sends what must not be answered.
    pub(crate) fn silent(&mut self, path: ClientPath, packet: &[u8]) {
        assert_eq!(self.client_sends(path, packet), [], "no answer");
    }

    /// Open relay sockets with their local addresses, in the order of their names.
    pub(crate) fn relays(&self) -> Vec<(RelayId, SocketAddr)> {
        let mut relays: Vec<_> = self.open.iter().map(|(relay, bind)| (*relay, *bind)).collect();
        relays.sort();
        relays
    }

    pub(crate) fn allocations(&self) -> u64 {
        self.server.stats().allocations
    }
}

/// The rows of offloaded flows by their slots, as whoever relays them keeps them.
#[derive(Default)]
pub(crate) struct Rows(pub(crate) BTreeMap<u32, OffloadRow>);

impl Rows {
    pub(crate) fn install(&mut self, row: OffloadRow) {
        let before = self.0.insert(row.flow.slot, row);
        let again = before.map(|before| OffloadRow { expires: row.expires, ..before });
        assert!(again.is_none_or(|again| again == row), "only its end moves: {before:?} {row:?}");
        let count = |key: fn(&OffloadRow) -> (SocketAddr, SocketAddr, u16)| {
            self.0.values().filter(|other| key(other) == key(&row)).count()
        };
        assert_eq!(count(|row| (row.client, row.server, row.channel)), 1, "no channel twice: {row:?}");
        assert_eq!(count(|row| (row.peer, row.relay, 0)), 1, "no peer twice: {row:?}");
    }

    pub(crate) fn remove(&mut self, flow: FlowId) {
        let row = self.0.remove(&flow.slot).expect("it was installed");
        assert_eq!(row.flow, flow, "under this name");
    }

    /// The row of a client's channel that has not ended.
    pub(crate) fn of_channel(&self, client: SocketAddr, number: u16, now: Duration) -> Option<&OffloadRow> {
        let is_it = |row: &&OffloadRow| row.client == client && row.channel == number && now < row.expires;
        self.0.values().find(is_it)
    }
}

/// A client with its credential and the nonce it was given.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) path: ClientPath,
    pub(crate) username: String,
    pub(crate) key: IntegrityKey,
    pub(crate) nonce: Vec<u8>,
    pub(crate) fingerprint: bool,
}

pub(crate) fn path(client: &str, transport: Transport) -> ClientPath {
    let five_tuple = FiveTuple { client: addr(client), server: addr(SERVER), transport };
    ClientPath { five_tuple, link: LinkId(0) }
}

impl Client {
    /// A static user's client over UDP.
    pub(crate) fn new(lab: &mut Lab, address: &str) -> Self {
        Self::with(lab, path(address, Transport::Udp), "static", "pass")
    }

    pub(crate) fn with(lab: &mut Lab, path: ClientPath, username: &str, password: &str) -> Self {
        let mut client = Self {
            path,
            username: username.into(),
            key: IntegrityKey::long_term(username, REALM, password),
            nonce: Vec::new(),
            fingerprint: false,
        };
        client.fetch_nonce(lab);
        client
    }

    /// A client with a time-limited credential for `id`.
    pub(crate) fn minted(lab: &mut Lab, address: &str, ttl: Duration, id: &str) -> Self {
        let minted = credential::mint(&Secrets::new(["secret"]), lab.now().unix, ttl, id).unwrap();
        Self::with(lab, path(address, Transport::Udp), &minted.username, &minted.password)
    }

    pub(crate) fn fetch_nonce(&mut self, lab: &mut Lab) {
        let mut buffer = [0; 64];
        let transaction = lab.transaction();
        let len =
            MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, transaction).finish().unwrap();
        let challenge = lab.ask(self.path, &buffer[..len]);
        assert_eq!(challenge.error, Some(401));
        self.nonce = challenge.value(AttributeType::NONCE).unwrap();
    }

    /// A signed request.
    pub(crate) fn signed(
        &self,
        transaction: TransactionId,
        method: Method,
        fill: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let mut buffer = vec![0; 8192];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, transaction);
        fill(&mut writer);
        writer
            .attribute(AttributeType::USERNAME, self.username.as_bytes())
            .attribute(AttributeType::REALM, REALM.as_bytes())
            .attribute(AttributeType::NONCE, &self.nonce)
            .integrity(&self.key);
        if self.fingerprint {
            writer.fingerprint();
        }
        let len = writer.finish().unwrap();
        buffer.truncate(len);
        buffer
    }

    /// Signs, sends, and checks that the answer is signed as well.
    pub(crate) fn call(
        &self,
        lab: &mut Lab,
        method: Method,
        fill: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Answer {
        let transaction = lab.transaction();
        let answer = lab.ask(self.path, &self.signed(transaction, method, fill));
        let message = answer.message();
        assert_eq!((message.transaction(), message.method()), (transaction, method));
        if !matches!(answer.error, Some(400 | 401 | 438)) {
            assert!(message.verify_integrity(&self.key), "answers to a known key are signed");
        }
        assert_eq!(message.verify_fingerprint(), self.fingerprint.then_some(true));
        answer
    }

    /// Allocates and returns the relayed address.
    pub(crate) fn allocate(&self, lab: &mut Lab) -> SocketAddr {
        let answer = self.call(lab, Method::ALLOCATE, |w| {
            w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP);
        });
        assert_eq!(answer.error, None);
        answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS).unwrap()
    }

    pub(crate) fn allocate_v6(&self, lab: &mut Lab) -> SocketAddr {
        let answer = self.call(lab, Method::ALLOCATE, |w| {
            w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP)
                .attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        });
        answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS).unwrap()
    }

    pub(crate) fn permit(&self, lab: &mut Lab, peer: &str) -> Option<u16> {
        self.call(lab, Method::CREATE_PERMISSION, |w| {
            w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(peer));
        })
        .error
    }

    pub(crate) fn bind(&self, lab: &mut Lab, number: u16, peer: &str) -> Option<u16> {
        self.call(lab, Method::CHANNEL_BIND, |w| {
            w.u32(AttributeType::CHANNEL_NUMBER, u32::from(number) << 16)
                .xor_address(AttributeType::XOR_PEER_ADDRESS, addr(peer));
        })
        .error
    }

    pub(crate) fn refresh(&self, lab: &mut Lab, lifetime: u32) -> Answer {
        self.call(lab, Method::REFRESH, |w| {
            w.u32(AttributeType::LIFETIME, lifetime);
        })
    }

    /// A Send indication.
    pub(crate) fn send(&self, lab: &mut Lab, peer: &str, data: &[u8]) -> Vec<Event> {
        let packet = send_indication(lab.transaction(), addr(peer), data);
        lab.client_sends(self.path, &packet)
    }

    /// ChannelData.
    pub(crate) fn channel(&self, lab: &mut Lab, number: u16, data: &[u8]) -> Vec<Event> {
        lab.client_sends(self.path, &channel_data(number, data))
    }
}

/// REQUESTED-TRANSPORT for UDP.
pub(crate) const UDP: &[u8] = &[17, 0, 0, 0];

pub(crate) fn send_indication(transaction: TransactionId, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; data.len() + 128];
    let len = MessageWriter::new(&mut buffer, Class::Indication, Method::SEND, transaction)
        .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
        .attribute(AttributeType::DATA, data)
        .finish()
        .unwrap();
    buffer.truncate(len);
    buffer
}

pub(crate) fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    packet.extend((data.len() as u16).to_be_bytes());
    packet.extend(data);
    packet
}

/// The peer and the data of a Data indication.
pub(crate) fn data_indication(bytes: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Message::parse(bytes).expect("a valid message");
    assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
    let peer = message.attribute(AttributeType::XOR_PEER_ADDRESS).unwrap();
    let data = message.attribute(AttributeType::DATA).unwrap();
    (peer.as_xor_address(message.transaction()).unwrap(), data.value.to_vec())
}
