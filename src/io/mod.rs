//! Sockets: UDP in batches, relayed TCP, and TURN's framing over TCP.
//!
//! Owns how bytes enter and leave the machine: buffers, socket options, system calls, what to do
//! when one fails. Knows datagrams and byte streams, nothing of allocations or permissions, and
//! imports nothing of ours. A backend implements [`Datagrams`]: [`portable`] makes one call a
//! datagram on any system, [`linux`] receives and sends many with one call. Both take the same
//! batches ([`RecvBatch`], [`SendBatch`]) and put the same packets on the wire.

mod alarm;
mod batch;
mod counters;
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "recvmmsg, sendmmsg, UDP_GRO and UDP_SEGMENT are only reachable through libc")]
pub mod linux;
pub mod portable;
mod socket;
pub mod splice;
pub mod stream;
pub mod tcp;

pub use alarm::Alarm;
pub use batch::{
    Bodies, Fields, Flow, Packet, Received, RecvBatch, Route, Run, RunLimits, SLOT_LEN, SLOTS, STAGE_LEN,
    SendBatch,
};
pub use counters::{Counters, DtlsCounters, SendFailure};
pub use socket::{Role, SocketRef, Sockets, UdpSocket};

use std::fmt;
use std::net::SocketAddr;

/// A way to move datagrams between the batches and the kernel.
pub trait Datagrams {
    /// Turns on what this backend wants of a freshly bound socket.
    fn prepare(&mut self, socket: &mut UdpSocket);

    /// Reads at most `limit` waiting datagrams (or coalesced runs) into vacant slots of `into`,
    /// replacing the list of the previous call. Returns whether the socket is drained; if not, the
    /// caller comes back without waiting for readiness. Errors of the socket are counted and skipped.
    fn recv(
        &mut self,
        socket: &UdpSocket,
        into: &mut RecvBatch,
        limit: usize,
        counters: &mut Counters,
    ) -> bool;

    /// Sends every packet of `batch` that goes to a datagram socket. A packet that cannot be sent is
    /// counted; it never keeps back another one.
    fn send(&mut self, sockets: &Sockets, batch: &SendBatch, received: &RecvBatch, counters: &mut Counters);

    /// The next word from the network about a packet of a relay socket that did not arrive, if the
    /// system hands them out; the worker asks when the poll says the socket has an error.
    fn peer_error(&mut self, socket: &UdpSocket) -> Option<PeerError>;

    /// Datagrams the kernel has dropped at this socket because its receive buffer was full, as far as
    /// the system tells, since they were last counted here or while receiving.
    fn overflows(&self, socket: &UdpSocket) -> u64;

    /// What is in use now; it may shrink while running.
    fn capabilities(&self) -> Capabilities;
}

/// Why a packet to a peer did not arrive: an ICMP error (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerError {
    /// Where the packet went.
    pub peer: SocketAddr,
    /// ICMP type of the peer's address family.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The MTU, where the type has one.
    pub data: u32,
}

/// Gives memory that has been freed back to the system, as far as the allocator can.
pub fn trim_memory() {
    #[cfg(target_os = "linux")]
    linux::trim_memory();
}

/// What the kernel has let a backend use so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Many datagrams from one socket with one call.
    pub recvmmsg: bool,
    /// Many datagrams to one socket with one call.
    pub sendmmsg: bool,
    /// Receiving runs of equal datagrams as one (UDP_GRO).
    pub gro: bool,
    /// Largest datagram that may be part of a run sent as one (UDP_SEGMENT), 0 if none.
    pub gso_max_segment: usize,
    /// Replies leave from the address the request came to, also on a wildcard socket.
    pub pktinfo: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.recvmmsg, "recvmmsg"),
            (self.sendmmsg, "sendmmsg"),
            (self.gro, "gro"),
            (self.gso_max_segment > 0, "gso"),
            (self.pktinfo, "pktinfo"),
        ];
        let mut separator = "";
        for (_, name) in names.into_iter().filter(|(on, _)| *on) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("one datagram a call") } else { Ok(()) }
    }
}
