//! The timeline of a call: what is written into it, who may read it, when it is forgotten.

use std::time::Duration;

use serde_json::{Value, json};
use turnkey::credential::AuthFailure;
use turnkey::signal::{
    CallAction, Carried, Cause, Change, Code, Families, Identity, Limits, Record, RelayNews, RelayStep,
    RelayTransport, Table, TimelineView,
};

use crate::journal::{Disk, crash, journaling, write_later};
use crate::server::{Server, guarded, jwt};
use crate::sim::{Sim, browser, token};

const OFFER: &str =
    r#"{"type":"offer","sdp":"v=0\r\na=candidate:1 1 udp 9 10.9.8.7 9 typ host\r\na=ice-ufrag:abcd\r\n"}"#;
const ANSWER: &str = r#"{"type":"answer","sdp":"v=0\r\n"}"#;

fn candidate(kind: &str) -> String {
    format!(r#"{{"candidate":"candidate:1 1 udp 1 192.0.2.99 9 typ {kind}","sdpMid":"0"}}"#)
}

fn view(sim: &mut Sim, user: &str, id: &str) -> TimelineView {
    sim.hub.handle_timeline(sim.now, &token(user, None), id).expect("takes part")
}

fn cause(sim: &mut Sim, user: &str, id: &str) -> Cause {
    view(sim, user, id).verdict.cause
}

/// The kinds of events with whose they are.
fn events(view: &TimelineView) -> Vec<String> {
    let value: Value = serde_json::from_str(&view.to_json()).expect("JSON");
    let one = |event: &Value| match event["who"].as_str() {
        Some(who) => format!("{who} {}", event["type"].as_str().expect("a type")),
        None => event["type"].as_str().expect("a type").to_owned(),
    };
    value["events"].as_array().expect("events").iter().map(one).collect()
}

/// What the relay tells of the credentials that a session has now.
fn tell(sim: &mut Sim, credential: &str, step: RelayStep) {
    let (user, scope) = credential.rsplit_once('.').expect("user.scope");
    let news = RelayNews { user: user.into(), scope: scope.into(), at: sim.now.mono, step };
    sim.hub.handle_relay_news(sim.now, &news);
    sim.drain();
}

fn allocated() -> RelayStep {
    RelayStep::Allocated { transport: RelayTransport::Udp, relayed: Families::Ipv4 }
}

fn released() -> RelayStep {
    RelayStep::Released(carried(9))
}

fn carried(seconds: u64) -> Carried {
    Carried {
        allocation: 7,
        transport: RelayTransport::Udp,
        lasted: Duration::from_secs(seconds),
        to_peer: (3, 300),
        to_client: (1, 50),
    }
}

#[test]
fn a_meeting_in_a_room_is_told_from_signaling_relay_and_clients() {
    let mut sim = Sim::new();
    let (ann, _) = sim.member("ann", "r");
    let (bob, _) = sim.member("bob", "r");
    assert_eq!(view(&mut sim, "ann", "r").verdict.sentence, "ann and bob are connecting.");
    let credential = sim.credentials[0].0.clone();
    sim.frame(ann, &format!(r#"{{"t":"offer","d":{OFFER}}}"#));
    for kind in ["srflx", "host", "host", "relay"] {
        sim.frame(ann, &format!(r#"{{"t":"candidate","d":{}}}"#, candidate(kind)));
    }
    sim.frame(bob, &format!(r#"{{"t":"answer","d":{ANSWER}}}"#));
    tell(&mut sim, &credential, allocated());
    tell(&mut sim, &credential, RelayStep::FirstByte);
    sim.pass(Duration::from_millis(2500));
    sim.frame(bob, r#"{"t":"state","d":{"state":"connected"}}"#);
    sim.frame(bob, r#"{"t":"state","d":{"state":"dreaming"}}"#);
    let seen = view(&mut sim, "bob", "r");
    assert_eq!(
        events(&seen),
        [
            "ann joined",
            "ann credentials",
            "bob joined",
            "bob credentials",
            "ann offer",
            "ann candidate",
            "ann candidate",
            "ann candidate",
            "bob answer",
            "ann allocated",
            "ann first_byte",
            "bob state"
        ]
    );
    assert_eq!(json!(seen.parties[0].candidates), json!({ "host/udp": 3, "relay/udp": 1, "srflx/udp": 1 }));
    assert_eq!(seen.verdict.sentence, "The call connected 2.5 s after the first offer.");
    let text = seen.to_json();
    assert!(!text.contains("192.0.2.99") && !text.contains("10.9.8.7"), "no address is kept: {text}");
}

#[test]
fn candidates_of_a_kind_are_counted_up_to_a_bound_also_of_a_client_that_comes_back() {
    let mut sim = Sim::new();
    let (ann, _) = sim.member("ann", "r");
    for _ in 0..20 {
        sim.frame(ann, &format!(r#"{{"t":"candidate","d":{}}}"#, candidate("host")));
    }
    sim.frame(ann, &format!(r#"{{"t":"candidate","d":{}}}"#, candidate("relay")));
    sim.frame(ann, r#"{"t":"leave"}"#);
    let (ann, _) = sim.member("ann", "r");
    sim.frame(ann, &format!(r#"{{"t":"candidate","d":{}}}"#, candidate("host")));
    let view = view(&mut sim, "ann", "r");
    assert_eq!(json!(view.parties[0].candidates), json!({ "host/udp": 1 }), "a new meeting");
    sim.member("bob", "r");
    for _ in 0..20 {
        sim.frame(ann, &format!(r#"{{"t":"candidate","d":{}}}"#, candidate("host")));
    }
    let (twin, _) = sim.member("ann", "r");
    sim.frame(twin, &format!(r#"{{"t":"candidate","d":{}}}"#, candidate("host")));
    let view = sim.hub.handle_timeline(sim.now, &token("ann", None), "r").expect("takes part");
    assert_eq!(json!(view.parties[0].candidates), json!({ "host/udp": 8 }));
}

#[test]
fn only_who_takes_part_and_admins_read_it() {
    let mut sim = Sim::new();
    sim.member("ann", "r");
    sim.raw("r", browser(1));
    let mut ask = |who: &Identity| sim.hub.handle_timeline(sim.now, who, "r").map_err(|refusal| refusal.code);
    assert!(ask(&token("ann", None)).is_ok());
    assert!(ask(&token("link", Some(&["r"]))).is_ok(), "the token names the room");
    let admin = Identity { role: Some("admin".into()), ..token("root", None) };
    assert!(ask(&admin).is_ok());
    let guest = Identity::guest("guest", true);
    for other in [
        token("eve", None),
        token("eve", Some(&["other"])),
        guest.clone(),
        Identity { role: Some("admin".into()), ..guest },
    ] {
        assert_eq!(ask(&other).err(), Some(Code::NoSuchCall));
    }
    assert_eq!(
        sim.hub.handle_timeline(sim.now, &token("ann", None), "no such room").map_err(|r| r.code).err(),
        Some(Code::NoSuchCall)
    );
}

fn initiate(sim: &mut Sim) -> String {
    let action = CallAction::Initiate { callee: "bob".into(), media: None };
    let calls = sim.hub.handle_call(sim.now, &token("ann", None), action).expect("a call");
    sim.drain();
    calls[0].id.to_string()
}

#[test]
fn a_call_nobody_answers_is_told_and_forgotten_with_its_record() {
    let mut sim = Sim::new();
    sim.native("bob");
    let id = initiate(&mut sim);
    assert_eq!(events(&view(&mut sim, "bob", &id)), ["ann initiated", "bob ringing"]);
    sim.pass(Limits::default().ring);
    let seen = view(&mut sim, "ann", &id);
    assert_eq!(events(&seen), ["ann initiated", "bob ringing", "ended"]);
    assert_eq!(seen.verdict.cause, Cause::PeerNeverJoined);
    assert_eq!(seen.verdict.sentence, "bob never joined: nobody answered for 45.0 s.");
    sim.pass(Limits::default().call_memory - Duration::from_secs(1));
    assert_eq!(cause(&mut sim, "ann", &id), Cause::PeerNeverJoined);
    sim.pass(Duration::from_secs(2));
    assert!(sim.hub.handle_timeline(sim.now, &token("ann", None), &id).is_err());
}

#[test]
fn credentials_of_a_call_and_of_a_user_lead_to_the_call() {
    let mut sim = Sim::new();
    let id = initiate(&mut sim);
    tell(&mut sim, &format!("bob.{id}"), RelayStep::AuthFailed("expired"));
    assert_eq!(cause(&mut sim, "ann", &id), Cause::CredentialExpired);
    tell(&mut sim, &format!("eve.{id}"), RelayStep::AuthFailed("wrong_password"));
    assert_eq!(view(&mut sim, "ann", &id).parties.len(), 2, "who is no party stays out");
    tell(&mut sim, "nobody.0123456789abcdef", RelayStep::AuthFailed("wrong_password"));

    let (ann, _) = sim.member("ann", "r");
    sim.member("bob", "r");
    tell(&mut sim, "ann.", RelayStep::AuthFailed("wrong_password"));
    assert_eq!(cause(&mut sim, "ann", "r"), Cause::WrongSecret, "made for the user: by /v1/ice");
    sim.frame(ann, r#"{"t":"leave"}"#);
    let of_session = sim.credentials.iter().rfind(|(id, _)| id.starts_with("bob.")).expect("bob's").0.clone();
    tell(&mut sim, &of_session, RelayStep::AuthFailed("expired"));
    assert!(events(&view(&mut sim, "bob", "r")).contains(&"bob auth_failed".to_owned()));
}

/// What the books are told.
fn records(sim: &mut Sim) -> Vec<Record> {
    let changes = sim.hub.take_changes().into_iter();
    changes
        .filter_map(|change| if let Change::Record(record) = change { Some(record) } else { None })
        .collect()
}

#[test]
fn the_books_get_usage_and_the_timeline_of_what_is_over() {
    let mut sim = Sim::new();
    sim.hub.keep_journal();
    let (ann, _) = sim.member("ann", "r");
    let (bob, _) = sim.member("bob", "r");
    sim.frame(ann, &format!(r#"{{"t":"offer","d":{OFFER}}}"#));
    let credential = sim.credentials[0].0.clone();
    let told = [RelayStep::Carried(carried(5)), released()].map(|step| {
        tell(&mut sim, &credential, step);
        let usage = records(&mut sim).into_iter().find_map(|record| match record {
            Record::Usage(usage) => Some(usage),
            _ => None,
        });
        usage.expect("what was relayed")
    });
    assert_eq!(told.each_ref().map(|usage| (usage.is_over, usage.lasted.as_secs())), [(false, 5), (true, 9)]);
    assert_eq!(told[0].usage, told[1].usage, "one row");
    let usage = &told[1];
    assert_eq!(format!("{}.{}", usage.user, usage.scope), credential);
    assert_eq!((usage.to_peer, usage.to_client, usage.lasted.as_secs()), ((3, 300), (1, 50), 9));
    let nothing = Carried { to_peer: (0, 0), to_client: (0, 0), ..carried(9) };
    tell(&mut sim, &credential, RelayStep::Released(nothing));
    assert!(records(&mut sim).is_empty(), "no row for what relayed nothing");
    for conn in [ann, bob] {
        sim.frame(conn, r#"{"t":"leave"}"#);
    }
    let told = |records: Vec<Record>| -> Vec<(Cause, usize)> {
        let timelines = records.into_iter().filter_map(|record| match record {
            Record::Timeline { view, .. } => Some((view.verdict.cause, view.events.len())),
            _ => None,
        });
        timelines.collect()
    };
    let first = told(records(&mut sim));
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(first[0].0, Cause::NoAnswer);
    // What the relay tells a moment later is added, and nothing an hour later.
    tell(&mut sim, &credential, released());
    assert_eq!(told(records(&mut sim)), [(Cause::NoAnswer, first[0].1 + 1)]);
    sim.pass(Duration::from_secs(61));
    tell(&mut sim, &credential, released());
    assert_eq!(told(records(&mut sim)), []);
    // A room in which nobody tried anything is not worth a row.
    let (cat, _) = sim.member("cat", "idle");
    sim.frame(cat, r#"{"t":"leave"}"#);
    assert_eq!(told(records(&mut sim)), []);
}

#[test]
fn a_timeline_goes_on_after_a_crash_with_what_was_before() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (ann, _) = sim.member("ann", "r");
    let (bob, _) = sim.member("bob", "r");
    let guest = sim.raw_as("r", browser(7), Identity::guest("guest", true));
    sim.frame(ann, &format!(r#"{{"t":"offer","d":{OFFER}}}"#));
    sim.frame(ann, &format!(r#"{{"t":"candidate","d":{}}}"#, candidate("host")));
    sim.frame(bob, &format!(r#"{{"t":"answer","d":{ANSWER}}}"#));
    sim.frame(guest, &format!(r#"{{"type":"ice-candidate","candidate":{}}}"#, candidate("srflx")));
    let credential = sim.credentials[0].0.clone();
    tell(&mut sim, &credential, allocated());
    tell(&mut sim, &credential, released());
    sim.pass(Duration::from_secs(2));
    sim.frame(bob, r#"{"t":"state","d":{"state":"connected"}}"#);
    let before = view(&mut sim, "ann", "r");
    disk.write(sim.hub.take_changes());
    write_later(&mut sim, &mut disk);

    let mut sim = crash(sim, &mut disk);
    let after = view(&mut sim, "bob", "r");
    let (old, new) = (events(&before), events(&after));
    assert_eq!(new[..old.len()], old, "what was before");
    assert_eq!(new[old.len()..], ["restored"]);
    assert_eq!((after.began_at, &after.verdict), (before.began_at, &before.verdict));
    assert_eq!(json!(after.parties), json!(before.parties));
    let ages: Vec<_> = after.events.iter().map(|event| event.after_ms).collect();
    assert!(ages.is_sorted() && ages[ages.len() - 1] - ages[ages.len() - 2] == 3000, "{ages:?}");

    // What the relay tells of the session is Ann's, and what comes now is written in the same one.
    tell(&mut sim, &credential, RelayStep::AuthFailed("expired"));
    sim.raw_as("r", browser(7), Identity::guest("guest", true));
    let seen = view(&mut sim, "ann", "r");
    assert_eq!(events(&seen)[new.len()..], ["ann auth_failed", "guest back"]);
    assert_eq!(seen.parties.len(), 3, "the guest is the same one");
    sim.pass(Limits::default().resume_window);
    disk.write(sim.hub.take_changes());
    let kept = disk.records.iter().filter(|record| matches!(record, Record::Timeline { .. })).count();
    let is_timeline = |(table, ..): &(Table, Box<str>, u64)| *table == Table::Timeline;
    assert_eq!((kept, disk.rows.keys().filter(|key| is_timeline(key)).count()), (0, 1), "the guest is there");
}

#[test]
fn of_a_call_that_was_killed_at_once_the_timeline_has_that_it_was_accepted() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let id = initiate(&mut sim);
    let accept = CallAction::Accept(id.clone().into());
    sim.hub.handle_call(sim.now, &token("bob", None), accept).expect("accepted");
    sim.drain();
    let mut sim = crash(sim, &mut disk);
    assert_eq!(events(&view(&mut sim, "ann", &id)), ["ann initiated", "bob accepted", "restored"]);
    let end = CallAction::End(id.clone().into());
    sim.hub.handle_call(sim.now, &token("bob", None), end).expect("ended");
    disk.write(sim.hub.take_changes());
    assert!(!disk.rows.keys().any(|(table, ..)| *table == Table::Timeline), "the books have it now");
    let kept = |record: &Record| matches!(record, Record::Timeline { view, .. } if view.events.len() == 4);
    assert!(disk.records.iter().any(kept), "{:?}", disk.records);
}

#[test]
fn each_word_of_a_timeline_comes_back_after_a_crash() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let id = initiate(&mut sim);
    for step in AuthFailure::STEPS {
        tell(&mut sim, &format!("bob.{id}"), RelayStep::AuthFailed(step));
    }
    disk.write(sim.hub.take_changes());
    write_later(&mut sim, &mut disk);
    let mut sim = crash(sim, &mut disk);
    let seen: Value = serde_json::from_str(&view(&mut sim, "ann", &id).to_json()).expect("JSON");
    let steps = seen["events"].as_array().expect("events").iter().filter_map(|event| event["step"].as_str());
    assert_eq!(steps.collect::<Vec<_>>(), AuthFailure::STEPS);
}

#[test]
fn timelines_that_find_no_room_after_a_crash_leave_the_journal_and_orphans_end() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    for room in ["a", "b", "c"] {
        let (ann, _) = sim.member("ann", room);
        sim.frame(ann, &format!(r#"{{"t":"offer","d":{OFFER}}}"#));
    }
    disk.write(sim.hub.take_changes());
    write_later(&mut sim, &mut disk);
    let timelines = |disk: &Disk| disk.rows.keys().filter(|(table, ..)| *table == Table::Timeline).count();
    assert_eq!(timelines(&disk), 3);
    disk.rows.retain(|(table, owner, _), _| *table == Table::Timeline || **owner != *"b");
    let mut next = Sim::with(Limits { timelines: 2, ..Limits::default() });
    next.hub.keep_journal();
    assert_eq!(next.hub.restore(next.now, disk.rows()), 0);
    disk.write(next.hub.take_changes());
    assert_eq!(timelines(&disk), 1, "a goes on, b has no room any more, c found no room");
    let ended = disk.records.iter().filter_map(|record| match record {
        Record::Timeline { view, .. } => Some(&*view.call_id),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn s1_12_the_endpoint_answers_as_the_other_ones_of_calls_do() {
    let server = Server::start(guarded()).await;
    let bearer = |user: &str| format!("Bearer {}", jwt(user, None));
    let (ann, eve) = (bearer("ann"), bearer("eve"));
    let call = server
        .request_with("POST", "/calls/initiate", &[("authorization", &ann)], r#"{"callee_id":"bob"}"#)
        .await
        .json();
    let path = format!("/v1/calls/{}/timeline", call["call_id"].as_str().expect("an id"));
    let answer = server.get(&path, &[("authorization", &ann)]).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let timeline = answer.json();
    assert_eq!(timeline["verdict"], json!({ "cause": "in_progress", "sentence": "It rings at bob." }));
    assert_eq!(timeline["events"][0]["type"], "initiated");
    assert_eq!(server.get(&path, &[("authorization", &eve)]).await.status, 404);
    assert_eq!(server.get(&path, &[]).await.status, 401);
}
