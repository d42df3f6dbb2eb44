//! The PROXY protocol: the client's address from proxies that are trusted, and from nobody else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::{Client, Home, PATIENCE, Process, get, metric, until};
use crate::tls::{Pair, serve};

const ONE: &[u8] = b"PROXY TCP4 198.51.100.7 203.0.113.1 40000 443\r\n";
const TWO: &[u8] = &[
    13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x21, 0x11, 0, 12, 198, 51, 100, 7, 203, 0, 113, 1, 0x9C,
    0x40, 1, 0xBB,
];
const LOCAL: &[u8] = &[13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x20, 0, 0, 0];

fn behind(home: &Home, pair: &Pair, proxies: &str) -> Process {
    let more = format!(
        "[signaling]\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n[relay]\nproxy_from = [\"{proxies}\"]"
    );
    serve(home, pair, "https+turns://127.0.0.1:0", &more)
}

/// A connection that begins with these bytes.
fn connect(server: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(first).expect("sent");
    stream
}

fn is_closed(mut stream: TcpStream) -> bool {
    // The end may be a reset, and an alert (7 bytes) before it where TLS was expected.
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let timed_out = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    !timed_out && (bytes.is_empty() || bytes.starts_with(&[21, 3]))
}

#[test]
fn the_client_is_who_the_proxy_says() {
    let (home, pair) = (Home::new(), Pair::new());
    let mut process = behind(&home, &pair, "127.0.0.0/8");
    let told: SocketAddr = "198.51.100.7:40000".parse().expect("an address");
    for header in [ONE, TWO] {
        assert_eq!(Client::over(connect(process.address("tcp"), header)).binding(), told);
        for kind in ["tls", "https+turns"] {
            let stream = pair.session(connect(process.address(kind), header), &[]).expect("a session");
            assert_eq!(Client::over(stream).binding(), told, "{kind}");
        }
        let stream = connect(process.address("https+turns"), header);
        let mut stream = pair.session(stream, &["http/1.1"]).expect("a session");
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.starts_with("HTTP/1.1 200") || text.starts_with("HTTP/1.0 200"), "{text}");
    }
    // Cut anywhere, a byte at a time, the header is the same.
    let mut slow = TcpStream::connect(process.address("tcp")).expect("a listener");
    slow.set_nodelay(true).expect("set");
    for byte in ONE {
        slow.write_all(&[*byte]).expect("sent");
    }
    assert_eq!(Client::over(slow).binding(), told);
    // The proxy's own connection, as its health check opens one.
    let own = connect(process.address("tcp"), LOCAL);
    let local = own.local_addr().expect("an address");
    assert_eq!(Client::over(own).binding(), local);
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn a_trusted_proxy_must_send_a_header_and_a_right_one() {
    let (home, pair) = (Home::new(), Pair::new());
    let process = behind(&home, &pair, "127.0.0.1");
    let wrong: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[22, 3, 1, 0, 5],
        b"PROXY TCP4 198.51.100.7 203.0.113.1 40000\r\n",
    ];
    for kind in ["tcp", "tls", "https+turns"] {
        for bytes in wrong {
            assert!(is_closed(connect(process.address(kind), bytes)), "{kind} {bytes:?}");
        }
    }
    until(&12.0, || {
        let page = get(process.address("admin"), "/metrics").body;
        metric(&page, "turnkey_connections_not_let_in_total{reason=\"proxy_header\"}")
    });
}

#[test]
fn the_limit_of_one_source_counts_whom_the_proxy_names() {
    let (home, pair) = (Home::new(), Pair::new());
    let more = "[quota]\nconnections_per_source = 1\n[relay]\nproxy_from = [\"127.0.0.1\"]";
    let process = serve(&home, &pair, "http://127.0.0.1:0", more);
    let server = process.address("tls");
    let enter = |header| pair.session(connect(server, header), &[]).expect("a session");
    let mut first = Client::over(enter(ONE));
    first.binding();
    let mut second = enter(TWO);
    assert!(matches!(second.read(&mut [0; 64]), Ok(0)), "the same source once more: closed with a goodbye");
    let mut other = Client::over(enter(b"PROXY TCP4 198.51.100.8 203.0.113.1 40000 443\r\n"));
    other.binding();
    first.binding();
}

#[test]
fn nobody_else_is_believed() {
    let (home, pair) = (Home::new(), Pair::new());
    let process = behind(&home, &pair, "192.0.2.1");
    for header in [ONE, TWO] {
        for kind in ["tcp", "tls"] {
            assert!(is_closed(connect(process.address(kind), header)), "{kind}");
        }
    }
    let stream = connect(process.address("tcp"), &[]);
    let local = stream.local_addr().expect("an address");
    assert_eq!(Client::over(stream).binding(), local);
}
