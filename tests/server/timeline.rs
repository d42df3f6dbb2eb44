//! What the relay did for a call stands in its timeline and, once it is over, in the books.

use serde_json::{Value, json};

use crate::harness::{Client, Home, LOOPBACK, eventually, get, until};
use crate::revoked::Relayed;
use crate::store::{Cluster, post, token};

const KEY: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn psql_reads_what_was_relayed_for_whom_and_why_a_call_failed() {
    let cluster = Cluster::new();
    let home = Home::new();
    let mut process = home.serve(&format!(
        "{LOOPBACK}[peers]\nallow = [\"127.0.0.1/32\"]\n[signaling]\naccess = \"token\"\njwt_secret = \"{KEY}\"\n\
         [store]\nurl = \"{}\"\n",
        cluster.url()
    ));
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
    assert!(relayed.forwards());

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
