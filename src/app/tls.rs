//! The certificate of all listeners inside TLS: from files, or self-signed and kept in the state directory.
//!
//! Owns when the files are read again: a change is noticed within seconds, and taken when the files hold a whole
//! chain and its key; until then, and where they are broken, the certificate before stays. Sessions go on with
//! the one they began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};

use super::Running;
use super::entrance::stopped;
use crate::config::{Config, Error, PublicAddress, Tls, address, secret};
use crate::dtls::{Identity, IdentityError};
use crate::turn::Transport;

const DAY: Duration = Duration::from_secs(86400);

/// As long as Apple's systems accept one.
const LIFETIME: Duration = Duration::from_secs(800 * 86400);

/// What HTTPS listeners are asked for by ALPN.
const WEB: &[&[u8]] = &[b"http/1.1"];

/// What relay listeners are asked for by ALPN (RFC 7443).
const RELAY: &[&[u8]] = &[b"stun.turn", b"stun.nat-discovery"];

/// What may be spoken inside TLS at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocols {
    /// HTTP.
    Web,
    /// STUN and TURN.
    Relay,
    /// Either.
    Both,
}

/// A certificate with its private key, ready to be shown.
pub(super) struct Certificate {
    web: Arc<ServerConfig>,
    relay: Arc<ServerConfig>,
    both: Arc<ServerConfig>,
    /// For DTLS listeners, if they can show it.
    dtls: Result<Identity, IdentityError>,
}

impl Certificate {
    /// What is in force by this configuration; `None` where there is no certificate.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate or key, a pair that does not belong together, or one
    /// that a DTLS listener cannot show.
    pub(super) fn load(config: &Config) -> Result<Option<Self>, Error> {
        match &config.tls {
            Tls::Off => Ok(None),
            Tls::Files { cert, key } => {
                secret::check_private(config, "tls.key", key)?;
                Self::read(config, cert, key).map(Some)
            }
            Tls::SelfSigned => {
                let (cert, key) = self_signed(config)?;
                Self::read(config, &cert, &key).map(Some)
            }
        }
    }

    fn read(config: &Config, cert: &Path, key: &Path) -> Result<Self, Error> {
        let bad = |which: &str, path: &Path, problem: &dyn std::fmt::Display| {
            config.error(which, format!("{}: {problem}", path.display()))
        };
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| bad("tls.cert", cert, &e))?;
        if chain.is_empty() {
            return Err(bad("tls.cert", cert, &"no certificate in it (PEM is expected)"));
        }
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| bad("tls.key", key, &e))?;
        let dtls = Identity::new(chain[0].to_vec(), key_der.secret_der().to_vec());
        if let (Err(e @ IdentityError::NotEcdsa), true) = (&dtls, config.names_dtls()) {
            return Err(bad("tls.cert", cert, e));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = CertifiedKey::from_der(chain, key_der, &provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                bad("tls.key", key, &format_args!("does not belong to the certificate in {}", cert.display()))
            }
            e => bad("tls.cert", cert, &e),
        })?;
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(pair));
        let settings = |protocols: &[&[&[u8]]]| {
            let mut settings = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|e| bad("tls.cert", cert, &e))?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&resolver) as _);
            settings.alpn_protocols = protocols.concat().into_iter().map(<[u8]>::to_vec).collect();
            Ok(Arc::new(settings))
        };
        Ok(Self { web: settings(&[WEB])?, relay: settings(&[RELAY])?, both: settings(&[WEB, RELAY])?, dtls })
    }

    /// What DTLS listeners show, or why they cannot.
    pub(super) fn dtls(&self) -> Result<&Identity, IdentityError> {
        self.dtls.as_ref().map_err(|e| *e)
    }

    /// The settings of TLS sessions in which these protocols may be spoken. A client that asks for none by ALPN
    /// is served; one that asks only for others is refused.
    pub(super) fn settings(&self, protocols: Protocols) -> Arc<ServerConfig> {
        Arc::clone(match protocols {
            Protocols::Web => &self.web,
            Protocols::Relay => &self.relay,
            Protocols::Both => &self.both,
        })
    }
}

/// Tells when the files of a certificate have been replaced.
pub(super) struct FileWatch {
    /// What was seen last.
    seen: Stamps,
    /// What was told of last.
    told: Stamps,
}

impl FileWatch {
    /// How often to look.
    pub(super) const INTERVAL: Duration = Duration::from_secs(1);

    /// A watch over the files as they are. To be made before they are read: what changes meanwhile is news.
    pub(super) fn new(tls: &Tls) -> Self {
        let now = stamps(tls);
        Self { seen: now, told: now }
    }

    /// Whether there are other files than before, and they have stood still between two looks: certificate and
    /// key are written one after the other.
    pub(super) fn look(&mut self, tls: &Tls) -> bool {
        let now = stamps(tls);
        let is_new = now == self.seen && now != self.told;
        self.seen = now;
        if is_new {
            self.told = now;
        }
        is_new
    }
}

/// Of the certificate and of the key; `None` for a file that is not there.
type Stamps = [Option<Stamp>; 2];

/// What differs when a file has been written or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    written: SystemTime,
    len: u64,
    #[cfg(unix)]
    inode: u64,
}

fn stamps(tls: &Tls) -> Stamps {
    match tls {
        Tls::Files { cert, key } => [stamp(cert), stamp(key)],
        Tls::Off | Tls::SelfSigned => [None; 2],
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        written: metadata.modified().ok()?,
        len: metadata.len(),
        #[cfg(unix)]
        inode: std::os::unix::fs::MetadataExt::ino(&metadata),
    })
}

impl Running {
    /// Takes the certificate again whenever its files have been replaced.
    pub(super) async fn watch_certificate(self: Arc<Self>, mut files: FileWatch) {
        let mut stop = self.stop.subscribe();
        let mut ticks = tokio::time::interval(FileWatch::INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopped(&mut stop) => return,
            }
            let running = Arc::clone(&self);
            let look = move || {
                let config = running.current().config.clone();
                if files.look(&config.tls) {
                    running.renew_certificate(&config);
                }
                files
            };
            files = tokio::task::spawn_blocking(look).await.expect("reading a certificate does not panic");
        }
    }

    /// Shows this certificate in all handshakes from now on.
    pub(super) fn show(&self, certificate: Option<Certificate>) {
        let mut listeners = self.place.relay.iter();
        if let Some(certificate) = certificate.as_ref()
            && listeners.any(|listener| listener.transport == Transport::Dtls)
        {
            match certificate.dtls() {
                Ok(identity) => self.pool.identify(identity),
                Err(error) => tracing::warn!(%error, "DTLS listeners keep the certificate before"),
            }
        }
        self.certificate.send_replace(certificate.map(Arc::new));
    }

    fn renew_certificate(&self, config: &Config) {
        match Certificate::load(config) {
            Ok(certificate) => {
                self.show(certificate);
                tracing::info!("certificate replaced");
            }
            Err(error) => tracing::error!(%error, "certificate not taken, the one before stays"),
        }
    }
}

/// The self-signed certificate for the names this configuration gives the host. One is made for each set of
/// names and kept, so that a browser's exception lasts.
fn self_signed(config: &Config) -> Result<(PathBuf, PathBuf), Error> {
    let names = names(config);
    let stem = format!("self-signed-{}", names[0].replace([':', '/'], "_"));
    let directory = secret::state_dir(config)?;
    let (cert_path, key_path) =
        (directory.join(format!("{stem}.crt")), directory.join(format!("{stem}.key")));
    if [&cert_path, &key_path].into_iter().any(|path| is_stale(path)) {
        for path in [&cert_path, &key_path] {
            // Absent is as good as removed; anything else shows when it is written.
            let _ = std::fs::remove_file(path);
        }
        // The key's file has the certificate too: whoever writes it first, the pair belongs together.
        let pem = generate(&names).map_err(|e| config.error("tls.self_signed", e.to_string()))?;
        secret::write_once(config, &format!("{stem}.key"), pem.as_bytes())?;
        let kept = std::fs::read_to_string(&key_path)
            .map_err(|e| secret::unreadable(config, "tls.self_signed", &key_path, &e))?;
        let certificate = kept.find("-----BEGIN CERTIFICATE").map_or("", |start| &kept[start..]);
        secret::write_once(config, &format!("{stem}.crt"), certificate.as_bytes())?;
    }
    Ok((cert_path, key_path))
}

/// Whether a kept file is missing or its certificate about to expire.
fn is_stale(path: &Path) -> bool {
    let age = std::fs::metadata(path).and_then(|m| m.modified()).map(|t| t.elapsed().unwrap_or_default());
    age.map_or(true, |age| age > LIFETIME - 30 * DAY)
}

fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = (config.relay.public.iter())
        .map(|public| match public {
            PublicAddress::Address { public, .. } => public.to_string(),
            PublicAddress::Name(name) => name.clone(),
        })
        .collect();
    if names.is_empty() {
        // The addresses a browser on the local network would type.
        names.extend(
            address::Addresses::find(config).into_iter().flat_map(|a| a.relay).map(|a| a.public.to_string()),
        );
    }
    for name in ["localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|known| known == name) {
            names.push(name.into());
        }
    }
    names
}

fn generate(names: &[String]) -> Result<String, rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, names[0].as_str());
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let now =
        rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = now - DAY;
    params.not_after = now + LIFETIME;
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_pair_is_told_once_it_stands_still() {
        let home = tempfile::tempdir().expect("a directory");
        let path = |name| home.path().join(name);
        let write = |name, text: &str| std::fs::write(path(name), text).expect("written");
        let tls = Tls::Files { cert: path("cert"), key: path("key") };
        write("cert", "one");
        write("key", "one");
        let mut watch = FileWatch::new(&tls);
        assert_eq!([watch.look(&tls), watch.look(&tls)], [false; 2], "what was there before is no news");
        write("cert", "two, longer");
        assert!(!watch.look(&tls), "it may still be written");
        write("key", "two, longer");
        assert!(!watch.look(&tls));
        assert_eq!([watch.look(&tls), watch.look(&tls)], [true, false], "once");
        // A rename, as certificate clients do it: same length, another file.
        write("next", "two, LONGER");
        std::fs::rename(path("next"), path("cert")).expect("renamed");
        assert_eq!([watch.look(&tls), watch.look(&tls), watch.look(&tls)], [false, true, false]);
        std::fs::remove_file(path("key")).expect("removed");
        assert_eq!([watch.look(&tls), watch.look(&tls), watch.look(&tls)], [false, true, false]);
    }
}
