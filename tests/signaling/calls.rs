//! Calls between users and the call sockets of seed 003: the hub in simulated time, then the real
//! server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use turnkey::http::token::{Claims, mint};
use turnkey::signal::{
    Call, CallAction, CallStatus, Code, ConnId, Connect, Dialect, Identity, Limits, Refusal,
};

use crate::server::{SECRET, Server, guarded, jwt, unix};
use crate::sim::{Sim, browser, kinds, raw_connect, token};

const OFFER: &str = r#"{"type":"offer","offer":{"type":"offer","sdp":"v=0\r\n"},"x":1.50}"#;
const ANSWER: &str = r#"{"type":"answer","answer":{"type":"answer","sdp":"v=0\r\n"}}"#;
const CANDIDATE: &str = r#"{"type":"ice_candidate","candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMLineIndex":0,"sdpMid":"0"}}"#;

fn act(sim: &mut Sim, user: &str, action: CallAction) -> Result<Vec<Call>, Refusal> {
    let result = sim.hub.handle_call(sim.now, &token(user, None), action);
    sim.drain();
    result
}

fn initiate(sim: &mut Sim, caller: &str, callee: &str) -> Arc<str> {
    let action = CallAction::Initiate { callee: callee.into(), media: None };
    let calls = act(sim, caller, action).expect("a call");
    assert_eq!(
        (calls[0].status, &*calls[0].caller, &*calls[0].callee),
        (CallStatus::Pending, caller, callee)
    );
    calls[0].id.clone()
}

/// A call that was accepted.
fn ongoing(sim: &mut Sim) -> Arc<str> {
    let id = initiate(sim, "ann", "bob");
    act(sim, "bob", CallAction::Accept(id.clone())).expect("accepted");
    id
}

fn socket(sim: &mut Sim, user: &str, call: &str) -> ConnId {
    socket_as(sim, token(user, None), call)
}

fn socket_as(sim: &mut Sim, identity: Identity, call: &str) -> ConnId {
    let mut key = browser(1);
    key.user = identity.names_a_person().then(|| identity.user.clone());
    let connect = raw_connect(call, key);
    sim.connect(Connect { dialect: Dialect::Call, identity: Some(identity), ..connect })
}

fn status(sim: &mut Sim, call: &Arc<str>) -> CallStatus {
    act(sim, "ann", CallAction::View(call.clone())).expect("a party")[0].status
}

fn code(result: Result<Vec<Call>, Refusal>) -> Code {
    result.expect_err("refused").code
}

#[test]
fn s3_04_a_call_is_pending_then_ongoing_then_over() {
    let mut sim = Sim::new();
    let id = initiate(&mut sim, "ann", "bob");
    for user in ["ann", "bob"] {
        assert_eq!(act(&mut sim, user, CallAction::Active).expect("calls")[0].id, id);
    }
    for _ in 0..2 {
        let call = act(&mut sim, "bob", CallAction::Accept(id.clone())).expect("accepted");
        assert_eq!(call[0].status, CallStatus::Ongoing);
    }
    socket(&mut sim, "ann", &id);
    sim.pass(Duration::from_secs(3600));
    assert_eq!(sim.hub.stats().calls, 1, "an accepted call does not stop ringing");
    for user in ["ann", "bob"] {
        let call = act(&mut sim, user, CallAction::End(id.clone())).expect("ended");
        assert_eq!(call[0].status, CallStatus::Ended);
        assert!(act(&mut sim, user, CallAction::Active).expect("none").is_empty());
    }
    assert_eq!(code(act(&mut sim, "bob", CallAction::Accept(id.clone()))), Code::WrongState);
    sim.pass(Limits::default().call_memory);
    assert_eq!(code(act(&mut sim, "ann", CallAction::View(id))), Code::NoSuchCall, "forgotten");
    assert_eq!((sim.hub.stats().calls, sim.hub.stats().calls_made), (0, 1));
}

#[test]
fn s3_04_the_other_ends_of_a_call_that_rings() {
    let mut sim = Sim::new();
    let id = initiate(&mut sim, "ann", "bob");
    act(&mut sim, "bob", CallAction::Reject(id.clone())).expect("rejected");
    assert_eq!(status(&mut sim, &id), CallStatus::Rejected);
    let id = initiate(&mut sim, "ann", "bob");
    act(&mut sim, "ann", CallAction::End(id.clone())).expect("cancelled");
    assert_eq!(status(&mut sim, &id), CallStatus::Cancelled);
    let id = initiate(&mut sim, "ann", "bob");
    sim.pass(Limits::default().ring - Duration::from_secs(1));
    assert_eq!(status(&mut sim, &id), CallStatus::Pending);
    sim.pass(Duration::from_secs(1));
    assert_eq!(status(&mut sim, &id), CallStatus::Missed);
}

#[test]
fn s3_02_only_the_callee_accepts_and_others_see_nothing() {
    let mut sim = Sim::new();
    let id = initiate(&mut sim, "ann", "bob");
    assert_eq!(code(act(&mut sim, "ann", CallAction::Accept(id.clone()))), Code::Forbidden);
    for action in [CallAction::Accept(id.clone()), CallAction::End(id.clone()), CallAction::View(id.clone())]
    {
        assert_eq!(code(act(&mut sim, "eve", action)), Code::NoSuchCall);
    }
    assert_eq!(code(act(&mut sim, "ann", CallAction::Overview)), Code::Forbidden);
    let admin = Identity { role: Some("admin".into()), ..token("root", None) };
    let seen = sim.hub.handle_call(sim.now, &admin, CallAction::Overview).expect("an admin");
    assert_eq!(seen[0].id, id);
    let guest = Identity::guest("guest", true);
    assert_eq!(code(sim.hub.handle_call(sim.now, &guest, CallAction::Active)), Code::Forbidden);
}

#[test]
fn an_admin_of_one_room_is_none_of_the_others() {
    let mut sim = Sim::new();
    initiate(&mut sim, "ann", "bob");
    for (rooms, calls) in [(Some(&["r"][..]), Err(Code::Forbidden)), (Some(&["*"]), Ok(1)), (None, Ok(1))] {
        let admin = Identity { role: Some("admin".into()), ..token("root", rooms) };
        let seen = sim.hub.handle_call(sim.now, &admin, CallAction::Overview);
        assert_eq!(seen.map(|calls| calls.len()).map_err(|refusal| refusal.code), calls, "{rooms:?}");
    }
}

#[test]
fn calls_are_bounded_per_user_and_in_all() {
    let limits = Limits { calls: 3, calls_per_user: 2, connects_per_minute: 1000, ..Limits::default() };
    let mut sim = Sim::with(limits);
    let to = |callee: &str| CallAction::Initiate { callee: callee.into(), media: None };
    initiate(&mut sim, "ann", "bob");
    let second = initiate(&mut sim, "ann", "cid");
    assert_eq!(code(act(&mut sim, "ann", to("dan"))), Code::RateLimited);
    assert_eq!(code(act(&mut sim, "ann", to("ann"))), Code::BadFrame);
    assert_eq!(code(act(&mut sim, "ann", to(""))), Code::BadFrame);
    initiate(&mut sim, "eve", "dan");
    assert_eq!(code(act(&mut sim, "fay", to("gus"))), Code::Busy, "three in all");
    act(&mut sim, "ann", CallAction::End(second)).expect("ended");
    sim.pass(Limits::default().call_memory);
    initiate(&mut sim, "ann", "dan");
}

#[test]
fn s3_05_all_connections_of_both_hear_of_the_call() {
    let mut sim = Sim::new();
    let (first, _) = sim.native("bob");
    let (second, _) = sim.native("bob");
    let (other, _) = sim.native("eve");
    let id = initiate(&mut sim, "ann", "bob");
    for conn in [first, second] {
        let frame = sim.take_one(conn);
        assert_eq!((&frame["t"], &frame["d"]["status"]), (&json!("call"), &json!("pending")));
        assert_eq!((&frame["d"]["call_id"], &frame["d"]["caller_id"]), (&json!(*id), &json!("ann")));
        assert!(frame["d"]["created_at"].as_str().is_some_and(|t| t.ends_with('Z')), "{frame}");
    }
    act(&mut sim, "bob", CallAction::Accept(id)).expect("accepted");
    assert_eq!(sim.take_one(second)["d"]["status"], "ongoing", "it stops ringing on the second one");
    assert!(sim.take(other).is_empty());
}

#[test]
fn s3_07_s3_13_only_the_two_parties_enter_and_a_second_socket_takes_over() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let (ann, bob) = (socket(&mut sim, "ann", &id), socket(&mut sim, "bob", &id));
    for (who, expected) in [
        (token("eve", None), 4403),
        (Identity::guest("guest", true), 4403),
        (token("ann", Some(&["other"])), 4403),
    ] {
        let conn = socket_as(&mut sim, who, &id);
        assert_eq!(sim.closed(conn), Some(expected));
    }
    let third = socket_as(&mut sim, token("cid", Some(&[&id])), &id);
    assert_eq!(sim.closed(third), Some(4409), "whom a token lets in finds it full");
    let nowhere = socket(&mut sim, "ann", "call_0");
    assert_eq!(sim.closed(nowhere), Some(4404));
    sim.frame(bob, ANSWER);
    sim.take(ann);
    let again = socket(&mut sim, "ann", &id);
    assert_eq!((sim.closed(ann), sim.closed(again)), (Some(4440), None));
    sim.frame(bob, CANDIDATE);
    assert_eq!(sim.take(again).last().map(String::as_str), Some(CANDIDATE));
    act(&mut sim, "bob", CallAction::End(id.clone())).expect("ended");
    let late = socket(&mut sim, "ann", &id);
    assert_eq!(sim.closed(late), Some(4404), "the call is over");
}

#[test]
fn a_token_that_names_the_call_is_as_good_as_being_a_party() {
    let mut sim = Sim::new();
    let conn = socket_as(&mut sim, token("eve", Some(&["consultation 7"])), "consultation 7");
    assert_eq!(sim.closed(conn), None, "a back end with calls of its own mints such tokens");
}

#[test]
fn s3_08_s3_09_s3_10_messages_reach_the_other_party_as_they_came() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let (ann, bob) = (socket(&mut sim, "ann", &id), socket(&mut sim, "bob", &id));
    sim.frame(ann, OFFER);
    sim.frame(ann, CANDIDATE);
    assert_eq!(sim.take(bob), [OFFER, CANDIDATE]);
    sim.frame(bob, ANSWER);
    sim.frame(bob, CANDIDATE);
    assert_eq!(sim.take(ann), [ANSWER, CANDIDATE]);
}

#[test]
fn s3_29_a_faster_than_b_loses_nothing() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let ann = socket(&mut sim, "ann", &id);
    sim.frame(ann, OFFER);
    sim.frame(ann, CANDIDATE);
    let bob = socket(&mut sim, "bob", &id);
    assert_eq!(sim.take(bob), [OFFER, CANDIDATE]);
}

#[test]
fn s3_23_what_is_no_valid_message_is_refused_and_not_relayed() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let (ann, bob) = (socket(&mut sim, "ann", &id), socket(&mut sim, "bob", &id));
    let refusals = [
        (r#"{"type":"offer","offer":{"type":"answer","sdp":"v=0"}}"#, "bad_frame"),
        (r#"{"type":"answer","answer":{"type":"answer","sdp":"nonsense"}}"#, "bad_frame"),
        (r#"{"type":"whatever"}"#, "unknown_type"),
    ];
    for (frame, expected) in refusals {
        sim.frame(ann, frame);
        let error = sim.take_one(ann);
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(expected)));
    }
    assert!(sim.take(bob).is_empty());
    sim.frame(ann, r#"{"type":"ping"}"#);
    assert_eq!(sim.take_one(ann)["type"], "pong");
    sim.frame(ann, "[1]");
    assert_eq!(sim.closed(ann), Some(4400), "the third bad frame");
}

#[test]
fn s3_11_s3_12_chat_and_state_are_understood_by_other_dialects() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let ann = socket(&mut sim, "ann", &id);
    let (bob, _) = sim.native("bob");
    sim.take(bob);
    sim.join(bob, &id);
    sim.frame(ann, r#"{"type":"text","message":"Hello!","timestamp":"2026-01-21T10:30:00Z"}"#);
    sim.frame(ann, r#"{"type":"connection_state","state":"connected"}"#);
    let frames = sim.take_json(bob);
    assert_eq!(kinds(&frames), ["chat", "state"]);
    assert_eq!(frames[0]["d"], json!({ "message": "Hello!", "timestamp": "2026-01-21T10:30:00Z" }));
    assert_eq!(frames[1]["d"], json!({ "state": "connected" }));
    sim.frame(bob, r#"{"t":"chat","d":{"message":"Hi","timestamp":7}}"#);
    sim.frame(bob, r#"{"t":"candidate","d":null}"#);
    sim.frame(bob, r#"{"t":"offer","d":{"type":"offer","sdp":"v=0\r\n"}}"#);
    let got = sim.take_json(ann);
    assert_eq!(got[0], json!({ "type": "text", "message": "Hi", "timestamp": 7 }));
    assert_eq!(got[1], json!({ "type": "offer", "offer": { "type": "offer", "sdp": "v=0\r\n" } }));
    assert_eq!(got.len(), 2, "the end of candidates would break the page");
}

#[test]
fn s3_16_s3_30_what_the_parties_report_can_be_looked_at() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let (ann, bob) = (socket(&mut sim, "ann", &id), socket(&mut sim, "bob", &id));
    sim.frame(ann, OFFER);
    for _ in 0..3 {
        sim.frame(ann, CANDIDATE);
    }
    sim.frame(bob, r#"{"type":"connection_state","state":"connected"}"#);
    sim.frame(bob, r#"{"type":"connection_state","state":"no such state"}"#);
    let call = act(&mut sim, "bob", CallAction::View(id)).expect("a party").remove(0);
    assert_eq!((&*call.connection_state, call.ice_candidates_count), ("connected", 3));
}

#[test]
fn s3_22_a_call_without_one_of_its_parties_ends_after_the_window() {
    for (report, expected) in [("connected", CallStatus::Failed), ("failed", CallStatus::Failed)] {
        let mut sim = Sim::new();
        let id = ongoing(&mut sim);
        let (ann, bob) = (socket(&mut sim, "ann", &id), socket(&mut sim, "bob", &id));
        sim.frame(ann, &format!(r#"{{"type":"connection_state","state":"{report}"}}"#));
        sim.lose(ann);
        sim.pass(Limits::default().resume_window - Duration::from_secs(1));
        assert_eq!(status(&mut sim, &id), CallStatus::Ongoing, "a tunnel is no end");
        sim.pass(Duration::from_secs(1));
        assert_eq!(status(&mut sim, &id), expected);
        let told = sim.take_json(bob);
        assert_eq!(told.last().map(|t| &t["type"]), Some(&json!("call_failed")), "{told:?}");
        assert_eq!(sim.closed(bob), Some(1000));
    }
}

#[test]
fn an_accepted_call_that_nobody_enters_ends_after_the_window() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    sim.pass(Limits::default().resume_window - Duration::from_secs(1));
    assert_eq!(status(&mut sim, &id), CallStatus::Ongoing);
    sim.pass(Duration::from_secs(1));
    assert_eq!(status(&mut sim, &id), CallStatus::Failed);
    let most = Limits::default().calls_per_user;
    for _ in 0..most {
        ongoing(&mut sim);
    }
    sim.pass(Limits::default().resume_window);
    assert!(act(&mut sim, "ann", CallAction::Active).expect("asked").is_empty(), "nobody is blocked");

    let id = ongoing(&mut sim);
    let ann = socket(&mut sim, "ann", &id);
    sim.pass(Duration::from_secs(3600));
    assert_eq!(status(&mut sim, &id), CallStatus::Ongoing, "one is there and waits");
    sim.lose(ann);
    sim.pass(Limits::default().resume_window);
    assert_eq!(status(&mut sim, &id), CallStatus::Failed);
}

#[test]
fn s3_22_a_party_that_comes_back_in_time_goes_on() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let (ann, bob) = (socket(&mut sim, "ann", &id), socket(&mut sim, "bob", &id));
    sim.lose(ann);
    sim.frame(bob, OFFER);
    let ann = socket(&mut sim, "ann", &id);
    assert_eq!(sim.take(ann), [OFFER]);
    sim.pass(Duration::from_secs(600));
    assert_eq!(status(&mut sim, &id), CallStatus::Ongoing);
}

#[test]
fn s3_07_a_new_token_in_band_keeps_the_socket() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let end = sim.now.unix + 60;
    let short = Identity { expires_at: Some(end), ..token("ann", None) };
    let ann = socket_as(&mut sim, short.clone(), &id);
    sim.frame(ann, r#"{"type":"token_refresh","token":"nonsense"}"#);
    assert_eq!(sim.take_one(ann)["code"], "unauthenticated");
    sim.frame(ann, r#"{"type":"token_refresh","token":"good:bob"}"#);
    assert_eq!(sim.take_one(ann)["code"], "forbidden", "another user's");
    sim.frame(ann, r#"{"type":"token_refresh","token":"good:ann"}"#);
    assert_eq!(sim.take_one(ann)["type"], "token_refreshed");
    sim.pass(Duration::from_secs(120));
    assert_eq!(sim.closed(ann), None);

    let conn = sim.native_socket(Some(Identity { expires_at: Some(sim.now.unix + 60), ..short }));
    sim.frame(conn, r#"{"t":"hello"}"#);
    sim.take(conn);
    sim.frame(conn, r#"{"t":"token","id":"t","d":{"token":"good:ann"}}"#);
    assert_eq!(sim.take_one(conn), json!({ "t": "ok", "ref": "t", "d": {} }));
    sim.pass(Duration::from_secs(120));
    assert_eq!(sim.closed(conn), None);
}

fn bearer(user: &str) -> String {
    format!("Bearer {}", jwt(user, None))
}

async fn post(server: &Server, path: &str, user: &str, body: &str) -> (u16, Value) {
    let answer = server.request_with("POST", path, &[("authorization", &bearer(user))], body).await;
    (answer.status, answer.json())
}

async fn get(server: &Server, path: &str, authorization: &str) -> (u16, Value) {
    let answer = server.get(path, &[("authorization", authorization)]).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn s3_01_s3_29_a_call_as_seed_003_makes_it() {
    let server = Server::start(guarded()).await;
    let (status, call) =
        post(&server, "/calls/initiate", "ann", r#"{"callee_id":"bob","media":{"video":true}}"#).await;
    assert_eq!((status, &call["status"]), (201, &json!("pending")));
    assert_eq!(call["media"], json!({ "video": true }));
    assert_eq!(
        call["ws_url"],
        format!("ws://{}/ws/webrtc/{}", server.address, call["call_id"].as_str().unwrap())
    );
    assert!(call["ice_servers"][1]["credential"].is_string(), "{call}");
    let id = call["call_id"].as_str().expect("an id");
    let (_, seen) = get(&server, "/calls/active", &bearer("bob")).await;
    assert_eq!((&seen["call_id"], &seen["calls"][0]["caller_id"]), (&json!(id), &json!("ann")));
    let (status, accepted) = post(&server, &format!("/calls/accept/{id}"), "bob", "").await;
    assert_eq!((status, &accepted["status"]), (200, &json!("ongoing")));

    let socket = |user: &str| format!("/ws/webrtc/{id}?token={}", jwt(user, None));
    let mut bob = server.ws(&socket("bob")).await;
    let mut ann = server.ws(&socket("ann")).await;
    ann.send(OFFER).await;
    assert_eq!(bob.text().await, OFFER);
    bob.send(ANSWER).await;
    bob.send(CANDIDATE).await;
    assert_eq!((ann.text().await, ann.text().await), (ANSWER.into(), CANDIDATE.into()));
    let mut eve = server.ws(&socket("eve")).await;
    assert_eq!(eve.close_code().await, Some(4403));

    let (status, state) = get(&server, &format!("/ws/webrtc/connection-state/{id}"), &bearer("ann")).await;
    assert_eq!((status, &state["ice_candidates_count"]), (200, &json!(1)));
    let fields: Vec<&str> = state.as_object().expect("an object").keys().map(String::as_str).collect();
    for field in ["call_id", "connection_state", "created_at", "updated_at"] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    let (status, ended) = post(&server, &format!("/calls/end/{id}"), "ann", "").await;
    assert_eq!((status, &ended["status"]), (200, &json!("ended")));
    let (code, _, texts) = bob.end().await;
    assert_eq!(code, Some(1000));
    assert!(texts.last().is_some_and(|t| t.starts_with(r#"{"type":"call_ended","call_id":"#)), "{texts:?}");
    let (_, none) = get(&server, "/calls/active", &bearer("bob")).await;
    assert_eq!(none, json!({ "call_id": null, "calls": [] }));
}

#[tokio::test]
async fn s3_06_s3_24_a_token_travels_in_each_place_and_no_compression_is_negotiated() {
    let server = Server::start(guarded()).await;
    let call = post(&server, "/calls/initiate", "ann", r#"{"callee_id":"bob"}"#).await.1;
    let id = call["call_id"].as_str().expect("an id");
    post(&server, &format!("/calls/accept/{id}"), "bob", "").await;
    let path = format!("/ws/webrtc/{id}");
    let mut bob = server.ws(&format!("{path}?token={}", jwt("bob", None))).await;
    let (subprotocol, header) = (format!("bearer.{}", jwt("ann", None)), bearer("ann"));
    for header in [("sec-websocket-protocol", &*subprotocol), ("authorization", &*header)] {
        // What a browser offers is an offer: without an answer both sides send as they are.
        let headers = [header, ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")];
        let mut ann = server.ws_with(&path, &headers).await;
        assert_eq!(ann.response.headers().get("sec-websocket-extensions"), None);
        ann.send(OFFER).await;
        assert_eq!(bob.text().await, OFFER, "{}", header.0);
    }
}

#[tokio::test]
async fn s3_06_s3_07_the_first_frame_of_a_call_socket_may_bring_the_token() {
    let server = Server::start(guarded()).await;
    let call = post(&server, "/calls/initiate", "ann", r#"{"callee_id":"bob"}"#).await.1;
    let id = call["call_id"].as_str().expect("an id");
    post(&server, &format!("/calls/accept/{id}"), "bob", "").await;
    let path = format!("/ws/webrtc/{id}");
    let auth = |user: &str| json!({ "type": "auth", "token": jwt(user, None) }).to_string();
    let mut bob = server.ws(&path).await;
    bob.send(&auth("bob")).await;
    let mut ann = server.ws(&path).await;
    ann.send(&auth("ann")).await;
    ann.send(OFFER).await;
    assert_eq!(bob.text().await, OFFER);
    for (first, code) in [
        (OFFER.to_owned(), 4401),
        (r#"{"type":"auth","token":"nonsense"}"#.to_owned(), 4401),
        (auth("eve"), 4403),
    ] {
        let mut socket = server.ws(&path).await;
        socket.send(&first).await;
        let end = socket.end().await;
        assert_eq!(end.0, Some(code), "{first} {end:?}");
    }
}

#[test]
fn s3_06_a_call_socket_without_a_token_has_little_time_and_no_say() {
    let mut sim = Sim::new();
    let id = ongoing(&mut sim);
    let stranger = |sim: &mut Sim| {
        let connect = raw_connect(&id, browser(1));
        sim.connect(Connect { dialect: Dialect::Call, identity: None, ..connect })
    };
    let (silent, bob) = (stranger(&mut sim), stranger(&mut sim));
    sim.frame(bob, r#"{"type":"auth","token":"good:bob"}"#);
    sim.pass(Limits::default().hello);
    assert_eq!((sim.closed(silent), sim.closed(bob)), (Some(4408), None));
    assert_eq!(sim.hub.stats().sessions, 1, "a stranger has none");
    let early = stranger(&mut sim);
    sim.frame(early, ANSWER);
    assert_eq!(sim.closed(early), Some(4401));
    // What comes right behind the token is the user's own.
    let ann = stranger(&mut sim);
    sim.frame(ann, r#"{"type":"token_refresh","token":"good:ann"}"#);
    sim.frame(ann, OFFER);
    assert_eq!(sim.take(bob), [OFFER]);
    // A token of another user's later on changes nothing.
    sim.frame(ann, r#"{"type":"auth","token":"good:bob"}"#);
    assert!(sim.take(ann).iter().any(|text| text.contains("another user's")));
    assert_eq!(sim.closed(ann), None);
}

#[tokio::test]
async fn s3_16_s3_17_c13_debug_views_are_for_parties_and_admins() {
    let server = Server::start(guarded()).await;
    let (_, call) = post(&server, "/calls/initiate", "ann", r#"{"user_id":"bob"}"#).await;
    let id = call["call_id"].as_str().expect("an id");
    let view = format!("/ws/webrtc/connection-state/{id}");
    assert_eq!(get(&server, &view, &bearer("eve")).await.0, 404);
    assert_eq!(get(&server, "/ws/webrtc/active-connections", &bearer("ann")).await.0, 403);
    let claims = Claims { sub: "root".into(), role: Some("admin".into()), ..Claims::default() };
    let admin = mint(SECRET, claims, unix(), Duration::from_secs(60)).expect("token");
    let (status, all) = get(&server, "/ws/webrtc/active-connections", &format!("Bearer {admin}")).await;
    assert_eq!((status, &all["total_calls"]), (200, &json!(1)));
    assert_eq!(all["connections"][id]["connection_state"], "new");
    assert_eq!(get(&server, &view, &format!("Bearer {admin}")).await.0, 200);
}

#[tokio::test]
async fn errors_of_the_api_are_problem_details() {
    let server = Server::start(guarded()).await;
    let authorization = bearer("ann");
    let cases = [
        ("POST", "/calls/initiate", "", "{}", 401, "unauthenticated"),
        ("POST", "/calls/initiate", &*authorization, "{}", 422, "bad_request"),
        ("POST", "/calls/initiate", &authorization, r#"["ann",null]"#, 422, "bad_request"),
        ("POST", "/calls/initiate", &authorization, r#"{"callee_id":"ann"}"#, 422, "bad_frame"),
        ("POST", "/calls/accept/call_0", &authorization, "", 404, "no_such_call"),
        ("GET", "/ws/webrtc/active-connections", &authorization, "", 403, "forbidden"),
    ];
    for (method, path, authorization, body, status, code) in cases {
        let answer = server.request_with(method, path, &[("authorization", authorization)], body).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (status, &json!(code)), "{path} {problem}");
        assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!("about:blank")));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let large = format!(r#"{{"callee_id":"bob","media":"{}"}}"#, "x".repeat(20_000));
    let answer =
        server.request_with("POST", "/calls/initiate", &[("authorization", &authorization)], &large).await;
    assert_eq!(answer.status, 413);
    // On a slow machine some of the allowance comes back meanwhile.
    let mut last = 0;
    for _ in 0..1500 {
        last = get(&server, "/calls/active", &authorization).await.0;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
    // Others behind the same address still get a socket.
    let mut socket = server.ws("/socket.io/?EIO=4&transport=websocket").await;
    socket.send(&format!(r#"40{{"token":"{}"}}"#, jwt("eve", None))).await;
    while !socket.text().await.starts_with("40") {}
}
