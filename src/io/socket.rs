//! UDP sockets as a worker holds them: bound, with their options set, in a table by [`SocketRef`].

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Names a socket, a stream or a DTLS session of one worker. Datagram sockets count from zero; streams have
/// the highest bit set, sessions the one below, and both carry a slot and its generation; connections of
/// peers (RFC 6062) have the third highest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketRef(pub u32);

impl SocketRef {
    /// The bit that tells a stream.
    pub const STREAM: u32 = 1 << 31;

    /// The bit that tells a peer's connection.
    const PEER: u32 = 1 << 29;

    /// The bit that tells the client's side of a peer's connection.
    const CLIENT_SIDE: u32 = 1 << 28;

    /// The name of a peer's connection; `index` is below 2^28.
    #[must_use]
    pub const fn peer(index: u32) -> Self {
        Self(Self::PEER | index)
    }

    /// Whether it names a peer's connection or the client's side of it.
    #[must_use]
    pub const fn is_peer(self) -> bool {
        self.0 >> 29 == 1
    }

    /// Which peer's connection it is.
    #[must_use]
    pub const fn peer_index(self) -> u32 {
        self.0 & (Self::CLIENT_SIDE - 1)
    }

    /// The name of the client's side of a peer's connection.
    #[must_use]
    pub const fn client_side(self) -> Self {
        Self(self.0 | Self::CLIENT_SIDE)
    }

    /// The bit that tells a session, where that of a stream is not set.
    pub const SESSION: u32 = 1 << 30;

    /// Whether it names a DTLS session.
    #[must_use]
    pub const fn is_session(self) -> bool {
        self.0 >> 30 == 1
    }

    /// Whether it names a datagram socket.
    #[must_use]
    pub const fn is_socket(self) -> bool {
        self.0 >> 30 == 0
    }

    /// Whether it names a byte stream with messages of TURN.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        self.0 & Self::STREAM != 0
    }
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first listener of an address: nobody else may have the port yet. Others of the same
    /// group may join it afterwards.
    FirstListener,
    /// A further listener of the same address, for another worker.
    NextListener,
    /// A relayed transport address, never shared.
    Relay,
}

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    pub(super) inner: mio::net::UdpSocket,
    local: SocketAddr,
    /// The backend got the kernel to tell the local address of each datagram.
    pub(super) pktinfo: bool,
    role: Role,
    /// What the kernel had dropped for want of buffer when it was last heard.
    dropped: Cell<u32>,
}

impl UdpSocket {
    /// Binds a socket. `buffer` bytes are asked for in each direction; the kernel may give less.
    ///
    /// # Errors
    /// Whatever `socket` and `bind` answer.
    pub fn bind(address: SocketAddr, role: Role, buffer: usize) -> io::Result<Self> {
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        let kind = Type::DGRAM.nonblocking();
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        let kind = Type::DGRAM;
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A smaller buffer than asked for is no reason not to run.
        let _ = socket.set_recv_buffer_size(buffer);
        let _ = socket.set_send_buffer_size(buffer);
        #[cfg(unix)]
        if role == Role::NextListener {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        // Set only now: with it, bind would share the port with any other program of this user that
        // set it too, and the kernel would hand that program a part of our packets.
        #[cfg(unix)]
        if role == Role::FirstListener {
            socket.set_reuse_port(true)?;
        }
        let local = match role {
            Role::Relay if address.port() != 0 => address,
            Role::Relay | Role::FirstListener | Role::NextListener => {
                socket.local_addr()?.as_socket().unwrap_or(address)
            }
        };
        let inner = mio::net::UdpSocket::from_std(socket.into());
        Ok(Self { inner, local, pktinfo: false, role, dropped: Cell::new(0) })
    }

    /// Asks for `bytes` of buffer in each direction; the kernel may give less.
    pub fn set_buffers(&self, bytes: usize) {
        let socket = SockRef::from(&self.inner);
        let _ = socket.set_recv_buffer_size(bytes);
        let _ = socket.set_send_buffer_size(bytes);
    }

    /// Makes a listener of a group a relay socket, which the members of the group share.
    pub fn become_relay(&mut self) {
        self.role = Role::Relay;
    }

    /// The address it is bound to; the port is the actual one.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The local address a datagram came to: what the kernel told, else what the socket is bound to.
    #[must_use]
    pub fn destination(&self, told: Option<IpAddr>) -> SocketAddr {
        told.map_or(self.local, |ip| SocketAddr::new(ip, self.local.port()))
    }

    /// The source a reply must name to leave from `server`, if the socket does not fix it already.
    #[must_use]
    pub fn source(&self, server: SocketAddr) -> Option<IpAddr> {
        (self.pktinfo && !server.ip().is_unspecified()).then(|| server.ip())
    }

    /// Whether it is a relayed transport address.
    #[must_use]
    pub fn is_relay(&self) -> bool {
        self.role == Role::Relay
    }

    /// How many datagrams were dropped since the last call, of the `total` the kernel has counted. A
    /// datagram says what the total was when it was queued, which may be less than is known by now.
    pub(super) fn newly_dropped(&self, total: u32) -> u64 {
        let new = total.wrapping_sub(self.dropped.get());
        if new > u32::MAX / 2 {
            return 0;
        }
        self.dropped.set(total);
        new.into()
    }

    /// For registration with the poll.
    pub fn source_mut(&mut self) -> &mut mio::net::UdpSocket {
        &mut self.inner
    }
}

/// The datagram sockets of a worker by [`SocketRef`].
#[derive(Debug, Default)]
pub struct Sockets {
    slots: Vec<Option<UdpSocket>>,
}

impl Sockets {
    /// The socket of that name, if it is open.
    #[must_use]
    pub fn get(&self, socket: SocketRef) -> Option<&UdpSocket> {
        self.slots.get(socket.0 as usize)?.as_ref()
    }

    /// Puts a socket under a name. The table grows to the largest name in use.
    pub fn insert(&mut self, name: SocketRef, socket: UdpSocket) {
        let index = name.0 as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(socket);
    }

    /// Takes a socket out; dropping it closes it. The table shrinks with the largest name in use.
    pub fn remove(&mut self, name: SocketRef) -> Option<UdpSocket> {
        let socket = self.slots.get_mut(name.0 as usize)?.take();
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
        }
        if self.slots.capacity() > 4 * self.slots.len() {
            self.slots.shrink_to(2 * self.slots.len());
        }
        socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &str = "127.0.0.1:0";

    fn bind(address: SocketAddr, role: Role) -> io::Result<UdpSocket> {
        UdpSocket::bind(address, role, 1 << 16)
    }

    #[test]
    fn listeners_of_a_group_share_a_port_that_nobody_else_gets() {
        let first = bind(ANY.parse().unwrap(), Role::FirstListener).unwrap();
        let address = first.local();
        assert_ne!(address.port(), 0);
        let _second = bind(address, Role::NextListener).unwrap();
        for role in [Role::FirstListener, Role::Relay] {
            assert_eq!(bind(address, role).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn drops_are_counted_once_whoever_tells_of_them_first() {
        let socket = bind(ANY.parse().unwrap(), Role::Relay).unwrap();
        let told = [3, 10, 4, 10, 12].map(|total| socket.newly_dropped(total));
        assert_eq!(told, [3, 7, 0, 0, 2]);
        socket.dropped.set(u32::MAX);
        assert_eq!([2, u32::MAX].map(|total| socket.newly_dropped(total)), [3, 0], "it wraps around");
    }

    #[test]
    fn a_relay_port_is_never_shared() {
        let relay = bind(ANY.parse().unwrap(), Role::Relay).unwrap();
        for role in [Role::FirstListener, Role::NextListener, Role::Relay] {
            assert_eq!(bind(relay.local(), role).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn ipv6_sockets_leave_ipv4_alone() {
        let Ok(six) = bind("[::]:0".parse().unwrap(), Role::FirstListener) else { return };
        let four = SocketAddr::from(([0, 0, 0, 0], six.local().port()));
        bind(four, Role::FirstListener).unwrap();
    }

    #[test]
    fn a_name_is_of_one_kind() {
        for (name, kinds) in [
            (7, (true, false, false)),
            (SocketRef::SESSION | 7, (false, true, false)),
            (SocketRef::STREAM | 7, (false, false, true)),
            (SocketRef::STREAM | SocketRef::SESSION | 7, (false, false, true)),
        ] {
            let name = SocketRef(name);
            assert_eq!((name.is_socket(), name.is_session(), name.is_stream()), kinds);
        }
    }

    #[test]
    fn a_table_forgets_what_is_removed() {
        let mut sockets = Sockets::default();
        sockets.insert(SocketRef(3), bind(ANY.parse().unwrap(), Role::Relay).unwrap());
        assert!(sockets.get(SocketRef(2)).is_none() && sockets.get(SocketRef(9)).is_none());
        assert!(sockets.remove(SocketRef(3)).is_some());
        assert!(sockets.get(SocketRef(3)).is_none());
    }
}
