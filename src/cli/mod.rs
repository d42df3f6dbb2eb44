//! The command line: what can be asked for, and which part of the library answers.
//!
//! Owns argument parsing, what is printed, and the one-line errors. Decides nothing: `serve` is
//! `turnkey::Server`, the other commands are functions of the library.

mod mint;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use turnkey::config::address::Addresses;
use turnkey::config::import::Import;
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
    /// Configuration file (TOML, or coturn's turnserver.conf); without one, built-in defaults.
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
    /// Translate coturn's turnserver.conf: commented TOML on standard output, an account of every line on
    /// standard error.
    ///
    /// Each line is translated, turnkey's own way already, dropped for the reason given, or not understood; what is
    /// dangerous is marked DANGER. The exit code is 1 only where a line cannot be left out without serving whom
    /// the file keeps out. `turnkey serve --config turnserver.conf` runs such a file as it is. All options:
    /// docs/migrating-from-coturn.md.
    ///
    ///     turnkey config import /etc/turnserver.conf > turnkey.toml && chmod 600 turnkey.toml
    #[command(verbatim_doc_comment)]
    Import {
        /// The file; relative paths in it count from its directory.
        #[arg(value_name = "TURNSERVER.CONF", required_unless_present = "options")]
        file: Option<PathBuf>,
        /// Print what becomes of each of coturn's options instead, as a Markdown table.
        #[arg(long)]
        options: bool,
    },
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
        Command::Config(ConfigCommand::Import { file: Some(file), options: false }) => config_import(&file),
        Command::Config(ConfigCommand::Import { .. }) => print(&Import::options()),
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
    for note in config.notes() {
        report += &format!("note: {note}\n");
    }
    for line in keys.warnings.iter().chain(&addresses.notes) {
        report += &format!("note: {line}\n");
    }
    print(&(report + "configuration is valid\n"))
}

#[expect(clippy::print_stderr, reason = "the account of a translation, beside what it translates to")]
fn config_import(file: &Path) -> Result<()> {
    let import = Import::load(file)?;
    for note in import.notes() {
        eprintln!("{note}");
    }
    print(&import.to_toml())
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
