//! The relay's threads: one `turn::Server`, its sockets and one loop each.
//!
//! Owns threads, the poll, and the translation between the core's words and sockets: a [`Forward`] into
//! a packet of the send batch, a `RelayId` into a bound socket, a `LinkId` into a listener or
//! connection. Decides nothing about TURN. Workers share no state on the data path; a [`Pool`] talks
//! to them through a bounded channel each and reads counters they publish.
//!
//! [`Forward`]: crate::turn::Forward

mod arrival;
mod bind;
mod clock;
mod connections;
mod desk;
mod dtls;
mod effects;
mod moving;
mod neighbours;
mod offload;
mod one_port;
mod pace;
mod peer_errors;
mod pool;
mod relayed;
mod reserved;
mod ring;
mod run;
mod sessions;
mod slots;
mod sources;
mod streams;

pub use arrival::Arrival;
pub use bind::{BindCause, StartError};
pub use pool::{AdoptError, Pool, start};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dtls::Identity;
use crate::offload::Offload;
use crate::turn;

/// How datagrams are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The best this system has.
    #[default]
    Auto,
    /// Batches and segmentation offload of Linux.
    Linux,
    /// One datagram a system call.
    Portable,
}

/// What a pool of workers is started with.
#[derive(Clone)]
pub struct Setup {
    /// Threads; 0 for one a core.
    pub workers: usize,
    /// UDP listeners; port 0 is resolved once and then the same in every worker.
    pub udp: Vec<SocketAddr>,
    /// DTLS listeners, likewise.
    pub dtls: Vec<SocketAddr>,
    /// What DTLS listeners show; without it they answer nobody.
    pub identity: Option<Identity>,
    /// Settings of the relay cores.
    pub settings: turn::Settings,
    /// One relay port for all allocations, in place of a range; 0 takes a free one of each relay address.
    pub shared_relay_port: Option<u16>,
    /// How datagrams are moved.
    pub backend: Backend,
    /// The kernel relays bound channels by itself.
    pub offload: Option<Arc<Offload>>,
    /// Bytes of kernel buffer to ask for at each listener, in each direction; relay sockets ask for a
    /// quarter.
    pub sock_buf: usize,
    /// TCP connections of all workers together, and as many DTLS sessions.
    pub tcp_connections: usize,
    /// TCP connections and DTLS sessions of one source (an IPv4 address, an IPv6 /64); 0 for no limit.
    pub connections_per_source: u32,
    /// A TCP connection or DTLS session without an allocation is closed after this time without a message.
    pub tcp_idle: Duration,
    /// Seed of the cores' random sources, from the system's.
    pub seed: [u8; 32],
}

impl Setup {
    /// A setup with the defaults: a worker for each core, no listener yet.
    #[must_use]
    pub fn new(settings: turn::Settings, seed: [u8; 32]) -> Self {
        Self {
            workers: 0,
            udp: Vec::new(),
            dtls: Vec::new(),
            identity: None,
            settings,
            shared_relay_port: None,
            backend: Backend::Auto,
            offload: None,
            sock_buf: 4 << 20,
            tcp_connections: 10_000,
            connections_per_source: 0,
            tcp_idle: Duration::from_secs(60),
            seed,
        }
    }
}
