//! Relaying in the kernel: bound channels that a BPF program forwards where an interface receives them.
//!
//! Owns the program (`bpf/turn.bpf.c`, built and committed), its maps and where it is attached. Decides
//! nothing: it holds the rows it is given ([`OffloadRow`](crate::turn::OffloadRow)), and whatever has no
//! row, or is not a plain packet of one, reaches the sockets as if this module did not exist. Everything
//! in the kernel ends with the process, which also has to show a sign of life each second
//! ([`Offload::beat`]). Linux only; elsewhere [`Offload::start`] says so.

#[cfg(target_os = "linux")]
mod attach;
mod error;
#[cfg(target_os = "linux")]
mod maps;
mod outcome;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(target_os = "linux")]
mod row;
#[cfg(target_os = "linux")]
mod running;
#[cfg(target_os = "linux")]
mod system;
#[cfg(all(test, target_os = "linux"))]
mod tests;

pub use error::{InstallError, OffloadError};
pub use outcome::{Counters, PASSED};
#[cfg(not(target_os = "linux"))]
pub use portable::Offload;
#[cfg(target_os = "linux")]
pub use running::Offload;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whichever of the two works here, traffic control first: it asks nothing of the driver, and
    /// `docs/performance.md` shows that it costs no more.
    Auto,
    /// Traffic control (tcx, Linux 6.6): any Ethernet interface.
    Tc,
    /// XDP: in the driver where the driver can, else in front of the network stack.
    Xdp,
}
