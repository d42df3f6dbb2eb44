//! Floods against the program itself: what they cost in memory.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use turnkey::stun::{AttributeType as A, Class, MessageWriter, Method, TransactionId};

use crate::harness::{Client, Home, LOOPBACK, Process, eventually, get, metric, resident, until};
use crate::tls;

/// Packets that stand for spoofed ones: each from an address of its own, and nobody reads the answer.
const SPOOFED: u32 = 100_000;

/// Resident memory may grow by this much; what is given back meanwhile is no trace.
const TOLERANCE: u64 = 1024 * 1024;

/// Connections of strangers at a time, and how often such a crowd comes.
const CROWD: usize = 200;
const CROWDS: usize = 40;

/// A request without credentials.
fn request(n: u32, method: Method, packet: &mut [u8; 64]) -> usize {
    let mut id = [0; 12];
    id[..4].copy_from_slice(&n.to_be_bytes());
    let mut writer = MessageWriter::new(packet, Class::Request, method, TransactionId(id));
    if method == Method::ALLOCATE {
        writer.attribute(A::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    }
    writer.fingerprint().finish().expect("fits")
}

fn garbage(n: u32, packet: &mut [u8; 64]) -> usize {
    packet.fill(n as u8 | 0x80);
    packet.len()
}

fn flood(server: SocketAddr, sources: std::ops::Range<u32>, write: impl Fn(u32, &mut [u8; 64]) -> usize) {
    let mut packet = [0; 64];
    for n in sources {
        let len = write(n, &mut packet);
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + n);
        let socket = UdpSocket::bind((source, 0)).expect("all of 127.0.0.0/8 is this machine");
        socket.send_to(&packet[..len], server).expect("sent");
    }
}

fn allocate(server: SocketAddr, sources: std::ops::Range<u32>) {
    flood(server, sources, |n, packet| request(n, Method::ALLOCATE, packet));
}

/// A crowd comes, says the first bytes of what never follows, and leaves when the server has noticed half of them.
fn half_open(process: &Process, server: SocketAddr, first_bytes: &[u8]) {
    let others = sockets(process);
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let mut stream = TcpStream::connect(server).expect("a listener");
            stream.write_all(first_bytes).expect("sent");
            stream
        })
        .collect();
    eventually(|| sockets(process), |open| *open >= others + CROWD / 2);
    drop(crowd);
    eventually(|| sockets(process), |open| *open <= others);
}

fn sockets(process: &Process) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).expect("procfs");
    let names = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
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
    // The rest overflowed its socket.
    assert!(reached >= f64::from(SPOOFED) / 10.0, "the flood reached the server: {reached}");
    assert!(after.saturating_sub(before) <= TOLERANCE, "{before} bytes before, {after} after");
    until(&0.0, || metric(&get(admin, "/metrics").body, "turnkey_allocations"));
}

#[test]
fn bindings_and_garbage_leave_memory_where_it_was() {
    let home = Home::new();
    let process = home.serve(LOOPBACK);
    let server = process.address("udp");
    let writers: [fn(u32, &mut [u8; 64]) -> usize; 2] =
        [|n, packet| request(n, Method::BINDING, packet), garbage];
    for write in writers {
        flood(server, 0..20_000, write);
        let before = resident(&process);
        flood(server, 20_000..20_000 + SPOOFED, write);
        Client::new(server).binding();
        let after = resident(&process);
        println!("resident before {before}, after {after}");
        assert!(after.saturating_sub(before) <= TOLERANCE, "{before} bytes before, {after} after");
    }
}

#[test]
fn connections_on_which_nothing_follows_leave_memory_where_it_was() {
    // The header of a TLS record that holds a hello, of which nothing comes; and a part of a STUN header.
    const HELLO: &[u8] = &[22, 3, 1, 2, 0, 1];
    const HEADER: &[u8] = &[0, 3, 0, 8, 0x21];
    let (home, pair) = (Home::new(), tls::Pair::new());
    let process = tls::serve(&home, &pair, "http://127.0.0.1:0", "[relay]");
    for (kind, first_bytes) in [("tcp", HEADER), ("tls", HELLO)] {
        let server = process.address(kind);
        // What the first crowds make resident is no trace of the many: threads have their own shares of memory.
        (0..CROWDS / 4).for_each(|_| half_open(&process, server, first_bytes));
        let before = resident(&process);
        (0..CROWDS).for_each(|_| half_open(&process, server, first_bytes));
        let after = eventually(|| resident(&process), |resident| *resident <= before + 2 * TOLERANCE);
        println!("{kind}: resident before {before}, after {after}");
    }
}
