//! The data path (RFC 8656 §11, §12): client to peer, peer to client, and client to client of this
//! server without touching a relay socket, by way of the other client's worker where that is another one.
//! Reads state, changes none, allocates nothing.

use std::net::SocketAddr;
use std::ops::Range;

use rand::Rng;
use rand::rngs::StdRng;

use super::Settings;
use super::allocation::{Allocation, Relayed};
use super::bandwidth::Direction;
use super::ip_header::IpFields;
use super::output::{ClientPath, DropReason, Forward, Now, Prefix, RelayId, Run, Via, WorkerId};
use super::policy::Listener;
use super::reach::{Reach, public_name, reach};
use super::shared::{Family, Shared};
use super::table::{AllocationId, Owner, Table};
use crate::stun::{
    AttributeType, CHANNEL_HEADER_LEN, ChannelData, ChannelNumber, Class, Message, MessageWriter, Method,
    TransactionId,
};

/// What a packet is decided by.
#[derive(Clone, Copy)]
pub(super) struct DataPath<'a> {
    pub(super) table: &'a Table,
    pub(super) settings: &'a Settings,
    pub(super) shared: &'a Shared,
    /// Whose table it is.
    pub(super) worker: WorkerId,
    pub(super) now: Now,
    /// What the packet's IP header said.
    pub(super) ip: IpFields,
}

impl DataPath<'_> {
    /// ChannelData from a client (RFC 8656 §12.6).
    pub(super) fn channel_data(
        &self,
        path: &ClientPath,
        run: Run<'_>,
        rng: &mut StdRng,
    ) -> Result<Forward, DropReason> {
        let data = ChannelData::parse(run.first()).ok_or(DropReason::Malformed)?;
        let allocation = self.table.of_client(&path.five_tuple).ok_or(DropReason::NoAllocation)?;
        let peer = allocation.peer_of(data.number, self.now.mono).ok_or(DropReason::NoChannel)?;
        let payload = CHANNEL_HEADER_LEN..CHANNEL_HEADER_LEN + data.payload.len();
        self.send_on(allocation, peer, payload, run.alike(CHANNEL_HEADER_LEN), false, rng)
    }

    /// A Send indication from a client (RFC 8656 §11.2).
    pub(super) fn send_indication(
        &self,
        path: &ClientPath,
        message: &Message<'_>,
        rng: &mut StdRng,
    ) -> Result<Forward, DropReason> {
        let allocation = self.table.of_client(&path.five_tuple).ok_or(DropReason::NoAllocation)?;
        if allocation.carries == Relayed::Tcp {
            return Err(DropReason::UnusableIndication);
        }
        let peer = message.attribute(AttributeType::XOR_PEER_ADDRESS);
        let peer = peer.and_then(|peer| peer.as_xor_address(message.transaction()));
        let (Some(peer), Some(data)) = (peer, message.attribute(AttributeType::DATA)) else {
            return Err(DropReason::UnusableIndication);
        };
        if self.settings.peers.is_listener(Listener::Udp(peer)) {
            return Err(DropReason::PeerForbidden);
        }
        let start = message.value_offset(&data);
        let dont_fragment = message.has(AttributeType::DONT_FRAGMENT);
        self.send_on(allocation, peer, start..start + data.value.len(), 1, dont_fragment, rng)
    }

    /// What came to a relay socket (RFC 8656 §11.3, §12.7).
    pub(super) fn peer_datagram(
        &self,
        relay: RelayId,
        peer: SocketAddr,
        run: Run<'_>,
        rng: &mut StdRng,
    ) -> Result<Forward, DropReason> {
        let (payload, count) = (0..run.first().len(), run.alike(0));
        let allocation = self.table.named_by(relay).ok_or(DropReason::RelayGone)?;
        if allocation.is_outside(peer, self.shared.changes()) {
            return self.deliver(allocation, peer, payload, count, rng);
        }
        let allocation = self.table.of_relay(relay).ok_or(DropReason::RelayGone)?;
        let peer = self.as_seen_from_outside(allocation, peer);
        if self.reach(allocation, peer) == Reach::Nowhere {
            return Err(DropReason::PeerForbidden);
        }
        self.deliver(allocation, peer, payload, count, rng)
    }

    /// A datagram for an allocation, from the socket that all share.
    pub(super) fn shared_datagram(
        &self,
        allocation: AllocationId,
        peer: SocketAddr,
        len: usize,
        rng: &mut StdRng,
    ) -> Result<Forward, DropReason> {
        let allocation = self.table.get(allocation).ok_or(DropReason::RelayGone)?;
        if self.reach(allocation, peer) == Reach::Nowhere {
            return Err(DropReason::PeerForbidden);
        }
        self.deliver(allocation, peer, 0..len, 1, rng)
    }

    /// What a client of another worker has sent to the relayed address of an allocation: judged as what
    /// comes from the network is. That one's worker has judged the rest.
    pub(super) fn neighbour_datagram(
        &self,
        to: Owner,
        from: SocketAddr,
        len: usize,
        rng: &mut StdRng,
    ) -> Result<Forward, DropReason> {
        self.deliver(self.neighbour(to)?, from, 0..len, 1, rng)
    }

    /// The allocation of this worker that goes by the name; gone when it has ended or moved on.
    fn neighbour(&self, owner: Owner) -> Result<&Allocation, DropReason> {
        let is_here = owner.worker == self.worker;
        is_here.then(|| self.table.get(owner.allocation)).flatten().ok_or(DropReason::RelayGone)
    }

    /// Sends a payload of `allocation`'s client on, and the like of the `count` datagrams of its run. The relayed address of
    /// another client of this server is answered inside, whichever of its names is used.
    fn send_on(
        &self,
        allocation: &Allocation,
        peer: SocketAddr,
        payload: Range<usize>,
        count: usize,
        dont_fragment: bool,
        rng: &mut StdRng,
    ) -> Result<Forward, DropReason> {
        if !allocation.is_permitted(peer.ip(), self.now.mono) {
            return Err(DropReason::NoPermission);
        }
        let count = self.charge(allocation, Direction::ToPeer, payload.len(), count)?;
        let via = match self.reach(allocation, peer) {
            Reach::Outside => Via::Relay(allocation.id.relay(Family::of(peer.ip())), peer),
            Reach::Relay(owner) => {
                let relayed = allocation.relayed_for(peer.ip()).ok_or(DropReason::NoPermission)?;
                if owner.worker == self.worker {
                    let (bytes, to) = (payload.len(), self.neighbour(owner)?);
                    let delivered = self.deliver(to, relayed, payload, count, rng);
                    return delivered.inspect(|forward| {
                        allocation.carried.count(Direction::ToPeer, forward.count, bytes, self.now);
                    });
                }
                Via::Neighbour(owner, relayed)
            }
            Reach::Nowhere => return Err(DropReason::PeerForbidden),
        };
        allocation.carried.count(Direction::ToPeer, count, payload.len(), self.now);
        Ok(Forward { via, prefix: Prefix::None, payload, count, pad: 0, ip: self.ip, dont_fragment })
    }

    /// Hands a payload from `peer` to `allocation`'s client, and the like of the `count` datagrams of its run: on its channel
    /// if there is one. Data indications have transactions of their own, and are one by one.
    fn deliver(
        &self,
        allocation: &Allocation,
        peer: SocketAddr,
        payload: Range<usize>,
        count: usize,
        rng: &mut StdRng,
    ) -> Result<Forward, DropReason> {
        if !allocation.is_permitted(peer.ip(), self.now.mono) {
            return Err(DropReason::NoPermission);
        }
        let len = u16::try_from(payload.len()).map_err(|_| DropReason::Malformed)?;
        let padding = (payload.len().next_multiple_of(4) - payload.len()) as u8;
        let is_stream = allocation.path.five_tuple.transport.is_stream();
        let (prefix, pad, count) = match allocation.channel_of(peer, self.now.mono) {
            Some(number) => (channel_prefix(number, len), if is_stream { padding } else { 0 }, count),
            None => (data_prefix(peer, len, rng).ok_or(DropReason::Malformed)?, padding, 1),
        };
        let count = self.charge(allocation, Direction::ToClient, payload.len(), count)?;
        let via = Via::Client(allocation.path);
        allocation.carried.count(Direction::ToClient, count, payload.len(), self.now);
        Ok(Forward { via, prefix, payload, count, pad, ip: self.ip, dont_fragment: false })
    }

    /// Counts `count` payloads against the limits; how many may pass. Where there is a limit each is judged by itself.
    fn charge(
        &self,
        allocation: &Allocation,
        direction: Direction,
        bytes: usize,
        count: usize,
    ) -> Result<usize, DropReason> {
        let limits = &self.settings.bandwidth;
        if !limits.is_limited() {
            return Ok(count);
        }
        let meters = [&allocation.meters, allocation.quota.meters(), &self.shared.meters];
        let meters = meters.map(|meters| meters.of(direction));
        match limits.may_pass(meters, bytes, self.now.mono) {
            true => Ok(1),
            false => Err(DropReason::OverBandwidth),
        }
    }

    /// Where packets for a permitted peer go: as before, while no relay socket has opened or closed.
    fn reach(&self, allocation: &Allocation, peer: SocketAddr) -> Reach {
        let changes = self.shared.changes();
        if allocation.is_outside(peer, changes) {
            return Reach::Outside;
        }
        let found = reach(self.settings, self.shared, peer);
        if found == Reach::Outside {
            allocation.note_outside(peer, changes);
        }
        found
    }

    /// Translates the local address of another relay socket of this server to its public name, under
    /// which clients know it.
    pub(super) fn as_seen_from_outside(&self, allocation: &Allocation, peer: SocketAddr) -> SocketAddr {
        match self.shared.is_live(peer) {
            true => public_name(self.settings, peer, |name| allocation.is_permitted(name, self.now.mono)),
            false => peer,
        }
    }
}

fn channel_prefix(number: ChannelNumber, len: u16) -> Prefix {
    Prefix::Channel(ChannelData::header(number, len))
}

/// A Data indication up to and including the DATA attribute's header (RFC 8656 §11.3); `None` when the
/// whole would be longer than a STUN message can be.
fn data_prefix(peer: SocketAddr, len: u16, rng: &mut StdRng) -> Option<Prefix> {
    let mut transaction = [0; 12];
    rng.fill_bytes(&mut transaction);
    let mut bytes = [0; 48];
    let written = MessageWriter::new(&mut bytes, Class::Indication, Method::DATA, TransactionId(transaction))
        .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
        .attribute(AttributeType::DATA, &[])
        .finish()
        .expect("48 bytes hold an IPv6 peer and an empty DATA");
    let message_len =
        u16::try_from(written - crate::stun::HEADER_LEN + usize::from(len).next_multiple_of(4)).ok()?;
    bytes[2..4].copy_from_slice(&message_len.to_be_bytes());
    bytes[written - 2..written].copy_from_slice(&len.to_be_bytes());
    Some(Prefix::Data(bytes, written as u8))
}
