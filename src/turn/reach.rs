//! Which peers clients may talk to: the peer policy, and beside it one rule for the addresses of this
//! server. An own address is reachable only where a relay lives, or where policy allows it: calls
//! between two clients of this server need its relays, and nothing else that listens there is theirs.

use std::net::{IpAddr, SocketAddr};

use super::policy::Listener;
use super::shared::Shared;
use super::table::Owner;
use super::{RelayAddress, Settings};

/// Where packets for a permitted peer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Out, to the address as it is.
    Outside,
    /// To the client whose relayed address it is.
    Relay(Owner),
    /// Nowhere: an own address without a relay.
    Nowhere,
}

/// Where packets for a permitted peer go, and whether packets may come from there.
pub(super) fn reach(settings: &Settings, shared: &Shared, peer: SocketAddr) -> Reach {
    let Some(own) = own_address(settings, peer.ip()) else { return Reach::Outside };
    let local = SocketAddr::new(own.bind, peer.port());
    if is_shared_relay(shared, local) {
        return Reach::Nowhere;
    }
    match shared.owner_of(local) {
        Some(owner) => Reach::Relay(owner),
        None if settings.peers.may_reach(peer.ip()) => Reach::Outside,
        None => Reach::Nowhere,
    }
}

/// Whether a channel may be bound to the transport address.
pub(super) fn may_bind_to(settings: &Settings, shared: &Shared, peer: SocketAddr) -> bool {
    !settings.peers.is_listener(Listener::Udp(peer))
        && match reach(settings, shared, peer) {
            Reach::Outside => settings.peers.may_reach(peer.ip()),
            Reach::Relay(_) => true,
            Reach::Nowhere => false,
        }
}

/// Whether a permission may be given: for own addresses always, their ports are judged when packets flow.
/// Where all relays share a port there is none to be told apart by, and own addresses are like others.
pub(super) fn may_permit(settings: &Settings, shared: &Shared, ip: IpAddr) -> bool {
    let has_relays = shared.one_port().is_none() && own_address(settings, ip).is_some();
    has_relays || settings.peers.may_reach(ip)
}

/// Whether the peer is the relayed address that all allocations share.
pub(super) fn is_own_shared_relay(settings: &Settings, shared: &Shared, peer: SocketAddr) -> bool {
    own_address(settings, peer.ip())
        .is_some_and(|own| is_shared_relay(shared, SocketAddr::new(own.bind, peer.port())))
}

fn is_shared_relay(shared: &Shared, local: SocketAddr) -> bool {
    shared.one_port().is_some_and(|one_port| one_port.port_of(local.ip()) == Some(local.port()))
}

/// Where a Connect to the peer goes (RFC 6062 §5.2): the peer itself, or the local address of another TCP
/// relay of this server. `None` when it is forbidden.
pub(super) fn connect_to(settings: &Settings, shared: &Shared, peer: SocketAddr) -> Option<SocketAddr> {
    if settings.peers.is_listener(Listener::Tcp(peer)) {
        return None;
    }
    let local = own_address(settings, peer.ip()).map(|own| SocketAddr::new(own.bind, peer.port()));
    match local.filter(|local| shared.is_listening(*local)) {
        Some(local) => Some(local),
        None => settings.peers.may_reach(peer.ip()).then_some(peer),
    }
}

/// Whether a peer, named as clients know it, may connect to a relay of this server.
pub(super) fn may_connect_from(settings: &Settings, shared: &Shared, peer: SocketAddr) -> bool {
    let local = own_address(settings, peer.ip()).map(|own| SocketAddr::new(own.bind, peer.port()));
    local.is_some_and(|local| shared.is_listening(local)) || settings.peers.may_reach(peer.ip())
}

/// The name of the relay at the local address `peer` that a client knows it by. An address that changed
/// has two, and the client knows the one for which `is_known` holds.
pub(super) fn public_name(
    settings: &Settings,
    peer: SocketAddr,
    is_known: impl Fn(IpAddr) -> bool,
) -> SocketAddr {
    let mut names = own_addresses(settings).filter(|own| own.bind == peer.ip()).map(|own| own.public);
    let Some(newest) = names.next() else { return peer };
    let name = if is_known(newest) { newest } else { names.find(|name| is_known(*name)).unwrap_or(newest) };
    SocketAddr::new(name, peer.port())
}

/// Whether connections to the peer, which were allowed once, no longer are.
pub(super) fn is_lost(settings: &Settings, shared: &Shared, peer: SocketAddr) -> bool {
    settings.peers.is_listener(Listener::Tcp(peer)) || !may_permit(settings, shared, peer.ip())
}

/// The relay address of this server that `ip` names, by its local or its public name.
pub(super) fn own_address(settings: &Settings, ip: IpAddr) -> Option<&RelayAddress> {
    own_addresses(settings).find(|own| own.public == ip || own.bind == ip)
}

/// All relay addresses of this server, those of the past last.
pub(super) fn own_addresses(settings: &Settings) -> impl Iterator<Item = &RelayAddress> {
    settings.addresses.iter().chain(&settings.former)
}
