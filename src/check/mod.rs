//! turnkey check: proves a running server from outside.

use std::path::Path;
use std::process::ExitCode;

/// What to check.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Runs all steps; success only if each passes. `config` is the file named with `--config`.
pub fn run(_args: &Args, _config: Option<&Path>) -> ExitCode {
    ExitCode::FAILURE
}
