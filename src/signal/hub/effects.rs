//! What goes into the hub with a socket, and what comes out of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::signal::dialect::Dialect;
use crate::signal::identity::{ClientKey, Identity};
use crate::signal::line::Line;
use crate::signal::{ConnId, SessionId};

/// Close codes. Browsers can read them, unlike the body of a refused upgrade.
pub mod close {
    /// Bad frames, after the strikes.
    pub const BAD_FRAME: u16 = 4400;
    /// No valid token, or the token has ended.
    pub const UNAUTHENTICATED: u16 = 4401;
    /// The token or the room does not allow it.
    pub const FORBIDDEN: u16 = 4403;
    /// There is no such call.
    pub const NOT_FOUND: u16 = 4404;
    /// No frame came in time.
    pub const HELLO_TIMEOUT: u16 = 4408;
    /// The room, or the server, is full.
    pub const FULL: u16 = 4409;
    /// A frame over the limit.
    pub const TOO_LARGE: u16 = 4413;
    /// Too many frames or connections.
    pub const RATE: u16 = 4429;
    /// Another socket of the same session took over.
    pub const REPLACED: u16 = 4440;
    /// A moderator has sent this client out of the room.
    pub const KICKED: u16 = 4441;
    /// The server stops; come back later.
    pub const DRAINING: u16 = 4450;
    /// The session was ended with `bye`.
    pub const NORMAL: u16 = 1000;
    /// The socket did not take what was sent, or stopped answering pings.
    pub const GONE: u16 = 1011;
}

/// A new socket.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The language it speaks.
    pub dialect: Dialect,
    /// The client's address.
    pub ip: IpAddr,
    /// Who it is, as far as the upgrade showed; a native client may show it in `hello`.
    pub identity: Option<Identity>,
    /// What tells whether another raw socket is the same client.
    pub key: ClientKey,
    /// The room in the path, where the dialect has it there.
    pub room: Option<String>,
    /// Whether a raw client asked for presence events.
    pub wants_events: bool,
}

/// ICE servers for one session.
#[derive(Clone, Debug)]
pub struct Ice {
    /// A JSON array of `RTCIceServer`.
    pub servers: Box<RawValue>,
    /// Life of the credentials.
    pub ttl: Duration,
    /// Unix seconds.
    pub expires_at: u64,
}

/// What ICE servers were asked for; handed back with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedIce {
    /// The welcome of a new session, or of one that is resumed after this sequence number.
    Welcome(Option<u64>),
    /// An `ice` frame with this id.
    Reply(Option<Box<str>>),
    /// Half of their life is over.
    Push,
}

/// What the relay credentials of a session are called.
#[must_use]
pub fn lease_name(session: SessionId, lease: u32) -> String {
    match lease {
        0 => session.to_string(),
        _ => format!("{session}-{lease}"),
    }
}

/// What the caller does next.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a text frame.
    Send {
        /// The socket.
        conn: ConnId,
        /// The frame.
        text: Arc<str>,
    },
    /// Send a WebSocket ping; its pong comes back with the same number.
    Ping {
        /// The socket.
        conn: ConnId,
        /// What the pong confirms.
        seq: u64,
    },
    /// Close; the hub has forgotten the socket already.
    Close {
        /// The socket.
        conn: ConnId,
        /// The close code.
        code: u16,
        /// At most 123 bytes, for people.
        reason: String,
    },
    /// Check a token and answer with [`super::Hub::handle_identity`].
    Authenticate {
        /// The socket.
        conn: ConnId,
        /// A JWT.
        token: String,
    },
    /// Make ICE servers and answer with [`super::Hub::handle_ice`] before any other input.
    NeedIce {
        /// The session.
        session: SessionId,
        /// Which of its credentials, in their order; those before were taken back.
        lease: u32,
        /// Whose relay credentials they are.
        user: Arc<str>,
        /// Whether relay credentials are due at all.
        may_relay: bool,
        /// To hand back.
        asked: AskedIce,
    },
    /// Take relay credentials back, and end the allocations that were made with them.
    Revoke {
        /// Whose they are.
        user: Arc<str>,
        /// What they were made for: [`lease_name`], or the id of a call.
        scope: Box<str>,
        /// Unix seconds at which they would have ended.
        until: u64,
    },
    /// Write it into the log, or do not.
    Log(Line),
}
