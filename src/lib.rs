//! turnkey: one program that makes calls work across symmetric NATs and firewalls.

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod bench;
#[cfg(feature = "server")]
pub mod check;
#[cfg(feature = "server")]
pub mod config;
pub mod credential;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod io;
pub mod signal;
pub mod stun;
pub mod turn;
#[cfg(feature = "server")]
pub mod worker;
