//! The workers over real sockets. Every scenario runs on each backend of this system.

#![expect(clippy::unwrap_used, reason = "a scenario that goes wrong shall panic where it does")]

#[macro_use]
mod rig;
mod allocations;
mod client;
mod datagrams;
mod dtls;
mod dtls_link;
mod everyday;
mod load;
mod memory;
mod mobility;
mod neighbours;
mod one_port;
mod pairs;
#[cfg(target_os = "linux")]
mod path;
#[cfg(target_os = "linux")]
mod refusals;
mod start;
mod streams;
mod tcp_relaying;
mod tls;
