//! turnkey: one program that makes calls work across symmetric NATs and firewalls, and the same as a library.
//!
//! A STUN/TURN relay, the time-limited credentials for it, and the signaling through which two browsers find each
//! other. The `turnkey` command is a thin shell over [`Server`]; another Rust program can run the whole inside
//! itself:
//!
//! ```no_run
//! use std::net::SocketAddr;
//! use std::time::Duration;
//! use turnkey::{Config, Server};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! // What a configuration file would say; `Config::default()` is what `turn-config/turnkey.toml` shows.
//! let config = Config::from_toml(
//!     r#"
//!     [http]
//!     listen = []        # this program serves the router itself
//!     [admin]
//!     listen = ""
//!     "#,
//! )?;
//!
//! // Relay and signaling run from here on; all ports are bound, also where the configuration says port 0.
//! let turnkey = Server::start(config).await?;
//! println!("relay at {:?}", turnkey.addresses().udp);
//!
//! // Credentials for a user this program knows, without an HTTP request.
//! let credential = turnkey.mint("alice", Duration::from_secs(3600))?;
//! println!("{} {}", credential.username, turnkey.ice_urls().join(" "));
//!
//! // The call page, `/v1/ice` and the signaling sockets, beside the program's own routes.
//! let router = axum::Router::new().merge(turnkey.router());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await?;
//!
//! // Closes signaling sockets with a code, ends allocations, frees every port.
//! turnkey.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/embed.rs` is this as a program. [`Handle::drain`] refuses new allocations before a stop, and
//! [`Handle::reload`] takes a new configuration while calls go on.
//!
//! # Parts
//!
//! The protocol is pure: [`stun`] reads and writes messages, [`credential`] knows who may relay, [`turn`] is the
//! relay's state machine, [`signal`] the signaling one, [`dtls`] the handshake in front of the relay, [`proxy`] the
//! header of a proxy in front of that. Time, randomness and settings are their arguments; they compile without the
//! feature `server` and know no socket. Around them, with the feature `server` (on by default), `io`, `offload` and
//! `worker` move datagrams, `http` serves requests and signaling sockets, `store` keeps what outlives the process,
//! `admin` serves metrics, `config` reads the configuration and `app` joins them all.

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
pub mod dtls;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod io;
#[cfg(feature = "server")]
pub mod offload;
pub mod proxy;
pub mod signal;
#[cfg(feature = "server")]
pub mod store;
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
