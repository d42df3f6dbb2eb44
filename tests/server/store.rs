//! The database of a server: what a `kill -9` in mid-call leaves, what `psql` reads after a call, what an outage
//! means.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};
use turnkey::http::token::{Claims, mint};

use crate::harness::{Home, LOOPBACK, PATIENCE, Process, eventually, get, mode, until};

const SDP: &str = "v=0\r\na=ice-ufrag:abcd\r\n";

/// A signaling socket of any dialect.
pub(crate) struct Socket(WebSocket<TcpStream>);

impl Socket {
    pub(crate) fn open(server: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(server).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(client(format!("ws://{server}{path}"), stream).expect("a WebSocket").0)
    }

    pub(crate) fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).expect("sent");
    }

    /// The next message. A process that was stopped for a while finds its reading interrupted.
    fn read(&mut self) -> Result<Message, Error> {
        loop {
            match self.0.read() {
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// The next text that contains this one.
    #[track_caller]
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        loop {
            match self.read().expect("a frame") {
                Message::Text(text) if text.contains(wanted) => return text.to_string(),
                Message::Text(text) if text == "2" => self.send("3"),
                _ => {}
            }
        }
    }

    /// The next native frame of this kind.
    #[track_caller]
    pub(crate) fn frame(&mut self, kind: &str) -> Value {
        serde_json::from_str(&self.until(&format!(r#""t":"{kind}""#))).expect("JSON")
    }

    /// A native session; its welcome.
    pub(crate) fn native(server: SocketAddr, hello: &Value) -> (Self, Value) {
        let mut socket = Self::open(server, "/v1/ws");
        socket.send(json!({ "t": "hello", "d": hello }).to_string());
        let welcome = socket.frame("welcome")["d"].clone();
        (socket, welcome)
    }

    /// A Socket.IO session over WebSocket; the answer to its CONNECT.
    pub(crate) fn socketio(server: SocketAddr, auth: &Value) -> (Self, Value) {
        let mut socket = Self::open(server, "/socket.io/?EIO=4&transport=websocket");
        socket.until("pingInterval");
        socket.send(format!("40{auth}"));
        let connected = socket.until(r#""pid""#);
        (socket, serde_json::from_str(connected.strip_prefix("40").expect("CONNECT")).expect("JSON"))
    }

    /// The payload of the next Socket.IO event of this name.
    #[track_caller]
    pub(crate) fn event(&mut self, name: &str) -> Value {
        let text = self.until(&format!(r#"["{name}","#));
        let array = text.find('[').map_or("", |at| &text[at..]);
        serde_json::from_str::<Value>(array).expect("JSON")[1].take()
    }

    /// Reads to the end; the code the server closes with.
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        let mut code = None;
        loop {
            match self.read() {
                Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return code,
            }
        }
    }

    pub(crate) fn join(&mut self, room: &str) {
        self.send(json!({ "t": "join", "id": "j", "d": { "room": room } }).to_string());
        self.frame("joined");
    }
}

pub(crate) fn kill(process: &mut Process) {
    process.signal(Signal::KILL);
    process.wait();
}

#[test]
fn kill_9_in_mid_call_loses_nothing_that_was_acknowledged() {
    let home = Home::new();
    let mut process = home.serve(LOOPBACK);
    let server = process.address("http");

    // Native: Ann sends an offer to Bob, who has just lost his socket.
    let (mut ann, _) = Socket::native(server, &json!({}));
    ann.join("native");
    let (mut bob, bob_welcome) = Socket::native(server, &json!({}));
    bob.join("native");
    drop(bob);
    ann.frame("member-away");
    ann.send(json!({ "t": "offer", "id": "o", "d": { "type": "offer", "sdp": SDP } }).to_string());
    ann.frame("ok");
    // Raw: an offer that waits for somebody; the chat that follows shows that it was taken in.
    let mut raw = Socket::open(server, "/ws/signaling/raw?client=a");
    raw.send(json!({ "type": "offer", "offer": { "type": "offer", "sdp": SDP } }).to_string());
    let mut witness = Socket::open(server, "/ws/signaling/raw?client=witness");
    witness.until("offer");
    // Socket.IO: an offer to a member who has just lost its socket, and its acknowledgement.
    let (mut cat, _) = Socket::socketio(server, &json!({}));
    let (mut dan, dan_connect) = Socket::socketio(server, &json!({}));
    for socket in [&mut cat, &mut dan] {
        socket.send(r#"421["webrtc:join_room",{"roomId":"sio"}]"#);
        socket.until("431[");
    }
    drop(dan);
    let offer = json!(["webrtc:offer", { "roomId": "sio", "offer": { "type": "offer", "sdp": SDP } }]);
    cat.send(format!("422{offer}"));
    cat.until("432[");
    kill(&mut process);

    let mut process = home.serve(LOOPBACK);
    assert!(process.log.iter().any(|line| line.contains("signaling goes on where it was")));
    let server = process.address("http");
    let hello = json!({ "resume": bob_welcome["resume"], "last_seq": 0 });
    let (mut bob, welcome) = Socket::native(server, &hello);
    assert_eq!(welcome["resumed"], true, "{welcome}");
    assert_eq!(bob.frame("offer")["d"]["sdp"], SDP);
    let mut eve = Socket::open(server, "/ws/signaling/raw?client=b");
    assert!(eve.until("offer").contains("ice-ufrag:abcd"), "who comes gets the offer");
    let auth = json!({ "pid": dan_connect["pid"], "offset": "1" });
    let (mut dan, connected) = Socket::socketio(server, &auth);
    assert_eq!(connected["pid"], dan_connect["pid"], "recovered");
    dan.until("webrtc:offer");
    assert_eq!(process.terminate(), Some(0));
    for file in ["turnkey.db", "node"] {
        assert_eq!(mode(&home.state().join(file)), 0o600, "{file}");
    }
}

#[test]
fn without_a_database_a_restart_forgets_and_no_file_is_made() {
    let home = Home::new();
    let config = format!("{LOOPBACK}[store]\nurl = \"none\"\n");
    let mut process = home.serve(&config);
    let (mut ann, welcome) = Socket::native(process.address("http"), &json!({}));
    ann.join("r");
    kill(&mut process);
    let process = home.serve(&config);
    let hello = json!({ "resume": welcome["resume"], "last_seq": 0 });
    assert_eq!(Socket::native(process.address("http"), &hello).1["resumed"], false);
    assert!(!home.state().join("turnkey.db").exists());
}

#[test]
fn a_second_server_of_the_same_state_directory_says_that_it_keeps_nothing() {
    let home = Home::new();
    let _first = home.serve(LOOPBACK);
    let second = home.serve(LOOPBACK);
    assert!(
        second.log.iter().any(|line| line.contains("another server uses the database")),
        "{:?}",
        second.log
    );
}

/// A PostgreSQL cluster of the test's own, reached by a socket file; stopped when dropped.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    binaries: PathBuf,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
        let newest = versions.filter_map(Result::ok).map(|entry| entry.path()).max().expect("a version");
        let cluster =
            Self { directory: tempfile::tempdir().expect("a directory"), binaries: newest.join("bin") };
        if is_root() {
            // It refuses to run as root.
            let own = Command::new("chown").arg("postgres").arg(cluster.directory.path()).status();
            assert!(own.expect("chown").success());
        }
        cluster.run("initdb", &["-A", "trust", "-U", "postgres", "-D", &cluster.data()]);
        cluster.start();
        cluster
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.binaries.join(program);
        let mut command = if is_root() { Command::new("runuser") } else { Command::new(&program) };
        if is_root() {
            command.args(["-u", "postgres", "--"]).arg(&program);
        }
        command.args(arguments).current_dir(self.directory.path());
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).status();
        assert!(output.expect("it starts").success(), "{} failed", program.display());
    }

    pub(crate) fn start(&self) {
        let options = format!("-k {} -c listen_addresses= -c fsync=off", self.directory.path().display());
        let log = self.directory.path().join("log").display().to_string();
        self.run("pg_ctl", &["-D", &self.data(), "-l", &log, "-w", "-o", &options, "start"]);
    }

    pub(crate) fn stop(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]);
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.directory.path().display())
    }

    /// Rows of a query, as `psql` prints them.
    pub(crate) fn psql(&self, query: &str) -> Vec<String> {
        let mut command = Command::new(self.binaries.join("psql"));
        command.args([
            "-h",
            &self.directory.path().display().to_string(),
            "-U",
            "postgres",
            "-At",
            "-c",
            query,
        ]);
        let output = command.stdin(Stdio::null()).output().expect("psql starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // As far as it runs at all.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stop()));
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn s4_24_after_a_call_psql_reads_duration_attendees_and_metrics() {
    let cluster = Cluster::new();
    let home = Home::new();
    let store = format!("[store]\nurl = \"{}\"\n", cluster.url());
    let secret = "[signaling]\naccess = \"token\"\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n";
    let config = format!("{LOOPBACK}{secret}{store}");
    let mut process = home.serve(&config);
    let server = process.address("http");
    let key = "0123456789abcdef0123456789abcdef";
    let (ann, bob) = (token(key, "ann"), token(key, "bob"));
    let call = post(server, "/calls/initiate", &ann, &json!({ "callee_id": "bob" }).to_string());
    let id = call["call_id"].as_str().expect("an id").to_owned();
    let path = format!("/ws/webrtc/{id}");
    let mut a = Socket::open(server, &format!("{path}?token={ann}"));
    post(server, &format!("/calls/accept/{id}"), &bob, "");
    let mut b = Socket::open(server, &format!("{path}?token={bob}"));
    a.send(json!({ "type": "offer", "offer": { "type": "offer", "sdp": SDP } }).to_string());
    b.until("offer");
    // A restart in between: the call, its room and its books go on.
    kill(&mut process);
    let process = home.serve(&config);
    let server = process.address("http");
    let mut a = Socket::open(server, &format!("{path}?token={ann}"));
    let mut b = Socket::open(server, &format!("{path}?token={bob}"));
    b.send(json!({ "type": "answer", "answer": { "type": "answer", "sdp": SDP } }).to_string());
    a.until("answer");
    post(server, &format!("/calls/end/{id}"), &bob, "");

    until(&vec!["ended|ann|bob".to_owned()], || {
        cluster.psql("SELECT status, caller_id, callee_id FROM calls")
    });
    let sessions = format!(
        "SELECT count(*) FROM sessions WHERE room_id = '{id}' AND session_duration_minutes >= 0 \
         AND session_duration_minutes < 10"
    );
    assert_eq!(cluster.psql(&sessions), ["1"]);
    let attendees =
        cluster.psql("SELECT user_id, reason, left_at >= joined_at FROM attendees ORDER BY user_id");
    assert_eq!(attendees, ["ann|left|t", "bob|left|t"]);
    let metrics = "SELECT m.attendees, m.session_duration_minutes = s.session_duration_minutes \
                   FROM metrics m JOIN sessions s USING (session_id)";
    assert_eq!(cluster.psql(metrics), ["2|t"]);
}

/// A token of a user.
pub(crate) fn token(key: &str, user: &str) -> String {
    let claims = Claims { sub: user.into(), ..Claims::default() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    mint(key.as_bytes(), claims, now.as_secs(), Duration::from_secs(600)).expect("a token")
}

/// `POST` with a token; the JSON of the answer, which is a success.
pub(crate) fn post(server: SocketAddr, path: &str, token: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(server).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("text"));
    let status = lines.next().expect("a status");
    assert!(status.contains(" 20"), "{path}: {status}");
    let body: String = lines.skip_while(|line| !line.is_empty()).collect();
    serde_json::from_str(&body).unwrap_or(Value::Null)
}

#[test]
fn an_outage_of_the_database_is_said_and_holds_up_nobody() {
    let cluster = Cluster::new();
    let home = Home::new();
    let config = format!("{LOOPBACK}[store]\nurl = \"{}\"\n", cluster.url());
    let mut process = home.serve(&config);
    let (server, admin) = (process.address("http"), process.address("admin"));
    let (mut ann, _) = Socket::native(server, &json!({}));
    ann.join("r");
    assert_eq!(get(admin, "/readyz").status, 200);
    cluster.stop();
    // Signaling goes on, with one pause at most until the outage is noticed.
    let (mut bob, welcome) = Socket::native(server, &json!({}));
    bob.join("r");
    bob.send(json!({ "t": "offer", "id": "o", "d": { "type": "offer", "sdp": SDP } }).to_string());
    ann.frame("offer");
    process.wait_for("the database does not answer");
    let ready = eventually(|| get(admin, "/readyz"), |answer| answer.status == 503);
    assert!(ready.body.contains("database"), "{}", ready.body);
    assert_eq!(get(admin, "/livez").status, 200);
    cluster.start();
    process.wait_for("the database answers again");
    until(&200, || get(admin, "/readyz").status);
    // So do the books have what was under way when it went: Bob has come.
    until(&vec!["2".to_owned()], || cluster.psql("SELECT count(*) FROM attendees"));
    // What happened meanwhile is written then: after a crash the session of that time is there.
    let session = format!(
        "SELECT count(*) FROM journal WHERE kind = 'session' AND owner = '{}'",
        text(&welcome["session"])
    );
    eventually(
        || {
            bob.send(r#"{"t":"ping"}"#);
            std::thread::sleep(Duration::from_millis(50));
            cluster.psql(&session)
        },
        |rows| rows.as_slice() == ["1"],
    );
    kill(&mut process);
    let process = home.serve(&config);
    let hello = json!({ "resume": welcome["resume"], "last_seq": 0 });
    assert_eq!(Socket::native(process.address("http"), &hello).1["resumed"], true);
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

#[test]
fn a_second_server_of_the_same_node_in_postgresql_says_that_it_keeps_nothing() {
    let cluster = Cluster::new();
    let home = Home::new();
    let config = format!("{LOOPBACK}[store]\nurl = \"{}\"\n", cluster.url());
    let in_use = |log: &[String]| log.iter().any(|line| line.contains("another server uses the database"));
    let mut first = home.serve(&config);
    assert!(!in_use(&first.log), "{:?}", first.log);
    let second = home.serve(&config);
    assert!(in_use(&second.log), "{:?}", second.log);
    kill(&mut first);
    let third = home.serve(&config);
    assert!(!in_use(&third.log), "{:?}", third.log);
}

#[test]
fn what_has_been_over_for_long_enough_is_forgotten() {
    let cluster = Cluster::new();
    let home = Home::new();
    let config = |keep: &str| format!("{LOOPBACK}[store]\nurl = \"{}\"\nkeep = \"{keep}\"\n", cluster.url());
    let mut process = home.serve(&config("0s"));
    let (mut ann, _) = Socket::native(process.address("http"), &json!({}));
    ann.join("r");
    kill(&mut process);
    let all = "SELECT (SELECT count(*) FROM calls), (SELECT count(*) FROM sessions), \
               (SELECT count(*) FROM attendees), (SELECT count(*) FROM metrics)";
    assert_eq!(cluster.psql(all), ["0|1|1|0"]);
    // As many as go in several times, and one of each that is over since today.
    for sql in [
        "INSERT INTO calls SELECT n, node, 'a', 'b', 'ended', 1, 1, CASE n WHEN 0 THEN 4102444800 ELSE 2 END, 1, 'new' \
         FROM sessions, generate_series(0, 100) n",
        "INSERT INTO sessions SELECT n, node, 'r', 1, CASE n WHEN 0 THEN 4102444800 ELSE 2 END, 1 \
         FROM sessions, generate_series(0, 100) n",
        "INSERT INTO attendees SELECT n, n, 'a', NULL, 'p', 1, 2, 'left', 1 FROM generate_series(0, 100) n",
        "INSERT INTO metrics SELECT n, 1, 1, 1 FROM generate_series(0, 100) n",
    ] {
        cluster.psql(sql);
    }
    let mut process = home.serve(&config("0s"));
    kill(&mut process);
    assert_eq!(cluster.psql(all), ["101|102|102|101"]);
    let _process = home.serve(&config("1d"));
    until(&vec!["1|2|2|1".to_owned()], || cluster.psql(all));
}

#[test]
fn a_database_that_cannot_be_reached_stops_the_start_without_its_password() {
    let home = Home::new();
    home.write("turnkey.toml", &format!("{LOOPBACK}[store]\nurl = \"postgres://u:s3cret@127.0.0.1:1/d\"\n"));
    let ended = home.run(&["serve", "--config", "turnkey.toml"]);
    let error = ended.error();
    assert!(error.contains("store.url: the database cannot be used: "), "{error}");
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
    let shown = home.run(&["config", "print", "--config", "turnkey.toml"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(!shown.stdout.contains("s3cret"), "{}", shown.stdout);
}
