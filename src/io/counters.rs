//! What happened to datagrams and stream writes that did not simply work. Plain numbers; rendering
//! them is somebody else's business.

use std::io;

/// Why a packet was not sent, as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SendFailure {
    /// No route, host down, address family off (ENETUNREACH, EHOSTUNREACH, …).
    Unreachable,
    /// The peer's host says nobody listens (ECONNREFUSED).
    Refused,
    /// A local firewall rule or a broadcast address (EPERM, EACCES).
    Forbidden,
    /// The socket's buffer or the interface's queue is full (EAGAIN, ENOBUFS, ENOMEM).
    Full,
    /// Larger than the path takes (EMSGSIZE).
    TooLarge,
    /// Anything else.
    Other,
}

impl SendFailure {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::Unreachable, Self::Refused, Self::Forbidden, Self::Full, Self::TooLarge, Self::Other];

    /// The label in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Forbidden => "forbidden",
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::Other => "other",
        }
    }
}

impl From<&io::Error> for SendFailure {
    fn from(error: &io::Error) -> Self {
        #[cfg(unix)]
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => return Self::Full,
            Some(libc::EMSGSIZE) => return Self::TooLarge,
            Some(libc::EHOSTDOWN | libc::EAFNOSUPPORT) => return Self::Unreachable,
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => Self::Unreachable,
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Self::Full,
            _ => Self::Other,
        }
    }
}

/// Counters since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls that read datagrams.
    pub recv_calls: u64,
    /// Datagrams read.
    pub recv_packets: u64,
    /// System calls that sent datagrams.
    pub send_calls: u64,
    /// Datagrams sent.
    pub send_packets: u64,
    /// Datagrams among them that left as part of a run (UDP_SEGMENT).
    pub send_coalesced: u64,
    /// Datagrams that could not be sent, by [`SendFailure`].
    pub send_failures: [u64; SendFailure::ALL.len()],
    /// Errors while reading, all survived.
    pub recv_errors: u64,
    /// Datagrams the kernel dropped because a socket's receive buffer was full (RcvbufErrors).
    pub recv_overflows: u64,
    /// Times the kernel refused a way of sending and a simpler one was taken.
    pub fallbacks: u64,
    /// Connections taken over.
    pub streams_opened: u64,
    /// Connections handed on to another worker.
    pub streams_moved: u64,
    /// Allocations handed on to another worker.
    pub allocations_moved: u64,
    /// Connections that found no place.
    pub streams_refused: u64,
    /// Connections closed because of bytes that are no TURN message.
    pub streams_garbage: u64,
    /// Connections closed because they stayed without an allocation.
    pub streams_idle: u64,
    /// Connections closed because not even replies fitted into the write queue.
    pub streams_stuck: u64,
    /// Relayed packets dropped because a connection's write queue was full.
    pub stream_drops: u64,
    /// Packets for a connection or socket that had just gone.
    pub gone: u64,
    /// Packets given to the worker that has their allocation.
    pub handed_on: u64,
    /// Packets for another worker that were dropped because the ring to it was full.
    pub ring_drops: u64,
    /// DTLS.
    pub dtls: DtlsCounters,
}

/// What happened at the DTLS listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DtlsCounters {
    /// Live sessions, handshakes that go on included.
    pub sessions: u64,
    /// Handshakes that go on.
    pub half_open: u64,
    /// Hellos that were asked for their cookie.
    pub verifications: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Handshakes that failed or took too long.
    pub failures: u64,
    /// Handshakes not begun, or given up for another one, because a bound was reached.
    pub refused: u64,
    /// Sessions closed because they stayed without an allocation.
    pub idle: u64,
    /// Datagrams of nobody's session, hellos above the rate of strangers, and messages that fit into no
    /// record.
    pub drops: u64,
}

impl DtlsCounters {
    /// Adds the counters of another worker.
    fn merge(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.half_open += other.half_open;
        self.verifications += other.verifications;
        self.handshakes += other.handshakes;
        self.failures += other.failures;
        self.refused += other.refused;
        self.idle += other.idle;
        self.drops += other.drops;
    }
}

impl Counters {
    /// Counts `packets` that could not be sent.
    pub fn failed(&mut self, error: &io::Error, packets: usize) {
        self.send_failures[SendFailure::from(error) as usize] += packets as u64;
    }

    /// Adds the counters of another worker.
    pub fn merge(&mut self, other: &Self) {
        self.recv_calls += other.recv_calls;
        self.recv_packets += other.recv_packets;
        self.send_calls += other.send_calls;
        self.send_packets += other.send_packets;
        self.send_coalesced += other.send_coalesced;
        self.send_failures.iter_mut().zip(other.send_failures).for_each(|(sum, n)| *sum += n);
        self.recv_errors += other.recv_errors;
        self.recv_overflows += other.recv_overflows;
        self.fallbacks += other.fallbacks;
        self.streams_opened += other.streams_opened;
        self.streams_moved += other.streams_moved;
        self.allocations_moved += other.allocations_moved;
        self.streams_refused += other.streams_refused;
        self.streams_garbage += other.streams_garbage;
        self.streams_idle += other.streams_idle;
        self.streams_stuck += other.streams_stuck;
        self.stream_drops += other.stream_drops;
        self.gone += other.gone;
        self.handed_on += other.handed_on;
        self.ring_drops += other.ring_drops;
        self.dtls.merge(&other.dtls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn errors_are_counted_by_what_they_mean() {
        let kind = |code| SendFailure::from(&io::Error::from_raw_os_error(code));
        assert_eq!(kind(libc::ENETUNREACH), SendFailure::Unreachable);
        assert_eq!(kind(libc::EHOSTUNREACH), SendFailure::Unreachable);
        assert_eq!(kind(libc::ECONNREFUSED), SendFailure::Refused);
        assert_eq!(kind(libc::EPERM), SendFailure::Forbidden);
        assert_eq!(kind(libc::EAGAIN), SendFailure::Full);
        assert_eq!(kind(libc::ENOBUFS), SendFailure::Full);
        assert_eq!(kind(libc::EMSGSIZE), SendFailure::TooLarge);
        assert_eq!(kind(libc::EIO), SendFailure::Other);
    }

    #[test]
    fn counters_of_workers_add_up() {
        let mut sum = Counters { recv_packets: 1, send_failures: [1; 6], ..Counters::default() };
        sum.merge(&Counters { recv_packets: 2, send_failures: [2; 6], gone: 1, ..Counters::default() });
        assert_eq!((sum.recv_packets, sum.send_failures, sum.gone), (3, [3; 6], 1));
    }
}
