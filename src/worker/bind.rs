//! Binding the listeners of all workers before the first of them is read.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::io::{Role, UdpSocket};

/// Addresses that a wildcard has sockets of its own at; others are left to the wildcard.
const MAX_OWN: usize = 64;

/// The sockets of each worker.
type Groups = Vec<Vec<UdpSocket>>;

/// Why an address cannot be bound.
#[derive(Debug)]
pub enum BindCause {
    /// Another socket has the port.
    InUse,
    /// The address is not one of this host.
    NotHere,
    /// The host has this address family switched off.
    FamilyOff,
    /// The port needs a privilege.
    Permission,
    /// Too few file descriptors.
    Descriptors,
    /// Something else.
    Other(io::Error),
}

impl From<io::Error> for BindCause {
    fn from(error: io::Error) -> Self {
        #[cfg(unix)]
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => return Self::Descriptors,
            Some(libc::EAFNOSUPPORT) => return Self::FamilyOff,
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse,
            io::ErrorKind::AddrNotAvailable => Self::NotHere,
            io::ErrorKind::PermissionDenied => Self::Permission,
            _ => Self::Other(error),
        }
    }
}

/// Why the workers did not start. One line that says what to do.
#[derive(Debug)]
pub enum StartError {
    /// A UDP listener cannot be bound.
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        cause: BindCause,
    },
    /// No relay socket can be bound to this address.
    Relay {
        /// Which.
        address: IpAddr,
        /// Why.
        cause: BindCause,
    },
    /// The relay port that all allocations are to share cannot be bound.
    RelayPort {
        /// Which.
        address: SocketAddr,
        /// Why.
        cause: BindCause,
    },
    /// The backend that was asked for does not exist on this system.
    NoBackend,
    /// Threads or pollers cannot be made.
    Resources(io::Error),
}

impl std::error::Error for StartError {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, cause } => match cause {
                BindCause::InUse => write!(
                    f,
                    "{}/udp is in use ({address}): another TURN server? stop it or set relay.listen",
                    address.port()
                ),
                BindCause::NotHere => write!(
                    f,
                    "cannot listen on {address}/udp: {} is not an address of this host, set relay.listen",
                    address.ip()
                ),
                cause => write!(f, "cannot listen on {address}/udp: {cause}"),
            },
            Self::Relay { address, cause: BindCause::NotHere } => write!(
                f,
                "cannot relay from {address}: it is not an address of this host, set relay.public_address"
            ),
            Self::Relay { address, cause } => write!(f, "cannot relay from {address}: {cause}"),
            Self::RelayPort { address, cause: BindCause::InUse } => write!(
                f,
                "{}/udp is in use ({address}) by another program: choose another port for all allocations",
                address.port()
            ),
            Self::RelayPort { address, cause } => write!(f, "cannot relay from {address}/udp: {cause}"),
            Self::NoBackend => f.write_str("the linux backend needs Linux, use auto or portable"),
            Self::Resources(error) => write!(f, "cannot start a worker thread: {error}"),
        }
    }
}

impl fmt::Display for BindCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("the port is in use"),
            Self::NotHere => f.write_str("not an address of this host"),
            Self::FamilyOff => {
                f.write_str("this host has the address family switched off, remove it from the configuration")
            }
            Self::Permission => f.write_str(
                "no permission, ports below 1024 need CAP_NET_BIND_SERVICE (the systemd unit grants it)",
            ),
            Self::Descriptors => {
                f.write_str("too few file descriptors, raise ulimit -n or LimitNOFILE in the systemd unit")
            }
            Self::Other(error) => write!(f, "{error}"),
        }
    }
}

/// Binds every address once for each worker: the actual addresses, and the sockets of each worker in
/// the order of `addresses`. Behind them are those that wildcards have at the host's `own` addresses.
pub(super) fn listeners(
    addresses: &[SocketAddr],
    own: &[IpAddr],
    workers: usize,
    buffer: usize,
) -> Result<(Vec<SocketAddr>, Groups), StartError> {
    let mut actual = Vec::with_capacity(addresses.len());
    let mut groups: Groups = (0..workers).map(|_| Vec::new()).collect();
    for &wanted in addresses {
        let mut address = wanted;
        for (n, group) in groups.iter_mut().enumerate() {
            let role = if n == 0 { Role::FirstListener } else { Role::NextListener };
            let socket = UdpSocket::bind(address, role, buffer)
                .map_err(|e| StartError::Listen { address: wanted, cause: e.into() })?;
            address = socket.local();
            group.push(socket);
        }
        actual.push(address);
    }
    for wildcard in actual.iter().filter(|address| address.ip().is_unspecified()) {
        for &ip in own.iter().filter(|ip| ip.is_ipv4() == wildcard.is_ipv4()).take(MAX_OWN) {
            add(SocketAddr::new(ip, wildcard.port()), &mut groups, buffer);
        }
    }
    Ok((actual, groups))
}

/// Adds a socket for each worker or none, so that a listener has the same place in all. An address that the system
/// refuses is left to the wildcard.
fn add(address: SocketAddr, groups: &mut Groups, buffer: usize) {
    let bind = |_: &Vec<UdpSocket>| UdpSocket::bind(address, Role::NextListener, buffer);
    if let Ok(sockets) = groups.iter().map(bind).collect::<io::Result<Vec<_>>>() {
        groups.iter_mut().zip(sockets).for_each(|(group, socket)| group.push(socket));
    }
}

/// The addresses of this host's interfaces.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.into_iter().map(|interface| interface.ip()).collect()
}

/// Binds the relay port that all allocations share on each address, once for each worker: the actual
/// addresses, and the sockets of each worker in the order of `addresses`.
pub(super) fn shared_relays(
    addresses: impl Iterator<Item = IpAddr>,
    port: u16,
    workers: usize,
    buffer: usize,
) -> Result<(Vec<SocketAddr>, Groups), StartError> {
    let addresses: Vec<_> = addresses.map(|address| SocketAddr::new(address, port)).collect();
    let bound = listeners(&addresses, &[], workers, buffer);
    let (actual, mut groups) = bound.map_err(|error| match error {
        StartError::Listen { address, cause } => StartError::RelayPort { address, cause },
        error => error,
    })?;
    groups.iter_mut().flatten().for_each(UdpSocket::become_relay);
    Ok((actual, groups))
}

/// Proves that relay sockets can be bound to these addresses, so that a wrong one is told at start and
/// not by every Allocate.
pub(super) fn try_relay_addresses(addresses: impl Iterator<Item = IpAddr>) -> Result<(), StartError> {
    for address in addresses {
        UdpSocket::bind(SocketAddr::new(address, 0), Role::Relay, 0)
            .map_err(|e| StartError::Relay { address, cause: e.into() })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str) -> String {
        listeners(&[address.parse().unwrap()], &[], 2, 1 << 16).unwrap_err().to_string()
    }

    #[test]
    fn a_start_error_names_the_address_and_what_to_do() {
        let taken = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Role::Relay, 0).unwrap();
        let port = taken.local().port();
        assert_eq!(
            refusal(&taken.local().to_string()),
            format!(
                "{port}/udp is in use (127.0.0.1:{port}): another TURN server? stop it or set relay.listen"
            )
        );
        assert_eq!(
            refusal("192.0.2.1:0"),
            "cannot listen on 192.0.2.1:0/udp: 192.0.2.1 is not an address of this host, set relay.listen"
        );
        let relay = try_relay_addresses(std::iter::once("192.0.2.1".parse().unwrap())).unwrap_err();
        assert!(
            relay.to_string().starts_with("cannot relay from 192.0.2.1: it is not an address"),
            "{relay}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn causes_are_told_apart() {
        let told = |code| BindCause::from(io::Error::from_raw_os_error(code)).to_string();
        assert!(told(libc::EACCES).contains("CAP_NET_BIND_SERVICE"));
        assert!(told(libc::EMFILE).contains("LimitNOFILE"));
        assert!(told(libc::EAFNOSUPPORT).contains("switched off"));
    }

    #[test]
    fn port_0_is_resolved_once_for_all_workers() {
        let (actual, groups) = listeners(&["127.0.0.1:0".parse().unwrap()], &[], 3, 1 << 16).unwrap();
        assert_ne!(actual[0].port(), 0);
        assert!(groups.iter().flatten().all(|socket| socket.local() == actual[0]));
        assert_eq!(groups.len(), 3);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_wildcard_listener_has_a_socket_at_each_own_address() {
        let own = ["127.0.0.1", "192.0.2.1", "::1", "127.0.0.2"].map(|ip| ip.parse().unwrap());
        let (actual, groups) = listeners(&["0.0.0.0:0".parse().unwrap()], &own, 2, 1 << 16).unwrap();
        assert_eq!(actual.len(), 1);
        for group in &groups {
            let locals: Vec<_> = group.iter().map(|socket| socket.local().to_string()).collect();
            let wanted = ["0.0.0.0", "127.0.0.1", "127.0.0.2"].map(|ip| format!("{ip}:{}", actual[0].port()));
            assert_eq!(locals, wanted, "not of another host, not of another family");
        }
    }
}
