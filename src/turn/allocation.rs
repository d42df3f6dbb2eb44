//! One allocation with its permissions and channels, and their lifetimes (RFC 8656 §7.2, §9, §12).

use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::auth::Seal;
use super::bandwidth::{Meter, Meters};
use super::events::Carried;
use super::mobility::Mobile;
use super::one_port::Held;
use super::output::ClientPath;
use super::reservation::{Reservation, Token};
use super::shared::{Family, Parity, QuotaSlot};
use super::table::AllocationId;
use crate::credential::Expiry;
use crate::stun::{ChannelNumber, ErrorCode, IntegrityKey, TransactionId};

/// Lifetime of a permission (RFC 8656 §9).
pub(super) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// Lifetime of a channel binding (RFC 8656 §12).
pub(super) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// How long a channel that expired is kept for the same number and peer (RFC 8656 §12).
pub(super) const CHANNEL_HOLD: Duration = Duration::from_secs(300);
/// Permissions, and channels, one allocation may have. Browsers install one for each remote candidate.
pub(super) const MAX_PEERS: usize = 256;

/// What a relayed transport address carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relayed {
    /// Datagrams.
    Udp,
    /// Connections (RFC 6062).
    Tcp,
}

/// A relayed transport address and its socket. A dual allocation has one of each family, and each has
/// a lifetime of its own (RFC 8656 §8).
pub(super) struct Relay {
    /// The relayed transport address as the world sees it.
    pub(super) relayed: SocketAddr,
    /// The local address of the relay socket.
    pub(super) bind: SocketAddr,
    pub(super) expires: Duration,
    pub(super) is_open: bool,
}

/// What is remembered of an Allocate until its relay sockets are open.
pub(super) struct Opening {
    /// Ports that turned out to be taken by others so far.
    pub(super) taken: u8,
    /// Which other ports would do, if any.
    pub(super) parity: Option<Parity>,
    /// How the answer ends.
    pub(super) seal: Seal,
    /// The next higher port, to be reserved when all goes well.
    pub(super) reservation: Option<Reservation>,
}

/// An allocation (RFC 8656 §2.2). What each packet needs stands side by side at the front, in as few cache lines as can be:
/// with thousands of allocations each packet finds its own in memory that was last used long ago.
#[repr(C, align(64))]
pub(super) struct Allocation {
    recent: Cell<Option<Recent>>,
    /// Given by the table.
    pub(super) id: AllocationId,
    /// What it has carried so far.
    pub(super) carried: Carried,
    pub(super) path: ClientPath,
    /// At most one of each family, and always one.
    relays: [Option<Relay>; 2],
    /// It may move to another path (RFC 8016).
    pub(super) mobile: Option<Mobile>,
    pub(super) carries: Relayed,
    /// Gone once the Allocate has been answered.
    pub(super) opening: Option<Box<Opening>>,
    /// What stood in the way of the other family of a dual allocation.
    pub(super) refused: Option<(Family, ErrorCode)>,
    /// The port this allocation has reserved.
    pub(super) token: Option<Token>,
    /// The transaction of the Allocate, to recognise its retransmissions.
    pub(super) transaction: TransactionId,
    /// USERNAME of the Allocate; later requests must bring the same.
    pub(super) username: Box<str>,
    /// The user that quotas count on.
    pub(super) user: Box<str>,
    pub(super) key: IntegrityKey,
    /// End of the credential.
    pub(super) expiry: Option<Expiry>,
    /// The user's quota; given back with the allocation.
    pub(super) quota: QuotaSlot,
    /// The earliest entry of this allocation among the timers.
    pub(super) scheduled: Duration,
    /// Bytes relayed.
    pub(super) meters: Meters,
    /// How many ICMP errors its client was told of.
    pub(super) peer_errors: Meter,
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
    /// Channels by peer: (peer, number).
    channels_by_peer: Vec<(SocketAddr, ChannelNumber)>,
    /// What it has claimed where all allocations share a port.
    pub(super) held: Option<Box<Held>>,
}

/// What the client is told of its allocation.
#[derive(Clone, Copy)]
pub(super) struct Granted {
    pub(super) relayed: [Option<SocketAddr>; 2],
    /// Why the other family of a dual allocation could not be had.
    pub(super) refused: Option<(Family, ErrorCode)>,
    pub(super) token: Option<Token>,
    pub(super) lifetime: Duration,
}

/// A permission (RFC 8656 §9), ordered by address. Ports do not matter.
#[derive(Clone, Copy, Debug)]
struct Permission {
    ip: IpAddr,
    expires: Duration,
}

/// A channel binding (RFC 8656 §12), ordered by number. Kept [`CHANNEL_HOLD`] beyond its expiry.
#[derive(Clone, Copy, Debug)]
struct Channel {
    number: ChannelNumber,
    peer: SocketAddr,
    expires: Duration,
}

/// The channel that a packet went by last, until it or the permission of its peer ends, or a relay of this allocation:
/// packets follow each other, and need not look any of it up again.
#[derive(Clone, Copy, Debug)]
struct Recent {
    number: ChannelNumber,
    peer: SocketAddr,
    until: Duration,
    /// What [`Shared::changes`](super::shared::Shared::changes) said when the peer was found to be outside; zero before.
    outside: u64,
}

/// Why a channel cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindError {
    /// Number or peer are bound, or held, in another pairing (RFC 8656 §12.2).
    Conflict,
    /// [`MAX_PEERS`] are bound.
    Full,
}

/// What a new allocation starts from.
pub(super) struct NewAllocation {
    pub(super) path: ClientPath,
    pub(super) mobile: Option<Mobile>,
    pub(super) carries: Relayed,
    pub(super) opening: Opening,
    pub(super) relays: [Option<Relay>; 2],
    pub(super) refused: Option<(Family, ErrorCode)>,
    pub(super) transaction: TransactionId,
    pub(super) username: Box<str>,
    pub(super) user: Box<str>,
    pub(super) key: IntegrityKey,
    pub(super) expiry: Option<Expiry>,
    pub(super) quota: QuotaSlot,
    pub(super) meters: Meters,
}

impl Allocation {
    pub(super) fn new(start: NewAllocation) -> Self {
        let mut allocation = Self {
            id: AllocationId::default(),
            recent: Cell::new(None),
            path: start.path,
            carried: Carried::default(),
            mobile: start.mobile,
            carries: start.carries,
            opening: Some(Box::new(start.opening)),
            relays: start.relays,
            refused: start.refused,
            token: None,
            transaction: start.transaction,
            username: start.username,
            user: start.user,
            key: start.key,
            expiry: start.expiry,
            quota: start.quota,
            scheduled: Duration::ZERO,
            meters: start.meters,
            peer_errors: Meter::default(),
            permissions: Vec::new(),
            channels: Vec::new(),
            channels_by_peer: Vec::new(),
            held: None,
        };
        allocation.scheduled = allocation.next_deadline();
        allocation
    }

    /// Reads where each packet does. Nothing comes of it but that it is near when the next packet is there.
    pub(super) fn touch(&self) {
        black_box((self.recent.get().is_some(), self.path.link, self.carried.is_any()));
    }

    /// The relay of a family, if there is one.
    pub(super) fn relay(&self, family: Family) -> Option<&Relay> {
        self.relays[family as usize].as_ref()
    }

    pub(super) fn relay_mut(&mut self, family: Family) -> Option<&mut Relay> {
        self.relays[family as usize].as_mut()
    }

    /// Moves a relay that is still to be opened to another port; its local address.
    pub(super) fn set_relayed_port(&mut self, family: Family, port: u16) -> Option<SocketAddr> {
        let relay = self.relay_mut(family)?;
        relay.relayed.set_port(port);
        relay.bind.set_port(port);
        Some(relay.bind)
    }

    /// The relays by family; IPv4 first.
    pub(super) fn relays(&self) -> impl Iterator<Item = (Family, &Relay)> {
        Family::BOTH.into_iter().filter_map(|family| Some((family, self.relay(family)?)))
    }

    /// The relayed address a peer of this address sees.
    pub(super) fn relayed_for(&self, peer: IpAddr) -> Option<SocketAddr> {
        self.relay(Family::of(peer)).map(|relay| relay.relayed)
    }

    /// What the answer to its Allocate says now. Of two lifetimes it is the shorter.
    pub(super) fn granted(&self, now: Duration) -> Granted {
        let ends = self.relays().map(|(_, relay)| relay.expires);
        Granted {
            relayed: Family::BOTH.map(|family| self.relay(family).map(|relay| relay.relayed)),
            refused: self.refused,
            token: self.token,
            lifetime: ends.min().unwrap_or_default().saturating_sub(now),
        }
    }

    /// Takes a relay away, and the permissions and channels of its family with it (RFC 8656 §8.1).
    pub(super) fn remove_relay(&mut self, family: Family) -> Option<Relay> {
        self.retain_peers(|ip| Family::of(ip) != family);
        self.relays[family as usize].take()
    }

    /// Whether packets to and from the address may pass now (RFC 8656 §9).
    pub(super) fn is_permitted(&self, ip: IpAddr, now: Duration) -> bool {
        self.recent(now).is_some_and(|recent| recent.peer.ip() == ip)
            || self.permission_index(ip).is_ok_and(|at| now < self.permissions[at].expires)
    }

    /// Whether there is a permission for the address that has not been cleared away yet.
    pub(super) fn has_permission(&self, ip: IpAddr) -> bool {
        self.permission_index(ip).is_ok()
    }

    /// The addresses of such permissions.
    pub(super) fn permitted_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.permissions.iter().map(|permission| permission.ip)
    }

    /// Whether a channel is bound, or held, for the peer.
    pub(super) fn has_channel(&self, peer: SocketAddr) -> bool {
        self.peer_index(peer).is_ok()
    }

    /// The peer of a live channel.
    pub(super) fn peer_of(&self, number: ChannelNumber, now: Duration) -> Option<SocketAddr> {
        if let Some(recent) = self.recent(now).filter(|recent| recent.number == number) {
            return Some(recent.peer);
        }
        let channel = &self.channels[self.channel_index(number).ok()?];
        if now >= channel.expires {
            return None;
        }
        if let Ok(at) = self.permission_index(channel.peer.ip()) {
            let until = channel.expires.min(self.permissions[at].expires);
            self.recent.set(Some(Recent { number, peer: channel.peer, until, outside: 0 }));
        }
        Some(channel.peer)
    }

    /// The live channel of a peer.
    pub(super) fn channel_of(&self, peer: SocketAddr, now: Duration) -> Option<ChannelNumber> {
        if let Some(recent) = self.recent(now).filter(|recent| recent.peer == peer) {
            return Some(recent.number);
        }
        let at = self.peer_index(peer).ok()?;
        let number = self.channels_by_peer[at].1;
        self.peer_of(number, now).map(|_| number)
    }

    /// Whether the peer was found to be outside when there had been so many changes.
    pub(super) fn is_outside(&self, peer: SocketAddr, changes: u64) -> bool {
        self.recent.get().is_some_and(|recent| recent.outside == changes && recent.peer == peer)
    }

    /// Remembers that, if packets go to the peer by a channel.
    pub(super) fn note_outside(&self, peer: SocketAddr, changes: u64) {
        let recent = self.recent.get().map(|recent| match recent.peer == peer {
            true => Recent { outside: changes, ..recent },
            false => recent,
        });
        self.recent.set(recent);
    }

    fn recent(&self, now: Duration) -> Option<Recent> {
        self.recent.get().filter(|recent| now < recent.until)
    }

    /// The channels of peers that have a permission, in order: number, peer, and when the earlier of both ends.
    pub(super) fn bindings(&self) -> impl Iterator<Item = (u16, SocketAddr, Duration)> {
        self.channels.iter().filter_map(|channel| {
            let at = self.permission_index(channel.peer.ip()).ok()?;
            let expires = channel.expires.min(self.permissions[at].expires);
            Some((channel.number.to_u16(), channel.peer, expires))
        })
    }

    /// Whether permissions for all these addresses fit.
    pub(super) fn has_room_for(&self, ips: &[IpAddr]) -> bool {
        let is_new = |ip: &&IpAddr| self.permission_index(**ip).is_err();
        self.permissions.len() + ips.iter().filter(is_new).count() <= MAX_PEERS
    }

    /// Installs or refreshes a permission (RFC 8656 §10.2). The caller asked [`Self::has_room_for`].
    pub(super) fn permit(&mut self, ip: IpAddr, now: Duration) {
        let permission = Permission { ip, expires: now + PERMISSION_LIFETIME };
        match self.permission_index(ip) {
            Ok(at) => self.permissions[at] = permission,
            Err(at) => self.permissions.insert(at, permission),
        }
    }

    /// Whether [`Self::bind_channel`] would succeed.
    pub(super) fn may_bind(&self, number: ChannelNumber, peer: SocketAddr) -> Result<(), BindError> {
        match (self.channel_index(number), self.peer_index(peer)) {
            (Ok(at), _) if self.channels[at].peer != peer => Err(BindError::Conflict),
            (Err(_), Ok(_)) => Err(BindError::Conflict),
            (Err(_), Err(_)) if self.channels.len() >= MAX_PEERS => Err(BindError::Full),
            _ => Ok(()),
        }
    }

    /// Binds or refreshes a channel (RFC 8656 §12.2). The caller asked [`Self::may_bind`].
    pub(super) fn bind_channel(&mut self, number: ChannelNumber, peer: SocketAddr, now: Duration) {
        let channel = Channel { number, peer, expires: now + CHANNEL_LIFETIME };
        match self.channel_index(number) {
            Ok(at) => self.channels[at] = channel,
            Err(at) => {
                self.channels.insert(at, channel);
                let at = self.peer_index(peer).unwrap_or_else(|at| at);
                self.channels_by_peer.insert(at, (peer, number));
            }
        }
    }

    /// Drops permissions that expired and channels whose hold time is over.
    pub(super) fn expire(&mut self, now: Duration) {
        self.permissions.retain(|permission| now < permission.expires);
        self.retain_channels(|channel| now < channel.expires + CHANNEL_HOLD);
    }

    /// Drops permissions and channels of peers that are no longer allowed.
    pub(super) fn retain_peers(&mut self, may_reach: impl Fn(IpAddr) -> bool) {
        self.recent.set(None);
        self.permissions.retain(|permission| may_reach(permission.ip));
        self.retain_channels(|channel| may_reach(channel.peer.ip()));
    }

    fn retain_channels(&mut self, may_keep: impl Fn(&Channel) -> bool) {
        self.channels.retain(may_keep);
        if self.channels.len() < self.channels_by_peer.len() {
            let channels = &self.channels;
            self.channels_by_peer.retain(|(_, number)| {
                channels.binary_search_by_key(number, |channel| channel.number).is_ok()
            });
        }
    }

    /// The next moment at which something of this allocation ends.
    pub(super) fn next_deadline(&self) -> Duration {
        let permissions = self.permissions.iter().map(|permission| permission.expires);
        let channels = self.channels.iter().map(|channel| channel.expires + CHANNEL_HOLD);
        let relays = self.relays().map(|(_, relay)| relay.expires);
        permissions.chain(channels).chain(relays).min().unwrap_or_default()
    }

    fn permission_index(&self, ip: IpAddr) -> Result<usize, usize> {
        self.permissions.binary_search_by_key(&ip, |permission| permission.ip)
    }

    fn channel_index(&self, number: ChannelNumber) -> Result<usize, usize> {
        self.channels.binary_search_by_key(&number, |channel| channel.number)
    }

    fn peer_index(&self, peer: SocketAddr) -> Result<usize, usize> {
        self.channels_by_peer.binary_search_by_key(&peer, |(peer, _)| *peer)
    }
}
