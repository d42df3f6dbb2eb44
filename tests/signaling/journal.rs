//! What the hub writes down is what it is: after a crash everybody goes on with what was acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use turnkey::signal::dialect::peerjs::LOBBY;
use turnkey::signal::dialect::socketio::Vocabulary;
use turnkey::signal::{
    CallAction, Change, Code, ConnId, Connect, ConsultationAction, Dialect, Grants, Hub, Identity, Limits,
    Record, Row, Table,
};

use crate::consultations as meeting;
use crate::sim::{Sim, browser, ip, kinds, raw_connect, token};

const OFFER: &str = r#"{"type":"offer","sdp":"v=0\r\na=ice-ufrag:abcd\r\n"}"#;
const ANSWER: &str = r#"{"type":"answer","sdp":"v=0\r\n"}"#;
const CANDIDATE: &str = r#"{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0"}"#;

/// The journal of a server, as a database would have it.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) rows: BTreeMap<(Table, Box<str>, u64), Box<str>>,
    pub(crate) records: Vec<Record>,
}

impl Disk {
    pub(crate) fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(Row { table, owner, number, value }) => {
                    self.rows.insert((table, owner, number), value);
                }
                Change::Drop { table, owner, from, to } => {
                    self.rows.retain(|(t, o, n), _| *t != table || *o != owner || !(from..=to).contains(n));
                }
                Change::Record(record) => self.records.push(record),
            }
        }
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let rows = self.rows.iter().map(|((table, owner, number), value)| Row {
            table: *table,
            owner: owner.clone(),
            number: *number,
            value: value.clone(),
        });
        rows.collect()
    }
}

pub(crate) fn journaling() -> Sim {
    let mut sim = Sim::new();
    sim.hub.keep_journal();
    sim
}

/// Lets so much time pass for the journal that nothing is left to be written later.
pub(crate) fn write_later(sim: &mut Sim, disk: &mut Disk) {
    let mut now = sim.now;
    while let Some(due) = sim.hub.poll_later() {
        now.mono = due;
        disk.write(sim.hub.take_later(now));
    }
}

/// The server is killed: what is on its disk is all there is, and every socket is gone.
pub(crate) fn crash(mut sim: Sim, disk: &mut Disk) -> Sim {
    disk.write(sim.hub.take_changes());
    let mut next = Sim::new();
    next.hub = Hub::new(Limits { connects_per_minute: 1000, ..Limits::default() }, false, [9; 32]);
    next.now.unix = sim.now.unix + 3;
    next.hub.keep_journal();
    assert_eq!(next.hub.restore(next.now, disk.rows()), 0, "every row can be read");
    next.drain();
    next
}

fn resume(sim: &mut Sim, welcome: &Value, last_seq: u64) -> (ConnId, Vec<Value>) {
    let conn = sim.native_socket(None);
    let secret = welcome["resume"].as_str().expect("a secret");
    sim.frame(conn, &format!(r#"{{"t":"hello","d":{{"resume":"{secret}","last_seq":{last_seq}}}}}"#));
    let frames = sim.take_json(conn);
    assert_eq!(
        (&frames[0]["t"], &frames[0]["d"]["resumed"]),
        (&"welcome".into(), &true.into()),
        "{frames:?}"
    );
    (conn, frames)
}

#[test]
fn native_members_resume_after_a_crash_and_nothing_acknowledged_is_lost_or_doubled() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (ann, ann_welcome) = sim.native("ann");
    sim.join(ann, "r");
    let (bob, bob_welcome) = sim.native("bob");
    sim.join(bob, "r");
    sim.take(ann);
    sim.lose(bob);
    let seen = sim.take_json(ann).last().and_then(|f| f["seq"].as_u64()).expect("member-away");
    sim.frame(ann, &format!(r#"{{"t":"offer","id":"o1","d":{OFFER}}}"#));
    sim.frame(ann, &format!(r#"{{"t":"candidate","id":"c1","d":{CANDIDATE}}}"#));
    assert_eq!(kinds(&sim.take_json(ann)), ["ok", "ok"], "acknowledged");

    let mut sim = crash(sim, &mut disk);
    let (bob, frames) = resume(&mut sim, &bob_welcome, 0);
    assert_eq!(kinds(&frames), ["welcome", "offer", "candidate"]);
    let (ann, frames) = resume(&mut sim, &ann_welcome, seen);
    assert_eq!(kinds(&frames), ["welcome", "member-back"], "{frames:?}");
    sim.frame(ann, &format!(r#"{{"t":"candidate","id":"c1","d":{CANDIDATE}}}"#));
    assert_eq!(kinds(&sim.take_json(ann)), ["ok"], "answered again");
    assert_eq!(kinds(&sim.take_json(bob)), ["member-back"], "and not relayed again");
    sim.frame(bob, &format!(r#"{{"t":"answer","id":"a1","d":{ANSWER}}}"#));
    assert_eq!(kinds(&sim.take_json(ann)), ["answer"]);
}

#[test]
fn what_was_said_between_two_crashes_reaches_who_was_away_for_both() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (bob, bob_welcome) = sim.native("bob");
    sim.join(bob, "r");
    let (ann, ann_welcome) = sim.native("ann");
    sim.join(ann, "r");
    let seen = sim.take_json(bob).last().and_then(|f| f["seq"].as_u64()).expect("member-joined");
    let (_, frames) = resume(&mut sim, &bob_welcome, seen);
    let bob_welcome = &frames[0]["d"];

    let mut sim = crash(sim, &mut disk);
    let (ann, _) = resume(&mut sim, &ann_welcome, 0);
    sim.frame(ann, &format!(r#"{{"t":"offer","id":"o1","d":{OFFER}}}"#));
    assert!(kinds(&sim.take_json(ann)).contains(&"ok"), "acknowledged");

    let mut sim = crash(sim, &mut disk);
    let (_, frames) = resume(&mut sim, bob_welcome, seen);
    assert!(kinds(&frames).contains(&"offer"), "{frames:?}");
}

#[test]
fn who_does_not_come_back_after_a_crash_is_lost_when_the_window_is_over() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (_, ann) = sim.native("ann");
    let (bob, _) = sim.native("bob");
    sim.join(ConnId(1), "r");
    sim.join(bob, "r");
    let mut sim = crash(sim, &mut disk);
    let (ann, _) = resume(&mut sim, &ann, 1);
    sim.pass(Limits::default().resume_window);
    let frames = sim.take_json(ann);
    let left = frames.iter().find(|f| f["t"] == "member-left").expect("told");
    assert_eq!(left["d"]["reason"], "lost");
    assert_eq!(sim.hub.stats().sessions, 1);
}

#[test]
fn s0_11_the_offer_of_a_raw_client_waits_through_a_crash() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let ann = sim.raw("r", browser(1));
    sim.frame(ann, &format!(r#"{{"type":"offer","offer":{OFFER}}}"#));
    sim.frame(ann, &format!(r#"{{"type":"ice-candidate","candidate":{CANDIDATE}}}"#));
    let mut sim = crash(sim, &mut disk);
    let again = sim.raw("r", browser(1));
    assert_eq!(sim.take(again), [""; 0], "its own message does not come back to it");
    let bob = sim.raw("r", browser(2));
    assert_eq!(sim.take(bob).len(), 2, "offer and candidate");
    sim.frame(bob, &format!(r#"{{"type":"answer","answer":{ANSWER}}}"#));
    assert_eq!(sim.take(again).len(), 1);
}

#[test]
fn socket_io_clients_recover_after_a_crash_with_what_they_missed() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let ann = socketio(&mut sim, "ann");
    sim.frame(ann, "0");
    let bob = socketio(&mut sim, "bob");
    sim.frame(bob, "0");
    let connected = sim.take(bob);
    let pid: Value = serde_json::from_str(&connected[0][1..]).expect("json");
    let pid = pid["pid"].as_str().expect("a secret").to_owned();
    for conn in [ann, bob] {
        sim.frame(conn, r#"21["webrtc:join_room",{"roomId":"r"}]"#);
    }
    sim.take(bob);
    sim.lose(bob);
    sim.frame(ann, &format!(r#"22["webrtc:offer",{{"roomId":"r","offer":{OFFER}}}]"#));
    assert!(sim.take(ann).iter().any(|text| text.starts_with("32[")), "acknowledged");

    let mut sim = crash(sim, &mut disk);
    let bob = socketio(&mut sim, "bob");
    sim.frame(bob, &format!(r#"0{{"pid":"{pid}","offset":"1"}}"#));
    let frames = sim.take(bob);
    assert!(frames[0].contains(&pid), "recovered: {frames:?}");
    assert!(frames.iter().any(|text| text.starts_with(r#"2["webrtc:offer""#)), "{frames:?}");
}

/// A socket of a Socket.IO client that has not connected yet.
fn socketio(sim: &mut Sim, user: &str) -> ConnId {
    sim.connect(Connect {
        dialect: Dialect::SocketIo(Vocabulary::Invite),
        ip: ip(3),
        identity: Some(token(user, None)),
        key: browser(3),
        room: None,
        wants_events: true,
    })
}

/// Two Socket.IO sockets in a room, the second one's resume secret, and what the first one sends.
fn two_in_a_room(sim: &mut Sim) -> (ConnId, ConnId, String) {
    let open = |sim: &mut Sim, user: &str| {
        let conn = socketio(sim, user);
        sim.frame(conn, "0");
        let connected = sim.take(conn);
        let pid: Value = serde_json::from_str(&connected[0][1..]).expect("json");
        sim.frame(conn, r#"21["webrtc:join_room",{"roomId":"r"}]"#);
        (conn, pid["pid"].as_str().expect("a secret").to_owned())
    };
    let (ann, _) = open(sim, "ann");
    let (bob, pid) = open(sim, "bob");
    for (from, kind) in [(ann, "offer"), (bob, "answer")] {
        let description = if kind == "offer" { OFFER } else { ANSWER };
        sim.frame(from, &format!(r#"22["webrtc:{kind}",{{"roomId":"r","{kind}":{description}}}]"#));
    }
    sim.take(ann);
    sim.take(bob);
    (ann, bob, pid)
}

fn pass_candidate(sim: &mut Sim, from: ConnId, ack: &str) {
    sim.frame(from, &format!(r#"2{ack}["webrtc:ice_candidate",{{"roomId":"r","candidate":{CANDIDATE}}}]"#));
}

/// The sequence number at the end of an event.
fn offset(event: &str) -> u64 {
    let event: Value = serde_json::from_str(&event[1..]).expect("json");
    event.as_array().and_then(|parts| parts.last()?.as_str()?.parse().ok()).expect("a number")
}

#[test]
fn what_nobody_asked_to_be_told_of_is_written_later_and_before_anything_that_is_acknowledged() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (ann, bob, _) = two_in_a_room(&mut sim);
    sim.silence(ann);
    sim.silence(bob);
    disk.write(sim.hub.take_changes());
    write_later(&mut sim, &mut disk);
    let frames = |disk: &Disk| disk.rows.keys().filter(|(table, ..)| *table == Table::Frame).count();
    let before = frames(&disk);
    pass_candidate(&mut sim, ann, "");
    assert_eq!(sim.take(bob).len(), 1, "it has left");
    assert!(sim.hub.take_changes().is_empty(), "and waits for no disk");
    pass_candidate(&mut sim, ann, "7");
    disk.write(sim.hub.take_changes());
    assert_eq!(frames(&disk), before + 2, "with the acknowledgement goes what came before it");
    pass_candidate(&mut sim, ann, "");
    sim.lose(bob);
    disk.write(sim.hub.take_changes());
    assert_eq!(frames(&disk), before + 3, "the only copy there is");
    pass_candidate(&mut sim, ann, "");
    disk.write(sim.hub.take_changes());
    assert_eq!(frames(&disk), before + 4, "written at once for who is away");
}

#[test]
fn what_waits_to_be_written_is_bounded_by_the_sessions() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (ann, bob, _) = two_in_a_room(&mut sim);
    sim.silence(ann);
    sim.silence(bob);
    disk.write(sim.hub.take_changes());
    for _ in 0..200 {
        pass_candidate(&mut sim, ann, "");
        pass_candidate(&mut sim, bob, "");
    }
    let due = sim.hub.poll_later().expect("something waits");
    assert!(due <= sim.now.mono + Duration::from_secs(1), "a second at most");
    sim.now.mono = due;
    disk.write(sim.hub.take_later(sim.now));
    // The second round has what came after the first one was begun.
    sim.now.mono = due + Duration::from_secs(1);
    for _session in [ann, bob] {
        disk.write(sim.hub.take_later(sim.now));
    }
    assert_eq!(sim.hub.poll_later(), None);
}

#[test]
fn what_is_due_to_be_written_is_taken_some_at_a_time_so_that_messages_go_between() {
    let mut sim = Sim::with(Limits { connects_per_minute: 1000, sockets_per_ip: 1000, ..Limits::default() });
    sim.hub.keep_journal();
    for n in 0..200 {
        let room = format!("r{n}");
        let (ann, bob) = (sim.raw(&room, browser(2 * n)), sim.raw(&room, browser(2 * n + 1)));
        sim.silence(bob);
        sim.frame(ann, &format!(r#"{{"type":"offer","offer":{OFFER}}}"#));
        sim.frame(bob, &format!(r#"{{"type":"answer","answer":{ANSWER}}}"#));
        sim.hub.take_changes();
        sim.frame(ann, &format!(r#"{{"type":"ice-candidate","candidate":{CANDIDATE}}}"#));
    }
    sim.hub.take_changes();
    sim.now.mono = sim.hub.poll_later().expect("something waits");
    let (mut taken, mut turns) = (0, 0);
    while sim.hub.poll_later().is_some_and(|at| at <= sim.now.mono) {
        let some = sim.hub.take_later(sim.now).len();
        assert!((1..=96).contains(&some), "{some} at once");
        (taken, turns) = (taken + some, turns + 1);
    }
    assert!(taken >= 200 && turns >= 3, "{taken} in {turns} turns");
}

#[test]
fn what_is_confirmed_by_a_pong_before_it_is_due_is_never_written() {
    let mut sim = journaling();
    let (ann, bob) = (sim.raw("room", browser(1)), sim.raw("room", browser(2)));
    sim.frame(ann, &format!(r#"{{"type":"offer","offer":{OFFER}}}"#));
    sim.frame(bob, &format!(r#"{{"type":"answer","answer":{ANSWER}}}"#));
    for _ in 0..20 {
        sim.frame(ann, &format!(r#"{{"type":"ice-candidate","candidate":{CANDIDATE}}}"#));
    }
    sim.pass(Duration::from_secs(3));
    sim.hub.take_changes();
    write_later(&mut sim, &mut Disk::default());
    for _ in 0..50 {
        sim.frame(ann, &format!(r#"{{"type":"ice-candidate","candidate":{CANDIDATE}}}"#));
        // Clients answer each ping.
        sim.pass(Duration::from_millis(100));
        assert!(sim.hub.take_changes().is_empty(), "neither row nor timeline");
        assert!(sim.hub.take_later(sim.now).is_empty(), "nothing to write, nothing to clear away");
    }
}

#[test]
fn what_a_socket_has_before_it_is_due_is_never_written_and_comes_again_to_a_client_that_has_less() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (ann, bob, pid) = two_in_a_room(&mut sim);
    disk.write(sim.hub.take_changes());
    for _ in 0..20 {
        pass_candidate(&mut sim, ann, "");
    }
    let seen = offset(sim.take(bob).last().expect("a candidate"));
    sim.pass(Duration::from_secs(3));
    write_later(&mut sim, &mut disk);
    let frames = |disk: &Disk| disk.rows.keys().filter(|(table, ..)| *table == Table::Frame).count();
    assert_eq!(frames(&disk), 0, "no row is left of what both have");
    for _ in 0..50 {
        pass_candidate(&mut sim, ann, "");
        sim.pass(Duration::from_millis(100));
        assert!(sim.hub.take_changes().is_empty(), "neither row nor timeline");
        assert!(sim.hub.take_later(sim.now).is_empty(), "nothing to write, nothing to clear away");
    }
    sim.lose(bob);
    let bob = socketio(&mut sim, "bob");
    sim.frame(bob, &format!(r#"0{{"pid":"{pid}","offset":"{seen}"}}"#));
    assert_eq!(sim.take(bob).len(), 1 + 50, "recovered, with all it has not");
}

#[test]
fn after_a_crash_no_number_is_given_to_two_frames_and_who_has_them_all_recovers() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (ann, bob, pid) = two_in_a_room(&mut sim);
    disk.write(sim.hub.take_changes());
    for _ in 0..5 {
        pass_candidate(&mut sim, ann, "");
    }
    let seen = offset(sim.take(bob).last().expect("candidates"));
    let mut sim = crash(sim, &mut disk);
    let bob = socketio(&mut sim, "bob");
    sim.frame(bob, &format!(r#"0{{"pid":"{pid}","offset":"{seen}"}}"#));
    let frames = sim.take(bob);
    assert!(frames[0].contains(&pid), "recovered: {frames:?}");
    assert_eq!(frames.len(), 1, "nothing comes twice: {frames:?}");
    let (ann, _) = sim.native("eve");
    sim.join(ann, "r");
    let joined = sim.take(bob);
    assert!(offset(&joined[0]) > seen, "{joined:?} after {seen}");
}

#[test]
fn calls_go_on_ringing_after_a_crash_and_their_memory_ends_in_time() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let caller = token("ann", None);
    let ring = |sim: &mut Sim| {
        let action = CallAction::Initiate { callee: "bob".into(), media: None };
        sim.hub.handle_call(sim.now, &caller, action).expect("rings").remove(0).id
    };
    let (first, second) = (ring(&mut sim), ring(&mut sim));
    sim.hub.handle_call(sim.now, &token("bob", None), CallAction::Accept(first.clone())).expect("accepted");
    let mut sim = crash(sim, &mut disk);
    let view = |sim: &mut Sim, id| sim.hub.handle_call(sim.now, &caller, CallAction::View(id));
    assert_eq!(sim.hub.stats().calls, 2);
    sim.pass(Limits::default().ring);
    assert_eq!(view(&mut sim, first).expect("there")[0].status.as_str(), "ongoing");
    assert_eq!(view(&mut sim, second.clone()).expect("there")[0].status.as_str(), "missed");
    sim.pass(Limits::default().call_memory);
    assert!(view(&mut sim, second).is_err(), "forgotten");
    disk.write(sim.hub.take_changes());
    assert_eq!(disk.rows.keys().filter(|(table, ..)| *table == Table::Call).count(), 1);
}

#[test]
fn s4_26_s4_31_a_consultation_goes_on_after_a_crash_and_its_tokens_open_the_same_places() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let made = meeting::made(&mut sim);
    let (dora, paul) = (meeting::join(&mut sim, "dora", &made), meeting::join(&mut sim, "paul", &made));
    let before = meeting::socket(&mut sim);
    meeting::enter(&mut sim, before, &made.room, "paul", &paul.access_token);

    let mut sim = crash(sim, &mut disk);
    let conns = [("dora", &dora), ("paul", &paul)].map(|(user, admission)| {
        let conn = meeting::socket(&mut sim);
        let joined = meeting::enter(&mut sim, conn, &made.room, user, &admission.access_token);
        assert_eq!(joined["peer_id"], admission.attendee.peer_id, "{joined}");
        conn
    });
    let stranger = meeting::socket(&mut sim);
    assert_eq!(meeting::enter(&mut sim, stranger, &made.room, "eve", "good:eve")["code"], "forbidden");
    let end = ConsultationAction::End(made.id.clone());
    assert_eq!(meeting::code(meeting::act(&mut sim, "paul", end.clone())), Code::Forbidden, "roles are kept");
    meeting::act(&mut sim, "dora", end).expect("ended");
    assert_eq!(conns.map(|conn| sim.closed(conn)), [Some(4404); 2]);
    for user in ["dora", "paul"] {
        assert!(sim.revoked.contains(&format!("{user}.{}", made.id)), "{:?}", sim.revoked);
    }

    let mut sim = crash(sim, &mut disk);
    let late = meeting::socket(&mut sim);
    let refused = meeting::enter(&mut sim, late, &made.room, "dora", &dora.access_token);
    assert_eq!(refused["code"], "unauthenticated", "it is over for good");
    sim.pass(Limits::default().call_memory);
    let view = ConsultationAction::View(made.id.clone());
    assert_eq!(meeting::code(meeting::act(&mut sim, "dora", view)), Code::NoSuchCall, "forgotten");
    disk.write(sim.hub.take_changes());
    assert!(!disk.rows.keys().any(|(table, ..)| *table == Table::Consultation), "in the journal too");
}

#[test]
fn a_consultation_whose_time_has_come_during_a_crash_ends_at_once_and_counts_no_longer() {
    let limits = Limits { consultations_per_user: 1, ..Limits::default() };
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let end = Some("2027-01-15T08:00:01Z");
    let made = meeting::act(&mut sim, "dora", meeting::create(None, "paul", end)).expect("made").0;
    disk.write(sim.hub.take_changes());
    let mut next = Sim::with(limits);
    next.hub.keep_journal();
    next.now.unix = sim.now.unix + 3599;
    assert_eq!(next.hub.restore(next.now, disk.rows()), 0);
    let another = meeting::create(None, "paul", None);
    assert_eq!(meeting::code(meeting::act(&mut next, "dora", another.clone())), Code::RateLimited);
    next.pass(Duration::from_secs(2));
    let seen = meeting::act(&mut next, "dora", ConsultationAction::View(made.id)).expect("remembered").0;
    assert_eq!(seen.status, "ended");
    meeting::act(&mut next, "dora", another).expect("there is room again");
}

#[test]
fn s4_24_the_books_have_one_session_of_a_consultation_from_the_first_join_to_its_end() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let made = meeting::made(&mut sim);
    let paul = meeting::join(&mut sim, "paul", &made);
    sim.pass(Duration::from_secs(60));
    // A reload: the same attendee leaves and comes back.
    for _ in 0..2 {
        let conn = meeting::socket(&mut sim);
        meeting::enter(&mut sim, conn, &made.room, "paul", &paul.access_token);
        sim.pass(Duration::from_secs(30));
        sim.frame(conn, r#"2["leave_room",{}]"#);
    }
    meeting::act(&mut sim, "dora", ConsultationAction::End(made.id.clone())).expect("ended");
    disk.write(sim.hub.take_changes());
    let start = 1_800_000_000;
    let told = disk.records.iter().map(|record| match record {
        Record::Began { session, at, .. } => format!("began {} {}", **session == *made.id, at - start),
        Record::Joined { session, attendee, peer, .. } => {
            let is_paul = **attendee == *paul.attendee.attendee_id && **peer == *paul.attendee.peer_id;
            format!("joined {} {is_paul}", **session == *made.id)
        }
        Record::Left { attendee, at, .. } => {
            format!("left {} {}", *attendee == paul.attendee.attendee_id, at - start)
        }
        Record::Ended { session, at } => format!("ended {} {}", **session == *made.id, at - start),
        Record::Call(call) => format!("call {}", call.id),
        Record::Usage(usage) => format!("usage {}", usage.user),
        Record::Timeline { view, .. } => format!("timeline {}", view.call_id),
    });
    let mut told: Vec<String> = told.collect();
    // That it begins is said again, and written once.
    told.dedup_by(|again, first| again.starts_with("began") && first.starts_with("began"));
    let (joined, began) = ("joined true true", |at: u64| format!("began true {at}"));
    assert_eq!(
        told,
        [&began(0), joined, "left true 90", &began(90), joined, "left true 120", "ended true 120"]
    );
}

/// One step of many clients; numbers come from a small generator so that every run is the same.
fn step(sim: &mut Sim, random: &mut impl FnMut(u64) -> u64) {
    let open: Vec<ConnId> =
        sim.sockets.iter().filter(|(_, s)| s.closed.is_none()).map(|(id, _)| *id).collect();
    let some = |random: &mut dyn FnMut(u64) -> u64| {
        (!open.is_empty()).then(|| open[random(open.len() as u64) as usize])
    };
    let room = random(3);
    match random(12) {
        0 => drop(sim.raw(&format!("r{room}"), browser(random(4)))),
        1 if open.len() < 12 => drop(sim.native(&format!("u{}", random(4)))),
        2 => {
            if let Some(conn) = some(random) {
                sim.sockets.get_mut(&conn).expect("socket").closed = Some((1006, String::new()));
                sim.lose(conn);
            }
        }
        3 => sim.pass(Duration::from_secs(1 + random(40))),
        4..=5 => {
            if let Some(conn) = some(random) {
                sim.frame(conn, &format!(r#"{{"t":"join","id":"{}","d":{{"room":"r{room}"}}}}"#, random(9)));
            }
        }
        n => {
            let Some(conn) = some(random) else { return };
            let id = random(1_000_000);
            let frame = match n {
                6 => format!(r#"{{"t":"offer","type":"offer","id":{id},"d":{OFFER},"offer":{OFFER}}}"#),
                7 => format!(r#"{{"t":"answer","type":"answer","id":{id},"d":{ANSWER},"answer":{ANSWER}}}"#),
                8 => format!(
                    r#"{{"t":"candidate","type":"ice-candidate","id":{id},"d":{CANDIDATE},"candidate":{CANDIDATE}}}"#
                ),
                9 => format!(r#"{{"t":"media","type":"media","id":{id},"d":{{"audio":{}}}}}"#, room == 0),
                10 => format!(r#"{{"t":"ack","ack":{}}}"#, random(40)),
                _ => format!(r#"{{"t":"leave","id":{id}}}"#),
            };
            sim.frame(conn, &frame);
        }
    }
}

#[test]
fn after_every_step_the_journal_is_what_a_whole_copy_would_be() {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    // Small bounds, so that they are reached.
    let mut sim = Sim::with(Limits {
        connects_per_minute: 100_000,
        joins_per_minute: 1000,
        outbox_frames: 8,
        message_ids: 4,
        ..Limits::default()
    });
    sim.hub.keep_journal();
    let mut disk = Disk::default();
    for n in 0..3000 {
        step(&mut sim, &mut random);
        disk.write(sim.hub.take_changes());
        if n % 25 == 0 {
            write_later(&mut sim, &mut disk);
            let mut whole = Disk::default();
            whole.write(sim.hub.snapshot());
            assert_eq!(disk.rows, whole.rows, "after step {n}");
        }
    }
    let sessions = sim.hub.stats().sessions;
    assert!(sessions > 0 && disk.rows.len() > 20, "{sessions} sessions, {} rows", disk.rows.len());
    let mut restored = crash(sim, &mut disk);
    assert_eq!(restored.hub.stats().sessions, sessions);
    let mut whole = Disk::default();
    whole.write(restored.hub.snapshot());
    // Timelines have the restart.
    for disk in [&mut disk, &mut whole] {
        disk.rows.retain(|(table, ..), _| *table != Table::Timeline);
    }
    assert_eq!(disk.rows, whole.rows, "what comes back is what was there");
}

#[test]
fn credentials_that_were_renewed_are_taken_back_after_a_crash() {
    let mut sim = journaling();
    sim.ice_ttl = Duration::from_secs(60);
    let (_, id) = sim.member("ann", "r");
    sim.pass(Duration::from_secs(70));
    let mut sim = crash(sim, &mut Disk::default());
    let grants = Grants { moderate: true, ..Grants::ALL };
    let boss = sim.native_socket(Some(Identity { grants, ..token("mod", None) }));
    sim.frame(boss, r#"{"t":"hello"}"#);
    sim.join(boss, "r");
    sim.frame(boss, &format!(r#"{{"t":"kick","id":"1","to":"{id}"}}"#));
    assert_eq!(sim.revoked.len(), 1);
}

#[test]
fn the_lobby_of_peerjs_is_not_written_down_whole_for_each_who_comes() {
    let mut sim = journaling();
    for n in 0..100 {
        let mut connect = raw_connect(LOBBY, browser(1));
        connect.key.declared = Some(format!("peer {n}").into());
        sim.connect(Connect { dialect: Dialect::PeerJs, ..connect });
        let changes = sim.hub.take_changes();
        let size: usize = changes
            .iter()
            .map(|change| if let Change::Put(row) = change { row.value.len() } else { 0 })
            .sum();
        assert!(size < 2048, "{size} bytes for peer {n}");
    }
}

#[test]
fn what_a_restored_table_has_no_room_for_leaves_the_journal() {
    let limits = Limits { voids: 2, ..Limits::default() };
    let mut hub = Hub::new(limits, false, [9; 32]);
    hub.keep_journal();
    let now = Sim::new().now;
    let void = |n: u64| Row {
        table: Table::Void,
        owner: format!("ticket:{n}").into(),
        number: now.unix + n,
        value: "null".into(),
    };
    assert_eq!(hub.restore(now, (1..=3).map(void).collect()), 0);
    let changes = hub.take_changes();
    let gone = |change: &Change| matches!(change, Change::Drop { table: Table::Void, owner, .. } if **owner == *"ticket:1");
    assert!(changes.len() == 1 && gone(&changes[0]), "{changes:?}");
}

#[test]
fn a_hub_without_a_journal_writes_nothing() {
    let mut sim = Sim::new();
    sim.member("ann", "r");
    assert!(sim.hub.take_changes().is_empty());
}

#[test]
fn rows_that_make_no_sense_are_left_out_and_counted() {
    let mut hub = Hub::new(Limits::default(), false, [1; 32]);
    let row =
        |table, owner: &str, value: &str| Row { table, owner: owner.into(), number: 1, value: value.into() };
    let rows = vec![
        row(Table::Session, "no id", "{}"),
        row(Table::Session, "0000000000000001", "{"),
        row(Table::Frame, "0000000000000001", "{}"),
        row(Table::Room, "r", "[]"),
        row(Table::Call, "c", "null"),
    ];
    assert_eq!(hub.restore(Sim::new().now, rows), 5);
    assert_eq!(hub.stats().sessions, 0);
}

#[test]
fn the_books_have_who_was_there_and_for_how_long() {
    let (mut sim, mut disk) = (journaling(), Disk::default());
    let (ann, _) = sim.member("ann", "r");
    sim.pass(Duration::from_secs(30));
    let guest = Identity::guest("guest", true);
    let raw = sim.raw_as("r", browser(1), guest);
    sim.pass(Duration::from_secs(60));
    sim.frame(ann, r#"{"t":"bye"}"#);
    sim.lose(raw);
    sim.pass(Limits::default().resume_window);
    disk.write(sim.hub.take_changes());
    let start = 1_800_000_000;
    let told = disk.records.iter().map(|record| match record {
        Record::Began { room, at, .. } => format!("began {room} {}", at - start),
        Record::Joined { user, at, .. } => format!("joined {user} {}", at - start),
        Record::Left { reason, at, .. } => format!("{reason} {}", at - start),
        Record::Ended { at, .. } => format!("ended {}", at - start),
        Record::Call(call) => format!("call {}", call.id),
        Record::Usage(usage) => format!("usage {}", usage.user),
        Record::Timeline { view, .. } => format!("timeline {}", view.call_id),
    });
    let told: Vec<String> = told.collect();
    assert_eq!(told, ["began r 0", "joined ann 0", "joined guest 30", "left 90", "lost 150", "ended 150"]);
}
