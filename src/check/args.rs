//! The command line of `turnkey check`.

use std::time::Duration;

/// Proves a running server from outside, step by step; exit code 0 only if every step passes.
///
/// Without arguments it learns the server and its credentials from <http://127.0.0.1:8080/v1/ice>.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// STUN/TURN server; without it, what the URL's /v1/ice advertises.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub server: Option<String>,

    /// Where the HTTP side listens [default: http://127.0.0.1:8080 when --server is not given].
    #[arg(long, value_name = "HTTP_URL")]
    pub url: Option<String>,

    /// User name for the relay, with --password.
    #[arg(long, requires = "password", conflicts_with = "secret")]
    pub user: Option<String>,

    /// Password of --user.
    #[arg(long, requires = "user")]
    pub password: Option<String>,

    /// Shared secret to make time-limited credentials with.
    #[arg(long)]
    pub secret: Option<String>,

    /// API key for /v1/ice.
    #[arg(long, conflicts_with = "token")]
    pub api_key: Option<String>,

    /// Signaling token (see `turnkey token`) for /v1/ice and the WebSocket.
    #[arg(long)]
    pub token: Option<String>,

    /// Accept any TLS certificate, such as the self-signed one of `turnkey serve --public`.
    #[arg(long)]
    pub insecure: bool,

    /// How long to wait for each answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub timeout: Duration,

    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(s) if s > 0.0 && s <= 600.0 => Ok(Duration::from_secs_f64(s)),
        Ok(_) => Err("must be above 0 and at most 600 seconds".into()),
        Err(_) => Err("is not a number of seconds".into()),
    }
}
