//! What the relay did for a call stands in its timeline and in the books, whatever becomes of the server meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use turnkey::http::token::{Claims, mint};

use crate::harness::{Client, Home, LOOPBACK, Process, eventually, get, until};
use crate::revoked::Relayed;
use crate::store::{Cluster, Socket, kill, post, token};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn config(cluster: &Cluster) -> String {
    format!("{}[store]\nurl = \"{}\"\n", embedded(), cluster.url())
}

/// With the embedded database.
fn embedded() -> String {
    format!(
        "{LOOPBACK}[peers]\nallow = [\"127.0.0.1/32\"]\n[signaling]\naccess = \"token\"\njwt_secret = \"{KEY}\"\n"
    )
}

#[test]
fn psql_reads_what_was_relayed_for_whom_and_why_a_call_failed() {
    let cluster = Cluster::new();
    let home = Home::new();
    let mut process = home.serve(&config(&cluster));
    let (http, relay) = (process.address("http"), process.address("udp"));
    let ann = token(KEY, "ann");
    let call = post(http, "/calls/initiate", &ann, &json!({ "callee_id": "bob" }).to_string());
    let id = call["call_id"].as_str().expect("an id").to_owned();
    let timeline = || -> Value {
        let answer = get(http, &format!("/v1/calls/{id}/timeline?token={ann}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    };
    let types = || -> Vec<String> {
        let timeline = timeline();
        let events = timeline["events"].as_array().expect("events").iter();
        events.map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    };

    // Right credentials, and bytes through the relay.
    let relayed = Relayed::new(relay, &call["ice_servers"]);
    let wanted = ["initiated", "allocated", "first_byte"].map(str::to_owned).to_vec();
    until(&wanted, types);
    eventually(|| relayed.forwards(), |does| *does);

    // The callee's password is not of this server's secret.
    let name = call["ice_servers"].to_string();
    let name = name.split('"').find(|part| part.contains(":ann.call_")).expect("a user name");
    assert_eq!(Client::new(relay).allocate(&name.replace("ann", "bob"), "made elsewhere"), Err(401));
    let judged = eventually(timeline, |timeline| timeline["verdict"]["cause"] == "wrong_secret");
    let sentence = judged["verdict"]["sentence"].as_str().expect("a sentence").to_owned();
    assert!(sentence.contains("of bob: wrong secret"), "{sentence}");
    assert_eq!(
        judged["events"].as_array().and_then(|events| events.last()).map(|last| &last["step"]),
        Some(&json!("wrong_password"))
    );

    post(http, &format!("/calls/end/{id}"), &ann, "");
    let usage = format!(
        "SELECT user_id, scope = '{id}', transport, packets_to_client >= 1, bytes_to_client = 5 * packets_to_client, \
         packets_to_peer, duration_seconds >= 0 AND duration_seconds < 600, ended_at >= started_at FROM turn_usage"
    );
    until(&vec!["ann|t|udp|t|t|0|t|t".to_owned()], || cluster.psql(&usage));
    let kept = format!("SELECT room_id = '{id}', cause, timeline LIKE '%\"released\"%' FROM timelines");
    until(&vec!["t|wrong_secret|t".to_owned()], || cluster.psql(&kept));
    assert_eq!(cluster.psql("SELECT sentence FROM timelines"), [sentence]);

    // What still stands when the server stops is written down as well.
    let call = post(http, "/calls/initiate", &ann, &json!({ "callee_id": "bob" }).to_string());
    let _relayed = Relayed::new(relay, &call["ice_servers"]);
    assert_eq!(process.terminate(), Some(0));
    assert_eq!(cluster.psql("SELECT count(*) FROM turn_usage WHERE bytes_to_client > 0"), ["2"]);
}

/// A call that Ann and Bob are in, with its id.
struct InCall {
    id: String,
    ice_servers: Value,
    users: [String; 2],
}

impl InCall {
    fn new(process: &Process) -> Self {
        let http = process.address("http");
        let users = ["ann", "bob"].map(|user| token(KEY, user));
        let call = post(http, "/calls/initiate", &users[0], &json!({ "callee_id": "bob" }).to_string());
        let id = call["call_id"].as_str().expect("an id").to_owned();
        post(http, &format!("/calls/accept/{id}"), &users[1], "");
        Self { id, ice_servers: call["ice_servers"].clone(), users }
    }

    /// Both sockets, once the server reads them.
    fn enter(&self, process: &Process) -> [Socket; 2] {
        let path = format!("/ws/webrtc/{}", self.id);
        let open = |user| Socket::open(process.address("http"), &format!("{path}?token={user}"));
        self.users.each_ref().map(open)
    }

    fn timeline(&self, process: &Process) -> Value {
        let path = format!("/v1/calls/{}/timeline?token={}", self.id, self.users[0]);
        let answer = get(process.address("http"), &path);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// Waits until the timeline has such an event; its events.
    fn until(&self, process: &Process, kind: &str) -> Vec<Value> {
        let events = || self.timeline(process)["events"].as_array().expect("events").clone();
        eventually(events, |events| events.iter().any(|event| event["type"] == kind))
    }
}

fn state(state: &str) -> String {
    json!({ "type": "connection_state", "state": state }).to_string()
}

#[test]
fn a_call_that_lives_through_kill_9_and_a_restart_has_one_timeline() {
    let (cluster, home) = (Cluster::new(), Home::new());
    let mut process = home.serve(&config(&cluster));
    let call = InCall::new(&process);
    let [mut a, mut b] = call.enter(&process);
    let sdp = "v=0\r\n";
    a.send(json!({ "type": "offer", "offer": { "type": "offer", "sdp": sdp } }).to_string());
    b.until("offer");
    b.send(json!({ "type": "answer", "answer": { "type": "answer", "sdp": sdp } }).to_string());
    a.until("answer");
    a.send(state("connected"));
    call.until(&process, "state");
    let relayed = Relayed::new(process.address("udp"), &call.ice_servers);
    let first = call.until(&process, "first_byte");
    // It is written down a moment later.
    let row = format!(
        "SELECT count(*) FROM journal WHERE kind = 'timeline' AND owner = '{}' AND value LIKE '%first_byte%'",
        call.id
    );
    until(&vec!["1".to_owned()], || cluster.psql(&row));
    let sentence = call.timeline(&process)["verdict"].clone();
    assert_eq!(sentence["cause"], "connected", "{sentence}");
    kill(&mut process);
    drop(relayed);

    let mut process = home.serve(&config(&cluster));
    let second = call.until(&process, "restored");
    assert_eq!(second[..first.len()], first, "what was before");
    assert_eq!(call.timeline(&process)["verdict"], sentence, "and what became of it");
    let _sockets = call.enter(&process);
    let _relayed = Relayed::new(process.address("udp"), &call.ice_servers);
    let again = |events: &Vec<Value>| events.iter().filter(|event| event["type"] == "allocated").count() == 2;
    eventually(|| call.until(&process, "allocated"), again);
    // What the relay tells at its end is written before the server has ended.
    assert_eq!(process.terminate(), Some(0));

    let process = home.serve(&config(&cluster));
    let third = call.until(&process, "released");
    assert_eq!(third[..second.len()], second);
    let restarts = |events: &[Value]| events.iter().filter(|event| event["type"] == "restored").count();
    assert_eq!(restarts(&third), 2, "{third:?}");
    let [mut a, _b] = call.enter(&process);
    a.send(state("failed"));
    let judged = eventually(|| call.timeline(&process), |found| found["verdict"] != sentence);
    let words = judged["verdict"]["sentence"].as_str().expect("a sentence").to_owned();
    assert!(words.contains("after it had connected") && words.contains("had started anew"), "{words}");
    post(process.address("http"), &format!("/calls/end/{}", call.id), &call.users[0], "");
    let kept = format!("SELECT sentence FROM timelines WHERE timeline_id = '{}'", call.id);
    until(&vec![words], || cluster.psql(&kept));
    assert_eq!(cluster.psql("SELECT count(*) FROM journal WHERE kind = 'timeline'"), ["0"]);
}

#[test]
fn what_was_relayed_until_kill_9_stands_in_the_books() {
    let (cluster, home) = (Cluster::new(), Home::new());
    let mut process = home.serve(&config(&cluster));
    let call = InCall::new(&process);
    let relayed = Relayed::new(process.address("udp"), &call.ice_servers);
    let count = (0..20).filter(|_| relayed.forwards()).count();
    let usage = format!(
        "SELECT user_id, scope = '{}', packets_to_client >= {count}, bytes_to_client = 5 * packets_to_client, \
         ended_at >= started_at FROM turn_usage",
        call.id
    );
    let wanted = vec!["ann|t|t|t|t".to_owned()];
    until(&wanted, || cluster.psql(&usage));
    kill(&mut process);
    assert_eq!(cluster.psql(&usage), wanted, "{count} packets");
    // The next allocation is another one.
    let mut process = home.serve(&config(&cluster));
    let _relayed = Relayed::new(process.address("udp"), &call.ice_servers);
    assert_eq!(process.terminate(), Some(0));
    assert_eq!(cluster.psql("SELECT count(*) FROM turn_usage WHERE user_id = 'ann'"), ["2"]);
}

/// What a user with this token is told of a call or a room.
fn ask(process: &Process, id: &str, claims: Claims) -> (u16, Value) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let token = mint(KEY.as_bytes(), claims, now.as_secs(), Duration::from_secs(600)).expect("a token");
    let answer = get(process.address("http"), &format!("/v1/calls/{id}/timeline?token={token}"));
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

fn user(name: &str) -> Claims {
    Claims { sub: name.into(), ..Claims::default() }
}

/// A call and a room come to their ends, the server is killed, and the next one says of both what the first one said.
fn the_past_outlives_the_process(config: &str) {
    let home = Home::new();
    let mut process = home.serve(config);
    let call = InCall::new(&process);
    let [mut a, mut b] = call.enter(&process);
    a.send(json!({ "type": "offer", "offer": { "type": "offer", "sdp": "v=0\r\n" } }).to_string());
    b.until("offer");
    post(process.address("http"), &format!("/calls/end/{}", call.id), &call.users[0], "");
    let mut members = ["ann", "cat"].map(|user| {
        let hello = json!({ "token": token(KEY, user) });
        Socket::native(process.address("http"), &hello).0
    });
    members.iter_mut().for_each(|member| member.join("the room"));
    let offer = json!({ "t": "offer", "id": "o", "d": { "type": "offer", "sdp": "v=0\r\n" } });
    members[0].send(offer.to_string());
    members[1].frame("offer");
    // What is acknowledged is written.
    for member in &mut members {
        member.send(r#"{"t":"leave","id":"l"}"#);
        member.until(r#""ref":"l""#);
    }
    let room = "the%20room";
    let room_before = ask(&process, room, user("cat"));
    assert_eq!((room_before.0, room_before.1["ended_at"].is_string()), (200, true), "{}", room_before.1);
    let call_before = ask(&process, &call.id, user("ann"));
    assert_eq!((call_before.0, &call_before.1["status"]), (200, &json!("ended")), "{}", call_before.1);
    kill(&mut process);

    let process = home.serve(config);
    for (id, before) in [(&*call.id, call_before), (room, room_before)] {
        assert_eq!(ask(&process, id, user("ann")), before);
        assert_eq!(ask(&process, id, user("eve")).0, 404, "not of hers");
        let admin = Claims { role: Some("admin".into()), ..user("root") };
        assert_eq!(ask(&process, id, admin), before);
    }
    let named = |room: &str| Claims { room: Some(room.into()), ..user("eve") };
    assert_eq!(ask(&process, &call.id, named(&call.id)).0, 200, "her token names it");
    assert_eq!(ask(&process, &call.id, named("another")).0, 404);
    assert_eq!(ask(&process, "call_0", user("ann")).0, 404);
    assert_eq!(get(process.address("http"), &format!("/v1/calls/{}/timeline", call.id)).status, 401);
    // A room that is in use again has a new timeline.
    let (mut ann, _) = Socket::native(process.address("http"), &json!({ "token": call.users[0] }));
    ann.join("the room");
    assert_eq!(ask(&process, room, user("ann")).1["ended_at"], Value::Null);
}

#[test]
fn a_call_that_is_over_has_its_timeline_after_a_restart() {
    the_past_outlives_the_process(&embedded());
}

#[test]
fn a_call_that_is_over_has_its_timeline_after_a_restart_with_postgresql_and_through_an_outage() {
    let cluster = Cluster::new();
    the_past_outlives_the_process(&config(&cluster));
    let home = Home::new();
    let process = home.serve(&config(&cluster));
    let status = || ask(&process, "call_0", user("ann")).0;
    assert_eq!(status(), 404);
    cluster.stop();
    until(&503, status);
    cluster.start();
    until(&404, status);
}

#[test]
fn without_a_database_what_is_over_goes_with_the_process() {
    let home = Home::new();
    let config = format!("{}[store]\nurl = \"none\"\n", embedded());
    let mut process = home.serve(&config);
    let call = InCall::new(&process);
    post(process.address("http"), &format!("/calls/end/{}", call.id), &call.users[0], "");
    assert_eq!(ask(&process, &call.id, user("bob")).0, 200);
    kill(&mut process);
    assert_eq!(ask(&home.serve(&config), &call.id, user("bob")).0, 404);
}
