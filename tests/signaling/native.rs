//! The native protocol on the pure hub.

use crate::sim::{Sim, kinds};

const OFFER: &str = r#"{"type":"offer","sdp":"v=0\r\n"}"#;

#[test]
fn join_gives_the_roster_and_the_polite_roles() {
    let mut sim = Sim::new();
    let (a, a_id) = sim.member("ann", "r");
    let (b, _) = sim.native("bob");
    let joined = sim.join(b, "r");
    assert_eq!(joined["members"][0]["id"], a_id.as_str());
    assert_eq!(joined["members"][0]["polite"], true, "the later one is polite");
    let told = sim.take_one(a);
    assert_eq!(told["t"], "member-joined");
    assert_eq!(told["d"]["member"]["polite"], false);
    assert_eq!(told["d"]["member"]["user"], "bob");
}

#[test]
fn messages_carry_from_and_seq_and_are_acknowledged() {
    let mut sim = Sim::new();
    let (a, a_id) = sim.member("ann", "r");
    let (b, b_id) = sim.member("bob", "r");
    sim.take(a);
    sim.frame(a, &format!(r#"{{"t":"offer","id":"1","to":"{b_id}","d":{OFFER}}}"#));
    let ok = sim.take_one(a);
    assert_eq!((&ok["t"], &ok["ref"], &ok["d"]["delivered"]), (&"ok".into(), &"1".into(), &1.into()));
    let frames = sim.take_json(b);
    assert_eq!(kinds(&frames), ["offer"]);
    assert_eq!(frames[0]["from"], a_id.as_str());
    assert_eq!(frames[0]["d"]["sdp"], "v=0\r\n");
}
