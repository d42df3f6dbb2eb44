//! What allocations cost in resident memory, and that they give it back.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::{Resource, getrlimit};

use crate::harness::{Client, Home, LOOPBACK, Process, eventually, get, metric, resident};

/// Allocations at once; fewer where the system allows fewer sockets.
const ALLOCATIONS: u32 = 10_000;

/// User-space memory of an idle allocation.
const EACH: u64 = 2048;

const USER: (&str, &str) = ("alice", "wonderland");

/// Every client has an address of its own, none of which is the relay's, and a port that nobody is given by chance.
fn client(server: SocketAddr, n: u32) -> Client {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 2, 0, 0)) + n);
    Client::at((address, 10_009).into(), server)
}

fn allocate(server: SocketAddr, clients: std::ops::Range<u32>) {
    for n in clients {
        client(server, n).allocate(USER.0, USER.1).expect("a relayed address");
    }
}

fn release(server: SocketAddr, clients: std::ops::Range<u32>) {
    clients.for_each(|n| client(server, n).refresh(0, USER.0, USER.1).expect("an allocation"));
}

fn allocations(process: &Process) -> f64 {
    metric(&get(process.address("admin"), "/metrics").body, "turnkey_allocations")
}

#[test]
fn ten_thousand_idle_allocations_cost_two_kibibytes_each_and_give_them_back() {
    let sockets = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let count = ALLOCATIONS.min(u32::try_from(sockets.saturating_sub(200)).unwrap_or(u32::MAX));
    let home = Home::new();
    // The books of what was relayed have a database with a cache of its own.
    let process = home.serve(&format!(
        "{LOOPBACK}[credentials]\nusers = {{ {} = \"{}\" }}\n[peers]\nallow = [\"127.0.0.0/8\"]\n[store]\nurl = \"none\"\n",
        USER.0, USER.1
    ));
    let server = process.address("udp");
    // What the first of their kind make resident is no trace of the many.
    allocate(server, 0..1000);
    release(server, 0..1000);
    assert_eq!(allocations(&process), 0.0);
    let before = resident(&process);
    allocate(server, 0..count);
    assert_eq!(allocations(&process), f64::from(count));
    let full = resident(&process);
    release(server, 0..count);
    assert_eq!(allocations(&process), 0.0);
    // Memory is given back within a second or two.
    let bound = before + (full - before) / 20;
    let after = eventually(|| resident(&process), |resident| *resident <= bound);
    let each = full.saturating_sub(before) / u64::from(count);
    println!("{count} allocations: {before} bytes before, {full} with them ({each} each), {after} after");
    assert!(each <= EACH, "{each} bytes each");
}
