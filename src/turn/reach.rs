//! Which peers clients may talk to: the peer policy, and beside it one rule for the addresses of this
//! server. An own address is reachable only where a relay lives, or where policy allows it: calls
//! between two clients of this server need its relays, and nothing else that listens there is theirs.

use std::net::{IpAddr, SocketAddr};

use super::shared::Shared;
use super::{RelayAddress, Settings};

/// Where packets for a permitted peer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Out, to the address as it is.
    Outside,
    /// To a relay socket of this server, at this local address.
    Relay(SocketAddr),
    /// Nowhere: an own address without a relay.
    Nowhere,
}

/// Where packets for a permitted peer go, and whether packets may come from there.
pub(super) fn reach(settings: &Settings, shared: &Shared, peer: SocketAddr) -> Reach {
    let Some(own) = own_address(settings, peer.ip()) else { return Reach::Outside };
    let local = SocketAddr::new(own.bind, peer.port());
    if shared.is_live(local) {
        Reach::Relay(local)
    } else if settings.peers.may_reach(peer.ip()) {
        Reach::Outside
    } else {
        Reach::Nowhere
    }
}

/// Whether a channel may be bound to the transport address.
pub(super) fn may_bind_to(settings: &Settings, shared: &Shared, peer: SocketAddr) -> bool {
    !settings.peers.is_listener(peer)
        && match reach(settings, shared, peer) {
            Reach::Outside => settings.peers.may_reach(peer.ip()),
            Reach::Relay(_) => true,
            Reach::Nowhere => false,
        }
}

/// Whether a permission may be given: for own addresses always, their ports are judged when packets flow.
pub(super) fn may_permit(settings: &Settings, ip: IpAddr) -> bool {
    own_address(settings, ip).is_some() || settings.peers.may_reach(ip)
}

/// The relay address of this server that `ip` names, by its local or its public name.
fn own_address(settings: &Settings, ip: IpAddr) -> Option<&RelayAddress> {
    own_addresses(settings).find(|own| own.public == ip || own.bind == ip)
}

/// All relay addresses of this server, those of the past last.
pub(super) fn own_addresses(settings: &Settings) -> impl Iterator<Item = &RelayAddress> {
    settings.addresses.iter().chain(&settings.former)
}
