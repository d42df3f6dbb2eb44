//! The composition root: from a configuration to a running server, and back to nothing.
//!
//! Owns the order of things: what is read and bound before the first packet is answered, what a reload
//! changes, what a stop ends. Every rule about packets, rooms and requests belongs to the parts it joins.

mod discovery;
mod ebb;
mod entrance;
mod failures;
mod health;
mod journal;
mod moving;
mod news;
mod offload;
mod past;
mod settings;
mod start;
mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::admin::{Observe, Snapshot};
use crate::config::secret::Keys;
use crate::config::{self, Config};
use crate::credential::{self, Credential, MintError};
use crate::http::token::JwtKey;
use crate::turn::Mode;
use crate::worker::Pool;
use crate::{http, systemd};

pub use start::StartError;

use ebb::Ebb;
use entrance::Gate;
use failures::FailureLog;
use health::Health;
use settings::Place;
use tls::Certificate;

/// Starts servers.
pub struct Server;

impl Server {
    /// Starts a relay and signaling server in this process. All its addresses are bound, and their actual
    /// ports known, when this returns. Needs a tokio runtime.
    ///
    /// # Errors
    /// One line that names what cannot be read or bound, and what to do.
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        start::start(config).await
    }
}

/// A running server. Dropping it stops the server at once; [`Handle::stop`] does so with good manners.
pub struct Handle {
    running: Arc<Running>,
    /// Accept loops and the look-out.
    tasks: JoinSet<()>,
    addresses: Addresses,
}

/// Where a server listens; actual ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// STUN and TURN over UDP.
    pub udp: Vec<SocketAddr>,
    /// STUN and TURN over TCP.
    pub tcp: Vec<SocketAddr>,
    /// STUN and TURN over TLS, those included that share their port with HTTPS.
    pub tls: Vec<SocketAddr>,
    /// STUN and TURN over DTLS.
    pub dtls: Vec<SocketAddr>,
    /// Web page, API and signaling; whether each speaks TLS.
    pub http: Vec<(SocketAddr, bool)>,
    /// Metrics and health.
    pub admin: Option<SocketAddr>,
}

/// What the tasks of a server share.
struct Running {
    current: Mutex<Current>,
    place: Place,
    pool: Arc<Pool>,
    web: Arc<http::App>,
    health: Health,
    /// The database's side, where there is one.
    books: Option<journal::Books>,
    certificate: watch::Sender<Option<Arc<Certificate>>>,
    gate: Arc<Gate>,
    /// A reload may have brought another key set.
    reloaded: Notify,
    is_draining: AtomicBool,
    stop: watch::Sender<bool>,
    started_at: u64,
}

/// What a reload replaces.
struct Current {
    config: Config,
    keys: Keys,
}

impl Handle {
    /// Where the server listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// `stun:` and `turn:` URLs under which clients reach the relay.
    #[must_use]
    pub fn ice_urls(&self) -> Vec<String> {
        self.running.place.ice_urls()
    }

    /// Mints relay credentials for `user` (or `user.session`), as `turnkey credentials` does.
    ///
    /// # Errors
    /// A user name that cannot be written into them, or a lifetime of zero.
    pub fn mint(&self, user: &str, ttl: Duration) -> Result<Credential, MintError> {
        let current = self.running.current();
        let secrets = self.running.place.secrets(&current.config, &current.keys);
        credential::mint(&secrets, unix_now(), ttl, user)
    }

    /// Web page, API and signaling, to be mounted in another axum application. Rate limits and logs need
    /// the client's address: serve with `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn router(&self) -> Router {
        http::router(Arc::clone(&self.running.web))
    }

    /// Refuses new allocations from now on; running calls go on.
    pub fn drain(&self) {
        self.running.is_draining.store(true, Ordering::Relaxed);
        self.running.pool.set_mode(Mode::Draining);
    }

    /// Returns when no allocation is left.
    pub async fn drained(&self) {
        loop {
            let running = Arc::clone(&self.running);
            let stats = tokio::task::spawn_blocking(move || running.pool.stats());
            if stats.await.is_ok_and(|stats| stats.allocations == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Takes a new configuration: secrets, users, peer rules, quotas, limits, origins, certificate. Listeners,
    /// addresses, ports and threads stay as they are; the keys among them that differ are returned.
    ///
    /// # Errors
    /// What cannot be read; then nothing has changed.
    pub async fn reload(&self, config: Config) -> Result<Vec<&'static str>, config::Error> {
        let running = Arc::clone(&self.running);
        let reload = move || running.reload(config);
        tokio::task::spawn_blocking(reload).await.expect("reading a configuration does not panic")
    }

    /// Stops the server: signaling sockets are closed with code 4450, open requests finish, allocations end.
    /// All ports are free when this returns.
    pub async fn stop(mut self) {
        self.drain();
        self.running.web.shutdown().await;
        // Without listeners nobody waits for it.
        let _ = self.running.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        let running = Arc::clone(&self.running);
        let stop = tokio::task::spawn_blocking(move || running.pool.stop());
        stop.await.expect("stopping workers does not panic");
        let last = news::translate(self.running.pool.take_events());
        self.running.web.tell_last_news(last).await;
    }

    /// Makes one worker do nothing for a while, so that the watchdog can be tested.
    #[doc(hidden)]
    pub fn stall_worker(&self, worker: usize, duration: Duration) {
        self.running.pool.stall(worker, duration);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.running.pool.stop();
    }
}

impl Running {
    fn current(&self) -> MutexGuard<'_, Current> {
        // Each change is one assignment: a panic elsewhere cannot leave half of it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reload(&self, config: Config) -> Result<Vec<&'static str>, config::Error> {
        let (config, fixed) = settings::keep_fixed(&self.current().config, config);
        let mut keys = Keys::load(&config)?;
        let certificate = Certificate::load(&config)?;
        // Held while it is told to all: nobody else tells them something older meanwhile.
        let mut current = self.current();
        if let (Some(new), Some(old)) = (&mut keys.jwt, &current.keys.jwt) {
            new.go_on_with(old);
        }
        *current = Current { config, keys };
        self.reconfigure(&current);
        drop(current);
        self.reloaded.notify_one();
        self.show(certificate);
        Ok(fixed)
    }

    /// Tells the parts of the server what holds now.
    fn reconfigure(&self, current: &Current) {
        self.pool.reconfigure(self.place.relay_settings(&current.config, &current.keys));
        self.pool.limit_sources(current.config.quota.connections_per_source);
        self.web.reconfigure(self.place.http_settings(&current.config, &current.keys));
    }

    /// Reads the key set of tokens again when it is due, where they are checked with one.
    async fn follow_keys(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        while !*stop.borrow() {
            let set = self.current().keys.jwt.as_ref().and_then(JwtKey::key_set).cloned();
            let is_due = async {
                match &set {
                    Some(set) => set.is_due().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = is_due => {}
                () = self.reloaded.notified() => continue,
                _ = stop.changed() => return,
            }
            let Some(set) = set else { continue };
            match tokio::task::spawn_blocking(move || set.read()).await {
                Ok(Ok(keys)) => tracing::debug!(keys, "key set of tokens read"),
                Ok(Err(problem)) => {
                    tracing::warn!(%problem, "the key set of tokens cannot be read; the old one stays")
                }
                Err(_) => {}
            }
        }
    }

    /// Looks after the parts of the server, and feeds the watchdog while all of them move.
    async fn look_out(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut was_well = true;
        let mut failures = FailureLog::new(Instant::now());
        let mut ebb = Ebb::default();
        let mut ticks = tokio::time::interval(self.health.interval());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !*stop.borrow() {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.changed() => break,
            }
            self.web.tell_relay_news(news::translate(self.pool.take_events()));
            failures.look(Instant::now(), || self.pool.take_auth_failures());
            let hub_answered = tokio::time::timeout(self.health.interval(), self.web.ping()).await.is_ok();
            self.health.note(&self.pool.beats(), hub_answered, Instant::now());
            match self.health.check(Instant::now()) {
                Ok(()) => systemd::watchdog(),
                Err(what) if was_well => tracing::error!(%what, "not well"),
                Err(_) => {}
            }
            was_well = self.health.check(Instant::now()).is_ok();
            if ebb.note(self.pool.allocations()) {
                tokio::task::spawn_blocking(crate::io::trim_memory);
            }
        }
    }
}

impl Observe for Running {
    fn snapshot(&self) -> Snapshot {
        let (relay, io) = self.pool.counters();
        Snapshot {
            relay,
            io,
            offload: self.pool.offload_counters(),
            refused: self.gate.refused(),
            beats: self.pool.beats(),
            signal: self.web.stats(),
            started_at: self.started_at,
            is_draining: self.is_draining.load(Ordering::Relaxed),
        }
    }

    fn is_live(&self) -> Result<(), String> {
        self.health.check(Instant::now())
    }

    fn is_ready(&self) -> Result<(), String> {
        if self.is_draining.load(Ordering::Relaxed) {
            return Err("draining".into());
        }
        self.books.as_ref().map_or(Ok(()), journal::Books::check)
    }
}

/// Checks that the certificate of HTTPS listeners can be used, for `turnkey config check`.
///
/// # Errors
/// Why not.
pub fn check_certificate(config: &Config) -> Result<(), config::Error> {
    Certificate::load(config).map(drop)
}

/// Seconds since 1970.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
