//! The native protocol on the pure hub.

use std::time::Duration;

use serde_json::{Value, json};
use turnkey::signal::{CallAction, ConnId, Grants, Identity, Limits};

use crate::sim::{Sim, browser, kinds, token};

const OFFER: &str = r#"{"type":"offer","sdp":"v=0\r\n"}"#;
const ANSWER: &str = r#"{"type":"answer","sdp":"v=0\r\n"}"#;
const CANDIDATE: &str = r#"{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0"}"#;

fn relay(kind: &str, id: &str, to: Option<&str>, d: &str) -> String {
    let to = to.map_or(String::new(), |to| format!(r#""to":"{to}","#));
    format!(r#"{{"t":"{kind}","id":"{id}",{to}"d":{d}}}"#)
}

/// Comes back with a resume secret; the welcome and the frames after it.
fn resume(sim: &mut Sim, secret: &Value, last_seq: u64) -> (ConnId, Value, Vec<Value>) {
    let conn = sim.native_socket(Some(Identity::guest("guest", true)));
    let hello = json!({ "t": "hello", "d": { "resume": secret, "last_seq": last_seq } });
    sim.frame(conn, &hello.to_string());
    let mut frames = sim.take_json(conn);
    let welcome = frames.remove(0)["d"].take();
    (conn, welcome, frames)
}

#[test]
fn welcome_says_what_a_client_needs() {
    let mut sim = Sim::new();
    let (_, welcome) = sim.native("ann");
    assert_eq!(
        (&welcome["user"], &welcome["resumed"], &welcome["replayed"]),
        (&"ann".into(), &false.into(), &0.into())
    );
    assert_eq!((&welcome["resume_window"], &welcome["ping"]), (&60.into(), &15.into()));
    assert_eq!(welcome["server_time"], sim.now.unix);
    assert_eq!(welcome["ice_ttl"], 3600);
    assert_eq!(welcome["ice_expires_at"], sim.now.unix + 3600);
    let session = welcome["session"].as_str().expect("session");
    assert_eq!(welcome["ice_servers"][0]["username"], format!("ann.{session}"));
    assert!(welcome["resume"].as_str().expect("secret").len() > 43 + 16, "256 bits");
    assert_eq!(welcome["limits"]["frame"], 256 * 1024);
    assert!(welcome["features"].is_array());
}

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
fn a_repeated_join_is_answered_and_changes_nothing() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let (b, b_id) = sim.member("bob", "r");
    sim.take(a);
    assert_eq!(sim.join(b, "r")["member"], b_id.as_str());
    assert!(sim.take(a).is_empty());
}

#[test]
fn messages_carry_from_and_seq_and_are_acknowledged() {
    let mut sim = Sim::new();
    let (a, a_id) = sim.member("ann", "r");
    let (b, b_id) = sim.member("bob", "r");
    sim.take(a);
    for (n, (kind, d)) in [
        ("offer", OFFER),
        ("answer", ANSWER),
        ("candidate", CANDIDATE),
        ("candidate", "null"),
        ("chat", r#"{"message":"hi"}"#),
        ("media", r#"{"audio":true}"#),
        ("state", r#"{"state":"connected"}"#),
        ("restart", "null"),
        ("custom", "[1.50]"),
    ]
    .into_iter()
    .enumerate()
    {
        sim.frame(a, &relay(kind, &n.to_string(), Some(&b_id), d));
        let ok = sim.take_one(a);
        assert_eq!(
            (&ok["t"], &ok["ref"], &ok["d"]["delivered"]),
            (&"ok".into(), &n.to_string().into(), &1.into())
        );
        let text = sim.take(b).remove(0);
        assert_eq!(
            text,
            format!(r#"{{"t":"{kind}","from":"{a_id}","seq":{},"d":{d}}}"#, n + 1),
            "payload bytes as they came"
        );
    }
    sim.frame(a, r#"{"t":"custom","d":1}"#);
    assert!(sim.take(a).is_empty(), "no id, no answer");
    let (c, _) = sim.native("carl");
    let joined = sim.join(c, "r");
    assert_eq!(joined["members"][0]["media"]["audio"], true, "the roster has the last media state");
}

#[test]
fn without_a_target_a_message_goes_to_all_others() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let (b, _) = sim.member("bob", "r");
    let (c, _) = sim.member("carl", "r");
    for conn in [a, b, c] {
        sim.take(conn);
    }
    sim.frame(a, &relay("chat", "1", None, r#"{"message":"hi"}"#));
    assert_eq!(sim.take_one(a)["d"], json!({ "delivered": 2, "held": 0 }));
    for conn in [b, c] {
        assert_eq!(sim.take_one(conn)["d"]["message"], "hi");
    }
}

#[test]
fn a_repeated_message_id_is_acknowledged_and_not_delivered_again() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let (b, _) = sim.member("bob", "r");
    sim.take(a);
    for _ in 0..3 {
        sim.frame(a, &relay("chat", "1", None, r#"{"message":"hi"}"#));
        assert_eq!(sim.take_one(a)["d"]["delivered"], 1);
    }
    assert_eq!(sim.take(b).len(), 1);
    assert_eq!(sim.hub.stats().duplicates, 2);
}

#[test]
fn errors_have_stable_codes_and_the_reference() {
    let mut sim = Sim::new();
    let (a, _) = sim.native("ann");
    let cases = [
        (relay("chat", "1", None, "{}"), "not_joined"),
        (r#"{"t":"join","id":"1","d":{"room":""}}"#.into(), "bad_frame"),
        (r#"{"t":"join","id":"1"}"#.into(), "bad_frame"),
    ];
    for (frame, code) in cases {
        sim.frame(a, &frame);
        let error = sim.take_one(a);
        assert_eq!(
            (&error["t"], &error["ref"], &error["d"]["code"]),
            (&"error".into(), &"1".into(), &code.into())
        );
    }
    let (a, a_id) = sim.member("ann", "r");
    for to in ["nobody", "0123456789abcdef", &a_id] {
        sim.frame(a, &relay("chat", "1", Some(to), "{}"));
        assert_eq!(sim.take_one(a)["d"]["code"], "no_such_member");
    }
}

#[test]
fn descriptions_and_candidates_are_validated_before_they_are_relayed() {
    for (kind, d) in [
        ("offer", r#"{"type":"answer","sdp":"v=0"}"#),
        ("offer", r#"{"type":"offer","sdp":"x"}"#),
        ("offer", r#"{"type":"offer"}"#),
        ("answer", "null"),
        ("candidate", r#"{"candidate":"x","sdpMid":"0"}"#),
        ("candidate", r#"{"candidate":"candidate:1"}"#),
        ("candidate", "7"),
    ] {
        let mut sim = Sim::new();
        let (a, _) = sim.member("ann", "r");
        sim.frame(a, &relay(kind, "1", None, d));
        assert_eq!(sim.take_one(a)["d"]["code"], "bad_frame", "{kind} {d}");
    }
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    for d in ["null", r#"{"candidate":""}"#, r#"{"candidate":"a=candidate:1","sdpMLineIndex":0}"#] {
        sim.frame(a, &relay("candidate", d.len().to_string().as_str(), None, d));
        assert_eq!(sim.take_one(a)["t"], "ok", "{d}");
    }
}

#[test]
fn an_offer_to_an_empty_room_waits_with_its_candidates() {
    let mut sim = Sim::new();
    let (a, a_id) = sim.member("ann", "r");
    sim.frame(a, &relay("offer", "1", None, OFFER));
    assert_eq!(sim.take_one(a)["d"], json!({ "delivered": 0, "held": 1 }));
    sim.frame(a, &relay("candidate", "2", None, CANDIDATE));
    assert_eq!(sim.take_one(a)["d"]["held"], 1);
    let (b, _) = sim.member("bob", "r");
    let frames = sim.take_json(b);
    assert_eq!(kinds(&frames), ["offer", "candidate"]);
    assert_eq!(frames[0]["from"], a_id.as_str());
    let (c, _) = sim.member("carl", "r");
    assert!(sim.take(c).is_empty(), "somebody who confirms has it");
}

#[test]
fn a_targeted_candidate_waits_for_its_description() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let (b, b_id) = sim.member("bob", "r");
    sim.take(a);
    sim.frame(a, &relay("candidate", "1", Some(&b_id), CANDIDATE));
    assert_eq!(sim.take_one(a)["d"], json!({ "delivered": 0, "held": 1 }));
    sim.frame(a, &relay("chat", "2", Some(&b_id), "{}"));
    sim.frame(a, &relay("offer", "3", Some(&b_id), OFFER));
    assert_eq!(kinds(&sim.take_json(b)), ["chat", "offer", "candidate"]);
}

#[test]
fn a_lost_socket_is_away_then_back_or_left() {
    let mut sim = Sim::new();
    let (a, a_id) = sim.member("ann", "r");
    let (b, welcome) = sim.native("bob");
    let b_id = sim.join(b, "r")["member"].clone();
    sim.take(a);
    sim.lose(b);
    let away = sim.take_one(a);
    assert_eq!((&away["t"], &away["d"]["member"]), (&"member-away".into(), &b_id));
    let (b, welcome, _) = resume(&mut sim, &welcome["resume"], 0);
    assert_eq!(welcome["resumed"], true);
    assert_eq!(sim.take_one(a)["t"], "member-back");
    let joined = sim.join(b, "r");
    assert_eq!(
        (&joined["member"], &joined["members"][0]["id"]),
        (&b_id, &a_id.as_str().into()),
        "still there"
    );
    assert_eq!(joined["members"][0]["polite"], true, "roles are stable");
    sim.lose(b);
    sim.pass(Duration::from_secs(61));
    let frames = sim.take_json(a);
    assert_eq!(kinds(&frames), ["member-away", "member-left"]);
    assert_eq!(frames[1]["d"]["reason"], "lost");
    let (_, late, _) = resume(&mut sim, &welcome["resume"], 0);
    assert_eq!(late["resumed"], false, "a fresh session, never a dead end");
}

#[test]
fn leave_and_bye_take_effect_at_once() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let (b, _) = sim.member("bob", "r");
    let (c, _) = sim.member("carl", "r");
    sim.take(a);
    sim.frame(b, r#"{"t":"leave","id":"9"}"#);
    let frames = sim.take_json(b);
    assert_eq!((&frames[1]["t"], &frames[1]["ref"]), (&"left".into(), &"9".into()));
    assert_eq!(sim.take_one(a)["d"]["reason"], "left");
    sim.frame(c, r#"{"t":"bye"}"#);
    assert_eq!(sim.closed(c), Some(1000));
    assert_eq!(sim.take_one(a)["d"]["reason"], "left");
    assert_eq!(sim.hub.stats().sessions, 2);
}

#[test]
fn resume_replays_what_was_not_seen_in_order_and_goes_on() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let (b, welcome) = sim.native("bob");
    sim.join(b, "r");
    for n in 0..3 {
        sim.frame(a, &relay("chat", &n.to_string(), None, &n.to_string()));
    }
    assert_eq!(sim.take(b).len(), 3);
    sim.lose(b);
    for n in 3..6 {
        sim.frame(a, &relay("chat", &n.to_string(), None, &n.to_string()));
    }
    // The third frame was in the dead socket: the client has seen two.
    let (b, welcome, frames) = resume(&mut sim, &welcome["resume"], 2);
    assert_eq!(welcome["replayed"], 4);
    assert_eq!(frames.iter().map(|f| f["d"].as_u64().expect("n")).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(frames.iter().map(|f| f["seq"].as_u64().expect("seq")).collect::<Vec<_>>(), [3, 4, 5, 6]);
    sim.frame(a, &relay("chat", "6", None, "6"));
    assert_eq!(sim.take_one(b)["seq"], 7);
}

#[test]
fn resume_takes_over_a_socket_that_still_looks_alive() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let (b, welcome) = sim.native("bob");
    sim.join(b, "r");
    sim.take(a);
    let (again, welcome, _) = resume(&mut sim, &welcome["resume"], 0);
    assert_eq!(welcome["resumed"], true);
    assert_eq!(sim.closed(b), Some(4440));
    assert_eq!(sim.closed(again), None);
    assert!(sim.take(a).is_empty(), "nobody else notices");
    sim.lose(b);
    sim.frame(a, &relay("chat", "1", None, "1"));
    assert_eq!(sim.take(again).len(), 1, "the end of the old socket is not that of the session");
}

#[test]
fn a_hello_that_was_long_under_way_does_not_end_the_younger_socket() {
    let mut sim = Sim::new();
    let (first, welcome) = sim.native("ann");
    sim.lose(first);
    let hello = json!({ "t": "hello", "d": { "resume": welcome["resume"], "last_seq": 0 } }).to_string();
    let late = sim.native_socket(None);
    let live = sim.native_socket(None);
    sim.frame(live, &hello);
    let resumed = sim.take_one(live)["d"].take();
    assert_eq!(resumed["resumed"], true);
    sim.frame(late, &hello);
    assert_eq!((sim.closed(late), sim.closed(live)), (Some(1011), None));
    sim.frame(live, r#"{"t":"ping","id":"1"}"#);
    assert_eq!(sim.take_one(live)["t"], "pong");
    let (_, again, _) = resume(&mut sim, &resumed["resume"], 0);
    assert_eq!(again["resumed"], true, "the secret it has is still the one");
}

#[test]
fn the_resume_secret_is_rotated_and_the_old_one_ends_when_the_new_one_is_acknowledged() {
    let mut sim = Sim::new();
    let (_, first) = sim.native("ann");
    let (_, second, _) = resume(&mut sim, &first["resume"], 0);
    let (conn, third, _) = resume(&mut sim, &first["resume"], 0);
    assert_eq!(third["resumed"], true, "the second welcome may have died with its socket");
    sim.frame(conn, r#"{"t":"ack","ack":0}"#);
    for old in [first, second] {
        let (_, welcome, _) = resume(&mut sim, &old["resume"], 0);
        assert_eq!(welcome["resumed"], false);
    }
    let (_, welcome, _) = resume(&mut sim, &third["resume"], 0);
    assert_eq!(welcome["resumed"], true);
}

#[test]
fn a_resume_that_missed_too_much_becomes_a_fresh_session() {
    let mut sim = Sim::with(Limits { outbox_frames: 4, ..Limits::default() });
    let (a, _) = sim.member("ann", "r");
    let (b, welcome) = sim.native("bob");
    sim.join(b, "r");
    sim.lose(b);
    sim.take(a);
    for n in 0..5 {
        sim.frame(a, &relay("chat", &n.to_string(), None, "1"));
    }
    let (_, welcome, frames) = resume(&mut sim, &welcome["resume"], 0);
    assert_eq!((&welcome["resumed"], frames.len()), (&false.into(), 0));
    assert!(kinds(&sim.take_json(a)).contains(&"member-left"), "the others start afresh with it");
}

#[test]
fn acknowledged_frames_are_forgotten() {
    let mut sim = Sim::with(Limits { outbox_frames: 4, ..Limits::default() });
    let (a, _) = sim.member("ann", "r");
    let (b, welcome) = sim.native("bob");
    sim.join(b, "r");
    for n in 1..=20 {
        sim.frame(a, &relay("chat", &n.to_string(), None, "1"));
        sim.frame(b, &format!(r#"{{"t":"ack","ack":{n}}}"#));
    }
    sim.lose(b);
    let (_, again, frames) = resume(&mut sim, &welcome["resume"], 20);
    // The acknowledgement above ends the first secret only when there is a second one.
    assert_eq!((&again["resumed"], frames.len()), (&true.into(), 0));
}

#[test]
fn a_token_of_another_user_does_not_resume() {
    let mut sim = Sim::new();
    let (_, welcome) = sim.native("ann");
    let conn = sim.native_socket(Some(token("eve", None)));
    let hello = json!({ "t": "hello", "d": { "resume": welcome["resume"], "last_seq": 0 } });
    sim.frame(conn, &hello.to_string());
    let fresh = sim.take_one(conn);
    assert_eq!((&fresh["d"]["resumed"], &fresh["d"]["user"]), (&false.into(), &"eve".into()));
}

#[test]
fn failed_resumes_are_throttled_by_address() {
    let mut sim = Sim::with(Limits { resumes_per_minute: 3, ..Limits::default() });
    let guess = json!("0000000000000001.guess");
    for _ in 0..3 {
        assert_eq!(resume(&mut sim, &guess, 0).1["resumed"], false);
    }
    let conn = sim.native_socket(Some(Identity::guest("guest", true)));
    sim.frame(conn, r#"{"t":"hello","d":{"resume":"0000000000000001.guess"}}"#);
    assert_eq!(sim.closed(conn), Some(4429));
}

#[test]
fn s2_09_a_user_who_reloads_without_resuming_leaves_no_ghost() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let (b, _) = sim.member("bob", "r");
    sim.lose(b);
    sim.take(a);
    let (_, _) = sim.member("bob", "r");
    assert_eq!(kinds(&sim.take_json(a)), ["member-left", "member-joined"]);
}

#[test]
fn holders_of_one_invite_link_are_different_people() {
    let mut sim = Sim::new();
    let invited = || Identity { is_shared: true, ..Identity::member("guest") };
    let enter = |sim: &mut Sim| {
        let conn = sim.native_socket(Some(invited()));
        sim.frame(conn, r#"{"t":"hello"}"#);
        sim.take(conn);
        sim.join(conn, "r");
        conn
    };
    let (a, b) = (enter(&mut sim), enter(&mut sim));
    sim.lose(b);
    sim.take(a);
    enter(&mut sim);
    assert_eq!(kinds(&sim.take_json(a)), ["member-joined"], "the absent one is not pushed out");
}

#[test]
fn a_users_second_connection_finds_out_whether_the_first_is_dead() {
    let mut sim = Sim::new();
    let (alive, _) = sim.member("ann", "r");
    let (dead, _) = sim.member("ann", "r");
    sim.silence(dead);
    let (_, _) = sim.member("ann", "r");
    sim.pass(Duration::from_secs(6));
    assert_eq!(sim.closed(alive), None, "two tabs are two members");
    assert!(sim.closed(dead).is_some());
}

#[test]
fn credentials_are_per_session_and_pushed_again_at_half_of_their_life() {
    let mut sim = Sim::new();
    sim.ice_ttl = Duration::from_secs(600);
    let (a, welcome) = sim.native("ann");
    let (b, _) = sim.native("ann");
    assert_ne!(sim.credentials[0].0, sim.credentials[1].0);
    sim.pass(Duration::from_secs(299));
    assert!(sim.take(a).is_empty());
    sim.pass(Duration::from_secs(2));
    let pushed = sim.take_one(a);
    assert_eq!((&pushed["t"], pushed.get("ref")), (&"ice".into(), None));
    assert_eq!(pushed["d"]["ttl"], 600);
    assert!(pushed["d"]["expires_at"].as_u64() > welcome["ice_expires_at"].as_u64());
    sim.pass(Duration::from_secs(300));
    assert_eq!(sim.take(a).len(), 1, "and again");
    sim.take(b);
    sim.frame(b, r#"{"t":"ice","id":5}"#);
    let ice = sim.take_one(b);
    assert_eq!((&ice["ref"], &ice["d"]["ttl"]), (&5.into(), &600.into()));
    sim.lose(a);
    sim.lose(b);
    sim.pass(Duration::from_secs(3000));
    assert_eq!(sim.hub.poll_timeout(), None, "nothing for those who are gone");
}

#[test]
fn a_guest_without_relay_rights_is_named_as_such() {
    let mut sim = Sim::new();
    let conn = sim.native_socket(Some(Identity::guest("guest", false)));
    sim.frame(conn, r#"{"t":"hello"}"#);
    assert!(!sim.credentials[0].1);
}

#[test]
fn the_session_ends_its_socket_with_its_token_and_comes_back_with_a_new_one() {
    let mut sim = Sim::new();
    let mut identity = token("ann", None);
    identity.expires_at = Some(sim.now.unix + 100);
    let conn = sim.native_socket(Some(identity));
    sim.frame(conn, r#"{"t":"hello"}"#);
    let welcome = sim.take_one(conn)["d"].take();
    sim.pass(Duration::from_secs(101));
    assert_eq!(sim.closed(conn), Some(4401));
    let stale = sim.native_socket(Some(Identity::guest("guest", true)));
    let hello = json!({ "t": "hello", "d": { "resume": welcome["resume"] } });
    sim.frame(stale, &hello.to_string());
    assert_eq!(sim.closed(stale), Some(4401), "the secret alone does not prolong the token");
    let conn = sim.native_socket(None);
    let hello = json!({ "t": "hello", "d": { "resume": welcome["resume"], "token": "good:ann" } });
    sim.frame(conn, &hello.to_string());
    assert_eq!(sim.take_one(conn)["d"]["resumed"], true);
}

#[test]
fn s4_25_credentials_are_taken_back_on_leave_and_bye_and_not_when_a_socket_is_lost() {
    let mut sim = Sim::new();
    let (ann, welcome) = sim.native("ann");
    let session = welcome["session"].as_str().expect("session").to_owned();
    sim.join(ann, "r");
    sim.frame(ann, r#"{"t":"leave","id":"1"}"#);
    let frames = sim.take_json(ann);
    assert_eq!(kinds(&frames), ["left", "ice"]);
    assert_eq!(
        frames[1]["d"]["ice_servers"][0]["username"],
        format!("ann.{session}-1"),
        "others than before"
    );
    assert_eq!(sim.revoked, [format!("ann.{session}")]);
    sim.frame(ann, r#"{"t":"bye"}"#);
    assert_eq!(sim.revoked.split_off(1), [format!("ann.{session}-1")]);
    let (bob, _) = sim.native("bob");
    sim.join(bob, "r");
    sim.lose(bob);
    sim.pass(Limits::default().resume_window);
    assert_eq!((sim.hub.stats().sessions, sim.revoked.len()), (0, 1), "media may still flow");
}

#[test]
fn s4_25_credentials_of_a_longer_life_are_taken_back_after_shorter_ones_were_given() {
    let mut sim = Sim::new();
    let boss = moderator(&mut sim, "r");
    let (ann, id) = sim.member("ann", "r");
    sim.ice_ttl = Duration::from_secs(20);
    sim.frame(ann, r#"{"t":"ice","id":"1"}"#);
    sim.lose(ann);
    sim.pass(Duration::from_secs(30));
    sim.frame(boss, &format!(r#"{{"t":"kick","id":"1","to":"{id}"}}"#));
    assert_eq!(sim.revoked.len(), 1);
}

#[test]
fn a_fresh_token_for_another_room_does_not_resume() {
    let mut sim = Sim::new();
    let (ann, welcome) = sim.native("ann");
    sim.join(ann, "r");
    sim.lose(ann);
    let hello = json!({ "t": "hello", "d": { "resume": welcome["resume"], "last_seq": 0 } }).to_string();
    for (room, resumed) in [("another", false), ("r", true)] {
        let conn = sim.native_socket(Some(token("ann", Some(&[room]))));
        sim.frame(conn, &hello);
        assert_eq!(sim.take_one(conn)["d"]["resumed"], resumed, "{room}");
    }
}

#[test]
fn s4_25_credentials_of_a_call_are_taken_back_when_it_ends() {
    let mut sim = Sim::new();
    let (ann, bob) = (token("ann", None), token("bob", None));
    let action = CallAction::Initiate { callee: "bob".into(), media: None };
    let id = sim.hub.handle_call(sim.now, &ann, action).expect("rings").remove(0).id;
    sim.hub.handle_call(sim.now, &bob, CallAction::Accept(id.clone())).expect("accepted");
    sim.drain();
    assert_eq!(sim.revoked, [""; 0]);
    sim.hub.handle_call(sim.now, &ann, CallAction::End(id.clone())).expect("ended");
    sim.drain();
    assert_eq!(sim.revoked, [format!("ann.{id}"), format!("bob.{id}")]);
}

#[test]
fn grants_are_enforced() {
    let mut sim = Sim::new();
    let (_, _) = sim.member("bob", "r");
    let as_granted = |sim: &mut Sim, words: &[&str]| {
        let grants = Grants::from_words(words.iter().copied());
        let conn = sim.native_socket(Some(Identity { grants, ..token("ann", None) }));
        sim.frame(conn, r#"{"t":"hello"}"#);
        sim.take(conn);
        conn
    };
    let none = as_granted(&mut sim, &[]);
    sim.frame(none, r#"{"t":"join","d":{"room":"r"}}"#);
    assert_eq!(sim.take_one(none)["d"]["code"], "forbidden");
    let silent = as_granted(&mut sim, &["join"]);
    sim.join(silent, "r");
    for frame in [relay("offer", "1", None, OFFER), relay("chat", "2", None, "{}")] {
        sim.frame(silent, &frame);
        assert_eq!(sim.take_one(silent)["d"]["code"], "forbidden");
    }
    let speaker = as_granted(&mut sim, &["join", "chat"]);
    sim.join(speaker, "r");
    sim.frame(speaker, &relay("chat", "1", None, "{}"));
    assert_eq!(sim.take_one(speaker)["t"], "ok");
}

#[test]
fn names_and_roles_of_a_token_win_over_what_the_client_says() {
    let mut sim = Sim::new();
    let (a, _) = sim.member("ann", "r");
    let identity = Identity { name: Some("Dr. B".into()), role: Some("doctor".into()), ..token("bob", None) };
    let conn = sim.native_socket(Some(identity));
    sim.frame(conn, r#"{"t":"hello"}"#);
    sim.frame(conn, r#"{"t":"join","d":{"room":"r","name":"Eve","role":"admin"}}"#);
    let member = &sim.take_one(a)["d"]["member"];
    assert_eq!((&member["name"], &member["role"]), (&"Dr. B".into(), &"doctor".into()));
}

#[test]
fn raw_and_native_meet_in_one_room() {
    let mut sim = Sim::new();
    let (native, native_id) = sim.member("ann", "r");
    let page = sim.raw("r", browser(1));
    let joined = sim.take_one(native);
    let page_id = joined["d"]["member"]["id"].as_str().expect("id").to_owned();
    assert_eq!(joined["d"]["member"]["polite"], false);

    sim.frame(native, &relay("offer", "1", Some(&page_id), OFFER));
    sim.frame(native, &relay("candidate", "2", Some(&page_id), "null"));
    sim.frame(native, &relay("candidate", "3", Some(&page_id), CANDIDATE));
    sim.frame(native, &relay("custom", "4", None, r#"{"type":"hand-raised"}"#));
    sim.frame(native, &relay("chat", "5", None, r#"{"message":"hi"}"#));
    assert_eq!(
        sim.take(page),
        [
            format!(r#"{{"type":"offer","offer":{OFFER}}}"#),
            format!(r#"{{"type":"ice-candidate","candidate":{CANDIDATE}}}"#),
            r#"{"type":"hand-raised"}"#.to_owned(),
            r#"{"type":"chat","chat":{"message":"hi"}}"#.to_owned(),
        ]
    );
    sim.take(native);
    sim.frame(page, &format!(r#"{{"type":"answer","answer":{ANSWER}}}"#));
    sim.frame(page, &format!(r#"{{"type":"ice-candidate","candidate":{CANDIDATE}}}"#));
    sim.frame(page, r#"{"type":"offer","sdp":"v=0\r\n"}"#);
    sim.frame(page, r#"{"type":"whatever","x":1.0}"#);
    let frames = sim.take_json(native);
    assert_eq!(kinds(&frames), ["answer", "candidate", "offer", "custom"]);
    assert!(frames.iter().all(|f| f["from"] == page_id.as_str()));
    assert_eq!(
        frames[2]["d"],
        json!({ "type": "offer", "sdp": "v=0\r\n" }),
        "a bare sdp is made a description"
    );
    assert_eq!(frames[3]["d"], json!({ "type": "whatever", "x": 1.0 }));
    sim.frame(native, r#"{"t":"bye"}"#);
    assert!(sim.take(page).is_empty(), "seed 000 knows no leave: {native_id}");
}

#[test]
fn the_first_frame_is_hello_and_comes_in_time() {
    let mut sim = Sim::new();
    let early = sim.native_socket(Some(token("ann", None)));
    sim.frame(early, r#"{"t":"join","id":"1","d":{"room":"r"}}"#);
    assert_eq!(sim.take_one(early)["d"]["code"], "bad_frame");
    let silent = sim.native_socket(Some(token("ann", None)));
    sim.pass(Duration::from_secs(6));
    assert_eq!(sim.closed(silent), Some(4408));
    let nobody = sim.native_socket(None);
    sim.frame(nobody, r#"{"t":"hello","d":{"token":"bad"}}"#);
    assert_eq!(sim.closed(nobody), Some(4401));
    let (twice, _) = sim.native("bob");
    sim.frame(twice, r#"{"t":"hello"}"#);
    assert_eq!(sim.take_one(twice)["d"]["code"], "bad_frame");
    sim.frame(twice, r#"{"t":"ping","id":"1"}"#);
    assert_eq!(sim.take_one(twice)["t"], "pong");
}

/// A member whose token grants to moderate.
fn moderator(sim: &mut Sim, room: &str) -> ConnId {
    let grants = Grants::from_words(["join", "signal", "moderate"]);
    let conn = sim.native_socket(Some(Identity { grants, ..token("mod", None) }));
    sim.frame(conn, r#"{"t":"hello"}"#);
    sim.take(conn);
    sim.join(conn, room);
    conn
}

#[test]
fn s4_32_a_moderator_sends_a_member_out_who_does_not_come_back() {
    let mut sim = Sim::new();
    let boss = moderator(&mut sim, "r");
    let (ann, id) = sim.member("ann", "r");
    let (bob, _) = sim.member("bob", "r");
    sim.frame(bob, &format!(r#"{{"t":"kick","id":"1","to":"{id}"}}"#));
    assert_eq!(sim.take_json(bob).last().expect("answer")["d"]["code"], "forbidden", "not every member may");
    sim.take(boss);
    sim.frame(boss, &format!(r#"{{"t":"kick","id":"1","to":"{id}"}}"#));
    assert_eq!(kinds(&sim.take_json(boss)), ["member-left", "ok"]);
    assert_eq!(sim.closed(ann), Some(4441));
    assert_eq!(sim.revoked.len(), 1, "and the relay is closed");
    let (again, _) = sim.native("ann");
    sim.frame(again, r#"{"t":"join","id":"j","d":{"room":"r"}}"#);
    assert_eq!(sim.take_one(again)["d"]["code"], "forbidden");
    sim.join(again, "another");
}

#[test]
fn s4_32_a_moderator_mutes_a_member_and_all_see_it() {
    let mut sim = Sim::new();
    let boss = moderator(&mut sim, "r");
    let (ann, id) = sim.member("ann", "r");
    let (bob, _) = sim.member("bob", "r");
    for conn in [boss, ann, bob] {
        sim.take(conn);
    }
    sim.frame(bob, &format!(r#"{{"t":"mute","id":"1","to":"{id}","d":{{"track":"audio"}}}}"#));
    assert_eq!(sim.take_one(bob)["d"]["code"], "forbidden");
    sim.frame(boss, &format!(r#"{{"t":"mute","id":"1","to":"{id}","d":{{"track":"audio"}}}}"#));
    assert_eq!(sim.take_json(ann)[0]["t"], "mute");
    let seen = sim.take_one(bob);
    assert_eq!(
        (&seen["t"], &seen["from"], &seen["d"]["audio"]),
        (&"media".into(), &id.into(), &false.into())
    );
}

#[test]
fn a_ticket_opens_one_session_once() {
    let mut sim = Sim::new();
    let ticket =
        || Identity { ticket: Some("t1".into()), expires_at: Some(1_900_000_000), ..token("ann", None) };
    let open = |sim: &mut Sim| {
        let conn = sim.native_socket(Some(ticket()));
        sim.frame(conn, r#"{"t":"hello"}"#);
        conn
    };
    let first = open(&mut sim);
    assert_eq!(sim.take_one(first)["t"], "welcome");
    let second = open(&mut sim);
    assert_eq!(sim.take_one(second)["d"]["code"], "unauthenticated");
    assert_eq!(sim.closed(second), Some(4401));
}

#[test]
fn used_tickets_are_bounded_and_none_is_forgotten_for_another() {
    let mut sim = Sim::with(Limits { voids: 2, connects_per_minute: 1000, ..Limits::default() });
    let mut open = |name: &str| {
        let who =
            Identity { ticket: Some(name.into()), expires_at: Some(1_900_000_000), ..token("ann", None) };
        let conn = sim.native_socket(Some(who));
        sim.frame(conn, r#"{"t":"hello"}"#);
        sim.take_json(conn)[0].clone()
    };
    assert_eq!(open("a")["t"], "welcome");
    assert_eq!(open("b")["t"], "welcome");
    assert_eq!(open("c")["d"]["code"], "busy");
    assert_eq!(open("a")["d"]["code"], "unauthenticated");
}

#[test]
fn relay_credentials_that_are_taken_back_make_no_ticket_valid_again() {
    let mut sim = Sim::with(Limits { voids: 2, connects_per_minute: 1000, ..Limits::default() });
    let open = |sim: &mut Sim, name: &str| {
        let end = Some(sim.now.unix + 60);
        let who = Identity { ticket: Some(name.into()), expires_at: end, ..token(name, None) };
        let conn = sim.native_socket(Some(who));
        sim.frame(conn, r#"{"t":"hello"}"#);
        sim.take_json(conn)[0].clone()
    };
    assert_eq!(open(&mut sim, "a")["t"], "welcome");
    for _ in 0..3 {
        let (conn, _) = sim.native("bob");
        sim.frame(conn, r#"{"t":"bye"}"#);
    }
    assert_eq!(sim.revoked.len(), 3);
    assert_eq!(open(&mut sim, "a")["d"]["code"], "unauthenticated");
    assert_eq!(open(&mut sim, "b")["t"], "welcome", "they take no room of tickets");
}
