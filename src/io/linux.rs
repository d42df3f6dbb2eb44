//! Linux: many datagrams a system call, runs of equal datagrams as one.
//!
//! Receives with `recvmmsg` and UDP_GRO, sends with `sendmmsg` and UDP_SEGMENT, gathers a packet from
//! where its parts lie, and tells each datagram's local address with PKTINFO. What this kernel,
//! driver or sandbox refuses is noticed when it refuses: the capability shrinks and the packet in
//! hand leaves the simpler way. The only module with `unsafe`.

mod control;
mod recv;
mod send;
mod sys;
mod timer;
mod words;

use std::os::fd::AsRawFd;
use std::time::Duration;

use super::{Capabilities, Counters, Datagrams, PeerError, RecvBatch, SendBatch, Sockets, UdpSocket};
use recv::Receiver;
use send::Sender;
pub(super) use timer::Timer;
pub use words::{Words, monotonic_at};

/// Larger segments than any common path takes are not worth a run, and the kernel would refuse it.
const MAX_SEGMENT: usize = 1 << 14;

/// Messages of an error queue that are passed over in search of one that came by ICMP.
const MAX_PASSED_OVER: usize = 16;

/// The Linux backend. Lives in its worker's thread.
pub struct Linux {
    caps: Capabilities,
    receiver: Receiver,
    sender: Sender,
}

impl Linux {
    /// A backend that believes in the kernel until it refuses.
    #[must_use]
    pub fn new() -> Self {
        Self { caps: probe(), receiver: Receiver::new(), sender: Sender::new() }
    }
}

impl Default for Linux {
    fn default() -> Self {
        Self::new()
    }
}

impl Datagrams for Linux {
    fn prepare(&mut self, socket: &mut UdpSocket) {
        let fd = socket.inner.as_raw_fd();
        let local = socket.local();
        if self.caps.gro {
            self.caps.gro = sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        }
        // What the kernel refuses of these is only told less well, or not at all.
        for (level, name) in wishes(local.is_ipv4(), socket.is_relay()) {
            let _ = sys::set_option(fd, *level, *name, 1);
        }
        // RFC 8656 §14: without DONT-FRAGMENT a relayed packet must not carry DF.
        let _ = sys::keep_whole(fd, local.is_ipv4(), false);
        if local.ip().is_unspecified() && self.caps.pktinfo {
            let told = if local.is_ipv4() {
                sys::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
            } else {
                sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
            };
            socket.pktinfo = told.is_ok();
        }
    }

    fn recv(
        &mut self,
        socket: &UdpSocket,
        into: &mut RecvBatch,
        limit: usize,
        counters: &mut Counters,
    ) -> bool {
        self.receiver.recv(socket, into, limit, &mut self.caps, counters)
    }

    fn send(&mut self, sockets: &Sockets, batch: &SendBatch, received: &RecvBatch, counters: &mut Counters) {
        self.sender.send(sockets, batch, received, &mut self.caps, counters);
    }

    fn peer_error(&mut self, socket: &UdpSocket) -> Option<PeerError> {
        // This host's own complaints stand there too, without the port they are about.
        for _ in 0..MAX_PASSED_OVER {
            let (name, told) = sys::recv_error(socket.inner.as_raw_fd()).ok()?;
            if let (Some(peer), Some(error)) = (name.address(), told.error)
                && matches!(error.origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6)
            {
                return Some(PeerError { peer, kind: error.kind, code: error.code, data: error.info });
            }
        }
        None
    }

    fn overflows(&self, socket: &UdpSocket) -> u64 {
        socket.newly_dropped(sys::dropped(socket.inner.as_raw_fd()))
    }

    fn capabilities(&self) -> Capabilities {
        self.caps
    }
}

/// What the kernel is to tell about datagrams of a socket, as (level, option).
fn wishes(is_ipv4: bool, is_relay: bool) -> &'static [(libc::c_int, libc::c_int)] {
    // RFC 8656 §14: what is relayed keeps its DSCP and ECN. The overflow costs nothing until there is one.
    // RFC 8656 §11.5: clients hear of the ICMP errors that their packets cause.
    const IPV4: [(libc::c_int, libc::c_int); 3] = [
        (libc::IPPROTO_IP, libc::IP_RECVTOS),
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
        (libc::IPPROTO_IP, libc::IP_RECVERR),
    ];
    const IPV6: [(libc::c_int, libc::c_int); 3] = [
        (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    ];
    let all = if is_ipv4 { &IPV4 } else { &IPV6 };
    if is_relay { all } else { &all[..2] }
}

/// Asks a throw-away socket which options this kernel knows. The system calls are tried when needed.
fn probe() -> Capabilities {
    let mut caps =
        Capabilities { recvmmsg: true, sendmmsg: true, gro: false, gso_max_segment: 0, pktinfo: false };
    let Ok(socket) = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)) else { return caps };
    let knows = |level, name, value| sys::set_option(socket.as_raw_fd(), level, name, value).is_ok();
    caps.gro = knows(libc::SOL_UDP, libc::UDP_GRO, 1);
    if knows(libc::SOL_UDP, libc::UDP_SEGMENT, 0) {
        caps.gso_max_segment = MAX_SEGMENT;
    }
    caps.pktinfo = knows(libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    caps
}

/// Raises the soft limit of open files to the hard one and returns it: a relay holds a socket for each
/// allocation, and the usual soft limit is 1024.
pub fn raise_descriptor_limit() -> u64 {
    sys::raise_descriptor_limit()
}

/// CPU time that all threads of a process have used, also those that have ended; `None` if there is no such
/// process.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<Duration> {
    sys::cpu_time(pid)
}

/// Lets a socket send runs of datagrams of `segment` bytes with one call (UDP_SEGMENT) and hand out what arrives
/// as such a run with one (UDP_GRO). For programs that know how long their datagrams are.
///
/// # Errors
/// What the kernel does not know of the two.
pub fn use_runs(socket: &impl AsRawFd, segment: u16) -> std::io::Result<()> {
    sys::set_option(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, libc::c_int::from(segment))?;
    sys::set_option(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
}

pub(super) use sys::trim_memory;

#[cfg(test)]
mod tests;
