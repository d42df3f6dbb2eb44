//! Sessions of REST (seed 004) over a `kill -9`: the same tokens open the same places, and the end is the end for
//! sockets, relay credentials and books.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{Home, LOOPBACK, until};
use crate::revoked::Relayed;
use crate::store::{Cluster, Socket, kill, post, token};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What joining the session gives.
fn join(server: SocketAddr, session: &str, user: &str) -> Value {
    let path = format!("/api/video/sessions/{session}/join");
    post(server, &path, &token(SECRET, user), r#"{"device_type":"web"}"#)
}

/// A socket as seed 004 opens it, in the room; what it was told on connecting.
fn enter(server: SocketAddr, joined: &Value) -> (Socket, Value) {
    let (mut socket, _) = Socket::socketio(server, &json!({}));
    let connected = socket.event("connected");
    let attendee = &joined["attendee"];
    let join = json!(["join_room", {
        "room_id": joined["room_id"], "user_id": attendee["user_id"], "role": attendee["role"],
        "token": attendee["access_token"],
    }]);
    socket.send(format!("42{join}"));
    let room = socket.event("joined_room");
    assert_eq!(room["peer_id"], attendee["peer_id"], "the place REST has named");
    (socket, connected)
}

#[test]
fn s4_25_s4_26_a_session_of_rest_goes_on_after_kill_9_and_its_end_is_the_end_for_all() {
    let (cluster, home) = (Cluster::new(), Home::new());
    let signaling = format!("[signaling]\naccess = \"token\"\njwt_secret = \"{SECRET}\"\n");
    let peers = "[peers]\nallow = [\"127.0.0.1/32\"]\n";
    let config = format!("{LOOPBACK}{peers}{signaling}[store]\nurl = \"{}\"\n", cluster.url());
    let mut process = home.serve(&config);
    let server = process.address("http");
    let made = post(
        server,
        "/api/video/sessions",
        &token(SECRET, "dora"),
        &json!({ "patient_id": "paul" }).to_string(),
    );
    let (session, room) =
        (made["session_id"].as_str().expect("an id"), made["room_id"].as_str().expect("a room"));
    let [dora, paul] = ["dora", "paul"].map(|user| join(server, session, user));
    let _sockets = [&dora, &paul].map(|joined| enter(server, joined));
    kill(&mut process);

    let process = home.serve(&config);
    let (server, relay) = (process.address("http"), process.address("udp"));
    let (mut dora_socket, _) = enter(server, &dora);
    let (mut paul_socket, _) = enter(server, &paul);
    let offer =
        json!(["webrtc_offer", { "from_peer_id": "", "offer": { "type": "offer", "sdp": "v=0\r\n" } }]);
    dora_socket.send(format!("42{offer}"));
    paul_socket.until("webrtc_offer");
    // A raw page of the patient's, to see the close code.
    let path = format!("/ws/signaling/{room}?token={}", token(SECRET, "paul"));
    let mut raw = Socket::open(server, &path);
    let relayed = Relayed::new(relay, &paul["ice_servers"]);
    post(server, &format!("/api/video/sessions/{session}/end"), &token(SECRET, "dora"), "");
    for socket in [&mut dora_socket, &mut paul_socket] {
        assert_eq!(socket.event("session_ended")["session_id"], session);
        assert_eq!(socket.until("41"), "41", "disconnected for good");
    }
    assert_eq!(raw.close_code(), Some(4404));
    relayed.ends(relay);
    assert_eq!(Socket::open(server, &path).close_code(), Some(4404), "nobody comes back");

    let row = format!("{session}|{room}|t|t");
    until(&vec![row], || {
        cluster.psql(
            "SELECT session_id, room_id, ended_at >= started_at, \
             session_duration_minutes = (ended_at - started_at) / 60.0 FROM sessions",
        )
    });
    let attendees = cluster.psql(
        "SELECT session_id, attendee_id, peer_id, user_id, role, reason, duration_minutes >= 0 FROM attendees \
         WHERE role IS NOT NULL ORDER BY user_id",
    );
    let wanted = [&dora, &paul].map(|joined| {
        let text = |field: &str| joined["attendee"][field].as_str().expect("a text").to_owned();
        let [attendee, peer, user, role] = ["attendee_id", "peer_id", "user_id", "role"].map(text);
        format!("{session}|{attendee}|{peer}|{user}|{role}|ended|t")
    });
    assert_eq!(attendees, wanted);
    let metrics = "SELECT attendees, session_duration_minutes >= 0 FROM metrics";
    assert_eq!(cluster.psql(metrics), ["2|t"]);
}
