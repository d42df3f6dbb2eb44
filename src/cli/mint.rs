//! `turnkey credentials` and `turnkey token`: what a back end would mint, on the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use turnkey::config::secret::{Keys, random};
use turnkey::config::{Config, Options, Signaling, parse_duration};
use turnkey::credential::{self, Secrets};
use turnkey::http::token::{self, Claims};

/// Arguments of `turnkey credentials`.
#[derive(Args)]
pub(super) struct CredentialsArgs {
    /// Whom they are for.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// How long they are valid [default: credentials.ttl].
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Sign with this secret instead of the configured one.
    #[arg(long)]
    secret: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Arguments of `turnkey token`.
#[derive(Args)]
pub(super) struct TokenArgs {
    /// Whom it is for (claim `sub`).
    #[arg(long, value_name = "NAME")]
    user: String,
    /// The room it opens.
    #[arg(long)]
    room: String,
    /// The role in it.
    #[arg(long)]
    role: Option<String>,
    /// The name others see.
    #[arg(long)]
    name: Option<String>,
    /// What it allows, with commas between: join, signal, chat, moderate [default: all but moderate].
    #[arg(long, value_delimiter = ',', value_parser = ["join", "signal", "chat", "moderate"])]
    grants: Vec<String>,
    /// A ticket: it opens one session, once.
    #[arg(long)]
    once: bool,
    /// How long it is valid.
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
}

pub(super) fn credentials(options: &Options, args: &CredentialsArgs) -> Result<()> {
    let config = Config::load(options)?;
    let secrets = match &args.secret {
        Some(secret) => Secrets::new([secret]),
        None => Keys::load(&config)?.secrets,
    };
    let ttl = args.ttl.unwrap_or(config.credentials.ttl);
    if ttl > config.credentials.max_ttl {
        anyhow::bail!("--ttl is longer than credentials.max_ttl: the server would refuse these credentials");
    }
    let minted =
        credential::mint(&secrets, now(), ttl, &credential::id(&args.user, None)).context("--user")?;
    let (username, password) = (&minted.username, &minted.password);
    if args.json {
        let json = json!({
            "username": username, "password": password, "ttl": ttl.as_secs(), "expires_at": minted.expires_at,
        });
        return super::print(&format!("{json}\n"));
    }
    super::print(&format!(
        "username: {username}\npassword: {password}\nexpires:  {} (Unix time)\n",
        minted.expires_at
    ))
}

pub(super) fn sign_token(options: &Options, args: &TokenArgs) -> Result<()> {
    let config = Config::load(options)?;
    let key = Keys::signing(&config)?;
    let claims = Claims {
        sub: args.user.clone(),
        room: Some(args.room.clone()),
        role: args.role.clone(),
        name: args.name.clone(),
        grants: (!args.grants.is_empty()).then(|| args.grants.clone()),
        jti: args.once.then(|| format!("{:032x}", u128::from_ne_bytes(random()))),
        once: args.once,
        ..claims_of(&config)
    };
    super::print(&format!("{}\n", token::mint(&key, claims, now(), args.ttl)?))
}

/// What every token for this server says.
pub(super) fn claims_of(config: &Config) -> Claims {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let Signaling { jwt_issuer, jwt_audience, .. } = &config.signaling;
    Claims { iss: some(jwt_issuer), aud: some(jwt_audience), ..Claims::default() }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
