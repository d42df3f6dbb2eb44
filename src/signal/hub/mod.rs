//! The hub: one state machine for all rooms. Inputs are `handle_*`, effects come from
//! [`Hub::poll_output`].
//!
//! This file owns connections: their limits, their strikes, whether they live. `presence` owns who
//! is in a room, `relay` who gets a message, `native` and `raw` what each dialect asks for.

mod calls;
mod conn;
mod consultations;
mod effects;
mod invites;
mod keep;
mod moderate;
mod native;
mod peerjs;
mod presence;
mod raw;
mod relay;
mod revoke;
mod socketio;
mod timeline;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::call::Calls;
use super::consultation::Consultations;
use super::dialect::Dialect;
use super::dialect::socketio::connect_error;
use super::envelope::{Code, Refusal};
use super::limits::Limits;
use super::line::Line;
use super::rate::{PerClient, client_key};
use super::room::Room;
use super::session::Session;
use super::stats::Stats;
use super::timeline::Timelines;
use super::voids::Voids;
use super::{ConnId, MemberId, Now, OwnIds, SessionId};
use conn::{Conn, Life};
pub use effects::{AskedIce, Connect, Ice, Output, close, lease_name};
use keep::Touched;

const STOPPING: &str = "the server is stopping, come back in a moment";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Conn(ConnId),
    Session(SessionId),
    Room(Arc<str>),
    Call(Arc<str>),
    Consultation(Arc<str>),
}

/// All rooms, sessions and sockets of this server.
pub struct Hub {
    limits: Limits,
    protects_rooms: bool,
    rng: StdRng,
    // Boxed: a table has room for more than there are.
    conns: HashMap<ConnId, Box<Conn>, OwnIds>,
    sessions: HashMap<SessionId, Box<Session>, OwnIds>,
    /// The sessions of users that are known by a token of their own.
    users: HashMap<Arc<str>, Vec<SessionId>>,
    calls: Calls,
    consultations: Consultations,
    /// Who listens to the chat of a room without being a member.
    chats: HashMap<Arc<str>, Vec<SessionId>>,
    rooms: HashMap<Arc<str>, Room>,
    room_timers: HashMap<Arc<str>, Duration>,
    sockets: HashMap<IpAddr, usize>,
    connects: PerClient,
    resumes: PerClient,
    timers: BTreeSet<(Duration, Timer)>,
    outputs: VecDeque<Output>,
    is_draining: bool,
    stats: Stats,
    voids: Voids,
    touched: Touched,
    /// How often a raw client came that may be another one's successor; frames are dated by it.
    era: u64,
    timelines: Timelines,
}

impl Hub {
    /// An empty hub. With `protects_rooms`, a room that a token names is closed to guests.
    #[must_use]
    pub fn new(limits: Limits, protects_rooms: bool, seed: [u8; 32]) -> Self {
        let clients = limits.sessions.max(1024);
        Self {
            limits,
            protects_rooms,
            rng: StdRng::from_seed(seed),
            conns: HashMap::default(),
            sessions: HashMap::default(),
            users: HashMap::new(),
            calls: Calls::default(),
            consultations: Consultations::default(),
            chats: HashMap::new(),
            rooms: HashMap::new(),
            room_timers: HashMap::new(),
            sockets: HashMap::new(),
            connects: PerClient::new(clients),
            resumes: PerClient::new(clients),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            is_draining: false,
            stats: Stats::default(),
            voids: Voids::default(),
            touched: Touched::default(),
            era: 0,
            timelines: Timelines::default(),
        }
    }

    /// Takes new limits; what exists already is not cut.
    pub fn reconfigure(&mut self, limits: Limits, protects_rooms: bool) {
        self.limits = limits;
        self.protects_rooms = protects_rooms;
    }

    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Counters and present numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (sockets, sessions) = (self.conns.len() as u64, self.sessions.len() as u64);
        Stats { sockets, sessions, calls: self.calls.live_count() as u64, ..self.stats }
    }

    /// A socket was opened.
    pub fn handle_connect(&mut self, now: Now, id: ConnId, connect: Connect) {
        if let Err((code, reason)) = self.admit(now, connect.ip) {
            self.stats.refused += 1;
            self.outputs.push_back(Output::Close { conn: id, code, reason });
            return;
        }
        self.stats.connects += 1;
        *self.sockets.entry(client_key(connect.ip)).or_insert(0) += 1;
        self.conns.insert(id, Box::new(Conn::new(now, &connect, &self.limits)));
        match connect.dialect {
            Dialect::Native | Dialect::SocketIo(_) => {}
            Dialect::Broadcast | Dialect::Call => self.raw_connected(now, id, connect),
            Dialect::PeerJs => self.peerjs_connected(now, id, connect),
        }
        self.touch_conn(id);
        self.arm_conn(id);
    }

    fn admit(&mut self, now: Now, ip: IpAddr) -> Result<(), (u16, String)> {
        if self.is_draining {
            return Err((close::DRAINING, STOPPING.into()));
        }
        if self.sockets.get(&client_key(ip)).is_some_and(|n| *n >= self.limits.sockets_per_ip) {
            return Err((close::RATE, "too many sockets from this address".into()));
        }
        self.connects
            .take(now.mono, ip, self.limits.connects_per_minute)
            .map_err(|wait| (close::RATE, retry("too many connections", wait)))
    }

    /// A text frame came in.
    pub fn handle_frame(&mut self, now: Now, id: ConnId, text: &str) {
        if !self.conns.contains_key(&id) {
            return;
        }
        self.stats.frames_in += 1;
        self.shows_life(now, id);
        if text.len() > self.limits.frame {
            return self.handle_oversized(now, id);
        }
        if !self.within_rate(now, id, text.len()) {
            return;
        }
        let before = self.concerned(id);
        match self.conns.get(&id).map(|c| c.dialect) {
            Some(Dialect::Native) => self.native_frame(now, id, text),
            Some(Dialect::Broadcast) => self.raw_frame(now, id, text),
            Some(Dialect::Call) => self.call_frame(now, id, text),
            Some(Dialect::SocketIo(_)) => self.socketio_frame(now, id, text),
            Some(Dialect::PeerJs) => self.peerjs_frame(now, id, text),
            None => {}
        }
        self.touch_sender(id, &before);
        self.arm_conn(id);
    }

    /// A frame over the limit came in.
    pub fn handle_oversized(&mut self, now: Now, id: ConnId) {
        let reason = format!("a frame may have at most {} bytes", self.limits.frame);
        self.refuse(id, None, &Refusal::new(Code::TooLarge, reason.clone()));
        self.close(now, id, close::TOO_LARGE, &reason);
    }

    /// A binary frame came in.
    pub fn handle_binary(&mut self, now: Now, id: ConnId, size: usize) {
        self.stats.frames_in += 1;
        if self.conns.contains_key(&id) && self.within_rate(now, id, size) {
            let refusal = Refusal::new(Code::BadFrame, "frames are text, this one is binary");
            self.refuse_with_strike(now, id, None, &refusal);
            self.arm_conn(id);
        }
    }

    /// A pong came in: what was sent before its ping has reached the socket. It is confirmed, unless its client says
    /// what it has when it comes back.
    pub fn handle_pong(&mut self, now: Now, id: ConnId, seq: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        if let (true, Some(id)) = (conn.dialect.is_asked(), conn.session)
            && let Some(session) = self.sessions.get_mut(&id)
        {
            let comes_back = session.dialect.acknowledges();
            let has_less_to_keep =
                if comes_back { session.outbox.received(seq) } else { session.outbox.confirm(seq) };
            if has_less_to_keep {
                self.touch_later(now, id);
            }
        }
        self.shows_life(now, id);
        self.arm_conn(id);
    }

    /// A socket is gone.
    pub fn handle_disconnect(&mut self, now: Now, id: ConnId) {
        self.drop_conn(now, id);
    }

    /// The server stops: every socket, also one that comes now, is told to come back later.
    pub fn handle_drain(&mut self, now: Now) {
        self.is_draining = true;
        let mut all: Vec<ConnId> = self.conns.keys().copied().collect();
        all.sort_unstable();
        for id in all {
            self.close(now, id, close::DRAINING, STOPPING);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now.mono
        {
            let Some((_, timer)) = self.timers.pop_first() else { return };
            match timer {
                Timer::Conn(id) => self.conn_timeout(now, id),
                Timer::Session(id) => self.session_timeout(now, id),
                Timer::Room(name) => self.room_timeout(now, &name),
                Timer::Call(id) => self.call_timeout(now, &id),
                Timer::Consultation(id) => self.consultation_timeout(now, &id),
            }
        }
    }

    fn conn_timeout(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.armed = None;
        let seq = conn.session.and_then(|s| self.sessions.get(&s)).map_or(0, |s| s.outbox.last_seq());
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match conn.life(now, &self.limits) {
            Life::Silent => return self.close(now, id, close::HELLO_TIMEOUT, "no hello came in time"),
            Life::Dead => {
                self.stats.dead_sockets += 1;
                return self.close(now, id, close::GONE, "the socket stopped answering pings");
            }
            Life::Ask => self.outputs.push_back(Output::Ping { conn: id, seq }),
            Life::Fine => {}
        }
        self.arm_conn(id);
    }

    fn session_timeout(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.armed = None;
        if session.away_until.is_some_and(|at| at <= now.mono) {
            return self.end_session(now, id, "lost");
        }
        if session.expires_at.is_some_and(|at| at <= now.mono)
            && let Some(conn) = session.conn
        {
            return self.close(
                now,
                conn,
                close::UNAUTHENTICATED,
                "the token has expired, come back with a new one",
            );
        }
        if session.conn.is_some() && session.ice_at.is_some_and(|at| at <= now.mono) {
            session.ice_at = None;
            self.ask_ice(id, AskedIce::Push);
        }
        self.probe_timeout(now, id);
        self.arm_session(id);
    }

    fn room_timeout(&mut self, now: Now, name: &Arc<str>) {
        self.room_timers.remove(name);
        if let Some(room) = self.rooms.get_mut(name) {
            self.stats.mail_expired += room.expire_mail(now.mono, self.limits.mail_ttl);
        }
        self.touch_room(name);
        self.arm_room(name);
    }

    fn ask_ice(&mut self, session: SessionId, asked: AskedIce) {
        let Some(found) = self.sessions.get(&session) else { return };
        let (user, may_relay) = (found.identity.user.clone(), found.identity.may_relay);
        let lease = found.lease;
        self.outputs.push_back(Output::NeedIce { session, lease, user, may_relay, asked });
    }

    fn send(&mut self, conn: ConnId, text: Arc<str>) {
        self.stats.frames_out += 1;
        self.outputs.push_back(Output::Send { conn, text });
    }

    fn log(&mut self, line: Line) {
        self.outputs.push_back(Output::Log(line));
    }

    fn refuse(&mut self, id: ConnId, reference: Option<&str>, refusal: &Refusal) {
        let Some(conn) = self.conns.get(&id) else { return };
        self.stats.errors += 1;
        let text = match (conn.dialect, conn.session) {
            (Dialect::SocketIo(_), None) => connect_error(refusal),
            (dialect, _) => dialect.refuse(reference, refusal),
        };
        self.send(id, text);
    }

    /// Answers with an error; a client that goes on with bad frames loses its socket.
    fn refuse_with_strike(&mut self, now: Now, id: ConnId, reference: Option<&str>, refusal: &Refusal) {
        self.refuse(id, reference, refusal);
        if refusal.code.is_strike() {
            self.strike(now, id, close::BAD_FRAME, "too many bad frames");
        }
    }

    fn strike(&mut self, now: Now, id: ConnId, code: u16, reason: &str) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.strike(now) >= self.limits.strikes {
            self.stats.struck_out += 1;
            self.close(now, id, code, reason);
        }
    }

    fn within_rate(&mut self, now: Now, id: ConnId, size: usize) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        let Err(wait) = conn.take_frame(now, size, &self.limits) else { return true };
        self.stats.rate_limited += 1;
        if conn.flood_is_a_strike(now, &self.limits) {
            let (frames, bytes) = (self.limits.frame_rate, self.limits.byte_rate);
            let message = format!("more than {frames} frames or {bytes} bytes a second");
            self.refuse(id, None, &Refusal::later(Code::RateLimited, message, wait));
            self.strike(now, id, close::RATE, "too many frames");
            self.arm_conn(id);
        }
        false
    }

    fn close(&mut self, now: Now, id: ConnId, code: u16, reason: &str) {
        if self.conns.contains_key(&id) {
            self.outputs.push_back(Output::Close { conn: id, code, reason: clip(reason) });
            self.drop_conn(now, id);
        }
    }

    /// Forgets a socket; its session stays for the resume window.
    fn drop_conn(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        if let Some(at) = conn.armed {
            self.timers.remove(&(at, Timer::Conn(id)));
        }
        let key = client_key(conn.ip);
        if let Some(count) = self.sockets.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.sockets.remove(&key);
            }
        }
        if let Some(session) = conn.session {
            self.detach(now, session, id);
        }
        self.suspicion_ends_with(now, id, &conn);
    }

    fn arm_conn(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let deadline = Some(conn.deadline());
        rearm(&mut self.timers, &mut conn.armed, deadline, || Timer::Conn(id));
    }

    fn arm_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let deadline = session.deadline();
        rearm(&mut self.timers, &mut session.armed, deadline, || Timer::Session(id));
    }

    fn arm_room(&mut self, name: &Arc<str>) {
        let deadline = self.rooms.get(name).and_then(|r| r.mail_deadline(self.limits.mail_ttl));
        let mut armed = self.room_timers.remove(name);
        rearm(&mut self.timers, &mut armed, deadline, || Timer::Room(name.clone()));
        if let Some(at) = armed {
            self.room_timers.insert(name.clone(), at);
        }
    }

    /// A number nobody has; zero stays free.
    fn fresh_id(&mut self) -> u64 {
        loop {
            let id = self.rng.next_u64();
            if id != 0 && !self.sessions.contains_key(&SessionId(id)) {
                return id;
            }
        }
    }

    fn place_of(&self, conn: ConnId) -> Option<(SessionId, Arc<str>, MemberId)> {
        let session = self.conns.get(&conn)?.session?;
        let (room, member) = self.sessions.get(&session)?.place.clone()?;
        Some((session, room, member))
    }
}

fn rearm(
    timers: &mut BTreeSet<(Duration, Timer)>,
    armed: &mut Option<Duration>,
    deadline: Option<Duration>,
    timer: impl Fn() -> Timer,
) {
    if *armed == deadline {
        return;
    }
    if let Some(at) = armed.take() {
        timers.remove(&(at, timer()));
    }
    if let Some(at) = deadline {
        timers.insert((at, timer()));
        *armed = Some(at);
    }
}

/// A close reason has room for 123 bytes (RFC 6455 §5.5.1).
fn clip(reason: &str) -> String {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

fn retry(what: &str, wait: Duration) -> String {
    format!("{what}, try again in {} s", wait.as_secs_f64().ceil().max(1.0))
}
