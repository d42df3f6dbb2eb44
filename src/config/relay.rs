//! What `[relay]` says, and its keys about addresses and ports: from text to values with a meaning.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::file;
use super::source::Error;
use super::values::{Check, is_host_name};
use crate::offload::Mode;
use crate::turn::{Network, Transport};
use crate::worker::Backend;

/// Fewer ports than this serve nobody: a call between two clients takes two, and a closed one rests.
const MIN_PORTS: u16 = 8;

/// The port of `shared` where none is named: the first of the default range.
const SHARED_PORT: u16 = 49152;

/// Most public addresses.
const MAX_ADDRESSES: usize = 32;

/// The port of a STUN server where none is named.
const STUN_PORT: u16 = 3478;

/// `[relay]`: listeners, addresses and ports of the TURN server.
#[derive(Clone, Debug, PartialEq)]
pub struct Relay {
    /// Where clients are served.
    pub listen: Vec<RelayListener>,
    /// Addresses the world sees; empty: found from the host's interfaces.
    pub public: Vec<PublicAddress>,
    /// Who tells the address the world sees where the interfaces have only private ones.
    pub detect_from: Option<StunServer>,
    /// How often host names are resolved, and the address is detected, again.
    pub resolve_every: Duration,
    /// Second address and port, which turn NAT behaviour discovery on (RFC 5780 §6).
    pub alternate: Option<Alternate>,
    /// Ports of relay sockets.
    pub ports: RelayPorts,
    /// Authentication realm (RFC 8489 §9.2).
    pub realm: String,
    /// Worker threads; 0: one a core.
    pub workers: usize,
    /// How datagrams are read and written.
    pub backend: Backend,
    /// Relaying in the kernel.
    pub offload: Option<Offload>,
    /// Accept channel numbers 0x5000-0x7FFE of RFC 5766.
    pub legacy_channels: bool,
    /// TCP allocations (RFC 6062).
    pub tcp: bool,
    /// Allocations that move with their clients (RFC 8016).
    pub mobility: bool,
    /// Longest lifetime of an allocation that is granted (RFC 8656 §7.2).
    pub max_lifetime: Duration,
    /// How long a stop waits for running calls to end.
    pub drain_timeout: Duration,
    /// Most TCP clients at a time.
    pub tcp_connections: usize,
    /// Proxies that tell whom a connection comes from, by the PROXY protocol.
    pub proxy_from: Vec<Network>,
    /// Receive and send buffer of each listener socket, in bytes.
    pub socket_buffer: usize,
    /// Bytes of unauthenticated replies a second for each source prefix; 0: no limit.
    pub unauthenticated_rate: u32,
    /// Where new clients are sent while this server takes none.
    pub redirect: Option<Redirect>,
}

/// `relay.redirect`: another server, named in 300 answers (RFC 8489 §10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Its addresses, at most one a family.
    pub to: Vec<SocketAddr>,
    /// The name in its certificate; empty: the same as this server's.
    pub domain: String,
}

/// A listener of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayListener {
    /// What carries STUN messages.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

/// An address the world sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicAddress {
    /// An address; `local` is the host's own behind 1:1 NAT, if it is not found by itself.
    Address {
        /// As the world sees it.
        public: IpAddr,
        /// As this host has it.
        local: Option<IpAddr>,
    },
    /// A host name, resolved at start and again and again.
    Name(String),
}

/// Where a server of NAT behaviour discovery is as well: with the first UDP listener of the same family, each of
/// two addresses has each of two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alternate {
    /// As the world sees it.
    pub public: IpAddr,
    /// As this host has it.
    pub local: IpAddr,
    /// UDP port.
    pub port: u16,
}

/// Ports of relay sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayPorts {
    /// One for each allocation, out of a range.
    Range(RangeInclusive<u16>),
    /// One for all allocations, which peers' addresses tell apart.
    Shared(u16),
}

impl RelayPorts {
    /// The ports to open in a firewall.
    #[must_use]
    pub fn range(&self) -> RangeInclusive<u16> {
        match self {
            Self::Range(range) => range.clone(),
            Self::Shared(port) => *port..=*port,
        }
    }

    /// The port of all allocations, where they share one.
    #[must_use]
    pub fn shared(&self) -> Option<u16> {
        match self {
            Self::Range(_) => None,
            Self::Shared(port) => Some(*port),
        }
    }
}

/// A STUN server elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunServer {
    /// Host name or address.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// `relay.offload`: bound channels are relayed by the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Where.
    pub mode: Mode,
    /// At these interfaces; empty: those that have the relay's addresses.
    pub interfaces: Vec<String>,
}

impl Check<'_> {
    pub(super) fn public_addresses(&self, texts: &[String]) -> Result<Vec<PublicAddress>, Error> {
        let key = "relay.public_address";
        if let [one] = texts
            && one == "auto"
        {
            return Ok(Vec::new());
        }
        if texts.is_empty() {
            return self.fail(key, "expected \"auto\", an address or a host name");
        }
        if texts.len() > MAX_ADDRESSES {
            return self.fail(key, format!("takes at most {MAX_ADDRESSES} addresses"));
        }
        let addresses =
            texts.iter().map(|text| self.public_address(key, text)).collect::<Result<Vec<_>, _>>()?;
        for (i, address) in addresses.iter().enumerate() {
            let PublicAddress::Address { public, local } = address else { continue };
            let clashes = |other: &PublicAddress| match other {
                PublicAddress::Address { public: p, local: l } => {
                    p == public || (local.is_some() && l == local)
                }
                PublicAddress::Name(_) => false,
            };
            if addresses[..i].iter().any(clashes) {
                let problem = format!(
                    "{public} or its local address is listed twice; each needs a local address of its own: \
                     \"PUBLIC/LOCAL\""
                );
                return self.fail(key, problem);
            }
        }
        Ok(addresses)
    }

    fn public_address(&self, key: &str, text: &str) -> Result<PublicAddress, Error> {
        let (public, local) = match text.split_once('/') {
            Some((public, local)) => (public, Some(local)),
            None => (text, None),
        };
        if let Ok(public) = public.parse::<IpAddr>() {
            if public.is_unspecified() || public.is_multicast() {
                return self.fail(key, format!("{public} is no address a client can reach"));
            }
            let local = local.map(str::parse::<IpAddr>).transpose();
            return match local {
                Ok(local) if local.is_none_or(|local| local.is_ipv4() == public.is_ipv4()) => {
                    Ok(PublicAddress::Address { public, local })
                }
                _ => self.fail(
                    key,
                    format!("expected PUBLIC/LOCAL with two addresses of one family, found \"{text}\""),
                ),
            };
        }
        if local.is_none() && is_host_name(text) && text != "auto" {
            return Ok(PublicAddress::Name(text.to_owned()));
        }
        self.fail(key, format!("expected \"auto\", an address or a host name, found \"{text}\""))
    }

    pub(super) fn ports(&self, relay: &file::Relay, total_quota: u32) -> Result<RelayPorts, Error> {
        let (key, text) = ("relay.ports", &relay.ports);
        if let Some(rest) = text.strip_prefix("shared") {
            if relay.tcp {
                return self.fail("relay.tcp", "needs a range of ports; relay.ports is one port for all");
            }
            return self.shared_port(key, rest);
        }
        let range = text.split_once('-').and_then(|(from, to)| Some((port(from)?, port(to)?)));
        let Some((from, to)) = range.filter(|(from, to)| from <= to) else {
            return self
                .fail(key, format!("expected a range of ports such as \"49152-65535\", \"shared\" or \"shared:PORT\", found \"{text}\""));
        };
        if from < 1024 {
            return self
                .fail(key, format!("starts at {from}, below 1024, where ports belong to other services"));
        }
        let size = u32::from(to - from) + 1;
        let needed = u32::from(relay.workers.max(MIN_PORTS)).max(total_quota);
        if size < needed {
            let cause = if total_quota == needed { "quota.total" } else { "a relay" };
            return self.fail(
                key,
                format!("has {size} ports, each allocation takes one: {cause} needs at least {needed}"),
            );
        }
        Ok(RelayPorts::Range(from..=to))
    }

    /// What follows `shared`: nothing, or a port.
    fn shared_port(&self, key: &str, rest: &str) -> Result<RelayPorts, Error> {
        if rest.is_empty() {
            return Ok(RelayPorts::Shared(SHARED_PORT));
        }
        match rest.strip_prefix(':').and_then(port) {
            Some(port) if port == 0 || port >= 1024 => Ok(RelayPorts::Shared(port)),
            Some(port) => {
                self.fail(key, format!("{port} is below 1024, where ports belong to other services"))
            }
            None => self.fail(key, format!("expected \"shared\" or \"shared:PORT\", found \"shared{rest}\"")),
        }
    }

    /// `relay.alternate`: `{ address = "ADDRESS" or "PUBLIC/LOCAL", port = PORT }`.
    pub(super) fn alternate(
        &self,
        table: &toml::Table,
        listen: &[RelayListener],
    ) -> Result<Option<Alternate>, Error> {
        let key = "relay.alternate";
        if table.is_empty() {
            return Ok(None);
        }
        let address = table.get("address").and_then(|value| value.as_str());
        let port =
            table.get("port").and_then(|value| value.as_integer()).and_then(|port| u16::try_from(port).ok());
        let (Some(address), Some(port), 2) = (address, port.filter(|port| *port != 0), table.len()) else {
            return self.fail(key, "expected { address = \"203.0.113.6\", port = 3479 }");
        };
        let (public, local) = match self.public_address(key, address)? {
            PublicAddress::Address { public, local } => (public, local.unwrap_or(public)),
            PublicAddress::Name(name) => {
                return self.fail(key, format!("expected an address, found \"{name}\""));
            }
        };
        let is_candidate = |listener: &&RelayListener| {
            listener.transport == Transport::Udp && listener.address.is_ipv4() == local.is_ipv4()
        };
        match listen.iter().find(is_candidate).map(|listener| listener.address) {
            Some(first) if first.ip().is_unspecified() || first.port() == 0 => self.fail(
                key,
                format!("needs a listener with an address and port of its own, not udp://{first}"),
            ),
            Some(first) if first.ip() == local || first.port() == port => {
                self.fail(key, format!("needs an address and a port other than those of udp://{first}"))
            }
            Some(_) => Ok(Some(Alternate { public, local, port })),
            None => self.fail(key, "needs a udp:// listener of the same address family in relay.listen"),
        }
    }

    /// `relay.detect_from`: `stun:HOST` or `stun:HOST:PORT`.
    pub(super) fn stun_server(&self, text: &str, public: &[String]) -> Result<Option<StunServer>, Error> {
        let key = "relay.detect_from";
        if text.is_empty() {
            return Ok(None);
        }
        let Some(server) = text.strip_prefix("stun:").and_then(stun_server) else {
            return self.fail(key, format!("expected \"stun:HOST\" or \"stun:HOST:PORT\", found \"{text}\""));
        };
        if public != ["auto"] {
            return self.fail(key, "is for relay.public_address = \"auto\"; remove one of them");
        }
        Ok(Some(server))
    }

    /// `relay.offload` and `relay.offload_interfaces`.
    pub(super) fn offload(&self, relay: &file::Relay) -> Result<Option<Offload>, Error> {
        let key = "relay.offload";
        let modes =
            [("off", None), ("auto", Some(Mode::Auto)), ("tc", Some(Mode::Tc)), ("xdp", Some(Mode::Xdp))];
        let Some(mode) = self.one_of(key, &relay.offload, &modes)? else {
            return match relay.offload_interfaces.is_empty() {
                true => Ok(None),
                false => self.fail("relay.offload_interfaces", "is of no use with relay.offload = \"off\""),
            };
        };
        if relay.ports.starts_with("shared") {
            return self.fail(key, "needs a range of ports; relay.ports is one port for all");
        }
        Ok(Some(Offload { mode, interfaces: relay.offload_interfaces.clone() }))
    }

    pub(super) fn resolve_every(&self, text: &str) -> Result<Duration, Error> {
        let key = "relay.resolve_every";
        let every = self.duration(key, text)?;
        if every.is_zero() { self.fail(key, "must be at least 1s") } else { Ok(every) }
    }
}

fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok()
}

fn stun_server(text: &str) -> Option<StunServer> {
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let host = address.parse::<std::net::Ipv6Addr>().ok()?.to_string();
        let port = if rest.is_empty() { STUN_PORT } else { port(rest.strip_prefix(':')?)? };
        return Some(StunServer { host, port });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, text)) => (host, port(text).filter(|port| *port != 0)?),
        None => (text, STUN_PORT),
    };
    let is_valid = host.parse::<std::net::Ipv4Addr>().is_ok() || is_host_name(host);
    is_valid.then(|| StunServer { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stun_servers_are_named_by_host_and_port() {
        let read = |text: &str| stun_server(text).map(|server| (server.host, server.port));
        assert_eq!(read("stun.example.org"), Some(("stun.example.org".into(), 3478)));
        assert_eq!(read("192.0.2.1:19302"), Some(("192.0.2.1".into(), 19302)));
        assert_eq!(read("[2001:db8::1]:3479"), Some(("2001:db8::1".into(), 3479)));
        assert_eq!(read("[2001:db8::1]"), Some(("2001:db8::1".into(), 3478)));
        for wrong in
            ["", ":3478", "a b", "host:", "host:0", "host:70000", "2001:db8::1", "[x]:1", "[::1]3478"]
        {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
