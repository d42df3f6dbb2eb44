//! The relay core once more, in the plainest words: maps, linear searches, no timers. It knows the
//! settings of the model test alone, shares no code with the core, and foretells what each input leads to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use turnkey::turn::{ClientPath, OpenError, RelayId, Transport};

pub(super) const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_011;
pub(super) const USER_QUOTA: usize = 5;
pub(super) const TOTAL_QUOTA: usize = 9;
pub(super) const CLIENTS: usize = 12;
pub(super) const WORKERS: usize = 3;
pub(super) const LISTENER_PORT: u16 = 3478;
const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);
const HOLD: Duration = Duration::from_secs(300);
const RESERVATION: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_secs(120);
const ATTEMPTS: u32 = 16;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Local and public relay address of a family.
pub(super) fn relay_ip(family: usize) -> (IpAddr, IpAddr) {
    [(ip("10.0.0.1"), ip("198.51.100.1")), (ip("2600::1"), ip("2600::1"))][family]
}

pub(super) fn family(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
}

pub(super) fn worker_of(client: usize) -> usize {
    client % WORKERS
}

/// Every user has clients at every worker.
pub(super) fn user_of(client: usize) -> usize {
    client / WORKERS % 2
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    Any,
    Even,
    Pair,
}

/// An Allocate whose attributes may stand together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    /// New ports of these families.
    New {
        families: [bool; 2],
        parity: Parity,
    },
    Token([u8; 8]),
}

/// What a success says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) relayed: Vec<SocketAddr>,
    pub(super) refused: Option<(u8, u16)>,
    pub(super) token: Option<[u8; 8]>,
    pub(super) lifetime: u32,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Out {
    Nowhere,
    Peer(RelayId, SocketAddr),
    Channel(ClientPath, u16),
    Data(ClientPath, SocketAddr),
}

#[derive(Debug)]
pub(super) struct Relay {
    pub(super) id: RelayId,
    pub(super) port: u16,
    pub(super) expires: Duration,
}

#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) path: ClientPath,
    pub(super) transaction: [u8; 12],
    pub(super) relays: [Option<Relay>; 2],
    refused: Option<(u8, u16)>,
    token: Option<[u8; 8]>,
    permissions: BTreeMap<IpAddr, Duration>,
    channels: BTreeMap<u16, (SocketAddr, Duration)>,
}

impl Allocation {
    fn is_permitted(&self, ip: IpAddr, now: Duration) -> bool {
        self.permissions.get(&ip).is_some_and(|end| now < *end)
    }

    fn end(&self) -> Duration {
        self.relays.iter().flatten().map(|relay| relay.expires).min().unwrap()
    }

    /// When the next thing of it ends.
    fn deadline(&self) -> Duration {
        let permissions = self.permissions.values().copied();
        let channels = self.channels.values().map(|(_, end)| *end + HOLD);
        permissions.chain(channels).min().unwrap_or(Duration::MAX).min(self.end())
    }

    fn keep_peers(&mut self, keep: impl Fn(IpAddr) -> bool) {
        self.permissions.retain(|ip, _| keep(*ip));
        self.channels.retain(|_, (peer, _)| keep(peer.ip()));
    }
}

#[derive(Debug)]
struct Reservation {
    worker: usize,
    user: usize,
    family: usize,
    port: u16,
    expires: Duration,
}

/// An Allocate whose sockets are being opened.
struct Pending {
    client: usize,
    path: ClientPath,
    transaction: [u8; 12],
    expires: Duration,
    /// `None` for a claimed port: no other will do.
    parity: Option<Parity>,
    /// The port that is claimed.
    claimed: Option<u16>,
    /// Families whose socket is still to be opened.
    waiting: [bool; 2],
    relays: [Option<Relay>; 2],
    refused: Option<(u8, u16)>,
    attempts: u32,
}

/// The whole of it.
pub(super) struct Reference {
    pub(super) now: Duration,
    pub(super) allocations: BTreeMap<usize, Allocation>,
    reservations: BTreeMap<[u8; 8], Reservation>,
    taken: [BTreeSet<u16>; 2],
    /// Ports that rest, the one that has rested longest first.
    resting: [VecDeque<(u16, Duration)>; 2],
    pub(super) draining: bool,
    /// Whether policy forbids 8.8.4.4.
    pub(super) is_strict: bool,
    pub(super) has_v6: bool,
    pending: Option<Pending>,
    /// What the answer to the Allocate at hand has to be.
    answer: Option<Result<Granted, u16>>,
}

impl Reference {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            now,
            allocations: BTreeMap::new(),
            reservations: BTreeMap::new(),
            taken: Default::default(),
            resting: Default::default(),
            draining: false,
            is_strict: false,
            has_v6: true,
            pending: None,
            answer: None,
        }
    }

    // Time.

    pub(super) fn advance(&mut self, now: Duration) {
        self.now = now;
        for client in 0..CLIENTS {
            for family in 0..2 {
                let relay = self.allocations.get(&client).and_then(|a| a.relays[family].as_ref());
                if relay.is_some_and(|relay| relay.expires <= now) {
                    self.end_relay(client, family);
                }
            }
            if let Some(allocation) = self.allocations.get_mut(&client) {
                allocation.permissions.retain(|_, end| now < *end);
                allocation.channels.retain(|_, (_, end)| now < *end + HOLD);
            }
        }
        let over: Vec<_> =
            self.reservations.iter().filter(|(_, r)| r.expires <= now).map(|(token, _)| *token).collect();
        for token in over {
            let gone = self.reservations.remove(&token).unwrap();
            self.release(gone.family, gone.port);
        }
    }

    /// When something of a worker ends next.
    pub(super) fn deadline(&self, worker: usize) -> Option<Duration> {
        let own = self.allocations.iter().filter(|(client, _)| worker_of(**client) == worker);
        let reserved = self.reservations.values().filter(|r| r.worker == worker).map(|r| r.expires);
        own.map(|(_, allocation)| allocation.deadline()).chain(reserved).min()
    }

    // Ports and quotas.

    fn release(&mut self, family: usize, port: u16) {
        assert!(self.taken[family].remove(&port));
        self.resting[family].push_back((port, self.now + REST));
    }

    fn free(&self, family: usize, parity: Parity) -> Vec<u16> {
        let is_free = |port: &u16| PORTS.contains(port) && !self.taken[family].contains(port);
        let fits = |port: &u16| match parity {
            Parity::Any => true,
            Parity::Even => port.is_multiple_of(2),
            Parity::Pair => port.is_multiple_of(2) && is_free(&(port + 1)),
        };
        PORTS.filter(is_free).filter(fits).collect()
    }

    fn has_rested(&self, family: usize, port: u16) -> bool {
        !self.resting[family].iter().any(|(other, until)| *other == port && self.now < *until)
    }

    /// Checks that the port may be drawn, and takes it.
    fn draw(&mut self, family: usize, parity: Parity, port: u16) {
        let free = self.free(family, parity);
        assert!(free.contains(&port), "{port} is free and fits");
        let rested = |port: &u16| {
            self.has_rested(family, *port) && (parity != Parity::Pair || self.has_rested(family, port + 1))
        };
        if free.iter().any(rested) {
            assert!(rested(&port), "{port} still rests and others do not");
        } else if parity != Parity::Pair {
            // Those that were given back at one moment have no order.
            let since =
                |wanted: u16| self.resting[family].iter().find(|(port, _)| *port == wanted).unwrap().1;
            let longest = free.iter().map(|port| since(*port)).min();
            assert_eq!(Some(since(port)), longest, "the one that has rested longest");
        }
        self.take(family, port);
        if parity == Parity::Pair {
            self.take(family, port + 1);
        }
    }

    fn take(&mut self, family: usize, port: u16) {
        assert!(self.taken[family].insert(port));
        self.resting[family].retain(|(other, _)| *other != port);
    }

    /// Allocations and reservations of all, or of one user.
    pub(super) fn charged(&self, user: Option<usize>) -> usize {
        let allocations = self.allocations.keys().map(|client| user_of(*client));
        let reserved = self.reservations.values().map(|reservation| reservation.user);
        allocations.chain(reserved).filter(|of| user.is_none_or(|user| user == *of)).count()
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = [u8; 8]> {
        self.reservations.keys().copied()
    }

    /// Local addresses of sockets that are bound and wait.
    pub(super) fn reserved(&self) -> BTreeSet<SocketAddr> {
        self.reservations.values().map(|r| (relay_ip(r.family).0, r.port).into()).collect()
    }

    /// Open relay sockets of a worker.
    pub(super) fn open(&self, worker: usize) -> BTreeMap<RelayId, SocketAddr> {
        let own = self.allocations.iter().filter(|(client, _)| worker_of(**client) == worker);
        let relays = own.flat_map(|(_, a)| a.relays.iter().enumerate());
        relays.filter_map(|(f, r)| r.as_ref().map(|r| (r.id, (relay_ip(f).0, r.port).into()))).collect()
    }

    // Allocate.

    /// What an Allocate is answered with at once; `None` when sockets are opened first.
    pub(super) fn allocate(
        &mut self,
        client: usize,
        path: ClientPath,
        transaction: [u8; 12],
        want: Result<Want, u16>,
        lifetime: Option<u32>,
    ) -> Option<Result<Granted, u16>> {
        if let Some(allocation) = self.allocations.get(&client) {
            let same = allocation.transaction == transaction;
            return Some(if same { Ok(self.granted(allocation)) } else { Err(437) });
        }
        let expires = self.now + Duration::from_secs(lifetime.unwrap_or(600).clamp(600, 3600).into());
        let mut pending = Pending {
            client,
            path,
            transaction,
            expires,
            parity: None,
            claimed: None,
            waiting: [false; 2],
            relays: [None, None],
            refused: None,
            attempts: 0,
        };
        let asked = match want {
            Err(code) => Err(code),
            Ok(Want::New { families, .. }) if families == [false, true] && !self.has_v6 => Err(440),
            Ok(_) if self.draining => Err(508),
            Ok(Want::Token(token)) => self.claim(client, token, &mut pending),
            Ok(Want::New { families, parity }) => self.ask_new(client, families, parity, &mut pending),
        };
        match asked {
            Ok(()) => {
                self.pending = Some(pending);
                None
            }
            Err(code) => Some(Err(code)),
        }
    }

    fn claim(&mut self, client: usize, token: [u8; 8], pending: &mut Pending) -> Result<(), u16> {
        if self.reservations.get(&token).is_none_or(|r| r.user != user_of(client)) {
            return Err(508);
        }
        let Reservation { family, port, .. } = self.reservations.remove(&token).unwrap();
        pending.waiting[family] = true;
        pending.claimed = Some(port);
        Ok(())
    }

    fn ask_new(
        &self,
        client: usize,
        families: [bool; 2],
        parity: Parity,
        pending: &mut Pending,
    ) -> Result<(), u16> {
        for family in (0..2).filter(|family| families[*family]) {
            if family == 1 && !self.has_v6 {
                pending.refused = Some((2, 440));
            } else if self.free(family, parity).is_empty() {
                pending.refused = Some((family as u8 + 1, 508));
            } else {
                pending.waiting[family] = true;
            }
        }
        if pending.waiting == [false; 2] {
            return Err(508);
        }
        let more = if parity == Parity::Pair { 2 } else { 1 };
        if self.charged(Some(user_of(client))) + more > USER_QUOTA || self.charged(None) + more > TOTAL_QUOTA
        {
            return Err(486);
        }
        pending.parity = Some(parity);
        Ok(())
    }

    /// A socket was asked for, and this became of it.
    pub(super) fn open_relay(
        &mut self,
        id: RelayId,
        bind: SocketAddr,
        reserve: Option<SocketAddr>,
        result: Result<(), OpenError>,
    ) {
        let mut pending = self.pending.take().expect("an Allocate waits for sockets");
        let (family, port) = (family(bind.ip()), bind.port());
        assert!(pending.waiting[family] && bind.ip() == relay_ip(family).0, "{bind} is waited for");
        assert_eq!(id.0 as usize % 2, family);
        let is_pair = pending.parity == Some(Parity::Pair);
        assert_eq!(reserve, is_pair.then(|| (bind.ip(), port + 1).into()));
        match pending.parity {
            Some(parity) => self.draw(family, parity, port),
            None => assert_eq!(pending.claimed, Some(port)),
        }
        if result.is_ok() {
            pending.relays[family] = Some(Relay { id, port, expires: pending.expires });
            pending.waiting[family] = false;
            return self.settle(pending);
        }
        let others = pending.parity.map_or(0, |parity| self.free(family, parity).len());
        let again = result == Err(OpenError::InUse) && pending.attempts < ATTEMPTS && others > 0;
        self.release(family, port);
        if is_pair {
            self.release(family, port + 1);
        }
        if again {
            pending.attempts += 1;
        } else {
            pending.waiting[family] = false;
            pending.refused = Some((family as u8 + 1, 508));
        }
        self.settle(pending);
    }

    fn settle(&mut self, pending: Pending) {
        if pending.waiting != [false; 2] {
            self.pending = Some(pending);
            return;
        }
        if pending.relays.iter().all(Option::is_none) {
            self.answer = Some(Err(508));
            return;
        }
        let allocation = Allocation {
            path: pending.path,
            transaction: pending.transaction,
            relays: pending.relays,
            refused: pending.refused,
            // Learnt from the answer.
            token: (pending.parity == Some(Parity::Pair)).then_some([0; 8]),
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
        };
        self.answer = Some(Ok(self.granted(&allocation)));
        self.allocations.insert(pending.client, allocation);
    }

    /// What the Allocate whose sockets were opened is answered with.
    pub(super) fn take_answer(&mut self) -> Option<Result<Granted, u16>> {
        assert!(self.pending.is_none(), "a socket is still to be opened");
        self.answer.take()
    }

    /// The token that the answer named.
    pub(super) fn learn(&mut self, client: usize, token: [u8; 8]) {
        let allocation = self.allocations.get_mut(&client).unwrap();
        allocation.token = Some(token);
        let relays = allocation.relays.iter().enumerate();
        let (family, lower) = relays.filter_map(|(f, r)| Some((f, r.as_ref()?.port))).next().unwrap();
        let reservation = Reservation {
            worker: worker_of(client),
            user: user_of(client),
            family,
            port: lower + 1,
            expires: self.now + RESERVATION,
        };
        assert!(self.reservations.insert(token, reservation).is_none(), "tokens do not repeat");
    }

    fn granted(&self, allocation: &Allocation) -> Granted {
        let relays = allocation.relays.iter().enumerate();
        Granted {
            relayed: relays.filter_map(|(f, r)| Some((relay_ip(f).1, r.as_ref()?.port).into())).collect(),
            refused: allocation.refused,
            token: allocation.token,
            lifetime: (allocation.end() - self.now).as_secs() as u32,
        }
    }

    // Refresh and the end.

    fn end_relay(&mut self, client: usize, family: usize) {
        let allocation = self.allocations.get_mut(&client).unwrap();
        let relay = allocation.relays[family].take().unwrap();
        allocation.keep_peers(|ip| self::family(ip) != family);
        let is_over = allocation.relays.iter().all(Option::is_none);
        if is_over {
            self.allocations.remove(&client);
        }
        self.release(family, relay.port);
    }

    pub(super) fn end(&mut self, client: usize) {
        for family in 0..2 {
            if self.allocations.get(&client).is_some_and(|a| a.relays[family].is_some()) {
                self.end_relay(client, family);
            }
        }
    }

    /// A request or a report tells which connection is there now.
    pub(super) fn see_link(&mut self, client: usize, path: ClientPath) {
        if self.allocations.get(&client).is_some_and(|a| a.path.link != path.link) {
            self.end(client);
        }
    }

    pub(super) fn refresh(
        &mut self,
        client: usize,
        family: Option<usize>,
        lifetime: Option<u32>,
    ) -> Result<u32, u16> {
        let allocation = self.allocations.get_mut(&client).ok_or(437_u16)?;
        if family.is_some_and(|family| allocation.relays[family].is_none()) {
            return Err(443);
        }
        if lifetime == Some(0) {
            match family {
                Some(family) => self.end_relay(client, family),
                None => self.end(client),
            }
            return Ok(0);
        }
        let granted = lifetime.unwrap_or(600).clamp(600, 3600);
        for (of, relay) in allocation.relays.iter_mut().enumerate() {
            if let Some(relay) = relay.as_mut().filter(|_| family.is_none_or(|family| family == of)) {
                relay.expires = self.now + Duration::from_secs(granted.into());
            }
        }
        Ok(granted)
    }

    // Peers.

    fn is_own(ip: IpAddr) -> bool {
        (0..2).any(|family| relay_ip(family).0 == ip || relay_ip(family).1 == ip)
    }

    /// What listens at one of our addresses counts as listening at all of them.
    fn is_listener(peer: SocketAddr) -> bool {
        Self::is_own(peer.ip()) && peer.port() == LISTENER_PORT
    }

    fn may_reach(&self, ip: IpAddr) -> bool {
        let allowed = ["8.8.8.8", "1.1.1.1", "2600::9", "2600::a", "2600::1"];
        allowed.contains(&&*ip.to_string()) || (ip == self::ip("8.8.4.4") && !self.is_strict)
    }

    fn may_permit(&self, ip: IpAddr) -> bool {
        Self::is_own(ip) || self.may_reach(ip)
    }

    /// Peers that the client has a permission or a channel for; ports of permissions are any.
    pub(super) fn known_peers(&self, client: usize) -> Vec<SocketAddr> {
        let Some(allocation) = self.allocations.get(&client) else { return Vec::new() };
        let permitted = allocation.permissions.keys().map(|ip| (*ip, *PORTS.start()).into());
        permitted.chain(allocation.channels.values().map(|(peer, _)| *peer)).collect()
    }

    /// Relayed addresses of all, by their public names.
    pub(super) fn relayed(&self) -> Vec<SocketAddr> {
        let relays = self.allocations.values().flat_map(|a| a.relays.iter().enumerate());
        relays.filter_map(|(f, r)| Some((relay_ip(f).1, r.as_ref()?.port).into())).collect()
    }

    /// The client whose relay lives at an own address.
    fn relay_at(&self, peer: SocketAddr) -> Option<usize> {
        let family = family(peer.ip());
        let has = |a: &Allocation| a.relays[family].as_ref().is_some_and(|r| r.port == peer.port());
        let found = self.allocations.iter().find(|(_, allocation)| has(allocation))?;
        Self::is_own(peer.ip()).then_some(*found.0)
    }

    fn is_reachable(&self, peer: SocketAddr) -> bool {
        self.may_reach(peer.ip()) || self.relay_at(peer).is_some()
    }

    pub(super) fn permit(&mut self, client: usize, ips: &[IpAddr]) -> Result<(), u16> {
        let allocation = self.allocations.get(&client).ok_or(437_u16)?;
        if ips.is_empty() {
            return Err(400);
        }
        if ips.iter().any(|ip| allocation.relays[family(*ip)].is_none()) {
            return Err(443);
        }
        if !ips.iter().all(|ip| self.may_permit(*ip)) {
            return Err(403);
        }
        let end = self.now + PERMISSION;
        let allocation = self.allocations.get_mut(&client).unwrap();
        allocation.permissions.extend(ips.iter().map(|ip| (*ip, end)));
        Ok(())
    }

    pub(super) fn bind(&mut self, client: usize, number: u16, peer: SocketAddr) -> Result<(), u16> {
        let allocation = self.allocations.get(&client).ok_or(437_u16)?;
        if !(0x4000..=0x4FFF).contains(&number) {
            return Err(400);
        }
        if allocation.relays[family(peer.ip())].is_none() {
            return Err(443);
        }
        if Self::is_listener(peer) || !self.is_reachable(peer) {
            return Err(403);
        }
        let conflicts =
            |(other, (to, _)): (&u16, &(SocketAddr, Duration))| (*other == number) != (*to == peer);
        if allocation.channels.iter().any(conflicts) {
            return Err(400);
        }
        let now = self.now;
        let allocation = self.allocations.get_mut(&client).unwrap();
        allocation.permissions.insert(peer.ip(), now + PERMISSION);
        allocation.channels.insert(number, (peer, now + CHANNEL));
        Ok(())
    }

    pub(super) fn reconfigure(&mut self) {
        let (is_strict, denied) = (self.is_strict, ip("8.8.4.4"));
        for allocation in self.allocations.values_mut() {
            allocation.keep_peers(|ip| !is_strict || ip != denied);
        }
    }

    // Data.

    pub(super) fn channel_data(&self, client: usize, number: u16) -> Out {
        let allocation = self.allocations.get(&client);
        match allocation.and_then(|a| a.channels.get(&number)).filter(|(_, end)| self.now < *end) {
            Some((peer, _)) => self.send(client, *peer),
            None => Out::Nowhere,
        }
    }

    pub(super) fn send(&self, client: usize, peer: SocketAddr) -> Out {
        let family = family(peer.ip());
        let Some(allocation) = self.allocations.get(&client) else { return Out::Nowhere };
        let Some(relay) = &allocation.relays[family] else { return Out::Nowhere };
        if !allocation.is_permitted(peer.ip(), self.now) || Self::is_listener(peer) {
            return Out::Nowhere;
        }
        match self.relay_at(peer) {
            Some(other) => self.deliver(other, (relay_ip(family).1, relay.port).into()),
            None if self.may_reach(peer.ip()) => Out::Peer(relay.id, peer),
            None => Out::Nowhere,
        }
    }

    /// A datagram from a peer at the relay of a client.
    pub(super) fn receive(&self, client: usize, peer: SocketAddr) -> Out {
        let mut seen = peer;
        if self.relay_at(peer).is_some() {
            seen.set_ip(relay_ip(family(peer.ip())).1);
        }
        if Self::is_own(peer.ip()) && !self.is_reachable(peer) {
            return Out::Nowhere;
        }
        self.deliver(client, seen)
    }

    fn deliver(&self, client: usize, from: SocketAddr) -> Out {
        let allocation = &self.allocations[&client];
        if !allocation.is_permitted(from.ip(), self.now) {
            return Out::Nowhere;
        }
        let mut live = allocation.channels.iter().filter(|(_, (_, end))| self.now < *end);
        match live.find(|(_, (peer, _))| *peer == from) {
            Some((number, _)) => Out::Channel(allocation.path, *number),
            None => Out::Data(allocation.path, from),
        }
    }

    pub(super) fn pads(path: ClientPath) -> bool {
        path.five_tuple.transport == Transport::Tcp
    }
}
