//! Where connections come in: HTTP, HTTPS, TURN over TCP and TLS, or several of them on one port.
//!
//! Owns what a stranger can cost before the first request: connections and TLS handshakes are counted and
//! bounded; a PROXY header and a handshake have 10 seconds together, the first bytes inside TLS another 10.
//! Knows neither routes nor STUN: who has come in is given to the router or to a worker.

mod proxy;
mod web;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::io::AsyncBufReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::{Certificate, Protocols};
use crate::io::stream::Socket;
use crate::io::tcp;
use crate::proxy::Ends;
use crate::turn::Network;
use crate::worker::{Arrival, Pool};

/// How long a PROXY header with a TLS handshake, then the first bytes, then each request header may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long open requests may take to finish when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// TLS handshakes at a time, each some 30 KB: few enough to bound memory, too many for a handful of strangers
/// who start one and fall silent to keep everybody else waiting.
const HANDSHAKES: usize = 1024;

/// Pause after an accept that failed for want of resources, which waiting alone can cure.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is let in at a listener, and where they go.
#[derive(Clone)]
pub(super) enum Inside {
    /// To the relay.
    Relay(Arc<Pool>),
    /// To the web page, API and signaling.
    Web(Router),
    /// To the one or the other: told apart by ALPN, or by the first byte inside TLS.
    Both(Arc<Pool>, Router),
}

/// The certificate in force; changes while connections come in. `None` once it is configured away.
pub(super) type CurrentCertificate = watch::Receiver<Option<Arc<Certificate>>>;

/// What all listeners share.
pub(super) struct Gate {
    /// Proxies whose PROXY header is believed, and who must send one.
    pub(super) proxies: Vec<Network>,
    /// Turns true when the server stops.
    pub(super) stop: watch::Receiver<bool>,
    handshakes: Semaphore,
    refused: [AtomicU64; Refusal::LABELS.len()],
}

impl Gate {
    pub(super) fn new(proxies: Vec<Network>, stop: watch::Receiver<bool>) -> Self {
        Self { proxies, stop, handshakes: Semaphore::new(HANDSHAKES), refused: Default::default() }
    }

    /// Connections that were not let in since start, by reason.
    pub(super) fn refused(&self) -> Vec<(&'static str, u64)> {
        let counts = self.refused.iter().map(|counter| counter.load(Ordering::Relaxed));
        Refusal::LABELS.into_iter().zip(counts).collect()
    }

    fn trusts(&self, proxy: SocketAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(proxy.ip()))
    }

    fn count(&self, refusal: &Refusal) {
        self.refused[refusal.index()].fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a connection was not let in.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No PROXY header, or a wrong one, from a proxy that must send it.
    ProxyHeader,
    /// No TLS, no common protocol or version.
    Handshake(io::Error),
    /// A header, handshake or first byte that did not come.
    Silence,
    /// The other side has gone.
    Gone,
}

impl Refusal {
    /// The label of each in metrics.
    const LABELS: [&'static str; 4] = ["proxy_header", "handshake", "silence", "gone"];

    fn index(&self) -> usize {
        match self {
            Self::ProxyHeader => 0,
            Self::Handshake(_) => 1,
            Self::Silence => 2,
            Self::Gone => 3,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProxyHeader => f.write_str("no PROXY header from a source in relay.proxy_from"),
            Self::Handshake(error) => write!(f, "tls handshake: {error}"),
            Self::Silence => write!(f, "nothing came within {} s", PATIENCE.as_secs()),
            Self::Gone => f.write_str("the other side has gone"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// One listener.
pub(super) struct Entrance {
    /// Where connections come from.
    pub(super) socket: TcpListener,
    /// `None`: in the clear.
    pub(super) tls: Option<CurrentCertificate>,
    /// Where they go.
    pub(super) inside: Inside,
    /// Connections that are left, shared by listeners of one kind.
    pub(super) connections: Arc<Semaphore>,
    /// What all listeners share.
    pub(super) gate: Arc<Gate>,
}

impl Entrance {
    /// Accepts until told to stop, then lets open requests finish for a moment.
    pub(super) async fn serve(self) {
        let mut stop = self.gate.stop.clone();
        let mut open = JoinSet::new();
        loop {
            // A permit comes first: beyond the bound, connections wait in the kernel's queue.
            let next = async {
                let permit = Arc::clone(&self.connections).acquire_owned().await;
                (permit, self.socket.accept().await)
            };
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(_) = open.join_next() => {}
                (permit, accepted) = next => match accepted {
                    Ok((stream, client)) => {
                        let visit = self.visit(client);
                        open.spawn(async move {
                            visit.receive(stream).await;
                            drop(permit);
                        });
                    }
                    Err(error) if tcp::is_of_one_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        drop(self.socket);
        let finish = async { while open.join_next().await.is_some() {} };
        // What does not finish is cut when the set is dropped.
        let _ = timeout(FAREWELL, finish).await;
    }

    fn visit(&self, client: SocketAddr) -> Visit {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let protocols = match &self.inside {
            Inside::Relay(_) => Protocols::Relay,
            Inside::Web(_) => Protocols::Web,
            Inside::Both(..) => Protocols::Both,
        };
        let tls = self.tls.as_ref().map(|current| {
            current.borrow().as_ref().map(|certificate| TlsAcceptor::from(certificate.settings(protocols)))
        });
        Visit { client, tls, inside: self.inside.clone(), gate: Arc::clone(&self.gate) }
    }
}

/// A connection on its way in.
struct Visit {
    /// Who it comes from, or the proxy in front of them.
    client: SocketAddr,
    /// `None`: in the clear. `Some(None)`: there is no certificate any more.
    tls: Option<Option<TlsAcceptor>>,
    inside: Inside,
    gate: Arc<Gate>,
}

/// A connection that has shown what it is.
enum Guest {
    Clear(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
    /// It wanted something else, and was told so.
    Turned,
}

impl Visit {
    async fn receive(self, stream: TcpStream) {
        // Not having it costs latency, nothing else.
        let _ = stream.set_nodelay(true);
        let result = self.let_in(stream).await;
        if let Err(refusal) = result {
            self.gate.count(&refusal);
            tracing::debug!(%refusal, client = %self.client, "connection not let in");
        }
    }

    async fn let_in(&self, stream: TcpStream) -> Result<(), Refusal> {
        let local = stream.local_addr()?;
        let entered = timeout(PATIENCE, self.enter(stream)).await.map_err(|_| Refusal::Silence)?;
        let (ends, guest) = entered?;
        let ends = ends.unwrap_or(Ends { client: self.client, server: local });
        let stop = self.gate.stop.clone();
        match (guest, &self.inside) {
            (Guest::Turned, _) => {}
            (Guest::Clear(stream), Inside::Relay(pool)) => {
                hand_over(pool, Socket::plain(stream.into_std()?)?, ends);
            }
            (Guest::Clear(stream), Inside::Web(router) | Inside::Both(_, router)) => {
                web::serve(stream, ends.client, router.clone(), stop).await;
            }
            (Guest::Secure(stream), Inside::Relay(pool)) => hand_over(pool, secure(*stream)?, ends),
            (Guest::Secure(stream), Inside::Web(router)) => {
                web::serve(stream, ends.client, router.clone(), stop).await;
            }
            (Guest::Secure(mut stream), Inside::Both(pool, router)) => {
                let asked = timeout(PATIENCE, is_for_relay(&mut stream, ends.client)).await;
                if asked.map_err(|_| Refusal::Silence)?? {
                    hand_over(pool, secure(*stream)?, ends);
                } else {
                    web::serve(stream, ends.client, router.clone(), stop).await;
                }
            }
        }
        Ok(())
    }

    /// The PROXY header and the handshake.
    async fn enter(&self, mut stream: TcpStream) -> Result<(Option<Ends>, Guest), Refusal> {
        // Proxies in front of plain HTTP speak HTTP: they name their clients in X-Forwarded-For.
        let is_plain_web = self.tls.is_none() && matches!(self.inside, Inside::Web(_));
        let ends = match !is_plain_web && self.gate.trusts(self.client) {
            true => proxy::read(&mut stream).await?,
            false => None,
        };
        let guest = match &self.tls {
            None => Guest::Clear(stream),
            Some(None) => Guest::Turned,
            Some(Some(acceptor)) => self.handshake(acceptor, stream).await?,
        };
        Ok((ends, guest))
    }

    async fn handshake(&self, acceptor: &TlsAcceptor, stream: TcpStream) -> Result<Guest, Refusal> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(Refusal::Gone);
        }
        // A handshake record starts with 22; a letter is somebody's plain HTTP.
        if first[0].is_ascii_uppercase() && !matches!(self.inside, Inside::Relay(_)) {
            web::tell_of_https(stream).await?;
            return Ok(Guest::Turned);
        }
        // Closed with the server only.
        let _permit = self.gate.handshakes.acquire().await;
        let accepted = acceptor.accept(stream).await.map_err(Refusal::Handshake)?;
        Ok(Guest::Secure(Box::new(accepted)))
    }
}

/// Whether the client of a port for both wants the relay. Chromium asks for no protocol by ALPN for `turns:`, so the
/// first byte decides where there is none: the two top bits of a STUN message are zero, no HTTP method's are.
async fn is_for_relay(stream: &mut TlsStream<TcpStream>, client: SocketAddr) -> Result<bool, Refusal> {
    let alpn = stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    let is_for_relay = match &alpn {
        Some(protocol) => protocol.starts_with("stun."),
        None => stream.fill_buf().await?.first().ok_or(Refusal::Gone)? >> 6 == 0,
    };
    let guest = if is_for_relay { "relay" } else { "web" };
    tracing::debug!(%client, alpn = alpn.as_deref().unwrap_or("none"), guest, "told apart");
    Ok(is_for_relay)
}

/// The session as a worker takes it, with what it has read.
fn secure(stream: TlsStream<TcpStream>) -> io::Result<Socket> {
    let (stream, session) = stream.into_inner();
    Socket::tls(stream.into_std()?, session)
}

fn hand_over(pool: &Pool, socket: Socket, ends: Ends) {
    if let Err(error) = pool.adopt(Arrival::between(socket, ends.client, ends.server, Vec::new())) {
        tracing::debug!(%error, "connection refused");
    }
}

/// Returns when the server stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Its sender goes only with the server.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Opens a TCP listener; one of IPv6 takes IPv6 only.
///
/// # Errors
/// As bind(2) and listen(2).
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run that linger in TIME_WAIT must not keep the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
