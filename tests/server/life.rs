//! From start to stop: whatever was open is closed.

use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::harness::{Client, Home, LOOPBACK, PATIENCE, credentials};

/// A native signaling client.
struct Socket(WebSocket<TcpStream>);

impl Socket {
    fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (socket, _) = client(format!("ws://{server}/v1/ws"), stream).expect("a WebSocket");
        Self(socket)
    }

    fn send(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).expect("sent");
    }

    /// The next frame of this kind.
    fn read(&mut self, kind: &str) -> Value {
        loop {
            if let Message::Text(text) = self.0.read().expect("a frame") {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                if frame["t"] == kind {
                    return frame;
                }
            }
        }
    }

    /// Enters a room; the credentials of the welcome.
    fn join(&mut self, room: &str) -> (String, String) {
        self.send(&json!({ "t": "hello", "d": {} }));
        let welcome = self.read("welcome");
        self.send(&json!({ "t": "join", "id": "1", "d": { "room": room } }));
        assert_eq!(self.read("joined")["d"]["room"], room);
        credentials(&welcome["d"]["ice_servers"])
    }

    /// Reads on until the server closes; the code.
    fn close_code(&mut self) -> Option<CloseCode> {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => {
                    // The answer to it, without which the server would wait a little.
                    self.0.flush().expect("sent");
                    return frame.map(|frame| frame.code);
                }
                Ok(_) => {}
                Err(e) => panic!("no close frame: {e}"),
            }
        }
    }
}

/// Two people in a room, one of them with a relay; then SIGTERM.
fn one_life() {
    let home = Home::new();
    let mut process = home.serve(LOOPBACK);
    let (udp, tcp) = (process.address("udp"), process.address("tcp"));
    let http = process.address("http");
    let (mut one, mut two) = (Socket::connect(http), Socket::connect(http));
    let (username, password) = one.join("room");
    two.join("room");
    Client::new(udp).allocate(&username, &password).expect("allocated");
    one.send(&json!({ "t": "offer", "id": "2", "d": { "type": "offer", "sdp": "v=0" } }));
    assert_eq!(two.read("offer")["d"]["sdp"], "v=0");
    let idle = TcpStream::connect(tcp).expect("a listener");
    process.signal(Signal::TERM);
    for socket in [&mut one, &mut two] {
        assert_eq!(socket.close_code(), Some(CloseCode::from(4450)));
    }
    assert_eq!(process.wait(), Some(0), "{:?}", process.log);
    assert!(process.log.last().is_some_and(|line| line.contains("stopped")), "{:?}", process.log);
    drop(idle);
}

#[test]
fn a_hundred_lives_leave_nothing_behind() {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| (0..25).for_each(|_| one_life()))).collect();
    for thread in threads {
        thread.join().expect("every life ends well");
    }
}

#[test]
fn a_drain_lets_running_calls_end() {
    let home = Home::new();
    let config = LOOPBACK.replace("workers = 2", "workers = 2\ndrain_timeout = \"1h\"")
        + "[credentials]\nusers = { bob = \"builder\" }\n";
    let mut process = home.serve(&config);
    let mut client = Client::new(process.address("udp"));
    client.allocate("bob", "builder").expect("allocated");
    process.signal(Signal::TERM);
    process.wait_for("stopping");
    crate::harness::until(&true, || {
        let mut late = Client::new(process.address("udp"));
        let is_refused = late.allocate("bob", "builder").is_err();
        if !is_refused {
            // It came before the drain, which would wait for it too.
            late.refresh(0, "bob", "builder").expect("deleted");
        }
        is_refused
    });
    client.refresh(0, "bob", "builder").expect("the running call goes on, and ends");
    assert_eq!(process.wait(), Some(0));
}
