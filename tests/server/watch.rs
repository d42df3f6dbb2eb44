//! Health and metrics of a running server, and the service manager's watchdog.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::{Client, Home, LOOPBACK, PATIENCE, Process, eventually, get, get_with, metric};

#[test]
fn metrics_count_what_happens() {
    let home = Home::new();
    let config = format!("{LOOPBACK}[credentials]\nusers = {{ bob = \"builder\" }}\n");
    let mut process = home.serve(&config);
    let mut client = Client::new(process.address("udp"));
    client.binding();
    client.allocate("bob", "builder").expect("allocated");
    let admin = process.address("admin");
    let answer = get(admin, "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let value = |name| metric(&answer.body, name);
    assert_eq!(value("turnkey_allocations"), 1.0);
    assert_eq!(value("turnkey_requests_total{method=\"binding\",result=\"ok\"}"), 1.0);
    assert_eq!(value("turnkey_requests_total{method=\"allocate\",result=\"401\"}"), 1.0);
    assert_eq!(value("turnkey_requests_total{method=\"allocate\",result=\"ok\"}"), 1.0);
    assert!(value("turnkey_worker_beats_total{worker=\"1\"}") > 0.0);
    for name in ["turnkey_rooms", "turnkey_members", "turnkey_sessions", "turnkey_draining"] {
        assert_eq!(value(name), 0.0, "{name}");
    }
    assert_well_formed(&answer.body);
    assert_eq!(process.terminate(), Some(0));
}

/// Each sample has HELP and TYPE before it, and no sample comes twice.
fn assert_well_formed(page: &str) {
    let mut typed = std::collections::HashSet::new();
    let mut samples = std::collections::HashSet::new();
    for line in page.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => assert!(typed.insert(rest.split(' ').next()), "{line}"),
            None if line.starts_with("# HELP ") => {}
            None => {
                let (sample, value) = line.rsplit_once(' ').expect("a value");
                assert!(value.parse::<f64>().is_ok() && samples.insert(sample), "{line}");
                assert!(typed.contains(&sample.split('{').next()), "{line}");
            }
        }
    }
}

#[test]
fn admin_routes_are_on_the_admin_listener_only() {
    let home = Home::new();
    let process = home.serve(LOOPBACK);
    let (admin, http) = (process.address("admin"), process.address("http"));
    for path in ["/livez", "/readyz"] {
        let answer = get(admin, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
        assert_eq!(get(http, path).status, 404, "{path}");
    }
    assert_eq!(get(http, "/metrics").status, 404);
    assert_eq!(get(admin, "/v1/ice").status, 404);
}

#[test]
fn connections_beyond_the_bound_wait_their_turn() {
    let home = Home::new();
    let process = home.serve(&LOOPBACK.replace("[http]", "[http]\nmax_connections = 2"));
    let http = process.address("http");
    let connect = || TcpStream::connect(http).expect("the kernel takes it");
    let (first, mut second) = (connect(), connect());
    // Answered, so both places are taken by connections that stay.
    let mut answer = [0; 12];
    second.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    second.read_exact(&mut answer).expect("an answer");
    let mut third = connect();
    third.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    third.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
    assert!(third.read_exact(&mut answer).is_err(), "a third connection is served");
    drop(first);
    third.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    third.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn json_log_is_json() {
    let home = Home::new();
    let mut process =
        home.serve(&format!("{LOOPBACK}[log]\nformat = \"json\"\nlevel = \"info,turnkey::http=debug\"\n"));
    assert_eq!(process.terminate(), Some(0));
    for line in &process.log {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(event["level"].is_string() && event["message"].is_string(), "{line}");
    }
    assert!(process.log.iter().any(|line| line.contains("\"url\":\"udp://127.0.0.1:")), "{:?}", process.log);
}

#[test]
fn a_request_that_never_ends_does_not_stop_others() {
    let home = Home::new();
    let process = home.serve(LOOPBACK);
    let idle: Vec<_> = (0..50).map(|_| TcpStream::connect(process.address("http"))).collect();
    assert_eq!(get(process.address("http"), "/health").status, 200);
    drop(idle);
    assert_eq!(get_with(process.address("http"), "/none", "x: y\r\n").status, 404);
}

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn new(home: &Home) -> Self {
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, path }
    }

    fn command(&self, home: &Home) -> Command {
        home.write("turnkey.toml", LOOPBACK);
        let mut command = home.command(&["serve", "-c", "turnkey.toml"]);
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "4000000");
        command
    }

    /// Waits for a message with this line.
    fn wait_for(&self, line: &str) -> String {
        loop {
            let mut buffer = [0; 4096];
            let len = self.socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {line}: {e}"));
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if text.lines().any(|l| l.starts_with(line)) {
                return text;
            }
        }
    }

    /// Takes the messages that are there.
    fn drain(&self) -> usize {
        self.socket.set_nonblocking(true).expect("set");
        std::iter::from_fn(|| self.socket.recv(&mut [0; 4096]).ok()).count()
    }
}

#[test]
fn service_manager_is_told_of_each_phase() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let mut process = Process::start(manager.command(&home));
    manager.wait_for("READY=1");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    process.signal(Signal::HUP);
    assert!(manager.wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.wait_for("READY=1");
    process.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(process.wait(), Some(0));
}

#[test]
fn a_stalled_worker_stops_the_watchdog() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let mut command = manager.command(&home);
    command.env("TURNKEY_TEST_STALL_WORKER", "600");
    let mut process = Process::start(command);
    let admin = process.address("admin");
    let answer = eventually(|| get(admin, "/livez"), |answer| answer.status == 503);
    assert_eq!(answer.body, "worker 0 stands still\n");
    assert_eq!(get(admin, "/readyz").status, 503);
    process.wait_for("not well");
    manager.drain();
    // Three looks at the workers, and none of them feeds the watchdog.
    std::thread::sleep(std::time::Duration::from_millis(1600));
    assert_eq!(manager.drain(), 0, "the watchdog is fed although a worker stands still");
    // A polite stop would wait for the worker; a second signal does not.
    process.signal(Signal::TERM);
    process.wait_for("stopping");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), Some(0));
}
