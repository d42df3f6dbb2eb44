//! What a server is told: the configuration, validated.
//!
//! Owns the meaning of every key, the defaults, and the errors about them: each names the place (file and
//! line, environment variable or flag), the key, and what is allowed. What depends on the host is found
//! when a server starts: [`secret`] reads and keeps secrets, [`address`] finds relay addresses.
//! Decides nothing about running servers.

pub mod address;
mod detect;
mod file;
mod further;
pub mod import;
mod relay;
mod render;
pub mod secret;
mod source;
mod tables;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use further::Further;
pub use relay::{Alternate, Offload, PublicAddress, Redirect, Relay, RelayListener, RelayPorts, StunServer};
pub use source::Error;
pub use values::parse_duration;

use crate::signal::Limits;
use crate::turn::{Bandwidth, Network, Transport};
use file::File;
use source::{Place, Sources};

/// A whole, validated configuration. `Config::default()` is what `turn-config/turnkey.toml` says.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// Where generated secrets are kept; `None`: found from the environment, see [`secret::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// The relay.
    pub relay: Relay,
    /// Who may use the relay.
    pub credentials: Credentials,
    /// Which peers may be reached.
    pub peers: Peers,
    /// How much of the relay one user, or all, may use.
    pub quota: Quota,
    /// The certificate of HTTPS and TLS listeners.
    pub tls: Tls,
    /// Web page, API and signaling.
    pub http: Http,
    /// Who may signal.
    pub signaling: Signaling,
    /// Where calls, sessions and what restores them are kept.
    pub store: StoreUrl,
    /// How long calls and sessions that are over are kept; for ever where it is zero.
    pub store_keep: Duration,
    /// Address of the admin listener; `None`: there is none.
    pub admin: Option<SocketAddr>,
    /// What is logged.
    pub log: Log,
    file: File,
    sources: Sources,
    /// What became of the lines of a coturn file.
    notes: Vec<import::Note>,
}

/// `[credentials]`: who may use the relay.
#[derive(Clone, PartialEq)]
pub struct Credentials {
    /// Secrets of time-limited credentials, newest first.
    pub secrets: Vec<String>,
    /// A file with one secret a line, newest first; read after `secrets`.
    pub secrets_file: Option<PathBuf>,
    /// Lifetime of credentials that are handed out.
    pub ttl: Duration,
    /// An expiry further away than this is refused.
    pub max_ttl: Duration,
    /// End allocations when their credential expires.
    pub strict_expiry: bool,
    /// Keys with which back ends ask for credentials.
    pub api_keys: Vec<String>,
    /// A file with one key a line.
    pub api_keys_file: Option<PathBuf>,
    /// Static users: name to password.
    pub users: BTreeMap<String, String>,
    /// Static users whose password is not known: name to MD5(name ":" realm ":" password).
    pub user_keys: BTreeMap<String, [u8; 16]>,
    /// Ask clients for USERHASH in place of USERNAME (RFC 8489 §9.2).
    pub hide_usernames: bool,
    /// Who may let others in with access tokens.
    pub third_party: Option<ThirdParty>,
}

/// `[credentials.third_party]`: an authorisation server (RFC 7635).
#[derive(Clone, PartialEq)]
pub struct ThirdParty {
    /// The name under which the authorisation server knows this one.
    pub server: String,
    /// Keys by kid, 16 or 32 bytes each.
    pub keys: BTreeMap<String, Vec<u8>>,
}

/// `[peers]`: additions to the built-in rules about who may be relayed to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers {
    /// Networks that may be reached although the deny lists have them.
    pub allow: Vec<Network>,
    /// Networks that may not be reached.
    pub deny: Vec<Network>,
}

/// `[quota]`: most allocations, bytes and connections; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Of one user.
    pub user: u32,
    /// In all.
    pub total: u32,
    /// Bytes a second that are relayed.
    pub bandwidth: Bandwidth,
    /// TCP connections of one source.
    pub connections_per_source: u32,
}

/// `[tls]`: the certificate of HTTPS and TLS listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// There is none.
    #[default]
    Off,
    /// PEM files: certificate chain and private key.
    Files {
        /// The chain, the server's own certificate first.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// A self-signed one, generated and kept in the state directory.
    SelfSigned,
}

/// `[http]`: web page, API and signaling.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Where; empty: nowhere, the router is mounted by the program that embeds this one.
    pub listen: Vec<HttpListener>,
    /// Origins of pages that may call the API and signal; empty: the same origin only, `*`: all.
    pub origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed: address and prefix length.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Requests for credentials a minute of one client.
    pub ice_per_minute: u32,
    /// STUN and TURN servers of others that are handed out as well.
    pub further: Further,
}

/// An HTTP listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpListener {
    /// Whether it speaks TLS.
    pub https: bool,
    /// Whether it takes TURN over TLS on the same port.
    pub turns: bool,
    /// Where.
    pub address: SocketAddr,
}

impl HttpListener {
    /// As it is written in `http.listen`.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match (self.https, self.turns) {
            (_, true) => "https+turns",
            (true, false) => "https",
            (false, false) => "http",
        }
    }
}

/// `[signaling]`: who may signal.
#[derive(Clone, PartialEq)]
pub struct Signaling {
    /// Who may enter; `Open` holds only while every HTTP listener is a loopback one.
    pub access: Access,
    /// Sockets without a token may enter open rooms, on a public listener too.
    pub allow_anonymous: bool,
    /// What tokens are verified with.
    pub jwt: JwtSource,
    /// The `iss` that tokens need, unless empty.
    pub jwt_issuer: String,
    /// The `aud` that tokens need, unless empty.
    pub jwt_audience: String,
    /// Sizes, rates and lifetimes.
    pub limits: Limits,
}

/// Where calls, sessions and what restores them are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// Nowhere: a restart forgets them.
    None,
    /// In a file of the state directory.
    Embedded,
    /// In PostgreSQL, by its URL, which may have a password in it.
    Server(String),
}

/// Who may signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches a loopback listener.
    #[default]
    Open,
    /// Who has a token.
    Token,
}

/// Where the key of signaling tokens comes from.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum JwtSource {
    /// There is none.
    #[default]
    None,
    /// A shared secret (HS256).
    Secret(String),
    /// A file with a shared secret.
    SecretFile(PathBuf),
    /// A shared secret that is generated and kept in the state directory.
    Generate,
    /// A PEM file with the public key of whoever issues tokens.
    PublicKeyFile(PathBuf),
    /// The key set of whoever issues them, in a file or at a URL.
    KeySet(crate::http::jwks::Source),
}

/// `[log]`: what is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or directives such as `info,turnkey::http=debug`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What a configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The TOML file; without one, built-in defaults.
    pub file: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--public`: a name or address under which the world reaches this host.
    pub public: Option<String>,
    /// Environment variables; those of the form `TURNKEY_<SECTION>__<KEY>` override a key, `STUN_SERVER`,
    /// `TURN_SERVER`, `TURN_USERNAME` and `TURN_PASSWORD` stand for keys of `[http]` that are not set.
    pub variables: Vec<(String, String)>,
}

impl Options {
    /// Reads `file`, overridden by this process's environment.
    #[must_use]
    pub fn from_env(file: Option<&Path>) -> Self {
        let variables =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { file: file.map(Path::to_owned), variables: variables.collect(), ..Self::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        values::validate(&File::default(), Sources::default(), None).expect("the built-in defaults are valid")
    }
}

impl Config {
    /// Reads a configuration file and what overrides it.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn load(options: &Options) -> Result<Self, Error> {
        let (name, text) = match &options.file {
            Some(path) => (path.display().to_string(), read_text(path)?),
            None => (String::from("defaults"), String::new()),
        };
        let (table, sources, notes) = match &options.file {
            Some(path) if import::is_coturn(path, &text) => import::Import::read(path, &text)?.into_parts(),
            _ => {
                let (table, sources) = source::parse(&name, &text)?;
                (table, sources, Vec::new())
            }
        };
        let (mut file, mut sources) =
            source::finish(&name, table, sources, options.variables.iter().cloned())?;
        if let Some((_, directory)) =
            options.variables.iter().find(|(name, _)| name == "CREDENTIALS_DIRECTORY")
        {
            secret::use_credentials_directory(&mut file, &mut sources, Path::new(directory));
        }
        further::use_variables(&mut file, &mut sources, &options.variables);
        if let Some(dir) = &options.state_dir {
            file.state_dir = dir.display().to_string();
            sources.set("state_dir", Place::Flag("--state-dir"));
        }
        if let Some(public) = &options.public {
            publish(&mut file, &mut sources, public);
        }
        let base = options.file.as_deref().and_then(Path::parent);
        Ok(Self { notes, ..values::validate(&file, sources, base)? })
    }

    /// Reads a configuration from TOML text, for programs that embed a server.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let (file, sources) = source::read("configuration", text, [])?;
        values::validate(&file, sources, None)
    }

    /// The configuration as TOML, secrets redacted, each value that is not a default with its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        render::render(&self.file.redacted(), &self.sources)
    }

    /// What became of the lines of a coturn file that do something else here; empty for one of ours.
    pub fn notes(&self) -> impl Iterator<Item = &import::Note> {
        self.notes.iter().filter(|note| note.is_warning())
    }

    /// An error about `key`, naming the place where it was set.
    pub(crate) fn error(&self, key: &str, problem: impl Into<String>) -> Error {
        self.sources.error(key, problem)
    }

    /// Whether DTLS listeners are asked for by name, not only there because there is a certificate.
    #[must_use]
    pub fn names_dtls(&self) -> bool {
        let is_dtls = |listener: &RelayListener| listener.transport == Transport::Dtls;
        self.sources.place("relay.listen").is_some() && self.relay.listen.iter().any(is_dtls)
    }

    /// Whether every HTTP listener can be reached from this host only.
    #[must_use]
    pub fn is_loopback_only(&self) -> bool {
        self.http.listen.iter().all(|listener| listener.address.ip().is_loopback())
    }
}

/// `--public`: HTTPS on all addresses, a token key, and the name as the relay's address. What the
/// configuration already says about a certificate, a key or HTTP listeners stays.
fn publish(file: &mut File, sources: &mut Sources, public: &str) {
    let flag = || Place::Flag("--public");
    file.relay.public_address = file::OneOrMany(vec![public.to_owned()]);
    sources.set("relay.public_address", flag());
    if sources.place("http.listen").is_none() {
        file.http.listen =
            vec![format!("https://0.0.0.0:{PUBLIC_PORT}"), format!("https://[::]:{PUBLIC_PORT}")];
        sources.set("http.listen", flag());
    } else {
        for listener in &mut file.http.listen {
            let (scheme, address) = listener.split_once("://").unwrap_or(("", listener.as_str()));
            let scheme = if scheme == "https+turns" { scheme } else { "https" };
            *listener = format!("{scheme}://{address}");
        }
    }
    if file.tls.cert.is_empty() && file.tls.key.is_empty() {
        file.tls.self_signed = true;
        sources.set("tls.self_signed", flag());
    }
    file.signaling.access = "token".into();
    sources.set("signaling.access", flag());
    let jwt = &mut file.signaling;
    if jwt.jwt_secret.is_empty()
        && jwt.jwt_secret_file.is_empty()
        && jwt.jwt_public_key_file.is_empty()
        && jwt.jwks_url.is_empty()
    {
        jwt.jwt_generate = true;
        sources.set("signaling.jwt_generate", flag());
    }
}

/// The port of `--public` where the configuration names none.
pub const PUBLIC_PORT: u16 = 8443;

/// The text of a configuration file. One of coturn may have comments in any encoding.
fn read_text(path: &Path) -> Result<String, Error> {
    let fail = |problem| Error::new(Some(Place::File(path.display().to_string())), "", problem);
    let bytes = std::fs::read(path).map_err(|e| fail(format!("cannot be read: {}", reason(&e))))?;
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => Ok(text.to_owned()),
        Cow::Owned(text) if import::is_coturn(path, &text) => Ok(text),
        Cow::Owned(_) => Err(fail("is not UTF-8 text".into())),
    }
}

/// An I/O error without its number: what went wrong, in words.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
