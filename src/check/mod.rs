//! turnkey check: proves a running server from outside, one line a step.
//!
//! Owns the steps and what to do about each failure. Every message on the wire is written and read
//! by the independent `turn` and `stun` crates, never by this crate's own codec, so that a mistake
//! in the codec cannot hide itself.

mod args;

pub use args::Args;

use std::path::Path;
use std::process::ExitCode;

/// Runs all steps; success only if each passes. `config` is the file named with `--config`.
pub fn run(_args: &Args, _config: Option<&Path>) -> ExitCode {
    ExitCode::FAILURE
}
