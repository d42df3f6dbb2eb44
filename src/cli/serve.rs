//! `turnkey serve`: a server in this process until a signal ends it.
//!
//! SIGTERM and SIGINT stop it with good manners, a second one at once; SIGHUP reads the configuration again.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use turnkey::app::Handle;
use turnkey::config::address::literal;
use turnkey::config::secret::{Keys, random};
use turnkey::config::{Access, Config, Options};
use turnkey::http::token::{self, Claims};
use turnkey::telemetry::{self, Level};
use turnkey::{Server, systemd};

/// Arguments of `turnkey serve`.
#[derive(clap::Args, Default)]
pub(super) struct Args {
    /// Serve the world under this host name or address: HTTPS on all addresses (port 8443 unless http.listen is
    /// set) with the configured or a self-signed certificate, a token key, and an invite link.
    #[arg(long, value_name = "NAME_OR_IP")]
    public: Option<String>,
}

pub(super) fn run(mut options: Options, args: Args) -> Result<()> {
    options.public = args.public;
    let config = Config::load(&options)?;
    let level = telemetry::start(&config.log).map_err(anyhow::Error::msg)?;
    let runtime = runtime(signaling_threads()).context("no threads")?;
    runtime.block_on(serve(&options, config, &level))
}

/// One thread needs no scheduler for several, which costs each message something.
fn runtime(threads: usize) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build()
}

/// Half of the cores: the relay has threads of its own, and a message that stays on one thread on its way from
/// socket to socket costs less than one that wakes another.
fn signaling_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

async fn serve(options: &Options, config: Config, level: &Level) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("no signals")?;
    let mut end = End::new().context("no signals")?;
    let welcome = Welcome::new(&config, options.public.as_deref());
    let drain_timeout = config.relay.drain_timeout;
    let handle = Server::start(config).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    systemd::ready("serving");
    super::print(&welcome.text(&handle)?)?;
    if let Some(stall) = std::env::var("TURNKEY_TEST_STALL_WORKER").ok().and_then(|text| text.parse().ok()) {
        handle.stall_worker(0, Duration::from_secs(stall));
    }
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(options, &handle, level).await,
            () = end.signal() => break,
        }
    }
    tracing::info!("stopping");
    systemd::stopping();
    let wind_down = async {
        handle.drain();
        // Calls that have not ended by then end with the server.
        let _ = tokio::time::timeout(drain_timeout, handle.drained()).await;
        handle.stop().await;
    };
    let at_once = async {
        end.signal().await;
        // Whoever stands still cannot be waited for; the process takes all of them along.
        std::process::exit(0);
    };
    tokio::select! {
        () = wind_down => {}
        () = at_once => {}
    }
    tracing::info!("stopped");
    Ok(())
}

async fn reload(options: &Options, handle: &Handle, level: &Level) {
    systemd::reloading();
    // Reading takes a moment, which signaling may not wait for: it may be on this thread.
    let options = options.clone();
    let read = tokio::task::spawn_blocking(move || Config::load(&options)).await;
    let result = match read.expect("reading a configuration does not panic") {
        Ok(config) => {
            let log = config.log.clone();
            handle.reload(config).await.map(|fixed| (log, fixed))
        }
        Err(e) => Err(e),
    };
    match result {
        Ok((log, fixed)) => {
            level.set(&log);
            for key in fixed {
                tracing::warn!(key, "changed, takes effect after a restart");
            }
            tracing::info!("configuration read again");
        }
        Err(e) => tracing::error!(error = %e, "configuration not taken, the one before stays"),
    }
    systemd::ready("serving");
}

/// The signals that end the server.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn signal(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What a person is told after the start: which page to open.
struct Welcome {
    public: Option<String>,
    /// The key invite links are signed with, and what their tokens say in any case.
    key: Option<(Vec<u8>, Claims)>,
    ttl: Duration,
}

impl Welcome {
    fn new(config: &Config, public: Option<&str>) -> Self {
        let has_invite = public.is_some() && config.signaling.access == Access::Token;
        Self {
            public: public.map(str::to_owned),
            // A key that only verifies makes no link; the server says itself what is wrong with the others.
            key: (has_invite.then(|| Keys::signing(config).ok()).flatten())
                .map(|key| (key, super::mint::claims_of(config))),
            ttl: config.credentials.max_ttl,
        }
    }

    fn text(&self, handle: &Handle) -> Result<String> {
        let Some((address, https)) = handle.addresses().http.first().copied() else {
            return Ok(String::new());
        };
        let scheme = if https { "https" } else { "http" };
        let host = match &self.public {
            Some(name) => name.parse().map_or(name.clone(), literal),
            None if address.ip().is_unspecified() => "localhost".into(),
            None => literal(address.ip()),
        };
        let page = format!("{scheme}://{host}:{}/", address.port());
        let Some((key, claims)) = &self.key else {
            return Ok(format!("\nOpen this page in two browsers: {page}\n\n"));
        };
        let room: String = random::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let claims = Claims { sub: "guest".into(), room: Some(room.clone()), shared: true, ..claims.clone() };
        let token = token::mint(key, claims, super::mint::now(), self.ttl)?;
        let link = format!("{page}?room={room}&token={token}");
        let hours = self.ttl.as_secs() / 3600;
        Ok(format!(
            "\nOpen this link in two browsers. Whoever has it may enter the room for {hours} h:\n{link}\n\n"
        ))
    }
}
