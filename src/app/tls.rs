//! The certificate of HTTPS listeners: from files, or self-signed and kept in the state directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Error, PublicAddress, Tls, address, secret};

const DAY: Duration = Duration::from_secs(86400);

/// As long as Apple's systems accept one.
const LIFETIME: Duration = Duration::from_secs(800 * 86400);

/// The acceptor of HTTPS listeners; `None` where there is no certificate.
///
/// # Errors
/// A file that cannot be read or holds no certificate or key, or a pair that does not belong together.
pub(super) fn acceptor(config: &Config) -> Result<Option<TlsAcceptor>, Error> {
    match &config.tls {
        Tls::Off => Ok(None),
        Tls::Files { cert, key } => {
            secret::check_private(config, "tls.key", key)?;
            read(config, cert, key).map(Some)
        }
        Tls::SelfSigned => {
            let (cert, key) = self_signed(config)?;
            read(config, &cert, &key).map(Some)
        }
    }
}

fn read(config: &Config, cert: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("tls.cert", cert, &e))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|e| bad("tls.cert", cert, &e))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
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
