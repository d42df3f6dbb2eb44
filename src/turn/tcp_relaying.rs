//! What happens on the relayed address of a TCP allocation (RFC 6062 §5.3, §5.5): peers that connect,
//! connections that end.

use std::net::SocketAddr;

use rand::Rng;

use super::bandwidth::{Direction, Meter};
use super::offload::{Count, Usage};
use super::output::{Now, Output, PeerLink, RelayId, Verdict};
use super::peer_connections::{ConnectionId, Stage};
use super::reach::{is_lost, may_connect_from, public_name};
use super::table::AllocationId;
use super::{ReplyBuffer, Server};
use crate::stun::{AttributeType, Class, MessageWriter, Method, TransactionId};

impl Server {
    /// A peer has connected to the relayed address `relay`. The client is told by the verdict; `None`
    /// when the connection must be closed at once.
    pub fn handle_peer_accepted(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        reply: &mut ReplyBuffer,
    ) -> Option<(PeerLink, Verdict)> {
        let allocation = self.table.of_relay(relay)?;
        let is_permitted = |ip| allocation.is_permitted(ip, now.mono);
        let peer = match self.shared.is_listening(peer) {
            true => public_name(&self.settings, peer, is_permitted),
            false => peer,
        };
        if !is_permitted(peer.ip()) || !may_connect_from(&self.settings, &self.shared, peer) {
            return None;
        }
        let path = allocation.path;
        let (link, id) = self.peers.open(relay, peer, Stage::Pending, now.mono, &mut self.rng).ok()?;
        let mut transaction = [0; 12];
        self.rng.fill_bytes(&mut transaction);
        let len = write_attempt(reply, TransactionId(transaction), peer, id);
        Some((link, Verdict::Reply { path, len }))
    }

    /// A connection of a peer has ended, and with it the client's connection if one was bound.
    pub fn handle_peer_closed(&mut self, link: PeerLink) {
        self.peers.remove(link);
    }

    /// How many reads of a bound connection may go on now, to the peer and to the client: `share` of them,
    /// or one where there are limits, or none while they are exceeded. A stream waits where a datagram
    /// would be dropped.
    #[must_use]
    pub fn stream_shares(&self, now: Now, link: PeerLink, share: usize) -> [usize; 2] {
        let limits = &self.settings.bandwidth;
        match self.meters_of_connection(link).filter(|_| limits.is_limited()) {
            Some(meters) => meters.map(|meters| usize::from(limits.is_open(meters, now.mono))),
            None => [share; 2],
        }
    }

    /// Bytes that went through a bound connection, to the peer and to the client.
    pub fn count_streamed(&mut self, now: Now, link: PeerLink, bytes: [u64; 2]) {
        self.stats.to_peer_bytes += bytes[0];
        self.stats.to_client_bytes += bytes[1];
        if let Some(allocation) = self.peers.get(link).and_then(|peer| self.table.of_relay(peer.relay)) {
            let [to_peer, to_client] = bytes.map(|bytes| Count { packets: 0, bytes });
            allocation.carried.add(Usage { to_peer, to_client }, Some(now));
        }
        let limits = &self.settings.bandwidth;
        if let Some(meters) = self.meters_of_connection(link).filter(|_| limits.is_limited()) {
            let passed = meters.into_iter().zip(bytes);
            passed.for_each(|(meters, bytes)| limits.pass(meters, bytes as usize, now.mono));
        }
    }

    fn meters_of_connection(&self, link: PeerLink) -> Option<[[&Meter; 3]; 2]> {
        let allocation = self.table.of_relay(self.peers.get(link)?.relay)?;
        let meters = [&allocation.meters, allocation.quota.meters(), &self.shared.meters];
        Some([Direction::ToPeer, Direction::ToClient].map(|way| meters.map(|meters| meters.of(way))))
    }

    /// Ends the connections whose time is over (RFC 6062 §5.2, §5.3).
    pub(super) fn expire_peers(&mut self, now: Now) {
        while let Some(link) = self.peers.due(now.mono) {
            match self.peers.get(link).map(|connection| connection.stage) {
                // Its Connect is answered when the worker has given up.
                Some(Stage::Connecting { .. }) => {
                    self.peers.forget_deadline(link);
                    self.outputs.push_back(Output::GiveUp { link });
                }
                Some(Stage::Pending | Stage::Bound) | None => self.close_peer(link),
            }
        }
    }

    /// Ends all connections of an allocation (RFC 6062 §5.5).
    pub(super) fn close_peers_of(&mut self, relay: RelayId) {
        let links: Vec<_> = self.peers.of_relay(relay).collect();
        links.into_iter().for_each(|link| self.close_peer(link));
    }

    /// Ends the connections that the settings no longer allow.
    pub(super) fn close_lost_peers(&mut self) {
        let lost = self.peers.lost(|peer| is_lost(&self.settings, &self.shared, peer));
        lost.into_iter().for_each(|link| self.close_peer(link));
    }

    fn close_peer(&mut self, link: PeerLink) {
        if self.peers.remove(link).is_some() {
            self.outputs.push_back(Output::ClosePeer { link });
        }
    }

    /// The allocation whose connection a ConnectionBind names.
    pub(super) fn allocation_of_connection(&self, id: ConnectionId) -> Option<AllocationId> {
        let (_, connection) = self.peers.by_id(id)?;
        self.table.id_of_relay(connection.relay).map(|(id, _)| id)
    }
}

/// A ConnectionAttempt indication (RFC 6062 §5.3).
fn write_attempt(
    reply: &mut ReplyBuffer,
    transaction: TransactionId,
    peer: SocketAddr,
    id: ConnectionId,
) -> usize {
    MessageWriter::new(reply, Class::Indication, Method::CONNECTION_ATTEMPT, transaction)
        .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
        .u32(AttributeType::CONNECTION_ID, id.0)
        .finish()
        .expect("an address and a number fit")
}
