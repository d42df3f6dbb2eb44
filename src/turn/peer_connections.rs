//! Peer data connections of TCP allocations (RFC 6062 §2): from the Connect or the peer's arrival, over
//! the 30 s in which the client may bind one, to their end.
//!
//! Owns their names, identifiers and deadlines. Knows nothing of sockets, and of allocations only the
//! relays that connections belong to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::SeedableRandomState;
use rand::Rng;
use rand::rngs::StdRng;

use super::auth::Seal;
use super::output::{PeerLink, RelayId, WorkerId};
use crate::stun::TransactionId;

/// How long a connection may take to come about, and then to be bound (RFC 6062 §5.2, §5.3).
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Connections one relayed address may have at a time.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// CONNECTION-ID (RFC 6062 §6.2.1): the worker, and what nobody guesses in 30 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId(pub(super) u32);

impl ConnectionId {
    pub(super) const fn worker(self) -> WorkerId {
        WorkerId((self.0 >> 24) as u8)
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The Connect is to be answered when the peer has been reached.
    Connecting {
        transaction: TransactionId,
        /// How the answer ends.
        seal: Seal,
    },
    /// The client has been told of it and may bind it.
    Pending,
    /// A client data connection is bound to it.
    Bound,
}

/// A peer data connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerConnection {
    pub(super) relay: RelayId,
    /// The peer as clients know it.
    pub(super) peer: SocketAddr,
    pub(super) id: ConnectionId,
    pub(super) stage: Stage,
    /// When it ends unless it gets to the next stage; a bound one does not.
    deadline: Duration,
}

/// Why there is no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is one to the same peer (RFC 6062 §5.2).
    Exists,
    /// There are [`MAX_CONNECTIONS`].
    Full,
}

/// The connections of one worker.
pub(super) struct PeerConnections {
    worker: WorkerId,
    slots: Vec<Option<PeerConnection>>,
    free: Vec<u32>,
    by_id: HashMap<ConnectionId, PeerLink, SeedableRandomState>,
    by_peer: BTreeMap<(RelayId, SocketAddr), PeerLink>,
    deadlines: BTreeSet<(Duration, PeerLink)>,
}

impl PeerConnections {
    pub(super) fn new(worker: WorkerId, hasher: SeedableRandomState) -> Self {
        Self {
            worker,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::with_hasher(hasher),
            by_peer: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Adds a connection that has [`PATIENCE`] to get to its next stage.
    pub(super) fn open(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        stage: Stage,
        now: Duration,
        rng: &mut StdRng,
    ) -> Result<(PeerLink, ConnectionId), Refused> {
        if self.by_peer.contains_key(&(relay, peer)) {
            return Err(Refused::Exists);
        }
        if self.of_relay(relay).count() >= MAX_CONNECTIONS {
            return Err(Refused::Full);
        }
        let id = self.new_id(rng);
        let deadline = now + PATIENCE;
        let connection = PeerConnection { relay, peer, id, stage, deadline };
        let link = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(connection);
                PeerLink(slot)
            }
            None => {
                self.slots.push(Some(connection));
                PeerLink(self.slots.len() as u32 - 1)
            }
        };
        self.by_id.insert(id, link);
        self.by_peer.insert((relay, peer), link);
        self.deadlines.insert((deadline, link));
        Ok((link, id))
    }

    fn new_id(&self, rng: &mut StdRng) -> ConnectionId {
        loop {
            let id = ConnectionId(u32::from(self.worker.0) << 24 | rng.next_u32() >> 8);
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn get(&self, link: PeerLink) -> Option<&PeerConnection> {
        self.slots.get(link.0 as usize)?.as_ref()
    }

    pub(super) fn by_id(&self, id: ConnectionId) -> Option<(PeerLink, &PeerConnection)> {
        let link = *self.by_id.get(&id)?;
        self.get(link).map(|connection| (link, connection))
    }

    /// The peer has been reached: the client has [`PATIENCE`] to bind the connection.
    pub(super) fn connected(&mut self, link: PeerLink, now: Duration) {
        let Some(connection) = self.slots.get_mut(link.0 as usize).and_then(Option::as_mut) else { return };
        self.deadlines.remove(&(connection.deadline, link));
        connection.stage = Stage::Pending;
        connection.deadline = now + PATIENCE;
        self.deadlines.insert((connection.deadline, link));
    }

    /// A client data connection is bound to it.
    pub(super) fn bound(&mut self, link: PeerLink) {
        let Some(connection) = self.slots.get_mut(link.0 as usize).and_then(Option::as_mut) else { return };
        self.deadlines.remove(&(connection.deadline, link));
        connection.stage = Stage::Bound;
    }

    pub(super) fn remove(&mut self, link: PeerLink) -> Option<PeerConnection> {
        let connection = self.slots.get_mut(link.0 as usize)?.take()?;
        self.free.push(link.0);
        self.by_id.remove(&connection.id);
        self.by_peer.remove(&(connection.relay, connection.peer));
        self.deadlines.remove(&(connection.deadline, link));
        Some(connection)
    }

    /// The connections of one relayed address.
    pub(super) fn of_relay(&self, relay: RelayId) -> impl Iterator<Item = PeerLink> {
        let lowest = SocketAddr::from(([0; 4], 0));
        let of_relay = self.by_peer.range((relay, lowest)..).take_while(move |((of, _), _)| *of == relay);
        of_relay.map(|(_, link)| *link)
    }

    /// The connections to peers for which `is_lost` holds.
    pub(super) fn lost(&self, is_lost: impl Fn(SocketAddr) -> bool) -> Vec<PeerLink> {
        self.by_peer.iter().filter(|((_, peer), _)| is_lost(*peer)).map(|(_, link)| *link).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A connection whose time is over. It is the caller's to remove or to change.
    pub(super) fn due(&self, now: Duration) -> Option<PeerLink> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, link)| *link)
    }

    /// Takes the deadline of a connection whose end is under way.
    pub(super) fn forget_deadline(&mut self, link: PeerLink) {
        if let Some(connection) = self.get(link) {
            let deadline = connection.deadline;
            self.deadlines.remove(&(deadline, link));
        }
    }
}
