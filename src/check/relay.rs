//! Traffic through the relay, with the client of the `turn` crate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtc_turn::client::{Client, ClientConfig};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use webrtc_util::Conn;

use super::ask::{Connection, Login};
use super::report::Problem;

/// How often an unanswered packet is sent again.
const REPEAT: Duration = Duration::from_millis(150);
/// Up to this many packets each way, so that the first go as Send indications and the last on a channel.
const ROUNDS: u32 = 3;

/// An allocation held by the `turn` crate's client.
pub(super) struct Relay {
    client: Client,
    conn: Arc<dyn Conn + Send + Sync>,
    pub(super) address: SocketAddr,
}

impl Relay {
    /// Allocates over a connection that has proved to answer.
    pub(super) async fn allocate(
        conn: Connection,
        place: &str,
        login: &Login,
        patience: Duration,
    ) -> Result<Self, Problem> {
        let failed = |error: &dyn std::fmt::Display| {
            Problem::new(
                format!("Allocate on {place} failed: {error}"),
                "see the server's log for the step that failed",
            )
        };
        let server = conn.remote_addr().map(|address| address.to_string()).unwrap_or_default();
        let config = ClientConfig {
            stun_serv_addr: server.clone(),
            turn_serv_addr: server,
            username: login.username.clone(),
            password: login.password.clone(),
            realm: String::new(),
            software: String::new(),
            rto_in_ms: 0,
            conn,
            vnet: None,
        };
        let client = Client::new(config).await.map_err(|error| failed(&error))?;
        client.listen().await.map_err(|error| failed(&error))?;
        let allocated = timeout(patience, client.allocate()).await.map_err(|_| failed(&"no answer"))?;
        let relay = allocated.map_err(|error| failed(&error))?;
        let address = relay.local_addr().map_err(|error| failed(&error))?;
        Ok(Self { client, conn: Arc::new(relay), address })
    }

    /// Sends from the relay to a socket of ours and back.
    pub(super) async fn echo(&self, peer: &Peer, patience: Duration) -> Result<(), EchoError> {
        let mut seen_up = false;
        let deadline = Instant::now() + patience;
        let mut done = 0;
        while done < ROUNDS {
            if Instant::now() >= deadline {
                return Err(if seen_up { EchoError::LostBack } else { EchoError::LostOut });
            }
            let text = format!("turnkey check {done}");
            self.send(text.as_bytes(), peer.address).await?;
            // Opens the way through a NAT in front of us.
            let _ = peer.socket.send_to(b"turnkey check: from the peer", self.address).await;
            let mut buffer = [0; 1500];
            let Ok(Ok((len, from))) = timeout(REPEAT, peer.socket.recv_from(&mut buffer)).await else {
                continue;
            };
            seen_up = true;
            let _ = peer.socket.send_to(&buffer[..len], from).await;
            if self.receives(text.as_bytes()).await {
                done += 1;
            }
        }
        Ok(())
    }

    /// Sends between two relays of the same server, both ways.
    pub(super) async fn echo_through(&self, other: &Self, patience: Duration) -> Result<(), EchoError> {
        let deadline = Instant::now() + patience;
        let mut done = 0;
        while done < ROUNDS {
            if Instant::now() >= deadline {
                return Err(EchoError::LostOut);
            }
            let text = format!("turnkey check {done}");
            self.send(text.as_bytes(), other.address).await?;
            other.send(text.as_bytes(), self.address).await?;
            if other.receives(text.as_bytes()).await && self.receives(text.as_bytes()).await {
                done += 1;
            }
        }
        Ok(())
    }

    /// Gives the allocation back.
    pub(super) async fn close(self) {
        // The server lets what is lost here expire.
        let _ = self.conn.close().await;
        let _ = self.client.close().await;
    }

    async fn send(&self, bytes: &[u8], to: SocketAddr) -> Result<(), EchoError> {
        let sent = self.conn.send_to(bytes, to).await;
        sent.map(drop).map_err(|error| {
            let text = error.to_string();
            if text.contains("403") { EchoError::Forbidden } else { EchoError::Other(text) }
        })
    }

    async fn receives(&self, wanted: &[u8]) -> bool {
        let mut buffer = [0; 1500];
        let wait = async {
            while let Ok((len, _)) = self.conn.recv_from(&mut buffer).await {
                if &buffer[..len] == wanted {
                    return true;
                }
            }
            false
        };
        timeout(REPEAT, wait).await.unwrap_or(false)
    }
}

/// A socket of ours that plays the other end of a call.
pub(super) struct Peer {
    pub(super) socket: Arc<UdpSocket>,
    /// Its address as the server sees it.
    pub(super) address: SocketAddr,
}

/// Why an echo did not come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EchoError {
    /// The peer policy forbids the peer's address.
    Forbidden,
    /// Nothing reached the peer.
    LostOut,
    /// Nothing came back to the client.
    LostBack,
    /// The client failed.
    Other(String),
}
