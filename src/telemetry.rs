//! Logging of the program: lines on standard error, as text or JSON, with a level that can be changed while
//! it runs.
//!
//! Levels: TRACE a packet, DEBUG a request, INFO the life of the process, WARN worth a look, ERROR broken.
//! Secrets and query strings are never logged, and so nothing that libraries say at TRACE; addresses and user names
//! only at DEBUG and below. Programs that embed a server install a subscriber of their own instead.

use std::io::IsTerminal;

use tracing::{Level as Verbosity, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{Log, LogFormat};

/// The level of the log, which can be changed.
pub struct Level(reload::Handle<EnvFilter, Registry>);

/// Starts logging.
///
/// # Errors
/// Another subscriber is installed already.
pub fn start(log: &Log) -> Result<Level, String> {
    let (filter, handle) = reload::Layer::new(filter(log));
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(shows_no_payload));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let result = match log.format {
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    result.map(|()| Level(handle)).map_err(|e| e.to_string())
}

impl Level {
    /// Takes a new level.
    pub fn set(&self, log: &Log) {
        if let Err(e) = self.0.reload(filter(log)) {
            tracing::error!(error = %e, "log level not changed");
        }
    }
}

/// At TRACE libraries write down what goes through them, tokens and all.
fn shows_no_payload(event: &Metadata<'_>) -> bool {
    *event.level() != Verbosity::TRACE || event.target().starts_with(env!("CARGO_CRATE_NAME"))
}

/// The configuration has checked the text, so that nothing in it is skipped.
fn filter(log: &Log) -> EnvFilter {
    EnvFilter::new(&log.level)
}
