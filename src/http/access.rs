//! Who may ask: the client's address, the Host and Origin tests, and the credentials a request
//! carries.
//!
//! In [`Access::Open`] the server trusts the person at its own machine and nobody else. Its
//! listeners are bound to loopback, so what remains are pages of other sites in that person's
//! browser (they show a foreign Origin), names that resolve to 127.0.0.1 (they show a foreign Host)
//! and proxies (they add a header). A request that passes all three tests is that person's own: it
//! gets relay credentials from `/v1/ice` and in the welcome, so that one command and one page make
//! a call. Everything else without a token gets 403, and the sentence that says what to set.

use std::hash::{BuildHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::{
    AUTHORIZATION, COOKIE, FORWARDED, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL, USER_AGENT, VIA,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use subtle::ConstantTimeEq as _;

use super::app::App;
use super::settings::{Access, Settings};
use super::token::TokenError;
use crate::signal::{ClientKey, Identity};

/// What a refused request is told.
pub(super) const SET_A_KEY: &str =
    "open access answers only this machine: set signaling.jwt_secret, or start with --public";

/// The name of the cookie that tells two browsers behind one address apart.
pub(super) const COOKIE_NAME: &str = "turnkey_client";

/// The name of the cookie in which a page that sends no header (seed 004) may carry its token to the
/// REST endpoints. The Origin of a request with it is checked as of any other.
const TOKEN_COOKIE: &str = "turnkey_token";

/// Prefix of the subprotocol that carries a token.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// A request, as far as access is concerned.
pub(super) struct Asker<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) query: &'a Query,
    pub(super) peer: SocketAddr,
}

/// A request's [`Asker`], taken out of it; the settings are those it is judged by throughout.
pub(super) struct Question {
    pub(super) settings: Arc<Settings>,
    headers: HeaderMap,
    pub(super) query: Query,
    peer: SocketAddr,
}

impl Question {
    pub(super) fn asker(&self) -> Asker<'_> {
        Asker { headers: &self.headers, query: &self.query, peer: self.peer }
    }
}

impl Question {
    /// What a request asks, by its head.
    pub(super) fn of(parts: &Parts, app: &App) -> Result<Self, StatusCode> {
        // Present unless somebody mounts the router without it.
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let ConnectInfo(peer) = *peer.ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        let query = Query::of(&parts.uri);
        Ok(Self { settings: app.settings(), headers: parts.headers.clone(), query, peer })
    }
}

impl FromRequestParts<Arc<App>> for Question {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, StatusCode> {
        Self::of(parts, app)
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The page is from somewhere else.
    Origin,
    /// Open access, but not this machine.
    NotLocal,
    /// A token is needed and there is none.
    NoToken,
    /// The token is refused.
    Token(TokenError),
    /// The API key is unknown.
    ApiKey,
}

/// Query parameters, decoded. Never logged: they may carry tokens.
#[derive(Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let text = uri.query().unwrap_or_default();
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    /// A parameter that says something.
    pub(super) fn find(&self, key: &str) -> Option<&str> {
        self.given(key).filter(|v| !v.is_empty())
    }

    /// A parameter, which may be empty.
    pub(super) fn given(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// Percent-decoding of one query part; `+` is a space.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        let escaped = hex.filter(|_| bytes[at] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Asker<'_> {
    /// The client's address: the socket's peer, or what a trusted proxy says it is.
    pub(super) fn ip(&self, settings: &Settings) -> IpAddr {
        let trusted = |ip: IpAddr| settings.trusted_proxies.iter().any(|net| is_within(ip, *net));
        let peer = self.peer.ip().to_canonical();
        if !trusted(peer) {
            return peer;
        }
        let hops = self.headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok());
        let hops: Vec<IpAddr> =
            hops.flat_map(|v| v.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
        hops.into_iter().rev().map(|ip| ip.to_canonical()).find(|ip| !trusted(*ip)).unwrap_or(peer)
    }

    /// Whether the page that asks may: same origin, listed, or no page at all.
    pub(super) fn is_origin_allowed(&self, settings: &Settings) -> bool {
        match self.text(&ORIGIN) {
            None => true,
            Some(origin) => is_origin_allowed(settings, origin, self.text(&HOST)),
        }
    }

    /// Whether this is the person at this machine, see the module's header.
    fn is_local(&self) -> bool {
        const PROXY: [&str; 4] = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];
        let has_proxy = self.headers.contains_key(FORWARDED)
            || self.headers.contains_key(VIA)
            || PROXY.iter().any(|name| self.headers.contains_key(*name));
        // Also where the router is mounted on a listener of somebody else's.
        let is_loopback_peer = self.peer.ip().to_canonical().is_loopback();
        is_loopback_peer && !has_proxy && self.text(&HOST).is_some_and(is_loopback_host)
    }

    /// The token, wherever it travels.
    pub(super) fn token(&self) -> Option<&str> {
        let protocols = self.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
        let in_protocol =
            protocols.flat_map(|v| v.split(',')).find_map(|p| p.trim().strip_prefix(BEARER_SUBPROTOCOL));
        self.bearer().or_else(|| self.query.find("token")).or(in_protocol)
    }

    fn bearer(&self) -> Option<&str> {
        let value = self.text(&AUTHORIZATION)?;
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim()).filter(|t| !t.is_empty())
    }

    /// Who may open a signaling socket; `None` where a token may still come in `hello`.
    pub(super) fn signaling(&self, settings: &Settings, now_unix: u64) -> Result<Option<Identity>, Denied> {
        self.signaling_with(self.token(), settings, now_unix)
    }

    /// As [`Self::signaling`], for a PeerJS client: without a token of its own it makes up a random word.
    pub(super) fn peerjs(&self, settings: &Settings, now_unix: u64) -> Result<Option<Identity>, Denied> {
        self.signaling_with(self.token().filter(|token| token.contains('.')), settings, now_unix)
    }

    fn signaling_with(
        &self,
        token: Option<&str>,
        settings: &Settings,
        now_unix: u64,
    ) -> Result<Option<Identity>, Denied> {
        if !self.is_origin_allowed(settings) {
            return Err(Denied::Origin);
        }
        if let Some(token) = token {
            return check(settings, token, now_unix).map(Some);
        }
        match (settings.access, settings.allow_anonymous) {
            (_, true) => Ok(Some(self.guest(settings))),
            (Access::Open, false) if self.is_local() => Ok(Some(Identity::guest("guest", true))),
            (Access::Open, false) => Err(Denied::NotLocal),
            (Access::Token, false) => Ok(None),
        }
    }

    /// The user a token names; nobody else.
    pub(super) fn user(&self, settings: &Settings, now_unix: u64) -> Result<Identity, Denied> {
        if !self.is_origin_allowed(settings) {
            return Err(Denied::Origin);
        }
        let token = self.token().or_else(|| self.cookie(TOKEN_COOKIE)).ok_or(Denied::NoToken)?;
        no_ticket(check(settings, token, now_unix)?)
    }

    /// The URL of a path on the server as this client reached it.
    pub(super) fn http_url(&self, settings: &Settings, path: &str) -> String {
        let scheme = if settings.secure { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.text(&HOST).unwrap_or("localhost"))
    }

    /// The URL of a socket on the server as this client reached it.
    pub(super) fn ws_url(&self, settings: &Settings, path: &str) -> String {
        let scheme = if settings.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{path}", self.text(&HOST).unwrap_or("localhost"))
    }

    /// The API key, if there is a right one: as `X-Api-Key` or in place of a token.
    pub(super) fn api_key(&self, settings: &Settings) -> Option<Result<Identity, Denied>> {
        if let Some(key) = self.text(&HeaderName::from_static("x-api-key")) {
            return Some(self.back_end(settings, key));
        }
        self.token().and_then(|token| self.back_end(settings, token).ok()).map(Ok)
    }

    /// Who may have credentials over HTTP without an API key.
    pub(super) fn credentials(&self, settings: &Settings, now_unix: u64) -> Result<Identity, Denied> {
        match self.signaling(settings, now_unix)? {
            Some(identity) => no_ticket(identity),
            None => Err(Denied::NoToken),
        }
    }

    /// A back end with an API key, for the user it names.
    pub(super) fn back_end(&self, settings: &Settings, key: &str) -> Result<Identity, Denied> {
        let mut is_known = false;
        for known in &settings.api_keys {
            is_known |= !known.is_empty() && bool::from(known.as_bytes().ct_eq(key.as_bytes()));
        }
        if !is_known {
            return Err(Denied::ApiKey);
        }
        let user = self.query.find("username").or_else(|| self.query.find("user")).unwrap_or("api");
        Ok(Identity::member(user.chars().take(128).collect::<String>()))
    }

    /// Somebody without a token where that is allowed. The user is the address, so that quotas hold.
    fn guest(&self, settings: &Settings) -> Identity {
        let ip = crate::signal::client_key(self.ip(settings));
        let name = ip.to_string().replace([':', '.'], "-");
        Identity::guest(format!("guest-{name}"), true)
    }

    /// What tells raw sockets of one client from those of others.
    pub(super) fn client_key(
        &self,
        settings: &Settings,
        identity: Option<&Identity>,
        hasher: &impl BuildHasher,
    ) -> ClientKey {
        let mut traits = hasher.build_hasher();
        crate::signal::client_key(self.ip(settings)).hash(&mut traits);
        self.text(&USER_AGENT).hash(&mut traits);
        self.text(&ORIGIN).hash(&mut traits);
        ClientKey {
            user: identity.filter(|i| i.names_a_person()).map(|i| i.user.clone()),
            declared: self.query.find("client").map(|c| c.chars().take(64).collect::<String>().into()),
            cookie: self.client_cookie().map(Into::into),
            issued: None,
            traits: traits.finish(),
            is_browser: self.headers.contains_key(ORIGIN),
        }
    }

    /// The cookie of an earlier socket.
    fn client_cookie(&self) -> Option<&str> {
        self.cookie(COOKIE_NAME).filter(|value| value.len() <= 64)
    }

    fn cookie(&self, wanted: &str) -> Option<&str> {
        let cookies = self.headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok());
        cookies.flat_map(|v| v.split(';')).find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == wanted && !value.is_empty()).then_some(value)
        })
    }

    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

/// Checks a JWT.
pub(super) fn check(settings: &Settings, token: &str, now_unix: u64) -> Result<Identity, Denied> {
    let key = settings.jwt.as_ref().ok_or(Denied::Token(TokenError::NoKey))?;
    key.check(token, now_unix).map_err(Denied::Token)
}

/// A ticket is for a socket: only the hub knows whether it was used.
pub(super) fn no_ticket(identity: Identity) -> Result<Identity, Denied> {
    if identity.ticket.is_some() { Err(Denied::Token(TokenError::Ticket)) } else { Ok(identity) }
}

/// Whether a page of `origin` may talk to the server it reached as `host`.
pub(super) fn is_origin_allowed(settings: &Settings, origin: &str, host: Option<&str>) -> bool {
    let listed =
        settings.origins.iter().any(|o| o == "*" || o.trim_end_matches('/').eq_ignore_ascii_case(origin));
    if listed {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    if host.is_some_and(|host| bare(host) == bare(authority)) {
        return true;
    }
    let name = host_name(authority);
    settings.public_host_names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The host without its port.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => authority,
    }
}

/// `localhost` or a loopback literal, with or without a port.
fn is_loopback_host(host: &str) -> bool {
    let name = host_name(host);
    let literal = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || literal.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn is_within(ip: IpAddr, (net, prefix): (IpAddr, u8)) -> bool {
    fn common(a: u128, b: u128, width: u32, prefix: u8) -> bool {
        let shift = width.saturating_sub(u32::from(prefix));
        shift >= 128 || a >> shift == b >> shift
    }
    match (ip, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => common(u32::from(a).into(), u32::from(b).into(), 32, prefix),
        (IpAddr::V6(a), IpAddr::V6(b)) => common(a.into(), b.into(), 128, prefix),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

impl Denied {
    /// The stable word and the sentence for it.
    pub(super) fn words(&self) -> (&'static str, String) {
        match self {
            Self::Origin => {
                ("forbidden_origin", "pages of this origin may not: add it to http.origins".into())
            }
            Self::NotLocal => ("forbidden", SET_A_KEY.into()),
            Self::NoToken => ("unauthenticated", "a token or an API key is needed".into()),
            Self::Token(error) => ("unauthenticated", error.to_string()),
            Self::ApiKey => ("unauthenticated", "the API key is not known here".into()),
        }
    }

    /// Whether more of the same client's credentials would help.
    pub(super) fn is_authentication(&self) -> bool {
        match self {
            Self::NoToken | Self::Token(_) | Self::ApiKey => true,
            Self::Origin | Self::NotLocal => false,
        }
    }
}

/// The id of a credential: what the relay's user names cannot hold is escaped.
pub(super) fn relay_id(user: &str, session: &str) -> String {
    let mut escaped = String::with_capacity(user.len());
    for character in user.chars() {
        if character == ':' || character == '%' || character.is_control() {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        } else {
            escaped.push(character);
        }
    }
    crate::credential::id(&escaped, (!session.is_empty()).then_some(session))
}

/// The user in an id that [`relay_id`] made.
pub(super) fn user_of(escaped: &str) -> String {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A name for a guest's session, so that quotas count each on its own.
pub(super) fn guest_name(user: &Arc<str>, session: &str) -> String {
    format!("{user}-{}", &session[..session.len().min(8)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_origin_has_the_same_host_and_port() {
        let settings = Settings::default();
        let same = |origin: &str, host: &str| is_origin_allowed(&settings, origin, Some(host));
        assert!(same("http://localhost:8080", "localhost:8080"));
        assert!(same("https://Example.org", "example.org"));
        assert!(same("https://example.org", "example.org:443"));
        assert!(same("http://[::1]:8080", "[::1]:8080"));
        assert!(!same("http://localhost:8081", "localhost:8080"));
        assert!(!same("https://example.org.evil", "example.org"));
        assert!(!same("https://example.org", "example.org:80"));
        assert!(!same("null", "localhost:8080"));
        assert!(!is_origin_allowed(&settings, "http://localhost", None));
    }

    #[test]
    fn listed_origins_and_public_names_are_allowed() {
        let settings = Settings {
            origins: vec!["http://localhost:5173/".into()],
            public_host_names: vec!["turn.example.org".into()],
            ..Settings::default()
        };
        let allowed = |origin: &str| is_origin_allowed(&settings, origin, Some("127.0.0.1:8080"));
        assert!(allowed("http://localhost:5173"));
        assert!(allowed("https://turn.example.org"));
        assert!(!allowed("http://localhost:5174"));
        assert!(!allowed("https://example.org"));
    }

    #[test]
    fn loopback_hosts_are_literals_or_localhost() {
        for host in
            ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "[::ffff:127.0.0.1]:1"]
        {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in
            ["localhost.evil.example", "127.0.0.1.nip.io", "192.0.2.1", "", "[::2]", "localhost:80:80"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let uri: Uri = "/turn?username=a%20b+c&key=%2B&empty=&flag&bad=%zz%e2%82".parse().expect("uri");
        let query = Query::of(&uri);
        assert_eq!(query.find("username"), Some("a b c"));
        assert_eq!(query.find("key"), Some("+"));
        assert_eq!((query.find("empty"), query.find("flag"), query.find("none")), (None, None, None));
        assert!(query.find("bad").is_some_and(|b| b.starts_with("%zz")));
    }

    #[test]
    fn networks_are_compared_by_their_prefix() {
        let net = |text: &str, prefix| (text.parse::<IpAddr>().expect("address"), prefix);
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        assert!(is_within(ip("10.9.9.9"), net("10.0.0.0", 8)));
        assert!(!is_within(ip("11.0.0.0"), net("10.0.0.0", 8)));
        assert!(is_within(ip("203.0.113.9"), net("0.0.0.0", 0)));
        assert!(is_within(ip("2001:db8::9"), net("2001:db8::", 32)));
        assert!(is_within(ip("2001:db8::9"), net("::", 0)));
        assert!(!is_within(ip("10.0.0.1"), net("::", 0)));
    }

    #[test]
    fn ids_of_credentials_hold_no_colon_and_keep_users_apart() {
        assert_eq!(relay_id("ann", "0123"), "ann.0123");
        assert_eq!(relay_id("a:b", ""), "a%3Ab");
        assert_ne!(relay_id("a:b", ""), relay_id("a%3Ab", ""));
        assert_eq!(relay_id("a\nb", ""), "a%0Ab");
        for user in ["ann", "a:b", "a%3Ab", "100%", "é:\u{85}\n", ""] {
            assert_eq!(user_of(&relay_id(user, "")), user);
        }
        assert_eq!(user_of("50% off %"), "50% off %", "a name of other makers");
    }
}
