//! turnkey: one program that makes calls work across symmetric NATs and firewalls.

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod bench;
#[cfg(feature = "server")]
pub mod check;
#[cfg(feature = "server")]
pub mod config;
pub mod credential;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod io;
pub mod signal;
pub mod stun;
#[cfg(feature = "server")]
pub mod systemd;
#[cfg(feature = "server")]
pub mod telemetry;
pub mod turn;
#[cfg(feature = "server")]
pub mod worker;

#[cfg(feature = "server")]
pub use app::{Handle, Server, StartError};
#[cfg(feature = "server")]
pub use config::Config;
