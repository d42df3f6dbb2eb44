//! Socket.IO in simulated time: joining in three vocabularies, recovery, calls by user.

use std::time::Duration;

use serde_json::{Value, json};
use turnkey::signal::dialect::socketio::Vocabulary;
use turnkey::signal::{CallAction, ConnId, Connect, ConsultationAction, Dialect, Grants, Identity, Limits};

use crate::sim::{Sim, browser, ip, token};

const OFFER: &str = r#"{"type":"offer","sdp":"v=0\r\n"}"#;
const ANSWER: &str = r#"{"type":"answer","sdp":"v=0\r\n"}"#;
const CANDIDATE: &str = r#"{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0"}"#;

/// A socket with these credentials that has sent no packet.
fn open(sim: &mut Sim, identity: Option<Identity>) -> ConnId {
    sim.connect(Connect {
        dialect: Dialect::SocketIo(Vocabulary::Invite),
        ip: ip(3),
        identity,
        key: browser(3),
        room: None,
        wants_events: true,
    })
}

/// A connected socket of a user; what it got is taken off.
fn user(sim: &mut Sim, name: &str) -> ConnId {
    let conn = open(sim, Some(token(name, None)));
    sim.frame(conn, "0");
    sim.take(conn);
    conn
}

/// A connected guest where no token is needed.
fn guest(sim: &mut Sim) -> ConnId {
    let conn = open(sim, Some(Identity::guest("guest", true)));
    sim.frame(conn, "0");
    sim.take(conn);
    conn
}

fn emit(sim: &mut Sim, conn: ConnId, name: &str, payload: &str) {
    sim.frame(conn, &format!(r#"2["{name}",{payload}]"#));
}

/// Emits, and returns what the acknowledgement says.
fn ask(sim: &mut Sim, conn: ConnId, name: &str, payload: &str) -> Value {
    sim.frame(conn, &format!(r#"27["{name}",{payload}]"#));
    let received = &mut sim.sockets.get_mut(&conn).expect("socket").received;
    let at = received.iter().position(|text| text.starts_with("37[")).expect("an acknowledgement");
    let text = received.remove(at);
    serde_json::from_str::<Value>(&text[2..]).expect("json")[0].clone()
}

/// Names and payloads of the events a socket got, but for fresh credentials after it left a room; each ends with
/// its offset.
fn events(sim: &mut Sim, conn: ConnId) -> Vec<(String, Value)> {
    let event = |text: &String| {
        let event: Value = serde_json::from_str(text.strip_prefix('2').expect("an event")).expect("json");
        if event[0] != "error" {
            assert!(event[2].as_str().is_some_and(|offset| offset.parse::<u64>().is_ok()), "{event}");
        }
        (event[0].as_str().expect("a name").to_owned(), event[1].clone())
    };
    sim.take(conn).iter().map(event).filter(|(name, _)| name != "ice_servers").collect()
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

fn one(sim: &mut Sim, conn: ConnId) -> (String, Value) {
    let mut all = events(sim, conn);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn s4_15_connect_answers_with_sid_and_pid_and_the_connected_event() {
    let mut sim = Sim::new();
    let conn = open(&mut sim, Some(token("ann", None)));
    sim.frame(conn, "0");
    let got = sim.take(conn);
    let answer: Value = serde_json::from_str(got[0].strip_prefix('0').expect("connected")).expect("json");
    assert!(answer["sid"].is_string() && answer["pid"].is_string());
    let event: Value = serde_json::from_str(&got[1][1..]).expect("json");
    assert_eq!((&event[0], &event[1]["sid"], &event[2]), (&json!("connected"), &answer["sid"], &json!("1")));
    assert!(event[1]["ice_servers"].is_array());
}

#[test]
fn s2_10_a_bad_token_is_a_connect_error_with_data() {
    let mut sim = Sim::new();
    let conn = open(&mut sim, None);
    sim.frame(conn, r#"0{"token":"nonsense"}"#);
    let got = sim.take(conn);
    let error: Value = serde_json::from_str(got[0].strip_prefix('4').expect("refused")).expect("json");
    assert_eq!(error["data"]["code"], "unauthenticated");
    assert_eq!(sim.closed(conn), Some(4401));
    let conn = open(&mut sim, None);
    sim.frame(conn, r#"0{"token":"good:ann"}"#);
    assert!(sim.take(conn)[0].starts_with('0'));
}

#[test]
fn s2_10_s2_12_the_log_says_what_seed_002s_checklist_looks_for() {
    let mut sim = Sim::new();
    let doctor = user(&mut sim, "doc");
    let patient = user(&mut sim, "pat");
    for (conn, role) in [(doctor, "doctor"), (patient, "patient")] {
        emit(&mut sim, conn, &format!("identify_as_{role}"), "{}");
        emit(&mut sim, conn, "webrtc:join_room", r#"{"roomId":"r\n"}"#);
    }
    emit(&mut sim, doctor, "webrtc:offer", &format!(r#"{{"offer":{OFFER}}}"#));
    emit(&mut sim, patient, "webrtc:answer", &format!(r#"{{"answer":{ANSWER}}}"#));
    let eve = open(&mut sim, None);
    sim.frame(eve, r#"0{"token":"nonsense"}"#);
    // Ids of sockets are random.
    let words = |line: &String| match line.split_once("): ") {
        Some((before, id)) => format!("{before}): {}", id.len()),
        None => line.clone(),
    };
    let lines: Vec<String> = sim.lines.iter().map(words).collect();
    let wanted = [
        "✅ Socket authenticated for user: doc",
        "✅ Socket authenticated for user: pat",
        "✅ Socket connected (DOCTOR): 16",
        r"✅ Successfully joined room r\n",
        "✅ Socket connected (PATIENT): 16",
        r"✅ Successfully joined room r\n",
        r"📤 User doc sending OFFER to room r\n",
        r"✅ Offer forwarded to room r\n",
        r"📤 User pat sending ANSWER to room r\n",
        r"✅ Answer forwarded to room r\n",
        "❌ Socket auth failed",
    ];
    assert_eq!(lines, wanted.map(|line| format!("[WebRTC] {line}")));
}

#[test]
fn s2_15_each_question_of_a_call_that_does_not_come_about_has_an_answer() {
    let mut sim = Sim::new();
    let (doctor, patient) = (user(&mut sim, "doc"), user(&mut sim, "pat"));
    emit(&mut sim, doctor, "webrtc:join_room", r#"{"roomId":"r"}"#);
    emit(&mut sim, patient, "webrtc:join_room", r#"{"roomId":"s"}"#);
    // The same room?
    let offer = |room: &str| format!(r#"{{"roomId":"{room}","offer":{OFFER}}}"#);
    assert_eq!(ask(&mut sim, doctor, "webrtc:offer", &offer("r"))["delivered"], 0, "nobody else is there");
    let other = ask(&mut sim, doctor, "webrtc:offer", &offer("s"));
    assert_eq!((&other["code"], &other["message"]), (&json!("not_joined"), &json!("this socket is in r")));
    let view = sim.hub.handle_timeline(sim.now, &token("doc", None), "r").expect("a timeline");
    let there: Vec<&str> = view.parties.iter().map(|party| &*party.who).collect();
    assert_eq!(there, ["doc"], "the timeline of the room names who came");
    // The same event?
    let unknown = ask(&mut sim, doctor, "webrtc:ofer", &offer("r"));
    assert_eq!(unknown["code"], "unknown_type");
    assert!(unknown["message"].as_str().is_some_and(|text| text.contains("webrtc:ofer")), "{unknown}");
    // A valid token?
    let eve = open(&mut sim, None);
    sim.frame(eve, r#"0{"token":"nonsense"}"#);
    assert!(sim.take(eve)[0].contains("the token is not valid here"));
}

#[test]
fn s2_03_s2_11_the_doctor_offers_before_the_patient_joins() {
    let mut sim = Sim::new();
    let doctor = user(&mut sim, "doc");
    assert_eq!(ask(&mut sim, doctor, "identify_as_doctor", "null")["ok"], true);
    let joined = ask(&mut sim, doctor, "webrtc:join_room", r#"{"roomId":"r"}"#);
    assert_eq!((&joined["ok"], &joined["role"]), (&json!(true), &json!("doctor")));
    assert_eq!(one(&mut sim, doctor).0, "webrtc:joined_room");
    let offer = format!(r#"{{"roomId":"r","offer":{OFFER},"extra":1.50}}"#);
    assert_eq!(
        ask(&mut sim, doctor, "webrtc:offer", &offer),
        json!({ "ok": true, "delivered": 0, "held": 1 })
    );
    emit(&mut sim, doctor, "webrtc:ice_candidate", &format!(r#"{{"roomId":"r","candidate":{CANDIDATE}}}"#));

    let patient = user(&mut sim, "pat");
    emit(&mut sim, patient, "webrtc:join_room", r#"{"consultationId":"r"}"#);
    let received = sim.take(patient);
    assert!(received[0].starts_with(r#"2["webrtc:joined_room""#));
    let expected =
        format!(r#"2["webrtc:offer",{{"roomId":"r","offer":{OFFER},"extra":1.50,"from":"doc"}},"3"]"#);
    assert_eq!(received[1], expected, "the bytes it came in, and who from");
    assert!(received[2].starts_with(r#"2["webrtc:ice_candidate""#));
    emit(&mut sim, patient, "webrtc:answer", &format!(r#"{{"roomId":"r","answer":{ANSWER}}}"#));
    let got = events(&mut sim, doctor);
    assert_eq!(names(&got), ["webrtc:user_joined", "webrtc:answer"]);
    assert_eq!(got[1].1["from"], "pat");
    let third = user(&mut sim, "third");
    assert_eq!(ask(&mut sim, third, "webrtc:join_room", r#"{"room_id":"r"}"#)["roomId"], "r");
}

#[test]
fn s2_07_the_older_names_are_understood_and_heard() {
    let mut sim = Sim::new();
    let (new, old) = (user(&mut sim, "new"), user(&mut sim, "old"));
    emit(&mut sim, new, "webrtc:join_room", r#""r""#);
    emit(&mut sim, old, "join_consultation_room", r#"{"roomId":"r"}"#);
    sim.take(new);
    sim.take(old);
    emit(&mut sim, new, "webrtc:offer", &format!(r#"{{"roomId":"r","sdp":{OFFER}}}"#));
    assert_eq!(one(&mut sim, old).0, "webrtc_offer");
    emit(&mut sim, old, "webrtc_answer", &format!(r#"{{"roomId":"r","answer":{ANSWER}}}"#));
    emit(&mut sim, old, "webrtc_ice_candidate", &format!(r#"{{"roomId":"r","candidate":{CANDIDATE}}}"#));
    assert_eq!(names(&events(&mut sim, new)), ["webrtc:answer", "webrtc:ice_candidate"]);
}

#[test]
fn s2_08_c5_chat_membership_is_not_call_membership() {
    let mut sim = Sim::new();
    let (doctor, patient, other) = (user(&mut sim, "doc"), user(&mut sim, "pat"), user(&mut sim, "eve"));
    assert_eq!(ask(&mut sim, doctor, "chat:join_room", r#"{"roomId":"r"}"#)["ok"], true);
    assert_eq!(sim.hub.stats().members, 0);
    emit(&mut sim, patient, "webrtc:join_room", r#"{"roomId":"r"}"#);
    sim.take(patient);
    let line = r#"{"roomId":"r","message":"Hello","timestamp":"now"}"#;
    assert_eq!(ask(&mut sim, patient, "chat:send_message", line)["delivered"], 1);
    let (name, payload) = one(&mut sim, doctor);
    assert_eq!(
        (&*name, &payload["message"], &payload["from"]),
        ("chat:message", &json!("Hello"), &json!("pat"))
    );
    assert_eq!(ask(&mut sim, other, "chat:send_message", line)["code"], "not_joined");
    for n in 0..Limits::default().chats {
        assert_eq!(
            ask(&mut sim, other, "chat:join_room", &format!(r#"{{"roomId":"chat {n}"}}"#))["ok"],
            true
        );
    }
    assert_eq!(ask(&mut sim, other, "chat:join_room", r#"{"roomId":"one more"}"#)["ok"], false);
}

/// Doctor and patient of seed 004 in one room, and the doctor's peer id.
fn consultation(sim: &mut Sim) -> (ConnId, ConnId, String) {
    let join = |user: &str, role: &str| {
        format!(r#"{{"room_id":"r","user_id":"{user}","role":"{role}","token":"good:{user}"}}"#)
    };
    let doctor = open(sim, None);
    sim.frame(doctor, "0");
    sim.take(doctor);
    emit(sim, doctor, "join_room", &join("7", "DOCTOR"));
    let (name, joined) = one(sim, doctor);
    assert_eq!(
        (&*name, &joined["participants_count"], &joined["role"]),
        ("joined_room", &json!(1), &json!("DOCTOR"))
    );
    let peer = joined["peer_id"].as_str().expect("a peer id").to_owned();
    assert!(peer.starts_with("doctor_7_"), "{peer}");
    let patient = open(sim, None);
    sim.frame(patient, "0");
    sim.take(patient);
    emit(sim, patient, "join_room", &join("8", "PATIENT"));
    let got = events(sim, patient);
    assert_eq!(names(&got), ["joined_room", "user_joined"], "those who are there already");
    let roster = json!([{ "user_id": "7", "peer_id": peer, "role": "DOCTOR" }]);
    assert_eq!(got[0].1["participants"], roster, "s4_16");
    assert_eq!(got[1].1, json!({ "user_id": "7", "peer_id": peer, "role": "DOCTOR" }));
    let (name, other) = one(sim, doctor);
    assert_eq!((&*name, &other["user_id"]), ("user_joined", &json!("8")));
    (doctor, patient, peer)
}

#[test]
fn s4_08_s4_21_s4_31_without_a_token_for_the_room_nobody_enters() {
    let mut sim = Sim::new();
    let conn = open(&mut sim, None);
    sim.frame(conn, "0");
    sim.take(conn);
    let refused = ask(&mut sim, conn, "join_room", r#"{"room_id":"r","user_id":"7","role":"DOCTOR"}"#);
    assert_eq!(refused["code"], "unauthenticated");
    let wrong = r#"{"room_id":"r","user_id":"9","role":"DOCTOR","token":"good:7"}"#;
    assert_eq!(ask(&mut sim, conn, "join_room", wrong)["code"], "forbidden", "not the token's user");
    let other = r#"{"room_id":"r","user_id":"8","role":"DOCTOR","token":"good:8"}"#;
    assert_eq!(ask(&mut sim, conn, "join_room", other)["code"], "forbidden", "not the socket's user");
    emit(&mut sim, conn, "join_room", r#"{"room_id":"r","token":"bad"}"#);
    let (name, error) = one(&mut sim, conn);
    assert_eq!((&*name, &error["code"]), ("error", &json!("unauthenticated")));
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
}

#[test]
fn s4_12_of_three_only_who_was_offered_to_gets_the_candidates() {
    let mut sim = Sim::new();
    let (doctor, patient, _) = consultation(&mut sim);
    let nurse = user(&mut sim, "9");
    emit(&mut sim, nurse, "join_room", r#"{"room_id":"r","user_id":"9","role":"NURSE"}"#);
    for conn in [doctor, patient, nurse] {
        sim.take(conn);
    }
    let candidate =
        |room: &str| format!(r#"{{"room_id":"{room}","from_peer_id":"me","candidate":{CANDIDATE}}}"#);
    emit(
        &mut sim,
        doctor,
        "webrtc_offer",
        &format!(r#"{{"room_id":"r","target_peer_id":"8","offer":{OFFER}}}"#),
    );
    emit(&mut sim, doctor, "ice_candidate", &candidate("r"));
    assert_eq!(names(&events(&mut sim, patient)), ["webrtc_offer", "ice_candidate"]);
    assert!(events(&mut sim, nurse).is_empty(), "it has no connection that the candidate is for");
    emit(
        &mut sim,
        patient,
        "webrtc_answer",
        &format!(r#"{{"room_id":"r","target_peer_id":"7","answer":{ANSWER}}}"#),
    );
    emit(&mut sim, patient, "ice_candidate", &candidate("r"));
    assert_eq!(names(&events(&mut sim, doctor)), ["webrtc_answer", "ice_candidate"]);
    assert!(events(&mut sim, nurse).is_empty());
}

#[test]
fn c3_the_same_event_is_seed_002s_or_seed_004s_by_how_its_recipient_joined() {
    let mut sim = Sim::new();
    let (old, rooms) = (user(&mut sim, "old"), user(&mut sim, "7"));
    emit(&mut sim, old, "join_consultation_room", r#"{"roomId":"r"}"#);
    emit(&mut sim, rooms, "join_room", r#"{"room_id":"r","user_id":"7","role":"DOCTOR"}"#);
    sim.take(old);
    sim.take(rooms);
    emit(&mut sim, old, "webrtc_offer", &format!(r#"{{"roomId":"r","offer":{OFFER}}}"#));
    let (name, offer) = one(&mut sim, rooms);
    assert_eq!((&*name, &offer["offer"]["type"]), ("webrtc_offer", &json!("offer")));
    let from = offer["from_peer_id"].as_str().expect("seed 004's key").to_owned();
    assert!(offer.get("roomId").is_none(), "{offer}");
    let answer =
        format!(r#"{{"room_id":"r","from_peer_id":"me","target_peer_id":"{from}","answer":{ANSWER}}}"#);
    emit(&mut sim, rooms, "webrtc_answer", &answer);
    let (name, answer) = one(&mut sim, old);
    assert_eq!((&*name, &answer["roomId"], &answer["from"]), ("webrtc_answer", &json!("r"), &json!("7")));
    assert!(answer.get("from_peer_id").is_none(), "{answer}");
}

#[test]
fn c14_disconnect_is_no_event_of_a_client() {
    let mut sim = Sim::new();
    let ann = user(&mut sim, "ann");
    for name in ["disconnect", "connect", "connect_error"] {
        assert_eq!(ask(&mut sim, ann, name, "{}")["code"], "unknown_type", "{name}");
    }
    assert_eq!(sim.closed(ann), None);
    sim.frame(ann, "1");
    assert_eq!(sim.closed(ann), Some(1000), "the packet is what leaves");
}

#[test]
fn s4_10_s4_11_s4_12_s4_18_the_literal_target_of_the_seed_reaches_the_other_one() {
    let mut sim = Sim::new();
    let (doctor, patient, peer) = consultation(&mut sim);
    let offer = format!(
        r#"{{"room_id":"r","from_peer_id":"forged","target_peer_id":"patient_peer_id","offer":{OFFER}}}"#
    );
    emit(&mut sim, doctor, "webrtc_offer", &offer);
    let offer: Value = serde_json::from_str(OFFER).expect("json");
    assert_eq!(
        one(&mut sim, patient),
        ("webrtc_offer".into(), json!({ "from_peer_id": peer, "offer": offer }))
    );
    let answer =
        format!(r#"{{"room_id":"r","from_peer_id":"me","target_peer_id":"{peer}","answer":{ANSWER}}}"#);
    emit(&mut sim, patient, "webrtc_answer", &answer);
    let candidate = format!(r#"{{"room_id":"r","from_peer_id":"me","candidate":{CANDIDATE}}}"#);
    emit(&mut sim, patient, "ice_candidate", &candidate);
    let got = events(&mut sim, doctor);
    assert_eq!(names(&got), ["webrtc_answer", "ice_candidate"]);
    assert!(got[1].1["from_peer_id"].as_str().is_some_and(|from| from.starts_with("patient_8_")));
    emit(&mut sim, doctor, "webrtc_offer", r#"{"room_id":"elsewhere","target_peer_id":"x","offer":{}}"#);
    assert_eq!(one(&mut sim, doctor).0, "error");
}

#[test]
fn s4_13_s4_14_s4_19_s4_20_toggles_and_chat_also_for_latecomers() {
    let mut sim = Sim::new();
    let (doctor, patient, _) = consultation(&mut sim);
    emit(&mut sim, doctor, "toggle_audio", r#"{"room_id":"r","user_id":"7","enabled":false}"#);
    emit(&mut sim, doctor, "screen_share", r#"{"room_id":"r","user_id":"7","enabled":true}"#);
    emit(&mut sim, doctor, "send_message", r#"{"room_id":"r","user_id":"1","message":"Hi","timestamp":"t"}"#);
    let got = events(&mut sim, patient);
    assert_eq!(names(&got), ["audio_toggled", "screen_share_toggled", "chat_message"]);
    assert_eq!(got[0].1, json!({ "user_id": "7", "enabled": false }));
    assert_eq!(
        got[2].1,
        json!({ "message": "Hi", "timestamp": "t", "user_id": "7" }),
        "not whom it says it is"
    );
    let late = user(&mut sim, "9");
    emit(&mut sim, late, "join_room", r#"{"room_id":"r","user_id":"9","role":"NURSE"}"#);
    let late = events(&mut sim, late);
    let wanted = ["joined_room", "user_joined", "audio_toggled", "screen_share_toggled", "user_joined"];
    assert_eq!(names(&late), wanted);
    assert_eq!(late[0].1["participants_count"], 3);
}

#[test]
fn s4_09_s4_17_user_left_comes_with_leaving_not_with_a_lost_socket() {
    let mut sim = Sim::new();
    let (doctor, patient, _) = consultation(&mut sim);
    sim.lose(patient);
    assert!(events(&mut sim, doctor).is_empty(), "it may come back");
    sim.pass(Limits::default().resume_window);
    let (name, left) = one(&mut sim, doctor);
    assert_eq!((&*name, &left["user_id"]), ("user_left", &json!("8")));
    assert!(left["peer_id"].as_str().is_some_and(|peer| peer.starts_with("patient_8_")), "{left}");

    let mut sim = Sim::new();
    let (doctor, patient, _) = consultation(&mut sim);
    assert_eq!(ask(&mut sim, patient, "leave_room", r#"{"room_id":"r","user_id":"8"}"#)["ok"], true);
    assert_eq!(one(&mut sim, doctor).0, "user_left");
    sim.frame(doctor, "1");
    assert_eq!((sim.closed(doctor), sim.hub.stats().members), (Some(1000), 0), "gone for good");
}

#[test]
fn the_chat_of_a_room_is_closed_to_whom_the_room_is() {
    let mut sim = Sim::new();
    let join = |sim: &mut Sim, conn, room: &str| {
        ask(sim, conn, "chat:join_room", &format!(r#"{{"roomId":"{room}"}}"#))["code"].clone()
    };
    let (ann, eve) = (user(&mut sim, "ann"), user(&mut sim, "eve"));
    let action = CallAction::Initiate { callee: "bob".into(), media: None };
    let call = sim.hub.handle_call(sim.now, &token("ann", None), action).expect("rings").remove(0);
    sim.drain();
    assert_eq!(join(&mut sim, eve, &call.id), "forbidden", "a call between others");
    assert_eq!(join(&mut sim, ann, &call.id), Value::Null);
    let action = ConsultationAction::Create { doctor: None, patient: "paul".into(), start: None, end: None };
    let made = sim.hub.handle_consultation(sim.now, &token("dora", None), action).expect("made").0;
    assert_eq!(join(&mut sim, eve, &made.room), "forbidden", "a consultation of others");
    let paul = user(&mut sim, "paul");
    assert_eq!(join(&mut sim, paul, &made.room), Value::Null);
}

#[test]
fn who_is_sent_out_of_a_room_hears_its_chat_no_longer() {
    let mut sim = Sim::new();
    let grants = Grants { moderate: true, ..Grants::ALL };
    let boss = sim.native_socket(Some(Identity { grants, ..token("mod", None) }));
    sim.frame(boss, r#"{"t":"hello"}"#);
    sim.join(boss, "r");
    let (_, member) = sim.member("eve", "r");
    let (eve, pat) = (user(&mut sim, "eve"), user(&mut sim, "pat"));
    for conn in [eve, pat] {
        assert_eq!(ask(&mut sim, conn, "chat:join_room", r#"{"roomId":"r"}"#)["ok"], true);
    }
    sim.frame(boss, &format!(r#"{{"t":"kick","id":"1","to":"{member}"}}"#));
    let line = r#"{"roomId":"r","message":"between us"}"#;
    assert_eq!(ask(&mut sim, pat, "chat:send_message", line)["delivered"], 0);
    assert_eq!(ask(&mut sim, eve, "chat:send_message", line)["code"], "not_joined");
    assert_eq!(ask(&mut sim, eve, "chat:join_room", r#"{"roomId":"r"}"#)["code"], "forbidden");
}

#[test]
fn the_chat_of_a_protected_room_is_closed_to_guests() {
    let limits = Limits { connects_per_minute: 1000, ..Limits::default() };
    let mut sim = Sim::with_rooms(limits, true);
    let (early, late) = (guest(&mut sim), guest(&mut sim));
    assert_eq!(ask(&mut sim, early, "chat:join_room", r#"{"roomId":"r"}"#)["ok"], true);
    let ann = open(&mut sim, Some(token("ann", Some(&["r"]))));
    sim.frame(ann, "0");
    sim.take(ann);
    emit(&mut sim, ann, "webrtc:join_room", r#"{"roomId":"r"}"#);
    assert_eq!(ask(&mut sim, late, "chat:join_room", r#"{"roomId":"r"}"#)["code"], "forbidden");
    let line = r#"{"roomId":"r","message":"for members"}"#;
    assert_eq!(ask(&mut sim, ann, "chat:send_message", line)["delivered"], 0);
}

#[test]
fn s4_25_who_goes_into_a_call_leaves_the_credentials_of_its_room_behind() {
    let mut sim = Sim::new();
    let (ann, bob) = (user(&mut sim, "ann"), user(&mut sim, "bob"));
    for conn in [ann, bob] {
        emit(&mut sim, conn, "join_room", r#"{"room_id":"r"}"#);
    }
    ask(&mut sim, ann, "call.invite", r#"{"to":"bob"}"#);
    assert_eq!(sim.revoked.len(), 1, "{:?}", sim.revoked);
    ask(&mut sim, bob, "call.accept", "{}");
    assert_eq!(sim.revoked.len(), 2, "{:?}", sim.revoked);
}

#[test]
fn invitations_a_minute_are_bounded() {
    let mut sim = Sim::with(Limits { joins_per_minute: 2, connects_per_minute: 1000, ..Limits::default() });
    let ann = user(&mut sim, "ann");
    for code in [Value::Null, Value::Null, json!("rate_limited")] {
        assert_eq!(ask(&mut sim, ann, "call.invite", r#"{"to":"bob"}"#)["code"], code);
        emit(&mut sim, ann, "call.end", "{}");
    }
}

/// Connects again with what the stock client has kept.
fn recover(sim: &mut Sim, user: &str, pid: &str, offset: &str) -> (ConnId, Vec<String>) {
    let conn = open(sim, Some(token(user, None)));
    sim.frame(conn, &format!(r#"0{{"pid":"{pid}","offset":"{offset}"}}"#));
    let got = sim.take(conn);
    (conn, got)
}

fn ids(answer: &str) -> (String, String) {
    let answer: Value = serde_json::from_str(answer.strip_prefix('0').expect("connected")).expect("json");
    (answer["sid"].as_str().expect("sid").into(), answer["pid"].as_str().expect("pid").into())
}

#[test]
fn a_stock_client_recovers_its_session_without_loss_again_and_again() {
    let mut sim = Sim::new();
    let mut ann = open(&mut sim, Some(token("ann", None)));
    sim.frame(ann, "0");
    let (sid, pid) = ids(&sim.take(ann)[0]);
    emit(&mut sim, ann, "webrtc:join_room", r#"{"roomId":"r"}"#);
    let bob = user(&mut sim, "bob");
    emit(&mut sim, bob, "webrtc:join_room", r#"{"roomId":"r"}"#);
    sim.take(ann);
    // connected, webrtc:joined_room, webrtc:user_joined
    let mut offset = 3;
    for _ in 0..3 {
        sim.lose(ann);
        emit(&mut sim, bob, "webrtc:offer", &format!(r#"{{"roomId":"r","offer":{OFFER}}}"#));
        emit(&mut sim, bob, "webrtc:ice_candidate", &format!(r#"{{"roomId":"r","candidate":{CANDIDATE}}}"#));
        let (conn, got) = recover(&mut sim, "ann", &pid, &offset.to_string());
        assert_eq!(ids(&got[0]), (sid.clone(), pid.clone()), "socket.recovered is true");
        assert_eq!(got.len(), 3, "{got:?}");
        offset += 2;
        assert!(got[2].ends_with(&format!(r#","{offset}"]"#)), "{got:?}");
        ann = conn;
    }
    // A socket that still looks alive is taken over.
    let (conn, got) = recover(&mut sim, "ann", &pid, &offset.to_string());
    assert_eq!((ids(&got[0]).0, sim.closed(ann), sim.closed(conn)), (sid.clone(), Some(4440), None));
    // Another user with a stolen pid gets a session of its own.
    let (_, got) = recover(&mut sim, "eve", &pid, &offset.to_string());
    assert_ne!(ids(&got[0]).0, sid);
    sim.lose(conn);
    sim.pass(Limits::default().resume_window);
    let (_, got) = recover(&mut sim, "ann", &pid, &offset.to_string());
    assert_ne!(ids(&got[0]), (sid, pid), "the window is over: a fresh session, not an error");
}

#[test]
fn an_event_sent_again_because_its_acknowledgement_was_lost_is_carried_out_once() {
    let mut sim = Sim::new();
    let ann = open(&mut sim, Some(token("ann", None)));
    sim.frame(ann, "0");
    let (_, pid) = ids(&sim.take(ann)[0]);
    let bob = user(&mut sim, "bob");
    for conn in [ann, bob] {
        emit(&mut sim, conn, "webrtc:join_room", r#"{"roomId":"r"}"#);
    }
    sim.take(bob);
    let line = r#"["chat:send_message",{"roomId":"r","message":"once"}]"#;
    sim.frame(ann, &format!("21{line}"));
    sim.lose(ann);
    let (again, _) = recover(&mut sim, "ann", &pid, "3");
    sim.frame(again, &format!("22{line}"));
    assert_eq!(sim.take(again), [r#"32[{"delivered":1,"ok":true}]"#]);
    assert_eq!(events(&mut sim, bob).len(), 1);
    sim.frame(again, &format!("23{line}"));
    assert_eq!(events(&mut sim, bob).len(), 1, "the same words a second time are a second line");
}

#[test]
fn c1_c8_native_and_socketio_understand_each_other() {
    let mut sim = Sim::new();
    let (doctor, _, peer) = consultation(&mut sim);
    let (native, _) = sim.native("nat");
    sim.join(native, "r");
    sim.take(native);
    assert_eq!(one(&mut sim, doctor).0, "user_joined");
    sim.frame(native, &format!(r#"{{"t":"offer","d":{OFFER}}}"#));
    sim.frame(native, &format!(r#"{{"t":"candidate","d":{CANDIDATE}}}"#));
    sim.frame(native, r#"{"t":"media","d":{"audio":false,"video":true}}"#);
    let got = events(&mut sim, doctor);
    assert_eq!(names(&got), ["webrtc_offer", "ice_candidate", "audio_toggled", "video_toggled"]);
    let answer =
        format!(r#"{{"room_id":"r","target_peer_id":"nat","from_peer_id":"{peer}","answer":{ANSWER}}}"#);
    emit(&mut sim, doctor, "webrtc_answer", &answer);
    let frames = sim.take_json(native);
    assert_eq!(frames.last().map(|f| &f["t"]), Some(&json!("answer")), "{frames:?}");
}

#[test]
fn s1_02_s1_07_an_invitation_rings_on_all_connections_and_the_first_answer_wins() {
    let mut sim = Sim::new();
    let (ann, first, second) = (user(&mut sim, "ann"), user(&mut sim, "bob"), user(&mut sim, "bob"));
    let invited = ask(&mut sim, ann, "call.invite", r#"{"to":"bob","media":"video","n":1.50}"#);
    assert_eq!((&invited["ok"], &invited["delivered"]), (&json!(true), &json!(2)));
    let call = invited["callId"].as_str().expect("a call").to_owned();
    assert_eq!(one(&mut sim, ann).0, "call.ringing");
    emit(&mut sim, ann, "call.offer", &format!(r#"{{"to":"bob","offer":{OFFER}}}"#));
    emit(&mut sim, ann, "call.ice", &format!(r#"{{"to":"bob","candidate":{CANDIDATE}}}"#));
    for conn in [first, second] {
        let got = events(&mut sim, conn);
        assert_eq!(names(&got), ["call.invite", "call.offer", "call.ice"], "an offer before any accept");
        assert_eq!(
            (&got[0].1["from"], &got[0].1["callId"], &got[0].1["media"]),
            (&json!("ann"), &json!(call), &json!("video"))
        );
        assert_eq!((&got[1].1["from"], &got[1].1["to"]), (&json!("ann"), &json!("bob")));
    }
    let answer = format!(r#"{{"callId":"{call}","answer":{ANSWER}}}"#);
    assert_eq!(ask(&mut sim, second, "call.answer", &answer)["delivered"], 1);
    let got = events(&mut sim, first);
    assert_eq!(got[0], ("call.cancel".into(), json!({ "callId": call, "reason": "answered_elsewhere" })));
    assert_eq!(names(&events(&mut sim, ann)), ["call.accept", "call.answer"]);
    emit(&mut sim, second, "call.ice", &format!(r#"{{"candidate":{CANDIDATE}}}"#));
    assert_eq!(one(&mut sim, ann).0, "call.ice");
    assert_eq!(ask(&mut sim, ann, "call.end", "{}")["status"], "ended");
    assert_eq!(names(&events(&mut sim, second)).last(), Some(&"call.end"));
    assert_eq!(sim.hub.stats().calls, 0);
}

#[test]
fn s1_06_reject_cancel_timeout_and_a_latecomer() {
    let mut sim = Sim::new();
    let (ann, bob) = (user(&mut sim, "ann"), user(&mut sim, "bob"));
    let invite = |sim: &mut Sim| ask(sim, ann, "call.invite", r#"{"calleeId":"bob"}"#)["callId"].clone();
    invite(&mut sim);
    assert_eq!(ask(&mut sim, bob, "call.reject", "{}")["status"], "rejected");
    assert_eq!(names(&events(&mut sim, ann)), ["call.ringing", "call.reject"]);
    invite(&mut sim);
    assert_eq!(ask(&mut sim, ann, "call.cancel", "{}")["status"], "cancelled");
    assert_eq!(names(&events(&mut sim, bob)).last(), Some(&"call.cancel"));
    invite(&mut sim);
    emit(&mut sim, ann, "call.offer", &format!(r#"{{"offer":{OFFER}}}"#));
    let conn = open(&mut sim, Some(token("bob", None)));
    sim.frame(conn, "0");
    let got: Vec<String> = sim.take(conn);
    assert!(got[2].starts_with(r#"2["call.invite""#) && got[3].starts_with(r#"2["call.offer""#), "{got:?}");
    sim.pass(Limits::default().ring);
    assert_eq!(names(&events(&mut sim, bob)).last(), Some(&"call.timeout"));
    let guest = guest(&mut sim);
    assert_eq!(ask(&mut sim, guest, "call.invite", r#"{"to":"bob"}"#)["code"], "unauthenticated");
    assert_eq!(ask(&mut sim, ann, "call.invite", "{}")["code"], "bad_frame");
    assert_eq!(ask(&mut sim, ann, "call.accept", "{}")["code"], "no_such_call");
}

#[test]
fn s3_23_bad_packets_are_refused_and_bounded() {
    let mut sim = Sim::new();
    let ann = user(&mut sim, "ann");
    assert_eq!(ask(&mut sim, ann, "no such event", "1")["code"], "unknown_type");
    assert_eq!(ask(&mut sim, ann, "webrtc:offer", r#"{"offer":7}"#)["code"], "bad_frame");
    assert_eq!(ask(&mut sim, ann, "webrtc:offer", &format!(r#"{{"offer":{OFFER}}}"#))["code"], "not_joined");
    let deep = format!(r#"2["x",{}{}]"#, "[".repeat(40), "]".repeat(40));
    sim.frame(ann, &deep);
    assert_eq!(one(&mut sim, ann).1["code"], "too_deep");
    for packet in ["2nonsense", "51-[\"x\",{}]", "9"] {
        sim.frame(ann, packet);
    }
    assert_eq!(sim.closed(ann), Some(4400));
    let silent = open(&mut sim, None);
    sim.pass(Duration::from_secs(10));
    assert_eq!(sim.closed(silent), Some(4408));
    let mute = Identity { grants: Grants { chat: false, ..Grants::ALL }, ..token("mute", None) };
    let mute = open(&mut sim, Some(mute));
    sim.frame(mute, "0");
    assert_eq!(ask(&mut sim, mute, "chat:join_room", r#"{"roomId":"r"}"#)["code"], "forbidden");
}
