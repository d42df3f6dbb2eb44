//! The steps, from the simplest to the ones that need everything, and what each failure means.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::Args;
use super::ask::{Answer, Connection, Login, Server};
use super::conn::{StreamConn, UdpConn, any_like};
use super::dial::{Dialer, Stream};
use super::relay::{EchoError, Peer, Relay};
use super::report::{Outcome, Problem, Report};
use super::signaling;
use super::target::{Endpoint, Endpoints, Http, Ice};

/// Whatever is needed to reach one transport of the relay.
#[derive(Clone, Copy)]
enum Way {
    Udp,
    Tcp,
    Tls,
}

impl Way {
    fn label(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// One check of one server.
pub(super) struct Check<'a> {
    args: &'a Args,
    http: Option<Http>,
    endpoints: Endpoints,
    login: Option<Login>,
    /// The first transport that relayed; later steps use it.
    working: Option<Way>,
    report: Report,
}

impl<'a> Check<'a> {
    /// A check that has found out nothing yet.
    pub(super) fn new(args: &'a Args, http: Option<Http>) -> Self {
        let (endpoints, report) = (Endpoints::default(), Report::new(args.json));
        Self { args, http, endpoints, login: None, working: None, report }
    }

    /// Makes all steps. True when none failed.
    pub(super) async fn run(mut self, out: &mut dyn Write) -> io::Result<bool> {
        let learnt = self.learn(out).await?;
        if learnt {
            self.stun(out).await?;
            for (name, way) in [("turn-udp", Way::Udp), ("turn-tcp", Way::Tcp), ("turn-tls", Way::Tls)] {
                let outcome = self.turn(way).await;
                if matches!(outcome, Outcome::Ok { .. }) {
                    self.working.get_or_insert(way);
                }
                self.report.add(out, name, outcome)?;
            }
            let outcome = self.ipv6_relay().await;
            self.report.add(out, "relay-ipv6", outcome)?;
            let outcome = self.time_limited().await;
            self.report.add(out, "credentials", outcome)?;
            let outcome = self.wrong_password().await;
            self.report.add(out, "wrong-password", outcome)?;
        }
        let outcome = self.signaling().await;
        self.report.add(out, "signaling", outcome)?;
        self.report.finish(out)
    }

    /// Learns the relay's addresses and credentials. False when there is nothing to go on with.
    async fn learn(&mut self, out: &mut dyn Write) -> io::Result<bool> {
        let ice = match self.http.clone() {
            None => {
                self.report.add(out, "ice", Outcome::skip("no --url given"))?;
                None
            }
            Some(http) => match self.fetch(http).await {
                Ok((ice, detail)) => {
                    self.report.add(out, "ice", Outcome::ok(detail))?;
                    Some(ice)
                }
                Err(problem) => {
                    self.report.add(out, "ice", problem.into())?;
                    None
                }
            },
        };
        let endpoints = match (&self.args.server, &ice) {
            (Some(server), _) => Endpoints::named(server),
            (None, Some(ice)) => Endpoints::advertised(
                ice.servers.iter().flat_map(|server| server.urls.iter().map(String::as_str)),
            ),
            (None, None) => return Ok(false),
        };
        match (endpoints, self.find_login(ice.as_ref())) {
            (Ok(endpoints), Ok(login)) => {
                (self.endpoints, self.login) = (endpoints, login);
                Ok(true)
            }
            (Err(problem), _) | (_, Err(problem)) => {
                self.report.add(out, "server", problem.into())?;
                Ok(false)
            }
        }
    }

    async fn fetch(&self, http: Http) -> Result<(Ice, String), Problem> {
        let asked = tokio::task::spawn_blocking(move || http.ice());
        let ice = asked.await.map_err(|error| Problem::new(error.to_string(), "please report this"))??;
        let urls: usize = ice.servers.iter().map(|server| server.urls.len()).sum();
        if urls == 0 {
            return Err(Problem::new("/v1/ice names no URL", "is a relay listener configured?"));
        }
        let left = ice.expires_at.saturating_sub(unix_now());
        if ice.ttl == 0 || left == 0 || left > ice.ttl + 5 {
            return Err(Problem::new(
                format!("/v1/ice says ttl {} but its credentials expire in {left} s", ice.ttl),
                "do the clocks of this machine and the server agree?",
            ));
        }
        let with_login = ice.servers.iter().any(|server| server.username.is_some());
        let login = if with_login { "with" } else { "without" };
        let detail = format!("{urls} URLs {login} credentials, valid for {left} s");
        Ok((ice, detail))
    }

    /// The command line's credentials, else those of `/v1/ice`.
    fn find_login(&self, ice: Option<&Ice>) -> Result<Option<Login>, Problem> {
        if let (Some(username), Some(password)) = (&self.args.user, &self.args.password) {
            return Ok(Some(Login { username: username.clone(), password: password.clone() }));
        }
        if let Some(secret) = &self.args.secret {
            return minted(secret, unix_now() + 600).map(Some);
        }
        let found = ice.and_then(|ice| {
            ice.servers.iter().find_map(|server| {
                Some(Login { username: server.username.clone()?, password: server.credential.clone()? })
            })
        });
        Ok(found)
    }

    async fn stun(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Some(endpoint) = self.endpoints.stun.clone() else {
            return self.report.add(out, "stun", Outcome::skip("no stun: URL is advertised"));
        };
        for (name, ipv6) in [("stun-ipv4", false), ("stun-ipv6", true)] {
            let outcome = match endpoint.resolve(Some(ipv6)).await {
                Err(_) => {
                    Outcome::skip(format!("{} has no IPv{} address", endpoint.host, if ipv6 { 6 } else { 4 }))
                }
                Ok(address) => self.binding(address).await.into(),
            };
            self.report.add(out, name, outcome)?;
        }
        Ok(())
    }

    async fn binding(&self, address: SocketAddr) -> Result<String, Problem> {
        let place = format!("UDP {address}");
        let begun = Instant::now();
        let conn = udp(address).await?;
        let mapped = self.server(&conn, &place, false).binding().await?;
        Ok(format!("{place} sees us as {mapped}, {}", took(begun)))
    }

    /// An allocation and traffic through it over one transport.
    async fn turn(&self, way: Way) -> Outcome {
        let endpoint = self.endpoint(way);
        match (endpoint, &self.login) {
            (None, _) => Outcome::skip(format!("TURN over {} is not advertised", way.label())),
            (_, None) => Outcome::skip(NO_LOGIN),
            (Some(endpoint), Some(login)) => self.relayed_echo(way, endpoint, login).await.into(),
        }
    }

    fn endpoint(&self, way: Way) -> Option<&Endpoint> {
        match way {
            Way::Udp => self.endpoints.udp.as_ref(),
            Way::Tcp => self.endpoints.tcp.as_ref(),
            Way::Tls => self.endpoints.tls.as_ref(),
        }
    }

    async fn relayed_echo(&self, way: Way, endpoint: &Endpoint, login: &Login) -> Result<String, Problem> {
        let address = endpoint.resolve(None).await?;
        let place = format!("{} {address}", way.label());
        let begun = Instant::now();
        // A refusal is told apart from silence by asking once by hand first.
        let conn = self.open(way, address, &endpoint.host).await?;
        match self.server(&conn, &place, !matches!(way, Way::Udp)).allocate(login, false).await? {
            Answer::Allocated(_) => {}
            Answer::Refused(code, reason) => return Err(refusal(&place, code, &reason, login)),
        }
        let conn = self.open(way, address, &endpoint.host).await?;
        let relay = Relay::allocate(conn, &place, login, self.args.timeout).await?;
        let echoed = self.echo(&relay, way, address, endpoint, login).await;
        let relayed = relay.address;
        relay.close().await;
        Ok(format!("{place} relays from {relayed}, {}, {}", echoed?, took(begun)))
    }

    /// Traffic to a socket of ours, or where that does not work between two relays.
    async fn echo(
        &self,
        relay: &Relay,
        way: Way,
        address: SocketAddr,
        endpoint: &Endpoint,
        login: &Login,
    ) -> Result<&'static str, Problem> {
        let own = match self.peer(relay.address, endpoint).await {
            Ok(peer) => relay.echo(&peer, self.args.timeout.min(OWN_ECHO)).await,
            Err(problem) => Err(EchoError::Other(problem.reason)),
        };
        let Err(own) = own else { return Ok("echo from our own socket") };
        let conn = self.open(way, address, &endpoint.host).await?;
        let place = format!("{} {address}", way.label());
        let second = Relay::allocate(conn, &place, login, self.args.timeout).await?;
        let through = relay.echo_through(&second, self.args.timeout).await;
        second.close().await;
        match (through, own) {
            (Ok(()), EchoError::Forbidden) => {
                Ok("echo between two relays (the peer policy forbids our address)")
            }
            (Ok(()), _) => Ok("echo between two relays (our own socket cannot be reached from there)"),
            (Err(_), EchoError::LostBack) => Err(Problem::new(
                "packets reach the peer but do not come back to the client",
                format!("does a firewall drop UDP to the relay ports of {}?", relay.address.ip()),
            )),
            (Err(EchoError::Forbidden), _) => Err(Problem::new(
                format!("the peer policy forbids our address and the relay's own {}", relay.address.ip()),
                "set relay.public_address to the address the world sees, or allow it with peers.allow",
            )),
            (Err(EchoError::Other(text)), _) => Err(Problem::new(text, "see the server's log")),
            (Err(_), _) => Err(Problem::new(
                format!("nothing comes through the relay at {}", relay.address),
                "does a firewall drop UDP on the relay's port range (relay.ports), and is relay.public_address right?",
            )),
        }
    }

    /// A socket of ours and its address as the server sees it, also behind a NAT.
    async fn peer(&self, relayed: SocketAddr, endpoint: &Endpoint) -> Result<Peer, Problem> {
        let server = endpoint.resolve(Some(relayed.is_ipv6())).await?;
        let socket = UdpSocket::bind(any_like(server)).await;
        let socket = Arc::new(socket.map_err(|error| Problem::new(error.to_string(), "see `ulimit -n`"))?);
        let conn: Connection = Arc::new(UdpConn::sharing(socket.clone(), server));
        let address = self.server(&conn, &format!("UDP {server}"), false).binding().await?;
        Ok(Peer { socket, address })
    }

    async fn ipv6_relay(&self) -> Outcome {
        let (Some(way), Some(login)) = (self.working, &self.login) else { return Outcome::skip(NEEDS_RELAY) };
        match self.ask_to_allocate(way, login, true).await {
            Ok(Answer::Allocated(relayed)) if relayed.is_ipv6() => {
                Outcome::ok(format!("relays from {relayed}"))
            }
            Ok(Answer::Allocated(relayed)) => Problem::new(
                format!("asked for an IPv6 relay and got {relayed}"),
                "the server ignores REQUESTED-ADDRESS-FAMILY: update it",
            )
            .into(),
            Ok(Answer::Refused(440, _)) => Outcome::skip("the server has no IPv6 relay address (440)"),
            Ok(Answer::Refused(code, reason)) => refusal(way.label(), code, &reason, login).into(),
            Err(problem) => problem.into(),
        }
    }

    /// One allocation, given back at once, over a transport that works.
    async fn ask_to_allocate(&self, way: Way, login: &Login, ipv6: bool) -> Result<Answer, Problem> {
        let missing = || Problem::new(NEEDS_RELAY, "see above");
        let endpoint = self.endpoint(way).ok_or_else(missing)?;
        let address = endpoint.resolve(None).await?;
        let place = format!("{} {address}", way.label());
        let conn = self.open(way, address, &endpoint.host).await?;
        self.server(&conn, &place, !matches!(way, Way::Udp)).allocate(login, ipv6).await
    }

    /// The expiry in the user name is what counts: a later one must not be accepted with the same
    /// password, and with the secret at hand, an earlier one must not be accepted at all.
    async fn time_limited(&self) -> Outcome {
        let (Some(way), Some(login)) = (self.working, &self.login) else { return Outcome::skip(NEEDS_RELAY) };
        let Some((expiry, id)) = expiry_of(&login.username) else {
            return Outcome::skip("these are no time-limited credentials");
        };
        if expiry <= unix_now() {
            return Problem::new(
                format!("the credentials have expired {} s ago", unix_now() - expiry),
                "do the clocks of this machine and the server agree?",
            )
            .into();
        }
        let forged = Login { username: format!("{}{id}", expiry + 3600), password: login.password.clone() };
        if let Some(outcome) =
            self.must_refuse(way, &forged, "a user name with a later expiry than was signed").await
        {
            return outcome;
        }
        let mut detail = format!("valid for {} s, a forged expiry is refused", expiry - unix_now());
        if let Some(secret) = &self.args.secret {
            let expired = match minted(secret, unix_now().saturating_sub(5)) {
                Ok(expired) => expired,
                Err(problem) => return problem.into(),
            };
            if let Some(outcome) = self.must_refuse(way, &expired, "credentials that have expired").await {
                return outcome;
            }
            detail.push_str(", so are expired ones");
        }
        Outcome::ok(detail)
    }

    async fn wrong_password(&self) -> Outcome {
        let (Some(way), Some(login)) = (self.working, &self.login) else { return Outcome::skip(NEEDS_RELAY) };
        let wrong = Login { username: login.username.clone(), password: format!("{}?", login.password) };
        let refused = self.must_refuse(way, &wrong, "a wrong password").await;
        refused.unwrap_or_else(|| Outcome::ok("refused with 401"))
    }

    /// Tries to allocate with credentials that must not work; `None` when they are refused with 401.
    async fn must_refuse(&self, way: Way, login: &Login, what: &str) -> Option<Outcome> {
        match self.ask_to_allocate(way, login, false).await {
            Ok(Answer::Refused(401, _)) => None,
            Ok(Answer::Refused(code, reason)) => Some(
                Problem::new(
                    format!("{what} is answered with {code} {reason}"),
                    "it should be 401: see the server's log",
                )
                .into(),
            ),
            Ok(Answer::Allocated(_)) => Some(
                Problem::new(format!("the server accepts {what}"), "anybody can use this relay: stop it")
                    .into(),
            ),
            Err(problem) => Some(problem.into()),
        }
    }

    async fn signaling(&self) -> Outcome {
        match &self.http {
            None => Outcome::skip("no --url given"),
            Some(http) => signaling::call(http, self.args.token.as_deref()).await.into(),
        }
    }

    fn server<'s>(&'s self, conn: &'s Connection, place: &'s str, reliable: bool) -> Server<'s> {
        Server { conn, place, patience: self.args.timeout, reliable }
    }

    async fn open(&self, way: Way, address: SocketAddr, host: &str) -> Result<Connection, Problem> {
        let dialer = Dialer { patience: self.args.timeout, insecure: self.args.insecure };
        let stream: Box<dyn Stream> = match way {
            Way::Udp => return udp(address).await,
            Way::Tcp => Box::new(dialer.tcp(address).await?),
            Way::Tls => dialer.tls(address, host).await?,
        };
        Ok(Arc::new(StreamConn::new(stream, address)))
    }
}

/// There is a second way to prove the relay when our own socket cannot be reached, so this wait is short.
const OWN_ECHO: Duration = Duration::from_millis(1500);
const NEEDS_RELAY: &str = "needs a transport that relays";
const NO_LOGIN: &str =
    "no credentials: give --user and --password, --secret, or --url with --api-key or --token";

async fn udp(server: SocketAddr) -> Result<Connection, Problem> {
    let conn = UdpConn::connect(server).await;
    let conn = conn.map_err(|error| {
        Problem::new(format!("no way to {server}: {error}"), "does this machine have a route of that family?")
    })?;
    Ok(Arc::new(conn))
}

/// What an error answer to Allocate with good credentials means.
fn refusal(place: &str, code: u16, reason: &str, login: &Login) -> Problem {
    let advice = match code {
        300 => "the server sends clients elsewhere: it is draining or full".to_owned(),
        401 => format!(
            "wrong password or secret for {}; are the server's secrets the ones that made these credentials, and do \
             the clocks agree?",
            login.username
        ),
        438 => "the server refuses its own nonces: are there several servers behind one address?".to_owned(),
        486 => "the user's quota is used up".to_owned(),
        508 => "no relay port or socket is free, or the server is draining".to_owned(),
        _ => "see the server's log".to_owned(),
    };
    Problem::new(format!("{place} answers {code} {reason} to Allocate"), advice)
}

/// Credentials that expire at this time (draft-uberti-behave-turn-rest-00). Made here and not by
/// `credential::mint`, which refuses to make expired ones.
fn minted(secret: &str, expiry: u64) -> Result<Login, Problem> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())
        .map_err(|_| Problem::new("--secret cannot be used as a key", "give the server's shared secret"))?;
    let username = format!("{expiry}:check");
    mac.update(username.as_bytes());
    Ok(Login { username, password: STANDARD.encode(mac.finalize().into_bytes()) })
}

/// The expiry of a time-limited user name and what follows it.
fn expiry_of(username: &str) -> Option<(u64, &str)> {
    let digits = username.find(':').unwrap_or(username.len());
    let (expiry, id) = username.split_at(digits);
    Some((expiry.parse().ok()?, id))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs)
}

fn took(begun: Instant) -> String {
    format!("{:.1} ms", begun.elapsed().as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_the_part_before_the_colon() {
        assert_eq!(expiry_of("1700000000:alice"), Some((1_700_000_000, ":alice")));
        assert_eq!(expiry_of("1700000000"), Some((1_700_000_000, "")));
        assert_eq!(expiry_of("alice"), None);
        assert_eq!(expiry_of(""), None);
    }

    #[test]
    fn minted_credentials_are_those_of_the_draft() {
        // printf 1:check | openssl dgst -sha1 -hmac s -binary | base64
        let login = minted("s", 1).expect("any secret will do");
        assert_eq!(login.username, "1:check");
        assert_eq!(login.password, "kRldnVrLZqVQIuZ7P0EOvcGdcBg=");
    }
}
