//! Bodies of the fuzz targets: one a parser, two for the relay core (in front of the HMAC and behind it), one for
//! the signaling hub, one for the front of DTLS. Each checks a property, not only that nothing panics. `fuzz/` calls
//! them with generated inputs, `tests/core` with the committed corpus.

mod dtls;
mod signaling;
mod token;

pub use dtls::dtls_hello;
pub use signaling::signaling;
pub use token::access_token;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::credential::{Nonces, Users, Verifier};
use crate::proxy;
use crate::stun::{
    self, AttributeType, ChannelData, Class, Integrity, IntegrityKey, Message, MessageWriter, Method,
    PacketKind, PasswordAlgorithm, TransactionId,
};
use crate::turn::{
    Asked, Bandwidth, ClientPath, FiveTuple, Icmp, IpFields, LinkId, MAX_REPLY, Now, Output, PeerLink,
    PeerPolicy, RelayAddress, RelayId, ReplyBuffer, Server, Settings, Shared, Transport, Verdict, Via,
    WorkerId,
};

const REALM: &str = "turnkey";
/// The relay address of the second family.
const OWN_IPV6: Ipv6Addr = Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1);
const UNIX: u64 = 1_700_000_000;

/// Any bytes as a STUN message: what is read can be written again and reads the same.
pub fn stun_message(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let mut buffer = vec![0; bytes.len() + 128];
    let mut writer =
        MessageWriter::new(&mut buffer, message.class(), message.method(), message.transaction());
    for attribute in message.attributes() {
        writer.attribute(attribute.kind, attribute.value);
        let at = message.value_offset(&attribute);
        assert_eq!(&bytes[at..at + attribute.value.len()], attribute.value, "offsets point at the value");
    }
    let key = IntegrityKey::from_bytes(bytes.first_chunk::<4>().expect("a message has a header"));
    let integrity = match bytes[19] % 3 {
        0 => Integrity::Sha1,
        1 => Integrity::Sha256,
        _ => Integrity::Both,
    };
    let len = writer.sign(&key, integrity).fingerprint().finish().expect("the buffer is larger");
    let again = Message::parse(&buffer[..len]).expect("what is written is valid");
    assert!(again.attributes().eq(message.attributes()), "attributes survive");
    assert!(again.verify(&key) && again.verify_fingerprint() == Some(true));
    assert_eq!(again.verify_integrity(&key), integrity != Integrity::Sha256);
    assert_eq!(again.verify_integrity_sha256(&key), integrity != Integrity::Sha1);
}

/// Any bytes as ChannelData: header and payload give the message back.
pub fn channel_data(bytes: &[u8]) {
    let parsed = ChannelData::parse(bytes);
    assert!(parsed.is_none() || stun::classify(bytes) == PacketKind::ChannelData);
    let Some(data) = parsed else { return };
    let len = u16::try_from(data.payload.len()).expect("the length field has 16 bits");
    assert_eq!(ChannelData::header(data.number, len), bytes[..4]);
    assert_eq!(data.payload, &bytes[4..4 + data.payload.len()]);
}

/// Any bytes as the beginning of a connection from a proxy: a header is read the same whatever follows, and all
/// that comes before its last byte is the beginning of one.
pub fn proxy_header(bytes: &[u8]) {
    let Ok(header) = proxy::parse(bytes) else { return };
    let proxy::Header::Complete { len, ends } = header else {
        return assert!(bytes.len() < proxy::MAX_LEN, "a header that does not end is refused");
    };
    assert!(len <= proxy::MAX_LEN && len <= bytes.len());
    assert_eq!(proxy::parse(&bytes[..len]), Ok(header), "what follows does not matter");
    for short in [1, len / 2, len - 1] {
        assert_eq!(proxy::parse(&bytes[..short]), Ok(proxy::Header::Partial), "{short} of {len}");
    }
    let Some(ends) = ends else { return };
    let family = if ends.client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (client, server) = (ends.client, ends.server);
    let line =
        format!("PROXY {family} {} {} {} {}\r\n", client.ip(), server.ip(), client.port(), server.port());
    let again = proxy::Header::Complete { len: line.len(), ends: Some(ends) };
    assert_eq!(proxy::parse(line.as_bytes()), Ok(again), "version 1 says the same");
}

/// Any datagram of a stranger: nothing goes on, nothing stays, and the answer is small.
pub fn stranger(bytes: &[u8]) {
    let mut bench = Bench::new();
    let verdict =
        bench.server.handle_client(bench.now(), path(0), IpFields::default(), bytes.into(), &mut bench.reply);
    match verdict {
        Verdict::Reply { len, .. } => {
            assert!(len <= 128 && len <= bytes.len() + 108, "{len} bytes for {}", bytes.len());
            Message::parse(&bench.reply[..len]).expect("answers are valid");
        }
        Verdict::Forward(_) | Verdict::Join { .. } => panic!("a stranger's packet went on"),
        Verdict::Elsewhere(_) | Verdict::Consumed | Verdict::Drop(_) => {}
    }
    assert_eq!((bench.server.poll_output(), bench.server.poll_timeout()), (None, None));
    assert_eq!(bench.server.stats().allocations, 0);
}

/// A script of signed requests, data and time: the sockets that are open are the allocations that
/// live, and no packet reaches a peer that policy forbids.
pub fn authenticated(script: &[u8]) {
    let mut bench = Bench::new();
    let mut script = Script(script);
    while let Some(step) = script.byte() {
        match step % 13 {
            0 => bench.advance(Duration::from_secs(u64::from(script.number()) % 2000)),
            1 => bench.send(script.byte().unwrap_or(0), script.chunk()),
            2 => {
                let (client, number) = (script.byte().unwrap_or(0), script.number());
                let mut packet = (0x4000 | (number % 4)).to_be_bytes().to_vec();
                let payload = script.chunk();
                packet.extend((payload.len() as u16).to_be_bytes());
                packet.extend(payload);
                bench.send(client, &packet);
            }
            3 if step >= 128 => {
                bench.peer_error(script.byte().unwrap_or(0), script.peer(), script.number());
            }
            3 => bench.datagram(script.byte().unwrap_or(0), script.peer(), script.chunk()),
            4 => {
                let closed = path(script.byte().unwrap_or(0));
                bench.server.handle_client_closed(bench.now(), closed);
                bench.drain();
            }
            5 => bench.peer_connects(script.byte().unwrap_or(0), script.peer()),
            6 => bench.peer_changes(script.byte().unwrap_or(0), script.byte().unwrap_or(0)),
            7 => {
                let client = script.byte().unwrap_or(0);
                let packet = bench.signed(client, &mut script);
                bench.ask(client, &packet);
            }
            _ => {
                let client = script.byte().unwrap_or(0);
                let packet = bench.signed(client, &mut script);
                bench.send(client, &packet);
            }
        }
        bench.check();
    }
}

/// A relay core with a socket table that exists only in numbers.
struct Bench {
    server: Server,
    policy: Arc<PeerPolicy>,
    nonces: Nonces,
    open: HashMap<RelayId, SocketAddr>,
    /// Sockets that wait for their reservation to be claimed.
    reserved: HashSet<SocketAddr>,
    /// The reservation the core named last.
    token: Vec<u8>,
    /// Connections of peers, in the order of their beginning, and whether they are established.
    peers: Vec<(PeerLink, bool)>,
    /// The identifier and the ticket the core named last.
    connection: u32,
    ticket: Vec<u8>,
    mono: Duration,
    transaction: u32,
    reply: Box<ReplyBuffer>,
}

impl Bench {
    fn new() -> Self {
        let policy = Arc::new(PeerPolicy::default());
        let nonces = Nonces::new([1; 32]).with_lifetime(Duration::from_secs(1 << 30));
        let users = Users::new(REALM, [("user0", "pass"), ("user1", "pass")]);
        let settings = Settings {
            realm: REALM.into(),
            addresses: vec![
                RelayAddress {
                    bind: Ipv4Addr::new(10, 0, 0, 1).into(),
                    public: Ipv4Addr::new(198, 51, 100, 1).into(),
                },
                RelayAddress { bind: OWN_IPV6.into(), public: OWN_IPV6.into() },
            ],
            former: Vec::new(),
            ports: 50_000..=50_007,
            peers: Arc::clone(&policy),
            verifier: Arc::new(Verifier {
                users,
                third_party: Some(token::third_party()),
                ..Verifier::default()
            }),
            nonces: Arc::new(nonces.clone()),
            user_quota: 3,
            total_quota: 0,
            bandwidth: Bandwidth::default(),
            max_lifetime: Duration::from_secs(3600),
            tcp: true,
            mobility: true,
            dont_fragment: true,
            legacy_channels: true,
            strict_expiry: false,
            unauthenticated_rate: 0,
            redirect: None,
            vantages: None,
        };
        let shared = Arc::new(Shared::new(settings.ports.clone()));
        Self {
            server: Server::new(settings, shared, WorkerId(0), [2; 32]),
            policy,
            nonces,
            open: HashMap::new(),
            reserved: HashSet::new(),
            token: vec![0; 8],
            peers: Vec::new(),
            connection: 0,
            ticket: Vec::new(),
            mono: Duration::ZERO,
            transaction: 0,
            reply: Box::new([0; MAX_REPLY]),
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.mono, unix: UNIX + self.mono.as_secs() }
    }

    fn advance(&mut self, by: Duration) {
        self.mono += by;
        self.server.handle_timeout(self.now());
        self.drain();
        assert!(self.server.poll_timeout().is_none_or(|at| at > self.mono), "nothing due is left");
    }

    fn send(&mut self, client: u8, packet: &[u8]) {
        let verdict = self.server.handle_client(
            self.now(),
            path(client),
            IpFields::default(),
            packet.into(),
            &mut self.reply,
        );
        self.inspect(verdict, packet);
    }

    /// An ICMP error: told in few bytes to a client that lives, or to nobody.
    fn peer_error(&mut self, relay: u8, peer: SocketAddr, number: u16) {
        let [kind, code] = number.to_be_bytes();
        let icmp = Icmp { kind, code, data: u32::MAX };
        let relay = RelayId(u32::from(relay % 32));
        match self.server.handle_peer_error(self.now(), relay, peer, icmp, &mut self.reply) {
            Verdict::Reply { path, len } => {
                assert!(len <= 56 && self.server.has_allocation(&path.five_tuple));
                let message = Message::parse(&self.reply[..len]).expect("indications are valid");
                assert!(message.has(AttributeType::ICMP) && !message.has(AttributeType::DATA));
            }
            Verdict::Drop(_) => {}
            other => panic!("an error is told or dropped: {other:?}"),
        }
    }

    fn datagram(&mut self, relay: u8, peer: SocketAddr, payload: &[u8]) {
        let relay = RelayId(u32::from(relay % 32));
        let verdict = self.server.handle_peer(self.now(), relay, peer, IpFields::default(), payload.into());
        self.inspect(verdict, payload);
    }

    /// Another worker asks with a request of its client. An allocation that leaves comes back under
    /// another name, or under its own as if nobody had taken it.
    fn ask(&mut self, client: u8, packet: &[u8]) {
        match self.server.handle_ask(self.now(), path(client), packet, &mut self.reply) {
            Asked::Answered { len } => assert!(Message::parse(&self.reply[..len]).is_ok()),
            Asked::Dropped => {}
            Asked::Leaves(moving, _) if client > 127 => self.server.take_back(*moving),
            Asked::Leaves(moving, left) => {
                let binds: Vec<_> = left.iter().filter_map(|relay| self.open.remove(relay)).collect();
                let (relays, verdict) = self.server.handle_arrival(self.now(), *moving, &mut self.reply);
                assert_eq!(relays.len(), binds.len());
                for (relay, bind) in relays.into_iter().zip(binds) {
                    assert_eq!(self.open.insert(relay, bind), None, "the name was free");
                }
                return self.inspect(verdict, &[]);
            }
        }
        self.drain();
    }

    fn peer_connects(&mut self, relay: u8, peer: SocketAddr) {
        let relay = RelayId(u32::from(relay % 32));
        let accepted = self.server.handle_peer_accepted(self.now(), relay, peer, &mut self.reply);
        let Some((link, verdict)) = accepted else { return self.drain() };
        assert!(self.open.contains_key(&relay), "at an address that listens");
        self.peers.push((link, true));
        self.inspect(verdict, &[]);
    }

    /// A connection that is being made succeeds or fails, one that stands ends.
    fn peer_changes(&mut self, which: u8, how: u8) {
        let Some(index) = usize::from(which).checked_rem(self.peers.len()) else { return };
        let (link, is_established) = self.peers[index];
        let succeeds = !is_established && how.is_multiple_of(2);
        if succeeds {
            self.peers[index].1 = true;
        } else {
            self.peers.remove(index);
        }
        if is_established {
            self.server.handle_peer_closed(link);
            return self.drain();
        }
        let verdict = self.server.handle_peer_connected(self.now(), link, succeeds, &mut self.reply);
        self.inspect(verdict, &[]);
    }

    fn inspect(&mut self, verdict: Verdict, packet: &[u8]) {
        match verdict {
            Verdict::Reply { len, .. } => self.learn(len),
            Verdict::Join { path, link, len, .. } => {
                self.learn(len);
                assert!(path.five_tuple.transport.is_stream() && self.peers.contains(&(link, true)));
            }
            Verdict::Forward(forward) => {
                assert!(forward.payload.start <= forward.payload.end && forward.payload.end <= packet.len());
                assert!(forward.pad < 4);
                if let Via::Relay(relay, to) = forward.via {
                    let is_relay = self.open.values().any(|bind| *bind == to);
                    assert!(self.open.contains_key(&relay), "from a socket that is open");
                    assert!(is_relay || self.policy.may_reach(to.ip()), "{to} is forbidden");
                }
            }
            Verdict::Elsewhere(worker) => assert_ne!(worker, WorkerId(0), "not to where it is"),
            Verdict::Consumed | Verdict::Drop(_) => {}
        }
        self.drain();
    }

    /// Keeps what an answer names, for requests to come.
    fn learn(&mut self, len: usize) {
        let message = Message::parse(&self.reply[..len]).expect("answers are valid");
        let id = message.attribute(AttributeType::CONNECTION_ID).and_then(|id| id.as_u32());
        self.connection = id.unwrap_or(self.connection);
        if let Some(token) = message.attribute(AttributeType::RESERVATION_TOKEN) {
            self.token = token.value.to_vec();
        }
        if let Some(ticket) = message.attribute(AttributeType::MOBILITY_TICKET) {
            self.ticket = ticket.value.to_vec();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::OpenRelay { relay, bind, reserve } => {
                    self.reserved.remove(&bind);
                    assert!(reserve.is_none_or(|reserve| self.reserved.insert(reserve)), "reserved once");
                    self.open_relay(relay, bind);
                }
                Output::OpenListener { relay, bind } => self.open_relay(relay, bind),
                Output::ReleaseRelay { bind } => assert!(self.reserved.remove(&bind), "it was reserved"),
                Output::Connect { link, from, to } => {
                    let is_relay = self.open.values().any(|bind| *bind == to);
                    assert!(self.open.values().any(|bind| *bind == from), "from an address that listens");
                    assert!(is_relay || self.policy.may_reach(to.ip()), "{to} is forbidden");
                    assert!(self.peers.iter().all(|(other, _)| *other != link), "the name was free");
                    self.peers.push((link, false));
                }
                Output::GiveUp { link } => {
                    let index = self.peers.iter().position(|peer| *peer == (link, false));
                    self.peers.remove(index.expect("it is being made"));
                    let verdict = self.server.handle_peer_connected(self.now(), link, false, &mut self.reply);
                    assert!(matches!(verdict, Verdict::Reply { .. }), "the Connect is answered");
                }
                Output::ClosePeer { link } => {
                    let index = self.peers.iter().position(|(open, _)| *open == link);
                    self.peers.remove(index.expect("it was open"));
                }
                Output::CloseRelay { relay } => drop(self.open.remove(&relay).expect("it was open")),
                Output::Offload(_) | Output::Unload(_) => unreachable!("nothing is offloaded"),
            }
        }
    }

    fn open_relay(&mut self, relay: RelayId, bind: SocketAddr) {
        assert_eq!(self.open.insert(relay, bind), None, "the name was free");
        let verdict = self.server.handle_relay_opened(self.now(), relay, Ok(()), &mut self.reply);
        match verdict {
            Verdict::Reply { len, .. } => self.learn(len),
            Verdict::Consumed => {}
            other => panic!("an Allocate leads to {other:?}"),
        }
    }

    fn check(&self) {
        let allocations = self.server.stats().allocations as usize;
        assert!((allocations..=2 * allocations).contains(&self.open.len()), "one socket or two for each");
        assert!(self.open.is_empty() || self.server.poll_timeout().is_some(), "what lives will end");
        assert!(allocations + self.reserved.len() <= 6, "two users with a quota of three");
        assert!(self.peers.is_empty() || !self.open.is_empty(), "connections end with their allocation");
    }

    /// A request whose attributes the script chooses and whose signature is right.
    fn signed(&mut self, client: u8, script: &mut Script<'_>) -> Vec<u8> {
        self.transaction += u32::from(script.byte().unwrap_or(1) % 4);
        let mut transaction = [0; 12];
        transaction[..4].copy_from_slice(&self.transaction.to_be_bytes());
        let methods = [
            Method::ALLOCATE,
            Method::REFRESH,
            Method::CREATE_PERMISSION,
            Method::CHANNEL_BIND,
            Method::CONNECT,
            Method::CONNECTION_BIND,
        ];
        let method = methods[usize::from(script.byte().unwrap_or(0)) % methods.len()];
        let mut buffer = vec![0; 4096];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, TransactionId(transaction));
        for _ in 0..script.byte().unwrap_or(0) % 6 {
            match script.byte().unwrap_or(0) % 11 {
                0 => writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
                1 => writer.xor_address(AttributeType::XOR_PEER_ADDRESS, script.peer()),
                2 => {
                    writer.u32(AttributeType::CHANNEL_NUMBER, (0x4000 | u32::from(script.number() % 4)) << 16)
                }
                3 => writer.u32(AttributeType::LIFETIME, script.number().into()),
                4 => writer.attribute(AttributeType(script.number()), script.chunk()),
                5 => writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[6, 0, 0, 0]),
                6 => writer.u32(AttributeType::CONNECTION_ID, self.connection),
                7 => writer.attribute(AttributeType::MOBILITY_TICKET, &[]),
                8 => writer.attribute(AttributeType::MOBILITY_TICKET, &self.ticket),
                9 => writer.attribute(AttributeType::EVEN_PORT, &[0]),
                10 => writer.attribute(AttributeType::EVEN_PORT, &[0x80]),
                11 => writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]),
                _ => writer.attribute(AttributeType::RESERVATION_TOKEN, &self.token),
            };
        }
        let username = format!("user{}", client % 2);
        let nonce = self.nonces.issue(path(client).five_tuple.client, UNIX);
        match client >> 3 & 3 {
            0 | 1 => writer.attribute(AttributeType::USERNAME, username.as_bytes()),
            _ => writer.attribute(AttributeType::USERHASH, &stun::userhash(&username, REALM)),
        };
        writer.attribute(AttributeType::REALM, REALM.as_bytes()).attribute(AttributeType::NONCE, &nonce);
        let algorithm = if client & 8 == 0 { PasswordAlgorithm::Md5 } else { PasswordAlgorithm::Sha256 };
        let key = IntegrityKey::long_term_by(algorithm, &username, REALM, "pass");
        let len = match algorithm {
            PasswordAlgorithm::Md5 => writer.integrity(&key).finish(),
            PasswordAlgorithm::Sha256 => writer
                .attribute(AttributeType::PASSWORD_ALGORITHMS, &PasswordAlgorithm::OFFER)
                .attribute(AttributeType::PASSWORD_ALGORITHM, &algorithm.value())
                .integrity_sha256(&key)
                .finish(),
        };
        buffer.truncate(len.unwrap_or(0));
        buffer
    }
}

/// One of eight clients, every other one over TCP.
fn path(client: u8) -> ClientPath {
    let n = client % 8;
    let five_tuple = FiveTuple {
        client: (Ipv4Addr::new(192, 0, 2, 1), 4000 + u16::from(n)).into(),
        server: (Ipv4Addr::new(10, 0, 0, 1), 3478).into(),
        transport: if n.is_multiple_of(2) { Transport::Udp } else { Transport::Tcp },
    };
    ClientPath { five_tuple, link: LinkId(0) }
}

/// Numbers and chunks out of the bytes of a script.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte().unwrap_or(0), self.byte().unwrap_or(0)])
    }

    fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (chunk, rest) = self.0.split_at(len);
        self.0 = rest;
        chunk
    }

    /// Public peers, forbidden ones, and the relays of this server by both names.
    fn peer(&mut self) -> SocketAddr {
        let port = 50_000 + self.number() % 8;
        let ip: IpAddr = match self.byte().unwrap_or(0) % 8 {
            0 => Ipv4Addr::new(8, 8, 8, 8).into(),
            1 => Ipv4Addr::new(198, 51, 100, 1).into(),
            2 => Ipv4Addr::new(10, 0, 0, 1).into(),
            3 => Ipv4Addr::LOCALHOST.into(),
            4 => Ipv4Addr::new(1, 1, 1, self.byte().unwrap_or(0)).into(),
            5 => Ipv4Addr::new(169, 254, 169, 254).into(),
            6 => OWN_IPV6.into(),
            _ => Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 9).into(),
        };
        (ip, port).into()
    }
}
