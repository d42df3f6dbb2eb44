//! The configuration file as it is written: one struct a section, every key with its default.
//!
//! Values are still text; `config::values` gives them meaning. This is also what `config print` writes,
//! so every key has a value and none is optional: an empty string or list means "not set".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A whole configuration file.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) state_dir: String,
    pub(crate) relay: Relay,
    pub(crate) credentials: Credentials,
    pub(crate) peers: Peers,
    pub(crate) quota: Quota,
    pub(crate) tls: Tls,
    pub(crate) http: Http,
    pub(crate) signaling: Signaling,
    pub(crate) store: Store,
    pub(crate) cluster: Cluster,
    pub(crate) admin: Admin,
    pub(crate) log: Log,
}

/// `[relay]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Relay {
    pub(crate) listen: Vec<String>,
    pub(crate) public_address: OneOrMany,
    pub(crate) detect_from: String,
    pub(crate) resolve_every: String,
    pub(crate) ports: String,
    pub(crate) realm: String,
    pub(crate) workers: u16,
    pub(crate) backend: String,
    pub(crate) offload: String,
    pub(crate) offload_interfaces: Vec<String>,
    pub(crate) legacy_channels: bool,
    pub(crate) tcp: bool,
    pub(crate) mobility: bool,
    pub(crate) max_lifetime: String,
    pub(crate) drain_timeout: String,
    pub(crate) tcp_connections: u32,
    pub(crate) proxy_from: Vec<String>,
    pub(crate) socket_buffer: u32,
    pub(crate) unauthenticated_rate: u32,
    pub(crate) alternate: toml::Table,
    pub(crate) redirect: toml::Table,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            listen: strings(&[
                "udp://0.0.0.0:3478",
                "tcp://0.0.0.0:3478",
                "udp://[::]:3478",
                "tcp://[::]:3478",
            ]),
            public_address: OneOrMany(strings(&["auto"])),
            detect_from: String::new(),
            resolve_every: "1m".into(),
            ports: "49152-65535".into(),
            realm: "turnkey".into(),
            workers: 0,
            backend: "auto".into(),
            offload: "off".into(),
            offload_interfaces: Vec::new(),
            legacy_channels: false,
            tcp: false,
            mobility: false,
            max_lifetime: "1h".into(),
            drain_timeout: "0s".into(),
            tcp_connections: 10_000,
            proxy_from: Vec::new(),
            socket_buffer: 4 << 20,
            unauthenticated_rate: 1 << 16,
            alternate: toml::Table::new(),
            redirect: toml::Table::new(),
        }
    }
}

impl File {
    /// Listeners of TURN over TLS and DTLS, where there is a certificate that clients trust and nothing is said
    /// about listeners.
    pub(crate) fn listen_on_tls(&mut self) {
        self.relay.listen.extend(strings(&["tls://0.0.0.0:5349", "tls://[::]:5349"]));
        self.relay.listen.extend(strings(&["dtls://0.0.0.0:5349", "dtls://[::]:5349"]));
    }
}

/// `[credentials]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Credentials {
    pub(crate) secrets: Vec<String>,
    pub(crate) secrets_file: String,
    pub(crate) ttl: String,
    pub(crate) max_ttl: String,
    pub(crate) strict_expiry: bool,
    pub(crate) api_keys: Vec<String>,
    pub(crate) api_keys_file: String,
    pub(crate) users: BTreeMap<String, String>,
    pub(crate) user_keys: BTreeMap<String, String>,
    pub(crate) hide_usernames: bool,
    pub(crate) third_party: toml::Table,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            secrets_file: String::new(),
            ttl: "1h".into(),
            max_ttl: "24h".into(),
            strict_expiry: false,
            api_keys: Vec::new(),
            api_keys_file: String::new(),
            users: BTreeMap::new(),
            user_keys: BTreeMap::new(),
            hide_usernames: false,
            third_party: toml::Table::new(),
        }
    }
}

/// `[peers]`
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Peers {
    pub(crate) allow: Vec<String>,
    pub(crate) deny: Vec<String>,
}

/// `[quota]`
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Quota {
    pub(crate) user: u32,
    pub(crate) total: u32,
    pub(crate) allocation_bytes_per_second: u64,
    pub(crate) user_bytes_per_second: u64,
    pub(crate) total_bytes_per_second: u64,
    pub(crate) connections_per_source: u32,
}

/// `[tls]`
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) self_signed: bool,
}

/// `[http]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) listen: Vec<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) max_connections: u32,
    pub(crate) ice_per_minute: u32,
    pub(crate) stun_server: String,
    pub(crate) turn_server: String,
    pub(crate) turn_username: String,
    pub(crate) turn_password: String,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: strings(&["127.0.0.1:8080"]),
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            max_connections: 10_000,
            ice_per_minute: 10,
            stun_server: String::new(),
            turn_server: String::new(),
            turn_username: String::new(),
            turn_password: String::new(),
        }
    }
}

/// `[signaling]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Signaling {
    pub(crate) access: String,
    pub(crate) allow_anonymous: bool,
    pub(crate) jwt_secret: String,
    pub(crate) jwt_secret_file: String,
    pub(crate) jwt_generate: bool,
    pub(crate) jwt_public_key_file: String,
    pub(crate) jwks_url: String,
    pub(crate) jwt_issuer: String,
    pub(crate) jwt_audience: String,
    pub(crate) room_members: u32,
    pub(crate) rooms: u32,
    pub(crate) sessions: u32,
    pub(crate) sockets_per_address: u32,
    pub(crate) connects_per_minute: u32,
    pub(crate) frames_per_second: u32,
    pub(crate) frame_size: u32,
    pub(crate) resume_window: String,
    pub(crate) offer_ttl: String,
}

impl Default for Signaling {
    fn default() -> Self {
        Self {
            access: "open".into(),
            allow_anonymous: false,
            jwt_secret: String::new(),
            jwt_secret_file: String::new(),
            jwt_generate: false,
            jwt_public_key_file: String::new(),
            jwks_url: String::new(),
            jwt_issuer: String::new(),
            jwt_audience: String::new(),
            room_members: 16,
            rooms: 20_000,
            sessions: 50_000,
            sockets_per_address: 64,
            connects_per_minute: 60,
            frames_per_second: 60,
            frame_size: 256 * 1024,
            resume_window: "60s".into(),
            offer_ttl: "2m".into(),
        }
    }
}

/// `[store]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) url: String,
    pub(crate) keep: String,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: "sqlite".into(), keep: "90d".into() }
    }
}

/// `[cluster]`
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cluster {
    pub(crate) redis: String,
}

/// `[admin]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    pub(crate) listen: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9641".into() }
    }
}

/// `[log]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: "text".into() }
    }
}

/// One string, or a list of them.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(from = "OneOrManyText")]
pub(crate) struct OneOrMany(pub(crate) Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrManyText {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrManyText> for OneOrMany {
    fn from(text: OneOrManyText) -> Self {
        match text {
            OneOrManyText::One(one) => Self(one.split(',').map(|s| s.trim().to_owned()).collect()),
            OneOrManyText::Many(many) => Self(many),
        }
    }
}

impl Serialize for OneOrMany {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

/// What stands in the place of a key of 16 bytes.
const HIDDEN_KEY: &str = "00000000000000000000000000000000";

/// What stands in the place of a secret in `config print`.
pub(crate) const REDACTED: &str = "(redacted, not shown by config print)";

impl File {
    /// The same configuration without its secrets.
    pub(crate) fn redacted(&self) -> Self {
        let mut file = self.clone();
        let hide = |text: &mut String| {
            if !text.is_empty() {
                REDACTED.clone_into(text);
            }
        };
        file.credentials.secrets.iter_mut().for_each(hide);
        file.credentials.api_keys.iter_mut().for_each(hide);
        file.credentials.users.values_mut().for_each(hide);
        file.credentials.user_keys.values_mut().for_each(|key| HIDDEN_KEY.clone_into(key));
        hide(&mut file.signaling.jwt_secret);
        hide(&mut file.http.turn_password);
        if file.store.url.contains("://") {
            hide(&mut file.store.url);
        }
        if let Some(toml::Value::Table(keys)) = file.credentials.third_party.get_mut("keys") {
            keys.iter_mut().for_each(|(_, key)| *key = REDACTED.into());
        }
        file
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
