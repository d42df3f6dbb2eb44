//! From start to stop: whatever was open is closed.

use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Client, Home, LOOPBACK, credentials};
use crate::store::Socket;

/// Enters the room; the credentials of the welcome.
fn enter(server: SocketAddr) -> (Socket, (String, String)) {
    let (mut socket, welcome) = Socket::native(server, &json!({}));
    socket.join("room");
    (socket, credentials(&welcome["ice_servers"]))
}

/// Two people in a room, one of them with a relay; then SIGTERM.
fn one_life() {
    let home = Home::new();
    let mut process = home.serve(LOOPBACK);
    let (udp, tcp) = (process.address("udp"), process.address("tcp"));
    let http = process.address("http");
    let (mut one, (username, password)) = enter(http);
    let (mut two, _) = enter(http);
    Client::new(udp).allocate(&username, &password).expect("allocated");
    one.send(json!({ "t": "offer", "id": "2", "d": { "type": "offer", "sdp": "v=0" } }).to_string());
    assert_eq!(two.frame("offer")["d"]["sdp"], "v=0");
    let idle = TcpStream::connect(tcp).expect("a listener");
    process.signal(Signal::TERM);
    for socket in [&mut one, &mut two] {
        assert_eq!(socket.close_code(), Some(4450));
    }
    assert_eq!(process.wait(), Some(0), "{:?}", process.log);
    assert!(process.log.last().is_some_and(|line| line.contains("stopped")), "{:?}", process.log);
    drop(idle);
}

#[test]
fn a_hundred_lives_leave_nothing_behind() {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| (0..25).for_each(|_| one_life()))).collect();
    for thread in threads {
        thread.join().expect("every life ends well");
    }
}

#[test]
fn a_drain_lets_running_calls_end() {
    let home = Home::new();
    let config = LOOPBACK.replace("workers = 2", "workers = 2\ndrain_timeout = \"1h\"")
        + "[credentials]\nusers = { bob = \"builder\" }\n";
    let mut process = home.serve(&config);
    let mut client = Client::new(process.address("udp"));
    client.allocate("bob", "builder").expect("allocated");
    process.signal(Signal::TERM);
    process.wait_for("stopping");
    crate::harness::until(&true, || {
        let mut late = Client::new(process.address("udp"));
        let is_refused = late.allocate("bob", "builder").is_err();
        if !is_refused {
            // It came before the drain, which would wait for it too.
            late.refresh(0, "bob", "builder").expect("deleted");
        }
        is_refused
    });
    client.refresh(0, "bob", "builder").expect("the running call goes on, and ends");
    assert_eq!(process.wait(), Some(0));
}
