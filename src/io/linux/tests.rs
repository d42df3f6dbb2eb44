//! The backend against the real kernel, also one that really refuses.

use std::net::{SocketAddr, UdpSocket as Plain};
use std::time::Duration;

use super::super::{Fields, Role, Route, SocketRef};
use super::*;

struct Rig {
    io: Linux,
    sockets: Sockets,
    batch: SendBatch,
    received: RecvBatch,
    counters: Counters,
}

const RELAY: SocketRef = SocketRef(0);

impl Rig {
    fn new(bind: &str) -> Self {
        let mut io = Linux::new();
        let mut socket = UdpSocket::bind(bind.parse().unwrap(), Role::Relay, 1 << 20).unwrap();
        io.prepare(&mut socket);
        let mut sockets = Sockets::default();
        sockets.insert(RELAY, socket);
        Self {
            io,
            sockets,
            batch: SendBatch::new(),
            received: RecvBatch::new(),
            counters: Counters::default(),
        }
    }

    fn fd(&self) -> i32 {
        self.sockets.get(RELAY).unwrap().inner.as_raw_fd()
    }

    /// Queues `count` packets of `len` bytes that begin with their number.
    fn push(&mut self, to: SocketAddr, count: u8, len: usize) {
        self.push_with(Fields::default(), to, count, len);
    }

    fn push_with(&mut self, fields: Fields, to: SocketAddr, count: u8, len: usize) {
        for n in 0..count {
            let route = Route { socket: RELAY, to, from: None };
            self.batch.push(route, fields, &[n], 0..len - 1, 0);
        }
    }

    fn send(&mut self) {
        self.io.send(&self.sockets, &self.batch, &self.received, &mut self.counters);
        self.batch.clear();
    }
}

fn peer() -> (Plain, SocketAddr) {
    let socket = Plain::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Reads `count` datagrams and returns their first bytes.
fn numbers(peer: &Plain, count: usize, len: usize) -> Vec<u8> {
    let mut buffer = [0; 65_536];
    let read = |_| {
        assert_eq!(peer.recv(&mut buffer).unwrap(), len);
        buffer[0]
    };
    (0..count).map(read).collect()
}

/// Makes the kernel answer `code` to system call `number` in this thread, if the argument `position`
/// is `value` where that is asked for.
fn refuse(number: libc::c_long, argument: Option<(u32, u32)>, code: i32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |k, jf| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, jf, k);
    let answer = |k| step(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let mut filter = vec![load(0), equal(number as u32, if argument.is_some() { 3 } else { 1 })];
    if let Some((position, value)) = argument {
        filter.extend([load(16 + 8 * position), equal(value, 1)]);
    }
    filter.extend([answer(libc::SECCOMP_RET_ERRNO | code as u32), answer(libc::SECCOMP_RET_ALLOW)]);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls get plain numbers and a pointer to a live program; they concern this thread.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

#[test]
fn a_run_leaves_with_one_call_and_arrives_as_its_packets() {
    let mut rig = Rig::new("127.0.0.1:0");
    let (peer, address) = peer();
    rig.push(address, 40, 1200);
    rig.send();
    assert_eq!(numbers(&peer, 40, 1200), (0..40).collect::<Vec<_>>());
    assert_eq!((rig.counters.send_calls, rig.counters.send_coalesced), (1, 40));
}

#[test]
fn a_coalesced_run_is_received_with_its_stride() {
    let mut sender = Rig::new("127.0.0.1:0");
    let mut rig = Rig::new("127.0.0.1:0");
    sender.push(rig.sockets.get(RELAY).unwrap().local(), 10, 100);
    sender.send();
    let socket = rig.sockets.get(RELAY).unwrap();
    assert!(rig.io.recv(socket, &mut rig.received, 64, &mut rig.counters));
    let list = rig.received.list();
    assert_eq!((list.len(), list[0].len, list[0].stride), (1, 1000, 100));
    assert_eq!(list[0].from, sender.sockets.get(RELAY).unwrap().local());
    assert_eq!(rig.counters.recv_packets, 10);
}

#[test]
fn a_socket_that_refuses_runs_gets_single_packets_and_is_not_asked_again() {
    let mut rig = Rig::new("127.0.0.1:0");
    // With SO_NO_CHECK the kernel answers EINVAL to UDP_SEGMENT.
    sys::set_option(rig.fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let (peer, address) = peer();
    rig.push(address, 20, 500);
    rig.send();
    assert_eq!(numbers(&peer, 20, 500), (0..20).collect::<Vec<_>>());
    assert_eq!(rig.io.capabilities().gso_max_segment, 0);
    assert_eq!(rig.counters.fallbacks, 1);
    rig.push(address, 20, 500);
    rig.send();
    assert_eq!(numbers(&peer, 20, 500).len(), 20);
    assert_eq!((rig.counters.fallbacks, rig.counters.send_packets), (1, 40));
    assert_eq!(rig.counters.send_failures, [0; 6]);
}

#[test]
fn a_segment_too_large_for_the_path_shrinks_the_limit_only() {
    let mut rig = Rig::new("127.0.0.1:0");
    sys::set_option(rig.fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let (peer, address) = peer();
    rig.push(address, 3, 1400);
    rig.send();
    assert_eq!(numbers(&peer, 3, 1400), [0, 1, 2]);
    assert_eq!(rig.io.capabilities().gso_max_segment, 1399);
}

#[test]
fn refused_calls_are_replaced_by_simpler_ones() {
    refuse(libc::SYS_recvmmsg, None, libc::ENOSYS);
    refuse(libc::SYS_sendmmsg, None, libc::ENOSYS);
    refuse(libc::SYS_setsockopt, Some((2, libc::UDP_GRO as u32)), libc::ENOPROTOOPT);
    refuse(libc::SYS_setsockopt, Some((2, libc::UDP_SEGMENT as u32)), libc::ENOPROTOOPT);
    let mut rig = Rig::new("127.0.0.1:0");
    let (peer, address) = peer();
    rig.push(address, 20, 300);
    rig.send();
    assert_eq!(numbers(&peer, 20, 300), (0..20).collect::<Vec<_>>());
    for n in 0..5 {
        peer.send_to(&[n; 50], rig.sockets.get(RELAY).unwrap().local()).unwrap();
    }
    let socket = rig.sockets.get(RELAY).unwrap();
    assert!(!rig.io.recv(socket, &mut rig.received, 4, &mut rig.counters));
    assert_eq!(rig.received.list().len(), 4);
    assert!(rig.io.recv(socket, &mut rig.received, 4, &mut rig.counters));
    assert_eq!(rig.received.list().len(), 1);
    assert_eq!(rig.io.capabilities(), Capabilities { pktinfo: true, ..Capabilities::default() });
    assert_eq!(rig.counters.fallbacks, 2);
}

#[test]
fn an_error_left_by_another_peer_does_not_eat_a_good_packet() {
    // The ICMP answer of a closed port is reported by the next call on a relay socket.
    let mut rig = Rig::new("127.0.0.1:0");
    let (peer, address) = peer();
    let closed = Plain::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for _ in 0..50 {
        rig.push(closed, 1, 10);
        rig.push(address, 1, 20);
        rig.push(closed, 2, 11);
        rig.push(address, 2, 20);
        rig.send();
        assert_eq!(numbers(&peer, 3, 20), [0, 0, 1]);
    }
    rig.push(closed, 1, 10);
    rig.send();
    peer.send_to(b"good", rig.sockets.get(RELAY).unwrap().local()).unwrap();
    let socket = rig.sockets.get(RELAY).unwrap();
    rig.io.recv(socket, &mut rig.received, 16, &mut rig.counters);
    assert_eq!(rig.received.list().len(), 1, "reading goes on behind a pending error");
    assert_eq!(rig.counters.recv_errors, 1);
}

#[test]
fn rfc8656_11_5_a_closed_port_is_told_with_the_peer_it_belongs_to() {
    for (bind, kind, code) in [("127.0.0.1:0", 3, 3), ("[::1]:0", 1, 4)] {
        let mut rig = Rig::new(bind);
        let closed =
            [Plain::bind(bind).unwrap(), Plain::bind(bind).unwrap()].map(|s| s.local_addr().unwrap());
        assert_eq!(rig.io.peer_error(rig.sockets.get(RELAY).unwrap()), None);
        for peer in closed {
            rig.push(peer, 1, 10);
        }
        rig.send();
        for peer in closed {
            let error = rig.io.peer_error(rig.sockets.get(RELAY).unwrap());
            assert_eq!(error, Some(PeerError { peer, kind, code, data: 0 }));
        }
        assert_eq!(rig.io.peer_error(rig.sockets.get(RELAY).unwrap()), None);
    }
}

#[test]
fn rfc8656_14_df_holds_for_its_packets_only() {
    let option = |fd, level, name| {
        let mut value: libc::c_int = -1;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: pointer and length describe `value`.
        let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
        assert_eq!(result, 0);
        value
    };
    let whole = Fields { dont_fragment: true, ..Fields::default() };
    for (bind, level, name, off) in [
        ("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
    ] {
        let mut rig = Rig::new(bind);
        let peer = Plain::bind(bind).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let address = peer.local_addr().unwrap();
        assert_eq!(option(rig.fd(), level, name), off);
        let lengths = [70, 71, 72, 73, 74, 75];
        for (n, len) in lengths.into_iter().enumerate() {
            rig.push_with(if [1, 2, 4].contains(&n) { whole } else { Fields::default() }, address, 2, len);
        }
        rig.send();
        let mut buffer = [0; 100];
        let seen: Vec<_> = (0..12).map(|_| peer.recv(&mut buffer).unwrap()).collect();
        assert_eq!(seen, lengths.map(|len| [len; 2]).concat(), "in their order");
        assert_eq!(option(rig.fd(), level, name), off, "off again");
        rig.push_with(whole, address, 1, 80);
        rig.send();
        assert_eq!(option(rig.fd(), level, name), off, "off again after the last packet of a batch");
    }
}

#[test]
fn an_unreachable_peer_costs_its_own_packets_only() {
    let mut rig = Rig::new("127.0.0.1:0");
    let (peer, address) = peer();
    // A socket bound to the loopback address has no way to the outside: EINVAL or ENETUNREACH.
    let outside = "192.0.2.1:9".parse().unwrap();
    for _ in 0..10 {
        rig.push(outside, 3, 100);
        rig.push(address, 3, 200);
        rig.push(outside, 1, 50);
    }
    rig.send();
    assert_eq!(numbers(&peer, 30, 200).len(), 30);
    assert_eq!(rig.counters.send_packets, 30);
    assert_eq!(rig.counters.send_failures.iter().sum::<u64>(), 40);
    assert_ne!(rig.io.capabilities().gso_max_segment, 0, "an address is no reason to give up runs");
}

#[test]
fn datagrams_that_found_no_room_are_counted() {
    let mut rig = Rig::new("127.0.0.1:0");
    let socket = rig.sockets.get(RELAY).unwrap();
    sys::set_option(rig.fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).unwrap();
    let (peer, _) = peer();
    for _ in 0..100 {
        peer.send_to(&[0; 1000], socket.local()).unwrap();
    }
    let into = &mut rig.received;
    rig.io.recv(socket, into, 64, &mut rig.counters);
    let lost = 100 - into.list().len() as u64;
    assert_eq!(rig.io.overflows(socket), lost);
    assert_eq!(rig.io.overflows(socket), 0, "each is counted once");
    // The next datagram tells of what was lost before it, and again each is counted once.
    into.recycle();
    for _ in 0..100 {
        peer.send_to(&[0; 1000], socket.local()).unwrap();
    }
    while into.list().len() < 2 {
        rig.io.recv(socket, into, 64, &mut rig.counters);
    }
    peer.send_to(&[0; 1000], socket.local()).unwrap();
    rig.io.recv(socket, into, 64, &mut rig.counters);
    assert_eq!(into.list().len(), 1);
    assert!(rig.counters.recv_overflows > 0, "while the socket is open and without asking");
    assert_eq!(rig.io.overflows(socket), 0);
}

#[test]
fn a_reply_leaves_from_the_address_the_request_came_to() {
    for (wildcard, address) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1")] {
        let mut rig = Rig::new(wildcard);
        let port = rig.sockets.get(RELAY).unwrap().local().port();
        let client = Plain::bind(if address.contains(':') { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
        client.connect((address, port)).unwrap();
        client.send(b"hello").unwrap();
        let socket = rig.sockets.get(RELAY).unwrap();
        rig.io.recv(socket, &mut rig.received, 16, &mut rig.counters);
        let received = rig.received.list()[0];
        let server = socket.destination(received.to);
        assert_eq!(server, SocketAddr::new(address.parse().unwrap(), port));
        let route = Route { socket: RELAY, to: received.from, from: socket.source(server) };
        let start = received.start as usize;
        for _ in 0..2 {
            rig.batch.push(route, Fields::default(), b"oh, ", start..start + 5, 0);
        }
        rig.send();
        let mut buffer = [0; 100];
        for _ in 0..2 {
            assert_eq!(
                client.recv(&mut buffer).unwrap(),
                9,
                "a connected socket takes it from {address} only"
            );
            assert_eq!(&buffer[..9], b"oh, hello");
        }
    }
}

#[test]
fn rfc8656_14_dscp_and_ecn_are_told_and_set() {
    for (bind, level, option) in
        [("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_TOS), ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_TCLASS)]
    {
        let mut rig = Rig::new(bind);
        let peer = Plain::bind(bind).unwrap();
        let relay = rig.sockets.get(RELAY).unwrap().local();
        // What a packet is sent with comes back: the socket sends to itself as well.
        for tos in [0xB8_u8, 0x01, 0x00] {
            sys::set_option(peer.as_raw_fd(), level, option, tos.into()).unwrap();
            peer.send_to(b"?", relay).unwrap();
            rig.push_with(Fields { tos, ..Fields::default() }, relay, 2, 100);
            rig.send();
            let mut seen = Vec::new();
            while seen.len() < 3 {
                let socket = rig.sockets.get(RELAY).unwrap();
                rig.io.recv(socket, &mut rig.received, 16, &mut rig.counters);
                let list = rig.received.list().iter();
                seen.extend(list.flat_map(|received| received.datagrams().map(|_| received.tos)));
            }
            assert_eq!(seen, [tos; 3]);
            rig.received.recycle();
        }
    }
}

#[test]
fn a_source_address_that_is_gone_does_not_stop_the_packet() {
    let mut rig = Rig::new("0.0.0.0:0");
    let (peer, address) = peer();
    let route = Route { socket: RELAY, to: address, from: Some("192.0.2.7".parse().unwrap()) };
    for n in 0..3 {
        rig.batch.push(route, Fields::default(), &[n], 0..9, 0);
    }
    rig.send();
    assert_eq!(numbers(&peer, 3, 10), [0, 1, 2]);
    assert_ne!(rig.io.capabilities().gso_max_segment, 0);
    assert_eq!(rig.counters.send_failures, [0; 6]);
}

#[test]
fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
    assert_eq!(raise_descriptor_limit(), raise_descriptor_limit());
    assert!(raise_descriptor_limit() > 0);
}
