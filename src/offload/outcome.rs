//! What became of packets, as the program counts them.

/// What the program counts, in its order (`enum outcome` in bpf/turn.bpf.c): relayed three ways, two ways
/// to be dropped, and then why packets passed up.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is counted there"))]
pub(super) const OUTCOMES: usize = RELAYED + 2 + PASSED.len();

const RELAYED: usize = 3;

/// Why packets passed up to the sockets, in the order of [`Counters::passed`]: labels of metrics.
pub const PASSED: [&str; 12] = [
    "no_flow",
    "not_plain",
    "no_beat",
    "expired",
    "bad_length",
    "no_checksum",
    "no_twin",
    "no_route",
    "no_neighbour",
    "too_large",
    "no_meter",
    "neighbour_due",
];

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets relayed from a client to a peer.
    pub to_peer: u64,
    /// Packets relayed from a peer to a client.
    pub to_client: u64,
    /// Packets relayed from one client of this server to another.
    pub local: u64,
    /// Packets dropped because a bandwidth limit was reached.
    pub over_bandwidth: u64,
    /// Packets dropped because the kernel could not resize them.
    pub failed: u64,
    /// Packets that passed up, by [`PASSED`].
    pub passed: [u64; PASSED.len()],
    /// Rows that could not be installed.
    pub not_installed: u64,
}

impl Counters {
    /// All that was relayed.
    #[must_use]
    pub const fn forwarded(&self) -> u64 {
        self.to_peer + self.to_client + self.local
    }

    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is counted there"))]
    pub(super) fn new(outcomes: &[u64; OUTCOMES], not_installed: u64) -> Self {
        let mut passed = [0; PASSED.len()];
        passed.copy_from_slice(&outcomes[OUTCOMES - PASSED.len()..]);
        let [to_peer, to_client, local, over_bandwidth, failed, ..] = *outcomes;
        Self { to_peer, to_client, local, over_bandwidth, failed, passed, not_installed }
    }
}
