//! Counters of signaling.

/// What the hub has done and holds. Plain numbers; `admin` puts them into words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Open sockets.
    pub sockets: u64,
    /// Sessions, those without a socket included.
    pub sessions: u64,
    /// Rooms with a member that has a socket.
    pub rooms: u64,
    /// Members that have a socket.
    pub members: u64,
    /// Sockets accepted since the start.
    pub connects: u64,
    /// Sockets refused since the start: their token, origin, address or protocol.
    pub refused: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Frames refused with an error.
    pub errors: u64,
    /// Frames dropped by the rate limit.
    pub rate_limited: u64,
    /// Connections closed for bad frames or floods.
    pub struck_out: u64,
    /// Offers that waited for somebody.
    pub mail_held: u64,
    /// Offers that somebody came for.
    pub mail_delivered: u64,
    /// Offers nobody came for.
    pub mail_expired: u64,
    /// Frames dropped because a bound was reached.
    pub overflowed: u64,
    /// Messages that raw clients without a socket missed; only negotiation is kept for them.
    pub missed: u64,
    /// Sessions that came back on another socket.
    pub resumed: u64,
    /// Sessions that wanted to come back and could not.
    pub resume_failed: u64,
    /// Sockets that stopped answering.
    pub dead_sockets: u64,
    /// Frames a client had seen already, acknowledged again.
    pub duplicates: u64,
    /// Calls that are not over.
    pub calls: u64,
    /// Calls since the start.
    pub calls_made: u64,
    /// Members that a moderator has sent out.
    pub kicked: u64,
    /// TURN credentials handed out.
    pub credentials: u64,
}
