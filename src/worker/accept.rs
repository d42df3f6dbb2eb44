//! Accepting TCP clients on the runtime and handing them to the workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::arrival::Arrival;
use super::pool::Pool;

/// Pause after an accept that failed for want of resources, which waiting alone can cure.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and gives each to the worker with the fewest, for ever. A connection that finds
/// no place is closed and counted.
pub async fn accept_tcp(listener: TcpListener, pool: Arc<Pool>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let arrival = stream.into_std().and_then(|stream| Arrival::plain(stream, Vec::new()));
                // One that is gone already needs no place.
                if let Ok(Err(error)) = arrival.map(|arrival| pool.adopt(arrival)) {
                    tracing::debug!(%error, "connection refused");
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The connection was gone before it was accepted; the listener is well.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused)
}
