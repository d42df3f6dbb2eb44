//! A relay with a table and no protocol: what moving a datagram costs in each technique.
//!
//!     floor TECHNIQUE PORT        TECHNIQUE: single, batch, offload, connected, uring
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

use table::Table;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [technique, port] = arguments.as_slice() else {
        return Err("usage: floor single|batch|offload|connected|uring PORT".into());
    };
    turnkey::io::linux::raise_descriptor_limit();
    let table = Table::open(port.parse()?)?;
    match technique.as_str() {
        "single" => single::run(table)?,
        "batch" => batch::run(table, batch::Options { offload: false, connected: false })?,
        "offload" => batch::run(table, batch::Options { offload: true, connected: false })?,
        "connected" => batch::run(table, batch::Options { offload: true, connected: true })?,
        "uring" => uring::run(table)?,
        _ => return Err(format!("{technique} is no technique").into()),
    }
    Ok(())
}
