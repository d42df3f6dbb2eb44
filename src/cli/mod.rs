//! The command line: what can be asked for, and which part of the library answers.
//!
//! Owns argument parsing and the one-line errors. Decides nothing: `serve` is `turnkey::Server`,
//! the other commands are functions of the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use turnkey::{bench, check};

/// STUN/TURN relay, time-limited credentials and signaling in one program.
///
/// Without a command it serves, on built-in defaults unless a configuration file is given.
#[derive(Parser)]
#[command(name = "turnkey", version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args, Clone)]
struct Common {
    /// Configuration file (TOML); without one, built-in defaults.
    #[arg(long, short, global = true, value_name = "FILE", env = "TURNKEY_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Prove a running server from outside, step by step.
    Check(check::Args),
    /// Generate load against any TURN server and measure it.
    Bench(bench::Args),
}

/// Runs the command that was asked for.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Check(args)) => check::run(&args, cli.common.config.as_deref()),
        Some(Command::Bench(args)) => bench::run(&args),
        None => ExitCode::SUCCESS,
    }
}
