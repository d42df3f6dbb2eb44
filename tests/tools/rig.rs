//! The program as a process: started on free ports, killed when dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shared secret of every server here.
pub(crate) const SECRET: &str = "a-secret-of-the-tools-tests";

/// Loopback peers are allowed, static user u with password p.
pub(crate) const OPEN: &str = r#"
[peers]
allow = ["127.0.0.0/8", "::1/128"]
"#;

/// A running server.
pub(crate) struct Server {
    child: Child,
    home: tempfile::TempDir,
    log: Vec<String>,
    lines: Receiver<String>,
}

impl Server {
    /// Starts a server for UDP and TCP on the same free port of 127.0.0.1, with `more` configuration.
    pub(crate) fn start(more: &str) -> Self {
        Self::relaying_from("127.0.0.1", more)
    }

    /// The same with another IPv4 address to relay from.
    pub(crate) fn relaying_from(relay: &str, more: &str) -> Self {
        Self::run(relay, &one_port(), 0, &[], more)
    }

    /// Starts a server with these relay listeners and this HTTP port.
    pub(crate) fn listening(listen: &str, http: u16, more: &str) -> Self {
        Self::run("127.0.0.1", listen, http, &[], more)
    }

    /// Starts a server as `--public 127.0.0.1` makes it: HTTPS with a self-signed certificate, tokens.
    pub(crate) fn public() -> Self {
        Self::run("127.0.0.1", &one_port(), 0, &["--public", "127.0.0.1"], OPEN)
    }

    /// A server that is ready.
    fn run(relay: &str, listen: &str, http: u16, arguments: &[&str], more: &str) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let config = home.path().join("turnkey.toml");
        let text = format!(
            "state_dir = \"{}\"\n[relay]\nlisten = {listen}\npublic_address = [\"{relay}\", \"::1\"]\n\
             workers = 1\n[http]\nlisten = [\"127.0.0.1:{http}\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [credentials]\nsecrets = [\"{SECRET}\"]\nusers = {{ u = \"p\" }}\n{more}",
            home.path().display()
        );
        std::fs::write(&config, text).expect("written");
        let mut command = turnkey(&["serve", "--config", &config.display().to_string()]);
        command.args(arguments);
        let mut child =
            command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
        let stderr = child.stderr.take().expect("piped");
        let (line, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|text| line.send(text))
        });
        let mut server = Self { child, home, log: Vec::new(), lines };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        while !self.log.last().is_some_and(|line| line.contains(" ready")) {
            let line = self.lines.recv_timeout(PATIENCE);
            self.log.push(line.unwrap_or_else(|_| panic!("not ready:\n{}", self.log.join("\n"))));
        }
    }

    fn address_in(&self, line: impl Fn(&str) -> bool, scheme: &str) -> SocketAddr {
        let prefix = format!("url={scheme}://");
        let found = self.log.iter().filter(|text| line(text)).find_map(|text| {
            let address = text.split(&prefix).nth(1)?.split_whitespace().next()?;
            address.trim_end_matches('/').parse().ok()
        });
        found.unwrap_or_else(|| panic!("no {prefix} in the log:\n{}", self.log.join("\n")))
    }

    /// The first UDP listener.
    pub(crate) fn udp(&self) -> SocketAddr {
        self.address_in(|_| true, "udp")
    }

    /// The URL of the HTTP listener.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address_in(|line| !line.contains("admin"), "http"))
    }

    /// The URL of the HTTPS listener.
    pub(crate) fn https(&self) -> String {
        format!("https://{}", self.address_in(|_| true, "https"))
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> String {
        self.home.path().join("turnkey.toml").display().to_string()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One figure of the metrics page; zero if it is not there.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let address = self.address_in(|line| line.contains("admin"), "http");
        let mut stream = TcpStream::connect(address).expect("the admin listener");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("text");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or(0.0) as u64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with these arguments and none of our own settings.
pub(crate) fn turnkey(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnkey"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TURNKEY_")) {
        command.env_remove(name);
    }
    command
}

/// Runs the program to its end: whether it succeeded, and what it printed.
pub(crate) fn run(arguments: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } = turnkey(arguments).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.success(), text(stdout), text(stderr))
}

/// UDP and TCP listeners on one port.
fn one_port() -> String {
    let port = free_port();
    format!(r#"["udp://127.0.0.1:{port}", "tcp://127.0.0.1:{port}"]"#)
}

/// A port of 127.0.0.1 that is free for UDP and TCP, and stays so: no socket bound to port 0 gets one below the
/// ephemeral range.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin elsewhere.
    let start = std::process::id() as u16;
    let mut ports =
        (0..10_000).map(|_| 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    let is_free = |port: &u16| {
        UdpSocket::bind(("127.0.0.1", *port)).is_ok() && TcpListener::bind(("127.0.0.1", *port)).is_ok()
    };
    ports.find(is_free).expect("a free port")
}
