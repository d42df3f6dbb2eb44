//! Starting the program, reading its log, talking to it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use turnkey::stun::{AttributeType as A, Class, IntegrityKey, Message, MessageWriter, Method, TransactionId};

/// Longer than anything here takes on a busy machine; no test waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Listeners on loopback and on any free port.
pub(crate) const LOOPBACK: &str = "
[relay]
listen = [\"udp://127.0.0.1:0\", \"tcp://127.0.0.1:0\"]
workers = 2
[http]
listen = [\"127.0.0.1:0\"]
[admin]
listen = \"127.0.0.1:0\"
";

/// A directory with everything one program run may read or write.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where generated secrets are.
    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state/turnkey")
    }

    /// Writes a file, readable by its owner only.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("written");
        set_mode(&path, 0o600);
        path
    }

    /// The program with these arguments and an environment of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnkey"));
        command.args(arguments).current_dir(self.path());
        command.env_clear().env("XDG_STATE_HOME", self.path().join("state")).env("HOME", self.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments))
    }

    /// Serves with this configuration file.
    pub(crate) fn serve(&self, config: &str) -> Process {
        self.write("turnkey.toml", config);
        Process::start(self.command(&["serve", "--config", "turnkey.toml"]))
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("mode set");
}

pub(crate) fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("a file");
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777
}

/// A command that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(mut command: Command) -> Self {
        let output = command.stdin(Stdio::null()).output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The one line that says why it failed.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        assert_eq!(self.code, Some(1), "stderr: {}", self.stderr);
        let last = self.stderr.lines().last().unwrap_or_default();
        last.strip_prefix("error: ").unwrap_or_else(|| panic!("no error line last: {}", self.stderr))
    }
}

/// A running server; killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    /// Every line of the log that was read.
    pub(crate) log: Vec<String>,
    pub(crate) stdout: String,
}

impl Process {
    /// Starts it and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stderr = child.stderr.take().expect("piped");
        let (line, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|text| line.send(text))
        });
        let mut process = Self { child, lines, log: Vec::new(), stdout: String::new() };
        process.wait_for("ready");
        process
    }

    /// Reads the log until a line contains `text`, and returns that line.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("no line with {text:?} in the log:\n{}", self.log.join("\n"));
            };
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The address of the listener whose log line has this scheme; `admin` for the admin listener.
    #[track_caller]
    pub(crate) fn address(&self, kind: &str) -> SocketAddr {
        let is_it = |line: &&String| {
            let is_admin = line.contains("admin");
            line.contains("listening")
                && if kind == "admin" {
                    is_admin
                } else {
                    line.contains(&format!("url={kind}://")) && !is_admin
                }
        };
        let line =
            self.log.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} listener: {:?}", self.log));
        let address = line.split_once("://").expect("a URL").1.split_whitespace().next().expect("an address");
        address.parse().expect("a socket address")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end; the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let status = self.child.wait().expect("a child").code();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut self.stdout).expect("text");
        }
        self.log.extend(self.lines.iter());
        status
    }

    /// Ends it by SIGTERM; the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until the answer is the wanted one.
#[track_caller]
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> T, is_it: impl Fn(&T) -> bool) -> T {
    let start = std::time::Instant::now();
    loop {
        let answer = ask();
        if is_it(&answer) || start.elapsed() > PATIENCE {
            assert!(is_it(&answer), "still not so");
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks until the answer is this one.
#[track_caller]
pub(crate) fn until<T: PartialEq>(wanted: &T, ask: impl FnMut() -> T) {
    eventually(ask, |answer| answer == wanted);
}

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// `GET path` over plain HTTP, with further header lines.
pub(crate) fn get_with(server: SocketAddr, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(server).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // In one piece: a server may refuse what it reads first and close.
    let request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a header");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let header = |line: &str| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned()));
    Answer {
        status: status.expect("a status"),
        headers: lines.filter_map(header).collect(),
        body: body.to_owned(),
    }
}

/// `GET path` over plain HTTP.
pub(crate) fn get(server: SocketAddr, path: &str) -> Answer {
    get_with(server, path, "")
}

/// Name and password of the relay credentials in a list of ICE servers.
pub(crate) fn credentials(servers: &Value) -> (String, String) {
    let list = servers.as_array().expect("a list");
    let turn = list.iter().find(|server| server["credential"].is_string()).expect("credentials");
    let text = |key: &str| turn[key].as_str().expect("a string").to_owned();
    (text("username"), text("credential"))
}

/// The value of a metric, its labels included in the name.
pub(crate) fn metric(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name}")).parse().expect("a number")
}

/// Resident memory of the program in bytes, without what is mapped from files: code that runs for the first time is no growth.
pub(crate) fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a running process");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// What carries a client's messages.
pub(crate) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

enum Link {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>),
}

/// A STUN/TURN client that knows just enough.
pub(crate) struct Client {
    link: Link,
    counter: u64,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), server)
    }

    /// A client at this address.
    pub(crate) fn at(local: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).expect("a socket");
        socket.connect(server).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { link: Link::Udp(socket), counter: 0 }
    }

    /// A client on a connection.
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self { link: Link::Stream(Box::new(stream)), counter: 0 }
    }

    /// The client's own address, from a Binding response.
    pub(crate) fn binding(&mut self) -> SocketAddr {
        let id = self.transaction();
        let answer =
            self.exchange(|buffer| MessageWriter::new(buffer, Class::Request, Method::BINDING, id).finish());
        let message = Message::parse(&answer).expect("STUN");
        let mapped = message.attribute(A::XOR_MAPPED_ADDRESS).expect("an address");
        mapped.as_xor_address(message.transaction()).expect("an address")
    }

    /// Allocates; the relayed address or the error code.
    pub(crate) fn allocate(&mut self, username: &str, password: &str) -> Result<SocketAddr, u16> {
        self.authenticated(Method::ALLOCATE, username, password, |message| {
            message.u32(A::REQUESTED_TRANSPORT, 17 << 24);
        })
        .map(|answer| {
            let message = Message::parse(&answer).expect("STUN");
            let relayed = message.attribute(A::XOR_RELAYED_ADDRESS).expect("an address");
            relayed.as_xor_address(message.transaction()).expect("an address")
        })
    }

    /// Refreshes the allocation; a lifetime of 0 ends it.
    pub(crate) fn refresh(&mut self, lifetime: u32, username: &str, password: &str) -> Result<(), u16> {
        self.authenticated(Method::REFRESH, username, password, |message| {
            message.u32(A::LIFETIME, lifetime);
        })
        .map(drop)
    }

    /// Whether a datagram comes within the time: what a peer has sent through the relay.
    pub(crate) fn receives(&self, within: Duration) -> bool {
        let Link::Udp(socket) = &self.link else { return false };
        socket.set_read_timeout(Some(within)).expect("a timeout");
        socket.recv(&mut [0; 1500]).is_ok()
    }

    /// Asks for a permission.
    pub(crate) fn permit(&mut self, peer: SocketAddr, username: &str, password: &str) -> Result<(), u16> {
        let method = Method::CREATE_PERMISSION;
        self.authenticated(method, username, password, |message| {
            message.xor_address(A::XOR_PEER_ADDRESS, peer);
        })
        .map(drop)
    }

    /// Sends a request, answers the challenge, and returns the success or the error code.
    fn authenticated(
        &mut self,
        method: Method,
        username: &str,
        password: &str,
        body: impl Fn(&mut MessageWriter<'_>),
    ) -> Result<Vec<u8>, u16> {
        let id = self.transaction();
        let challenge = self.exchange(|buffer| {
            let mut message = MessageWriter::new(buffer, Class::Request, method, id);
            body(&mut message);
            message.finish()
        });
        let challenge = Message::parse(&challenge).expect("STUN");
        let text = |kind| challenge.attribute(kind).and_then(|a| a.as_str()).map(str::to_owned);
        let (Some(realm), Some(nonce)) = (text(A::REALM), text(A::NONCE)) else {
            return Err(error_code(&challenge).expect("a challenge or an error"));
        };
        let id = self.transaction();
        let answer = self.exchange(|buffer| {
            let mut message = MessageWriter::new(buffer, Class::Request, method, id);
            body(&mut message);
            message.attribute(A::USERNAME, username.as_bytes());
            message.attribute(A::REALM, realm.as_bytes());
            message.attribute(A::NONCE, nonce.as_bytes());
            message.integrity(&IntegrityKey::long_term(username, &realm, password));
            message.finish()
        });
        match error_code(&Message::parse(&answer).expect("STUN")) {
            Some(code) => Err(code),
            None => Ok(answer),
        }
    }

    fn exchange<E: std::fmt::Debug>(&mut self, write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Vec<u8> {
        let mut buffer = [0; 1500];
        let len = write(&mut buffer).expect("it fits");
        match &mut self.link {
            Link::Udp(socket) => ask(socket, &buffer[..len]),
            Link::Stream(stream) => {
                stream.write_all(&buffer[..len]).expect("sent");
                stream.flush().expect("sent");
                stream.read_exact(&mut buffer[..20]).expect("an answer");
                let len = 20 + usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
                stream.read_exact(&mut buffer[20..len]).expect("a whole answer");
                buffer[..len].to_vec()
            }
        }
    }

    fn transaction(&mut self) -> TransactionId {
        self.counter += 1;
        let mut id = [7; 12];
        id[4..].copy_from_slice(&self.counter.to_be_bytes());
        TransactionId(id)
    }
}

/// Asks again until there is an answer: in a flood datagrams get lost (RFC 8489 §6.2.1). It waits longer than an
/// answer takes on a busy machine, because each question counts.
fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    let mut answer = [0; 1500];
    const PAUSE: Duration = Duration::from_secs(5);
    socket.set_read_timeout(Some(PAUSE)).expect("a timeout");
    for _ in 0..PATIENCE.as_secs() / PAUSE.as_secs() {
        socket.send(question).expect("sent");
        while let Ok(len) = socket.recv(&mut answer) {
            // What answers an earlier question has come late.
            if answer[..len].get(4..20) == question.get(4..20) {
                return answer[..len].to_vec();
            }
        }
    }
    panic!("no answer");
}

fn error_code(message: &Message<'_>) -> Option<u16> {
    message.attribute(A::ERROR_CODE).and_then(|a| a.as_error()).map(|(code, _)| code)
}
