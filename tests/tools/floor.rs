//! The floor programs, which turnkey is measured against: each of them relays what the generator sends.

use std::net::SocketAddr;
use std::thread;

use crate::rig::run;

#[path = "../../benches/floor/main.rs"]
#[expect(dead_code, reason = "a program has a main, which the test does not call")]
mod programs;

/// What a measurement brings, both ways.
fn received(server: SocketAddr, more: &[&str]) -> [u64; 2] {
    let server = server.to_string();
    let arguments = ["bench", "--json", "--server", &server, "--user", "floor", "--password", "floor"];
    let pace = ["-n", "3", "--rate", "300", "--duration", "0.4", "--warmup", "0.1"];
    let (passed, report, error) = run(&[&arguments[..], &pace[..], more].concat());
    assert!(passed, "{error}");
    let report: serde_json::Value = serde_json::from_str(&report).expect("one JSON document");
    assert_eq!(report["failures"], 0, "{report}");
    ["up", "down"].map(|way| report[way]["received"].as_u64().expect("a count"))
}

#[test]
fn every_technique_relays_both_ways() {
    for technique in programs::TECHNIQUES {
        let table = programs::Table::open(0).expect("a free port");
        let address = table.listener.local_addr().expect("it is bound");
        if technique == "uring" && !programs::may_use_io_uring() {
            assert!(programs::serve(technique, table).is_err(), "it ends where the kernel refuses");
            continue;
        }
        thread::spawn(move || programs::serve(technique, table));
        for more in [&["--size", "160"][..], &["--size", "1200", "--gso", "8"]] {
            let received = received(address, more);
            assert!(received.iter().all(|count| *count > 0), "{technique} {more:?}: {received:?}");
        }
    }
}
