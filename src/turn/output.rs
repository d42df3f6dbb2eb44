//! What goes into and comes out of the relay's state machine, in the field's terms.
//!
//! Data packets are answered with a [`Verdict`] by value; everything that has an effect on the
//! outside other than a packet (opening and closing relay sockets) is an [`Output`] in a queue.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::ip_header::IpFields;
use super::offload::{FlowId, OffloadRow};
use super::table::Owner;

/// The only source of time in the core. `mono` counts from an arbitrary start and never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since an arbitrary start; all lifetimes are measured with it.
    pub mono: Duration,
    /// Seconds since 1970-01-01 UTC; credentials and nonces expire by it.
    pub unix: u64,
}

/// How a client reaches the server (RFC 8656 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams in the clear.
    Udp,
    /// A TCP connection.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

impl Transport {
    /// Whether messages arrive in a byte stream, where ChannelData is padded (RFC 8656 §12.5).
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }

    /// As it is written in `relay.listen`.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }
}

/// The 5-tuple that identifies an allocation (RFC 8656 §2.2). `server` is the local address the
/// packet came to, so that replies of a multi-homed host leave from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// The client's transport address as the server sees it.
    pub client: SocketAddr,
    /// The server's transport address the client sent to.
    pub server: SocketAddr,
    /// The transport between the two.
    pub transport: Transport,
}

/// The worker's own handle of the socket or connection a client's packets travel on. Opaque to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub u32);

/// A 5-tuple together with the handle to send on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPath {
    /// Who talks to whom.
    pub five_tuple: FiveTuple,
    /// The socket or connection of the worker.
    pub link: LinkId,
}

/// Names a worker: each process has at most 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub u8);

/// Names a relay socket. Dense from zero and reused after [`Output::CloseRelay`], so it can index a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub u32);

/// Names the connection of a peer (RFC 6062 §2). Dense from zero and reused after its end, so it can index
/// a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerLink(pub u32);

/// Where a forwarded packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// To a client, on its own socket or connection.
    Client(ClientPath),
    /// To a peer, from a relay socket.
    Relay(RelayId, SocketAddr),
    /// To the worker that has this allocation, for its
    /// [`Server::handle_neighbour`](super::Server::handle_neighbour): the payload comes from this relayed
    /// address. Never to the core's own worker.
    Neighbour(Owner, SocketAddr),
}

/// Bytes that go in front of a forwarded payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// Nothing: client to peer.
    None,
    /// A ChannelData header (RFC 8656 §12.4).
    Channel([u8; 4]),
    /// A Data indication up to and including the DATA attribute's header; the first `len` bytes count
    /// (36 for an IPv4 peer, 48 for IPv6).
    Data([u8; 48], u8),
}

impl Prefix {
    /// The bytes to send before the payload.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Channel(header) => header,
            Self::Data(bytes, len) => &bytes[..usize::from(*len)],
        }
    }
}

impl std::fmt::Debug for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prefix({} bytes)", self.as_bytes().len())
    }
}

/// A datagram, or several of one source that came as one: all of `stride` bytes but the last, which may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    bytes: &'a [u8],
    stride: usize,
}

impl<'a> Run<'a> {
    /// What came: datagrams of `stride` bytes, the last of what is left.
    #[must_use]
    pub fn new(bytes: &'a [u8], stride: usize) -> Self {
        Self { bytes, stride: stride.min(bytes.len()) }
    }

    /// The first datagram.
    #[must_use]
    pub fn first(&self) -> &'a [u8] {
        &self.bytes[..self.stride]
    }

    /// How many in front are as long as the first and begin with the same `head` bytes. It has that many.
    pub(super) fn alike(&self, head: usize) -> usize {
        let head = &self.first()[..head];
        let next = self.bytes.chunks_exact(self.stride.max(1)).skip(1);
        1 + next.take_while(|datagram| datagram.starts_with(head)).count()
    }
}

impl<'a> From<&'a [u8]> for Run<'a> {
    fn from(datagram: &'a [u8]) -> Self {
        Self::new(datagram, datagram.len())
    }
}

/// A packet to send on: `prefix`, then the bytes `payload` of the datagram that was handed in, then `pad` zero bytes. Of a
/// [`Run`] that was handed in, its first `count` datagrams, each in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where it leaves and to whom.
    pub via: Via,
    /// What goes before the payload.
    pub prefix: Prefix,
    /// The part of the incoming datagram that is the payload.
    pub payload: Range<usize>,
    /// How many datagrams it speaks for, at least one.
    pub count: usize,
    /// Zero bytes after the payload (at most 3).
    pub pad: u8,
    /// What goes into its IP header; a stream ignores it.
    pub ip: IpFields,
    /// Leave with the DF bit, or not at all (DONT-FRAGMENT, RFC 8656 §18.9).
    pub dont_fragment: bool,
}

impl Forward {
    /// Packets, and bytes of their payloads.
    pub(super) fn amount(&self) -> (u64, u64) {
        let packets = self.count as u64;
        (packets, packets * self.payload.len() as u64)
    }
}

/// What to do about what was just handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it on.
    Forward(Forward),
    /// Send the first `len` bytes of the reply buffer to this client.
    Reply {
        /// Whom to answer.
        path: ClientPath,
        /// How many bytes of the reply buffer.
        len: usize,
    },
    /// Send the first `len` bytes of the reply buffer to the client, then join its connection to the
    /// peer's: what follows on either goes to the other as it is (RFC 6062 §5.4).
    Join {
        /// The client's connection.
        path: ClientPath,
        /// How many bytes of the reply buffer.
        len: usize,
        /// The peer's connection.
        link: PeerLink,
    },
    /// Not handled: it concerns what that other worker holds. The worker moves the connection there, or
    /// calls [`Server::handle_unmoved`](super::Server::handle_unmoved). Never the worker's own name.
    Elsewhere(WorkerId),
    /// Handled; nothing to send now.
    Consumed,
    /// Dropped and counted.
    Drop(DropReason),
}

/// A request of the core to the outside. Drain with `Server::poll_output` after every `handle_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bind a UDP relay socket to exactly this local address, or take the one that is reserved there,
    /// then call `Server::handle_relay_opened`.
    OpenRelay {
        /// The name the socket goes by from now on.
        relay: RelayId,
        /// Local address and port.
        bind: SocketAddr,
        /// A second address to bind a socket to and to reserve, for an `OpenRelay` of any core of the
        /// same `Shared`. Both sockets are opened, or none.
        reserve: Option<SocketAddr>,
    },
    /// Close the socket that is reserved at this local address, if it still is.
    ReleaseRelay {
        /// Local address and port.
        bind: SocketAddr,
    },
    /// Listen for TCP connections on exactly this local address, then call `Server::handle_relay_opened`.
    OpenListener {
        /// The name the socket goes by from now on.
        relay: RelayId,
        /// Local address and port.
        bind: SocketAddr,
    },
    /// Open a TCP connection, then call `Server::handle_peer_connected`.
    Connect {
        /// The name the connection goes by from now on.
        link: PeerLink,
        /// The local address, on which this program listens.
        from: SocketAddr,
        /// The peer.
        to: SocketAddr,
    },
    /// Give up a connection that has not come about, then call `Server::handle_peer_connected`.
    GiveUp {
        /// Which.
        link: PeerLink,
    },
    /// Close the connection of a peer and the client's that is joined to it; its `PeerLink` may be used
    /// again.
    ClosePeer {
        /// Which.
        link: PeerLink,
    },
    /// Close the relay socket or listener; its `RelayId` may be used again.
    CloseRelay {
        /// Which.
        relay: RelayId,
    },
    /// This flow may be relayed without asking until it expires; said again when that changes.
    Offload(OffloadRow),
    /// Not any longer.
    Unload(FlowId),
}

/// Why a relay socket could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has the port (EADDRINUSE): the core tries the next one.
    InUse,
    /// The address is not on this host or the family is off (EADDRNOTAVAIL, EAFNOSUPPORT): 508.
    Unavailable,
    /// Out of file descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM): 508.
    Exhausted,
}

/// Why a packet was dropped. Each has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Neither STUN nor ChannelData, or its lengths do not add up.
    Malformed,
    /// ChannelData or an indication from a 5-tuple without allocation.
    NoAllocation,
    /// ChannelData on a channel that is not bound.
    NoChannel,
    /// No live permission for the peer.
    NoPermission,
    /// The peer address is forbidden by policy or of the wrong family.
    PeerForbidden,
    /// An indication that this server does not take, or with an unknown mandatory attribute.
    UnusableIndication,
    /// A STUN response or another message a server never receives.
    UnexpectedClass,
    /// The source is a known reflector port, port 0 or an address nobody can have.
    SuspiciousSource,
    /// The source prefix asked too much without authenticating.
    RateLimited,
    /// FINGERPRINT present and wrong.
    BadFingerprint,
    /// A packet from a peer when the allocation has just gone.
    RelayGone,
    /// An ICMP error that no client is told of: of another type, or one too many.
    PeerError,
    /// Another allocation has claimed the peer's address at the port all allocations share, or there are
    /// too many claims.
    PeerClaimed,
    /// More than the bandwidth of the allocation, its user or the server.
    OverBandwidth,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::NoAllocation,
        Self::NoChannel,
        Self::NoPermission,
        Self::PeerForbidden,
        Self::UnusableIndication,
        Self::UnexpectedClass,
        Self::SuspiciousSource,
        Self::RateLimited,
        Self::BadFingerprint,
        Self::RelayGone,
        Self::PeerError,
        Self::PeerClaimed,
        Self::OverBandwidth,
    ];

    /// The label in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoAllocation => "no_allocation",
            Self::NoChannel => "no_channel",
            Self::NoPermission => "no_permission",
            Self::PeerForbidden => "peer_forbidden",
            Self::UnusableIndication => "unusable_indication",
            Self::UnexpectedClass => "unexpected_class",
            Self::SuspiciousSource => "suspicious_source",
            Self::RateLimited => "rate_limited",
            Self::BadFingerprint => "bad_fingerprint",
            Self::RelayGone => "relay_gone",
            Self::PeerError => "peer_error",
            Self::PeerClaimed => "peer_claimed",
            Self::OverBandwidth => "over_bandwidth",
        }
    }
}
