//! The program itself, as its users start it: command line, configuration, signals, service manager.
//!
//! Each test starts the binary on port 0 in a home of its own and learns the addresses from the log.

#[path = "../../examples/embed.rs"]
#[expect(dead_code, reason = "an example has a main, which the test does not call")]
mod embed;

mod commands;
mod coturn;
mod dtls;
mod embedded;
mod errors;
mod flood;
mod harness;
mod keys;
mod life;
mod memory;
mod moderate;
mod modern_client;
mod one_port;
mod profiles;
mod proxied;
mod public;
mod refused;
mod reload;
mod revoked;
mod secrets;
mod service;
mod sessions;
mod store;
mod timeline;
mod tls;
mod watch;
