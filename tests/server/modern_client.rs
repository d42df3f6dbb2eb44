//! The client of `turn-client-proto`, written from RFC 8489 and RFC 8656 by others: SHA-256, password algorithms
//! and USERHASH over real sockets, and what only knows SHA-1 beside it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use turn_client_proto::api::{TurnConfig, TurnEvent, TurnRecvRet};
use turn_client_proto::prelude::TurnClientApi;
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::stun::auth::Feature;
use turn_client_proto::stun::types::TransportType;
use turn_client_proto::stun::types::message::IntegrityAlgorithm;
use turn_client_proto::types::TurnCredentials;
use turn_client_proto::udp::TurnClientUdp;

use crate::harness::{Home, LOOPBACK, PATIENCE, Process, credentials, get, metric, until};

/// The client and its socket.
struct Driver {
    client: TurnClientUdp,
    socket: UdpSocket,
    start: std::time::Instant,
    /// Every request in the order it left.
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

impl Driver {
    fn new(server: SocketAddr, config: TurnConfig) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let local = socket.local_addr().expect("bound");
        let client = TurnClientUdp::allocate(local, server, config);
        Self { client, socket, start: std::time::Instant::now(), sent: Vec::new(), received: Vec::new() }
    }

    fn now(&self) -> Instant {
        Instant::from_std(self.start)
    }

    /// Lets the client work until `is_done` finds what it waits for.
    #[track_caller]
    fn until<T>(&mut self, mut is_done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let mut buffer = [0; 1500];
        while self.start.elapsed() < PATIENCE {
            self.client.poll(self.now());
            while let Some(transmit) = self.client.poll_transmit(self.now()) {
                self.sent.push(transmit.data.as_ref().to_vec());
                self.socket.send_to(&transmit.data, transmit.to).expect("sent");
            }
            if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
                let to = self.client.local_addr();
                let packet = Transmit::new(buffer[..len].to_vec(), TransportType::Udp, from, to);
                if let TurnRecvRet::PeerData(data) = self.client.recv(packet, self.now()) {
                    self.received.push(data.data().to_vec());
                }
            }
            if let Some(done) = is_done(self) {
                return done;
            }
        }
        panic!("nothing came of {} requests", self.sent.len());
    }

    /// Allocates; the relayed address, or `None` where the server refuses.
    #[track_caller]
    fn allocate(&mut self) -> Option<SocketAddr> {
        self.until(|driver| match driver.client.poll_event() {
            Some(TurnEvent::AllocationCreated(_, relayed)) => Some(Some(relayed)),
            Some(TurnEvent::AllocationCreateFailed(_)) => Some(None),
            _ => None,
        })
    }

    /// Sends a packet to a peer through a channel and back.
    #[track_caller]
    fn echo(&mut self) {
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let address = peer.local_addr().expect("bound");
        let now = self.now();
        self.client.bind_channel(TransportType::Udp, address, now).expect("allocated");
        self.until(|driver| {
            matches!(driver.client.poll_event(), Some(TurnEvent::ChannelCreated(_, to)) if to == address)
                .then_some(())
        });
        let now = self.now();
        let packet = self.client.send_to(TransportType::Udp, address, b"hello", now).expect("a channel");
        let packet = packet.expect("something to send").build();
        self.socket.send_to(&packet.data, packet.to).expect("sent");
        let mut buffer = [0; 64];
        let (len, relayed) = peer.recv_from(&mut buffer).expect("relayed");
        peer.send_to(&buffer[..len], relayed).expect("sent back");
        self.until(|driver| driver.received.pop().filter(|data| data == b"hello"));
    }

    /// Asks for the end of the allocation.
    #[track_caller]
    fn delete(&mut self) {
        let (now, before) = (self.now(), self.sent.len());
        self.client.delete(now).expect("allocated");
        self.until(|driver| (driver.sent.len() > before).then_some(()));
    }

    /// Whether the last request has an attribute.
    fn last_has(&self, kind: turnkey::stun::AttributeType) -> bool {
        let bytes = self.sent.last().expect("a request");
        turnkey::stun::Message::parse(bytes).expect("STUN").has(kind)
    }
}

fn config(user: &str, password: &str, integrity: &[IntegrityAlgorithm], anonymous: Feature) -> TurnConfig {
    let mut config = TurnConfig::new(TurnCredentials::new(user, password));
    config.set_supported_integrity(integrity[0]);
    integrity[1..].iter().for_each(|further| config.add_supported_integrity(*further));
    config.set_anonymous_username(anonymous);
    config
}

fn serve(home: &Home, credentials: &str) -> Process {
    let open = "[peers]\nallow = [\"127.0.0.0/8\"]\n";
    home.serve(&format!(
        "{LOOPBACK}{open}[credentials]\nusers = {{ bartholomew = \"builder\" }}\n{credentials}"
    ))
}

const SHA1: IntegrityAlgorithm = IntegrityAlgorithm::Sha1;
const SHA256: IntegrityAlgorithm = IntegrityAlgorithm::Sha256;

#[test]
fn rfc8489_clients_of_either_algorithm_relay_and_go() {
    let home = Home::new();
    let mut process = serve(&home, "");
    for (algorithms, is_modern) in [(&[SHA256][..], true), (&[SHA1], false), (&[SHA1, SHA256], true)] {
        let mut driver =
            Driver::new(process.address("udp"), config("bartholomew", "builder", algorithms, Feature::Auto));
        let relayed = driver.allocate().expect("allocated");
        assert!(relayed.ip().is_loopback(), "{relayed}");
        let last = turnkey::stun::Message::parse(driver.sent.last().expect("a request")).expect("STUN");
        assert_eq!(last.has_integrity_sha256(), is_modern, "{algorithms:?}");
        assert!(!driver.last_has(turnkey::stun::AttributeType::USERHASH), "not asked for");
        driver.echo();
        driver.delete();
    }
    until(&0.0, || metric(&get(process.address("admin"), "/metrics").body, "turnkey_allocations"));
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn rfc8489_a_wrong_password_is_refused_with_either_algorithm() {
    let home = Home::new();
    let mut process = serve(&home, "");
    for algorithms in [[SHA256], [SHA1]] {
        let config = config("bartholomew", "wrong", &algorithms, Feature::Auto);
        assert_eq!(Driver::new(process.address("udp"), config).allocate(), None);
    }
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn rfc8489_14_4_hidden_names_of_static_users_and_of_credentials_handed_out_here() {
    let home = Home::new();
    let mut process = serve(&home, "hide_usernames = true\n");
    let ice: serde_json::Value =
        serde_json::from_str(&get(process.address("http"), "/v1/ice").body).expect("JSON");
    let (name, password) = credentials(&ice["iceServers"]);
    for (user, password) in [("bartholomew", "builder"), (&*name, &*password)] {
        for algorithm in [SHA256, SHA1] {
            let config = config(user, password, &[algorithm], Feature::Required);
            let mut driver = Driver::new(process.address("udp"), config);
            assert!(driver.allocate().is_some(), "{user} {algorithm:?}");
            assert!(driver.last_has(turnkey::stun::AttributeType::USERHASH));
            let in_clear = |packet: &Vec<u8>| packet.windows(user.len()).any(|part| part == user.as_bytes());
            assert!(!driver.sent.iter().any(in_clear), "the name stays hidden");
            driver.echo();
            driver.delete();
        }
    }
    assert_eq!(process.terminate(), Some(0));
}
