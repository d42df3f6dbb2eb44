//! One socket: its rate, its strikes, whether it is alive.

use std::net::IpAddr;
use std::time::Duration;

use super::Connect;
use super::socketio::Pending;
use crate::signal::dialect::Dialect;
use crate::signal::dialect::native::Hello;
use crate::signal::identity::{ClientKey, Identity};
use crate::signal::limits::Limits;
use crate::signal::rate::Bucket;
use crate::signal::{Now, SessionId};

/// A strike is forgotten after this long without another.
const STRIKE_MEMORY: Duration = Duration::from_secs(60);

/// A flood counts as one strike in this time.
const FLOOD_STRIKE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) dialect: Dialect,
    pub(super) ip: IpAddr,
    pub(super) identity: Option<Identity>,
    pub(super) key: ClientKey,
    pub(super) session: Option<SessionId>,
    /// A socket of a call that has brought no token yet.
    pub(super) unproven: Option<Box<Connect>>,
    /// A hello whose token is being checked.
    pub(super) greeting: Option<Hello>,
    /// The secret with which a Socket.IO session was recovered on this socket.
    pub(super) pid: Option<Box<str>>,
    /// Whether a Socket.IO event has come in.
    pub(super) has_asked: bool,
    /// A join whose token is being checked.
    pub(super) joining: Option<Box<Pending>>,
    /// The id of the frame whose new token is being checked.
    pub(super) renewal: Option<Box<str>>,
    pub(super) joins: Bucket,
    pub(super) armed: Option<Duration>,
    /// Whether a raw socket has sent a description of its own.
    pub(super) has_described: bool,
    /// Younger clients that wait for this socket to show life.
    pub(super) suspected_by: Vec<SessionId>,
    frames: Bucket,
    strikes: u32,
    struck_at: Duration,
    flooded: u32,
    flood_at: Option<Duration>,
    bytes: Bucket,
    unanswered: u8,
    /// The last sign of life.
    pub(super) alive_at: Duration,
    answer_by: Option<Duration>,
    hello_at: Option<Duration>,
    ping_at: Duration,
    confirm_at: Option<Duration>,
}

/// What the timer of a socket finds.
pub(super) enum Life {
    /// Nothing to do yet.
    Fine,
    /// Time for a ping.
    Ask,
    /// No hello.
    Silent,
    /// Pings without an answer.
    Dead,
}

impl Conn {
    pub(super) fn new(now: Now, connect: &Connect, limits: &Limits) -> Self {
        let brings_token = connect.dialect == Dialect::Call && connect.identity.is_none();
        let says_hello = connect.dialect.acknowledges() || brings_token;
        Self {
            dialect: connect.dialect,
            ip: connect.ip,
            identity: connect.identity.clone(),
            key: connect.key.clone(),
            session: None,
            unproven: None,
            greeting: None,
            pid: None,
            has_asked: false,
            joining: None,
            renewal: None,
            joins: Bucket::full(limits.joins_per_minute, now.mono),
            armed: None,
            has_described: false,
            suspected_by: Vec::new(),
            frames: Bucket::full(limits.frame_burst, now.mono),
            strikes: 0,
            struck_at: now.mono,
            flooded: 0,
            flood_at: None,
            bytes: Bucket::full(limits.byte_burst, now.mono),
            unanswered: 0,
            alive_at: now.mono,
            answer_by: None,
            hello_at: says_hello.then(|| now.mono + limits.hello),
            ping_at: now.mono + limits.ping,
            confirm_at: None,
        }
    }

    /// Takes one frame out of the rates.
    pub(super) fn take_frame(&mut self, now: Now, size: usize, limits: &Limits) -> Result<(), Duration> {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.frames.take(now.mono, f64::from(limits.frame_rate), limits.frame_burst)?;
        self.bytes.take_many(now.mono, size, f64::from(limits.byte_rate), limits.byte_burst)
    }

    /// Counts a dropped frame; whether it is time to say so.
    pub(super) fn flood_is_a_strike(&mut self, now: Now, limits: &Limits) -> bool {
        self.flooded += 1;
        let is_due = self.flood_at.is_none_or(|at| at + FLOOD_STRIKE <= now.mono);
        if is_due || self.flooded > limits.frame_rate {
            self.flooded = 0;
            self.flood_at = Some(now.mono);
            return true;
        }
        false
    }

    /// Counts a strike; how many there are.
    pub(super) fn strike(&mut self, now: Now) -> u32 {
        if self.struck_at + STRIKE_MEMORY < now.mono {
            self.strikes = 0;
        }
        self.struck_at = now.mono;
        self.strikes += 1;
        self.strikes
    }

    /// Something came in.
    pub(super) fn is_alive(&mut self, now: Now) {
        self.alive_at = now.mono;
        self.answer_by = None;
        self.unanswered = 0;
    }

    /// The hello is here.
    pub(super) fn said_hello(&mut self) {
        self.hello_at = None;
    }

    /// A sign of life is wanted sooner than the next two pings.
    pub(super) fn must_answer_by(&mut self, at: Duration) {
        self.answer_by.get_or_insert(at);
    }

    /// Something was sent that only a pong confirms.
    pub(super) fn confirm_by(&mut self, at: Duration) {
        self.confirm_at = Some(self.confirm_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether the ping for that is due by then; it is taken as sent.
    pub(super) fn is_asked_by(&mut self, at: Duration) -> bool {
        self.confirm_at.take_if(|due| *due <= at).is_some()
    }

    pub(super) fn life(&mut self, now: Now, limits: &Limits) -> Life {
        if self.hello_at.is_some_and(|at| at <= now.mono) {
            return Life::Silent;
        }
        if self.answer_by.is_some_and(|at| at <= now.mono) {
            return Life::Dead;
        }
        if self.ping_at <= now.mono {
            if self.unanswered >= 2 {
                return Life::Dead;
            }
            self.unanswered += 1;
            self.ping_at = now.mono + limits.ping;
            self.confirm_at = None;
            return Life::Ask;
        }
        if self.confirm_at.is_some_and(|at| at <= now.mono) {
            self.confirm_at = None;
            return Life::Ask;
        }
        Life::Fine
    }

    pub(super) fn deadline(&self) -> Duration {
        let others = [self.hello_at, self.confirm_at, self.answer_by];
        others.into_iter().flatten().fold(self.ping_at, Duration::min)
    }
}
