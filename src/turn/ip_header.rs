//! What a relayed packet takes over from the IP header it came with (RFC 8656 §14), and how an ICMP
//! error about one is told to the client (RFC 8656 §11.5). Values only; sockets are the worker's.

/// Fields of an IP header that outlive the relay. A client on a stream has none, and where the system
/// does not tell them they are the defaults of a fresh packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpFields {
    /// DSCP and ECN: the TOS byte of IPv4, the traffic class of IPv6.
    pub tos: u8,
}
