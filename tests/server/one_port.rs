//! `https+turns`: HTTPS, WebSockets and TURN over TLS on one port.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::harness::{Client, Home, PATIENCE, Process, get};
use crate::tls::{Pair, serve};

fn one_port(home: &Home, pair: &Pair) -> Process {
    serve(
        home,
        pair,
        "https+turns://127.0.0.1:0",
        "[signaling]\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n[relay]",
    )
}

fn request(mut stream: impl Read + Write) -> String {
    write!(stream, "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn alpn_tells_turn_from_https_and_the_first_byte_does_where_there_is_none() {
    let (home, pair) = (Home::new(), Pair::new());
    let mut process = one_port(&home, &pair);
    let port = process.address("https+turns");
    for alpn in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let answer = request(pair.connect(port, alpn).expect("a session"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for alpn in [&["stun.turn"][..], &["stun.nat-discovery"], &[]] {
        let mut client = Client::over(pair.connect(port, alpn).expect("a session"));
        client.allocate("bob", "builder").expect("allocated");
    }
    // What was asked for counts, whatever comes.
    let answer = request(pair.connect(port, &["http/1.1"]).expect("a session"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut stream = pair.connect(port, &["stun.turn"]).expect("a session");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("closed with a goodbye");
    assert!(text.is_empty());
    assert!(pair.connect(port, &["h2"]).is_err(), "HTTP/2 is not spoken");
    let plain = get(port, "/");
    assert!(plain.status == 400 && plain.body.contains("https://"), "{}", plain.body);
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn the_port_alone_is_enough_for_a_call() {
    let (home, pair) = (Home::new(), Pair::new());
    pair.put(&home);
    let mut process = home.serve(
        "[relay]
listen = []
public_address = \"127.0.0.1\"
[tls]
cert = \"cert.pem\"
key = \"key.pem\"
[http]
listen = [\"https+turns://127.0.0.1:0\"]
[credentials]
api_keys = [\"a-key-for-back-ends-0123456789\"]
[peers]
allow = [\"127.0.0.0/8\"]
[signaling]
access = \"token\"
jwt_secret = \"0123456789abcdef0123456789abcdef\"
[admin]
listen = \"127.0.0.1:0\"
",
    );
    let port = process.address("https+turns");
    let token = home.run(&["token", "--config", "turnkey.toml", "--user", "alice", "--room", "check"]);
    let url = format!("https://{port}");
    let checked = home.run(&["check", "--url", &url, "--insecure", "--json", "--token", token.stdout.trim()]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let step = |name: &str| {
        let is_it = |line: &&str| line.contains(&format!("\"{name}\""));
        checked
            .stdout
            .lines()
            .find(is_it)
            .unwrap_or_else(|| panic!("no {name}: {}", checked.stdout))
            .to_owned()
    };
    for name in ["ice", "turn-tls", "signaling"] {
        assert!(step(name).contains("\"ok\""), "{}", step(name));
    }
    for name in ["turn-udp", "turn-tcp"] {
        assert!(step(name).contains("\"skip\""), "{}", step(name));
    }
    assert_eq!(process.terminate(), Some(0));
}

/// Takes the ten seconds that a stranger may stay silent.
#[test]
fn whoever_is_silent_is_cut() {
    let (home, pair) = (Home::new(), Pair::new());
    let process = one_port(&home, &pair);
    let port = process.address("https+turns");
    let silent = [process.address("tls"), port].map(|address| TcpStream::connect(address).expect("accepted"));
    let mut partial = TcpStream::connect(port).expect("accepted");
    partial.write_all(&[22, 3, 1, 2, 0, 1]).expect("sent");
    let established = pair.connect(port, &[]).expect("a session");
    let mut ends: Vec<Box<dyn Read>> = vec![Box::new(established)];
    for stream in silent.into_iter().chain([partial]) {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        ends.push(Box::new(stream));
    }
    for mut stream in ends {
        // A session that is cut ends without the goodbye of TLS.
        let end = stream.read(&mut [0; 64]).map_err(|e| e.kind());
        assert!(matches!(end, Ok(0) | Err(ErrorKind::UnexpectedEof)), "{end:?}");
    }
    let page = get(process.address("admin"), "/metrics").body;
    let silence = crate::harness::metric(&page, "turnkey_connections_not_let_in_total{reason=\"silence\"}");
    assert!((silence - 4.0).abs() < 0.5, "{silence}");
}
