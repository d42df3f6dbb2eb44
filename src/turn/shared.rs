//! What the workers of one process share: relay ports, reservations of them, and the allocations each
//! user has.
//!
//! Ports are drawn from one pool for each relay address, in random order, under a lock that only Allocate
//! and the end of an allocation take. The data path reads nothing but atomics: whose the live ports are.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rand::rngs::StdRng;

use super::bandwidth::{Meters, SharedWords};
use super::offload::Ground;
use super::one_port::OnePort;
pub(super) use super::ports::Parity;
use super::ports::PortPool;
use super::reservation::{Reservation, Token};
use super::table::Owner;

/// Most local relay addresses over the life of a process; an address once used keeps its pool.
pub const MAX_RELAY_ADDRESSES: usize = 64;

/// Address family of a relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Family {
    V4 = 0,
    V6 = 1,
}

impl Family {
    /// Both, in the order of their numbers.
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Only this one.
    pub(super) const fn alone(self) -> &'static [Self] {
        match self {
            Self::V4 => &[Self::V4],
            Self::V6 => &[Self::V6],
        }
    }

    /// The number of the family in attributes (RFC 8656 §18.6).
    pub(super) const fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(super) const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// State the workers of one process share.
#[derive(Debug)]
pub struct Shared {
    /// The range of every relay address.
    range: RangeInclusive<u16>,
    /// Filled from the front as relay addresses are used.
    relays: [OnceLock<RelayPorts>; MAX_RELAY_ADDRESSES],
    /// Instead of all of them: one port for all allocations.
    one_port: Option<OnePort>,
    pub(super) reservations: Mutex<HashMap<Token, Reservation>>,
    users: Mutex<HashMap<Box<str>, User>>,
    total: AtomicU32,
    /// Counts the relay sockets that have opened or closed, from one.
    changes: AtomicU64,
    /// Bytes relayed.
    pub(super) meters: Meters,
    /// Where flows are offloaded.
    offload: Option<Ground>,
}

/// The ports of one local relay address.
#[derive(Debug)]
struct RelayPorts {
    bind: IpAddr,
    pool: Mutex<PortPool>,
    /// By port, from the first of the range: whose open relay socket it is, as [`Owner::to_bits`].
    owners: Box<[AtomicU64]>,
    listening: Box<[AtomicU64]>,
}

impl RelayPorts {
    fn new(bind: IpAddr, range: RangeInclusive<u16>) -> Self {
        let owners = range.clone().map(|_| AtomicU64::new(Owner::NOBODY)).collect();
        let listening = (0..=u16::MAX / 64).map(|_| AtomicU64::new(0)).collect();
        Self { bind, pool: Mutex::new(PortPool::new(range)), owners, listening }
    }
}

impl Shared {
    /// Nothing allocated; all relay addresses use the same range of ports.
    #[must_use]
    pub fn new(ports: RangeInclusive<u16>) -> Self {
        Self {
            range: ports,
            relays: [const { OnceLock::new() }; MAX_RELAY_ADDRESSES],
            one_port: None,
            reservations: Mutex::default(),
            users: Mutex::default(),
            total: AtomicU32::new(0),
            changes: AtomicU64::new(1),
            meters: Meters::default(),
            offload: None,
        }
    }

    /// Flows are offloaded, at most `slots` of them, by something that counts what it relays on `meters` too.
    /// Of those the first pair is that of the whole server.
    #[must_use]
    pub fn with_offload(self, slots: u32, meters: SharedWords) -> Self {
        let ground = Ground::new(slots, meters);
        Self { meters: ground.meters.lend(), offload: Some(ground), ..self }
    }

    pub(super) fn offload(&self) -> Option<&Ground> {
        self.offload.as_ref()
    }

    /// Meters of one more allocation or user.
    pub(super) fn new_meters(&self) -> Meters {
        self.offload.as_ref().map_or_else(Meters::default, |ground| ground.meters.lend())
    }

    /// Whether relays may have this port.
    pub(super) fn may_be_relay(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    /// Nothing allocated; all allocations share the sockets with these local addresses.
    #[must_use]
    pub fn with_one_port(relays: &[SocketAddr]) -> Self {
        Self { one_port: Some(OnePort::new(relays)), ..Self::new(0..=0) }
    }

    pub(super) fn one_port(&self) -> Option<&OnePort> {
        self.one_port.as_ref()
    }

    /// Allocations of all workers.
    #[must_use]
    pub fn allocations(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// The ports of a local relay address that has been used before.
    fn ports(&self, bind: IpAddr) -> Option<&RelayPorts> {
        self.relays.iter().map_while(OnceLock::get).find(|ports| ports.bind == bind)
    }

    /// The ports of a local relay address; `None` when there have been too many addresses.
    fn ports_or_new(&self, bind: IpAddr) -> Option<&RelayPorts> {
        let used =
            self.relays.iter().map(|slot| slot.get_or_init(|| RelayPorts::new(bind, self.range.clone())));
        // Stops at the first that is, or has just become, the one wanted: nothing behind it is filled.
        used.into_iter().find(|ports| ports.bind == bind)
    }

    /// How many ports of a local relay address are free.
    pub(super) fn free_ports(&self, bind: IpAddr) -> usize {
        if let Some(one_port) = &self.one_port {
            return one_port.port_of(bind).map_or(0, |_| one_port.room());
        }
        self.ports_or_new(bind).map_or(0, |ports| lock(&ports.pool).free())
    }

    /// Whether [`Self::take_port`] would find one.
    pub(super) fn has_port(&self, bind: IpAddr, parity: Parity) -> bool {
        if let Some(one_port) = &self.one_port {
            return one_port.port_for(bind, parity).is_some() && one_port.room() > 0;
        }
        self.ports_or_new(bind).is_some_and(|ports| lock(&ports.pool).has(parity))
    }

    /// Draws a relay port of a local address; `None` when all are taken. Of a pair it is the lower one, and
    /// both are taken.
    pub(super) fn take_port(
        &self,
        bind: IpAddr,
        parity: Parity,
        now: Duration,
        rng: &mut StdRng,
    ) -> Option<u16> {
        if let Some(one_port) = &self.one_port {
            return one_port.port_for(bind, parity);
        }
        lock(&self.ports_or_new(bind)?.pool).take(parity, now, rng)
    }

    /// Gives a port back, to rest first.
    pub(super) fn return_port(&self, bind: SocketAddr, now: Duration) {
        self.set_owner(bind, None);
        self.set_listening(bind, false);
        if let Some(ports) = self.ports(bind.ip()) {
            lock(&ports.pool).give_back(bind.port(), now);
        }
    }

    /// Notes whose relay socket is open at the local address.
    pub(super) fn set_owner(&self, bind: SocketAddr, owner: Option<Owner>) {
        if let Some(place) = self.owner_at(bind) {
            place.store(owner.map_or(Owner::NOBODY, Owner::to_bits), Ordering::Relaxed);
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Stands still as long as no relay socket opens or closes: what [`Self::owner_of`] says after it holds until then.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whose relay socket is open at the local address.
    pub(super) fn owner_of(&self, bind: SocketAddr) -> Option<Owner> {
        let bits = self.owner_at(bind)?.load(Ordering::Relaxed);
        (bits != Owner::NOBODY).then(|| Owner::from_bits(bits))
    }

    fn owner_at(&self, bind: SocketAddr) -> Option<&AtomicU64> {
        let index = bind.port().checked_sub(*self.range.start())?;
        self.ports(bind.ip())?.owners.get(usize::from(index))
    }

    /// Notes that a relay listens for TCP connections at the local address.
    pub(super) fn set_listening(&self, bind: SocketAddr, listening: bool) {
        if let Some(ports) = self.ports(bind.ip()) {
            set_bit(&ports.listening, bind.port(), listening);
        }
    }

    /// Whether a relay of any worker listens for TCP connections at the local address.
    pub(super) fn is_listening(&self, bind: SocketAddr) -> bool {
        self.ports(bind.ip()).is_some_and(|ports| has_bit(&ports.listening, bind.port()))
    }

    /// Whether a relay socket of any worker is open at the local address.
    pub(super) fn is_live(&self, bind: SocketAddr) -> bool {
        self.owner_of(bind).is_some()
    }

    /// Counts one more allocation of `user`; `None` when that is one too many (limits of 0 are none).
    pub(super) fn charge(
        self: &Arc<Self>,
        user: &str,
        user_limit: u32,
        total_limit: u32,
    ) -> Option<QuotaSlot> {
        let mut users = lock(&self.users);
        let of_user = users.get(user).map_or(0, |user| user.allocations);
        let is_full = |count: u32, limit: u32| limit != 0 && count >= limit;
        if is_full(of_user, user_limit) || is_full(self.allocations(), total_limit) {
            return None;
        }
        if !users.contains_key(user) {
            let meters = Arc::new(self.new_meters());
            users.insert(user.into(), User { allocations: 0, meters });
        }
        let entry = users.get_mut(user).expect("it is there or was inserted");
        entry.allocations += 1;
        self.total.fetch_add(1, Ordering::Relaxed);
        let meters = Arc::clone(&entry.meters);
        Some(QuotaSlot { shared: Arc::downgrade(self), user: user.into(), meters })
    }
}

fn set_bit(map: &[AtomicU64], port: u16, on: bool) {
    let word = &map[usize::from(port / 64)];
    let bit = 1 << (port % 64);
    match on {
        true => word.fetch_or(bit, Ordering::Relaxed),
        false => word.fetch_and(!bit, Ordering::Relaxed),
    };
}

fn has_bit(map: &[AtomicU64], port: u16) -> bool {
    map[usize::from(port / 64)].load(Ordering::Relaxed) & (1 << (port % 64)) != 0
}

/// A user with allocations.
#[derive(Debug)]
struct User {
    allocations: u32,
    /// Bytes relayed by all of them, in whichever worker.
    meters: Arc<Meters>,
}

/// One allocation's place in its user's quota, given back when dropped: no error path can leak it.
#[derive(Debug)]
pub(super) struct QuotaSlot {
    shared: Weak<Shared>,
    user: Box<str>,
    meters: Arc<Meters>,
}

impl QuotaSlot {
    /// What the user's allocations have relayed.
    pub(super) fn meters(&self) -> &Meters {
        &self.meters
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }
}

impl Drop for QuotaSlot {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut users = lock(&shared.users);
        if let Some(user) = users.get_mut(&self.user) {
            user.allocations -= 1;
            if user.allocations == 0 {
                users.remove(&self.user);
            }
        }
        shared.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A lock whose holder panicked is still consistent here: every change is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rand::SeedableRng;

    use super::*;
    use crate::turn::ports::COOL_DOWN;

    const START: Duration = Duration::ZERO;
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn rng() -> StdRng {
        StdRng::from_seed([5; 32])
    }

    #[test]
    fn rfc8656_7_2_ports_are_drawn_in_random_order_each_once() {
        let shared = Shared::new(50_000..=50_999);
        let mut rng = rng();
        let drawn: Vec<u16> =
            std::iter::from_fn(|| shared.take_port(HERE, Parity::Any, START, &mut rng)).collect();
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 1000);
        let neighbours = drawn.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
        assert!(neighbours < 20, "{neighbours} ports followed each other");
    }

    #[test]
    fn a_returned_port_rests_two_minutes_while_others_are_free() {
        let shared = Shared::new(50_000..=50_003);
        let mut rng = rng();
        let mut take = |now| shared.take_port(THERE, Parity::Any, now, &mut rng);
        let first = take(START).expect("four are free");
        shared.return_port((THERE, first).into(), START);
        let others: Vec<_> = (0..3).filter_map(|_| take(COOL_DOWN / 2)).collect();
        assert!(!others.contains(&first) && others.len() == 3);
        // All others are taken: rather a port that rested too little than none.
        assert_eq!(take(COOL_DOWN / 2), Some(first));
        assert_eq!(take(COOL_DOWN), None);
    }

    #[test]
    fn rfc8656_18_7_even_ports_only() {
        let shared = Shared::new(50_001..=50_010);
        let mut rng = rng();
        let drawn: Vec<u16> =
            std::iter::from_fn(|| shared.take_port(HERE, Parity::Even, START, &mut rng)).collect();
        assert!(drawn.len() == 5 && drawn.iter().all(|port| port % 2 == 0));
        shared.return_port((HERE, drawn[0]).into(), START);
        assert_eq!(shared.take_port(HERE, Parity::Even, START, &mut rng), Some(drawn[0]));
    }

    #[test]
    fn rfc8656_18_7_a_pair_is_two_free_ports_of_which_the_lower_is_even() {
        let shared = Shared::new(50_001..=50_011);
        let mut rng = rng();
        let mut take = |parity| shared.take_port(HERE, parity, START, &mut rng);
        let mut lower: Vec<u16> = std::iter::from_fn(|| take(Parity::Pair)).collect();
        lower.sort_unstable();
        assert_eq!(lower, [50_002, 50_004, 50_006, 50_008, 50_010]);
        assert_eq!((take(Parity::Any), take(Parity::Any)), (Some(50_001), None), "the upper ones are taken");
        shared.return_port((HERE, 50_003).into(), START);
        assert_eq!(take(Parity::Pair), None, "half a pair is none");
        shared.return_port((HERE, 50_002).into(), START);
        assert_eq!(take(Parity::Pair), Some(50_002));
    }

    #[test]
    fn live_ports_and_their_owners_are_seen_by_everyone() {
        let shared = Shared::new(50_000..=65_535);
        let (here, there) = ((HERE, 65_535).into(), (THERE, 65_535).into());
        assert!(shared.free_ports(HERE) == shared.free_ports(THERE));
        let owner = Owner::from_bits(7 << 56 | 0x12_3456 << 32 | 0x89AB_CDEF);
        shared.set_owner(here, Some(owner));
        assert!(shared.is_live(here));
        assert_eq!(shared.owner_of(here), Some(owner));
        assert!(!shared.is_live(there) && !shared.is_live((HERE, 65_534).into()));
        shared.return_port(here, START);
        assert!(!shared.is_live(here));
    }

    #[test]
    fn each_address_has_the_whole_range() {
        let shared = Shared::new(50_000..=50_001);
        let mut rng = rng();
        let mut take = |ip| shared.take_port(ip, Parity::Any, START, &mut rng).is_some();
        assert!(take(HERE) && take(THERE) && take(HERE) && take(THERE));
        assert!(!take(HERE) && !take(THERE));
        assert_eq!((shared.free_ports(HERE), shared.free_ports(THERE)), (0, 0));
    }

    #[test]
    fn addresses_beyond_the_bound_have_no_ports() {
        let shared = Shared::new(50_000..=50_001);
        let mut rng = rng();
        for n in 0..=MAX_RELAY_ADDRESSES as u32 {
            let ip = Ipv4Addr::from_bits(n).into();
            let drawn = shared.take_port(ip, Parity::Any, START, &mut rng);
            assert_eq!(drawn.is_some(), n < MAX_RELAY_ADDRESSES as u32);
        }
        assert!(shared.take_port(Ipv4Addr::from_bits(0).into(), Parity::Any, START, &mut rng).is_some());
    }

    #[test]
    fn quota_slots_are_given_back_when_dropped() {
        let shared = Arc::new(Shared::new(1..=1));
        let slots: Vec<_> = (0..3).filter_map(|_| shared.charge("alice", 2, 0)).collect();
        assert_eq!((slots.len(), shared.allocations()), (2, 2));
        assert!(shared.charge("bob", 2, 2).is_none() && shared.charge("bob", 2, 3).is_some());
        drop(slots);
        assert_eq!(shared.allocations(), 0);
        assert!(lock(&shared.users).is_empty(), "no entry stays behind");
    }
}
