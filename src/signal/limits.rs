//! Every bound of the signaling server in one place. A bound that is reached answers with a code;
//! none of them ends somebody else's call.

use std::time::Duration;

/// Sizes, rates and lifetimes of signaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one WebSocket message.
    pub frame: usize,
    /// Bytes of one session description.
    pub sdp: usize,
    /// Bytes of one candidate.
    pub candidate: usize,
    /// Bytes of one chat message.
    pub chat: usize,
    /// Nesting of one JSON message.
    pub depth: usize,
    /// Frames a second of one connection, on average.
    pub frame_rate: u32,
    /// Frames of one connection in a burst.
    pub frame_burst: u32,
    /// Bytes a second of one connection, on average.
    pub byte_rate: u32,
    /// Bytes of one connection in a burst; at least one frame.
    pub byte_burst: u32,
    /// Members of one room, those that are away included.
    pub members: usize,
    /// PeerJS clients without a key, which is a room of their own.
    pub peers: usize,
    /// Rooms of the server.
    pub rooms: usize,
    /// Sessions of the server, those without a socket included.
    pub sessions: usize,
    /// Sockets of one client address (IPv4) or /64 (IPv6).
    pub sockets_per_ip: usize,
    /// New sockets a minute of one client address or /64.
    pub connects_per_minute: u32,
    /// Joins a minute of one connection.
    pub joins_per_minute: u32,
    /// Failed resumes a minute of one client address or /64.
    pub resumes_per_minute: u32,
    /// Bad frames of one connection before it is closed.
    pub strikes: u32,
    /// Bytes of a room or display name.
    pub name: usize,
    /// Frames that wait for one session.
    pub outbox_frames: usize,
    /// Bytes that wait for one session.
    pub outbox_bytes: usize,
    /// Candidates that wait with one offer, or ahead of one description.
    pub mail_candidates: usize,
    /// Bytes of one waiting offer with its candidates.
    pub mail_bytes: usize,
    /// How long an unanswered offer waits.
    pub mail_ttl: Duration,
    /// How long a session outlives its socket.
    pub resume_window: Duration,
    /// Time for the first frame of a native connection.
    pub hello: Duration,
    /// Interval of WebSocket pings; two unanswered ones end the socket.
    pub ping: Duration,
    /// Interval of Engine.IO pings, and how long a client may take to answer one.
    pub heartbeat: (Duration, Duration),
    /// This long after a description to a client that is asked what its socket has, it is asked by a ping.
    pub confirm: Duration,
    /// The same for a candidate: a ping confirms all that were sent meanwhile.
    pub confirm_candidate: Duration,
    /// How long an older socket of the same client may take to show that it is alive.
    pub probe: Duration,
    /// The same for a client that is no browser: it may only not be reading, so that a silent one
    /// counts as alive after this long.
    pub doubt: Duration,
    /// Rooms whose chat one session listens to without being a member.
    pub chats: usize,
    /// Calls of the server, those over but not yet forgotten included.
    pub calls: usize,
    /// Calls of one user that are not over.
    pub calls_per_user: usize,
    /// Consultations of the server, those over but not yet forgotten included.
    pub consultations: usize,
    /// Consultations one user has created that are not over.
    pub consultations_per_user: usize,
    /// How long a call rings.
    pub ring: Duration,
    /// How long a call that is over can be looked at.
    pub call_memory: Duration,
    /// Timelines of calls and rooms, those over but not yet forgotten included.
    pub timelines: usize,
    /// Message ids of one session that are remembered.
    pub message_ids: usize,
    /// Tickets, users and credentials that are valid no longer, until they would have ended.
    pub voids: usize,
    /// Life of relay credentials.
    pub credentials: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: 256 * 1024,
            sdp: 128 * 1024,
            candidate: 4 * 1024,
            chat: 8 * 1024,
            depth: 32,
            frame_rate: 60,
            frame_burst: 240,
            byte_rate: 1024 * 1024,
            byte_burst: 4 * 1024 * 1024,
            members: 16,
            peers: 5_000,
            rooms: 20_000,
            sessions: 50_000,
            sockets_per_ip: 64,
            connects_per_minute: 60,
            joins_per_minute: 20,
            resumes_per_minute: 30,
            strikes: 3,
            name: 128,
            outbox_frames: 256,
            outbox_bytes: 512 * 1024,
            mail_candidates: 64,
            mail_bytes: 128 * 1024,
            mail_ttl: Duration::from_secs(120),
            resume_window: Duration::from_secs(60),
            hello: Duration::from_secs(5),
            ping: Duration::from_secs(15),
            heartbeat: (Duration::from_secs(25), Duration::from_secs(20)),
            confirm: Duration::from_millis(100),
            confirm_candidate: Duration::from_millis(750),
            probe: Duration::from_secs(5),
            doubt: Duration::from_secs(1),
            chats: 8,
            calls: 20_000,
            calls_per_user: 8,
            consultations: 20_000,
            consultations_per_user: 200,
            ring: Duration::from_secs(45),
            call_memory: Duration::from_secs(600),
            timelines: 20_000,
            message_ids: 512,
            voids: 65_536,
            credentials: Duration::from_secs(3600),
        }
    }
}
