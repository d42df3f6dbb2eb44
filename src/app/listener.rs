//! The accept loop of HTTP and HTTPS listeners.
//!
//! Owns what a stranger can cost before a request is read: connections and TLS handshakes are counted and
//! bounded, a handshake and a request header have 10 seconds. Knows nothing of routes.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// How long a TLS handshake, and then each request header, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long open requests may take to finish when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Handshakes at a time, each some 30 KB: few enough to bound memory, too many for a handful of strangers who
/// start one and fall silent to keep everybody else waiting.
const HANDSHAKES: usize = 1024;

/// A certificate that can be replaced while connections are accepted.
pub(super) type SharedAcceptor = Arc<RwLock<Option<TlsAcceptor>>>;

/// One HTTP or HTTPS listener.
pub(super) struct Listener {
    /// Where connections come from.
    pub(super) socket: TcpListener,
    /// `None`: plain HTTP.
    pub(super) tls: Option<SharedAcceptor>,
    /// Who answers.
    pub(super) router: Router,
    /// Connections that are left, shared by all listeners.
    pub(super) connections: Arc<Semaphore>,
    /// Turns true when the server stops.
    pub(super) stop: watch::Receiver<bool>,
}

impl Listener {
    /// Accepts until told to stop, then lets open requests finish for a moment.
    pub(super) async fn serve(self) {
        let mut stop = self.stop.clone();
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
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
                        let connection = self.connection(stream, client, Arc::clone(&handshakes));
                        open.spawn(async move {
                            connection.await;
                            drop(permit);
                        });
                    }
                    Err(e) => {
                        tracing::warn!(error = %e, "connection not accepted");
                        // Out of descriptors or memory: trying again at once would spin.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(self.socket);
        let finish = async { while open.join_next().await.is_some() {} };
        // What does not finish is cut when the set is dropped.
        let _ = timeout(FAREWELL, finish).await;
    }

    fn connection(
        &self,
        stream: TcpStream,
        client: SocketAddr,
        handshakes: Arc<Semaphore>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let acceptor = self.tls.as_ref().map(|tls| tls.read().unwrap_or_else(|e| e.into_inner()).clone());
        let (router, stop) = (self.router.clone(), self.stop.clone());
        async move {
            // Not having it costs latency, nothing else.
            let _ = stream.set_nodelay(true);
            match acceptor {
                None => http(stream, client, router, stop).await,
                Some(None) => {}
                Some(Some(acceptor)) => {
                    let Ok(Some(stream)) = timeout(PATIENCE, handshake(acceptor, stream, &handshakes)).await
                    else {
                        return;
                    };
                    http(stream, client, router, stop).await;
                }
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
    handshakes: &Semaphore,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let mut first = [0];
    // A handshake record starts with 22; a letter is somebody's plain HTTP.
    if stream.peek(&mut first).await.ok()? == 1 && first[0].is_ascii_uppercase() {
        let answer = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
                      This port speaks HTTPS: write https:// in front of the address.\n";
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()?;
        return None;
    }
    let _permit = handshakes.acquire().await.ok()?;
    match acceptor.accept(stream).await {
        Ok(stream) => Some(stream),
        Err(e) => {
            tracing::debug!(error = %e, "tls handshake failed");
            None
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(client));
        TowerToHyperService::new(router.clone()).call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = result {
        tracing::debug!(error = %e, "http connection ended");
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
pub(super) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
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
