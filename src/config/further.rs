//! STUN and TURN servers of others, which are handed out after this one's: keys of `[http]`, or the variables that
//! seed 004 reads.

use std::fmt;
use std::net::Ipv6Addr;

use super::file::{File, Http};
use super::source::{Error, Place, Sources};
use super::values::Check;

/// Servers of others.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Further {
    /// `stun:` URLs.
    pub stun: Vec<String>,
    /// `turn:` and `turns:` URLs.
    pub turn: Vec<String>,
    /// The user name at the TURN servers.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Further {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Further").field("stun", &self.stun).field("turn", &self.turn).finish_non_exhaustive()
    }
}

/// Lets the variables stand for keys that are not set.
pub(super) fn use_variables(file: &mut File, sources: &mut Sources, variables: &[(String, String)]) {
    let http = &mut file.http;
    for (name, key, slot) in [
        ("STUN_SERVER", "http.stun_server", &mut http.stun_server),
        ("TURN_SERVER", "http.turn_server", &mut http.turn_server),
        ("TURN_USERNAME", "http.turn_username", &mut http.turn_username),
        ("TURN_PASSWORD", "http.turn_password", &mut http.turn_password),
    ] {
        let variable = variables.iter().find(|(known, value)| known == name && !value.is_empty());
        if let (Some((_, value)), None) = (variable, sources.own_place(key)) {
            slot.clone_from(value);
            sources.set(key, Place::Variable(name.into()));
        }
    }
}

impl Check<'_> {
    /// `http.stun_server` and the keys of `http.turn_server`.
    pub(super) fn further(&self, http: &Http) -> Result<Further, Error> {
        let further = Further {
            stun: self.ice_urls("http.stun_server", &http.stun_server, ["stun", "stuns"])?,
            turn: self.ice_urls("http.turn_server", &http.turn_server, ["turn", "turns"])?,
            username: http.turn_username.clone(),
            password: http.turn_password.clone(),
        };
        // Without one of them `new RTCPeerConnection` throws.
        for (key, value) in
            [("http.turn_username", &further.username), ("http.turn_password", &further.password)]
        {
            if value.is_empty() && !further.turn.is_empty() {
                return self.fail(key, "is needed beside http.turn_server (TURN_USERNAME, TURN_PASSWORD)");
            }
        }
        Ok(further)
    }

    /// URLs separated by commas; without a scheme they get the first of `schemes`.
    fn ice_urls(&self, key: &str, text: &str, schemes: [&str; 2]) -> Result<Vec<String>, Error> {
        let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
        let url = |url: &str| {
            let has_scheme = schemes.iter().any(|s| url.strip_prefix(s).is_some_and(|r| r.starts_with(':')));
            let url = if has_scheme { url.to_owned() } else { format!("{}:{url}", schemes[0]) };
            if is_ice_url(&url) { Ok(url) } else { self.fail(key, problem(schemes[0])) }
        };
        urls.map(url).collect()
    }
}

fn problem(scheme: &str) -> String {
    format!("expected URLs such as {scheme}:{scheme}.example.org:3478, separated by commas")
}

/// `scheme:host[:port][?transport=udp|tcp]` (RFC 7064 §3.1, RFC 7065 §3.1).
fn is_ice_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once(':') else { return false };
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let is_query = match query {
        None => true,
        Some(query) => scheme.starts_with("turn") && matches!(query, "transport=udp" | "transport=tcp"),
    };
    let (host, port, is_host) = if let Some(bracketed) = place.strip_prefix('[') {
        let Some((host, port)) = bracketed.split_once(']') else { return false };
        (host, port, host.parse::<Ipv6Addr>().is_ok())
    } else {
        let (host, port) = place.split_at(place.find(':').unwrap_or(place.len()));
        (host, port, host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)))
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    is_query && is_port && is_host && !host.is_empty()
}

#[cfg(test)]
mod tests {
    use super::is_ice_url;

    #[test]
    fn urls_are_those_of_rfc_7064_and_7065() {
        for good in [
            "stun:stun.l.google.com:19302",
            "turn:h",
            "turns:[2001:db8::1]:5349?transport=tcp",
            "turn:192.0.2.1:3478?transport=udp",
        ] {
            assert!(is_ice_url(good), "{good}");
        }
        for bad in [
            "stun:",
            "stun:h:0",
            "stun:h:70000",
            "stun:h?transport=udp",
            "turn:h?transport=sctp",
            "turn://h:3478",
            "turn:h h",
            "turn:user@h",
            "turn:[::1",
            "turn:[::1]x:5",
            "turn:[h]",
            "stun:2001:db8::1",
        ] {
            assert!(!is_ice_url(bad), "{bad}");
        }
    }
}
