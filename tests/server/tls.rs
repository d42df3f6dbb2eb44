//! TURN over TLS, and certificates that are replaced while the server runs.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{Client, Home, PATIENCE, Process, get};

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for localhost and its key, as files and as what a client trusts.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
    }

    /// Puts it in the place of the pair before, as certificate clients do: by renaming.
    pub(crate) fn put(&self, home: &Home) {
        put(home, "cert.pem", &self.cert);
        put(home, "key.pem", &self.key);
    }

    /// The settings of a client that trusts this certificate and offers these protocols.
    pub(crate) fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A TLS session on this connection, its handshake done.
    pub(crate) fn session(&self, mut tcp: TcpStream, alpn: &[&str]) -> std::io::Result<Tls> {
        tcp.set_read_timeout(Some(PATIENCE))?;
        let name = "localhost".try_into().expect("a name");
        let mut session = ClientConnection::new(self.client(alpn), name).expect("a session");
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(StreamOwned::new(session, tcp))
    }

    pub(crate) fn connect(&self, server: SocketAddr, alpn: &[&str]) -> std::io::Result<Tls> {
        self.session(TcpStream::connect(server)?, alpn)
    }
}

/// Puts a whole file in the place of the one before.
fn put(home: &Home, name: &str, text: &str) {
    let next = home.write("next.pem", text);
    std::fs::rename(next, home.path().join(name)).expect("renamed");
}

/// A server with that certificate, TURN over TLS and HTTPS, a user `bob` and this much more configuration.
pub(crate) fn serve(home: &Home, pair: &Pair, http: &str, more: &str) -> Process {
    pair.put(home);
    home.serve(&format!(
        "{more}
listen = [\"udp://127.0.0.1:0\", \"tcp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]
[credentials]
users = {{ bob = \"builder\" }}
[tls]
cert = \"cert.pem\"
key = \"key.pem\"
[http]
listen = [\"{http}\"]
[admin]
listen = \"127.0.0.1:0\"
"
    ))
}

fn replace(process: &mut Process) {
    process.wait_for("certificate replaced");
}

#[test]
fn turn_over_tls_is_served_and_handed_out() {
    let (home, pair) = (Home::new(), Pair::new());
    let mut process = serve(&home, &pair, "http://127.0.0.1:0", "[relay]");
    let server = process.address("tls");
    let stream = pair.connect(server, &[]).expect("a session");
    let local = stream.sock.local_addr().expect("an address");
    let mut client = Client::over(stream);
    assert_eq!(client.binding(), local);
    client.allocate("bob", "builder").expect("allocated");
    assert_eq!(client.allocate("bob", "builder"), Err(437), "the allocation is this connection's");
    client.refresh(0, "bob", "builder").expect("released");
    let ice = get(process.address("http"), "/v1/ice").body;
    assert!(ice.contains(&format!("\"turns:127.0.0.1:{}?transport=tcp\"", server.port())), "{ice}");
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn connections_without_a_handshake_are_bounded_and_hold_up_their_own_listener_only() {
    let (home, pair) = (Home::new(), Pair::new());
    let process = serve(&home, &pair, "http://127.0.0.1:0", "[relay]\ntcp_connections = 2");
    let tls = process.address("tls");
    let mut silent: Vec<_> = (0..2).map(|_| TcpStream::connect(tls).expect("accepted")).collect();
    let mut waiting = TcpStream::connect(tls).expect("the kernel accepts");
    let mut session =
        ClientConnection::new(pair.client(&[]), "localhost".try_into().expect("a name")).expect("one");
    waiting.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
    assert!(session.complete_io(&mut waiting).is_err(), "there is no place");
    assert_eq!(get(process.address("http"), "/health").status, 200);
    let plain = TcpStream::connect(process.address("tcp")).expect("accepted");
    let local = plain.local_addr().expect("an address");
    assert_eq!(Client::over(plain).binding(), local);
    silent.pop();
    waiting.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    while session.is_handshaking() {
        session.complete_io(&mut waiting).expect("a place is free");
    }
}

#[test]
fn rfc7443_alpn_is_honoured_and_not_needed() {
    let (home, pair) = (Home::new(), Pair::new());
    let process = serve(&home, &pair, "https://127.0.0.1:0", "[relay]");
    let chosen = |kind, offered: &[&str]| {
        let stream = pair.connect(process.address(kind), offered)?;
        Ok::<_, std::io::Error>(stream.conn.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(chosen("tls", &[]).expect("accepted"), None);
    assert_eq!(chosen("tls", &["stun.turn"]).expect("accepted"), Some(b"stun.turn".to_vec()));
    let both = ["stun.nat-discovery", "x"];
    assert_eq!(chosen("tls", &both).expect("accepted"), Some(b"stun.nat-discovery".to_vec()));
    for (kind, other) in [("tls", "http/1.1"), ("tls", "h2"), ("https", "stun.turn")] {
        let refused = chosen(kind, &[other]).expect_err("refused").to_string();
        assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    }
}

#[test]
fn a_certificate_replaced_during_a_call_is_seen_by_new_handshakes_only() {
    let (home, pair) = (Home::new(), Pair::new());
    let mut process = serve(&home, &pair, "https://127.0.0.1:0", "[relay]");
    let mut call = Client::over(pair.connect(process.address("tls"), &[]).expect("a session"));
    call.allocate("bob", "builder").expect("allocated");
    let next = Pair::new();
    next.put(&home);
    replace(&mut process);
    for kind in ["tls", "https"] {
        let stream = next.connect(process.address(kind), &[]).expect("the new certificate");
        assert_eq!(stream.conn.peer_certificates().expect("shown")[0], next.der);
        assert!(pair.connect(process.address(kind), &[]).is_err(), "nobody sees the old one");
    }
    call.refresh(600, "bob", "builder").expect("the call goes on");
    // SIGHUP takes it at once.
    let last = Pair::new();
    last.put(&home);
    process.signal(Signal::HUP);
    process.wait_for("configuration read again");
    last.connect(process.address("tls"), &[]).expect("the new certificate");
    call.refresh(0, "bob", "builder").expect("the call goes on");
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn a_broken_certificate_keeps_the_one_before_and_says_why() {
    let (home, pair) = (Home::new(), Pair::new());
    let mut process = serve(&home, &pair, "https://127.0.0.1:0", "[relay]");
    let mut refused = |files: &[(&str, &str)], why: &str| {
        files.iter().for_each(|(name, text)| put(&home, name, text));
        let line = process.wait_for("certificate not taken");
        assert!(line.contains("the one before stays") && line.contains(why), "{line}");
        for kind in ["tls", "https"] {
            pair.connect(process.address(kind), &[]).expect("the certificate before");
        }
    };
    refused(&[("cert.pem", "no certificate")], "tls.cert: ");
    refused(&[("cert.pem", &Pair::new().cert)], "does not belong to the certificate in cert.pem");
    refused(&[("cert.pem", &pair.cert), ("key.pem", "")], "tls.key: ");
    std::fs::remove_file(Path::new(&home.path().join("key.pem"))).expect("removed");
    refused(&[], "tls.key: ");
    let next = Pair::new();
    next.put(&home);
    replace(&mut process);
    next.connect(process.address("tls"), &[]).expect("the new certificate");
}
