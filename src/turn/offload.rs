//! Which flows something below this program may relay by itself: its table mirrors what stands here.
//!
//! A flow is a bound channel of a client over UDP, both ways. Whenever an allocation changes, the rows that
//! its channels should have are compared with those that were said ([`Output::Offload`]); what differs is
//! said anew. A row ends by itself at the earliest of channel, permission and relay, and whoever holds it
//! forwards nothing after that. Decides nothing: what has no row comes here. Off unless
//! [`Shared::with_offload`](super::Shared::with_offload) has given the workers slots.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::allocation::{Allocation, Relayed};
use super::bandwidth::{Lender, SharedWords};
use super::output::{Now, Output, Transport};
use super::policy::Listener;
use super::reach::own_address;
use super::shared::{Family, Shared, lock};
use super::table::AllocationId;
use super::{Server, Settings};

/// In place of a pair of meters that a row does not need.
pub const NO_METER: u32 = u32::MAX;

/// One slot in so many rests, so that none is used again while somebody still reads what stood there.
const RESTING_SHARE: u32 = 64;

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

impl Count {
    fn add(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }

    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
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
    /// Adds what was carried elsewhere.
    pub fn add(&mut self, more: Self) {
        self.to_peer.add(more.to_peer);
        self.to_client.add(more.to_client);
    }

    /// What has been added since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            to_peer: self.to_peer.since(before.to_peer),
            to_client: self.to_client.since(before.to_client),
        }
    }
}

/// What the workers share of it: slots, and the words of meters that both paths count on.
#[derive(Debug)]
pub(super) struct Ground {
    slots: Mutex<Slots>,
    pub(super) meters: Arc<Lender>,
}

impl Ground {
    pub(super) fn new(capacity: u32, words: SharedWords) -> Self {
        Self { slots: Mutex::new(Slots::new(capacity)), meters: Arc::new(Lender::new(words)) }
    }
}

/// Free slots. One that was given back waits for its turn behind all others.
#[derive(Debug)]
struct Slots {
    capacity: u32,
    /// How many have ever been used.
    used: u32,
    resting: VecDeque<u32>,
    generation: u32,
}

impl Slots {
    fn new(capacity: u32) -> Self {
        Self { capacity, used: 0, resting: VecDeque::new(), generation: 0 }
    }

    fn take(&mut self) -> Option<FlowId> {
        let slot = if self.used < self.capacity {
            self.used += 1;
            self.used - 1
        } else {
            let rest = (self.capacity / RESTING_SHARE) as usize;
            if self.resting.len() <= rest {
                return None;
            }
            self.resting.pop_front()?
        };
        self.generation = self.generation.wrapping_add(1).max(1);
        Some(FlowId { slot, generation: self.generation })
    }

    fn give_back(&mut self, flow: FlowId) {
        self.resting.push_back(flow.slot);
    }
}

/// What one core has said, by allocation.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    said: BTreeMap<AllocationId, Vec<OffloadRow>>,
    /// Whose flows these are, by slot; until what a flow has carried at last is counted.
    owners: BTreeMap<FlowId, AllocationId>,
    rows: u64,
}

impl Mirror {
    /// How many rows stand.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Whose flow it is, or was until just now.
    pub(super) fn owner_of(&mut self, flow: FlowId) -> Option<AllocationId> {
        let id = *self.owners.get(&flow)?;
        let stands = self.said.get(&id).is_some_and(|rows| rows.iter().any(|row| row.flow == flow));
        if !stands {
            self.owners.remove(&flow);
        }
        Some(id)
    }
}

impl Server {
    /// Says what has changed about the flows of an allocation, or that they end with it.
    pub(super) fn settle_flows(&mut self, id: AllocationId) {
        let Some(ground) = self.shared.offload() else { return };
        let wanted = self.table.get(id).map(|allocation| wanted(allocation, &self.settings, &self.shared));
        let wanted = wanted.unwrap_or_default();
        if wanted.is_empty() && !self.mirror.said.contains_key(&id) {
            return;
        }
        let before = self.mirror.said.remove(&id).unwrap_or_default();
        self.mirror.rows -= before.len() as u64;
        let (kept, gone): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|said| same_flow(&wanted, said).is_some());
        let mut slots = lock(&ground.slots);
        // First, so that no key is in use twice.
        for row in gone {
            slots.give_back(row.flow);
            self.outputs.push_back(Output::Unload(row.flow));
        }
        let mut said = Vec::with_capacity(wanted.len());
        for row in wanted {
            let known = same_flow(&kept, &row);
            let Some(flow) = known.map(|known| known.flow).or_else(|| slots.take()) else {
                self.stats.offload_full += 1;
                continue;
            };
            let row = OffloadRow { flow, ..row };
            if known != Some(&row) {
                self.mirror.owners.insert(flow, id);
                self.outputs.push_back(Output::Offload(row));
            }
            said.push(row);
        }
        drop(slots);
        if !said.is_empty() {
            self.mirror.rows += said.len() as u64;
            self.mirror.said.insert(id, said);
        }
    }

    /// Counts what a flow has carried without this core. Of one that has ended ([`Output::Unload`]) it is to be
    /// called once more, for the last time.
    pub fn count_offloaded(&mut self, now: Now, flow: FlowId, more: Usage) {
        self.carried_elsewhere(now, flow, more);
        self.stats.to_peer_packets += more.to_peer.packets;
        self.stats.to_peer_bytes += more.to_peer.bytes;
        self.stats.to_client_packets += more.to_client.packets;
        self.stats.to_client_bytes += more.to_client.bytes;
    }
}

/// Which of an allocation's rows, in the order of channels, differs from this one in nothing but when it ends, and
/// in its name.
fn same_flow<'a>(rows: &'a [OffloadRow], wanted: &OffloadRow) -> Option<&'a OffloadRow> {
    let at = rows.binary_search_by_key(&wanted.channel, |row| row.channel).ok()?;
    let row = &rows[at];
    (OffloadRow { flow: wanted.flow, expires: wanted.expires, ..*row } == *wanted).then_some(row)
}

/// The rows an allocation should have, in the order of channels; their names are still to be given.
fn wanted(allocation: &Allocation, settings: &Settings, shared: &Shared) -> Vec<OffloadRow> {
    let five_tuple = allocation.path.five_tuple;
    let is_lost = allocation.mobile.is_some_and(|mobile| mobile.is_lost);
    let is_suitable = allocation.carries == Relayed::Udp
        && five_tuple.transport == Transport::Udp
        && is_plain(five_tuple.client.ip())
        && is_plain(five_tuple.server.ip())
        && !is_lost
        && shared.one_port().is_none();
    let Some(meters) = meters(allocation, settings, shared).filter(|_| is_suitable) else {
        return Vec::new();
    };
    let row = |(channel, peer, expires): (u16, SocketAddr, Duration)| {
        let relay = allocation.relay(Family::of(peer.ip()))?;
        let (peer, peer_is_relay) = on_the_wire(settings, shared, peer)?;
        let addresses = [five_tuple.client, five_tuple.server, relay.bind, peer];
        let is_one_family = addresses.iter().all(|address| address.is_ipv4() == peer.is_ipv4());
        let flow = FlowId { slot: 0, generation: 0 };
        is_one_family.then_some(OffloadRow {
            flow,
            client: five_tuple.client,
            server: five_tuple.server,
            channel,
            relay: relay.bind,
            peer,
            peer_is_relay,
            expires: expires.min(relay.expires),
            meters,
        })
    };
    allocation.bindings().filter_map(row).collect()
}

/// The meters of a row; `None` when one that has a rate stands where only this program sees it.
fn meters(allocation: &Allocation, settings: &Settings, shared: &Shared) -> Option<[u32; 3]> {
    let pairs = [&allocation.meters, allocation.quota.meters(), &shared.meters].map(|meters| meters.pair());
    let needed = settings.bandwidth.rates().map(|rate| rate != 0);
    let is_missing = pairs.iter().zip(needed).any(|(pair, is_needed)| is_needed && pair.is_none());
    (!is_missing).then(|| pairs.map(|pair| pair.unwrap_or(NO_METER)))
}

/// The peer's address as packets carry it, and whether it can only be a relay of this server; `None` when what
/// is to be done with its packets depends on more than a row says.
fn on_the_wire(settings: &Settings, shared: &Shared, peer: SocketAddr) -> Option<(SocketAddr, bool)> {
    if settings.peers.is_listener(Listener::Udp(peer)) || !is_plain(peer.ip()) {
        return None;
    }
    let Some(own) = own_address(settings, peer.ip()) else { return Some((peer, false)) };
    if !shared.may_be_relay(peer.port()) {
        return settings.peers.may_reach(peer.ip()).then_some((peer, false));
    }
    // An address that changed has two names, and it depends on the other client which of them it goes by.
    let has_one_name = settings.former.is_empty() && own.public == peer.ip();
    has_one_name.then_some((SocketAddr::new(own.bind, peer.port()), true))
}

/// Whether the address says all that is needed to send to it.
fn is_plain(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified(),
        IpAddr::V6(ip) => {
            !ip.is_unspecified() && !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_after_all_that_rest_and_never_under_one_name() {
        let mut slots = Slots::new(128);
        let all: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(all.iter().map(|flow| flow.slot).collect::<Vec<_>>(), (0..128).collect::<Vec<_>>());
        slots.give_back(all[7]);
        slots.give_back(all[3]);
        assert_eq!(slots.take(), None, "two rest");
        slots.give_back(all[5]);
        let again = slots.take().expect("one more than need to rest");
        assert!(again.slot == 7 && !all.contains(&again));
        assert_eq!(slots.take(), None);
    }

    #[test]
    fn generations_go_round_past_zero() {
        let mut slots = Slots::new(2);
        slots.generation = u32::MAX;
        assert_eq!(slots.take(), Some(FlowId { slot: 0, generation: 1 }));
    }

    #[test]
    fn usage_is_what_was_added() {
        let count = |packets, bytes| Count { packets, bytes };
        let before = Usage { to_peer: count(1, 100), to_client: count(2, 20) };
        let after = Usage { to_peer: count(3, 300), to_client: count(2, 20) };
        assert_eq!(after.since(before), Usage { to_peer: count(2, 200), to_client: count(0, 0) });
    }
}
