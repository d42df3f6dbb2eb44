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

mod allocation;
mod auth;
mod bandwidth;
mod events;
mod failures;
mod icmp;
mod ip_header;
mod limiter;
mod mobility;
mod offload;
mod one_port;
mod output;
mod peer_connections;
mod policy;
mod ports;
mod reach;
mod redirect;
mod relay;
mod request;
mod reservation;
mod shared;
mod stats;
mod table;
mod tcp_relaying;
mod timers;

pub use bandwidth::{Bandwidth, SharedWords, nanos};
pub use events::{Account, Event, Happening};
pub use failures::AuthReport;
pub use icmp::Icmp;
pub use ip_header::IpFields;
pub use mobility::{Asked, Moving};
pub use offload::{Count, FlowId, NO_METER, OffloadRow, Usage};
pub use output::{
    ClientPath, DropReason, FiveTuple, Forward, LinkId, Now, OpenError, Output, PeerLink, Prefix, RelayId,
    Run, Transport, Verdict, Via, WorkerId,
};
pub use policy::{Listener, Network, NetworkError, PeerPolicy};
pub use redirect::Redirect;
pub use request::{Vantage, Vantages};
pub use shared::{MAX_RELAY_ADDRESSES, Shared};
pub use stats::{METHODS, RESULTS, Stats};
pub use table::Owner;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::credential::{KnownKeys, Nonces, Verifier};
use crate::stun::{self, Class, Message, Method, PacketKind};
use allocation::{Allocation, Relay};
use events::Events;
use failures::Failures;
use limiter::Limiter;
use offload::Mirror;
use peer_connections::PeerConnections;
use reach::may_permit;
use relay::DataPath;
use request::{Origin, Request, refuse_unknown};
use reservation::Token;
use shared::Family;
use table::{AllocationId, Table};
use timers::Timers;

/// Lifetime of an allocation that asks for none, and the least one gets (RFC 8656 §7.2).
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);

/// Room for as many outputs is kept; more are there when many allocations end at once.
const MIN_OUTPUTS: usize = 64;

/// As many timers are kept without a look at whether anybody waits for them.
const MIN_TIMERS: usize = 1024;

/// So many allocations are not all near when a packet wants one.
const MANY: usize = 2048;

/// Large enough for every reply this server writes.
pub const MAX_REPLY: usize = 1280;

/// The buffer replies are written into.
pub type ReplyBuffer = [u8; MAX_REPLY];

/// What a relay core is told when it starts and when the configuration is read again.
#[derive(Clone)]
pub struct Settings {
    /// Authentication realm (RFC 8489 §9.2).
    pub realm: Box<str>,
    /// Relay addresses, any number of a family: where to bind and what the world sees (1:1 NAT). No two
    /// bind to the same.
    pub addresses: Vec<RelayAddress>,
    /// What relay addresses were before they changed, newest first: allocations made then go on.
    pub former: Vec<RelayAddress>,
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
    /// Bytes a second that are relayed.
    pub bandwidth: Bandwidth,
    /// Longest lifetime that is granted (RFC 8656 §7.2), 1 h by default.
    pub max_lifetime: Duration,
    /// Serve TCP allocations (RFC 6062).
    pub tcp: bool,
    /// Let allocations move with their clients (RFC 8016).
    pub mobility: bool,
    /// DONT-FRAGMENT can be done (RFC 8656 §18.9); where not it is an unknown attribute.
    pub dont_fragment: bool,
    /// Accept channel numbers 0x5000-0x7FFE of RFC 5766.
    pub legacy_channels: bool,
    /// End allocations when the credential they were made with expires.
    pub strict_expiry: bool,
    /// Bytes of unauthenticated replies a second for each source prefix (/24, /56); 0 for no limit.
    pub unauthenticated_rate: u32,
    /// Where clients are sent while this server takes none.
    pub redirect: Option<Redirect>,
    /// The listeners of NAT behaviour discovery (RFC 5780 §6); none: it is off.
    pub vantages: Option<Box<Vantages>>,
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
    /// Running calls go on, new Allocates are refused with 508, or with 300 where another server is known.
    Draining,
}

/// One relay core. A worker owns exactly one.
pub struct Server {
    settings: Settings,
    /// Keys under these settings.
    known: KnownKeys,
    shared: Arc<Shared>,
    worker: WorkerId,
    table: Table,
    peers: PeerConnections,
    /// Allocations with a path that is still to be confirmed.
    moves: usize,
    /// The allocation that leaves for another worker.
    leaving: Option<Box<Moving>>,
    timers: Timers,
    mirror: Mirror,
    limiter: Limiter,
    /// Ports this core has reserved, by when; some have been claimed since.
    reserved: VecDeque<(Duration, Token)>,
    outputs: VecDeque<Output>,
    mode: Mode,
    failures: Failures,
    events: Events,
    stats: Stats,
    rng: StdRng,
}

impl Server {
    /// A core with no allocations. `seed` feeds its random source; `shared` is the same for all workers,
    /// `worker` is this one among them.
    #[must_use]
    pub fn new(settings: Settings, shared: Arc<Shared>, worker: WorkerId, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        // Both from the seed, so that the same inputs give the same outputs.
        let hasher = SeedableRandomState::with_seed(rng.next_u64(), SharedSeed::global_fixed());
        Self {
            table: Table::new(hasher.clone()),
            peers: PeerConnections::new(worker, hasher.clone()),
            moves: 0,
            leaving: None,
            limiter: Limiter::new(settings.unauthenticated_rate, hasher),
            settings,
            known: KnownKeys::default(),
            shared,
            worker,
            timers: Timers::default(),
            mirror: Mirror::default(),
            reserved: VecDeque::new(),
            outputs: VecDeque::new(),
            mode: Mode::Serving,
            failures: Failures::default(),
            events: Events::default(),
            stats: Stats::default(),
            rng,
        }
    }

    /// A datagram, or one framed message of a stream, from a client, with what its IP header said. A
    /// reply is written into `reply`.
    pub fn handle_client(
        &mut self,
        now: Now,
        path: ClientPath,
        ip: IpFields,
        run: Run<'_>,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        self.handle(now, path, ip, run, Origin::Client, reply)
    }

    /// The same for a message that came from another worker or that could not be moved to it. What is
    /// still held elsewhere is taken as not held at all, so that no message moves twice.
    pub fn handle_unmoved(
        &mut self,
        now: Now,
        path: ClientPath,
        packet: &[u8],
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        self.handle(now, path, IpFields::default(), packet.into(), Origin::Moved, reply)
    }

    fn handle(
        &mut self,
        now: Now,
        path: ClientPath,
        ip: IpFields,
        run: Run<'_>,
        origin: Origin,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        let packet = run.first();
        match stun::classify(packet) {
            PacketKind::ChannelData => {
                self.confirm_by_use(&path);
                let (data_path, rng) = self.data_path(now, ip);
                let result = data_path.channel_data(&path, run, rng);
                self.forward_from_client(result)
            }
            PacketKind::Stun if is_suspicious(&path.five_tuple) => self.drop(DropReason::SuspiciousSource),
            PacketKind::Stun => match Message::parse(packet) {
                Ok(message) => self.handle_message(&Request { now, path, ip, message, origin }, reply),
                Err(_) => self.drop(DropReason::Malformed),
            },
            PacketKind::Other => self.drop(DropReason::Malformed),
        }
    }

    fn handle_message(&mut self, request: &Request<'_>, reply: &mut ReplyBuffer) -> Verdict {
        if request.message.verify_fingerprint() == Some(false) {
            return self.drop(DropReason::BadFingerprint);
        }
        match request.message.class() {
            Class::Request => self.handle_request(request, reply),
            // RFC 8656 §11.2: whatever is wrong with an indication, nothing is said about it.
            Class::Indication => match request.message.method() {
                Method::SEND if refuse_unknown(&request.message, self.settings.dont_fragment).is_ok() => {
                    let result = self.claim_for_send(request).and_then(|()| {
                        self.confirm_by_use(&request.path);
                        let (data_path, rng) = self.data_path(request.now, request.ip);
                        data_path.send_indication(&request.path, &request.message, rng)
                    });
                    self.forward_from_client(result)
                }
                // A keep-alive (RFC 8489 §12).
                Method::BINDING => Verdict::Consumed,
                _ => self.drop(DropReason::UnusableIndication),
            },
            Class::Success | Class::Error => self.drop(DropReason::UnexpectedClass),
        }
    }

    /// What a peer has sent to a relay socket, with what its IP header said.
    pub fn handle_peer(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        ip: IpFields,
        run: Run<'_>,
    ) -> Verdict {
        let (data_path, rng) = self.data_path(now, ip);
        let result = data_path.peer_datagram(relay, peer, run, rng);
        self.forward_to_client(result)
    }

    /// Packets of these relay sockets are about to come. With thousands of allocations each lies in memory that was last used
    /// long ago: looked at together, they are waited for together.
    pub fn expect_peers(&self, relays: impl Iterator<Item = RelayId>) {
        relays.filter_map(|relay| self.table.named_by(relay)).for_each(Allocation::touch);
    }

    /// The same of clients, whose allocations have to be looked up for it: not worth it where there are so few that they are
    /// near anyway.
    pub fn expect_clients(&self, five_tuples: impl Iterator<Item = FiveTuple>) {
        if self.table.len() < MANY {
            return;
        }
        five_tuples.filter_map(|five_tuple| self.table.of_client(&five_tuple)).for_each(Allocation::touch);
    }

    /// What a client of another worker has sent to the relayed address of an allocation of this one: the
    /// payload of a [`Via::Neighbour`], from that client's relayed address.
    pub fn handle_neighbour(
        &mut self,
        now: Now,
        to: Owner,
        from: SocketAddr,
        ip: IpFields,
        payload: &[u8],
    ) -> Verdict {
        let (data_path, rng) = self.data_path(now, ip);
        let result = data_path.neighbour_datagram(to, from, payload.len(), rng);
        self.forward_to_client(result)
    }

    /// A client's connection is gone: its allocation goes with it, unless a ticket may lead back to it.
    pub fn handle_client_closed(&mut self, now: Now, path: ClientPath) {
        let Some(id) = self.table.id_of(&path.five_tuple) else { return };
        self.lose_path(id, &path, now);
    }

    /// Lets everything expire that is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire_reservations(now);
        while let Some((at, id)) = self.timers.pop_due(now.mono) {
            if self.table.get(id).is_some_and(|allocation| allocation.scheduled == at) {
                self.expire(id, now);
            }
        }
        // Last: a Connect of an allocation that has just ended has nobody to be answered.
        self.expire_peers(now);
    }

    fn expire(&mut self, id: AllocationId, now: Now) {
        for family in Family::BOTH {
            let relay = self.table.get(id).and_then(|allocation| allocation.relay(family));
            if relay.is_some_and(|relay| relay.expires <= now.mono) {
                self.close_relay(id, family, now);
            }
        }
        let Some(allocation) = self.table.get_mut(id) else { return };
        allocation.expire(now.mono);
        allocation.scheduled = allocation.next_deadline();
        self.timers.schedule(allocation.scheduled, id);
        self.settle_claims(id);
        self.settle_flows(id);
    }

    /// The next effect to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && self.outputs.capacity() > MIN_OUTPUTS {
            self.outputs.shrink_to(MIN_OUTPUTS);
        }
        output
    }

    /// Whether a stranger on this 5-tuple may be sent an answer of so many bytes by what stands in front of
    /// the core: the rules and the rate are those of unauthenticated replies.
    pub fn may_answer(&mut self, now: Now, five_tuple: &FiveTuple, bytes: usize) -> bool {
        !is_suspicious(five_tuple) && self.limiter.may_send(five_tuple.client, bytes, now.mono)
    }

    /// When [`Server::handle_timeout`] wants to be called next, on the scale of [`Now::mono`]. O(1).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let reserved = self.reserved.front().map(|(expires, _)| *expires);
        self.timers.next().into_iter().chain(reserved).chain(self.peers.next_deadline()).min()
    }

    /// Takes new settings; allocations stay, but lose the peers that are no longer allowed.
    /// The relay ports are the ones of [`Shared`] and do not change.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.limiter.set_rate(settings.unauthenticated_rate);
        self.settings = settings;
        self.known = KnownKeys::default();
        let ids: Vec<_> = self.table.iter_mut().map(|allocation| allocation.id).collect();
        for id in ids {
            if let Some(allocation) = self.table.get_mut(id) {
                allocation.retain_peers(|ip| may_permit(&self.settings, &self.shared, ip));
            }
            self.settle_claims(id);
            self.settle_flows(id);
        }
        self.close_lost_peers();
    }

    /// Credentials were taken back (see [`crate::credential::Revoked`]): the allocations made with them end.
    pub fn handle_revoked(&mut self, now: Now) {
        let is_over = |allocation: &Allocation| self.settings.verifier.is_revoked(&allocation.username);
        let over: Vec<_> = self.table.iter_mut().filter(|a| is_over(a)).map(|a| a.id).collect();
        for allocation in over {
            self.close(allocation, now);
        }
        self.close_lost_peers();
    }

    /// Starts or ends a drain.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Who failed to prove their credential since the last call, at most one report a step. A client's first,
    /// unsigned request is not among them.
    pub fn take_auth_failures(&mut self) -> Vec<AuthReport> {
        self.failures.take()
    }

    /// Counters since start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            allocations: self.table.len() as u64,
            offload_flows: self.mirror.rows(),
            events_dropped: self.events.dropped(),
            ..self.stats.clone()
        }
    }

    /// Whether an allocation stands on this 5-tuple.
    #[must_use]
    pub fn has_allocation(&self, five_tuple: &FiveTuple) -> bool {
        self.table.id_of(five_tuple).is_some()
    }

    fn data_path(&mut self, now: Now, ip: IpFields) -> (DataPath<'_>, &mut StdRng) {
        let Self { table, settings, shared, worker, rng, .. } = self;
        (DataPath { table, settings, shared, worker: *worker, now, ip }, rng)
    }

    /// Counts packets of a client; those that go straight to another client count for that one too.
    fn forward_from_client(&mut self, result: Result<Forward, DropReason>) -> Verdict {
        match result {
            Ok(forward) => {
                let (packets, bytes) = forward.amount();
                self.stats.to_peer_packets += packets;
                self.stats.to_peer_bytes += bytes;
                if matches!(forward.via, Via::Client(_)) {
                    self.stats.to_client_packets += packets;
                    self.stats.to_client_bytes += bytes;
                }
                Verdict::Forward(forward)
            }
            Err(reason) => self.drop(reason),
        }
    }

    /// Counts packets of a peer.
    fn forward_to_client(&mut self, result: Result<Forward, DropReason>) -> Verdict {
        match result {
            Ok(forward) => {
                let (packets, bytes) = forward.amount();
                self.stats.to_client_packets += packets;
                self.stats.to_client_bytes += bytes;
                Verdict::Forward(forward)
            }
            Err(reason) => self.drop(reason),
        }
    }

    fn drop(&mut self, reason: DropReason) -> Verdict {
        self.stats.count_drop(reason);
        Verdict::Drop(reason)
    }

    /// Ends an allocation: its ports rest, its quota is free, its sockets close.
    fn close(&mut self, id: AllocationId, now: Now) -> Option<Box<Allocation>> {
        self.forget_next(id);
        self.tell_ended(now, id);
        let mut allocation = self.table.remove(id)?;
        self.settle_flows(id);
        self.leave_claims(&mut allocation);
        for (family, relay) in allocation.relays() {
            self.end_relay(id, family, relay, now);
        }
        let opening = allocation.opening.as_ref();
        if let Some(reservation) = opening.and_then(|opening| opening.reservation.as_ref()) {
            self.shared.return_port(reservation.bind, now.mono);
        }
        self.tidy_timers();
        Some(allocation)
    }

    /// Allocations that come and go leave entries among the timers: at most four times as many as live.
    fn tidy_timers(&mut self) {
        if self.timers.len() > 4 * self.table.len() + MIN_TIMERS {
            let table = &self.table;
            self.timers.retain(|at, id| table.get(id).is_some_and(|allocation| allocation.scheduled == at));
        }
    }

    /// Ends one relay of an allocation, and with the last one the allocation.
    fn close_relay(&mut self, id: AllocationId, family: Family, now: Now) {
        if self.table.get(id).is_some_and(|allocation| allocation.relays().count() < 2) {
            self.close(id, now);
        } else if let Some(relay) = self.table.get_mut(id).and_then(|held| held.remove_relay(family)) {
            self.settle_flows(id);
            self.end_relay(id, family, &relay, now);
            self.settle_claims(id);
        }
    }

    fn end_relay(&mut self, id: AllocationId, family: Family, relay: &Relay, now: Now) {
        self.close_peers_of(id.relay(family));
        self.shared.return_port(relay.bind, now.mono);
        if relay.is_open {
            self.outputs.push_back(Output::CloseRelay { relay: id.relay(family) });
        }
    }

    /// Notes a deadline that came nearer.
    fn reschedule(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        let deadline = allocation.next_deadline();
        if deadline < allocation.scheduled {
            allocation.scheduled = deadline;
            self.timers.schedule(deadline, id);
        }
        self.settle_claims(id);
        self.settle_flows(id);
    }
}

/// Whether a datagram's source is one no client has: port 0, ports of services that reflect, and
/// addresses that are no unicast address. Answering would make this server part of an attack.
fn is_suspicious(path: &FiveTuple) -> bool {
    const REFLECTORS: [u16; 17] =
        [0, 7, 13, 17, 19, 53, 69, 111, 123, 137, 161, 389, 520, 1900, 3702, 5353, 11211];
    let ip = path.client.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !path.transport.is_stream()
        && (REFLECTORS.contains(&path.client.port())
            || ip.is_unspecified()
            || ip.is_multicast()
            || is_broadcast)
}
