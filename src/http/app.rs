//! The running application: settings, the task that owns the hub, and what `app` asks of it.
//!
//! One tokio task owns the [`Hub`]. Sockets talk to it through one bounded channel, it talks to each
//! of them through another; it never waits for a socket, so that a slow one delays nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::Utf8Bytes;
use foldhash::quality::FixedState;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::access;
use super::ice;
use super::journal::{Effect, Held, Journal};
use super::outgoing::{Command, Link};
use super::settings::{Access, Settings};
use crate::credential::{Credential, MintError, mint};
use crate::signal::{
    Admission, Call, CallAction, Code, ConnId, Connect, Consultation, ConsultationAction, Hub, Identity, Now,
    Output, PerClient, Refusal, RelayNews, RelayStep, Stats, TimelineView, lease_name, read_timeline,
};

/// Inputs that wait for the hub; beyond it sockets wait, which their peers feel as back pressure.
const INPUTS: usize = 4096;

/// Bytes that wait for one socket, on top of what a resume may replay at once. A slow consumer
/// loses its socket, not its session.
const SOCKET_BYTES: usize = 256 * 1024;

/// How long a stop waits for sockets to take their close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Clients whose requests are counted: those for credentials, those of Engine.IO and the others, each apart.
const RATED_CLIENTS: usize = 65_536;

/// Signaling and the HTTP endpoints around it.
pub struct App {
    settings: RwLock<Arc<Settings>>,
    inputs: mpsc::Sender<Input>,
    stats: Arc<Mutex<Stats>>,
    conns: AtomicU64,
    open: watch::Sender<usize>,
    /// Sockets that were refused before the hub heard of them.
    refused: AtomicU64,
    /// What the relay told and the hub had no time for.
    lost_news: AtomicU64,
    start: Instant,
    rates: Mutex<PerClient>,
    requests: Mutex<PerClient>,
    openings: Mutex<PerClient>,
    rng: Mutex<StdRng>,
    past: Option<mpsc::Sender<Lookup>>,
    pub(super) hasher: FixedState,
}

/// What is told of a credential that is taken back: its id, and the Unix second at which it would have ended.
pub type Revoke = Box<dyn Fn(String, u64) + Send>;

/// What signaling reaches beside its sockets.
#[derive(Default)]
pub struct Outside {
    /// What it is restored from, and what it writes down; without one, all of it is in memory.
    pub journal: Option<Journal>,
    /// What answers from the books; without it, what is over is forgotten after a while.
    pub past: Option<mpsc::Sender<Lookup>>,
    /// The relay, which ends what a credential was used for.
    pub revoke: Option<Revoke>,
}

/// A question about a call or a room that is over.
pub struct Lookup {
    /// Which one.
    pub room: Box<str>,
    /// Takes its newest timeline, in JSON; dropped where the database does not answer.
    pub answer: oneshot::Sender<Option<String>>,
}

/// What the relay tells of a credential that was made here.
pub struct News {
    /// When.
    pub at: Instant,
    /// The user in its id.
    pub user: Box<str>,
    /// What it was made for, as in its id; empty where it was for nothing in particular.
    pub scope: Box<str>,
    /// What happened.
    pub step: RelayStep,
}

/// What sockets tell the hub.
pub(super) enum Input {
    Connect {
        id: ConnId,
        connect: Box<Connect>,
        link: Link,
    },
    Frame {
        id: ConnId,
        text: Utf8Bytes,
    },
    Oversized {
        id: ConnId,
    },
    Binary {
        id: ConnId,
        size: usize,
    },
    Pong {
        id: ConnId,
        seq: u64,
    },
    Disconnect {
        id: ConnId,
    },
    Call {
        who: Box<Identity>,
        action: CallAction,
        answer: oneshot::Sender<Result<Vec<Call>, Refusal>>,
    },
    Consultation {
        who: Box<Identity>,
        action: ConsultationAction,
        answer: oneshot::Sender<ConsultationAnswer>,
    },
    Timeline {
        who: Box<Identity>,
        id: String,
        answer: oneshot::Sender<Result<TimelineView, Refusal>>,
    },
    Relay {
        news: Vec<News>,
        done: Option<oneshot::Sender<()>>,
    },
    Reconfigure(Arc<Settings>),
    Answer(oneshot::Sender<()>),
    Drain(oneshot::Sender<()>),
}

/// A consultation as it is now, and what joining it gave.
pub(super) type ConsultationAnswer = Result<(Consultation, Option<Admission>), Refusal>;

impl App {
    /// Starts the hub's task on the current tokio runtime. `seed` is for session ids and secrets
    /// and comes from the system's random source.
    #[must_use]
    pub fn new(settings: Settings, seed: [u8; 32]) -> Arc<Self> {
        Self::with(settings, seed, Outside::default())
    }

    /// As [`Self::new`], with a journal and a relay.
    #[must_use]
    pub fn with(settings: Settings, seed: [u8; 32], outside: Outside) -> Arc<Self> {
        let settings = Arc::new(settings);
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let stats = Arc::new(Mutex::new(Stats::default()));
        let mut rng = StdRng::from_seed(seed);
        let mut hub_seed = [0; 32];
        rng.fill_bytes(&mut hub_seed);
        let start = Instant::now();
        let hub = Hub::new(settings.limits.clone(), protects_rooms(&settings), hub_seed);
        let salt = outside.journal.as_ref().map_or_else(|| rng.next_u64(), |journal| journal.salt);
        let mut task = Task {
            hub,
            settings: settings.clone(),
            links: HashMap::new(),
            stats: stats.clone(),
            start,
            effects: Vec::new(),
            held: Held::new(None),
            revoke: outside.revoke,
        };
        if let Some(mut journal) = outside.journal {
            task.restore(std::mem::take(&mut journal.rows));
            task.held = Held::new(Some(journal));
        }
        tokio::spawn(task.run(receiver));
        Arc::new(Self {
            settings: RwLock::new(settings),
            inputs,
            stats,
            conns: AtomicU64::new(1),
            open: watch::Sender::new(0),
            refused: AtomicU64::new(0),
            lost_news: AtomicU64::new(0),
            start,
            rates: Mutex::new(PerClient::new(RATED_CLIENTS)),
            requests: Mutex::new(PerClient::new(RATED_CLIENTS)),
            openings: Mutex::new(PerClient::new(RATED_CLIENTS)),
            rng: Mutex::new(rng),
            past: outside.past,
            hasher: FixedState::with_seed(salt),
        })
    }

    /// Puts new settings in place. Open sockets stay.
    pub fn reconfigure(&self, settings: Settings) {
        let settings = Arc::new(settings);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings.clone();
        let inputs = self.inputs.clone();
        // The channel may be full; settings must arrive all the same.
        if let Err(mpsc::error::TrySendError::Full(input)) = inputs.try_send(Input::Reconfigure(settings)) {
            tokio::spawn(async move { inputs.send(input).await });
        }
    }

    /// Counters and present numbers of signaling.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = *self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        Stats {
            refused: stats.refused + self.refused.load(Ordering::Relaxed),
            lost_news: self.lost_news.load(Ordering::Relaxed),
            ..stats
        }
    }

    /// Relay credentials for a user, valid for `ttl`, at most as long as the settings allow.
    ///
    /// # Errors
    /// See [`MintError`].
    pub fn mint(&self, user: &str, ttl: Duration) -> Result<Credential, MintError> {
        let settings = self.settings();
        mint(&settings.secrets, unix(), ttl.min(settings.max_ttl), user)
    }

    /// Tells every socket to come back later (4450) and returns when they have been told.
    pub async fn shutdown(&self) {
        let (done, told) = oneshot::channel();
        if self.inputs.send(Input::Drain(done)).await.is_ok() {
            let _ = told.await;
            let mut open = self.open.subscribe();
            let _ = tokio::time::timeout(CLOSE_PATIENCE, open.wait_for(|n| *n == 0)).await;
        }
    }

    /// Returns when the hub's task has answered; for a watchdog.
    pub async fn ping(&self) {
        let (done, answered) = oneshot::channel();
        if self.inputs.send(Input::Answer(done)).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Counts a socket for as long as the guard lives.
    pub(super) fn opened(self: &Arc<Self>) -> Opened {
        self.open.send_modify(|n| *n += 1);
        Opened(self.clone())
    }

    /// Counts a socket that was refused before the hub heard of it.
    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn next_conn(&self) -> ConnId {
        ConnId(self.conns.fetch_add(1, Ordering::Relaxed))
    }

    /// Tells the hub, which there is room for nearly always; whether it is still there.
    pub(super) async fn tell(&self, input: Input) -> bool {
        match self.inputs.try_send(input) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(input)) => Box::pin(self.inputs.send(input)).await.is_ok(),
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Counts a request for credentials.
    pub(super) fn take_ice(&self, ip: IpAddr, per_minute: u32) -> Result<(), Duration> {
        self.take(&self.rates, ip, per_minute)
    }

    /// Counts any other request of the API.
    pub(super) fn take_request(&self, ip: IpAddr, per_minute: u32) -> Result<(), Duration> {
        self.take(&self.requests, ip, per_minute)
    }

    /// Counts an Engine.IO session.
    pub(super) fn take_opening(&self, ip: IpAddr, per_minute: u32) -> Result<(), Duration> {
        self.take(&self.openings, ip, per_minute)
    }

    fn take(&self, of: &Mutex<PerClient>, ip: IpAddr, per_minute: u32) -> Result<(), Duration> {
        let mut clients = of.lock().unwrap_or_else(PoisonError::into_inner);
        clients.take(self.start.elapsed(), ip, per_minute)
    }

    /// What the hub says to somebody's wish about a call; `None` when it is no longer there.
    pub(super) async fn call(&self, who: Identity, action: CallAction) -> Option<Result<Vec<Call>, Refusal>> {
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Call { who: Box::new(who), action, answer }).await.ok()?;
        answered.await.ok()
    }

    /// What the hub says to somebody's wish about a consultation; `None` when it is no longer there.
    pub(super) async fn consultation(
        &self,
        who: Identity,
        action: ConsultationAction,
    ) -> Option<ConsultationAnswer> {
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Consultation { who: Box::new(who), action, answer }).await.ok()?;
        answered.await.ok()
    }

    /// The timeline of a call; `None` when the hub is no longer there.
    pub(super) async fn timeline(&self, who: Identity, id: String) -> Option<Result<TimelineView, Refusal>> {
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Timeline { who: Box::new(who), id, answer }).await.ok()?;
        answered.await.ok()
    }

    /// The timeline that the books have of a call, by the rules of those in memory.
    pub(super) async fn past_timeline(&self, who: &Identity, id: &str) -> Result<Box<RawValue>, Refusal> {
        let Some(past) = &self.past else { return read_timeline(who, id, None) };
        let silent = || Refusal::later(Code::Busy, "the database does not answer", Duration::from_secs(1));
        let (answer, answered) = oneshot::channel();
        past.try_send(Lookup { room: id.into(), answer }).map_err(|_| silent())?;
        let found = answered.await.map_err(|_| silent())?;
        read_timeline(who, id, found)
    }

    /// What the relay has done. Where the hub has too much to do it is let go, and counted.
    pub fn tell_relay_news(&self, news: Vec<News>) {
        let count = news.len() as u64;
        if count > 0 && self.inputs.try_send(Input::Relay { news, done: None }).is_err() {
            self.lost_news.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The last of it, when the relay has stopped: returns once it is written down.
    pub async fn tell_last_news(&self, news: Vec<News>) {
        let (done, told) = oneshot::channel();
        if self.inputs.send(Input::Relay { news, done: Some(done) }).await.is_ok() {
            let _ = told.await;
        }
    }

    /// A random name of 16 hexadecimal digits.
    pub(super) fn random_name(&self) -> String {
        let number = self.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        format!("{number:016x}")
    }
}

/// An open socket, counted.
pub(super) struct Opened(Arc<App>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.send_modify(|n| *n -= 1);
    }
}

/// Seconds since 1970-01-01 UTC.
pub(super) fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn protects_rooms(settings: &Settings) -> bool {
    settings.access == Access::Token
}

/// The task that owns the hub.
struct Task {
    hub: Hub,
    settings: Arc<Settings>,
    links: HashMap<ConnId, Link>,
    stats: Arc<Mutex<Stats>>,
    start: Instant,
    /// What this turn leads to.
    effects: Vec<Effect>,
    /// What waits for the journal.
    held: Held,
    revoke: Option<Revoke>,
}

impl Task {
    fn restore(&mut self, rows: Vec<crate::signal::Row>) {
        let count = rows.len();
        self.hub.keep_journal();
        let unread = self.hub.restore(self.now(), rows);
        if unread > 0 {
            warn!(unread, "rows of the journal cannot be read and are left out");
        }
        let Stats { sessions, calls, .. } = self.hub.stats();
        if count > 0 {
            info!(sessions, calls, "signaling goes on where it was");
        }
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut batch = Vec::with_capacity(64);
        let now = self.now();
        self.drain(now);
        self.settle(now);
        // Set anew only for what is due earlier: that it rings too early now and then costs less than a timer for each turn.
        let mut alarm = pin!(sleep_until(self.start.into()));
        loop {
            if let Some(due) = self.due()
                && (alarm.is_elapsed() || due < alarm.deadline())
            {
                alarm.as_mut().reset(due);
            }
            let received = tokio::select! {
                // A journal that falls behind holds back those who speak: what it lacks may not be answered.
                received = inputs.recv_many(&mut batch, 64), if self.held.has_room() => Some(received),
                () = &mut alarm, if !alarm.is_elapsed() => None,
                () = self.held.changed() => None,
            };
            match received {
                Some(0) => return,
                Some(_) => {
                    for input in batch.drain(..) {
                        self.input(input);
                    }
                }
                None => {}
            }
            let now = self.now();
            if self.hub.poll_timeout().is_some_and(|at| at <= now.mono) {
                self.hub.handle_timeout(now);
                self.drain(now);
            }
            self.settle(now);
            *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.hub.stats();
        }
    }

    /// When there is something to do although nothing comes in.
    fn due(&self) -> Option<tokio::time::Instant> {
        let later = self.hub.poll_later().filter(|_| self.held.has_room());
        let next = [self.hub.poll_timeout(), later].into_iter().flatten().min();
        next.map(|at| (self.start + at).into())
    }

    fn now(&self) -> Now {
        Now { mono: self.start.elapsed(), unix: unix() }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Connect { id, connect, link } => {
                self.links.insert(id, link);
                self.hub.handle_connect(now, id, *connect);
            }
            Input::Frame { id, text } => self.hub.handle_frame(now, id, &text),
            Input::Oversized { id } => self.hub.handle_oversized(now, id),
            Input::Binary { id, size } => self.hub.handle_binary(now, id, size),
            Input::Pong { id, seq } => self.hub.handle_pong(now, id, seq),
            Input::Disconnect { id } => {
                self.links.remove(&id);
                self.hub.handle_disconnect(now, id);
            }
            Input::Call { who, action, answer } => {
                let result = self.hub.handle_call(now, &who, action);
                self.drain(now);
                self.effects.push(Effect::Answer(answer, result));
            }
            Input::Consultation { who, action, answer } => {
                let result = self.hub.handle_consultation(now, &who, action);
                self.drain(now);
                self.effects.push(Effect::Admit(answer, Box::new(result)));
            }
            Input::Timeline { who, id, answer } => {
                let _ = answer.send(self.hub.handle_timeline(now, &who, &id));
            }
            Input::Relay { news, done } => {
                news.into_iter().for_each(|news| self.relay_news(now, news));
                if let Some(done) = done {
                    self.hub.hasten_timelines();
                    self.effects.push(Effect::Done(done));
                }
            }
            Input::Reconfigure(settings) => {
                self.hub.reconfigure(settings.limits.clone(), protects_rooms(&settings));
                self.settings = settings;
            }
            Input::Answer(done) => {
                let _ = done.send(());
            }
            Input::Drain(done) => {
                self.hub.handle_drain(now);
                self.drain(now);
                self.effects.push(Effect::Done(done));
            }
        }
        self.drain(now);
    }

    fn relay_news(&mut self, now: Now, News { at, user, scope, step }: News) {
        let user = access::user_of(&user).into();
        self.hub.handle_relay_news(
            now,
            &RelayNews { user, scope, at: at.saturating_duration_since(self.start), step },
        );
    }

    /// Takes what the hub asks for until it asks for nothing more; what it needs an answer to gets one at once.
    fn drain(&mut self, now: Now) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Authenticate { conn, token } => {
                    let checked = access::check(&self.settings, &token, now.unix);
                    self.hub.handle_identity(now, conn, checked.map_err(|denied| denied.words().1));
                }
                Output::NeedIce { session, lease, user, may_relay, asked } => {
                    let name = lease_name(session, lease);
                    let ice = ice::for_session(&self.settings, now.unix, &name, &user, may_relay);
                    self.hub.handle_ice(now, session, asked, &ice);
                }
                Output::Revoke { user, scope, until } => {
                    if let Some(revoke) = &self.revoke {
                        revoke(ice::scoped_id(&user, &scope), until);
                    }
                }
                Output::Log(line) => debug!("{line}"),
                output => self.effects.push(Effect::Output(output)),
            }
        }
    }

    /// Ends a turn: its effects wait for the journal, those that waited long enough are carried out.
    fn settle(&mut self, now: Now) {
        loop {
            self.held.put(&mut self.hub, std::mem::take(&mut self.effects), now);
            let mut slow = Vec::new();
            while let Some(effects) = self.held.next() {
                effects.into_iter().for_each(|effect| self.carry_out(effect, &mut slow));
            }
            if slow.is_empty() {
                return;
            }
            for id in slow {
                self.hub.handle_disconnect(now, id);
            }
            self.drain(now);
        }
    }

    fn carry_out(&mut self, effect: Effect, slow: &mut Vec<ConnId>) {
        match effect {
            Effect::Output(output) => self.output(output, slow),
            Effect::Answer(answer, result) => drop(answer.send(result)),
            Effect::Admit(answer, result) => drop(answer.send(*result)),
            Effect::Done(done) => drop(done.send(())),
        }
    }

    fn output(&mut self, output: Output, slow: &mut Vec<ConnId>) {
        match output {
            Output::Send { conn, text } => {
                let bound = SOCKET_BYTES + self.settings.limits.outbox_bytes;
                if self.links.get(&conn).is_some_and(|link| !link.push(&text, bound)) {
                    debug!(conn = conn.0, "slow consumer cut");
                    self.links.remove(&conn);
                    slow.push(conn);
                }
            }
            Output::Ping { conn, seq } => {
                if let Some(link) = self.links.get(&conn) {
                    // That there is no room means frames wait already; the next ping asks again.
                    link.command(Command::Ping(seq));
                }
            }
            Output::Close { conn, code, reason } => {
                debug!(conn = conn.0, code, reason, "socket closed");
                if let Some(link) = self.links.remove(&conn) {
                    link.command(Command::Close(code, reason));
                }
            }
            // Answered where they came up.
            Output::Authenticate { .. } | Output::NeedIce { .. } | Output::Revoke { .. } | Output::Log(_) => {
            }
        }
    }
}
