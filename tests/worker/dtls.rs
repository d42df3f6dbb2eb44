//! Clients over DTLS, and strangers at a DTLS listener.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use turnkey::dtls::Identity;
use turnkey::io::DtlsCounters;
use turnkey::worker::{self, Backend, Pool, Setup};

use crate::client::{Client, Data, Link};
use crate::dtls_link::DtlsLink;
use crate::everyday::{CHANNEL, call_each_other, relays_in_channels_and_indications};
use crate::rig::{PATIENCE, accept, echo, in_own_process, payload, resident, setup, until};

on_each_backend!(
    a_dtls_client_relays_in_channels_and_indications,
    calls_between_dtls_and_other_clients,
    rfc6347_4_2_1_hellos_of_strangers_leave_nothing_behind,
    rfc6347_4_2_1_a_cookie_is_worth_nothing_at_another_address,
    rfc6347_4_2_8_a_session_lives_until_a_cookie_proves_that_its_client_began_again,
    handshakes_that_hang_are_bounded,
    a_handshake_that_takes_too_long_is_cut,
    what_belongs_to_no_session_is_dropped,
    a_goodbye_ends_the_allocation,
    an_idle_session_without_allocation_is_closed,
    sessions_are_bounded,
    a_new_certificate_is_shown_to_new_sessions,
    a_hello_without_common_ground_is_refused_at_once,
    a_stop_says_goodbye,
);

/// Where the random value of a hello is, and its cookie where there is no session identifier.
const RANDOM: usize = 13 + 12 + 2;
const COOKIE: usize = RANDOM + 32 + 1 + 1;

/// An identity and its certificate.
fn identity() -> (Identity, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().to_vec();
    (Identity::new(certificate.clone(), made.signing_key.serialize_der()).unwrap(), certificate)
}

fn dtls_setup(backend: Backend) -> Setup {
    let dtls = ["127.0.0.1:0", "[::1]:0"].map(|address| address.parse().unwrap()).to_vec();
    Setup { dtls, identity: Some(identity().0), ..setup(backend) }
}

fn pool(backend: Backend) -> Pool {
    worker::start(dtls_setup(backend)).unwrap()
}

fn counters(pool: &Pool) -> DtlsCounters {
    pool.io_stats().dtls
}

/// A socket nobody knows, connected to the listener.
fn stranger(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends a datagram and returns the answer.
fn ask(socket: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    socket.send(datagram).unwrap();
    let mut answer = vec![0; 2000];
    let len = socket.recv(&mut answer).unwrap();
    answer.truncate(len);
    answer
}

/// A handshake up to the second hello, which is returned with the socket that may send it.
fn second_hello(server: SocketAddr) -> (UdpSocket, Vec<u8>) {
    let mut link = DtlsLink::new(stranger(server));
    let request = ask(&link.socket.try_clone().unwrap(), &link.hello());
    assert_eq!((request.len(), request[13]), (60, 3), "a HelloVerifyRequest");
    link.hear(&request);
    let hello = link.hello();
    (link.socket, hello)
}

fn a_dtls_client_relays_in_channels_and_indications(backend: Backend) {
    let pool = pool(backend);
    for server in pool.dtls_addresses() {
        let mut client = Client::dtls(*server);
        let (peer, relayed) = relays_in_channels_and_indications(&mut client, 1, 9000);
        // RFC 8656 §12.5: no padding over UDP, DTLS included.
        client.send_channel(CHANNEL, &payload(5, 16_380));
        assert_eq!(peer.recv(&mut vec![0; 20_000]).unwrap(), 16_380);
        peer.send_to(&payload(5, 16_380), relayed).unwrap();
        assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(5, 16_380)));
        let drops = counters(&pool).drops;
        peer.send_to(&payload(5, 16_381), relayed).unwrap();
        until("what fits into no record is dropped", || counters(&pool).drops == drops + 1);
        client.release();
    }
    assert_eq!(pool.stats().allocations, 0);
}

fn calls_between_dtls_and_other_clients(backend: Backend) {
    let pool = Arc::new(pool(backend));
    let secure = || Client::dtls(pool.dtls_addresses()[0]);
    call_each_other(secure(), Client::dtls(pool.dtls_addresses()[1]));
    call_each_other(secure(), Client::udp(pool.udp_addresses()[0]));
    call_each_other(Client::tcp(accept(&pool, "127.0.0.1")), secure());
}

fn rfc6347_4_2_1_hellos_of_strangers_leave_nothing_behind(backend: Backend) {
    const HELLOS: u32 = 100_000;
    let scenario = || {
        let pool = pool(backend);
        let server = pool.dtls_addresses()[0];
        let sockets: Vec<_> = (0..20).map(|_| stranger(server)).collect();
        let mut hello = DtlsLink::new(stranger(server)).hello();
        let mut before = 0;
        let mut answer = [0; 2000];
        for n in 0..HELLOS {
            // Another random value: another client, as far as anybody can tell.
            hello[RANDOM..][..4].copy_from_slice(&n.to_be_bytes());
            let socket = &sockets[n as usize % sockets.len()];
            socket.send(&hello).unwrap();
            let len = socket.recv(&mut answer).unwrap();
            assert!(len < hello.len());
            if n == HELLOS / 10 {
                before = resident();
            }
        }
        let after = counters(&pool);
        assert_eq!((after.sessions, after.half_open, after.failures, after.refused), (0, 0, 0, 0));
        assert_eq!(after.verifications, u64::from(HELLOS));
        let grown = resident().saturating_sub(before);
        assert!(grown < 256 * 1024, "{grown} bytes more after {HELLOS} hellos");
    };
    in_own_process(&test_name(backend, "rfc6347_4_2_1_hellos_of_strangers_leave_nothing_behind"), scenario);
}

fn test_name(backend: Backend, scenario: &str) -> String {
    let module = if backend == Backend::Linux { "linux" } else { "portable" };
    format!("dtls::{module}::{scenario}")
}

fn rfc6347_4_2_1_a_cookie_is_worth_nothing_at_another_address(backend: Backend) {
    let pool = pool(backend);
    let server = pool.dtls_addresses()[0];
    let (socket, hello) = second_hello(server);
    let other = stranger(server);
    assert_eq!(ask(&other, &hello)[13], 3, "it is asked for its own cookie");
    let mut forged = hello.clone();
    forged[COOKIE] ^= 1;
    assert_eq!(ask(&socket, &forged)[13], 3, "no cookie of ours");
    assert_eq!((counters(&pool).sessions, counters(&pool).verifications), (0, 3));
    assert_eq!(ask(&socket, &hello)[13], 2, "a ServerHello");
    assert_eq!((counters(&pool).sessions, counters(&pool).half_open), (1, 1));
}

fn rfc6347_4_2_8_a_session_lives_until_a_cookie_proves_that_its_client_began_again(backend: Backend) {
    let pool = pool(backend);
    let mut client = Client::dtls(pool.dtls_addresses()[0]);
    client.allocate(1);
    client.bind(CHANNEL, echo("127.0.0.1"));
    let Link::Dtls(link) = &client.link else { panic!("a DTLS client") };
    let socket = link.socket.try_clone().unwrap();
    // Anybody could say this in the client's name.
    let mut hello = DtlsLink::new(stranger(pool.dtls_addresses()[0])).hello();
    socket.send(&hello).unwrap();
    hello[RANDOM] ^= 1;
    socket.send(&hello).unwrap();
    until("the hellos are answered", || counters(&pool).verifications >= 2);
    client.send_channel(CHANNEL, b"still here");
    assert_eq!(client.recv(), Data::Channel(CHANNEL, b"still here".to_vec()));
    assert_eq!((counters(&pool).sessions, pool.stats().allocations), (1, 1));
    // This only the client can do.
    let mut again = Client::over(DtlsLink::handshake(socket));
    assert_eq!(pool.stats().allocations, 0, "the allocation of the client's former life");
    again.allocate(1);
    assert_eq!((counters(&pool).sessions, pool.stats().allocations), (1, 1));
}

fn handshakes_that_hang_are_bounded(backend: Backend) {
    const BOUND: u64 = 256;
    let pool = pool(backend);
    let server = pool.dtls_addresses()[0];
    let (_, mut hello) = second_hello(server);
    let hang = |n: u64| {
        let socket = stranger(server);
        hello[RANDOM..][..8].copy_from_slice(&n.to_be_bytes());
        hello[COOKIE] ^= 1;
        let request = ask(&socket, &hello);
        hello[COOKIE..][..32].copy_from_slice(&request[28..]);
        socket.send(&hello).unwrap();
        socket
    };
    let _hanging: Vec<_> = (0..BOUND + 40).map(hang).collect();
    until("the surplus is refused", || counters(&pool).refused >= 40);
    assert_eq!(counters(&pool).half_open, BOUND);
    // Whoever is alive is served: those that hang give way.
    let mut client = Client::dtls(server);
    client.allocate(1);
    assert!(counters(&pool).half_open <= BOUND);
}

fn a_handshake_that_takes_too_long_is_cut(backend: Backend) {
    let identity = identity().0.with_handshake_timeout(Duration::from_millis(300));
    let pool = worker::start(Setup { identity: Some(identity), ..dtls_setup(backend) }).unwrap();
    let (socket, hello) = second_hello(pool.dtls_addresses()[0]);
    assert_eq!(ask(&socket, &hello)[13], 2);
    until("it is cut", || counters(&pool).failures == 1);
    assert_eq!((counters(&pool).sessions, counters(&pool).half_open), (0, 0));
}

fn what_belongs_to_no_session_is_dropped(backend: Backend) {
    let pool = pool(backend);
    let socket = stranger(pool.dtls_addresses()[0]);
    let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
    let record = [23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4];
    for (n, datagram) in [&binding[..], &record, b"", b"\x16"].into_iter().enumerate() {
        socket.send(datagram).unwrap();
        until("it is dropped", || counters(&pool).drops == n as u64 + 1);
    }
    assert_eq!((counters(&pool).sessions, counters(&pool).verifications), (0, 0));
    assert_eq!(
        ask(&socket, &DtlsLink::new(stranger(pool.dtls_addresses()[0])).hello())[13],
        3,
        "the first answer"
    );
}

fn a_goodbye_ends_the_allocation(backend: Backend) {
    let pool = pool(backend);
    let mut client = Client::dtls(pool.dtls_addresses()[0]);
    client.allocate(1);
    assert_eq!(pool.stats().allocations, 1);
    let Link::Dtls(link) = &mut client.link else { panic!("a DTLS client") };
    link.close();
    until("the allocation is gone", || pool.stats().allocations == 0);
    assert_eq!(counters(&pool).sessions, 0);
}

fn an_idle_session_without_allocation_is_closed(backend: Backend) {
    // Longer than a handshake and an Allocate take on a busy machine.
    let tcp_idle = Duration::from_secs(3);
    let pool = worker::start(Setup { tcp_idle, ..dtls_setup(backend) }).unwrap();
    let mut busy = Client::dtls(pool.dtls_addresses()[0]);
    busy.allocate(1);
    let mut idle = Client::dtls(pool.dtls_addresses()[0]);
    assert_eq!(idle.try_recv_raw(), None, "it is told");
    assert_eq!((counters(&pool).idle, counters(&pool).sessions), (1, 1));
    busy.bind(CHANNEL, echo("127.0.0.1"));
    busy.send_channel(CHANNEL, b"alive");
    assert_eq!(busy.recv(), Data::Channel(CHANNEL, b"alive".to_vec()));
}

fn sessions_are_bounded(backend: Backend) {
    let pool = worker::start(Setup { tcp_connections: 2, ..dtls_setup(backend) }).unwrap();
    let server = pool.dtls_addresses()[0];
    let (first, _second) = (Client::dtls(server), Client::dtls(server));
    let (socket, hello) = second_hello(server);
    socket.send(&hello).unwrap();
    until("the third is refused", || counters(&pool).refused == 1);
    let mut first = first;
    let Link::Dtls(link) = &mut first.link else { panic!("a DTLS client") };
    link.close();
    until("there is room again", || counters(&pool).sessions == 1);
    Client::dtls(server).mapped();
}

fn a_new_certificate_is_shown_to_new_sessions(backend: Backend) {
    let (first, shown_first) = identity();
    let pool = worker::start(Setup { identity: Some(first), ..dtls_setup(backend) }).unwrap();
    let server = pool.dtls_addresses()[0];
    let old = DtlsLink::connect(server);
    assert_eq!(old.shown, shown_first);
    let mut old = Client::over(old);
    old.allocate(1);
    let (second, shown_second) = identity();
    pool.identify(&second);
    // The workers have it when they answer the next question.
    let _ = pool.stats();
    assert_eq!(DtlsLink::connect(server).shown, shown_second);
    old.bind(CHANNEL, echo("127.0.0.1"));
    old.send_channel(CHANNEL, b"goes on");
    assert_eq!(old.recv(), Data::Channel(CHANNEL, b"goes on".to_vec()));
}

fn a_hello_without_common_ground_is_refused_at_once(backend: Backend) {
    let pool = pool(backend);
    let server = pool.dtls_addresses()[0];
    // DTLS 1.0, with the cookie it was asked for.
    let body = |cookie: &[u8]| {
        let mut body =
            [&[254, 255][..], &[7; 32], &[0, cookie.len() as u8], cookie, &[0, 2, 0, 47, 1, 0]].concat();
        let length = body.len() as u8;
        let seq = u8::from(!cookie.is_empty());
        let header = [
            22,
            254,
            255,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            seq,
            0,
            12 + length,
            1,
            0,
            0,
            length,
            0,
            seq,
            0,
            0,
            0,
            0,
            0,
            length,
        ];
        body.splice(0..0, header);
        body
    };
    let socket = stranger(server);
    let request = ask(&socket, &body(&[]));
    let alert = ask(&socket, &body(&request[28..60]));
    assert_eq!((alert[0], &alert[13..]), (21, &[2, 40][..]), "handshake_failure");
    assert_eq!((counters(&pool).sessions, counters(&pool).failures), (0, 1));
}

fn a_stop_says_goodbye(backend: Backend) {
    let pool = pool(backend);
    let mut client = Client::dtls(pool.dtls_addresses()[0]);
    client.allocate(1);
    pool.stop();
    assert_eq!(client.try_recv_raw(), None);
}
