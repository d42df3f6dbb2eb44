//! The listeners of NAT behaviour discovery (RFC 5780 §6): the first UDP listener, and three more that
//! `relay.alternate` adds, so that each of two addresses has each of two ports.

use std::net::SocketAddr;

use crate::config::{Alternate, Config, RelayListener};
use crate::turn::{LinkId, Transport, Vantage, Vantages};

/// The four addresses, and where each stands among the UDP listeners.
pub(super) struct Discovery {
    alternate: Alternate,
    listeners: [(u32, SocketAddr); 4],
    /// Those that are no listeners of the relay already.
    pub(super) added: Vec<SocketAddr>,
}

impl Discovery {
    /// `None` where it is off. `relay` are the relay's listeners.
    pub(super) fn new(config: &Config, relay: &[RelayListener]) -> Option<Self> {
        let alternate = config.relay.alternate?;
        let udp = relay.iter().filter(|listener| listener.transport == Transport::Udp);
        let mut udp: Vec<_> = udp.map(|listener| listener.address).collect();
        let of_relay = udp.len();
        let first = *udp.iter().find(|address| address.is_ipv4() == alternate.local.is_ipv4())?;
        let (ips, ports) = ([first.ip(), alternate.local], [first.port(), alternate.port]);
        let listeners = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(ip, port)| {
            let address = SocketAddr::new(ips[ip], ports[port]);
            let place = udp.iter().position(|known| *known == address).unwrap_or_else(|| {
                udp.push(address);
                udp.len() - 1
            });
            (place as u32, address)
        });
        Some(Self { alternate, listeners, added: udp.split_off(of_relay) })
    }

    /// What the relay core is told. `public` knows the public name of a local address.
    pub(super) fn vantages(&self, public: impl Fn(SocketAddr) -> Option<SocketAddr>) -> Vantages {
        self.listeners.map(|(link, local)| {
            let is_alternate = local.ip() == self.alternate.local;
            let named = is_alternate.then(|| SocketAddr::new(self.alternate.public, local.port()));
            let named = named.filter(|named| *named != local).or_else(|| public(local));
            Vantage { link: LinkId(link), local, public: named.unwrap_or(local) }
        })
    }
}
