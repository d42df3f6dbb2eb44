//! turnkey bench: a load generator against any TURN server.

mod args;
mod error;

pub use args::{Args, Direction, Mode, Transport};
pub use error::Error;

use std::process::ExitCode;

/// Generates the load and prints what came back.
pub fn run(_args: &Args) -> ExitCode {
    ExitCode::FAILURE
}
