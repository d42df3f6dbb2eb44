//! What keeps packets out of the kernel, each in a line that says what to do.

use std::fmt;

/// Why nothing is relayed in the kernel.
#[derive(Debug)]
pub enum OffloadError {
    /// This system is not Linux.
    System,
    /// The process lacks capabilities.
    Capabilities(Vec<&'static str>),
    /// The interface does not exist or is not Ethernet.
    Interface(String),
    /// No interface was named.
    NoInterface,
    /// Neither IPv4 nor IPv6 routes can be looked up.
    Forwarding,
    /// The program or its maps were refused.
    Load(String),
    /// The program could not be attached to that interface.
    Attach(String, String),
    /// Neither way works: what traffic control said, and what XDP said.
    Neither(Box<Self>, Box<Self>),
}

impl fmt::Display for OffloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("relaying in the kernel needs Linux; set relay.offload = \"off\""),
            Self::Capabilities(missing) => {
                write!(
                    f,
                    "relaying in the kernel needs {} (AmbientCapabilities= of the unit)",
                    missing.join(", ")
                )
            }
            Self::Interface(why) => f.write_str(why),
            Self::NoInterface => f.write_str("no Ethernet interface has an address of the relay"),
            Self::Forwarding => {
                f.write_str("routes cannot be looked up: set the sysctl net.ipv4.conf.lo.forwarding to 1")
            }
            Self::Load(why) => write!(f, "the kernel refuses the offload program: {why}"),
            Self::Attach(interface, why) => write!(f, "cannot attach to {interface}: {why}"),
            Self::Neither(tc, xdp) => write!(f, "tc: {tc}; xdp: {xdp}"),
        }
    }
}

impl std::error::Error for OffloadError {}

/// Why a row is not in the kernel; its packets take the usual way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The slot is beyond the capacity.
    Full,
    /// Its addresses are of two families.
    MixedFamilies,
    /// Another row that is installed has one of its keys, or its slot.
    Taken,
    /// A map refused it.
    Refused,
}
