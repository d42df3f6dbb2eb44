//! TURN over DTLS, with OpenSSL as the client that says whether the handshake is one.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::{Ended, Home, get, metric, until};
use crate::tls::Pair;

/// The configuration of a server with the pair in `cert.pem` and `key.pem`.
const CONFIG: &str = "
[relay]
listen = [\"udp://127.0.0.1:0\", \"dtls://127.0.0.1:0\"]
[tls]
cert = \"cert.pem\"
key = \"key.pem\"
[http]
listen = [\"http://127.0.0.1:0\"]
[admin]
listen = \"127.0.0.1:0\"
";

fn openssl(home: &Home, arguments: &str) -> Ended {
    let mut command = Command::new("openssl");
    command.args(arguments.split_whitespace()).current_dir(home.path());
    Ended::of(command)
}

/// What OpenSSL says about a handshake in which it trusts only `cert.pem`.
fn handshake(home: &Home, server: SocketAddr, more: &str) -> String {
    let ended = openssl(home, &format!("s_client -connect {server} -CAfile cert.pem {more}"));
    format!("{}{}", ended.stdout, ended.stderr)
}

fn rsa(home: &Home) {
    let made =
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout rsa-key.pem -out rsa.pem";
    assert_eq!(openssl(home, made).code, Some(0));
    for (from, to) in [("rsa-key.pem", "key.pem"), ("rsa.pem", "cert.pem")] {
        let text = std::fs::read_to_string(home.path().join(from)).expect("made");
        home.write(to, &text);
    }
}

#[test]
fn rfc7350_openssl_completes_a_handshake_with_every_suite() {
    let (home, pair) = (Home::new(), Pair::new());
    pair.put(&home);
    let mut process = home.serve(CONFIG);
    let server = process.address("dtls");
    let suites = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"];
    for suite in suites {
        let said = handshake(&home, server, &format!("-dtls1_2 -cipher ECDHE-ECDSA-{suite}"));
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains(&format!("ECDHE-ECDSA-{suite}")), "{said}");
    }
    // A hello in fragments: RFC 6347 §4.2.3.
    let said = handshake(&home, server, "-dtls1_2 -mtu 256");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    let said = handshake(&home, server, "-dtls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256");
    assert!(said.contains("alert handshake failure"), "{said}");

    let admin = process.address("admin");
    let counted = |name: &str| metric(&get(admin, "/metrics").body, name);
    assert_eq!(
        (counted("turnkey_dtls_handshakes_total"), counted("turnkey_dtls_failures_total")),
        (4.0, 1.0)
    );
    until(&0.0, || counted("turnkey_dtls_sessions"));
    let ice = get(process.address("http"), "/v1/ice").body;
    assert!(!ice.contains("turns:"), "no browser uses TURN over DTLS: {ice}");
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn a_replaced_certificate_is_shown_and_an_rsa_one_is_not_taken() {
    let (home, pair) = (Home::new(), Pair::new());
    pair.put(&home);
    let mut process = home.serve(CONFIG);
    let server = process.address("dtls");
    let next = Pair::new();
    next.put(&home);
    process.wait_for("certificate replaced");
    assert!(handshake(&home, server, "-dtls1_2").contains("Verify return code: 0 (ok)"), "the new one");
    rsa(&home);
    let line = process.wait_for("certificate not taken");
    assert!(line.contains("DTLS needs an ECDSA certificate"), "{line}");
    home.write("cert.pem", &next.cert);
    assert!(handshake(&home, server, "-dtls1_2").contains("Verify return code: 0 (ok)"), "the one before");
}

#[test]
fn an_rsa_certificate_on_a_dtls_listener_is_an_error_of_one_line() {
    let home = Home::new();
    rsa(&home);
    home.write("turnkey.toml", CONFIG);
    let ended = home.run(&["serve", "--config", "turnkey.toml"]);
    let error = ended.error();
    assert!(error.contains("tls.cert: cert.pem: DTLS needs an ECDSA certificate"), "{error}");
    assert!(error.contains("remove dtls:// from relay.listen"), "{error}");
}
