//! `serve --public`: HTTPS, a token key, and an invite link.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::harness::{Home, PATIENCE, Process, get, mode};

fn public(home: &Home, name: &str) -> Process {
    let mut command = home.command(&["serve", "--public", name]);
    for (key, value) in [
        ("TURNKEY_RELAY__LISTEN", "udp://127.0.0.1:0,tcp://127.0.0.1:0"),
        ("TURNKEY_HTTP__LISTEN", "127.0.0.1:0"),
        ("TURNKEY_ADMIN__LISTEN", "127.0.0.1:0"),
    ] {
        command.env(key, value);
    }
    Process::start(command)
}

/// `GET path` over TLS, trusting nothing but the kept certificate.
fn get_tls(home: &Home, process: &Process, name: &str, path: &str) -> String {
    let certificate =
        std::fs::read_dir(home.state()).expect("a directory").map(|entry| entry.expect("an entry").path());
    let certificate =
        certificate.into_iter().find(|path| path.extension().is_some_and(|e| e == "crt")).expect("kept");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let tcp = TcpStream::connect(process.address("https")).expect("a listener");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut stream = rustls::StreamOwned::new(session, tcp);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn https_invite_link_and_kept_keys() {
    let home = Home::new();
    let mut process = public(&home, "localhost");
    assert!(get_tls(&home, &process, "localhost", "/health").starts_with("HTTP/1.1 200"));
    assert!(get_tls(&home, &process, "127.0.0.1", "/health").starts_with("HTTP/1.1 200"));
    assert!(
        get_tls(&home, &process, "localhost", "/v1/ice").starts_with("HTTP/1.1 401"),
        "a token is needed"
    );
    let port = process.address("https").port();
    assert_eq!(process.terminate(), Some(0));
    let prefix = format!("https://localhost:{port}/?room=");
    let link = process.stdout.lines().find(|line| line.starts_with(&prefix)).expect("an invite link");
    let (_, token) = link.split_once("&token=").expect("a token");
    assert_eq!(token.split('.').count(), 3);
    assert!(process.log.iter().all(|line| !line.contains(token)), "the token is not logged");

    let files = ["secret", "token-key", "self-signed-localhost.key", "self-signed-localhost.crt"];
    let read = || files.map(|name| std::fs::read_to_string(home.state().join(name)).expect(name));
    let first = read();
    assert!(files.iter().all(|name| mode(&home.state().join(name)) == 0o600));
    // The next start has the same keys, and `turnkey token` signs with them.
    let mut process = public(&home, "localhost");
    assert_eq!(process.terminate(), Some(0));
    assert!(read() == first);
    assert_eq!(home.run(&["token", "--user", "alice", "--room", "r"]).code, Some(0));
}

#[test]
fn an_address_is_as_good_as_a_name() {
    let home = Home::new();
    let mut process = public(&home, "127.0.0.1");
    assert!(get_tls(&home, &process, "127.0.0.1", "/health").starts_with("HTTP/1.1 200"));
    // The log tells nobody's browser to try plain HTTP, so somebody will.
    let answer = get(process.address("https"), "/");
    assert!(answer.status == 400 && answer.body.contains("https://"), "{}", answer.body);
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn the_answer_to_plain_http_waits_for_the_end_of_the_request() {
    let home = Home::new();
    let process = public(&home, "localhost");
    let mut stream = TcpStream::connect(process.address("https")).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("set");
    for piece in
        ["POST / HTTP/1.1\r\n", "host: localhost\r\ncontent-length: 4000\r\n", "\r\n", &"x".repeat(4000)]
    {
        stream.write_all(piece.as_bytes()).expect("nobody closes while the request is being sent");
        // The server gets each by itself.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer, not a reset");
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("https://"), "{text}");
}

#[test]
fn plain_http_for_others_explains_the_missing_camera() {
    let home = Home::new();
    let config = "[relay]\nlisten = [\"udp://127.0.0.1:0\"]\n[http]\nlisten = [\"http://0.0.0.0:0\"]\n\
                  [signaling]\njwt_generate = true\n[admin]\nlisten = \"\"\n";
    let mut process = home.serve(config);
    let line = process.log.iter().find(|line| line.contains("camera")).expect("an explanation");
    assert!(line.contains("HTTPS") && line.contains("tls.self_signed"), "{line}");
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn a_handshake_that_does_not_come_keeps_nobody_out() {
    let home = Home::new();
    let process = public(&home, "localhost");
    let silent: Vec<_> =
        (0..200).map(|_| TcpStream::connect(process.address("https")).expect("accepted")).collect();
    assert!(get_tls(&home, &process, "localhost", "/health").starts_with("HTTP/1.1 200"));
    drop(silent);
}
