//! Starting, steering and stopping.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use turnkey::turn::{Mode, RelayAddress};
use turnkey::worker::{self, AdoptError, Arrival, Backend, Setup};

use crate::client::Client;
use crate::rig::{ip, low_port, pool, settings, setup, until};

on_each_backend!(
    a_taken_port_is_named,
    a_foreign_address_is_named,
    stop_frees_all_ports,
    a_pool_without_listeners_takes_connections,
    read_bytes_come_first,
    a_stalled_worker_stops_beating,
    settings_and_mode_reach_the_workers,
);

fn refusal(setup: Setup) -> String {
    match worker::start(setup) {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

fn a_taken_port_is_named(backend: Backend) {
    let taken = low_port("127.0.0.1");
    let free = Setup { udp: vec![taken], ..setup(backend) };
    let first = worker::start(free.clone()).unwrap();
    let text = refusal(free.clone());
    assert_eq!(
        text,
        format!("{}/udp is in use ({taken}): another TURN server? stop it or set relay.listen", taken.port())
    );
    // Not even half of a group is left bound by a start that failed.
    let other = low_port("127.0.0.1");
    refusal(Setup { udp: vec![other, taken], workers: 2, ..free });
    UdpSocket::bind(other).unwrap();
    drop(first);
    UdpSocket::bind(taken).unwrap();
}

fn a_foreign_address_is_named(backend: Backend) {
    let udp = vec!["192.0.2.1:3478".parse().unwrap()];
    assert_eq!(
        refusal(Setup { udp, ..setup(backend) }),
        "cannot listen on 192.0.2.1:3478/udp: 192.0.2.1 is not an address of this host, set relay.listen"
    );
    let mut foreign = setup(backend);
    foreign.settings.addresses = vec![RelayAddress { bind: ip("192.0.2.1"), public: ip("192.0.2.1") }];
    assert_eq!(
        refusal(foreign),
        "cannot relay from 192.0.2.1: it is not an address of this host, set relay.public_address"
    );
}

fn stop_frees_all_ports(backend: Backend) {
    let pool = Arc::new(worker::start(Setup { workers: 2, ..setup(backend) }).unwrap());
    let mut ports = pool.udp_addresses().to_vec();
    let tcp = crate::rig::accept(&pool, "127.0.0.1");
    let mut clients = vec![Client::tcp(tcp)];
    clients.extend((0..10).map(|_| Client::udp(ports[0])));
    ports.extend(clients.iter_mut().map(|client| client.allocate(1)));
    pool.stop();
    for port in ports {
        until("the port is free", || UdpSocket::bind(port).is_ok());
    }
    assert_eq!(clients[0].try_recv_raw(), None);
    pool.stop();
    let (stream, _) = pair();
    assert!(matches!(pool.adopt(Arrival::plain(stream, Vec::new()).unwrap()), Err(AdoptError::Stopped)));
    assert_eq!(pool.connections(), 0);
}

/// Two ends of a TCP connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, near)
}

fn a_pool_without_listeners_takes_connections(backend: Backend) {
    let pool = Arc::new(worker::start(Setup { udp: Vec::new(), ..setup(backend) }).unwrap());
    let mut client = Client::tcp(crate::rig::accept(&pool, "127.0.0.1"));
    assert_eq!(client.mapped(), client.local());
    assert!(pool.udp_addresses().is_empty());
}

fn read_bytes_come_first(backend: Backend) {
    use std::io::{Read, Write};

    let pool = pool(backend);
    let binding = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    for cut in [0, 1, 4, 19, 20] {
        let (far, mut near) = pair();
        near.write_all(&binding[cut..]).unwrap();
        pool.adopt(Arrival::plain(far, binding[..cut].to_vec()).unwrap()).unwrap();
        let mut reply = [0; 32];
        near.read_exact(&mut reply).unwrap();
        assert_eq!((reply[..2].to_vec(), &reply[8..20]), (vec![1, 1], &binding[8..]));
    }
    let (far, _near) = pair();
    assert!(matches!(
        pool.adopt(Arrival::plain(far, vec![0; 1 << 20]).unwrap()),
        Err(AdoptError::TooMuchRead)
    ));
}

fn a_stalled_worker_stops_beating(backend: Backend) {
    let pool = worker::start(Setup { workers: 2, ..setup(backend) }).unwrap();
    // An idle loop turns once a second, a stalled one does not.
    let start = pool.beats();
    until("both idle loops turn", || pool.beats().iter().zip(&start).all(|(now, before)| now > before));
    // Three times as long as counters wait for a worker.
    pool.stall(1, Duration::from_secs(6));
    let mut start = Vec::new();
    until("only the other loop turns", || {
        start = pool.beats();
        // Counters are told all the same, and asking for them makes the other loop turn.
        assert_eq!(pool.worker_stats().len(), 2);
        let now = pool.beats();
        now[0] > start[0] && now[1] == start[1]
    });
    until("it beats again", || pool.beats()[1] > start[1]);
}

fn settings_and_mode_reach_the_workers(backend: Backend) {
    let pool = worker::start(Setup { workers: 2, ..setup(backend) }).unwrap();
    let code = |realm: &str| {
        let mut client = Client::udp(pool.udp_addresses()[0]);
        let (_, request) = client.write_request(turnkey::stun::Method::ALLOCATE, &|writer| {
            writer.u32(turnkey::stun::AttributeType::REQUESTED_TRANSPORT, 17 << 24);
        });
        client.send_raw(&request);
        let reply = client.recv_raw();
        reply.windows(realm.len()).any(|window| window == realm.as_bytes())
    };
    assert!(code("test"));
    pool.reconfigure(turnkey::turn::Settings { realm: "elsewhere".into(), ..settings() });
    until("both workers know the realm", || (0..20).all(|_| code("elsewhere")));
    pool.reconfigure(settings());
    pool.set_mode(Mode::Draining);
    until("a drain refuses allocations", || {
        let mut client = Client::udp(pool.udp_addresses()[0]);
        let reply = client.request(turnkey::stun::Method::ALLOCATE, |writer| {
            writer.u32(turnkey::stun::AttributeType::REQUESTED_TRANSPORT, 17 << 24);
        });
        reply[..2] == [0x01, 0x13]
    });
}

#[test]
fn a_pool_describes_itself() {
    assert_eq!(pool(Backend::Portable).describe(), "portable (one datagram a call), 1 worker");
    #[cfg(target_os = "linux")]
    {
        let two = worker::start(Setup { workers: 2, ..setup(Backend::Auto) }).unwrap();
        assert_eq!(two.describe(), "linux (recvmmsg, sendmmsg, gro, gso, pktinfo), 2 workers");
    }
}
