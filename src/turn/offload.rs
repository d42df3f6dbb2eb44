//! Which flows something below this program may relay by itself.

use std::net::SocketAddr;
use std::time::Duration;

/// In place of a pair of meters that a row does not need.
pub const NO_METER: u32 = u32::MAX;

/// Names a flow. No two have one name, and of those that live no two have one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// Dense from zero and below the capacity, so it can index an array.
    pub slot: u32,
    /// Tells the flows of a slot apart over time; never 0.
    pub generation: u32,
}

/// A flow that may be relayed without asking. All addresses are of one family and as on the wire: behind a
/// 1:1 NAT the local ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadRow {
    /// Its name.
    pub flow: FlowId,
    /// The client's transport address.
    pub client: SocketAddr,
    /// Where the client sends to.
    pub server: SocketAddr,
    /// The channel's number.
    pub channel: u16,
    /// The relay socket's local address.
    pub relay: SocketAddr,
    /// The peer, or the local address of a relay of this server.
    pub peer: SocketAddr,
    /// The peer can only be a relay of this server: a packet goes to the flow that has `relay` as its peer
    /// and `peer` as its relay, or is left to this program; so are packets that come from outside.
    pub peer_is_relay: bool,
    /// When it ends, on the scale of [`Now::mono`](super::Now::mono).
    pub expires: Duration,
    /// Pairs of words that its payload counts on: of the allocation, its user and the server. The word
    /// `2 * pair` is that to peers, the next one that to clients.
    pub meters: [u32; 3],
}

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their payload.
    pub bytes: u64,
}

/// What a flow has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From the client.
    pub to_peer: Count,
    /// To the client.
    pub to_client: Count,
}

impl Usage {
    /// What has been added since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let since = |now: Count, before: Count| Count {
            packets: now.packets.saturating_sub(before.packets),
            bytes: now.bytes.saturating_sub(before.bytes),
        };
        Self {
            to_peer: since(self.to_peer, before.to_peer),
            to_client: since(self.to_client, before.to_client),
        }
    }
}
