//! Which peers clients may reach (RFC 8656 §21.2, and section 4.4 of the design).
//!
//! Denied by default: everything that is not a public unicast address. An explicit allow wins over
//! the deny lists, but never over two rules: the server's own listeners stay unreachable, and a cloud
//! metadata address needs an allow of exactly that address. Every IPv4-in-IPv6 form is judged by the
//! IPv4 address inside as well, so that no spelling of an address gets around a rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A range of addresses in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// Why text is no [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Not an address, or a prefix length that is no number or too long.
    Malformed,
    /// Bits behind the prefix are set: probably a typing error.
    HostBits,
}

impl std::fmt::Display for NetworkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "write an address or a range such as 192.0.2.0/24 or 2001:db8::/32",
            Self::HostBits => "bits behind the prefix are set: write the first address of the range",
        })
    }
}

impl std::error::Error for NetworkError {}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse().map_err(|_| NetworkError::Malformed)?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| NetworkError::Malformed)?;
        let width = width(base);
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return Err(NetworkError::Malformed);
        }
        if masked(base, prefix) != bits(base) {
            return Err(NetworkError::HostBits);
        }
        Ok(Self { base, prefix })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(head: [u16; 3], prefix: u8) -> Self {
        Self { base: IpAddr::V6(Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0)), prefix }
    }

    /// The first address of the range.
    #[must_use]
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// How many leading bits its addresses share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the address lies in the range; addresses of the other family never do.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.base.is_ipv4() && masked(ip, self.prefix) == bits(self.base)
    }

    fn is_exactly(&self, ip: IpAddr) -> bool {
        self.base == ip && self.prefix == width(ip)
    }
}

const fn width(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address as a number, an IPv4 address in the lowest 32 bits.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn masked(ip: IpAddr, prefix: u8) -> u128 {
    let host_bits = u32::from(width(ip) - prefix);
    bits(ip).checked_shr(host_bits).and_then(|n| n.checked_shl(host_bits)).unwrap_or(0)
}

/// What no client reaches unless it is allowed by name (RFC 6890 and its registries).
const DENIED: [Network; 29] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    Network::v4(169, 254, 0, 0, 16),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 0, 0, 0, 24),
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(192, 88, 99, 0, 24),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    Network::v4(224, 0, 0, 0, 4),
    Network::v4(240, 0, 0, 0, 4),
    // IPv4-compatible, the unspecified and the loopback address.
    Network::v6([0, 0, 0], 96),
    // IPv4-mapped.
    Network { base: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), prefix: 96 },
    // IPv4-translated, RFC 2765.
    Network { base: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0)), prefix: 96 },
    // NAT64, RFC 6052 and RFC 8215.
    Network::v6([0x64, 0xff9b, 0], 96),
    Network::v6([0x64, 0xff9b, 1], 48),
    Network::v6([0x100, 0, 0], 64),
    // Teredo and the other IETF assignments, 6to4: RFC 8656 §7.2 forbids relaying to both.
    Network::v6([0x2001, 0, 0], 23),
    Network::v6([0x2002, 0, 0], 16),
    Network::v6([0x2001, 0xdb8, 0], 32),
    Network::v6([0x3fff, 0, 0], 20),
    Network::v6([0xfc00, 0, 0], 7),
    Network::v6([0xfe80, 0, 0], 10),
    Network::v6([0xfec0, 0, 0], 10),
    Network::v6([0xff00, 0, 0], 8),
];

/// Where clouds hand out keys to whoever asks from inside: AWS, Google and most others, AWS over IPv6,
/// AWS tasks, Alibaba, Azure, Oracle.
const METADATA: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Where this program listens, or where a peer might. The transports' ports have nothing to do with each
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// For datagrams.
    Udp(SocketAddr),
    /// For connections.
    Tcp(SocketAddr),
}

impl Listener {
    fn address(self) -> SocketAddr {
        let (Self::Udp(address) | Self::Tcp(address)) = self;
        address
    }
}

/// The rules for peers.
#[derive(Clone, Debug, Default)]
pub struct PeerPolicy {
    allow: Vec<Network>,
    deny: Vec<Network>,
    listeners: Vec<Listener>,
    own: Vec<IpAddr>,
}

impl PeerPolicy {
    /// Rules from the configuration. `listeners` are all sockets of this program on which something
    /// other than a relay listens; `own` are all addresses of this host, local and public, which is
    /// what a listener on a wildcard address stands for.
    #[must_use]
    pub fn new(allow: Vec<Network>, deny: Vec<Network>, listeners: Vec<Listener>, own: Vec<IpAddr>) -> Self {
        Self { allow, deny, listeners, own }
    }

    /// Whether clients may have a permission for this address.
    #[must_use]
    pub fn may_reach(&self, ip: IpAddr) -> bool {
        self.may_reach_as_written(ip)
            && embedded_ipv4(ip).is_none_or(|ip| self.may_reach_as_written(ip.into()))
    }

    fn may_reach_as_written(&self, ip: IpAddr) -> bool {
        if METADATA.contains(&ip) {
            return self.allow.iter().any(|network| network.is_exactly(ip));
        }
        let is_in = |list: &[Network]| list.iter().any(|network| network.contains(ip));
        is_in(&self.allow) || !(is_in(&self.deny) || is_in(&DENIED))
    }

    /// Whether the peer is one of this program's own listeners. Nothing overrides this.
    #[must_use]
    pub fn is_listener(&self, peer: Listener) -> bool {
        let is_same_transport = |own| std::mem::discriminant(own) == std::mem::discriminant(&peer);
        let peer_ip = peer.address().ip();
        let ip = embedded_ipv4(peer_ip).map_or(peer_ip, IpAddr::V4);
        self.listeners.iter().any(|own| {
            own.address().port() == peer.address().port()
                && is_same_transport(own)
                && self.listens_on(own.address().ip(), ip)
        })
    }

    fn listens_on(&self, listener: IpAddr, ip: IpAddr) -> bool {
        let is_public_name_of = |local: IpAddr| self.own.contains(&local) && self.own.contains(&ip);
        listener == ip
            || is_public_name_of(listener)
            || (listener.is_unspecified()
                && (ip.is_loopback() || ip.is_unspecified() || self.own.contains(&ip)))
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, translated, NAT64, 6to4, Teredo.
fn embedded_ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let low = Ipv4Addr::from_bits(ip.to_bits() as u32);
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(low),
        [0x64, 0xff9b, ..] => Some(low),
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!low.to_bits())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn policy(allow: &[&str], deny: &[&str]) -> PeerPolicy {
        PeerPolicy::new(networks(allow), networks(deny), Vec::new(), Vec::new())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn rfc8656_21_2_only_public_unicast_is_reachable_by_default() {
        let policy = policy(&[], &[]);
        for public in ["8.8.8.8", "1.1.1.1", "192.0.1.1", "172.32.0.1", "2600::1", "2a00:1450::8"] {
            assert!(policy.may_reach(ip(public)), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "100::1",
            "168.63.129.16",
            "fd00:ec2::254",
        ] {
            assert!(!policy.may_reach(ip(inside)), "{inside}");
        }
    }

    #[test]
    fn every_ipv4_in_ipv6_form_is_judged_by_the_address_inside() {
        // Even where the outer form is allowed, the address inside must be.
        let policy = policy(&["::/0"], &[]);
        for hidden in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:1:2:3:4:80ff:fffe",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(!policy.may_reach(ip(hidden)), "{hidden}");
        }
        assert!(policy.may_reach(ip("64:ff9b::808:808")));
    }

    #[test]
    fn an_allow_wins_over_both_deny_lists() {
        let policy = policy(&["10.0.0.0/24", "203.0.113.0/24"], &["10.0.0.0/8", "8.8.8.0/24"]);
        assert!(policy.may_reach(ip("10.0.0.9")) && policy.may_reach(ip("203.0.113.1")));
        assert!(!policy.may_reach(ip("10.0.1.9")) && !policy.may_reach(ip("8.8.8.8")));
    }

    #[test]
    fn metadata_needs_an_allow_of_exactly_that_address() {
        for wide in [&["169.254.0.0/16"][..], &["0.0.0.0/0"], &["169.254.169.254/31"]] {
            assert!(!policy(wide, &[]).may_reach(ip("169.254.169.254")), "{wide:?}");
        }
        assert!(policy(&["169.254.169.254"], &[]).may_reach(ip("169.254.169.254")));
        assert!(policy(&["fd00:ec2::254/128"], &[]).may_reach(ip("fd00:ec2::254")));
    }

    #[test]
    fn own_listeners_are_recognised_under_every_name() {
        let listeners = ["0.0.0.0:3478", "[::]:3478", "127.0.0.1:8080", "10.0.0.5:9641"];
        let policy = PeerPolicy::new(
            networks(&["0.0.0.0/0", "::/0"]),
            Vec::new(),
            listeners.iter().map(|text| Listener::Udp(text.parse().expect("an address"))).collect(),
            vec![ip("10.0.0.5"), ip("8.8.4.4"), ip("2600::5")],
        );
        let is_listener = |text: &str| policy.is_listener(Listener::Udp(text.parse().expect("an address")));
        for own in [
            "127.0.0.1:3478",
            "127.9.9.9:3478",
            "10.0.0.5:3478",
            "8.8.4.4:3478",
            "[2600::5]:3478",
            "[::1]:3478",
            "[::ffff:10.0.0.5]:3478",
            "127.0.0.1:8080",
            "10.0.0.5:9641",
            "8.8.4.4:9641",
            "0.0.0.0:3478",
        ] {
            assert!(is_listener(own), "{own}");
            let tcp = Listener::Tcp(own.parse().expect("an address"));
            assert!(!policy.is_listener(tcp), "nothing listens for connections at {own}");
        }
        for other in ["10.0.0.6:3478", "10.0.0.5:3479", "10.0.0.5:8080"] {
            assert!(!is_listener(other), "{other}");
        }
    }

    #[test]
    fn networks_are_read_strictly() {
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "10.0.0.0-10.0.0.9"] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError::Malformed), "{bad:?}");
        }
        assert_eq!("10.0.0.1/24".parse::<Network>(), Err(NetworkError::HostBits));
        assert_eq!("0.0.0.0/0".parse::<Network>().map(|n| n.to_string()), Ok("0.0.0.0/0".into()));
        assert!(
            "::/0".parse::<Network>().is_ok_and(|n| n.contains(ip("2600::1")) && !n.contains(ip("1.1.1.1")))
        );
    }
}
