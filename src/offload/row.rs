//! Rows and keys as the program reads them (`struct flow`, `struct client_key`, `struct peer_key` in
//! bpf/turn.bpf.c): addresses as IPv6, ports and channel in network order, the rest in the machine's.

use std::net::{IpAddr, SocketAddr};

use super::error::InstallError;
use crate::turn::{FlowId, OffloadRow, nanos};

/// Words of a row; the first is `expires`.
pub(super) const WORDS: usize = 13;

/// A row and the keys that lead to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) words: [u64; WORDS],
    pub(super) by_client: [u8; 40],
    pub(super) by_peer: [u8; 36],
    /// What the keys lead to.
    pub(super) value: u64,
}

impl Encoded {
    pub(super) fn new(row: &OffloadRow) -> Result<Self, InstallError> {
        let of_client = [row.client, row.server];
        let of_peer = [row.peer, row.relay];
        let is_ipv4 = row.client.is_ipv4();
        if of_client.iter().chain(&of_peer).any(|address| address.is_ipv4() != is_ipv4) {
            return Err(InstallError::MixedFamilies);
        }
        let channel = row.channel.to_be_bytes();
        Ok(Self {
            words: words(row, channel),
            by_client: join(&[&pair(of_client)[..], &channel, &[0; 2]]),
            by_peer: pair(of_peer),
            value: value(row.flow),
        })
    }

    pub(super) fn is_of(&self, flow: FlowId) -> bool {
        self.value == value(flow)
    }
}

/// A name as keys lead to it.
fn value(flow: FlowId) -> u64 {
    u64::from(flow.slot) | u64::from(flow.generation) << 32
}

fn words(row: &OffloadRow, channel: [u8; 2]) -> [u64; WORDS] {
    let addresses = [row.client, row.server, row.relay, row.peer];
    let [a, b, c, d] = addresses.map(address);
    let [e, f, g, h] = addresses.map(|address| address.port().to_be_bytes());
    let [i, j, k] = row.meters.map(u32::to_ne_bytes);
    let (expires, generation) = (nanos(row.expires).to_ne_bytes(), row.flow.generation.to_ne_bytes());
    let parts: [&[u8]; 16] = [
        &expires,
        &generation,
        &channel,
        &[u8::from(row.peer_is_relay), 0],
        &a,
        &b,
        &c,
        &d,
        &e,
        &f,
        &g,
        &h,
        &i,
        &j,
        &k,
        &[0; 4],
    ];
    let bytes: [u8; WORDS * 8] = join(&parts);
    std::array::from_fn(|word| {
        let mut of_word = [0; 8];
        of_word.copy_from_slice(&bytes[word * 8..word * 8 + 8]);
        u64::from_ne_bytes(of_word)
    })
}

/// Two addresses, then their ports.
fn pair(both: [SocketAddr; 2]) -> [u8; 36] {
    let [a, b] = both.map(address);
    let [c, d] = both.map(|address| address.port().to_be_bytes());
    join(&[&a, &b, &c, &d])
}

fn address(of: SocketAddr) -> [u8; 16] {
    match of.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut whole = [0; N];
    let mut at = 0;
    for part in parts {
        whole[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    whole
}
