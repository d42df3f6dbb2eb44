//! Secrets: from the configuration, from files, from systemd's credentials directory, or generated and
//! kept in the state directory.
//!
//! Owns the rules about their files: nobody else may read them, and a generated one is written once, mode
//! 0600 in a directory of mode 0700. Never logs or prints a secret.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::credential::Secrets;
use crate::http::jwks::{KeySet, Source};
use crate::http::token::JwtKey;

use super::file::File;
use super::source::{Error, Place, Sources};
use super::{Access, Config, JwtSource, Signaling, reason};

/// The secrets of a server, read.
#[derive(Clone)]
pub struct Keys {
    /// Secrets of time-limited credentials, newest first; never empty.
    pub secrets: Secrets,
    /// Keys with which back ends ask for credentials.
    pub api_keys: Vec<String>,
    /// What signaling tokens are verified with.
    pub jwt: Option<JwtKey>,
    /// Who may signal: `Open` only where the configuration says so and every HTTP listener is a loopback one.
    pub access: Access,
    /// What is weak, in words.
    pub warnings: Vec<String>,
}

/// A key of signaling tokens, as it was read.
enum RawKey {
    /// HS256.
    Secret(Vec<u8>),
    /// The public key of whoever issues tokens.
    Public(JwtKey),
}

/// Names in systemd's credentials directory, and the key each of them sets where the configuration does not.
const CREDENTIALS: [(&str, &str); 5] = [
    ("turnkey.secrets", "credentials.secrets_file"),
    ("turnkey.api_keys", "credentials.api_keys_file"),
    ("turnkey.jwt_secret", "signaling.jwt_secret_file"),
    ("turnkey.tls_cert", "tls.cert"),
    ("turnkey.tls_key", "tls.key"),
];

/// Lets the files of systemd's credentials directory stand for keys that are not set.
pub(super) fn use_credentials_directory(file: &mut File, sources: &mut Sources, directory: &Path) {
    let has_jwt = !file.signaling.jwt_secret.is_empty()
        || !file.signaling.jwt_public_key_file.is_empty()
        || !file.signaling.jwks_url.is_empty()
        || file.signaling.jwt_generate;
    for (name, key) in CREDENTIALS {
        let slot = match key {
            "credentials.secrets_file" => &mut file.credentials.secrets_file,
            "credentials.api_keys_file" => &mut file.credentials.api_keys_file,
            "signaling.jwt_secret_file" if has_jwt => continue,
            "signaling.jwt_secret_file" => &mut file.signaling.jwt_secret_file,
            "tls.cert" => &mut file.tls.cert,
            _ => &mut file.tls.key,
        };
        let path = directory.join(name);
        if slot.is_empty() && path.is_file() {
            *slot = path.display().to_string();
            sources.set(key, Place::File(slot.clone()));
        }
    }
}

/// Where generated secrets are kept: as configured, else as systemd or XDG says.
///
/// # Errors
/// None of them says anything.
pub fn state_dir(config: &Config) -> Result<PathBuf, Error> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let first = |list: PathBuf| std::env::split_paths(list.as_os_str()).next();
    (config.state_dir.clone())
        .or_else(|| variable("STATE_DIRECTORY").and_then(first))
        .or_else(|| variable("XDG_STATE_HOME").map(|dir| dir.join("turnkey")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".local/state/turnkey")))
        .ok_or_else(|| config.error("state_dir", "no state directory: set state_dir or --state-dir"))
}

impl Keys {
    /// Reads every secret, and generates what the configuration leaves to us.
    ///
    /// # Errors
    /// A file that cannot be read or that others can read, and a public HTTP listener without a token key.
    pub fn load(config: &Config) -> Result<Self, Error> {
        let mut warnings = Vec::new();
        let access = access(config)?;
        let jwt = jwt(config, &mut warnings)?.map(|key| match key {
            RawKey::Secret(secret) => JwtKey::hs256(&secret),
            RawKey::Public(key) => key,
        });
        let Signaling { jwt_issuer, jwt_audience, .. } = &config.signaling;
        let jwt = jwt.map(|key| key.expecting(jwt_issuer, jwt_audience));
        Ok(Self {
            secrets: secrets(config, &mut warnings)?,
            api_keys: api_keys(config)?,
            jwt,
            access,
            warnings,
        })
    }

    /// The key `turnkey token` signs with: the configured one, else the one an earlier `serve --public` kept.
    ///
    /// # Errors
    /// There is none that can sign, or it cannot be read.
    pub fn signing(config: &Config) -> Result<Vec<u8>, Error> {
        let key = match jwt(config, &mut Vec::new())? {
            Some(key) => Some(key),
            None => kept(config, TOKEN_KEY)?.map(RawKey::Secret),
        };
        match key {
            Some(RawKey::Secret(secret)) => Ok(secret),
            Some(RawKey::Public(_)) => Err(config
                .error("signaling.jwt_public_key_file", "a public key verifies tokens but cannot sign one")),
            None => Err(config.error("signaling.jwt_secret", NO_KEY)),
        }
    }
}

const NO_KEY: &str = "no token key: set signaling.jwt_secret or signaling.jwt_secret_file, \
                      or signaling.jwt_generate = true to have one generated and kept";

const SECRET: &str = "secret";
const NODE: &str = "node";
const TOKEN_KEY: &str = "token-key";

fn access(config: &Config) -> Result<Access, Error> {
    let has_key = config.signaling.jwt != JwtSource::None;
    let public = config.http.listen.iter().position(|listener| !listener.address.ip().is_loopback());
    match (public, config.signaling.access) {
        (None, Access::Open) => Ok(Access::Open),
        (_, _) if has_key => Ok(Access::Token),
        (Some(i), _) => {
            let address = config.http.listen[i].address;
            let problem = format!("{address} can be reached by others, and there is {NO_KEY}");
            Err(config.error(&format!("http.listen[{i}]"), problem))
        }
        (None, Access::Token) => Err(config.error("signaling.access", NO_KEY)),
    }
}

fn jwt(config: &Config, warnings: &mut Vec<String>) -> Result<Option<RawKey>, Error> {
    let key = match &config.signaling.jwt {
        JwtSource::None => return Ok(None),
        JwtSource::Secret(secret) => RawKey::Secret(secret.clone().into_bytes()),
        JwtSource::SecretFile(path) => {
            let lines = lines(config, "signaling.jwt_secret_file", path)?;
            RawKey::Secret(lines.into_iter().next().expect("lines() gives at least one").into_bytes())
        }
        JwtSource::Generate => RawKey::Secret(keep(config, TOKEN_KEY)?),
        JwtSource::PublicKeyFile(path) => {
            let pem =
                fs::read(path).map_err(|e| unreadable(config, "signaling.jwt_public_key_file", path, &e))?;
            let bad = |e| config.error("signaling.jwt_public_key_file", format!("{}: {e}", path.display()));
            RawKey::Public(JwtKey::from_pem(&pem).map_err(bad)?)
        }
        JwtSource::KeySet(source) => {
            let set = KeySet::new(source.clone());
            match (set.read(), source) {
                (Ok(_), _) => {}
                (Err(problem), Source::File(_)) => return Err(config.error("signaling.jwks_url", problem)),
                // It may start later than this server.
                (Err(problem), Source::Url(_)) => warnings.push(format!("signaling.jwks_url: {problem}")),
            }
            RawKey::Public(JwtKey::set(Arc::new(set)))
        }
    };
    if let RawKey::Secret(secret) = &key
        && secret.len() < 32
    {
        warnings
            .push(format!("the key of signaling tokens has {} bytes; HS256 wants at least 32", secret.len()));
    }
    Ok(Some(key))
}

fn secrets(config: &Config, warnings: &mut Vec<String>) -> Result<Secrets, Error> {
    let mut secrets = config.credentials.secrets.clone();
    if let Some(path) = &config.credentials.secrets_file {
        secrets.extend(lines(config, "credentials.secrets_file", path)?);
    }
    if let Some(short) = secrets.iter().find(|secret| secret.len() < 16) {
        warnings.push(format!("a secret of credentials.secrets has {} bytes; use at least 16", short.len()));
    }
    if secrets.is_empty() {
        return Ok(Secrets::new([keep(config, SECRET)?]));
    }
    Ok(Secrets::new(secrets))
}

fn api_keys(config: &Config) -> Result<Vec<String>, Error> {
    let mut keys = config.credentials.api_keys.clone();
    if let Some(path) = &config.credentials.api_keys_file {
        keys.extend(lines(config, "credentials.api_keys_file", path)?);
    }
    Ok(keys)
}

/// The non-empty lines of a secret file.
fn lines(config: &Config, key: &str, path: &Path) -> Result<Vec<String>, Error> {
    check_private(config, key, path)?;
    let text = fs::read_to_string(path).map_err(|e| unreadable(config, key, path, &e))?;
    let lines: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(config.error(key, format!("{} is empty; write one secret a line", path.display())));
    }
    Ok(lines)
}

/// Refuses a secret file that others can read.
///
/// # Errors
/// They can, or it cannot be read at all.
pub(crate) fn check_private(config: &Config, key: &str, path: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(|e| unreadable(config, key, path, &e))?;
    if let Some(mode) = lax_mode(&metadata) {
        let path = path.display();
        return Err(
            config.error(key, format!("{path} can be read by everyone (mode {mode:04o}): chmod 600 {path}"))
        );
    }
    Ok(())
}

/// The mode of a file that everyone on this host can read.
#[cfg(unix)]
pub(super) fn lax_mode(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then_some(mode)
}

#[cfg(not(unix))]
pub(super) fn lax_mode(_: &fs::Metadata) -> Option<u32> {
    None
}

pub(crate) fn unreadable(config: &Config, key: &str, path: &Path, error: &io::Error) -> Error {
    config.error(key, format!("{} cannot be read: {}", path.display(), reason(error)))
}

/// This server's name among those that share a database, and a number that only it knows.
///
/// # Errors
/// The state directory cannot be read or written.
pub fn node(config: &Config) -> Result<(String, u64), Error> {
    let secret = keep(config, NODE)?;
    let text = String::from_utf8_lossy(&secret).into_owned();
    let salt = text.get(16..32).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let name = text.get(..16).map(str::to_owned);
    name.zip(salt)
        .ok_or_else(|| config.error("state_dir", "the file node is not one that turnkey wrote: remove it"))
}

/// The state directory, made where it is not there.
///
/// # Errors
/// There is none, or it cannot be made.
pub fn private_state_dir(config: &Config) -> Result<PathBuf, Error> {
    let directory = state_dir(config)?;
    create_private_dir(&directory).map_err(|e| {
        config.error("state_dir", format!("{} cannot be written: {}", directory.display(), reason(&e)))
    })?;
    Ok(directory)
}

/// A secret of the state directory, if it was generated before.
fn kept(config: &Config, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let path = state_dir(config)?.join(name);
    if !path.exists() {
        return Ok(None);
    }
    lines(config, "state_dir", &path).map(|lines| lines.into_iter().next().map(String::into_bytes))
}

/// A secret of the state directory, generated if it is not there yet.
fn keep(config: &Config, name: &str) -> Result<Vec<u8>, Error> {
    if let Some(secret) = kept(config, name)? {
        return Ok(secret);
    }
    let text: String = random::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
    write_once(config, name, format!("{text}\n").as_bytes())?;
    // Another process may have been first: what the file has now counts.
    kept(config, name)?.ok_or_else(|| config.error("state_dir", "a secret that was just written is gone"))
}

/// Writes a file of the state directory, mode 0600, unless it exists.
///
/// # Errors
/// The directory or file cannot be written.
pub(crate) fn write_once(config: &Config, name: &str, content: &[u8]) -> Result<PathBuf, Error> {
    let directory = state_dir(config)?;
    let path = directory.join(name);
    // Two servers of one process may be at it at the same time.
    let unique = u64::from_ne_bytes(random::<8>());
    let temporary = directory.join(format!(".{name}.{}.{unique:x}", std::process::id()));
    let write = || {
        create_private_dir(&directory)?;
        let mut file = create_private(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        // A link, unlike a rename, does not replace what another process wrote first.
        match fs::hard_link(&temporary, &path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    };
    let result = write();
    // It is gone already if creating it failed.
    let _ = fs::remove_file(&temporary);
    match result {
        Ok(()) => Ok(path),
        Err(e) => {
            let directory = directory.display();
            Err(config.error("state_dir", format!("{directory} cannot be written: {}", reason(&e))))
        }
    }
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn create_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Bytes from the operating system's random source.
///
/// # Panics
/// The system has none, which it never says once it runs.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}
