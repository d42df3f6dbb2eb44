//! The command line: what can be asked for, and which part of the library answers.
//!
//! Owns argument parsing, what is printed, and the one-line errors. Decides nothing: `serve` is
//! `turnkey::Server`, the other commands are functions of the library.

mod mint;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use turnkey::config::address::Addresses;
use turnkey::config::secret::Keys;
use turnkey::config::{Config, Options};
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
    /// Where generated secrets are kept [default: $STATE_DIRECTORY, else ~/.local/state/turnkey].
    #[arg(long, global = true, value_name = "DIR", env = "TURNKEY_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl Common {
    fn options(&self) -> Options {
        Options { state_dir: self.state_dir.clone(), ..Options::from_env(self.config.as_deref()) }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run everything: relay, web page, API and signaling.
    Serve(serve::Args),
    /// Prove a running server from outside, step by step.
    Check(check::Args),
    /// Mint time-limited credentials from the configured secret.
    Credentials(mint::CredentialsArgs),
    /// Mint a signaling token from the configured key, for development and scripts.
    Token(mint::TokenArgs),
    /// Show or check the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Generate load against any TURN server and measure it.
    Bench(bench::Args),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration, secrets redacted, and what set each value.
    Print,
    /// Check the configuration against this host; says file, line and key of the first error.
    Check,
}

/// Runs the command that was asked for.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let options = cli.common.options();
    let result = match cli.command.unwrap_or_else(|| Command::Serve(serve::Args::default())) {
        Command::Serve(args) => serve::run(options, args),
        Command::Check(args) => return check::run(&args, cli.common.config.as_deref()),
        Command::Credentials(args) => mint::credentials(&options, &args),
        Command::Token(args) => mint::sign_token(&options, &args),
        Command::Config(ConfigCommand::Print) => config_print(&options),
        Command::Config(ConfigCommand::Check) => config_check(&options),
        Command::Bench(args) => return bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            print_error(&e);
            ExitCode::FAILURE
        }
    }
}

fn config_print(options: &Options) -> Result<()> {
    print(&Config::load(options)?.to_toml())
}

fn config_check(options: &Options) -> Result<()> {
    let config = Config::load(options)?;
    let keys = Keys::load(&config)?;
    let addresses = Addresses::find(&config)?;
    turnkey::app::check_certificate(&config)?;
    let mut report = String::new();
    for line in keys.warnings.iter().chain(&addresses.notes) {
        report += &format!("note: {line}\n");
    }
    print(&(report + "configuration is valid\n"))
}

/// Writes to standard output; a closed pipe is the reader's choice, not an error.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

#[expect(clippy::print_stderr, reason = "the one place where the program says why it failed")]
fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
