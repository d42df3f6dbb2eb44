//! Plain counters of one relay core. Rendering them is the admin listener's business.

use super::output::DropReason;
use crate::credential::AuthFailure;
use crate::stun::{ErrorCode, Method};

/// Methods that are counted, in the order of [`Stats::requests`].
pub const METHODS: [&str; 7] =
    ["binding", "allocate", "refresh", "create_permission", "channel_bind", "connect", "connection_bind"];

/// Outcomes that are counted per method: success, then the error codes this server sends.
pub const RESULTS: [&str; 17] = [
    "ok", "300", "400", "401", "403", "405", "420", "437", "438", "440", "441", "442", "443", "446", "447",
    "486", "508",
];

/// Counters since start; `allocations` and `offload_flows` are gauges.
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
    /// Flows that are offloaded now.
    pub offload_flows: u64,
    /// How often a flow was not offloaded because all slots were taken; each refresh tries again.
    pub offload_full: u64,
    /// Events that found no room on their way to the books.
    pub events_dropped: u64,
    /// Dropped packets by [`DropReason`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Requests that proved no credential, by step, indexed as `AuthFailure::STEPS`.
    pub auth_failures: [u64; AuthFailure::STEPS.len()],
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
        self.offload_flows += other.offload_flows;
        self.offload_full += other.offload_full;
        self.events_dropped += other.events_dropped;
        self.drops.iter_mut().zip(other.drops).for_each(|(sum, n)| *sum += n);
        self.auth_failures.iter_mut().zip(other.auth_failures).for_each(|(sum, n)| *sum += n);
        for (sums, counts) in self.requests.iter_mut().zip(other.requests) {
            sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
    }
}

impl Stats {
    pub(super) fn count_drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Counts the answer to a request; methods this server does not answer are not counted.
    pub(super) fn count_request(&mut self, method: Method, result: Result<(), ErrorCode>) {
        let row = match method {
            Method::BINDING => 0,
            Method::ALLOCATE => 1,
            Method::REFRESH => 2,
            Method::CREATE_PERMISSION => 3,
            Method::CHANNEL_BIND => 4,
            Method::CONNECT => 5,
            Method::CONNECTION_BIND => 6,
            _ => return,
        };
        self.requests[row][result.map_or_else(column, |()| 0)] += 1;
    }
}

/// Where an error stands in [`RESULTS`].
const fn column(error: ErrorCode) -> usize {
    match error {
        ErrorCode::TryAlternate => 1,
        ErrorCode::BadRequest => 2,
        ErrorCode::Unauthenticated => 3,
        ErrorCode::Forbidden => 4,
        ErrorCode::MobilityForbidden => 5,
        ErrorCode::UnknownAttribute => 6,
        ErrorCode::AllocationMismatch => 7,
        ErrorCode::StaleNonce => 8,
        ErrorCode::AddressFamilyNotSupported => 9,
        ErrorCode::WrongCredentials => 10,
        ErrorCode::UnsupportedTransport => 11,
        ErrorCode::PeerAddressFamilyMismatch => 12,
        ErrorCode::ConnectionAlreadyExists => 13,
        ErrorCode::ConnectionTimeoutOrFailure => 14,
        ErrorCode::AllocationQuotaReached => 15,
        ErrorCode::InsufficientCapacity => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_stands_in_the_column_of_its_number() {
        for error in [
            ErrorCode::TryAlternate,
            ErrorCode::BadRequest,
            ErrorCode::Unauthenticated,
            ErrorCode::Forbidden,
            ErrorCode::MobilityForbidden,
            ErrorCode::UnknownAttribute,
            ErrorCode::AllocationMismatch,
            ErrorCode::StaleNonce,
            ErrorCode::AddressFamilyNotSupported,
            ErrorCode::WrongCredentials,
            ErrorCode::UnsupportedTransport,
            ErrorCode::PeerAddressFamilyMismatch,
            ErrorCode::ConnectionAlreadyExists,
            ErrorCode::ConnectionTimeoutOrFailure,
            ErrorCode::AllocationQuotaReached,
            ErrorCode::InsufficientCapacity,
        ] {
            assert_eq!(RESULTS[column(error)], error.code().to_string());
        }
    }
}
