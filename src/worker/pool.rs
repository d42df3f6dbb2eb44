//! Starting, steering and stopping the workers.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};
use sha2::{Digest, Sha256};

use super::bind::{self, StartError};
use super::desk::{Command, Hand, Newcomer, Place, Snapshot, merge};
use super::dtls::SecureKit;
use super::offload::Mirrored;
use super::reserved::Reserved;
use super::ring;
use super::run::{Kit, WAKER};
use super::sources::Sources;
use super::{Arrival, Backend, Setup};
use crate::dtls::{Cookies, Identity};
use crate::io::Counters;
use crate::io::stream::Writer;
use crate::offload::{self, Offload};
use crate::turn::{self, AuthReport, DropReason, Event, Mode, Settings, Stats, WorkerId};

/// Commands that may wait at a worker.
const COMMANDS: usize = 1024;

/// As many workers as a [`WorkerId`] can name.
const MAX_WORKERS: usize = 256;

/// How long a question waits for a worker that does not answer before the last published counters do.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a connection that may have been read before it is handed over.
const MAX_FIRST: usize = 16 * 1024;

/// The running workers. Dropping it stops them.
pub struct Pool {
    hands: Arc<[Hand]>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<turn::Shared>,
    udp: Vec<SocketAddr>,
    dtls: Vec<SocketAddr>,
    backend: &'static str,
    offload: Option<Arc<Offload>>,
    connections: Arc<AtomicUsize>,
    max_connections: usize,
    sources: Arc<Sources>,
    refused: AtomicU64,
    origin: Instant,
}

/// Why a connection was not taken over. It is closed.
#[derive(Debug)]
pub enum AdoptError {
    /// As many connections as are allowed, or the worker is too busy to take more.
    Full,
    /// As many connections of its source as are allowed.
    SourceFull,
    /// More bytes were read from it than are ever needed to tell what it is.
    TooMuchRead,
    /// The workers have ended.
    Stopped,
}

impl std::error::Error for AdoptError {}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("too many TCP connections"),
            Self::SourceFull => f.write_str("too many TCP connections of one source"),
            Self::TooMuchRead => {
                f.write_str("too many bytes were read before the connection was handed over")
            }
            Self::Stopped => f.write_str("the relay has stopped"),
        }
    }
}

/// Binds all sockets, then starts the workers.
///
/// # Errors
/// See [`StartError`]; nothing is left bound or running.
pub fn start(setup: Setup) -> Result<Pool, StartError> {
    #[cfg(target_os = "linux")]
    crate::io::linux::raise_descriptor_limit();
    let linux = match setup.backend {
        Backend::Auto => cfg!(target_os = "linux"),
        Backend::Linux if cfg!(target_os = "linux") => true,
        Backend::Linux => return Err(StartError::NoBackend),
        Backend::Portable => false,
    };
    let workers = count(setup.workers);
    bind::try_relay_addresses(setup.settings.addresses.iter().map(|address| address.bind))?;
    // Who is not told where a datagram came to knows it by the socket.
    let own = if linux { Vec::new() } else { bind::own_addresses() };
    let bind = |addresses: &[SocketAddr]| bind::listeners(addresses, &own, workers, setup.sock_buf);
    let ((udp, mut groups), (dtls, secure)) = (bind(&setup.udp)?, bind(&setup.dtls)?);
    let first_secure = groups.first().map_or(0, Vec::len) as u32;
    groups.iter_mut().zip(secure).for_each(|(plain, secure)| plain.extend(secure));
    let settings = Arc::new(Settings { dont_fragment: linux, ..setup.settings });
    let (shared, relays) = match setup.shared_relay_port {
        None => (turn::Shared::new(settings.ports.clone()), (0..workers).map(|_| None).collect()),
        Some(port) => {
            let binds = settings.addresses.iter().map(|address| address.bind);
            let (relays, groups) = bind::shared_relays(binds, port, workers, setup.sock_buf)?;
            (turn::Shared::with_one_port(&relays), groups.into_iter().map(Some).collect::<Vec<_>>())
        }
    };
    let shared = Arc::new(match &setup.offload {
        Some(kernel) => {
            kernel.set_rates(settings.bandwidth.rates());
            shared.with_offload(kernel.capacity(), kernel.meters())
        }
        None => shared,
    });
    let cookies = Cookies::new(seed_of(&setup.seed, usize::MAX));
    let sessions = Arc::default();
    let sources = Sources::new(setup.connections_per_source);
    let reserved = Arc::new(Reserved::default());
    let origin = setup.offload.as_ref().map_or_else(Instant::now, |kernel| kernel.origin());
    let (hands, inboxes) = hands(workers).map_err(StartError::Resources)?;
    let pool = Pool {
        hands: Arc::clone(&hands),
        threads: Mutex::default(),
        shared: Arc::clone(&shared),
        udp,
        dtls,
        backend: if linux { "linux" } else { "portable" },
        offload: setup.offload.clone(),
        connections: Arc::default(),
        max_connections: setup.tcp_connections,
        sources: Arc::clone(&sources),
        refused: AtomicU64::new(0),
        origin,
    };
    let (ready, started) = sync_channel(workers);
    let starts = groups.into_iter().zip(inboxes).zip(relays).zip(ring::rings(workers));
    for (index, (((listeners, (poll, inbox)), relays), rings)) in starts.enumerate() {
        let kit = Kit {
            worker: WorkerId(index as u8),
            hands: Arc::clone(&hands),
            settings: Arc::clone(&settings),
            shared: Arc::clone(&shared),
            seed: seed_of(&setup.seed, index),
            listeners,
            relays,
            rings,
            poll,
            inbox,
            reserved: Arc::clone(&reserved),
            origin,
            relay_buf: setup.sock_buf / 4,
            tcp_idle: setup.tcp_idle,
            secure: SecureKit {
                first_listener: first_secure,
                cookies: cookies.clone(),
                identity: setup.identity.clone(),
                places: Arc::clone(&sessions),
                bound: setup.tcp_connections,
                sources: Arc::clone(&sources),
                origin,
            },
            mirrored: setup.offload.clone().map(Mirrored::new),
            ready: ready.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("turnkey-w{index}"))
            .spawn(move || kit.work(linux))
            .map_err(StartError::Resources)?;
        lock(&pool.threads).push(thread);
    }
    drop(ready);
    for _ in 0..workers {
        let gone = || io::Error::other("a worker ended at once");
        started.recv().map_err(|_| gone()).and_then(|result| result).map_err(StartError::Resources)?;
    }
    Ok(pool)
}

fn count(wanted: usize) -> usize {
    match wanted {
        // Without SO_REUSEPORT there is one socket an address, hence one worker.
        _ if !cfg!(unix) => 1,
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
        n => n.min(MAX_WORKERS),
    }
}

/// What a worker waits for.
type Inbox = (Poll, Receiver<Command>);

/// The workers as they see each other, and what each of them listens to.
fn hands(workers: usize) -> io::Result<(Arc<[Hand]>, Vec<Inbox>)> {
    let mut hands = Vec::with_capacity(workers);
    let mut inboxes = Vec::with_capacity(workers);
    for _ in 0..workers {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (commands, inbox) = sync_channel(COMMANDS);
        hands.push(Hand { commands, waker, desk: Arc::default() });
        inboxes.push((poll, inbox));
    }
    Ok((hands.into(), inboxes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seed_of(seed: &[u8; 32], worker: usize) -> [u8; 32] {
    Sha256::new().chain_update(seed).chain_update((worker as u64).to_be_bytes()).finalize().into()
}

impl Pool {
    /// The addresses listened on, in the order of [`Setup::udp`], with actual ports.
    #[must_use]
    pub fn udp_addresses(&self) -> &[SocketAddr] {
        &self.udp
    }

    /// Hands over an accepted connection.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub fn adopt(&self, arrival: Arrival) -> Result<(), AdoptError> {
        let result = self.try_adopt(arrival);
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn try_adopt(&self, arrival: Arrival) -> Result<(), AdoptError> {
        if arrival.first.len() > MAX_FIRST {
            return Err(AdoptError::TooMuchRead);
        }
        let fewest = |hand: &&Hand| hand.desk.connections.load(Ordering::Relaxed);
        let hand = self.hands.iter().min_by_key(fewest).ok_or(AdoptError::Stopped)?;
        let source = self.sources.enter(arrival.client.ip()).ok_or(AdoptError::SourceFull)?;
        let place = Place::take(&hand.desk, &self.connections, self.max_connections, source);
        let place = place.ok_or(AdoptError::Full)?;
        let newcomer = Newcomer { arrival, writer: Writer::new(), moves: 0, place };
        match hand.commands.try_send(Command::Adopt(newcomer)) {
            Ok(()) => hand.waker.wake().map_err(|_| AdoptError::Stopped),
            Err(TrySendError::Full(_)) => Err(AdoptError::Full),
            Err(TrySendError::Disconnected(_)) => Err(AdoptError::Stopped),
        }
    }

    /// The addresses DTLS is spoken at, in the order of [`Setup::dtls`], with actual ports.
    #[must_use]
    pub fn dtls_addresses(&self) -> &[SocketAddr] {
        &self.dtls
    }

    /// DTLS handshakes show this certificate from now on; sessions go on.
    pub fn identify(&self, identity: &Identity) {
        for hand in self.hands.iter() {
            hand.tell(Command::Identify(identity.clone()));
        }
    }

    /// Gives every worker new settings; running allocations stay.
    pub fn reconfigure(&self, settings: Settings) {
        let dont_fragment = self.backend == "linux";
        let settings = Arc::new(Settings { dont_fragment, ..settings });
        if let Some(kernel) = &self.offload {
            kernel.set_rates(settings.bandwidth.rates());
        }
        for hand in self.hands.iter() {
            hand.tell(Command::Reconfigure(Arc::clone(&settings)));
        }
    }

    /// Another limit of connections for each source; those there are stay.
    pub fn limit_sources(&self, connections: u32) {
        self.sources.set_limit(connections);
    }

    /// Ends the allocations of credentials that were taken back, but for those of a worker that is too busy to
    /// be told: there they end when they are not refreshed, which nobody can any more.
    pub fn revoke(&self) {
        for hand in self.hands.iter() {
            hand.tell(Command::Revoke);
        }
    }

    /// Starts or ends a drain.
    pub fn set_mode(&self, mode: Mode) {
        for hand in self.hands.iter() {
            hand.tell(Command::SetMode(mode));
        }
    }

    /// Counters of all workers together, of the relay and of sockets and connections. Waits up to two seconds
    /// for a busy worker, then takes what it published last.
    #[must_use]
    pub fn counters(&self) -> (Stats, Counters) {
        let mut stats = Stats::default();
        let mut io =
            Counters { streams_refused: self.refused.load(Ordering::Relaxed), ..Counters::default() };
        for snapshot in self.snapshots() {
            stats.merge(&snapshot.stats);
            io.merge(&snapshot.counters);
        }
        stats.events_dropped +=
            self.hands.iter().map(|hand| hand.desk.dropped_events.load(Ordering::Relaxed)).sum::<u64>();
        if let Some(kernel) = self.offload_counters() {
            stats.drops[DropReason::OverBandwidth as usize] += kernel.over_bandwidth;
        }
        (stats, io)
    }

    /// Counters of all workers together, of the relay; see [`Pool::counters`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters().0
    }

    /// What became of packets in the kernel, if it relays any.
    #[must_use]
    pub fn offload_counters(&self) -> Option<offload::Counters> {
        self.offload.as_ref().map(|kernel| kernel.counters())
    }

    /// Who failed to authenticate since the last call, at most one report a step. A worker hands its own over
    /// once a second.
    #[must_use]
    pub fn take_auth_failures(&self) -> Vec<AuthReport> {
        let mut all = Vec::new();
        self.hands
            .iter()
            .flat_map(|hand| hand.desk.take_failures())
            .for_each(|report| merge(&mut all, report));
        all
    }

    /// What happened to credentials and allocations since the last call, with when it did. A worker hands its own
    /// over once a second, and before it ends.
    #[must_use]
    pub fn take_events(&self) -> Vec<(Instant, Event)> {
        let events = self.hands.iter().flat_map(|hand| hand.desk.take_events());
        events.map(|event| (self.origin + event.at, event)).collect()
    }

    /// Counters of each worker.
    #[must_use]
    pub fn worker_stats(&self) -> Vec<Stats> {
        self.snapshots().into_iter().map(|snapshot| snapshot.stats).collect()
    }

    /// Counters of sockets and connections of all workers together; see [`Pool::counters`].
    #[must_use]
    pub fn io_stats(&self) -> Counters {
        self.counters().1
    }

    /// Allocations of all workers, reserved ports included; asks no worker.
    #[must_use]
    pub fn allocations(&self) -> u32 {
        self.shared.allocations()
    }

    /// Open TCP connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many turns each worker's loop has made. A healthy loop makes at least one a second.
    #[must_use]
    pub fn beats(&self) -> Vec<u64> {
        self.hands.iter().map(|hand| hand.desk.beats.load(Ordering::Relaxed)).collect()
    }

    /// How datagrams are moved, and by how many workers.
    #[must_use]
    pub fn describe(&self) -> String {
        let capabilities =
            self.hands.first().map(|hand| hand.desk.snapshot().capabilities).unwrap_or_default();
        let plural = if self.hands.len() == 1 { "" } else { "s" };
        format!("{} ({capabilities}), {} worker{plural}", self.backend, self.hands.len())
    }

    /// Makes one worker do nothing for a while, so that a watchdog can be tested.
    #[doc(hidden)]
    pub fn stall(&self, worker: usize, duration: Duration) {
        if let Some(hand) = self.hands.get(worker) {
            hand.tell(Command::Stall(duration));
        }
    }

    /// Stops the workers and waits for them. All ports are free afterwards. May be called again.
    pub fn stop(&self) {
        for hand in self.hands.iter() {
            // Waits for room if need be; fails only if the worker has ended.
            let _ = hand.commands.send(Command::Stop);
            let _ = hand.waker.wake();
        }
        for thread in lock(&self.threads).drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let (done, answers) = sync_channel(self.hands.len());
        let asked = self.hands.iter().filter(|hand| hand.tell(Command::Publish(done.clone()))).count();
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..asked {
            if answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
                break;
            }
        }
        self.hands.iter().map(|hand| hand.desk.snapshot()).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}
