//! The running application: settings, the hub, and what `app` asks of it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::Utf8Bytes;
use foldhash::quality::FixedState;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};

use super::exchange::{Exchange, lock};
use super::journal::Journal;
use super::outgoing::Link;
use super::settings::Settings;
use crate::credential::{Credential, MintError, mint};
use crate::signal::{
    Admission, Call, CallAction, Code, ConnId, Connect, Consultation, ConsultationAction, Identity,
    PerClient, Refusal, RelayStep, Stats, TimelineView, read_timeline,
};

/// How long a stop waits for sockets to take their close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Clients whose requests are counted: those for credentials, those of Engine.IO and the others, each apart.
const RATED_CLIENTS: usize = 65_536;

/// Signaling and the HTTP endpoints around it.
pub struct App {
    settings: RwLock<Arc<Settings>>,
    exchange: Arc<Mutex<Exchange>>,
    /// Who waits for the journal, in the order they came.
    line: tokio::sync::Mutex<()>,
    conns: AtomicU64,
    open: watch::Sender<usize>,
    /// Sockets that were refused before the hub heard of them.
    refused: AtomicU64,
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
    /// Starts signaling on the current tokio runtime. `seed` is for session ids and secrets
    /// and comes from the system's random source.
    #[must_use]
    pub fn new(settings: Settings, seed: [u8; 32]) -> Arc<Self> {
        Self::with(settings, seed, Outside::default())
    }

    /// As [`Self::new`], with a journal and a relay.
    #[must_use]
    pub fn with(settings: Settings, seed: [u8; 32], outside: Outside) -> Arc<Self> {
        let settings = Arc::new(settings);
        let mut rng = StdRng::from_seed(seed);
        let mut hub_seed = [0; 32];
        rng.fill_bytes(&mut hub_seed);
        let start = Instant::now();
        let Outside { journal, past, revoke } = outside;
        let salt = journal.as_ref().map_or_else(|| rng.next_u64(), |journal| journal.salt);
        let exchange = Exchange::open(settings.clone(), start, hub_seed, journal, revoke);
        Arc::new(Self {
            settings: RwLock::new(settings),
            exchange,
            line: tokio::sync::Mutex::new(()),
            conns: AtomicU64::new(1),
            open: watch::Sender::new(0),
            refused: AtomicU64::new(0),
            start,
            rates: Mutex::new(PerClient::new(RATED_CLIENTS)),
            requests: Mutex::new(PerClient::new(RATED_CLIENTS)),
            openings: Mutex::new(PerClient::new(RATED_CLIENTS)),
            rng: Mutex::new(rng),
            past,
            hasher: FixedState::with_seed(salt),
        })
    }

    /// Puts new settings in place. Open sockets stay.
    pub fn reconfigure(&self, settings: Settings) {
        let settings = Arc::new(settings);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings.clone();
        self.exchange().take_anyway(Input::Reconfigure(settings));
    }

    /// Counters and present numbers of signaling.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = self.exchange().stats();
        Stats { refused: stats.refused + self.refused.load(Ordering::Relaxed), ..stats }
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
        self.tell(Input::Drain(done)).await;
        let _ = told.await;
        let mut open = self.open.subscribe();
        let _ = tokio::time::timeout(CLOSE_PATIENCE, open.wait_for(|n| *n == 0)).await;
    }

    /// Returns when a turn has ended; for a watchdog.
    pub async fn ping(&self) {
        let (done, answered) = oneshot::channel();
        self.exchange().take_anyway(Input::Answer(done));
        let _ = answered.await;
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

    /// Has the hub carry out an input. While the journal is far behind, who speaks waits, which their peers feel as
    /// back pressure: what the journal lacks may not be answered.
    pub(super) async fn tell(&self, input: Input) {
        let taken = self.exchange().take(input);
        if let Err(input) = taken {
            Box::pin(self.tell_in_turn(input)).await;
        }
    }

    async fn tell_in_turn(&self, mut input: Input) {
        let _first = self.line.lock().await;
        loop {
            let progress = {
                let mut exchange = self.exchange();
                let progress = exchange.progress();
                match exchange.take(input) {
                    Ok(()) => return,
                    Err(back) => input = back,
                }
                progress
            };
            if let Some(mut progress) = progress {
                // A writer that has ended holds up nobody.
                let _ = progress.changed().await;
            }
        }
    }

    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        lock(&self.exchange)
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
        self.tell(Input::Call { who: Box::new(who), action, answer }).await;
        answered.await.ok()
    }

    /// What the hub says to somebody's wish about a consultation; `None` when it is no longer there.
    pub(super) async fn consultation(
        &self,
        who: Identity,
        action: ConsultationAction,
    ) -> Option<ConsultationAnswer> {
        let (answer, answered) = oneshot::channel();
        self.tell(Input::Consultation { who: Box::new(who), action, answer }).await;
        answered.await.ok()
    }

    /// The timeline of a call; `None` when the hub is no longer there.
    pub(super) async fn timeline(&self, who: Identity, id: String) -> Option<Result<TimelineView, Refusal>> {
        let (answer, answered) = oneshot::channel();
        self.tell(Input::Timeline { who: Box::new(who), id, answer }).await;
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

    /// What the relay has done.
    pub fn tell_relay_news(&self, news: Vec<News>) {
        if !news.is_empty() {
            self.exchange().take_anyway(Input::Relay { news, done: None });
        }
    }

    /// The last of it, when the relay has stopped: returns once it is written down.
    pub async fn tell_last_news(&self, news: Vec<News>) {
        let (done, told) = oneshot::channel();
        self.exchange().take_anyway(Input::Relay { news, done: Some(done) });
        let _ = told.await;
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
