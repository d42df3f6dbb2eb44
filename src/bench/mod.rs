//! turnkey bench: a load generator against any TURN server.
//!
//! Owns the clients and the peers of a measurement, in one or more threads, and what comes out of
//! it: rates, loss, latency, and the CPU time and memory of the server's process. The server is only
//! ever talked to over the network, so any TURN server can be measured. Requests are built with this
//! crate's own codec; proving that codec right is not done here.

mod account;
mod args;
mod binding;
mod conductor;
mod crew;
mod cycles;
mod error;
mod flood;
mod histogram;
mod link;
mod load;
mod meter;
mod packet;
mod plan;
mod relay;
mod report;
mod search;
mod session;
mod still;
mod tally;

pub use args::{Args, Direction, Flood, Mode, Transport};
pub use error::Error;

use std::io::{self, Write};
use std::process::ExitCode;

use report::Report;

/// Generates the load and prints what came back; what went wrong goes to standard error.
pub fn run(args: &Args) -> ExitCode {
    let written = match measure(args) {
        Ok(report) if args.json => report.write_json(&mut io::stdout().lock()),
        Ok(report) => report.write_text(&mut io::stdout().lock()),
        Err(error) => writeln!(io::stderr(), "error: {error}").and(Err(io::ErrorKind::Other.into())),
    };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(args: &Args) -> Result<Report, Error> {
    let plan = plan::Plan::from_args(args)?;
    let meter = meter::Meter::new(args.pid)?;
    let bar = conductor::progress_bar();
    let findings = conductor::conduct(args, &plan, meter, &bar);
    bar.finish_and_clear();
    Ok(Report::new(args, &plan, &findings?))
}
