//! A pool on loopback, peers that answer, and scenarios for each backend.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::time::Duration;

use turnkey::credential::{Nonces, Users, Verifier};
use turnkey::turn::{Bandwidth, PeerPolicy, RelayAddress, Settings};
use turnkey::worker::{self, Arrival, Backend, Pool, Setup};

/// A test that hangs is a test that failed; nothing is measured with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Makes `fn scenario(Backend)` a test for each backend.
macro_rules! on_each_backend {
    ($($name:ident),* $(,)?) => {
        #[cfg(target_os = "linux")]
        mod linux {
            $(#[test] fn $name() { super::$name(turnkey::worker::Backend::Linux); })*
        }
        mod portable {
            $(#[test] fn $name() { super::$name(turnkey::worker::Backend::Portable); })*
        }
    };
}

/// Settings of a core that relays between loopback addresses, with user `user`, password `pass`.
pub(crate) fn settings() -> Settings {
    let loopback = |ip: &str| RelayAddress { bind: ip.parse().unwrap(), public: ip.parse().unwrap() };
    let allow = ["127.0.0.0/8", "::1/128", "192.0.2.0/24"].map(|network| network.parse().unwrap());
    Settings {
        realm: "test".into(),
        addresses: vec![loopback("127.0.0.1"), loopback("::1")],
        former: Vec::new(),
        ports: 49152..=65535,
        peers: Arc::new(PeerPolicy::new(allow.to_vec(), Vec::new(), Vec::new(), Vec::new())),
        verifier: Arc::new(Verifier {
            users: Users::new("test", [("user", "pass")]),
            max_ttl: Duration::from_secs(3600),
            ..Verifier::default()
        }),
        nonces: Arc::new(Nonces::new([7; 32])),
        user_quota: 0,
        total_quota: 0,
        bandwidth: Bandwidth::default(),
        max_lifetime: Duration::from_secs(3600),
        tcp: false,
        mobility: false,
        dont_fragment: false,
        legacy_channels: false,
        strict_expiry: false,
        unauthenticated_rate: 0,
        redirect: None,
        vantages: None,
    }
}

/// A setup with one worker that listens on 127.0.0.1 and ::1.
pub(crate) fn setup(backend: Backend) -> Setup {
    let udp = ["127.0.0.1:0", "[::1]:0"].map(|address| address.parse().unwrap()).to_vec();
    // Pools of one process draw different relay ports.
    static POOLS: AtomicU8 = AtomicU8::new(0);
    let mut seed = [POOLS.fetch_add(1, Ordering::Relaxed); 32];
    seed[..4].copy_from_slice(&std::process::id().to_be_bytes());
    Setup { workers: 1, udp, backend, ..Setup::new(settings(), seed) }
}

pub(crate) fn pool(backend: Backend) -> Pool {
    worker::start(setup(backend)).unwrap()
}

/// Four workers, with these settings.
pub(crate) fn four(backend: Backend, change: impl FnOnce(&mut Settings)) -> Arc<Pool> {
    let mut setup = Setup { workers: 4, ..setup(backend) };
    change(&mut setup.settings);
    Arc::new(worker::start(setup).unwrap())
}

/// Bytes that tell one message from another.
pub(crate) fn payload(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + n) as u8).collect()
}

/// A peer's socket.
pub(crate) fn peer(ip: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A peer that sends everything back, for as long as the test process lives.
pub(crate) fn echo(ip: &str) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    address
}

/// An address of a port that is free and stays so: no socket bound to port 0 gets one below the ephemeral range.
pub(crate) fn low_port(ip: &str) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin elsewhere.
    let start = std::process::id() as u16;
    let ports =
        (0..10_000).map(|_| 20_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    let is_free =
        |address: &SocketAddr| UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok();
    ports.map(|port| (self::ip(ip), port).into()).find(is_free).unwrap()
}

/// Accepts TCP connections on `ip` into the pool; the address to connect to.
pub(crate) fn accept(pool: &Arc<Pool>, ip: &str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let pool = Arc::clone(pool);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Gone already, or refused: the client sees it.
            let _ = Arrival::plain(stream, Vec::new()).map(|arrival| pool.adopt(arrival));
        }
    });
    address
}

/// Waits until `done` holds.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Which worker has how many of `all` allocations.
pub(crate) fn spread(pool: &Pool, all: u32) -> Vec<u64> {
    let mut spread = Vec::new();
    until("every worker has told", || {
        spread = pool.worker_stats().iter().map(|stats| stats.allocations).collect();
        spread.iter().sum::<u64>() == u64::from(all)
    });
    spread
}

/// Runs a scenario in a process of its own, so that its memory can be looked at. `name` is the full
/// name of the calling test.
pub(crate) fn in_own_process(name: &str, scenario: impl FnOnce()) {
    let this = std::env::current_exe().unwrap();
    in_process_of(std::process::Command::new(this), name, scenario);
}

/// The same with at most `files` open files.
#[cfg(unix)]
pub(crate) fn in_own_process_with_files(files: usize, name: &str, scenario: impl FnOnce()) {
    let mut shell = std::process::Command::new("sh");
    let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(std::env::current_exe().unwrap());
    in_process_of(shell, name, scenario);
}

/// The same in a network of its own that `setup` (a shell script) builds. False where this system does
/// not let the user make one.
#[cfg(target_os = "linux")]
pub(crate) fn in_own_network(setup: &str, name: &str, scenario: impl FnOnce()) -> bool {
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--map-root-user", "--net", "--mount"]);
    if !matches!(unshare.arg("true").status(), Ok(status) if status.success()) {
        return false;
    }
    let mut unshare = std::process::Command::new("unshare");
    let script = format!("set -e\n{setup}\nexec \"$0\" \"$@\"");
    unshare.args(["--map-root-user", "--net", "--mount", "sh", "-c", &script]);
    unshare.arg(std::env::current_exe().unwrap());
    in_process_of(unshare, name, scenario);
    true
}

fn in_process_of(mut command: std::process::Command, name: &str, scenario: impl FnOnce()) {
    const MARK: &str = "TURNKEY_TEST_OWN_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return scenario();
    }
    let output = command.args([name, "--exact", "--nocapture"]).env(MARK, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// Resident memory of this process in bytes, without what is mapped from files: that comes and goes as it is used.
#[cfg(target_os = "linux")]
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn resident() -> usize {
    0
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
