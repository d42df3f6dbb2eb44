//! turnkey check: proves a running server from outside, one line a step.
//!
//! Owns the steps and what to do about each failure. Every message on the wire is written and read
//! by the independent `turn` and `stun` crates, never by this crate's own codec, so that a mistake
//! in the codec cannot hide itself.

mod args;
mod ask;
mod conn;
mod dial;
mod relay;
mod report;
mod signaling;
mod steps;
mod target;

pub use args::Args;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use report::Report;
use steps::Check;
use target::Http;

/// Runs all steps; success only if each passes. `config` is the file named with `--config`, from which
/// the HTTP address and an API key are taken when none are given.
pub fn run(args: &Args, config: Option<&Path>) -> ExitCode {
    let passed = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(check(args, config, &mut io::stdout())));
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing more can be said when standard error is closed as well.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn check(args: &Args, config: Option<&Path>, out: &mut dyn Write) -> io::Result<bool> {
    match Http::find(args, config) {
        Ok(http) => Check::new(args, http).run(out).await,
        Err(problem) => {
            let mut report = Report::new(args.json);
            report.add(out, "server", problem.into())?;
            report.finish(out)
        }
    }
}
