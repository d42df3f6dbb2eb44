//! `turnkey bench`: its figures add up, and it says in words why a run cannot be made.

use serde_json::Value;

use crate::rig::{OPEN, SECRET, Server, free_port, run};

/// A short run with a JSON report.
fn measure(server: &Server, more: &[&str]) -> Value {
    let (address, pid) = (server.udp().to_string(), server.pid().to_string());
    let mut arguments = vec!["bench", "--json", "--server", &address, "--secret", SECRET, "--pid", &pid];
    if !more.contains(&"--duration") {
        arguments.extend(["--duration", "0.6"]);
    }
    arguments.extend(["--warmup", "0.1"]);
    arguments.extend(more);
    let (passed, report, error) = run(&arguments);
    assert!(passed, "{more:?}: {error}");
    serde_json::from_str(&report).expect("one JSON document")
}

fn refused(arguments: &[&str]) -> String {
    let (passed, report, error) = run(&[&["bench"], arguments].concat());
    assert!(!passed && report.is_empty() && error.lines().count() == 1, "{report}{error}");
    error
}

fn count(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {report}"))
}

#[test]
fn relayed_packets_are_counted_both_ways() {
    let server = Server::start(OPEN);
    for more in
        [&[][..], &["--transport", "tcp"], &["--indications"], &["--workers", "2"], &["--size", "1201"]]
    {
        let report = measure(&server, &[&["-n", "4", "--rate", "500"], more].concat());
        assert_eq!(count(&report, "/failures"), 0, "{more:?}: {report}");
        for way in ["up", "down"] {
            assert!(count(&report, &format!("/{way}/received")) > 0, "{more:?}: {report}");
            let (sent, came) =
                (count(&report, &format!("/{way}/sent")), count(&report, &format!("/{way}/received")));
            assert!(came <= sent, "{more:?}: {report}");
        }
        assert!(report["up"]["p50_us"].as_f64().is_some_and(|us| us > 0.0), "{report}");
        assert!(count(&report, "/server_resident_bytes") > 0, "{report}");
    }
    assert_eq!(server.metric("turnkey_allocations "), 0, "nothing is left behind");
}

#[test]
fn one_direction_only() {
    let server = Server::start(OPEN);
    let up = measure(&server, &["--direction", "up"]);
    assert!(up["up"].is_object() && up["down"].is_null(), "{up}");
    let down = measure(&server, &["--direction", "down"]);
    assert!(down["up"].is_null() && down["down"].is_object(), "{down}");
}

#[test]
fn pairs_of_relays_need_no_allowed_peers() {
    let server = Server::start("");
    let report = measure(&server, &["-n", "4", "--relay-to-relay"]);
    assert!(count(&report, "/up/received") > 0, "{report}");
    assert_eq!(count(&report, "/failures"), 0, "{report}");
}

#[test]
fn a_saturated_server_answers() {
    let server = Server::start(OPEN);
    for mode in ["relay", "cycles", "binding"] {
        let report = measure(&server, &["--mode", mode, "-n", "4", "--saturate"]);
        assert!(count(&report, "/received") > 0, "{mode}: {report}");
        assert_eq!(count(&report, "/failures"), 0, "{mode}: {report}");
        assert!(report["target_rate"].is_null());
    }
    assert_eq!(server.metric("turnkey_allocations "), 0, "nothing is left behind");
}

#[test]
fn runs_of_packets_are_counted_one_by_one() {
    let server = Server::start(OPEN);
    for more in [&[][..], &["--rate", "2000"], &["--relay-to-relay"]] {
        let pace: &[&str] = if more.contains(&"--rate") { &[] } else { &["--saturate"] };
        let report = measure(&server, &[&["-n", "2", "--size", "1200", "--gso", "8"], pace, more].concat());
        assert_eq!(count(&report, "/failures"), 0, "{more:?}: {report}");
        for way in ["up", "down"].iter().filter(|way| !report[**way].is_null()) {
            assert!(count(&report, &format!("/{way}/received")) > 0, "{more:?}: {report}");
        }
    }
    let direct = run(&["bench", "--mode", "direct", "--gso", "8", "--duration", "0.5", "--json"]);
    let direct: Value = serde_json::from_str(&direct.1).expect("JSON");
    assert!(count(&direct, "/up/received") > 0 && count(&direct, "/down/received") > 0, "{direct}");
}

#[test]
fn cycles_go_on_beside_allocations_that_stay() {
    let server = Server::start(OPEN);
    let report = measure(&server, &["--mode", "cycles", "--saturate", "-n", "4", "--standing", "20"]);
    assert!(count(&report, "/received") > 0, "{report}");
    assert_eq!(count(&report, "/failures"), 0, "{report}");
    assert_eq!(server.metric("turnkey_allocations "), 0, "nothing is left behind");
}

#[test]
fn floods_are_sent_and_weighed() {
    let server = Server::start(OPEN);
    for kind in ["binding", "allocate", "garbage", "half-open"] {
        let report = measure(&server, &["--mode", "flood", "--flood", kind, "-n", "200", "--rate", "1000"]);
        assert!(count(&report, "/sent") > 0, "{kind}: {report}");
        assert_eq!(count(&report, "/failures"), 0, "{kind}: {report}");
        assert_eq!(
            count(&report, "/received") > 0,
            matches!(kind, "binding" | "allocate"),
            "{kind}: {report}"
        );
        assert!(report["server_grown_bytes"].is_i64(), "{kind}: {report}");
    }
}

#[test]
fn cycles_and_bindings_keep_a_rate() {
    let server = Server::start(OPEN);
    for mode in ["cycles", "binding"] {
        let report = measure(&server, &["--mode", mode, "-n", "8", "--rate", "100"]);
        let (received, seconds) = (count(&report, "/received"), report["seconds"].as_f64());
        let most = seconds.expect("a time") * 100.0 * 1.2 + 8.0;
        assert!(received > 0 && (received as f64) < most, "{mode}: {report}");
    }
}

#[test]
fn idle_allocations_are_weighed() {
    let server = Server::start(OPEN);
    let report = measure(&server, &["--mode", "idle", "-n", "200"]);
    assert_eq!(count(&report, "/failures"), 0, "{report}");
    assert!(report["server_bytes_per_allocation"].is_i64(), "{report}");
    assert!(count(&report, "/server_sockets_opened") >= 190, "{report}");
}

#[test]
fn without_a_server_the_generator_measures_itself() {
    let (passed, report, error) =
        run(&["bench", "--mode", "direct", "--duration", "0.5", "-n", "3", "--json"]);
    assert!(passed, "{error}");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert!(count(&report, "/up/received") > 0 && count(&report, "/down/received") > 0, "{report}");
}

#[test]
fn a_search_tells_its_tries() {
    let server = Server::start(OPEN);
    let report = measure(&server, &["--find-max", "--loss", "50%", "--duration", "0.2"]);
    assert!(report["limited_by_generator"].is_boolean(), "{report}");
    assert!(report["tries"].as_array().is_some_and(|tries| tries.len() > 1), "{report}");
}

#[test]
fn the_table_for_people_names_every_figure() {
    let server = Server::start(OPEN);
    let address = server.udp().to_string();
    let (passed, table, error) =
        run(&["bench", "--server", &address, "--user", "u", "--password", "p", "--duration", "0.5"]);
    assert!(passed, "{error}");
    for word in ["relay against", "rate", "loss", "up", "down", "p99"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(error.is_empty(), "no progress bar where there is no terminal: {error}");
}

#[test]
fn wrong_credentials_are_told() {
    let server = Server::start(OPEN);
    let address = server.udp().to_string();
    for login in [&["--secret", "wrong"][..], &["--user", "u", "--password", "q"]] {
        let error = refused(&[&["--server", &address], login].concat());
        assert!(
            error.contains("401") && error.contains("check --user and --password, or --secret"),
            "{error}"
        );
    }
    let error = refused(&["--server", &address, "--mode", "cycles", "--secret", "wrong"]);
    assert!(error.contains("401"), "{error}");
}

#[test]
fn a_peer_policy_that_forbids_us_is_told() {
    let server = Server::start("");
    let error = refused(&["--server", &server.udp().to_string(), "--secret", SECRET]);
    assert!(error.contains("403") && error.contains("[peers] allow = [\"127.0.0.1\"]"), "{error}");
    assert_eq!(server.metric("turnkey_allocations "), 0, "nothing is left behind");
}

#[test]
fn a_used_up_quota_is_told() {
    let server = Server::start(&format!("{OPEN}[quota]\nuser = 3\n"));
    let error = refused(&["--server", &server.udp().to_string(), "--secret", SECRET, "-n", "4"]);
    assert!(error.contains("486") && error.contains("quota"), "{error}");
}

#[test]
fn another_realm_is_told() {
    let server = Server::start(OPEN);
    let error = refused(&["--server", &server.udp().to_string(), "--secret", SECRET, "--realm", "other"]);
    assert!(error.contains("--realm"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let closed = format!("127.0.0.1:{}", free_port());
    for transport in ["udp", "tcp"] {
        let error = refused(&["--server", &closed, "--secret", SECRET, "--transport", transport]);
        assert!(error.contains("nothing listens on") && error.contains(&transport.to_uppercase()), "{error}");
    }
    let error = refused(&["--server", &closed, "--mode", "binding"]);
    assert!(error.contains("nothing listens on"), "{error}");
}

#[test]
fn what_does_not_fit_together_is_told() {
    for (arguments, words) in [
        (&["--server", "127.0.0.1"][..], "give credentials"),
        (&["--secret", "s", "--server", ""], "--server"),
        (&["--secret", "s", "--pid", "4294967295"], "no such process"),
        (&["--secret", "s", "--relay-to-relay", "-n", "3"], "multiple"),
        (&["--secret", "s", "--find-max", "--mode", "cycles"], "--find-max is for"),
        (&["--secret", "s", "--duration", "0"], "--duration must be above 0"),
        (&["--secret", "s", "--standing", "5"], "--standing is for"),
        (&["--secret", "s", "--gso", "8", "--transport", "tcp"], "a stream has no runs"),
        (&["--secret", "s", "--gso", "64", "--size", "1200"], "at most 54 packets"),
        (
            &["--secret", "s", "--gso", "16", "--saturate", "--window", "31", "--workers", "2", "-n", "2"],
            "--window",
        ),
    ] {
        let error = refused(arguments);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn the_relay_is_of_the_family_of_the_peers() {
    let server = Server::start(OPEN);
    let report = measure(&server, &["--peer-address", "::1"]);
    assert!(count(&report, "/up/received") > 0 && count(&report, "/down/received") > 0, "{report}");
    let without = Server::listening(r#"["udp://127.0.0.1:0"]"#, 0, OPEN);
    let error =
        refused(&["--server", &without.udp().to_string(), "--secret", SECRET, "--peer-address", "192.0.2.1"]);
    assert!(error.contains("no peer socket on 192.0.2.1"), "{error}");
}
