//! `turnkey check`: what it says of a server that works, and of each one that does not.

use std::net::UdpSocket;

use serde_json::Value;

use crate::rig::{OPEN, SECRET, Server, free_port, run};

/// A key that signaling tokens are signed with.
const KEY: &str = "jwt_secret = \"a-key-for-the-tokens-of-these-tests\"\n";

/// The result and the words of one step.
fn step(report: &str, name: &str) -> (String, String) {
    let line = report
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(name))
        .unwrap_or_else(|| panic!("no step {name}:\n{report}"));
    let (result, rest) = line.split_once(char::is_whitespace).expect("two words");
    let rest = rest.trim_start().strip_prefix(name).expect("the name");
    (result.to_owned(), rest.trim().to_owned())
}

#[track_caller]
fn assert_step(report: &str, name: &str, result: &str, words: &str) {
    let (found, text) = step(report, name);
    assert!(found == result && text.contains(words), "{name}: wanted {result} {words:?} in:\n{report}");
}

#[test]
fn every_step_passes_on_a_server_that_works() {
    let server = Server::start(OPEN);
    let (passed, report, _) = run(&["check", "--url", &server.url()]);
    assert!(passed, "{report}");
    assert_step(&report, "ice", "ok", "with credentials");
    assert_step(&report, "stun-ipv4", "ok", "sees us as 127.0.0.1:");
    assert_step(&report, "turn-udp", "ok", "echo from our own socket");
    assert_step(&report, "turn-tcp", "ok", "echo from our own socket");
    assert_step(&report, "turn-tls", "skip", "not advertised");
    assert_step(&report, "relay-ipv6", "ok", "relays from [::1]:");
    assert_step(&report, "credentials", "ok", "a forged expiry is refused");
    assert_step(&report, "wrong-password", "ok", "refused with 401");
    assert_step(&report, "signaling", "ok", "offer and answer");
    assert_eq!(server.metric("turnkey_allocations "), 0, "nothing is left behind");
}

#[test]
fn the_json_report_says_the_same() {
    let server = Server::start(OPEN);
    let (passed, report, _) = run(&["check", "--url", &server.url(), "--json"]);
    let document: Value = serde_json::from_str(&report).expect("one JSON document");
    assert!(passed && document["ok"] == true, "{report}");
    let results: Vec<_> =
        document["steps"].as_array().expect("steps").iter().map(|step| &step["result"]).collect();
    assert_eq!(results.iter().filter(|result| **result == "ok").count(), 8, "{report}");
}

#[test]
fn the_configuration_names_the_server_and_a_key() {
    let more = format!("api_keys = [\"key-of-the-back-end\"]\n{OPEN}[signaling]\naccess = \"token\"\n{KEY}");
    let server = Server::listening(r#"["udp://127.0.0.1:0"]"#, free_port(), &more);
    let (_, report, _) = run(&["check", "--config", &server.config()]);
    assert_step(&report, "ice", "ok", "with credentials");
    assert_step(&report, "turn-udp", "ok", "echo");
    assert_step(&report, "turn-tcp", "skip", "not advertised");
    assert_step(&report, "signaling", "FAIL", "give --token");
}

#[test]
fn a_relay_without_an_http_side_is_checked_with_a_secret() {
    let server = Server::start(OPEN);
    let (passed, report, _) = run(&["check", "--server", &server.udp().to_string(), "--secret", SECRET]);
    assert!(passed, "{report}");
    assert_step(&report, "ice", "skip", "no --url");
    assert_step(&report, "credentials", "ok", "so are expired ones");
    assert_step(&report, "signaling", "skip", "no --url");
}

#[test]
fn a_static_user_has_no_time_limit() {
    let server = Server::start(OPEN);
    let address = server.udp().to_string();
    let (passed, report, _) = run(&["check", "--server", &address, "--user", "u", "--password", "p"]);
    assert!(passed, "{report}");
    assert_step(&report, "credentials", "skip", "no time-limited");
    assert_step(&report, "wrong-password", "ok", "401");
}

#[test]
fn where_the_peer_policy_forbids_us_two_relays_talk() {
    let server = Server::relaying_from("127.0.0.2", "");
    let (passed, report, _) = run(&["check", "--server", &server.udp().to_string(), "--secret", SECRET]);
    assert!(passed, "{report}");
    assert_step(&report, "turn-udp", "ok", "between two relays (the peer policy forbids our address)");
    assert_step(&report, "turn-tcp", "ok", "between two relays (the peer policy forbids our address)");
}

#[test]
fn where_we_share_the_address_of_the_relay_two_relays_talk() {
    // A permission for the relay's own address lets relays talk, but not this socket.
    let server = Server::start("");
    let (passed, report, _) = run(&["check", "--url", &server.url(), "--timeout", "1"]);
    assert!(passed, "{report}");
    assert_step(
        &report,
        "turn-udp",
        "ok",
        "between two relays (our own socket cannot be reached from there)",
    );
}

#[test]
fn a_wrong_secret_is_named() {
    let server = Server::start(OPEN);
    let (passed, report, _) = run(&["check", "--server", &server.udp().to_string(), "--secret", "wrong"]);
    assert!(!passed, "{report}");
    assert_step(&report, "stun-ipv4", "ok", "");
    assert_step(&report, "turn-udp", "FAIL", "wrong password or secret");
    assert_step(&report, "turn-tcp", "FAIL", "wrong password or secret");
    assert_step(&report, "credentials", "skip", "needs a transport that relays");
}

#[test]
fn a_wrong_static_password_is_named() {
    let server = Server::start(OPEN);
    let address = server.udp().to_string();
    let (passed, report, _) = run(&["check", "--server", &address, "--user", "u", "--password", "q"]);
    assert!(!passed, "{report}");
    assert_step(&report, "turn-udp", "FAIL", "answers 401");
}

#[test]
fn a_server_that_is_down_is_told_from_a_firewall() {
    let closed = format!("127.0.0.1:{}", free_port());
    let (passed, report, _) = run(&["check", "--server", &closed, "--secret", SECRET]);
    assert!(!passed, "{report}");
    for name in ["stun-ipv4", "turn-udp", "turn-tcp"] {
        assert_step(&report, name, "FAIL", "is the server running");
    }
}

#[test]
fn dropped_udp_is_told_and_tcp_still_proved() {
    // Nobody reads this socket: packets to it vanish as in a firewall.
    let port = free_port();
    let _silent = UdpSocket::bind(("127.0.0.1", port)).expect("a free port");
    let _server = Server::listening(&format!(r#"["tcp://127.0.0.1:{port}"]"#), 0, OPEN);
    let address = format!("127.0.0.1:{port}");
    let (passed, report, _) = run(&["check", "--server", &address, "--secret", SECRET, "--timeout", "1"]);
    assert!(!passed, "{report}");
    assert_step(&report, "stun-ipv4", "FAIL", "does a firewall drop this port?");
    assert_step(&report, "turn-udp", "FAIL", "no answer on UDP");
    assert_step(&report, "turn-tcp", "ok", "between two relays");
    assert_step(&report, "wrong-password", "ok", "401");
}

#[test]
fn no_http_where_the_url_points_is_told() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let (passed, report, _) = run(&["check", "--url", &url]);
    assert!(!passed, "{report}");
    assert_step(&report, "ice", "FAIL", "is `turnkey serve` running");
    assert_step(&report, "signaling", "FAIL", "is the server running");
}

#[test]
fn something_else_where_the_url_points_is_told() {
    let server = Server::start("");
    let (passed, report, _) = run(&["check", "--url", &format!("{}/elsewhere", server.url())]);
    assert!(!passed, "{report}");
    assert_step(&report, "ice", "FAIL", "is this turnkey's HTTP address?");
    assert_step(&report, "signaling", "FAIL", "is this turnkey's HTTP address?");
}

#[test]
fn a_missing_token_is_told() {
    let server = Server::start(&format!("[signaling]\naccess = \"token\"\n{KEY}"));
    let (passed, report, _) = run(&["check", "--url", &server.url()]);
    assert!(!passed, "{report}");
    assert_step(&report, "ice", "FAIL", "give --api-key, or --token");
    assert_step(&report, "signaling", "FAIL", "give --token");
    let minted = ["token", "--config", &server.config(), "--user", "check", "--room", "check"];
    let (_, token, _) = run(&minted);
    let (passed, report, _) = run(&["check", "--url", &server.url(), "--token", token.trim()]);
    assert!(passed, "{report}");
    assert_step(&report, "signaling", "ok", "in room check");
}

#[test]
fn a_used_up_quota_is_told() {
    let server = Server::start(&format!("{OPEN}[quota]\ntotal = 1\n"));
    let holder = ["bench", "--server", &server.udp().to_string(), "--secret", SECRET, "--duration", "20"];
    let mut holder =
        crate::rig::turnkey(&holder).stdout(std::process::Stdio::null()).spawn().expect("it starts");
    while server.metric("turnkey_allocations ") == 0 {
        std::thread::yield_now();
    }
    let (passed, report, _) = run(&["check", "--server", &server.udp().to_string(), "--secret", SECRET]);
    holder.kill().and_then(|()| holder.wait()).expect("it was running");
    assert!(!passed, "{report}");
    assert!(
        step(&report, "turn-udp").1.contains("answers 508")
            || step(&report, "turn-udp").1.contains("answers 486")
    );
}

#[test]
fn wrong_arguments_are_one_line() {
    let (passed, report, _) = run(&["check", "--url", "ftp://x"]);
    assert!(!passed);
    assert_step(&report, "server", "FAIL", "give a URL with http:// or https://");
    let (passed, _, error) = run(&["check", "--user", "u"]);
    assert!(!passed && error.contains("--password"), "{error}");
}

#[test]
fn a_self_signed_certificate_is_told_and_can_be_accepted() {
    let server = Server::public();
    let (passed, report, _) = run(&["check", "--url", &server.https()]);
    assert!(!passed, "{report}");
    assert_step(&report, "ice", "FAIL", "--insecure accepts a self-signed one");
    assert_step(&report, "signaling", "FAIL", "--insecure accepts a self-signed one");
    let minted = ["token", "--config", &server.config(), "--user", "check", "--room", "check"];
    let (_, token, error) = run(&minted);
    let (passed, report, _) =
        run(&["check", "--url", &server.https(), "--token", token.trim(), "--insecure"]);
    assert!(passed, "{report}{error}");
    assert_step(&report, "signaling", "ok", "offer and answer");
}
