//! Every bound of the hub, reached on purpose.

use std::time::Duration;

use serde_json::Value;
use turnkey::signal::{ClientKey, ConnId, Connect, Dialect, Hub, Limits, Now, Output};

use crate::sim::{Sim, bare, browser, ip, kinds, raw_connect, token};

const OFFER: &str = r#"{"type":"offer","sdp":"v=0\r\n"}"#;
const CANDIDATE: &str = r#"{"candidate":"candidate:1","sdpMid":"0"}"#;

fn with(change: impl FnOnce(&mut Limits)) -> Sim {
    let mut limits = Limits { connects_per_minute: 1000, ..Limits::default() };
    change(&mut limits);
    Sim::with(limits)
}

#[test]
fn frame_over_the_limit_is_closed_with_4413() {
    let mut sim = with(|l| l.frame = 100);
    let (a, b) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    sim.frame(a, &format!("\"{}\"", "x".repeat(98)));
    assert_eq!(sim.take(b).len(), 1, "as large as may be");
    sim.frame(a, &format!("\"{}\"", "x".repeat(99)));
    assert_eq!(sim.take_one(a)["code"], "too_large");
    assert_eq!(sim.closed(a), Some(4413));
    assert!(sim.take(b).is_empty());
}

#[test]
fn sdp_candidate_and_chat_have_limits_of_their_own_in_both_dialects() {
    let long = "x".repeat(100);
    let cases = [
        ("offer", format!(r#"{{"type":"offer","sdp":"v=0{long}"}}"#)),
        ("answer", format!(r#"{{"type":"answer","sdp":"v=0{long}"}}"#)),
        ("candidate", format!(r#"{{"candidate":"candidate:{long}","sdpMid":"0"}}"#)),
        ("chat", format!(r#"{{"message":"{long}"}}"#)),
    ];
    for (kind, d) in cases {
        let mut sim = with(|l| (l.sdp, l.candidate, l.chat) = (90, 90, 90));
        let (native, _) = sim.member("ann", "r");
        sim.frame(native, &format!(r#"{{"t":"{kind}","id":"1","d":{d}}}"#));
        let error = sim.take_one(native);
        assert_eq!((&error["ref"], &error["d"]["code"]), (&"1".into(), &"too_large".into()), "{kind}");
        let raw = sim.raw("other", browser(1));
        let key = if kind == "candidate" { "ice-candidate" } else { kind };
        sim.frame(raw, &format!(r#"{{"type":"{key}","{kind}":{d}}}"#));
        assert_eq!(sim.take_one(raw)["code"], "too_large", "{kind}");
        assert_eq!(sim.closed(raw), None, "a typed error first");
    }
}

#[test]
fn depth_is_bounded_at_32() {
    let mut sim = Sim::new();
    let (a, b) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    sim.frame(a, &nested(32));
    assert_eq!(sim.take(b), [nested(32)]);
    sim.frame(a, &nested(33));
    assert_eq!(sim.take_one(a)["code"], "too_deep");
    let (native, _) = sim.member("ann", "n");
    sim.frame(native, &format!(r#"{{"t":"custom","d":{}}}"#, nested(32)));
    assert_eq!(sim.take_one(native)["d"]["code"], "too_deep");
}

#[test]
fn s3_23_frames_beyond_the_burst_are_dropped_and_three_strikes_close_with_4429() {
    let mut sim = with(|l| (l.frame_rate, l.frame_burst) = (10, 20));
    let (a, b) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    for _ in 0..20 {
        sim.frame(a, "1");
    }
    assert_eq!(sim.take(b).len(), 20);
    sim.frame(a, "1");
    let error = sim.take_one(a);
    assert_eq!((&error["code"], &error["retry_after"]), (&"rate_limited".into(), &1.into()));
    sim.pass(Duration::from_secs(1));
    sim.frame(a, "2");
    assert_eq!(sim.take(b), ["2"], "in time it goes on");
    for _ in 0..200 {
        sim.frame(a, "1");
    }
    assert_eq!(sim.closed(a), Some(4429));
    assert!(sim.take(a).len() <= 3, "a flood is not answered frame by frame");
    assert!(sim.take(b).len() <= 20);
}

#[test]
fn bytes_a_second_are_bounded() {
    let mut sim = with(|l| (l.byte_rate, l.byte_burst) = (100, 300));
    let (a, b) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    let frame = format!("\"{}\"", "x".repeat(98));
    for _ in 0..4 {
        sim.frame(a, &frame);
    }
    assert_eq!(sim.take(b).len(), 3);
    let error = sim.take_one(a);
    assert_eq!((&error["code"], &error["retry_after"]), (&"rate_limited".into(), &1.into()));
    sim.pass(Duration::from_secs(1));
    sim.frame(a, &frame);
    assert_eq!(sim.take(b).len(), 1);
}

#[test]
fn a_strike_is_forgotten_after_a_minute() {
    let mut sim = Sim::new();
    let a = sim.raw("r", browser(1));
    for _ in 0..10 {
        sim.frame(a, "{");
        sim.pass(Duration::from_secs(61));
    }
    assert_eq!(sim.closed(a), None);
}

#[test]
fn members_of_a_room_are_bounded_and_the_absent_give_way() {
    let mut sim = with(|l| l.members = 2);
    let (_, _) = sim.member("ann", "r");
    let (b, _) = sim.member("bob", "r");
    let (c, _) = sim.native("carl");
    sim.frame(c, r#"{"t":"join","id":"1","d":{"room":"r"}}"#);
    assert_eq!(sim.take_one(c)["d"]["code"], "room_full");
    let raw = sim.raw("r", browser(1));
    assert_eq!(sim.closed(raw), Some(4409));
    sim.lose(b);
    sim.join(c, "r");
}

#[test]
fn rooms_and_sessions_are_bounded() {
    let mut sim = with(|l| (l.rooms, l.sessions) = (1, 3));
    let (_, _) = sim.member("ann", "one");
    let (b, _) = sim.native("bob");
    sim.frame(b, r#"{"t":"join","id":"1","d":{"room":"two"}}"#);
    assert_eq!(sim.take_one(b)["d"]["code"], "busy");
    let raw = sim.raw("two", browser(1));
    assert_eq!(sim.closed(raw), Some(4409));
    assert_eq!(sim.hub.stats().sessions, 2, "a refused socket leaves no session");
    sim.native("carl");
    let fourth = sim.native_socket(Some(token("dora", None)));
    sim.frame(fourth, r#"{"t":"hello"}"#);
    assert_eq!(sim.closed(fourth), Some(4409));
}

#[test]
fn sockets_of_one_address_are_bounded_and_an_ipv6_64_is_one_address() {
    let mut sim = with(|l| l.sockets_per_ip = 2);
    let from = |last: u16| Connect {
        ip: std::net::IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, last]),
        ..raw_connect("r", bare(u64::from(last)))
    };
    let first = sim.connect(from(1));
    sim.connect(from(2));
    let third = sim.connect(from(3));
    assert_eq!(sim.closed(third), Some(4429));
    let elsewhere = sim.connect(Connect { ip: ip(9), ..raw_connect("r", bare(9)) });
    assert_eq!(sim.closed(elsewhere), None);
    sim.lose(first);
    let next = sim.connect(from(4));
    assert_eq!(sim.closed(next), None);
}

#[test]
fn connects_a_minute_are_bounded() {
    let mut sim = with(|l| l.connects_per_minute = 3);
    for n in 0..3 {
        let conn = sim.raw("r", bare(n));
        assert_eq!(sim.closed(conn), None);
        sim.lose(conn);
    }
    let conn = sim.raw("r", bare(9));
    assert_eq!(sim.closed(conn), Some(4429));
    assert_eq!(sim.hub.stats().refused, 1);
    sim.pass(Duration::from_secs(20));
    let conn = sim.raw("r", bare(9));
    assert_eq!(sim.closed(conn), None);
}

#[test]
fn joins_a_minute_are_bounded() {
    let mut sim = with(|l| l.joins_per_minute = 3);
    let (a, _) = sim.native("ann");
    for n in 0..3 {
        sim.join(a, &format!("r{n}"));
    }
    // Fresh credentials for each room it left.
    assert_eq!(sim.take(a).len(), 2);
    sim.frame(a, r#"{"t":"join","id":"1","d":{"room":"r"}}"#);
    let error = sim.take_one(a);
    assert_eq!((&error["d"]["code"], &error["d"]["retry_after"]), (&"rate_limited".into(), &20.into()));
    assert_eq!(sim.hub.stats().rooms, 1, "one room at a time");
}

#[test]
fn tokens_in_band_are_bounded_as_joins_are() {
    let mut sim = with(|l| l.joins_per_minute = 2);
    let (ann, _) = sim.native("ann");
    for code in [Value::Null, Value::Null, "rate_limited".into()] {
        sim.frame(ann, r#"{"t":"token","id":"1","d":{"token":"good:ann"}}"#);
        assert_eq!(sim.take_one(ann)["d"]["code"], code);
    }
    let call = Connect {
        dialect: Dialect::Call,
        identity: Some(token("ann", Some(&["c"]))),
        ..raw_connect("c", browser(1))
    };
    let call = sim.connect(call);
    for answer in ["token_refreshed", "token_refreshed", "error"] {
        sim.frame(call, r#"{"type":"token_refresh","token":"good:ann"}"#);
        assert_eq!(sim.take_one(call)["type"], answer);
    }
}

#[test]
fn names_are_bounded() {
    let mut sim = with(|l| l.name = 8);
    let (a, _) = sim.native("ann");
    for d in [
        r#"{"room":"123456789"}"#,
        r#"{"room":"r","name":"123456789"}"#,
        r#"{"room":"r","role":"123456789"}"#,
    ] {
        let (a, _) = sim.native("ann");
        sim.frame(a, &format!(r#"{{"t":"join","d":{d}}}"#));
        assert_eq!(sim.take_one(a)["d"]["code"], "bad_frame");
    }
    sim.join(a, "12345678");
    let raw = sim.raw("123456789", browser(1));
    assert_eq!(sim.closed(raw), Some(4400));
    let long = format!(r#"{{"t":"ping","id":"{}"}}"#, "x".repeat(65));
    sim.frame(a, &long);
    assert_eq!(sim.take_one(a)["d"]["code"], "bad_frame");
}

#[test]
fn what_waits_for_an_absent_session_is_bounded_in_frames_and_bytes() {
    for change in [|l: &mut Limits| l.outbox_frames = 5, |l: &mut Limits| l.outbox_bytes = 5 * 90] {
        let mut sim = with(change);
        let (a, _) = sim.member("ann", "r");
        let (b, _) = sim.member("bob", "r");
        sim.lose(b);
        for n in 0..10 {
            sim.frame(a, &format!(r#"{{"t":"custom","id":"{n}","d":"{}"}}"#, "x".repeat(30)));
        }
        assert!(sim.hub.stats().overflowed >= 4, "{}", sim.hub.stats().overflowed);
    }
}

#[test]
fn waiting_candidates_are_bounded_in_number() {
    let mut sim = with(|l| l.mail_candidates = 3);
    let (a, _) = sim.member("ann", "r");
    sim.frame(a, &format!(r#"{{"t":"offer","id":"o","d":{OFFER}}}"#));
    for n in 0..4 {
        sim.frame(a, &format!(r#"{{"t":"candidate","id":"{n}","d":{CANDIDATE}}}"#));
    }
    let frames = sim.take_json(a);
    assert_eq!(kinds(&frames), ["ok", "ok", "ok", "ok", "error"]);
    assert_eq!(frames[4]["d"]["code"], "mailbox_full");
    let (b, b_id) = sim.member("bob", "r");
    assert_eq!(kinds(&sim.take_json(b)), ["offer", "candidate", "candidate", "candidate"]);

    let (c, _) = sim.member("carl", "r");
    for n in 0..4 {
        sim.frame(c, &format!(r#"{{"t":"candidate","id":"{n}","to":"{b_id}","d":{CANDIDATE}}}"#));
    }
    sim.take(b);
    sim.frame(c, &format!(r#"{{"t":"offer","to":"{b_id}","d":{OFFER}}}"#));
    assert_eq!(kinds(&sim.take_json(b)), ["offer", "candidate", "candidate", "candidate"]);
}

#[test]
fn waiting_mail_is_bounded_in_bytes() {
    let mut sim = with(|l| l.mail_bytes = 100);
    let (a, _) = sim.member("ann", "r");
    sim.frame(
        a,
        &format!(r#"{{"t":"offer","id":"1","d":{{"type":"offer","sdp":"v=0{}"}}}}"#, "x".repeat(100)),
    );
    assert_eq!(sim.take_one(a)["d"]["code"], "mailbox_full");
    sim.frame(a, &format!(r#"{{"t":"offer","id":"2","d":{OFFER}}}"#));
    sim.frame(a, &format!(r#"{{"t":"candidate","id":"3","d":{CANDIDATE}}}"#));
    sim.frame(a, &format!(r#"{{"t":"candidate","id":"4","d":{CANDIDATE}}}"#));
    assert_eq!(kinds(&sim.take_json(a)), ["ok", "ok", "error"]);
}

#[test]
fn remembered_message_ids_are_bounded() {
    let mut sim = with(|l| l.message_ids = 2);
    let (a, _) = sim.member("ann", "r");
    let (b, _) = sim.member("bob", "r");
    for n in [1, 2, 3, 3, 1] {
        sim.frame(a, &format!(r#"{{"t":"chat","id":"{n}","d":{n}}}"#));
    }
    let got: Vec<u64> = sim.take_json(b).iter().filter_map(|f| f["d"].as_u64()).collect();
    assert_eq!(got, [1, 2, 3, 1], "only the two latest are known");
}

#[test]
fn a_deadline_is_found_without_looking_at_every_socket() {
    let limits = Limits { sockets_per_ip: 100_000, connects_per_minute: 1_000_000, ..Limits::default() };
    let mut hub = Hub::new(Limits { sessions: 30_000, ..limits }, false, [1; 32]);
    let now = Now { mono: Duration::from_secs(1), unix: 1_800_000_000 };
    for n in 0..20_000 {
        let connect = Connect {
            room: Some(format!("room {}", n / 2)),
            ..raw_connect("", ClientKey { traits: n, ..bare(0) })
        };
        hub.handle_connect(now, ConnId(n + 1), connect);
        while hub.poll_output().is_some() {}
    }
    // A million questions would take minutes if each looked at 20,000 sockets.
    for _ in 0..1_000_000 {
        assert_eq!(hub.poll_timeout(), Some(Duration::from_secs(16)));
    }
    let later = Now { mono: Duration::from_secs(16), ..now };
    hub.handle_timeout(later);
    let pings = std::iter::from_fn(|| hub.poll_output()).filter(|o| matches!(o, Output::Ping { .. })).count();
    assert_eq!(pings, 20_000);
}
