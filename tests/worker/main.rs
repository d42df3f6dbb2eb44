//! The workers over real sockets. Every scenario runs on each backend of this system.

#[macro_use]
mod rig;
mod client;
mod datagrams;
mod load;
#[cfg(target_os = "linux")]
mod refusals;
mod start;
mod streams;
