//! Starting: secrets, certificate, addresses, listeners, workers, hub, tasks, in this order, and nothing is
//! left behind where one of them fails.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::discovery::Discovery;
use super::entrance::{self, CurrentCertificate, Entrance, Gate, Inside};
use super::health::Health;
use super::journal;
use super::offload;
use super::past;
use super::settings::{Located, Place};
use super::tls::{Certificate, FileWatch};
use super::{Addresses, Current, Handle, Running, unix_now};
use crate::config::secret::{self, Keys};
use crate::config::{self, Config, HttpListener, RelayListener, address};
use crate::credential::{Issued, Nonces, Revoked};
use crate::offload::Offload;
use crate::store::{Location, Store, StoreError};
use crate::turn::{Listener, Transport};
use crate::worker::{self, Pool};
use crate::{admin, http, systemd};

/// Why a server did not start, in one line.
#[derive(Debug)]
pub enum StartError {
    /// Something in the configuration, or what it names, is wrong.
    Config(config::Error),
    /// The workers did not start.
    Workers(worker::StartError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(e) => e.fmt(f),
            Self::Workers(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<config::Error> for StartError {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

/// TCP listeners, bound.
struct Bound {
    relay: Vec<TcpListener>,
    http: Vec<(TcpListener, HttpListener)>,
    admin: Option<TcpListener>,
}

/// What is read before anything is bound. Blocks for files and name look-ups.
struct Read {
    keys: Keys,
    addresses: address::Addresses,
    certificate: Option<Certificate>,
    certificate_files: FileWatch,
}

fn read(config: &Config) -> Result<Read, config::Error> {
    let keys = Keys::load(config)?;
    let addresses = address::Addresses::find(config)?;
    let certificate_files = FileWatch::new(&config.tls);
    Ok(Read { keys, addresses, certificate: Certificate::load(config)?, certificate_files })
}

pub(super) async fn start(config: Config) -> Result<Handle, StartError> {
    let task = tokio::task::spawn_blocking(move || read(&config).map(|read| (config, read)));
    let (config, read) = task.await.expect("reading secrets does not panic")?;
    let Read { keys, addresses, certificate, certificate_files } = read;
    for note in config.notes() {
        tracing::warn!("{note}");
    }
    for warning in &keys.warnings {
        tracing::warn!("{warning}");
    }
    for note in &addresses.notes {
        tracing::info!("{note}");
    }
    let bound = bind(&config, &addresses)?;
    let relay = relay_listeners(&config, &addresses, certificate.as_ref());
    let discovery = Discovery::new(&config, &relay);
    let added = discovery.iter().flat_map(|discovery| discovery.added.iter().copied().map(Listener::Udp));
    let others = bound.http.iter().map(|(socket, _)| socket).chain(&bound.admin).map(local);
    let others = others.map(Listener::Tcp);
    let mut place = Place {
        other: others.chain(added).collect(),
        relay,
        discovery,
        shared: bound.http.iter().filter(|(_, listener)| listener.turns).map(shared).collect(),
        located: RwLock::new(Located::new(addresses)),
        nonces: Arc::new(Nonces::new(secret::random())),
        issued: Arc::new(Issued::new(&config.relay.realm)),
        revoked: Arc::default(),
    };
    let offload = offload::start(&config, &place)?;
    let pool = start_workers(&config, &keys, &place, certificate.as_ref(), offload)?;
    resolve_ports(&mut place.relay, &pool, &bound.relay);
    // Only now the ports are known that no peer may be at.
    pool.reconfigure(place.relay_settings(&config, &keys));
    let (journal, past, keeper, books) = match open_store(&config).await? {
        Some(Kept { journal, past, keeper, books }) => (Some(journal), Some(past), Some(keeper), Some(books)),
        None => (None, None, None, None),
    };
    let pool = Arc::new(pool);
    let (told, revocations) = mpsc::channel(1);
    let outside = http::Outside { journal, past, revoke: Some(revoke(Arc::clone(&place.revoked), told)) };
    let web = http::App::with(place.http_settings(&config, &keys), secret::random(), outside);
    tokio::spawn(end_revoked(Arc::clone(&pool), revocations));
    if let Some(keeper) = keeper {
        // Ends by itself with signaling, and so not before what it was given is written.
        keeper
            .start()
            .map_err(|error| config.error("store.url", format!("no thread for the database: {error}")))?;
    }
    let health = Health::new(systemd::watchdog_interval(), &pool.beats(), Instant::now());
    let stop = watch::Sender::new(false);
    let running = Arc::new(Running {
        gate: Arc::new(Gate::new(config.relay.proxy_from.clone(), stop.subscribe())),
        reloaded: Notify::new(),
        current: Mutex::new(Current { config, keys }),
        place,
        pool,
        web,
        health,
        books,
        certificate: watch::Sender::new(certificate.map(Arc::new)),
        is_draining: AtomicBool::new(false),
        stop,
        started_at: unix_now(),
    });
    Ok(spawn(running, bound, certificate_files))
}

/// The workers' looks at what was taken back are at least so far apart: each passes all allocations.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// What signaling calls: from now on no request with the credential succeeds.
fn revoke(revoked: Arc<Revoked>, told: mpsc::Sender<()>) -> http::Revoke {
    Box::new(move |id, until| {
        revoked.add(&id, until, unix_now());
        // Where one waits already, the look to come finds this one too.
        let _ = told.try_send(());
    })
}

/// Ends the allocations of credentials that were taken back, in every worker.
async fn end_revoked(pool: Arc<Pool>, mut revocations: mpsc::Receiver<()>) {
    while let Some(()) = revocations.recv().await {
        pool.revoke();
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// What the database is used by.
struct Kept {
    journal: http::Journal,
    past: mpsc::Sender<http::Lookup>,
    keeper: journal::Keeper,
    books: journal::Books,
}

/// Opens the database, unless there is to be none.
async fn open_store(config: &Config) -> Result<Option<Kept>, config::Error> {
    let Some(location) = store_location(config)? else { return Ok(None) };
    let (node, salt) = secret::node(config)?;
    let problem = |error: StoreError| match &location {
        Location::Embedded(directory) => {
            config.error("store.url", format!("{}: {error}", directory.join("turnkey.db").display()))
        }
        Location::Server(_) => config.error("store.url", format!("the database cannot be used: {error}")),
    };
    let store = match Store::open(&location, &node).await {
        Err(StoreError::InUse) => {
            tracing::warn!(
                "another server uses the database of this state directory: this one keeps nothing over a restart; \
                 set state_dir, or store.url = \"none\""
            );
            return Ok(None);
        }
        result => result.map_err(problem)?,
    };
    let archive = store.archive();
    let (journal, keeper, books) = journal::open(store, salt, config.store_keep).await.map_err(problem)?;
    Ok(Some(Kept { journal, past: past::start(archive), keeper, books }))
}

fn store_location(config: &Config) -> Result<Option<Location>, config::Error> {
    Ok(match &config.store {
        config::StoreUrl::None => None,
        config::StoreUrl::Embedded => Some(Location::Embedded(secret::private_state_dir(config)?)),
        config::StoreUrl::Server(url) => Some(Location::Server(url.clone())),
    })
}

/// The relay's listeners that this host can open. DTLS that nobody named is left out where the certificate is none
/// for it; who names it has been told when the certificate was read.
fn relay_listeners(
    config: &Config,
    addresses: &address::Addresses,
    certificate: Option<&Certificate>,
) -> Vec<RelayListener> {
    let problem = certificate.and_then(|certificate| certificate.dtls().err());
    if let Some(problem) = problem {
        tracing::info!("no DTLS listeners: {problem}");
    }
    let is_spoken = |transport| transport != Transport::Dtls || problem.is_none();
    let is_available = |listener: &&RelayListener| {
        let is_available = addresses.is_available(listener.address);
        if !is_available {
            tracing::info!(address = %listener.address, "no IPv6 on this host, listener left out");
        }
        is_available
    };
    let listeners = config.relay.listen.iter().filter(|listener| is_spoken(listener.transport));
    listeners.filter(is_available).copied().collect()
}

/// Puts actual ports in the place of 0.
fn resolve_ports(listeners: &mut [RelayListener], pool: &Pool, tcp: &[TcpListener]) {
    let (mut udp, mut dtls) = (pool.udp_addresses().iter().copied(), pool.dtls_addresses().iter().copied());
    let mut tcp = tcp.iter().map(local);
    for listener in listeners {
        let actual = match listener.transport {
            Transport::Udp => udp.next(),
            Transport::Dtls => dtls.next(),
            Transport::Tcp | Transport::Tls => tcp.next(),
        };
        listener.address = actual.unwrap_or(listener.address);
    }
}

fn start_workers(
    config: &Config,
    keys: &Keys,
    place: &Place,
    certificate: Option<&Certificate>,
    offload: Option<Arc<Offload>>,
) -> Result<Pool, StartError> {
    let of = |wanted| {
        let listeners = place.relay.iter().filter(move |listener| listener.transport == wanted);
        listeners.map(|listener| listener.address)
    };
    let added = place.discovery.iter().flat_map(|discovery| discovery.added.iter().copied());
    let setup = worker::Setup {
        workers: config.relay.workers,
        udp: of(Transport::Udp).chain(added).collect(),
        dtls: of(Transport::Dtls).collect(),
        identity: certificate.and_then(|certificate| certificate.dtls().ok().cloned()),
        backend: config.relay.backend,
        offload,
        shared_relay_port: config.relay.ports.shared(),
        sock_buf: config.relay.socket_buffer,
        tcp_connections: config.relay.tcp_connections,
        connections_per_source: config.quota.connections_per_source,
        ..worker::Setup::new(place.relay_settings(config, keys), secret::random())
    };
    worker::start(setup).map_err(|error| match &error {
        worker::StartError::Listen { address, .. } => {
            config.error(&relay_key(config, *address), error.to_string()).into()
        }
        worker::StartError::Relay { .. } => config.error("relay.public_address", error.to_string()).into(),
        worker::StartError::RelayPort { .. } => config.error("relay.ports", error.to_string()).into(),
        _ => StartError::Workers(error),
    })
}

/// The key of a listener's list entry.
fn relay_key(config: &Config, address: SocketAddr) -> String {
    let is_it = |listener: &RelayListener| listener.address == address && !listener.transport.is_stream();
    let other = if config.relay.alternate.is_some() { "relay.alternate" } else { "relay.listen" };
    config.relay.listen.iter().position(is_it).map_or(other.into(), |i| format!("relay.listen[{i}]"))
}

fn bind(config: &Config, addresses: &address::Addresses) -> Result<Bound, config::Error> {
    let mut bound = Bound { relay: Vec::new(), http: Vec::new(), admin: None };
    for (i, listener) in config.relay.listen.iter().enumerate() {
        if listener.transport.is_stream() && addresses.is_available(listener.address) {
            bound.relay.push(bind_one(config, &format!("relay.listen[{i}]"), listener.address)?);
        }
    }
    for (i, listener) in config.http.listen.iter().enumerate() {
        if addresses.is_available(listener.address) {
            let socket = bind_one(config, &format!("http.listen[{i}]"), listener.address)?;
            bound.http.push((socket, *listener));
        }
    }
    if let Some(address) = config.admin {
        bound.admin = Some(bind_one(config, "admin.listen", address)?);
    }
    Ok(bound)
}

fn bind_one(config: &Config, key: &str, address: SocketAddr) -> Result<TcpListener, config::Error> {
    use std::io::ErrorKind as Kind;
    entrance::bind(address).map_err(|error| {
        let port = address.port();
        let problem = match error.kind() {
            Kind::AddrInUse => {
                format!("{port}/tcp is in use ({address}) by another program: stop it or change {key}")
            }
            Kind::PermissionDenied => {
                format!("{port}/tcp ({address}) needs CAP_NET_BIND_SERVICE, or choose a port from 1024 on")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        config.error(key, problem)
    })
}

/// The relay's side of a listener that it shares with HTTPS.
fn shared((socket, _): &(TcpListener, HttpListener)) -> RelayListener {
    RelayListener { transport: Transport::Tls, address: local(socket) }
}

/// Starts the tasks, and says where the server listens.
fn spawn(running: Arc<Running>, bound: Bound, certificate_files: FileWatch) -> Handle {
    let mut tasks = JoinSet::new();
    let addresses = addresses(&running.place, running.pool.udp_addresses(), &bound);
    tracing::info!(backend = %running.pool.describe(), "relay");
    for listener in &running.place.relay {
        let scheme = listener.transport.scheme();
        tracing::info!(url = %format_args!("{scheme}://{}", listener.address), "listening");
    }
    let (for_relay, for_web) = {
        let config = &running.current().config;
        (config.relay.tcp_connections, places(config.http.max_connections))
    };
    let streams = running.place.relay.iter().filter(|listener| listener.transport.is_stream());
    for (socket, listener) in bound.relay.into_iter().zip(streams) {
        let inside = Inside::Relay(Arc::clone(&running.pool));
        let is_tls = listener.transport == Transport::Tls;
        // For those on their way to a worker, which counts them again: strangers who say nothing hold up no
        // other listener.
        tasks.spawn(running.entrance(socket, is_tls, inside, &places(for_relay)).serve());
    }
    let router = http::router(Arc::clone(&running.web));
    for (socket, listener) in bound.http {
        announce_http(local(&socket), listener);
        let inside = match listener.turns {
            true => Inside::Both(Arc::clone(&running.pool), router.clone()),
            false => Inside::Web(router.clone()),
        };
        tasks.spawn(running.entrance(socket, listener.https, inside, &for_web).serve());
    }
    if let Some(socket) = bound.admin {
        tracing::info!(url = %format_args!("http://{}", local(&socket)), listener = "admin", "listening");
        let inside = Inside::Web(admin::router(Arc::clone(&running) as _));
        tasks.spawn(running.entrance(socket, false, inside, &places(ADMIN_CONNECTIONS)).serve());
    }
    tasks.spawn(Arc::clone(&running).look_out());
    tasks.spawn(Arc::clone(&running).follow_keys());
    tasks.spawn(Arc::clone(&running).follow_addresses());
    tasks.spawn(Arc::clone(&running).watch_certificate(certificate_files));
    Handle { running, tasks, addresses }
}

fn addresses(place: &Place, udp: &[SocketAddr], bound: &Bound) -> Addresses {
    let of = |wanted| {
        let all = place.relay.iter().chain(&place.shared);
        all.filter(move |listener| listener.transport == wanted).map(|listener| listener.address)
    };
    Addresses {
        udp: udp.to_vec(),
        tcp: of(Transport::Tcp).collect(),
        tls: of(Transport::Tls).collect(),
        dtls: of(Transport::Dtls).collect(),
        http: bound.http.iter().map(|(socket, listener)| (local(socket), listener.https)).collect(),
        admin: bound.admin.as_ref().map(local),
    }
}

fn places(bound: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bound.min(Semaphore::MAX_PERMITS)))
}

/// Connections of the admin listener at a time.
const ADMIN_CONNECTIONS: usize = 32;

fn announce_http(address: SocketAddr, listener: HttpListener) {
    let scheme = listener.scheme();
    tracing::info!(url = %format_args!("{scheme}://{address}"), "listening");
    if !listener.https && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "plain HTTP: browsers give a page no camera and no microphone unless it comes over HTTPS or from \
             localhost; set tls.cert and tls.key, or tls.self_signed = true, or put a proxy with HTTPS in front"
        );
    }
}

impl Running {
    fn entrance(
        &self,
        socket: TcpListener,
        is_tls: bool,
        inside: Inside,
        connections: &Arc<Semaphore>,
    ) -> Entrance {
        let tls: Option<CurrentCertificate> = is_tls.then(|| self.certificate.subscribe());
        Entrance { socket, tls, inside, connections: Arc::clone(connections), gate: Arc::clone(&self.gate) }
    }
}

fn local(socket: &TcpListener) -> SocketAddr {
    socket.local_addr().expect("a bound socket has an address")
}
