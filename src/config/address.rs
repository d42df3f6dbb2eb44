//! Which addresses the relay has: where it binds, and what the world sees.
//!
//! Owns `relay.public_address = "auto"`, 1:1 NAT and host names, and the check that every address to bind
//! to is on this host. Looks at interfaces and routes, sends nothing but name look-ups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use super::source::Error;
use super::{Config, PublicAddress, RelayListener, RelayTransport};

/// The relay's addresses on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// At most one a family.
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

impl Addresses {
    /// Looks at this host. May block for a name look-up.
    ///
    /// # Errors
    /// An address that is not on this host, a name that does not resolve.
    pub fn find(config: &Config) -> Result<Self, Error> {
        check_listeners(config)?;
        let mut found = Self { has_ipv6: is_local(IpAddr::V6(Ipv6Addr::LOCALHOST)), ..Self::default() };
        if config.relay.public.is_empty() {
            found.auto(config);
        }
        for public in &config.relay.public {
            match public {
                PublicAddress::Address { public, local } => found.add(config, *public, *local)?,
                PublicAddress::Name(name) => found.resolve(config, name)?,
            }
        }
        Ok(found)
    }

    /// Whether a listener can be opened here: those of IPv6 are left out on a host without it.
    #[must_use]
    pub fn is_available(&self, address: SocketAddr) -> bool {
        self.has_ipv6 || address.is_ipv4()
    }

    /// `stun:` and `turn:` URLs of listeners, in the order browsers should try them.
    #[must_use]
    pub fn ice_urls(&self, listeners: &[RelayListener]) -> Vec<String> {
        let mut hosts: Vec<(String, u16, RelayTransport)> = Vec::new();
        for listener in listeners {
            if let Some(host) = self.host(listener.address.ip()) {
                let entry = (host, listener.address.port(), listener.transport);
                if !hosts.contains(&entry) {
                    hosts.push(entry);
                }
            }
        }
        let of = |wanted: RelayTransport| hosts.iter().filter(move |(_, _, transport)| *transport == wanted);
        let stun = of(RelayTransport::Udp).take(1).map(|(host, port, _)| format!("stun:{host}:{port}"));
        let udp = of(RelayTransport::Udp).map(|(host, port, _)| format!("turn:{host}:{port}?transport=udp"));
        let tcp = of(RelayTransport::Tcp).map(|(host, port, _)| format!("turn:{host}:{port}?transport=tcp"));
        stun.chain(udp).chain(tcp).collect()
    }

    /// Under which host name or address clients reach a listener.
    fn host(&self, listener: IpAddr) -> Option<String> {
        let of_family = self.relay.iter().find(|address| address.local.is_ipv4() == listener.is_ipv4());
        let is_own = |address: &RelayAddress| listener.is_unspecified() || address.local == listener;
        match of_family.filter(|address| is_own(address)) {
            Some(address) => Some(self.name.clone().unwrap_or_else(|| literal(address.public))),
            None if listener.is_unspecified() => None,
            None => Some(literal(listener)),
        }
    }

    /// `relay.public_address = "auto"`
    fn auto(&mut self, config: &Config) {
        for unspecified in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let Some(address) = self.local(config, unspecified) else { continue };
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
    }

    /// The local address of a family to bind relay sockets to: that of a listener where it is a concrete one,
    /// else the one the default route uses, else any, else loopback.
    fn local(&self, config: &Config, family: IpAddr) -> Option<IpAddr> {
        let listeners = || config.relay.listen.iter().map(|listener| listener.address.ip());
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
            self.relay.push(RelayAddress { local, public });
            return Ok(());
        }
        if is_local(public) {
            self.relay.push(RelayAddress { local: public, public });
            return Ok(());
        }
        let Some(local) = self.local(config, public) else {
            return Err(
                config.error(key, format!("{public}: this host has no address of that family to relay from"))
            );
        };
        self.notes
            .push(format!("{public} is not on this host: taken for 1:1 NAT, relay sockets bind to {local}"));
        self.relay.push(RelayAddress { local, public });
        Ok(())
    }

    fn resolve(&mut self, config: &Config, name: &str) -> Result<(), Error> {
        let key = "relay.public_address";
        let addresses: Vec<IpAddr> = (name, 0_u16)
            .to_socket_addrs()
            .map_err(|e| config.error(key, format!("host name \"{name}\" does not resolve: {e}")))?
            .map(|address| address.ip())
            .collect();
        for is_v4 in [true, false] {
            let Some(address) = addresses.iter().find(|address| address.is_ipv4() == is_v4) else { continue };
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
