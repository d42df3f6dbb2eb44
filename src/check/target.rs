//! Which server to check and with which credentials: from the command line, or as a browser would
//! learn it, from `/v1/ice`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::config::address::literal;
use crate::config::{Config, Options};

use super::Args;
use super::report::Problem;

/// Where a server listens when nothing else is said.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// What `/v1/ice` answers (design 2.3).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ice {
    #[serde(rename = "iceServers")]
    pub(super) servers: Vec<IceServer>,
    pub(super) ttl: u64,
    pub(super) expires_at: u64,
}

/// One entry, as `RTCPeerConnection` takes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct IceServer {
    pub(super) urls: Vec<String>,
    pub(super) username: Option<String>,
    pub(super) credential: Option<String>,
}

/// How to talk to the HTTP side.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) url: String,
    pub(super) bearer: Option<String>,
    pub(super) insecure: bool,
    pub(super) patience: Duration,
}

impl Http {
    /// From the command line, else from the configuration, else the default; `None` when only a relay
    /// was named.
    pub(super) fn find(args: &Args, config: Option<&Path>) -> Result<Option<Self>, Problem> {
        let config = match (config, &args.url) {
            (Some(path), None) => {
                let loaded = Config::load(&Options::from_env(Some(path)));
                Some(loaded.map_err(|error| Problem::new(error.to_string(), "correct the configuration"))?)
            }
            _ => None,
        };
        let configured = config.as_ref().and_then(|config| {
            let listener = config.http.listen.first()?;
            let scheme = if listener.https { "https" } else { "http" };
            Some(format!("{scheme}://{}", reachable(listener.address)))
        });
        let url = match (&args.url, configured, &args.server) {
            (Some(url), _, _) => url.clone(),
            (None, Some(url), _) => url,
            (None, None, Some(_)) => return Ok(None),
            (None, None, None) => DEFAULT_URL.to_owned(),
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Problem::new(format!("--url {url}"), "give a URL with http:// or https://"));
        }
        let key = config.and_then(|config| config.credentials.api_keys.into_iter().next());
        Ok(Some(Self {
            url: url.trim_end_matches('/').to_owned(),
            bearer: args.token.clone().or_else(|| args.api_key.clone()).or(key),
            insecure: args.insecure,
            patience: args.timeout,
        }))
    }

    /// Asks for ICE servers. Blocks.
    pub(super) fn ice(&self) -> Result<Ice, Problem> {
        let url = format!("{}/v1/ice", self.url);
        let tls = ureq::tls::TlsConfig::builder().disable_verification(self.insecure).build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(self.patience))
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .into();
        let mut request = agent.get(&url);
        if let Some(bearer) = &self.bearer {
            request = request.header("Authorization", format!("Bearer {bearer}"));
        }
        let mut response = request.call().map_err(|error| unreachable_http(&url, &error))?;
        let status = response.status().as_u16();
        let no_store = response
            .headers()
            .get("cache-control")
            .is_some_and(|value| value.to_str().is_ok_and(|text| text.contains("no-store")));
        let body = response.body_mut().read_to_string().map_err(|error| unreachable_http(&url, &error))?;
        if status != 200 {
            return Err(refused(&url, status, &body));
        }
        if !no_store {
            return Err(Problem::new(
                format!("{url} answers without Cache-Control: no-store"),
                "a cache could hand out stale credentials: is there a proxy that drops the header?",
            ));
        }
        serde_json::from_str(&body).map_err(|error| {
            Problem::new(
                format!("{url} does not answer with ICE servers ({error})"),
                "is this turnkey's HTTP address?",
            )
        })
    }
}

/// A wildcard address cannot be connected to; loopback of the same family can.
fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16]),
        ip => ip,
    };
    format!("{}:{}", literal(ip), address.port())
}

fn unreachable_http(url: &str, error: &ureq::Error) -> Problem {
    let certificate = error.to_string().contains("certificate");
    let advice = match error {
        ureq::Error::Timeout(_) => "is the server running, and does a firewall drop this port?",
        _ if certificate => "is it valid for this name? --insecure accepts a self-signed one",
        _ => "is `turnkey serve` running, and is this its HTTP address? Name another one with --url",
    };
    Problem::new(format!("{url}: {error}"), advice)
}

fn refused(url: &str, status: u16, body: &str) -> Problem {
    let message = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|json| Some(json.pointer("/error/message")?.as_str()?.to_owned()))
        .unwrap_or_default();
    let advice = match status {
        401 | 403 => "give --api-key, or --token with a signaling token",
        404 => "is this turnkey's HTTP address?",
        429 => "too many requests from this address: try again later",
        _ => "look at the server's log",
    };
    let reason = format!("{url} answers {status} {message}");
    Problem::new(reason.trim_end(), advice)
}

/// Where each transport of the relay is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) stun: Option<Endpoint>,
    pub(super) udp: Option<Endpoint>,
    pub(super) tcp: Option<Endpoint>,
    pub(super) tls: Option<Endpoint>,
}

/// A host and port, not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoints {
    /// What was named on the command line: the same port for STUN and TURN, UDP and TCP.
    pub(super) fn named(server: &str) -> Result<Self, Problem> {
        let endpoint = Endpoint::parse(server, 3478).ok_or_else(|| {
            Problem::new(
                format!("--server {server}"),
                "give a host name or an address, with :PORT if not 3478",
            )
        })?;
        let all = || Some(endpoint.clone());
        Ok(Self { stun: all(), udp: all(), tcp: all(), tls: None })
    }

    /// What a list of ICE servers advertises (RFC 7064, RFC 7065); the first of each kind.
    pub(super) fn advertised<'a>(urls: impl Iterator<Item = &'a str>) -> Result<Self, Problem> {
        let mut endpoints = Self::default();
        for url in urls {
            let wrong =
                || Problem::new(format!("{url:?} is no ICE server URL"), "correct relay.public_address");
            let (scheme, rest) = url.split_once(':').ok_or_else(wrong)?;
            let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
            let default_port = if scheme.ends_with('s') { 5349 } else { 3478 };
            let endpoint = Endpoint::parse(address, default_port).ok_or_else(wrong)?;
            let slot = match (scheme, query) {
                ("stun", "") => &mut endpoints.stun,
                ("turn", "" | "transport=udp") => &mut endpoints.udp,
                ("turn", "transport=tcp") => &mut endpoints.tcp,
                ("turns", "" | "transport=tcp") => &mut endpoints.tls,
                _ => return Err(wrong()),
            };
            slot.get_or_insert(endpoint);
        }
        Ok(endpoints)
    }
}

impl Endpoint {
    /// `host`, `host:port`, or an IPv6 address with or without brackets.
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Self { host: ip.to_string(), port: default_port });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, default_port),
        };
        let host = host.trim_matches(['[', ']']);
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }

    /// Its first address of the wanted family; any family if `None`.
    pub(super) async fn resolve(&self, ipv6: Option<bool>) -> Result<SocketAddr, Problem> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut addresses = found.map_err(|error| {
            Problem::new(format!("{} cannot be resolved ({error})", self.host), "is the name in DNS?")
        })?;
        addresses.find(|address| ipv6.is_none_or(|six| address.is_ipv6() == six)).ok_or_else(|| {
            Problem::new(format!("{} has no such address", self.host), "add an address record")
        })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => write!(f, "{}:{}", literal(ip), self.port),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u16) -> Option<Endpoint> {
        Some(Endpoint { host: host.into(), port })
    }

    #[test]
    fn ice_urls_of_each_kind() {
        let urls = [
            "stun:turn.example.org:3478",
            "turn:turn.example.org:3478?transport=udp",
            "turn:turn.example.org?transport=tcp",
            "turns:[2001:db8::1]?transport=tcp",
        ];
        let found = Endpoints::advertised(urls.into_iter()).expect("valid");
        assert_eq!(found.stun, endpoint("turn.example.org", 3478));
        assert_eq!(found.udp, endpoint("turn.example.org", 3478));
        assert_eq!(found.tcp, endpoint("turn.example.org", 3478));
        assert_eq!(found.tls, endpoint("2001:db8::1", 5349));
    }

    #[test]
    fn wrong_ice_urls_are_told() {
        for url in ["", "turn.example.org", "http:x", "turn:x:port", "turn:x?transport=sctp"] {
            assert!(Endpoints::advertised([url].into_iter()).is_err(), "{url}");
        }
    }

    #[test]
    fn servers_on_the_command_line() {
        let named = |text| Endpoints::named(text).ok().and_then(|found| found.udp);
        assert_eq!(named("::1"), endpoint("::1", 3478));
        assert_eq!(named("[::1]:9"), endpoint("::1", 9));
        assert_eq!(named("h:9"), endpoint("h", 9));
        assert_eq!(named("h"), endpoint("h", 3478));
        assert_eq!(named(""), None);
    }
}
