//! turnkey bench: a load generator against any TURN server.

use std::process::ExitCode;

/// What load to generate.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Generates the load and prints what came back.
pub fn run(_args: &Args) -> ExitCode {
    ExitCode::FAILURE
}
