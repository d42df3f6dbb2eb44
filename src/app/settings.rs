//! From the configuration to what each part of the server is told.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::discovery::Discovery;
use crate::config::address::{Addresses, literal};
use crate::config::secret::Keys;
use crate::config::{self, Access, Config, PublicAddress, RelayListener};
use crate::credential::{Issued, Nonces, Revoked, Secrets, ThirdParty, TokenKey, Users, Verifier};
use crate::http;
use crate::signal::Limits;
use crate::turn::{self, Listener, PeerPolicy, RelayAddress};

/// What stays the same from start to stop.
pub(super) struct Place {
    /// The relay's addresses, which host names and detection change.
    pub(super) located: RwLock<Located>,
    /// The relay's listeners, with their actual ports.
    pub(super) relay: Vec<RelayListener>,
    /// The relay's side of listeners that it shares with HTTPS.
    pub(super) shared: Vec<RelayListener>,
    /// HTTP and admin listeners, and those that NAT behaviour discovery adds.
    pub(super) other: Vec<Listener>,
    /// NAT behaviour discovery, where it is on.
    pub(super) discovery: Option<Discovery>,
    /// Keys of the nonces, the same in every worker.
    pub(super) nonces: Arc<Nonces>,
    /// Credentials that were taken back.
    pub(super) revoked: Arc<Revoked>,
    /// User names handed out here, for clients that send their hash.
    pub(super) issued: Arc<Issued>,
}

/// The relay's addresses now and before.
pub(super) struct Located {
    pub(super) now: Addresses,
    /// What the world saw before and allocations may still use, newest first.
    pub(super) former: Vec<RelayAddress>,
}

/// Former addresses that are remembered.
const FORMER: usize = 8;

impl Located {
    pub(super) fn new(now: Addresses) -> Self {
        Self { now, former: Vec::new() }
    }

    /// Takes new addresses; whether they differ.
    pub(super) fn update(&mut self, new: Addresses) -> bool {
        if new.relay == self.now.relay {
            return false;
        }
        let gone = self.now.relay.iter().filter(|old| !new.relay.contains(old)).map(relay_address);
        let mut former: Vec<_> = gone.chain(self.former.iter().copied()).collect();
        former.retain(|old| !new.relay.iter().any(|address| relay_address(address) == *old));
        former.truncate(FORMER);
        *self = Self { now: new, former };
        true
    }
}

fn relay_address(address: &config::address::RelayAddress) -> RelayAddress {
    RelayAddress { bind: address.local, public: address.public }
}

impl Place {
    /// The relay's addresses. Never held across anything that waits.
    pub(super) fn located(&self) -> RwLockReadGuard<'_, Located> {
        self.located.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes new addresses; whether they differ.
    pub(super) fn locate(&self, new: Addresses) -> bool {
        self.located.write().unwrap_or_else(PoisonError::into_inner).update(new)
    }

    /// Settings of the relay core.
    pub(super) fn relay_settings(&self, config: &Config, keys: &Keys) -> turn::Settings {
        let located = self.located();
        let public = |local: SocketAddr| {
            let own = located.now.relay.iter().find(|own| own.local == local.ip())?;
            Some(SocketAddr::new(own.public, local.port()))
        };
        turn::Settings {
            realm: config.relay.realm.as_str().into(),
            addresses: located.now.relay.iter().map(relay_address).collect(),
            former: located.former.clone(),
            ports: config.relay.ports.range(),
            peers: Arc::new(self.peer_policy(config)),
            verifier: Arc::new(self.verifier(config, keys)),
            nonces: Arc::new((*self.nonces).clone().with_anonymity(config.credentials.hide_usernames)),
            user_quota: config.quota.user,
            total_quota: config.quota.total,
            bandwidth: config.quota.bandwidth,
            max_lifetime: config.relay.max_lifetime,
            tcp: config.relay.tcp,
            mobility: config.relay.mobility,
            // The pool says what its backend can.
            dont_fragment: false,
            legacy_channels: config.relay.legacy_channels,
            strict_expiry: config.credentials.strict_expiry,
            unauthenticated_rate: config.relay.unauthenticated_rate,
            redirect: config.relay.redirect.as_ref().map(redirect),
            vantages: self.discovery.as_ref().map(|discovery| Box::new(discovery.vantages(public))),
        }
    }

    /// Settings of HTTP and signaling.
    pub(super) fn http_settings(&self, config: &Config, keys: &Keys) -> http::Settings {
        http::Settings {
            ice_urls: self.ice_urls(),
            further_ice: further_ice(&config.http.further),
            ttl: config.credentials.ttl,
            max_ttl: config.credentials.max_ttl,
            access: match keys.access {
                Access::Open => http::Access::Open,
                Access::Token => http::Access::Token,
            },
            allow_anonymous: config.signaling.allow_anonymous,
            origins: config.http.origins.clone(),
            jwt: keys.jwt.clone(),
            api_keys: keys.api_keys.clone(),
            secrets: self.secrets(config, keys),
            public_host_names: public_names(config),
            trusted_proxies: config.http.trusted_proxies.clone(),
            ice_per_minute: config.http.ice_per_minute,
            limits: Limits { credentials: config.credentials.ttl, ..config.signaling.limits.clone() },
            secure: config.http.listen.iter().any(|listener| listener.https),
        }
    }

    /// `stun:` and `turn:` URLs of the relay's listeners.
    pub(super) fn ice_urls(&self) -> Vec<String> {
        let all: Vec<_> = self.relay.iter().chain(&self.shared).copied().collect();
        self.located().now.ice_urls(&all)
    }

    /// The secrets of time-limited credentials. Names are remembered only where their hashes are asked for.
    pub(super) fn secrets(&self, config: &Config, keys: &Keys) -> Secrets {
        let secrets = keys.secrets.clone().refusing(Arc::clone(&self.revoked));
        match config.credentials.hide_usernames {
            true => secrets.noting(Arc::clone(&self.issued)),
            false => secrets,
        }
    }

    fn verifier(&self, config: &Config, keys: &Keys) -> Verifier {
        let users =
            config.credentials.users.iter().map(|(name, password)| (name.as_str(), password.as_str()));
        let keyed = config.credentials.user_keys.iter().map(|(name, key)| (name.as_str(), *key));
        Verifier {
            secrets: self.secrets(config, keys),
            users: Users::new(&config.relay.realm, users).with_keys(&config.relay.realm, keyed),
            max_ttl: config.credentials.max_ttl,
            third_party: config.credentials.third_party.as_ref().map(third_party),
        }
    }

    fn peer_policy(&self, config: &Config) -> PeerPolicy {
        let of_relay = self.relay.iter().map(|listener| match listener.transport.is_stream() {
            true => Listener::Tcp(listener.address),
            false => Listener::Udp(listener.address),
        });
        let listeners = of_relay.chain(self.other.iter().copied());
        PeerPolicy::new(
            config.peers.allow.clone(),
            config.peers.deny.clone(),
            listeners.collect(),
            self.own_addresses(),
        )
    }

    /// Every address this host is known by.
    fn own_addresses(&self) -> Vec<IpAddr> {
        let interfaces =
            if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|interface| interface.ip());
        let located = self.located();
        let relay = located.now.relay.iter().flat_map(|address| [address.local, address.public]);
        let mut own: Vec<_> = interfaces.chain(relay).collect();
        own.sort_unstable();
        own.dedup();
        own
    }
}

/// STUN and TURN servers of others; each kind where there is one.
fn further_ice(further: &config::Further) -> Vec<http::IceServer> {
    let stun = http::IceServer { urls: further.stun.clone(), username: None, credential: None };
    let (username, credential) = (Some(further.username.clone()), Some(further.password.clone()));
    let turn = http::IceServer { urls: further.turn.clone(), username, credential };
    [stun, turn].into_iter().filter(|server| !server.urls.is_empty()).collect()
}

/// What the world calls this host.
fn public_names(config: &Config) -> Vec<String> {
    let name = |public: &PublicAddress| match public {
        PublicAddress::Address { public, .. } => literal(*public),
        PublicAddress::Name(name) => name.clone(),
    };
    config.relay.public.iter().map(name).collect()
}

fn redirect(redirect: &config::Redirect) -> turn::Redirect {
    turn::Redirect { to: redirect.to.clone(), domain: redirect.domain.as_str().into() }
}

fn third_party(party: &config::ThirdParty) -> ThirdParty {
    let key = |(kid, key): (&String, &Vec<u8>)| {
        (kid.as_str().into(), TokenKey::new(key).expect("the configuration checked the length"))
    };
    ThirdParty { server: party.server.as_str().into(), keys: party.keys.iter().map(key).collect() }
}

/// The new configuration with what only a restart changes taken from the old one, and the keys among that
/// which differ.
pub(super) fn keep_fixed(old: &Config, new: Config) -> (Config, Vec<&'static str>) {
    let differs = [
        ("state_dir", old.state_dir != new.state_dir),
        ("relay.listen", old.relay.listen != new.relay.listen),
        ("relay.public_address", old.relay.public != new.relay.public),
        ("relay.detect_from", old.relay.detect_from != new.relay.detect_from),
        ("relay.resolve_every", old.relay.resolve_every != new.relay.resolve_every),
        ("relay.ports", old.relay.ports != new.relay.ports),
        ("relay.alternate", old.relay.alternate != new.relay.alternate),
        ("relay.realm", old.relay.realm != new.relay.realm),
        ("relay.proxy_from", old.relay.proxy_from != new.relay.proxy_from),
        ("relay.workers", old.relay.workers != new.relay.workers),
        ("relay.backend", old.relay.backend != new.relay.backend),
        ("relay.offload", old.relay.offload != new.relay.offload),
        ("relay.tcp_connections", old.relay.tcp_connections != new.relay.tcp_connections),
        ("relay.socket_buffer", old.relay.socket_buffer != new.relay.socket_buffer),
        ("relay.drain_timeout", old.relay.drain_timeout != new.relay.drain_timeout),
        ("http.listen", old.http.listen != new.http.listen),
        ("http.max_connections", old.http.max_connections != new.http.max_connections),
        ("store.url", old.store != new.store),
        ("store.keep", old.store_keep != new.store_keep),
        ("admin.listen", old.admin != new.admin),
        ("log.format", old.log.format != new.log.format),
    ];
    let mut config = new;
    config.state_dir.clone_from(&old.state_dir);
    config.relay.listen.clone_from(&old.relay.listen);
    config.relay.public.clone_from(&old.relay.public);
    config.relay.detect_from.clone_from(&old.relay.detect_from);
    config.relay.resolve_every = old.relay.resolve_every;
    config.relay.ports.clone_from(&old.relay.ports);
    config.relay.realm.clone_from(&old.relay.realm);
    config.http.listen.clone_from(&old.http.listen);
    config.store.clone_from(&old.store);
    config.store_keep = old.store_keep;
    config.admin = old.admin;
    (config, differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect())
}
