//! From the text of a configuration file to values with a meaning.
//!
//! One function a section. What is decided but not built yet is refused by name, never ignored.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, File};
use super::source::{Error, Sources};
use super::{
    Access, Config, Credentials, Http, HttpListener, JwtSource, Log, LogFormat, Peers, Quota, Relay,
    RelayListener, Signaling, StoreUrl, Tls,
};
use crate::credential::opaque_string;
use crate::http::jwks::Source;
use crate::signal::Limits;
use crate::turn::{Bandwidth, Network, Transport};
use crate::worker::Backend;

/// Checks everything that can be checked without looking at the host. Relative paths count from `base`.
pub(super) fn validate(file: &File, sources: Sources, base: Option<&Path>) -> Result<Config, Error> {
    let check = Check { sources: &sources, base };
    check.unsupported(file)?;
    let tls = check.tls(&file.tls)?;
    let mut file = file.clone();
    // Browsers take no self-signed certificate for `turns:`, whatever exception was made for the page.
    if matches!(tls, Tls::Files { .. }) && sources.place("relay.listen").is_none() {
        file.listen_on_tls();
    }
    let http = check.http(&file.http, &tls)?;
    let config = Config {
        state_dir: check.path(&file.state_dir),
        relay: check.relay(&file.relay, file.quota.total, &tls, &http)?,
        credentials: check.credentials(&file.credentials)?,
        peers: check.peers(&file.peers)?,
        quota: quota(&file.quota),
        http,
        tls,
        signaling: check.signaling(&file.signaling)?,
        store: check.store(&file.store.url)?,
        store_keep: check.duration("store.keep", &file.store.keep)?,
        admin: check.admin(&file.admin)?,
        log: check.log(&file.log)?,
        file,
        sources: Sources::default(),
        notes: Vec::new(),
    };
    Ok(Config { sources, ..config })
}

pub(super) struct Check<'a> {
    sources: &'a Sources,
    base: Option<&'a Path>,
}

impl Check<'_> {
    pub(super) fn fail<T>(&self, key: &str, problem: impl Into<String>) -> Result<T, Error> {
        Err(self.sources.error(key, problem))
    }

    fn path(&self, text: &str) -> Option<PathBuf> {
        let base = self.base.unwrap_or(Path::new(""));
        (!text.is_empty()).then(|| base.join(text))
    }

    /// Keys whose feature this version does not have.
    fn unsupported(&self, file: &File) -> Result<(), Error> {
        let refuse =
            |key: &str, default: &str| self.fail(key, format!("not in this version; leave it at {default}"));
        if !file.cluster.redis.is_empty() {
            return refuse("cluster.redis", "\"\"");
        }
        Ok(())
    }

    fn store(&self, url: &str) -> Result<StoreUrl, Error> {
        match url {
            "none" => Ok(StoreUrl::None),
            "sqlite" => Ok(StoreUrl::Embedded),
            url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Ok(StoreUrl::Server(url.to_owned()))
            }
            // Not repeated: it may have a password in it.
            _ => self.fail("store.url", "expected \"sqlite\", \"postgres://USER@HOST/DATABASE\" or \"none\""),
        }
    }

    fn relay(&self, relay: &file::Relay, total_quota: u32, tls: &Tls, http: &Http) -> Result<Relay, Error> {
        let listen = (relay.listen.iter().enumerate())
            .map(|(i, text)| self.relay_listener(&format!("relay.listen[{i}]"), text, tls))
            .collect::<Result<Vec<_>, _>>()?;
        if listen.is_empty() && !http.listen.iter().any(|listener| listener.turns) {
            return self.fail("relay.listen", "needs at least one address such as \"udp://0.0.0.0:3478\"");
        }
        let max_lifetime = self.duration("relay.max_lifetime", &relay.max_lifetime)?;
        if max_lifetime < Duration::from_secs(600) {
            return self.fail("relay.max_lifetime", "must be at least 10m, the default lifetime of RFC 8656");
        }
        Ok(Relay {
            alternate: self.alternate(&relay.alternate, &listen)?,
            listen,
            public: self.public_addresses(&relay.public_address.0)?,
            detect_from: self.stun_server(&relay.detect_from, &relay.public_address.0)?,
            resolve_every: self.resolve_every(&relay.resolve_every)?,
            ports: self.ports(relay, total_quota)?,
            realm: self.realm(&relay.realm)?,
            workers: self.workers(relay.workers)?,
            backend: self.one_of(
                "relay.backend",
                &relay.backend,
                &[("auto", Backend::Auto), ("linux", Backend::Linux), ("portable", Backend::Portable)],
            )?,
            offload: self.offload(relay)?,
            legacy_channels: relay.legacy_channels,
            tcp: relay.tcp,
            mobility: relay.mobility,
            max_lifetime,
            drain_timeout: self.duration("relay.drain_timeout", &relay.drain_timeout)?,
            proxy_from: self.networks("relay.proxy_from", &relay.proxy_from)?,
            tcp_connections: self.at_least_one("relay.tcp_connections", relay.tcp_connections)?,
            socket_buffer: self.socket_buffer(relay.socket_buffer)?,
            unauthenticated_rate: relay.unauthenticated_rate,
            redirect: self.redirect(&relay.redirect)?,
        })
    }

    fn relay_listener(&self, key: &str, text: &str, tls: &Tls) -> Result<RelayListener, Error> {
        let forms = "\"udp://ADDRESS:PORT\", tcp://, tls:// or dtls://";
        let Some((scheme, address)) = text.split_once("://") else {
            return self.fail(key, format!("expected {forms}, found \"{text}\""));
        };
        let transport = match scheme {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" | "dtls" if *tls == Tls::Off => return self.no_certificate(key, scheme),
            "tls" => Transport::Tls,
            "dtls" => Transport::Dtls,
            "https+turns" => {
                return self.fail(key, "https+turns:// is for http.listen: the port is shared with HTTPS");
            }
            _ => return self.fail(key, format!("expected {forms}, found \"{text}\"")),
        };
        Ok(RelayListener { transport, address: self.socket_address(key, address)? })
    }

    fn no_certificate<T>(&self, key: &str, scheme: &str) -> Result<T, Error> {
        let problem = "needs a certificate: set tls.cert and tls.key, or tls.self_signed = true";
        self.fail(key, format!("{scheme}:// {problem}"))
    }

    pub(super) fn socket_address(&self, key: &str, text: &str) -> Result<SocketAddr, Error> {
        text.parse().or_else(|_| {
            self.fail(
                key,
                format!("expected an address and port such as 0.0.0.0:3478 or [::]:3478, found \"{text}\""),
            )
        })
    }

    fn realm(&self, realm: &str) -> Result<String, Error> {
        let is_allowed = |c: char| !c.is_control() && c != '"' && c != '\\';
        if realm.is_empty() || realm.chars().count() > 127 || !realm.chars().all(is_allowed) {
            return self.fail(
                "relay.realm",
                "must be 1 to 127 characters without quotes, backslashes and control characters",
            );
        }
        match opaque_string(realm) {
            Some(realm) => Ok(realm.into_owned()),
            None => self.fail("relay.realm", "has characters that no realm may have (RFC 8265)"),
        }
    }

    fn workers(&self, workers: u16) -> Result<usize, Error> {
        if workers > MAX_WORKERS {
            return self.fail("relay.workers", format!("must be at most {MAX_WORKERS}; 0 means one a core"));
        }
        Ok(usize::from(workers))
    }

    fn socket_buffer(&self, bytes: u32) -> Result<usize, Error> {
        if !(1 << 14..=1 << 30).contains(&bytes) {
            return self.fail("relay.socket_buffer", "must be between 16384 and 1073741824 bytes");
        }
        Ok(bytes as usize)
    }

    fn credentials(&self, credentials: &file::Credentials) -> Result<Credentials, Error> {
        let ttl = self.duration("credentials.ttl", &credentials.ttl)?;
        let max_ttl = self.duration("credentials.max_ttl", &credentials.max_ttl)?;
        if ttl.is_zero() {
            return self.fail("credentials.ttl", "must not be zero");
        }
        if ttl > max_ttl {
            return self.fail(
                "credentials.ttl",
                "is longer than credentials.max_ttl: its credentials would be refused",
            );
        }
        for (name, password) in &credentials.users {
            if name.is_empty() || name.len() > 508 || name.contains(|c: char| c == ':' || c.is_control()) {
                let problem =
                    format!("user name \"{name}\" must be 1 to 508 bytes without : and control characters");
                return self.fail(&format!("credentials.users.{name}"), problem);
            }
            if password.is_empty() {
                return self.fail(&format!("credentials.users.{name}"), "has an empty password");
            }
        }
        let opaque = |text| opaque_string(text).is_some();
        if let Some((name, _)) = credentials.users.iter().find(|(n, p)| !opaque(n) || !opaque(p)) {
            let problem = "name or password has characters that neither may have (RFC 8265)";
            return self.fail(&format!("credentials.users.{name}"), problem);
        }
        self.no_empty("credentials.secrets", &credentials.secrets)?;
        self.no_empty("credentials.api_keys", &credentials.api_keys)?;
        Ok(Credentials {
            secrets: credentials.secrets.clone(),
            secrets_file: self.path(&credentials.secrets_file),
            ttl,
            max_ttl,
            strict_expiry: credentials.strict_expiry,
            api_keys: credentials.api_keys.clone(),
            api_keys_file: self.path(&credentials.api_keys_file),
            users: credentials.users.clone(),
            user_keys: self.user_keys(credentials)?,
            hide_usernames: credentials.hide_usernames,
            third_party: self.third_party(&credentials.third_party)?,
        })
    }

    /// `credentials.user_keys = { NAME = "32 hexadecimal digits" }`
    fn user_keys(&self, credentials: &file::Credentials) -> Result<BTreeMap<String, [u8; 16]>, Error> {
        let key = |(name, text): (&String, &String)| {
            let path = format!("credentials.user_keys.{name}");
            if credentials.users.contains_key(name) {
                return self.fail(&path, "has a password in credentials.users too");
            }
            let bits = Some(text).filter(|text| text.len() == 32 && !text.starts_with('+'));
            match bits.and_then(|text| u128::from_str_radix(text, 16).ok()) {
                Some(bits) => Ok((name.clone(), bits.to_be_bytes())),
                None => self.fail(&path, "expected 32 hexadecimal digits, MD5 of NAME:REALM:PASSWORD"),
            }
        };
        credentials.user_keys.iter().map(key).collect()
    }

    fn no_empty(&self, key: &str, list: &[String]) -> Result<(), Error> {
        match list.iter().position(String::is_empty) {
            Some(i) => self.fail(&format!("{key}[{i}]"), "must not be empty"),
            None => Ok(()),
        }
    }

    fn peers(&self, peers: &file::Peers) -> Result<Peers, Error> {
        Ok(Peers {
            allow: self.networks("peers.allow", &peers.allow)?,
            deny: self.networks("peers.deny", &peers.deny)?,
        })
    }

    fn networks(&self, key: &str, texts: &[String]) -> Result<Vec<Network>, Error> {
        let network = |(i, text): (usize, &String)| {
            let wrong = |e| self.sources.error(&format!("{key}[{i}]"), format!("\"{text}\": {e}"));
            text.parse().map_err(wrong)
        };
        texts.iter().enumerate().map(network).collect()
    }

    fn proxies(&self, texts: &[String]) -> Result<Vec<(IpAddr, u8)>, Error> {
        let networks = self.networks("http.trusted_proxies", texts)?;
        Ok(networks.iter().map(|network| (network.base(), network.prefix())).collect())
    }

    fn tls(&self, tls: &file::Tls) -> Result<Tls, Error> {
        match (self.path(&tls.cert), self.path(&tls.key)) {
            (Some(_), Some(_)) if tls.self_signed => {
                self.fail("tls.self_signed", "tls.cert is set too; only one of them can be the certificate")
            }
            (Some(cert), Some(key)) => Ok(Tls::Files { cert, key }),
            (Some(_), None) => self.fail("tls.cert", "needs its private key in tls.key"),
            (None, Some(_)) => self.fail("tls.key", "needs its certificate in tls.cert"),
            (None, None) if tls.self_signed => Ok(Tls::SelfSigned),
            (None, None) => Ok(Tls::Off),
        }
    }

    fn http(&self, http: &file::Http, tls: &Tls) -> Result<Http, Error> {
        let listen = (http.listen.iter().enumerate())
            .map(|(i, text)| self.http_listener(&format!("http.listen[{i}]"), text, tls))
            .collect::<Result<Vec<_>, _>>()?;
        for (i, origin) in http.origins.iter().enumerate() {
            if origin != "*" && !is_origin(origin) {
                let problem = format!(
                    "expected an origin such as \"https://app.example.org\" or \"*\", found \"{origin}\""
                );
                return self.fail(&format!("http.origins[{i}]"), problem);
            }
        }
        Ok(Http {
            listen,
            origins: http.origins.clone(),
            trusted_proxies: self.proxies(&http.trusted_proxies)?,
            ice_per_minute: http.ice_per_minute,
            further: self.further(http)?,
            max_connections: self.at_least_one("http.max_connections", http.max_connections)?,
        })
    }

    fn http_listener(&self, key: &str, text: &str, tls: &Tls) -> Result<HttpListener, Error> {
        let has_certificate = *tls != Tls::Off;
        let (https, turns, address) = match text.split_once("://") {
            Some(("http", address)) => (false, false, address),
            Some(("https", address)) if has_certificate => (true, false, address),
            Some(("https+turns", address)) if has_certificate => (true, true, address),
            Some((scheme @ ("https" | "https+turns"), _)) => return self.no_certificate(key, scheme),
            Some((scheme, _)) => {
                let problem = format!("expected http://, https:// or https+turns://, found {scheme}://");
                return self.fail(key, problem);
            }
            None => (has_certificate, false, text),
        };
        Ok(HttpListener { https, turns, address: self.socket_address(key, address)? })
    }

    fn signaling(&self, signaling: &file::Signaling) -> Result<Signaling, Error> {
        let mut sources = Vec::new();
        if !signaling.jwt_secret.is_empty() {
            sources.push(("signaling.jwt_secret", JwtSource::Secret(signaling.jwt_secret.clone())));
        }
        if let Some(path) = self.path(&signaling.jwt_secret_file) {
            sources.push(("signaling.jwt_secret_file", JwtSource::SecretFile(path)));
        }
        if let Some(path) = self.path(&signaling.jwt_public_key_file) {
            sources.push(("signaling.jwt_public_key_file", JwtSource::PublicKeyFile(path)));
        }
        if !signaling.jwks_url.is_empty() {
            let url = &signaling.jwks_url;
            let source = match url.split_once("://") {
                Some(("https" | "http", _)) => Source::Url(url.clone()),
                Some(("file", path)) => Source::File(path.into()),
                Some(_) => return self.fail("signaling.jwks_url", "expected https://, http:// or a path"),
                None => Source::File(self.path(url).unwrap_or_default()),
            };
            sources.push(("signaling.jwks_url", JwtSource::KeySet(source)));
        }
        if signaling.jwt_generate {
            sources.push(("signaling.jwt_generate", JwtSource::Generate));
        }
        if let [(first, _), (second, _), ..] = sources.as_slice() {
            return self
                .fail(second, format!("{first} is set too; only one of them can be the key of tokens"));
        }
        Ok(Signaling {
            access: self.one_of(
                "signaling.access",
                &signaling.access,
                &[("open", Access::Open), ("token", Access::Token)],
            )?,
            allow_anonymous: signaling.allow_anonymous,
            jwt: sources.pop().map_or(JwtSource::None, |(_, source)| source),
            jwt_issuer: signaling.jwt_issuer.clone(),
            jwt_audience: signaling.jwt_audience.clone(),
            limits: self.limits(signaling)?,
        })
    }

    fn limits(&self, signaling: &file::Signaling) -> Result<Limits, Error> {
        let number = |key: &str, number| self.at_least_one(&format!("signaling.{key}"), number);
        let rate =
            number("frames_per_second", signaling.frames_per_second).map(|_| signaling.frames_per_second)?;
        let frame = number("frame_size", signaling.frame_size)?;
        if !(16 << 10..=16 << 20).contains(&frame) {
            return self.fail("signaling.frame_size", "must be between 16384 and 16777216 bytes");
        }
        number("connects_per_minute", signaling.connects_per_minute)?;
        let default = Limits::default();
        Ok(Limits {
            members: number("room_members", signaling.room_members)?,
            rooms: number("rooms", signaling.rooms)?,
            sessions: number("sessions", signaling.sessions)?,
            sockets_per_ip: number("sockets_per_address", signaling.sockets_per_address)?,
            connects_per_minute: signaling.connects_per_minute,
            frame_rate: rate,
            frame_burst: rate.saturating_mul(default.frame_burst / default.frame_rate),
            frame,
            resume_window: self.duration("signaling.resume_window", &signaling.resume_window)?,
            mail_ttl: self.duration("signaling.offer_ttl", &signaling.offer_ttl)?,
            ..default
        })
    }

    fn admin(&self, admin: &file::Admin) -> Result<Option<SocketAddr>, Error> {
        if admin.listen.is_empty() {
            return Ok(None);
        }
        self.socket_address("admin.listen", &admin.listen).map(Some)
    }

    fn log(&self, log: &file::Log) -> Result<Log, Error> {
        let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let is_directive =
            |word: &str| is_level(word) || word.split_once('=').is_some_and(|(_, level)| is_level(level));
        if !log.level.split(',').all(|word| is_directive(word.trim())) {
            let problem = format!(
                "expected off, error, warn, info, debug or trace, or a list such as \
                 \"info,turnkey::http=debug\"; found \"{}\"",
                log.level
            );
            return self.fail("log.level", problem);
        }
        let format =
            self.one_of("log.format", &log.format, &[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
        Ok(Log { level: log.level.clone(), format })
    }

    pub(super) fn one_of<T: Copy>(&self, key: &str, text: &str, choices: &[(&str, T)]) -> Result<T, Error> {
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                self.fail(key, format!("expected {}, found \"{text}\"", names.join(" or ")))
            }
        }
    }

    fn at_least_one(&self, key: &str, number: u32) -> Result<usize, Error> {
        if number == 0 { self.fail(key, "must be at least 1") } else { Ok(number as usize) }
    }

    pub(super) fn duration(&self, key: &str, text: &str) -> Result<Duration, Error> {
        parse_duration(text).map_err(|problem| self.sources.error(key, problem))
    }
}

const MAX_WORKERS: u16 = 256;

pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && !is_numeric && name.split('.').all(is_label)
}

fn quota(file: &file::Quota) -> Quota {
    let bandwidth = Bandwidth {
        allocation: file.allocation_bytes_per_second,
        user: file.user_bytes_per_second,
        total: file.total_bytes_per_second,
    };
    let connections_per_source = file.connections_per_source;
    Quota { user: file.user, total: file.total, bandwidth, connections_per_source }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let is_scheme =
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'+');
    is_scheme && !host.is_empty() && !host.contains(['/', '?', '#', ' '])
}

/// Reads a duration such as `90s`, `15m`, `1h30m` or `7d`.
///
/// # Errors
/// What is allowed, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("expected a duration such as \"90s\", \"15m\", \"1h30m\" or \"7d\", found \"{text}\"");
    let mut rest = text;
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes().get(digits) {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86400,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(unit).and_then(|n| n.checked_add(seconds)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    let longest = 100 * 365 * 86400;
    if text.is_empty() || seconds > longest { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}
