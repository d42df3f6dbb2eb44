//! One relay port for all allocations (`relay.ports = "shared"`), which a peer's address tells apart.
//!
//! An allocation *claims* a peer's transport address when its client binds a channel to it, first sends
//! to it, or when that peer speaks first and no other allocation has a permission for its IP address.
//! Another allocation's claim of the same address is refused until the first one ends: with the
//! permission, or channel, it was made under, or with its allocation. What comes from an address that is
//! claimed goes to the claim's owner; the owner's worker alone judges its permissions.
//!
//! All relayed addresses being one, it is no peer: which client would be meant?

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::RandomState;

use super::Server;
use super::allocation::{Allocation, MAX_PEERS};
use super::ip_header::IpFields;
use super::output::{DropReason, Now, RelayId, Verdict, WorkerId};
use super::policy::Listener;
use super::reach::{Reach, reach};
use super::request::Request;
use super::shared::{Family, Parity};
use super::table::{AllocationId, Owner};
use crate::stun::AttributeType;

/// Claims of all allocations together. One allocation may have [`MAX_PEERS`].
const MAX_CLAIMS: usize = 1 << 18;

/// Parts of the table that are locked by themselves.
const SHARDS: usize = 256;

/// The relay sockets that serve all allocations, and who gets what comes to them.
#[derive(Debug)]
pub(super) struct OnePort {
    relays: Vec<SocketAddr>,
    claims: Claims,
}

/// What an allocation has entered into the table; each list is sorted.
#[derive(Debug, Default)]
pub(super) struct Held {
    claims: Vec<(u8, SocketAddr)>,
    permits: Vec<(u8, IpAddr)>,
}

/// Why a peer's address cannot be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimError {
    /// Another allocation has.
    Taken,
    /// As many claims as there may be.
    Full,
}

impl OnePort {
    /// Nothing claimed. `relays` are the local addresses of the sockets.
    pub(super) fn new(relays: &[SocketAddr]) -> Self {
        Self { relays: relays.to_vec(), claims: Claims::new(MAX_CLAIMS) }
    }

    /// The port of a local relay address; `None` if none of the sockets is bound to it.
    pub(super) fn port_of(&self, bind: IpAddr) -> Option<u16> {
        self.relays.iter().find(|relay| relay.ip() == bind).map(SocketAddr::port)
    }

    /// The same for an Allocate: it is even or not, and there is no other to make a pair with.
    pub(super) fn port_for(&self, bind: IpAddr, parity: Parity) -> Option<u16> {
        let port = self.port_of(bind)?;
        match parity {
            Parity::Any => Some(port),
            Parity::Even => port.is_multiple_of(2).then_some(port),
            Parity::Pair => None,
        }
    }

    /// How many more claims there may be.
    pub(super) fn room(&self) -> usize {
        MAX_CLAIMS.saturating_sub(self.claims.count.load(Ordering::Relaxed))
    }

    /// Which of the sockets an allocation reaches a peer with.
    fn relay_for(&self, allocation: &Allocation, peer: IpAddr) -> Option<u8> {
        let bind = allocation.relay(Family::of(peer))?.bind;
        self.relays.iter().position(|relay| *relay == bind).map(|index| index as u8)
    }

    fn claim(&self, owner: Owner, allocation: &mut Allocation, peer: SocketAddr) -> Result<(), ClaimError> {
        let spot = (self.relay_for(allocation, peer.ip()).ok_or(ClaimError::Full)?, peer);
        let held = allocation.held.get_or_insert_default();
        let Err(at) = held.claims.binary_search(&spot) else { return Ok(()) };
        if held.claims.len() >= MAX_PEERS {
            return Err(ClaimError::Full);
        }
        self.claims.claim(spot, owner)?;
        held.claims.insert(at, spot);
        Ok(())
    }

    /// Makes the table say what the allocation's permissions and channels say now.
    fn settle(&self, owner: Owner, allocation: &mut Allocation) {
        let mut held = allocation.held.take().unwrap_or_default();
        held.permits.retain(|permit| {
            let stays = allocation.has_permission(permit.1);
            if !stays {
                self.claims.unpermit(*permit, owner);
            }
            stays
        });
        for ip in allocation.permitted_ips() {
            let Some(relay) = self.relay_for(allocation, ip) else { continue };
            if let Err(at) = held.permits.binary_search(&(relay, ip)) {
                held.permits.insert(at, (relay, ip));
                self.claims.permit((relay, ip), owner);
            }
        }
        held.claims.retain(|spot| {
            let stays = allocation.has_permission(spot.1.ip()) || allocation.has_channel(spot.1);
            if !stays {
                self.claims.release(*spot, owner);
            }
            stays
        });
        allocation.held = Some(held);
    }

    /// Takes out all that an allocation has entered.
    fn leave(&self, owner: Owner, allocation: &mut Allocation) {
        let Some(held) = allocation.held.take() else { return };
        held.permits.iter().for_each(|permit| self.claims.unpermit(*permit, owner));
        held.claims.iter().for_each(|spot| self.claims.release(*spot, owner));
    }
}

impl Server {
    fn owner(&self, allocation: AllocationId) -> Owner {
        Owner { worker: self.worker, allocation }
    }

    /// Claims a peer's address where all allocations share a port; always succeeds where they do not.
    pub(super) fn claim_peer(&mut self, id: AllocationId, peer: SocketAddr) -> Result<(), ClaimError> {
        let owner = self.owner(id);
        match (self.shared.one_port(), self.table.get_mut(id)) {
            (Some(one_port), Some(allocation)) => one_port.claim(owner, allocation, peer),
            _ => Ok(()),
        }
    }

    /// To be called when permissions or channels of an allocation have come or gone.
    pub(super) fn settle_claims(&mut self, id: AllocationId) {
        let owner = self.owner(id);
        if let (Some(one_port), Some(allocation)) = (self.shared.one_port(), self.table.get_mut(id)) {
            one_port.settle(owner, allocation);
        }
    }

    /// To be called with an allocation that has been taken out of this core.
    pub(super) fn leave_claims(&self, allocation: &mut Allocation) {
        if let Some(one_port) = self.shared.one_port() {
            one_port.leave(self.owner(allocation.id), allocation);
        }
    }

    /// The first Send to a peer claims its address. What makes the indication unusable is left to the
    /// data path to find.
    pub(super) fn claim_for_send(&mut self, request: &Request<'_>) -> Result<(), DropReason> {
        if self.shared.one_port().is_none() {
            return Ok(());
        }
        let message = &request.message;
        let peer = message.attribute(AttributeType::XOR_PEER_ADDRESS);
        let peer = peer.and_then(|peer| peer.as_xor_address(message.transaction()));
        let allocation = self.table.of_client(&request.path.five_tuple);
        let (Some(peer), Some(allocation)) = (peer, allocation) else { return Ok(()) };
        let may_send = allocation.is_permitted(peer.ip(), request.now.mono)
            && !self.settings.peers.is_listener(Listener::Udp(peer))
            && reach(&self.settings, &self.shared, peer) == Reach::Outside;
        if may_send {
            let id = allocation.id;
            self.claim_peer(id, peer).map_err(|_: ClaimError| DropReason::PeerClaimed)?;
        }
        Ok(())
    }

    /// A datagram that arrived at the socket all allocations share, the `relay`-th of
    /// [`Shared::with_one_port`](super::Shared::with_one_port), with what its IP header said.
    /// [`Verdict::Elsewhere`] when another worker has the allocation it is for.
    pub fn handle_shared_relay(
        &mut self,
        now: Now,
        relay: u8,
        peer: SocketAddr,
        ip: IpFields,
        datagram: &[u8],
    ) -> Verdict {
        let owner = self.shared.one_port().and_then(|one_port| one_port.claims.owner_of((relay, peer)));
        let Some(Owner { worker, allocation }) = owner else { return self.drop(DropReason::NoPermission) };
        if worker != self.worker {
            return Verdict::Elsewhere(worker);
        }
        if self.claim_peer(allocation, peer).is_err() {
            return self.drop(DropReason::PeerClaimed);
        }
        let (data_path, rng) = self.data_path(now, ip);
        let result = data_path.shared_datagram(allocation, peer, datagram.len(), rng);
        self.forward_to_client(result)
    }
}

impl Server {
    /// The allocation of this core that talks to a peer from a relay socket, or, where all share some, from
    /// the one of that number.
    pub(super) fn allocation_at(&self, relay: RelayId, peer: SocketAddr) -> Option<AllocationId> {
        let Some(one_port) = self.shared.one_port() else {
            return self.table.of_relay(relay).map(|allocation| allocation.id);
        };
        let owner = one_port.claims.owner_of((u8::try_from(relay.0).ok()?, peer))?;
        (owner.worker == self.worker).then_some(owner.allocation)
    }
}

/// Who has claimed which peer's address, and who has a permission for which, at each of the sockets. Read
/// for every packet from a peer, written when a claim or a permission comes or goes.
#[derive(Debug)]
struct Claims {
    /// By the peer's IP address.
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    count: AtomicUsize,
    bound: usize,
}

#[derive(Debug, Default)]
struct Shard {
    claimed: HashMap<(u8, SocketAddr), Owner, RandomState>,
    permitted: HashMap<(u8, IpAddr), Permitted, RandomState>,
}

/// How many allocations have a permission, and all of them combined: of one, it is that one.
#[derive(Debug, Default)]
struct Permitted {
    count: u32,
    mix: (u8, u64),
}

impl Permitted {
    /// Adds or takes away; each undoes the other.
    fn toggle(&mut self, owner: Owner) {
        self.mix.0 ^= owner.worker.0;
        self.mix.1 ^= owner.allocation.to_bits();
    }

    fn sole(&self) -> Option<Owner> {
        let (worker, bits) = self.mix;
        let sole = Owner { worker: WorkerId(worker), allocation: AllocationId::from_bits(bits) };
        (self.count == 1).then_some(sole)
    }
}

impl Claims {
    fn new(bound: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::default(), count: AtomicUsize::new(0), bound }
    }

    fn shard(&self, ip: IpAddr) -> &RwLock<Shard> {
        &self.shards[self.hasher.hash_one(ip) as usize % SHARDS]
    }

    fn read(&self, ip: IpAddr) -> RwLockReadGuard<'_, Shard> {
        self.shard(ip).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, ip: IpAddr) -> RwLockWriteGuard<'_, Shard> {
        self.shard(ip).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who gets what comes from there.
    fn owner_of(&self, spot: (u8, SocketAddr)) -> Option<Owner> {
        let shard = self.read(spot.1.ip());
        let sole = || shard.permitted.get(&(spot.0, spot.1.ip())).and_then(Permitted::sole);
        shard.claimed.get(&spot).copied().or_else(sole)
    }

    fn claim(&self, spot: (u8, SocketAddr), owner: Owner) -> Result<(), ClaimError> {
        match self.write(spot.1.ip()).claimed.entry(spot) {
            Entry::Occupied(claim) if *claim.get() == owner => Ok(()),
            Entry::Occupied(_) => Err(ClaimError::Taken),
            Entry::Vacant(place) => {
                if self.count.fetch_add(1, Ordering::Relaxed) >= self.bound {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return Err(ClaimError::Full);
                }
                place.insert(owner);
                Ok(())
            }
        }
    }

    fn release(&self, spot: (u8, SocketAddr), owner: Owner) {
        let mut shard = self.write(spot.1.ip());
        if shard.claimed.get(&spot) == Some(&owner) {
            shard.claimed.remove(&spot);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn permit(&self, permit: (u8, IpAddr), owner: Owner) {
        let mut shard = self.write(permit.1);
        let permitted = shard.permitted.entry(permit).or_default();
        permitted.count += 1;
        permitted.toggle(owner);
    }

    fn unpermit(&self, permit: (u8, IpAddr), owner: Owner) {
        let mut shard = self.write(permit.1);
        let Entry::Occupied(mut permitted) = shard.permitted.entry(permit) else { return };
        permitted.get_mut().count -= 1;
        permitted.get_mut().toggle(owner);
        if permitted.get().count == 0 {
            permitted.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(worker: u8, bits: u64) -> Owner {
        Owner { worker: WorkerId(worker), allocation: AllocationId::from_bits(bits) }
    }

    fn spot(text: &str) -> (u8, SocketAddr) {
        (0, text.parse().expect("an address"))
    }

    #[test]
    fn a_claim_holds_until_its_owner_releases_it() {
        let claims = Claims::new(10);
        let (one, two) = (owner(0, 1), owner(1, 1));
        assert_eq!(claims.claim(spot("192.0.2.1:1"), one), Ok(()));
        assert_eq!(claims.claim(spot("192.0.2.1:1"), one), Ok(()), "again");
        assert_eq!(claims.claim(spot("192.0.2.1:1"), two), Err(ClaimError::Taken));
        assert_eq!(claims.claim(spot("192.0.2.1:2"), two), Ok(()), "another port");
        assert_eq!(claims.claim((1, spot("192.0.2.1:1").1), two), Ok(()), "at another socket");
        claims.release(spot("192.0.2.1:1"), two);
        assert_eq!(claims.owner_of(spot("192.0.2.1:1")), Some(one));
        claims.release(spot("192.0.2.1:1"), one);
        assert_eq!(claims.owner_of(spot("192.0.2.1:1")), None);
        assert_eq!(claims.claim(spot("192.0.2.1:1"), two), Ok(()));
        assert_eq!(claims.count.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn an_unclaimed_peer_is_for_the_only_one_who_permitted_it() {
        let claims = Claims::new(10);
        let peer = spot("192.0.2.1:1");
        let permit = (0, peer.1.ip());
        let owners = [owner(0, 7), owner(3, 7), owner(3, 1 << 40)];
        assert_eq!(claims.owner_of(peer), None);
        owners.iter().for_each(|owner| claims.permit(permit, *owner));
        assert_eq!(claims.owner_of(peer), None, "three may be meant");
        claims.unpermit(permit, owners[1]);
        claims.unpermit(permit, owners[0]);
        assert_eq!(claims.owner_of(peer), Some(owners[2]));
        assert_eq!(claims.owner_of((1, peer.1)), None, "at this socket only");
        claims.unpermit(permit, owners[2]);
        assert_eq!(claims.owner_of(peer), None);
        assert!(claims.read(permit.1).permitted.is_empty(), "no entry stays behind");
    }

    #[test]
    fn claims_of_all_are_bounded() {
        let claims = Claims::new(2);
        for n in 1..=2 {
            assert_eq!(claims.claim(spot(&format!("192.0.2.{n}:1")), owner(0, n)), Ok(()));
        }
        assert_eq!(claims.claim(spot("192.0.2.3:1"), owner(0, 3)), Err(ClaimError::Full));
        claims.release(spot("192.0.2.1:1"), owner(0, 1));
        assert_eq!(claims.claim(spot("192.0.2.3:1"), owner(0, 3)), Ok(()));
    }
}
