//! The relay's protocol state machine (RFC 8489, RFC 8656).
//!
//! Owns allocations, permissions, channels, ports, quotas and peer policy. Pure: time, randomness
//! and settings are arguments; sockets belong to the worker. The contract:
//!
//! - time never goes backwards;
//! - after each `handle_*` the caller drains [`Server::poll_output`] before the next one;
//! - a panic is a bug, never a consequence of input;
//! - nothing allocates between `handle_*` and a [`Verdict::Forward`];
//! - identical inputs give identical outputs.

mod output;
mod stats;

pub use output::{
    ClientPath, DropReason, FiveTuple, Forward, LinkId, Now, OpenError, Output, Prefix, RelayId, Transport,
    Verdict, Via,
};
pub use stats::{METHODS, RESULTS, Stats};

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::credential::{Nonces, Verifier};

/// Large enough for every reply this server writes.
pub const MAX_REPLY: usize = 1280;

/// The buffer replies are written into.
pub type ReplyBuffer = [u8; MAX_REPLY];

/// What a relay core is told when it starts and when the configuration is read again.
#[derive(Clone)]
pub struct Settings {
    /// Authentication realm (RFC 8489 §9.2).
    pub realm: Box<str>,
    /// Relay addresses, at most one a family: where to bind and what the world sees (1:1 NAT).
    pub addresses: Vec<RelayAddress>,
    /// Relay ports of the whole server; workers share them through [`Shared`].
    pub ports: RangeInclusive<u16>,
    /// Which peers clients may reach.
    pub peers: Arc<PeerPolicy>,
    /// Who may allocate.
    pub verifier: Arc<Verifier>,
    /// Keys of the stateless nonces, the same in every worker.
    pub nonces: Arc<Nonces>,
    /// Allocations per user, 0 for no limit.
    pub user_quota: u32,
    /// Allocations in all, 0 for no limit.
    pub total_quota: u32,
    /// Longest lifetime that is granted (RFC 8656 §7.2), 1 h by default.
    pub max_lifetime: Duration,
    /// Accept channel numbers 0x5000-0x7FFE of RFC 5766.
    pub legacy_channels: bool,
    /// End allocations when the credential they were made with expires.
    pub strict_expiry: bool,
    /// Bytes of unauthenticated replies a second for each source prefix (/24, /56); 0 for no limit.
    pub unauthenticated_rate: u32,
}

/// A relay address: where to bind and what clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// Address of this host to bind relay sockets to.
    pub bind: IpAddr,
    /// The same address as the world sees it.
    pub public: IpAddr,
}

/// Whether new allocations are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Normal service.
    #[default]
    Serving,
    /// Running calls go on, new Allocates are refused with 508.
    Draining,
}

/// State the workers of one process share: live ports and quotas, all without locks on the data path.
#[derive(Debug, Default)]
pub struct Shared {}

/// Which peers may be reached (design 4.4).
#[derive(Clone, Debug, Default)]
pub struct PeerPolicy {}

/// One relay core. A worker owns exactly one.
pub struct Server {}

impl Server {
    /// A core with no allocations. `seed` feeds its random source; `shared` is the same for all workers.
    #[must_use]
    pub fn new(_settings: Settings, _shared: Arc<Shared>, _seed: [u8; 32]) -> Self {
        unimplemented!("core is being written")
    }

    /// A datagram, or one framed message of a stream, from a client. A reply is written into `reply`.
    pub fn handle_client(
        &mut self,
        _now: Now,
        _path: ClientPath,
        _datagram: &[u8],
        _reply: &mut ReplyBuffer,
    ) -> Verdict {
        Verdict::Consumed
    }

    /// A datagram that arrived at a relay socket.
    pub fn handle_peer(
        &mut self,
        _now: Now,
        _relay: RelayId,
        _peer: SocketAddr,
        _datagram: &[u8],
    ) -> Verdict {
        Verdict::Consumed
    }

    /// The answer to [`Output::OpenRelay`]; the Allocate that waits for it is answered by the verdict.
    pub fn handle_relay_opened(
        &mut self,
        _now: Now,
        _relay: RelayId,
        _result: Result<(), OpenError>,
        _reply: &mut ReplyBuffer,
    ) -> Verdict {
        Verdict::Consumed
    }

    /// A client's connection is gone: its allocation goes with it.
    pub fn handle_client_closed(&mut self, _now: Now, _path: ClientPath) {}

    /// Lets everything expire that is due.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// The next effect to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When [`Server::handle_timeout`] wants to be called next, on the scale of [`Now::mono`]. O(1).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    /// Takes new settings; allocations stay.
    pub fn reconfigure(&mut self, _settings: Settings) {}

    /// Starts or ends a drain.
    pub fn set_mode(&mut self, _mode: Mode) {}

    /// Counters since start.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        unimplemented!("core is being written")
    }
}
