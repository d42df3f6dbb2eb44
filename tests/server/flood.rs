//! A flood of spoofed requests against the program itself: what it costs in memory.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use turnkey::stun::{AttributeType as A, Class, MessageWriter, Method, TransactionId};

use crate::harness::{Client, Home, LOOPBACK, get, metric, resident, until};

/// Allocates that stand for spoofed ones: each from an address of its own, and nobody reads the answer.
const SPOOFED: u32 = 100_000;

/// Resident memory may move by this much.
const TOLERANCE: u64 = 1024 * 1024;

fn allocate(server: SocketAddr, sources: std::ops::Range<u32>) {
    let mut packet = [0; 64];
    for n in sources {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let len = MessageWriter::new(&mut packet, Class::Request, Method::ALLOCATE, TransactionId(id))
            .attribute(A::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .fingerprint()
            .finish()
            .expect("fits");
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + n);
        let socket = UdpSocket::bind((source, 0)).expect("all of 127.0.0.0/8 is this machine");
        socket.send_to(&packet[..len], server).expect("sent");
    }
}

#[test]
fn design_4_3_a_hundred_thousand_spoofed_allocates_leave_memory_where_it_was() {
    let home = Home::new();
    let process = home.serve(LOOPBACK);
    let (server, admin) = (process.address("udp"), process.address("admin"));
    let challenged =
        || metric(&get(admin, "/metrics").body, "turnkey_requests_total{method=\"allocate\",result=\"401\"}");
    // What the first requests of any kind make resident is no trace of theirs.
    allocate(server, 0..20_000);
    let before = resident(&process);
    let answered = challenged();
    allocate(server, 20_000..20_000 + SPOOFED);
    Client::new(server).binding();
    let after = resident(&process);
    let reached = challenged() - answered;
    println!("resident before {before}, after {after}; {reached} of {SPOOFED} were answered");
    assert!(reached >= f64::from(SPOOFED) / 2.0, "the flood reached the server: {reached}");
    assert!(after.abs_diff(before) <= TOLERANCE, "{before} bytes before, {after} after");
    until(&0.0, || metric(&get(admin, "/metrics").body, "turnkey_allocations"));
}
