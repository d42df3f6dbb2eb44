//! ICMP errors about relayed packets, told to the client in Data indications (RFC 8656 §11.5).
//!
//! An error never ends an allocation: whoever can send a packet to the relay can forge one. How many a
//! client is told of is bounded, because a peer can cause one with each packet that is sent to it.

use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;

use super::bandwidth;
use super::output::{DropReason, Now, RelayId, Verdict};
use super::shared::Family;
use super::{IpFields, ReplyBuffer, Server};
use crate::stun::{AttributeType, Class, MessageWriter, Method, TransactionId};

/// The least time between two errors that a client is told of, on average; a second's worth may come
/// at once.
const PACE: Duration = Duration::from_millis(50);

/// An ICMP error (RFC 792, RFC 4443). The peer's address tells which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The type.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The MTU of the next hop, where the type has one.
    pub data: u32,
}

impl Icmp {
    /// The value of the ICMP attribute (RFC 8656 §18.13): seven bits of type, nine of code, and the
    /// MTU or zero. `None` for the types a client is not told of.
    fn attribute(self, family: Family) -> Option<[u8; 8]> {
        let mtu = match (family, self.kind, self.code) {
            (Family::V4, 3, 4) => self.data & 0xFFFF,
            (Family::V6, 2, _) => self.data,
            (Family::V4, 3 | 11, _) | (Family::V6, 1 | 3, _) => 0,
            (Family::V4 | Family::V6, _, _) => return None,
        };
        let mut value = [0; 8];
        value[2..4].copy_from_slice(&(u16::from(self.kind) << 9 | u16::from(self.code)).to_be_bytes());
        value[4..].copy_from_slice(&mtu.to_be_bytes());
        Some(value)
    }
}

impl Server {
    /// A packet that left from a relay socket for `peer` did not arrive. The client is told if the peer
    /// has a permission; the indication is written into `reply`.
    pub fn handle_peer_error(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        icmp: Icmp,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        let mut transaction = [0; 12];
        self.rng.fill_bytes(&mut transaction);
        let id = self.allocation_at(relay, peer);
        let (data_path, _) = self.data_path(now, IpFields::default());
        let Some(allocation) = id.and_then(|id| data_path.table.get(id)) else {
            return self.drop(DropReason::RelayGone);
        };
        let peer = data_path.as_seen_from_outside(allocation, peer);
        if !allocation.is_permitted(peer.ip(), now.mono) {
            return self.drop(DropReason::NoPermission);
        }
        let Some(value) = icmp.attribute(Family::of(peer.ip())) else {
            return self.drop(DropReason::PeerError);
        };
        if !bandwidth::take(&allocation.peer_errors, now.mono, PACE) {
            return self.drop(DropReason::PeerError);
        }
        let path = allocation.path;
        let len = MessageWriter::new(reply, Class::Indication, Method::DATA, TransactionId(transaction))
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
            .attribute(AttributeType::ICMP, &value)
            .finish()
            .expect("an address and eight bytes are far smaller than the buffer");
        Verdict::Reply { path, len }
    }
}
