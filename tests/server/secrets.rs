//! What nobody else may know is in no line of the log, however much of it is asked for.

use serde_json::{Value, json};

use crate::harness::{Client, Home, LOOPBACK, Process, credentials, get, get_with};
use crate::revoked::Relayed;
use crate::store::{Socket, post, token};

const KEY: &str = "a-key-for-the-tokens-Zq81-xkW0-mmP4";
const SECRET: &str = "behind-the-credentials-Hd72-ppR5-vvA9";
const API_KEY: &str = "of-a-back-end-Lw36-ttB8-qqN1";
const PASSWORD: &str = "of-a-static-user-Ye59-ccM2-jjF7";

/// A run of everything that has a secret; all of them.
fn use_all(process: &Process) -> Vec<String> {
    let (http, relay) = (process.address("http"), process.address("udp"));
    let mut secrets: Vec<String> = [KEY, SECRET, API_KEY, PASSWORD].map(str::to_owned).to_vec();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let [dora, paul] = ["dora", "paul"].map(|user| token(KEY, user));

    // Seed 004: access tokens of a consultation.
    let created = post(
        http,
        "/api/video/sessions",
        &dora,
        &json!({ "doctor_id": "dora", "patient_id": "paul" }).to_string(),
    );
    let id = text(&created["session_id"]);
    let mut sockets = Vec::new();
    for bearer in [&dora, &paul] {
        let joined = post(http, &format!("/api/video/sessions/{id}/join"), bearer, "{}");
        let attendee = &joined["attendee"];
        let (mut socket, connected) = Socket::socketio(http, &json!({ "token": bearer }));
        let join = json!(["join_room", {
            "room_id": joined["room_id"], "user_id": attendee["user_id"], "role": attendee["role"],
            "token": attendee["access_token"],
        }]);
        socket.send(format!("42{join}"));
        socket.event("joined_room");
        secrets.extend([
            text(&attendee["access_token"]),
            text(&connected["pid"]),
            credentials(&joined["ice_servers"]).1,
        ]);
        sockets.push(socket);
    }
    // A token that is another's is refused, which is logged.
    let stolen = secrets[4].clone();
    sockets[0]
        .send(format!("42{}", json!(["join_room", { "room_id": "r", "user_id": "x", "token": stolen }])));
    sockets[0].event("error");

    // Native: the secret a session is resumed with, also one that is wrong.
    let (mut native, welcome) = Socket::native(http, &json!({ "token": dora }));
    native.join("native");
    secrets.extend([text(&welcome["resume"]), credentials(&welcome["ice_servers"]).1]);
    drop(native);
    let (_, again) =
        Socket::native(http, &json!({ "token": dora, "resume": welcome["resume"], "last_seq": 0 }));
    secrets.push(text(&again["resume"]));

    // Seed 003: tokens in queries, headers and frames.
    let call = post(http, "/calls/initiate", &dora, &json!({ "callee_id": "paul" }).to_string());
    let path = format!("/ws/webrtc/{}", text(&call["call_id"]));
    drop(Socket::open(http, &format!("{path}?token={dora}")));
    let mut first = Socket::open(http, &path);
    first.send(json!({ "type": "auth", "token": dora }).to_string());
    let mut refused = Socket::open(http, &format!("{path}?token={}x", paul));
    refused.close_code();
    get(http, &format!("/calls/active?token={paul}"));
    get_with(http, "/calls/active", &format!("authorization: Bearer {paul}\r\n"));
    get(http, &format!("/turn?service=turn&username=u&key={API_KEY}"));
    get(http, &format!("/no/such/page?token={paul}"));

    // The relay: what logs in, what does not, and what is relayed.
    let relayed = Relayed::new(relay, &call["ice_servers"]);
    assert!(relayed.forwards());
    assert!(Client::new(relay).allocate("static", PASSWORD).is_ok());
    assert_eq!(Client::new(relay).allocate("static", "a-wrong-one-Us04-kkD3-ggT6"), Err(401));
    secrets.extend([credentials(&call["ice_servers"]).1, "a-wrong-one-Us04-kkD3-ggT6".into(), dora, paul]);
    secrets
}

#[test]
fn s4_31_no_secret_is_ever_logged() {
    let home = Home::new();
    let config = format!(
        "{LOOPBACK}[log]\nlevel = \"trace\"\n[peers]\nallow = [\"127.0.0.1/32\"]\n[signaling]\naccess = \"token\"\n\
         jwt_secret = \"{KEY}\"\n[credentials]\nsecrets = [\"{SECRET}\"]\napi_keys = [\"{API_KEY}\"]\n\
         [credentials.users]\nstatic = \"{PASSWORD}\"\n"
    );
    let mut process = home.serve(&config);
    let secrets = use_all(&process);
    assert_eq!(process.terminate(), Some(0));
    assert!(secrets.len() >= 16 && secrets.iter().all(|secret| secret.len() >= 16), "{secrets:?}");
    let tells = |what: &str| process.log.iter().any(|line| line.contains("DEBUG") && line.contains(what));
    assert!(tells("dora") && tells("sqlx"), "it tells who does what, and what libraries do");
    for secret in secrets {
        // Nor does it stand there in part, as the signature of a token would.
        let last = &secret[secret.len() - 12..];
        let told = process.log.iter().find(|line| line.contains(last));
        assert_eq!(told, None, "{secret}");
    }
}
