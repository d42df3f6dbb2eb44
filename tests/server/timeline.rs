//! What the relay did for a call stands in its timeline and in the books, whatever becomes of the server meanwhile.

use serde_json::{Value, json};

use crate::harness::{Client, Home, LOOPBACK, Process, eventually, get, until};
use crate::revoked::Relayed;
use crate::store::{Cluster, Socket, kill, post, token};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn config(cluster: &Cluster) -> String {
    format!(
        "{LOOPBACK}[peers]\nallow = [\"127.0.0.1/32\"]\n[signaling]\naccess = \"token\"\njwt_secret = \"{KEY}\"\n\
         [store]\nurl = \"{}\"\n",
        cluster.url()
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
