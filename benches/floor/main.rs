//! A relay with a table and no protocol: what moving a datagram costs in each technique.
//!
//!     floor single|batch|offload|connected|uring PORT
//!
//! Clients come to 127.0.0.1:PORT with ChannelData, each flow has a relay socket and one peer. Nothing is checked but
//! the client's port, so what this costs is what the kernel asks for. To be driven by `turnkey bench` like any
//! server it answers a client's requests ([`table`]), which is over before traffic flows. `benches/floor/run` starts
//! it, beside turnkey, and prints the table of `docs/performance.md`.
#![expect(unsafe_code, reason = "recvmmsg, sendmmsg and io_uring are only reachable through raw pointers")]

mod batch;
mod incoming;
mod outgoing;
mod single;
mod table;
mod uring;

use std::error::Error;
use std::io;

pub(crate) use table::Table;
pub(crate) use uring::is_allowed as may_use_io_uring;

/// The techniques by name.
pub(crate) const TECHNIQUES: [&str; 5] = ["single", "batch", "offload", "connected", "uring"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let technique = arguments.first().filter(|name| TECHNIQUES.contains(&name.as_str()));
    let (Some(technique), [_, port]) = (technique, arguments.as_slice()) else {
        return Err(format!("usage: floor {} PORT", TECHNIQUES.join("|")).into());
    };
    if technique == "uring" && !may_use_io_uring() {
        return Err("this kernel or container allows no io_uring".into());
    }
    turnkey::io::linux::raise_descriptor_limit();
    Ok(serve(technique, Table::open(port.parse()?)?)?)
}

/// Relays until the technique fails.
pub(crate) fn serve(technique: &str, table: Table) -> io::Result<()> {
    match technique {
        "single" => single::run(table),
        "batch" => batch::run(table, batch::Options { offload: false, connected: false }),
        "offload" => batch::run(table, batch::Options { offload: true, connected: false }),
        "connected" => batch::run(table, batch::Options { offload: true, connected: true }),
        _ => uring::run(table),
    }
}
