//! A hub in simulated time, with sockets that are lists of what was sent to them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use turnkey::signal::{
    ClientKey, ConnId, Connect, Dialect, Grants, Hub, Ice, Identity, Limits, Now, Output, Rooms, lease_name,
};

/// One socket as the test sees it.
#[derive(Default)]
pub(crate) struct Socket {
    pub(crate) received: Vec<String>,
    pub(crate) closed: Option<(u16, String)>,
    /// Whether pings are answered.
    pub(crate) is_silent: bool,
}

pub(crate) struct Sim {
    pub(crate) hub: Hub,
    pub(crate) now: Now,
    pub(crate) sockets: BTreeMap<ConnId, Socket>,
    pub(crate) ice_ttl: Duration,
    pub(crate) credentials: Vec<(String, bool)>,
    /// Credentials that were taken back.
    pub(crate) revoked: Vec<String>,
    /// What was said for the log.
    pub(crate) lines: Vec<String>,
    next: u64,
}

pub(crate) fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// A browser at an address.
pub(crate) fn browser(traits: u64) -> ClientKey {
    ClientKey { traits, is_browser: true, ..ClientKey::default() }
}

/// A client that is no browser.
pub(crate) fn bare(traits: u64) -> ClientKey {
    ClientKey { traits, ..ClientKey::default() }
}

pub(crate) fn token(user: &str, rooms: Option<&[&str]>) -> Identity {
    let rooms = match rooms {
        None => Rooms::Any,
        Some(names) => Rooms::Named(names.iter().map(|n| (*n).to_owned()).collect()),
    };
    Identity { rooms, grants: Grants::ALL, ..Identity::member(user) }
}

/// The connect of a raw guest.
pub(crate) fn raw_connect(room: &str, key: ClientKey) -> Connect {
    Connect {
        dialect: Dialect::Broadcast,
        ip: ip(1),
        identity: Some(Identity::guest("guest", true)),
        key,
        room: Some(room.into()),
        wants_events: false,
    }
}

impl Sim {
    pub(crate) fn new() -> Self {
        Self::with(Limits { connects_per_minute: 1000, ..Limits::default() })
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::with_rooms(limits, false)
    }

    pub(crate) fn with_rooms(limits: Limits, protects_rooms: bool) -> Self {
        Self {
            hub: Hub::new(limits, protects_rooms, [7; 32]),
            now: Now { mono: Duration::from_secs(1000), unix: 1_800_000_000 },
            sockets: BTreeMap::new(),
            ice_ttl: Duration::from_secs(3600),
            credentials: Vec::new(),
            revoked: Vec::new(),
            lines: Vec::new(),
            next: 1,
        }
    }

    pub(crate) fn connect(&mut self, connect: Connect) -> ConnId {
        let id = ConnId(self.next);
        self.next += 1;
        self.sockets.insert(id, Socket::default());
        self.hub.handle_connect(self.now, id, connect);
        self.drain();
        id
    }

    /// A raw socket of a client.
    pub(crate) fn raw(&mut self, room: &str, key: ClientKey) -> ConnId {
        self.raw_as(room, key, Identity::guest("guest", true))
    }

    pub(crate) fn raw_as(&mut self, room: &str, key: ClientKey, identity: Identity) -> ConnId {
        let key = ClientKey { user: (!identity.is_guest).then(|| identity.user.clone()), ..key };
        self.connect(Connect { identity: Some(identity), ..raw_connect(room, key) })
    }

    /// A native socket that has not said hello.
    pub(crate) fn native_socket(&mut self, identity: Option<Identity>) -> ConnId {
        self.connect(Connect {
            dialect: Dialect::Native,
            ip: ip(2),
            identity,
            key: ClientKey::default(),
            room: None,
            wants_events: false,
        })
    }

    /// A native session of a user; its welcome is taken off.
    pub(crate) fn native(&mut self, user: &str) -> (ConnId, Value) {
        let conn = self.native_socket(Some(token(user, None)));
        self.frame(conn, r#"{"t":"hello"}"#);
        let welcome = self.take_one(conn);
        assert_eq!(welcome["t"], "welcome", "{welcome}");
        (conn, welcome["d"].clone())
    }

    /// A native member; returns its socket and its member id.
    pub(crate) fn member(&mut self, user: &str, room: &str) -> (ConnId, String) {
        let (conn, _) = self.native(user);
        let joined = self.join(conn, room);
        (conn, joined["member"].as_str().expect("member id").to_owned())
    }

    pub(crate) fn join(&mut self, conn: ConnId, room: &str) -> Value {
        self.frame(conn, &format!(r#"{{"t":"join","id":"j","d":{{"room":"{room}"}}}}"#));
        let socket = self.sockets.get_mut(&conn).expect("socket");
        let at = socket.received.iter().position(|t| t.contains(r#""t":"joined""#)).expect("joined");
        let joined: Value = serde_json::from_str(&socket.received.remove(at)).expect("json");
        joined["d"].clone()
    }

    pub(crate) fn frame(&mut self, conn: ConnId, text: &str) {
        self.hub.handle_frame(self.now, conn, text);
        self.drain();
    }

    /// The socket is lost.
    pub(crate) fn lose(&mut self, conn: ConnId) {
        self.hub.handle_disconnect(self.now, conn);
        self.drain();
    }

    /// Lets time pass, firing every timer at its time.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.hub.poll_timeout().filter(|at| *at <= end) {
            self.at(at.max(self.now.mono));
            self.hub.handle_timeout(self.now);
            self.drain();
        }
        self.at(end);
    }

    fn at(&mut self, mono: Duration) {
        let before = self.now.mono.as_secs();
        self.now.unix += mono.as_secs() - before;
        self.now.mono = mono;
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Send { conn, text } => {
                    let socket = self.sockets.get_mut(&conn).expect("socket");
                    assert!(socket.closed.is_none(), "sent after close: {text}");
                    socket.received.push(text.to_string());
                }
                Output::Ping { conn, seq } => {
                    let socket = self.sockets.get(&conn).expect("socket");
                    if !socket.is_silent {
                        self.hub.handle_pong(self.now, conn, seq);
                    }
                }
                Output::Close { conn, code, reason } => {
                    assert!(reason.len() <= 123, "no room for {reason}");
                    self.sockets.get_mut(&conn).expect("socket").closed = Some((code, reason));
                }
                Output::Authenticate { conn, token: text } => {
                    let result = match text.strip_prefix("good:") {
                        Some(user) => Ok(token(user, None)),
                        None => Err("the token is not valid here".to_owned()),
                    };
                    self.hub.handle_identity(self.now, conn, result);
                }
                Output::NeedIce { session, lease, user, may_relay, asked } => {
                    let session_name = lease_name(session, lease);
                    self.credentials.push((format!("{user}.{session_name}"), may_relay));
                    let servers = serde_json::value::to_raw_value(&serde_json::json!([
                        { "urls": ["turn:h:3478"], "username": format!("{user}.{session_name}"), "credential": "c" }
                    ]));
                    let ice = Ice {
                        servers: servers.expect("json"),
                        ttl: self.ice_ttl,
                        expires_at: self.now.unix + self.ice_ttl.as_secs(),
                    };
                    self.hub.handle_ice(self.now, session, asked, &ice);
                }
                Output::Log(line) => self.lines.push(line.to_string()),
                Output::Revoke { user, scope, .. } => self.revoked.push(format!("{user}.{scope}")),
            }
        }
    }

    /// What a socket got since the last time, as text.
    pub(crate) fn take(&mut self, conn: ConnId) -> Vec<String> {
        std::mem::take(&mut self.sockets.get_mut(&conn).expect("socket").received)
    }

    /// What a socket got since the last time, as JSON.
    pub(crate) fn take_json(&mut self, conn: ConnId) -> Vec<Value> {
        self.take(conn).iter().map(|t| serde_json::from_str(t).expect("json")).collect()
    }

    pub(crate) fn take_one(&mut self, conn: ConnId) -> Value {
        let mut all = self.take_json(conn);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    pub(crate) fn closed(&self, conn: ConnId) -> Option<u16> {
        self.sockets[&conn].closed.as_ref().map(|(code, _)| *code)
    }

    pub(crate) fn silence(&mut self, conn: ConnId) {
        self.sockets.get_mut(&conn).expect("socket").is_silent = true;
    }
}

/// The kinds of native frames, in order.
pub(crate) fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|f| f["t"].as_str().expect("t")).collect()
}
