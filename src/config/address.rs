//! Which addresses the relay has: where it binds, and what the world sees.
//!
//! Owns `relay.public_address = "auto"`, 1:1 NAT and host names, and the check that every address to bind
//! to is on this host. Looks at interfaces and routes; sends name look-ups, and the STUN request of
//! `relay.detect_from`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use super::source::Error;
use super::{Config, PublicAddress, RelayListener, detect};
use crate::turn::Transport;

/// The relay's addresses on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// No two with the same local address.
    pub relay: Vec<RelayAddress>,
    /// The name the world knows this host by, where one is configured.
    pub name: Option<String>,
    /// Whether this host has IPv6.
    pub has_ipv6: bool,
    /// What was found and assumed, in words.
    pub notes: Vec<String>,
}

/// Where relay sockets are bound, and the same address as the world sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// An address of this host.
    pub local: IpAddr,
    /// What clients and peers are told.
    pub public: IpAddr,
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.local == self.public {
            write!(f, "{}", self.public)
        } else {
            write!(f, "{}/{}", self.public, self.local)
        }
    }
}

impl Addresses {
    /// Looks at this host. May block for a name look-up and an answer of a STUN server.
    ///
    /// # Errors
    /// An address that is not on this host, a name that does not resolve, a STUN server that does not answer.
    pub fn find(config: &Config) -> Result<Self, Error> {
        check_listeners(config)?;
        Self::find_after(config, &Self::default())
    }

    /// Whether looking again may find other addresses: names and detected addresses change.
    #[must_use]
    pub fn may_change(config: &Config) -> bool {
        config.relay.detect_from.is_some()
            || config.relay.public.iter().any(|public| matches!(public, PublicAddress::Name(_)))
    }

    /// Looks again. What a name still resolves to is preferred to what else it resolves to.
    ///
    /// # Errors
    /// As for [`Addresses::find`].
    pub fn find_after(config: &Config, before: &Self) -> Result<Self, Error> {
        let mut found = Self { has_ipv6: is_local(IpAddr::V6(Ipv6Addr::LOCALHOST)), ..Self::default() };
        if config.relay.public.is_empty() {
            found.auto(config)?;
        }
        for public in &config.relay.public {
            match public {
                PublicAddress::Address { public, local } => found.add(config, *public, *local)?,
                PublicAddress::Name(name) => found.resolve(config, name, before)?,
            }
        }
        Ok(found)
    }

    /// Whether a listener can be opened here: those of IPv6 are left out on a host without it.
    #[must_use]
    pub fn is_available(&self, address: SocketAddr) -> bool {
        self.has_ipv6 || address.is_ipv4()
    }

    /// `stun:`, `turn:` and `turns:` URLs of listeners, in the order browsers should try them.
    #[must_use]
    pub fn ice_urls(&self, listeners: &[RelayListener]) -> Vec<String> {
        let mut hosts: Vec<(String, u16, Transport)> = Vec::new();
        for listener in listeners {
            if let Some(host) = self.host(listener.address.ip()) {
                let entry = (host, listener.address.port(), listener.transport);
                if !hosts.contains(&entry) {
                    hosts.push(entry);
                }
            }
        }
        let of = |wanted: Transport| hosts.iter().filter(move |(_, _, transport)| *transport == wanted);
        let stun = of(Transport::Udp).take(1).map(|(host, port, _)| format!("stun:{host}:{port}"));
        let udp = of(Transport::Udp).map(|(host, port, _)| format!("turn:{host}:{port}?transport=udp"));
        let tcp = of(Transport::Tcp).map(|(host, port, _)| format!("turn:{host}:{port}?transport=tcp"));
        let tls = of(Transport::Tls).map(|(host, port, _)| format!("turns:{host}:{port}?transport=tcp"));
        stun.chain(udp).chain(tcp).chain(tls).collect()
    }

    /// Under which host name or address clients reach a listener.
    fn host(&self, listener: IpAddr) -> Option<String> {
        let mut of_family = self.relay.iter().filter(|address| address.local.is_ipv4() == listener.is_ipv4());
        match of_family.find(|address| listener.is_unspecified() || address.local == listener) {
            Some(address) => Some(self.name.clone().unwrap_or_else(|| literal(address.public))),
            None if listener.is_unspecified() => None,
            None => Some(literal(listener)),
        }
    }

    /// `relay.public_address = "auto"`
    fn auto(&mut self, config: &Config) -> Result<(), Error> {
        for unspecified in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let Some(address) = self.local(config, unspecified) else { continue };
            if let Some(server) = config.relay.detect_from.as_ref().filter(|_| is_private(address)) {
                let public = detect::seen_from(server, address)
                    .map_err(|problem| config.error("relay.detect_from", problem))?;
                self.notes.push(format!("{} sees {address} as {public}", server.host));
                self.relay.push(RelayAddress { local: address, public });
                continue;
            }
            self.relay.push(RelayAddress { local: address, public: address });
            if is_private(address) {
                self.notes.push(format!(
                    "relay address {address} is a private one; if clients are elsewhere and this host is behind NAT, \
                     set relay.public_address to the address they see"
                ));
            }
        }
        let is_loopback =
            |v4: bool| move |a: &RelayAddress| a.public.is_ipv4() == v4 && a.public.is_loopback();
        if self.relay.iter().all(|address| address.public.is_loopback()) {
            self.notes.push("relay addresses are loopback ones: only this host can use the relay".into());
        } else if self.relay.iter().any(is_loopback(true)) {
            // Kept: IPv4 is what clients ask for by default.
            self.notes
                .push("this host has no IPv4 address but loopback: IPv4 relays reach only this host".into());
        } else if !listens_on(config, Ipv6Addr::LOCALHOST.into()) {
            // Of no use to the others, and an error tells them so better than an address does.
            self.relay.retain(|address| !is_loopback(false)(address));
        }
        Ok(())
    }

    /// The local address of a family to bind relay sockets to: that of a listener where it is a concrete one,
    /// else the one the default route uses, else any, else loopback.
    fn local(&self, config: &Config, family: IpAddr) -> Option<IpAddr> {
        let shared = || config.http.listen.iter().filter(|listener| listener.turns).map(|l| l.address.ip());
        let listeners = || config.relay.listen.iter().map(|l| l.address.ip()).chain(shared());
        let mut own = listeners().filter(|ip| ip.is_ipv4() == family.is_ipv4()).peekable();
        let has_listener = own.peek().is_some();
        let (mut wildcard, mut concrete) = (false, None);
        for ip in own {
            wildcard |= ip.is_unspecified();
            concrete = concrete.or((!ip.is_unspecified()).then_some(ip));
        }
        if !wildcard && concrete.is_some() {
            return concrete;
        }
        if listeners().all(|ip| ip.is_loopback()) {
            return None;
        }
        let loopback = has_listener.then(|| loopback(family)).filter(|ip| is_local(*ip));
        default_route(family).or_else(|| any_interface(family)).or(loopback)
    }

    fn add(&mut self, config: &Config, public: IpAddr, local: Option<IpAddr>) -> Result<(), Error> {
        let key = "relay.public_address";
        if let Some(local) = local {
            check_local(config, key, local)?;
            return self.push(config, RelayAddress { local, public });
        }
        if is_local(public) {
            return self.push(config, RelayAddress { local: public, public });
        }
        let Some(local) = self.local(config, public) else {
            return Err(
                config.error(key, format!("{public}: this host has no address of that family to relay from"))
            );
        };
        self.notes
            .push(format!("{public} is not on this host: taken for 1:1 NAT, relay sockets bind to {local}"));
        self.push(config, RelayAddress { local, public })
    }

    /// Relay sockets of two public addresses cannot be told apart if they bind to the same one.
    fn push(&mut self, config: &Config, address: RelayAddress) -> Result<(), Error> {
        match self.relay.iter().find(|other| other.local == address.local) {
            Some(other) if other.public == address.public => {}
            Some(other) => {
                let problem = format!(
                    "{} and {} would both be relayed from {}: give each a local address of its own, \"PUBLIC/LOCAL\"",
                    other.public, address.public, address.local
                );
                return Err(config.error("relay.public_address", problem));
            }
            None => self.relay.push(address),
        }
        Ok(())
    }

    fn resolve(&mut self, config: &Config, name: &str, before: &Self) -> Result<(), Error> {
        let key = "relay.public_address";
        let addresses: Vec<IpAddr> = (name, 0_u16)
            .to_socket_addrs()
            .map_err(|e| config.error(key, format!("host name \"{name}\" does not resolve: {e}")))?
            .map(|address| address.ip())
            .collect();
        for is_v4 in [true, false] {
            let mut of_family: Vec<_> =
                addresses.iter().filter(|address| address.is_ipv4() == is_v4).collect();
            // A resolver that turns its answers around is no reason to move.
            let is_new = |address: &IpAddr| before.relay.iter().all(|known| known.public != *address);
            of_family.sort_by_key(|address| is_new(address));
            let Some(address) = of_family.first().copied() else { continue };
            // A name with an IPv6 address must not stop a host that has none.
            if is_v4 || is_local(*address) || self.local(config, *address).is_some_and(|ip| !ip.is_loopback())
            {
                self.add(config, *address, None)?;
            }
        }
        if self.relay.is_empty() {
            return Err(
                config.error(key, format!("host name \"{name}\" has no address this host can relay from"))
            );
        }
        self.name = Some(name.to_owned());
        Ok(())
    }
}

/// An address as it stands in a URL.
#[must_use]
pub fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn check_listeners(config: &Config) -> Result<(), Error> {
    for (i, listener) in config.relay.listen.iter().enumerate() {
        check_local(config, &format!("relay.listen[{i}]"), listener.address.ip())?;
    }
    for (i, listener) in config.http.listen.iter().enumerate() {
        check_local(config, &format!("http.listen[{i}]"), listener.address.ip())?;
    }
    if let Some(alternate) = config.relay.alternate {
        check_local(config, "relay.alternate", alternate.local)?;
    }
    config.admin.map_or(Ok(()), |address| check_local(config, "admin.listen", address.ip()))
}

fn check_local(config: &Config, key: &str, address: IpAddr) -> Result<(), Error> {
    if address.is_unspecified() || is_local(address) {
        return Ok(());
    }
    let own: Vec<_> = interfaces().map(|ip| ip.to_string()).collect();
    Err(config.error(key, format!("{address} is not an address of this host; it has {}", own.join(", "))))
}

fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn listens_on(config: &Config, address: IpAddr) -> bool {
    config.relay.listen.iter().any(|listener| listener.address.ip() == address)
}

/// The source address the kernel would use towards the world. Connecting a UDP socket sends nothing.
fn default_route(family: IpAddr) -> Option<IpAddr> {
    let world: IpAddr = match family {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let unspecified: IpAddr =
        if family.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((unspecified, 0)).ok()?;
    socket.connect((world, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    is_usable(address).then_some(address)
}

fn any_interface(family: IpAddr) -> Option<IpAddr> {
    interfaces().find(|ip| ip.is_ipv4() == family.is_ipv4() && is_usable(*ip))
}

fn interfaces() -> impl Iterator<Item = IpAddr> {
    if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|interface| interface.ip())
}

fn is_usable(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_unspecified() && !is_link_local
}

fn loopback(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Not routed on the public network.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}
