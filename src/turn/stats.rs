//! Plain counters of one relay core. Rendering them is the admin listener's business.

use super::output::DropReason;

/// Methods that are counted, in the order of [`Stats::requests`].
pub const METHODS: [&str; 5] = ["binding", "allocate", "refresh", "create_permission", "channel_bind"];

/// Outcomes that are counted per method: success, then the error codes this server sends.
pub const RESULTS: [&str; 13] =
    ["ok", "300", "400", "401", "403", "420", "437", "438", "440", "441", "442", "443", "486_508"];

/// Counters since start; `allocations` is a gauge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live allocations.
    pub allocations: u64,
    /// Allocations granted since start.
    pub allocations_total: u64,
    /// Packets relayed from clients to peers.
    pub to_peer_packets: u64,
    /// Payload bytes relayed from clients to peers.
    pub to_peer_bytes: u64,
    /// Packets relayed from peers to clients.
    pub to_client_packets: u64,
    /// Payload bytes relayed from peers to clients.
    pub to_client_bytes: u64,
    /// Dropped packets by [`DropReason`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Requests by method and result, indexed as [`METHODS`] and [`RESULTS`].
    pub requests: [[u64; RESULTS.len()]; METHODS.len()],
}

impl Stats {
    /// Adds the counters of another worker.
    pub fn merge(&mut self, other: &Self) {
        self.allocations += other.allocations;
        self.allocations_total += other.allocations_total;
        self.to_peer_packets += other.to_peer_packets;
        self.to_peer_bytes += other.to_peer_bytes;
        self.to_client_packets += other.to_client_packets;
        self.to_client_bytes += other.to_client_bytes;
        self.drops.iter_mut().zip(other.drops).for_each(|(sum, n)| *sum += n);
        for (sums, counts) in self.requests.iter_mut().zip(other.requests) {
            sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
    }
}
