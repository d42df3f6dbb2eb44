//! What the HTTP side is told when it starts and when the configuration is read again.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::token::JwtKey;
use crate::credential::Secrets;
use crate::signal::Limits;

/// Who gets an answer without a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// The person at this machine. Only while every listener is bound to loopback: a request is
    /// answered if its Host is localhost, its Origin the same or listed, and no proxy shows.
    #[default]
    Open,
    /// Nobody.
    Token,
}

/// A STUN or TURN server of others, as an `RTCIceServer`.
#[derive(Clone, Serialize)]
pub struct IceServer {
    /// Its URLs.
    pub urls: Vec<String>,
    /// The user name; a STUN server has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Settings of [`super::App`].
#[derive(Clone)]
pub struct Settings {
    /// ICE URLs to hand out, STUN and TURN: `stun:h:3478`, `turn:h:3478?transport=udp`, …
    pub ice_urls: Vec<String>,
    /// Servers of others that are handed out after those.
    pub further_ice: Vec<IceServer>,
    /// Life of the relay credentials.
    pub ttl: Duration,
    /// The longest life a request may ask for.
    pub max_ttl: Duration,
    /// Who gets an answer without a token.
    pub access: Access,
    /// Whether clients without a token may enter open rooms and get relay credentials, whatever
    /// [`Self::access`] says.
    pub allow_anonymous: bool,
    /// Origins of pages that may talk to this server beside its own; `*` for all.
    pub origins: Vec<String>,
    /// The key tokens are checked with.
    pub jwt: Option<JwtKey>,
    /// Keys of back ends for `/v1/ice`, `/turn` and the Matrix path.
    pub api_keys: Vec<String>,
    /// Secrets relay credentials are signed with.
    pub secrets: Secrets,
    /// Names under which this server is reached; a page from one of them is of the same origin,
    /// also where a proxy rewrites Host.
    pub public_host_names: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed: address and prefix length.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// Requests for credentials a minute of one client.
    pub ice_per_minute: u32,
    /// Bounds of signaling.
    pub limits: Limits,
    /// Whether pages come over HTTPS, which cookies need to know.
    pub secure: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ice_urls: Vec::new(),
            further_ice: Vec::new(),
            ttl: Duration::from_secs(3600),
            max_ttl: Duration::from_secs(24 * 3600),
            access: Access::Open,
            allow_anonymous: false,
            origins: Vec::new(),
            jwt: None,
            api_keys: Vec::new(),
            secrets: Secrets::default(),
            public_host_names: Vec::new(),
            trusted_proxies: Vec::new(),
            ice_per_minute: 10,
            limits: Limits::default(),
            secure: false,
        }
    }
}
