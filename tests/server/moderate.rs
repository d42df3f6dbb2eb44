//! A moderator sends out and mutes members of every dialect, from native and from each vocabulary of Socket.IO: over
//! real sockets, with the close codes, and with the relay allocations that end.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use turnkey::http::token::{Claims, mint};

use crate::harness::{Home, LOOPBACK, Process};
use crate::revoked::Relayed;
use crate::store::{Socket, post, token};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn serve(home: &Home) -> Process {
    home.serve(&format!(
        "{LOOPBACK}[peers]\nallow = [\"127.0.0.1/32\"]\n[signaling]\naccess = \"token\"\njwt_secret = \"{SECRET}\"\n\
         sockets_per_address = 1000\nconnects_per_minute = 10000\n"
    ))
}

/// A token that grants to moderate in the room.
fn moderator(room: &str) -> String {
    let grants = Some(["join", "signal", "moderate"].map(str::to_owned).to_vec());
    let claims = Claims { sub: "boss".into(), rooms: Some(vec![room.into()]), grants, ..Claims::default() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    mint(SECRET.as_bytes(), claims, now, Duration::from_secs(600)).expect("a token")
}

/// The three vocabularies of Socket.IO in which rooms are joined: prefix of the verbs, name of the join, its room.
const VOCABULARIES: [(&str, &str, &str); 3] = [
    ("", "join_room", "room_id"),
    ("webrtc:", "webrtc:join_room", "roomId"),
    ("webrtc:", "join_consultation_room", "roomId"),
];

/// A Socket.IO member; its ICE servers.
fn socketio(
    server: SocketAddr,
    token: &str,
    room: &str,
    (_, join, key): (&str, &str, &str),
) -> (Socket, Value) {
    let (mut socket, _) = Socket::socketio(server, &json!({ "token": token }));
    let connected = socket.event("connected");
    let ok = ask(&mut socket, join, &json!({ key: room }));
    assert_eq!(ok["ok"], true, "{ok}");
    (socket, connected["ice_servers"].clone())
}

/// Emits an event; what it is acknowledged with.
fn ask(socket: &mut Socket, name: &str, payload: &Value) -> Value {
    socket.send(format!("427{}", json!([name, payload])));
    let text = socket.until("437[");
    serde_json::from_str::<Value>(&text[3..]).expect("JSON")[0].take()
}

/// A native member; its welcome.
fn native(server: SocketAddr, token: &str, room: &str) -> (Socket, Value) {
    let (mut socket, welcome) = Socket::native(server, &json!({ "token": token }));
    socket.join(room);
    (socket, welcome)
}

/// A native moderator sends somebody out.
fn kick(boss: &mut Socket, user: &str) {
    boss.send(json!({ "t": "kick", "id": user, "to": user }).to_string());
    assert_eq!(boss.frame("ok")["ref"], *user);
}

#[test]
fn s4_32_moderators_of_every_vocabulary_send_out_members_of_every_dialect() {
    let home = Home::new();
    let process = serve(&home);
    let (server, relay) = (process.address("http"), process.address("udp"));
    // By native.
    let (mut boss, _) = native(server, &moderator("r"), "r");
    let (mut ann, welcome) = native(server, &token(SECRET, "ann"), "r");
    let relayed = Relayed::new(relay, &welcome["ice_servers"]);
    kick(&mut boss, "ann");
    assert_eq!(ann.frame("error")["d"]["code"], "forbidden");
    assert_eq!(ann.close_code(), Some(4441));
    relayed.ends(relay);
    let (mut again, _) = Socket::native(server, &json!({ "token": token(SECRET, "ann") }));
    again.send(json!({ "t": "join", "d": { "room": "r" } }).to_string());
    assert_eq!(again.frame("error")["d"]["code"], "forbidden", "and stays out");

    for (path, user) in [("/ws/signaling/r?", "raw"), ("/peerjs?key=r&id=peer&", "peer")] {
        let path = format!("{path}token={}", token(SECRET, user));
        let mut member = Socket::open(server, &path);
        boss.frame("member-joined");
        kick(&mut boss, user);
        assert_eq!(member.close_code(), Some(4441), "{path}");
        assert_eq!(Socket::open(server, &path).close_code(), Some(4403), "{path}");
    }
    // By each vocabulary of Socket.IO, whoever speaks which.
    for (n, by) in VOCABULARIES.into_iter().enumerate() {
        for (m, of) in VOCABULARIES.into_iter().enumerate() {
            let (room, user) = (format!("r{n}"), format!("user{n}{m}"));
            let (mut boss, _) = socketio(server, &moderator(&room), &room, by);
            let (mut member, servers) = socketio(server, &token(SECRET, &user), &room, of);
            let relayed = (n == m).then(|| Relayed::new(relay, &servers));
            let refused = ask(&mut member, &format!("{}kick", of.0), &json!({ "user_id": "boss" }));
            assert_eq!(refused["code"], "forbidden", "not every member may");
            assert_eq!(ask(&mut boss, &format!("{}kick", by.0), &json!({ "user_id": user }))["ok"], true);
            let told = member.event(&format!("{}kicked", of.0));
            assert_eq!(told[of.2], room, "{told}");
            assert_eq!(member.until("41"), "41", "the stock client does not come back by itself");
            if let Some(relayed) = relayed {
                relayed.ends(relay);
            }
            let (mut again, _) = Socket::socketio(server, &json!({ "token": token(SECRET, &user) }));
            assert_eq!(ask(&mut again, of.1, &json!({ of.2: room }))["code"], "forbidden", "and stays out");
            let unknown = ask(&mut boss, &format!("{}kick", by.0), &json!({ "user_id": "nobody" }));
            assert_eq!(unknown["code"], "no_such_member", "nobody else for one who is not there");
        }
    }
}

#[test]
fn s4_32_who_is_sent_out_of_a_call_loses_its_socket_and_the_relay_it_was_given_for_it() {
    let home = Home::new();
    let process = serve(&home);
    let (server, relay) = (process.address("http"), process.address("udp"));
    let (ann, bob) = (token(SECRET, "ann"), token(SECRET, "bob"));
    let call = post(server, "/calls/initiate", &ann, &json!({ "callee_id": "bob" }).to_string());
    let id = call["call_id"].as_str().expect("an id");
    post(server, &format!("/calls/accept/{id}"), &bob, "");
    let (mut boss, _) = native(server, &moderator(id), id);
    let mut member = Socket::open(server, &format!("/ws/webrtc/{id}?token={ann}"));
    boss.frame("member-joined");
    let mut other = Socket::open(server, &format!("/ws/webrtc/{id}?token={bob}"));
    boss.frame("member-joined");
    let relayed = Relayed::new(relay, &call["ice_servers"]);
    kick(&mut boss, "ann");
    assert_eq!(member.close_code(), Some(4441));
    relayed.ends(relay);
    assert_eq!(other.close_code(), Some(1000), "a call without one of its parties is over");
}

#[test]
fn s4_32_members_of_every_dialect_are_asked_to_mute_themselves_and_all_see_it() {
    let home = Home::new();
    let process = serve(&home);
    let server = process.address("http");
    let (mut ann, _) = native(server, &token(SECRET, "ann"), "r");
    let raw = format!("/ws/signaling/r?events=1&token={}", token(SECRET, "raw"));
    let mut raw = Socket::open(server, &raw);
    ann.frame("member-joined");
    let mut members = VOCABULARIES.map(|of| {
        let user = format!("user-{}", of.1);
        let socket = socketio(server, &token(SECRET, &user), "r", of).0;
        (of, user, socket)
    });
    for by in VOCABULARIES {
        let (mut boss, _) = socketio(server, &moderator("r"), "r", by);
        let verb = format!("{}mute", by.0);
        let mut mute =
            |user: &str, track: &str| ask(&mut boss, &verb, &json!({ "user_id": user, "track": track }));
        assert_eq!(mute("ann", "thoughts")["code"], "bad_frame");
        assert_eq!(mute("ann", "audio")["ok"], true);
        assert_eq!(ann.frame("mute")["d"]["track"], "audio");
        for (of, _, member) in &mut members {
            let seen = member.until(if of.0.is_empty() { "audio_toggled" } else { r#""audio":false"# });
            assert!(seen.contains(r#""ann""#), "{seen}");
        }
        assert_eq!(mute("raw", "video")["ok"], true);
        assert!(raw.until(r#""type":"mute""#).contains(r#""track":"video""#));
        for (of, user, member) in &mut members {
            assert_eq!(mute(user, "screen")["ok"], true);
            let told = member.event(&format!("{}muted", of.0));
            assert_eq!((&told[of.2], &told["track"]), (&json!("r"), &json!("screen")), "{told}");
            assert!(told["by"].as_str().is_some_and(|by| by.contains("boss")), "{told}");
        }
    }
}
