//! Random interleavings of messages, lost sockets and resumes: inside the window a native session
//! gets everything exactly once, in each sender's order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use turnkey::signal::{ConnId, Limits};

use crate::sim::{Sim, browser};

const PEOPLE: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Send a message.
    Send(usize),
    /// Read at most so many frames.
    Read(usize, usize),
    /// Send so many messages into a dying socket, which takes with it what was not read.
    Lose(usize, usize),
    /// Come back, whether or not the old socket looks alive.
    Resume(usize),
    /// Time passes, well inside the window.
    Wait(u64),
    /// Acknowledge what was seen.
    Ack(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..PEOPLE;
    prop_oneof![
        5 => who.clone().prop_map(Step::Send),
        4 => (who.clone(), 0..6usize).prop_map(|(who, n)| Step::Read(who, n)),
        2 => (who.clone(), 0..3usize).prop_map(|(who, n)| Step::Lose(who, n)),
        3 => who.clone().prop_map(Step::Resume),
        1 => (0..5u64).prop_map(Step::Wait),
        1 => who.prop_map(Step::Ack),
    ]
}

/// A client as `turnkey.js` is one: acknowledges, comes back, sends again what was not answered.
struct Person {
    conn: Option<ConnId>,
    resume: Value,
    last_seq: u64,
    sent: u64,
    unanswered: VecDeque<(u64, String)>,
    got: BTreeMap<String, Vec<u64>>,
    member: String,
}

impl Person {
    fn enter(sim: &mut Sim, name: &str) -> Self {
        let (conn, welcome) = sim.native(name);
        let joined = sim.join(conn, "r");
        Self {
            conn: Some(conn),
            resume: welcome["resume"].clone(),
            last_seq: 0,
            sent: 0,
            unanswered: VecDeque::new(),
            got: BTreeMap::new(),
            member: joined["member"].as_str().expect("member").to_owned(),
        }
    }

    fn next_message(&mut self) -> String {
        self.sent += 1;
        let text = format!(r#"{{"t":"custom","id":{0},"d":{0}}}"#, self.sent);
        self.unanswered.push_back((self.sent, text.clone()));
        text
    }

    fn send(&mut self, sim: &mut Sim) {
        let text = self.next_message();
        if let Some(conn) = self.conn {
            sim.frame(conn, &text);
        }
    }

    fn read(&mut self, sim: &mut Sim, at_most: usize) {
        let Some(conn) = self.conn else { return };
        let frames = sim.take(conn);
        let (now, later) = frames.split_at(frames.len().min(at_most));
        sim.sockets.get_mut(&conn).expect("socket").received = later.to_vec();
        for text in now {
            self.take_in(&serde_json::from_str(text).expect("json"));
        }
    }

    fn take_in(&mut self, frame: &Value) {
        if let Some(seq) = frame["seq"].as_u64() {
            if seq <= self.last_seq {
                return;
            }
            self.last_seq = seq;
        }
        match frame["t"].as_str() {
            Some("custom") => {
                let from = frame["from"].as_str().expect("from").to_owned();
                self.got.entry(from).or_default().push(frame["d"].as_u64().expect("number"));
            }
            Some("ok") => {
                let id = frame["ref"].as_u64().expect("ref");
                self.unanswered.retain(|(n, _)| *n != id);
            }
            Some("welcome") => {
                assert_eq!(frame["d"]["resumed"], true, "inside the window a session always comes back");
                self.resume = frame["d"]["resume"].clone();
            }
            _ => {}
        }
    }

    fn lose(&mut self, sim: &mut Sim, into_the_void: usize) {
        let Some(conn) = self.conn.take() else { return };
        for _ in 0..into_the_void {
            self.next_message();
        }
        sim.take(conn);
        sim.lose(conn);
    }

    fn resume(&mut self, sim: &mut Sim) {
        let conn = sim.native_socket(None);
        let hello = json!({ "t": "hello", "d": { "resume": self.resume, "last_seq": self.last_seq } });
        sim.frame(conn, &hello.to_string());
        self.conn = Some(conn);
        self.read(sim, 1);
        for (_, text) in self.unanswered.clone() {
            sim.frame(conn, &text);
        }
    }
}

#[derive(Clone, Debug)]
enum RawStep {
    Offer,
    Candidate,
    /// The patient reads what has come.
    Read,
    /// A socket is lost with what was not read; the server notices at once, or not at all.
    Lose {
        doctor: bool,
        silently: bool,
    },
    /// The next socket.
    Dial {
        doctor: bool,
    },
    Wait(u64),
}

fn raw_step() -> impl Strategy<Value = RawStep> {
    prop_oneof![
        2 => Just(RawStep::Offer),
        4 => Just(RawStep::Candidate),
        2 => Just(RawStep::Read),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(doctor, silently)| RawStep::Lose { doctor, silently }),
        4 => any::<bool>().prop_map(|doctor| RawStep::Dial { doctor }),
        3 => (0..20_000u64).prop_map(RawStep::Wait),
    ]
}

/// Doctor and patient with seed 000's page, on sockets that come and go.
struct Pair {
    sim: Sim,
    doctor: Option<ConnId>,
    patient: Option<ConnId>,
    /// Until when somebody's older socket may still look alive.
    unsure_until: Duration,
    offers: u32,
    candidates: u32,
    /// The latest offer and its candidates.
    latest: Vec<String>,
    seen: Vec<String>,
}

impl Pair {
    fn new() -> Self {
        let many = 100_000;
        let limits = Limits {
            frame_rate: many,
            frame_burst: many,
            connects_per_minute: many,
            sockets_per_ip: 10_000,
            mail_candidates: 10_000,
            mail_ttl: Duration::from_secs(3600),
            resume_window: Duration::from_secs(3600),
            ..Limits::default()
        };
        let sim = Sim::with(limits);
        let (offers, candidates, unsure_until) = (0, 0, Duration::ZERO);
        Self {
            sim,
            doctor: None,
            patient: None,
            unsure_until,
            offers,
            candidates,
            latest: vec![],
            seen: vec![],
        }
    }

    fn step(&mut self, step: &RawStep) {
        match *step {
            RawStep::Offer => {
                let Some(doctor) = self.doctor else { return };
                self.offers += 1;
                let text =
                    format!(r#"{{"type":"offer","offer":{{"type":"offer","sdp":"v=0 {}"}}}}"#, self.offers);
                self.sim.frame(doctor, &text);
                self.latest = vec![text];
            }
            RawStep::Candidate => {
                let Some(doctor) = self.doctor.filter(|_| !self.latest.is_empty()) else { return };
                self.candidates += 1;
                let text = format!(r#"{{"type":"ice-candidate","candidate":{{"n":{}}}}}"#, self.candidates);
                self.sim.frame(doctor, &text);
                self.latest.push(text);
            }
            RawStep::Read => self.read(),
            RawStep::Lose { doctor, silently } => self.lose(doctor, silently),
            RawStep::Dial { doctor } => self.dial(doctor),
            RawStep::Wait(millis) => self.sim.pass(Duration::from_millis(millis)),
        }
    }

    fn read(&mut self) {
        if let Some(patient) = self.patient {
            self.seen.extend(self.sim.take(patient));
        }
    }

    fn lose(&mut self, doctor: bool, silently: bool) {
        // Nobody dies again before the first death is known: who is who is anybody's guess then.
        if self.sim.now.mono < self.unsure_until {
            return;
        }
        let end = if doctor { &mut self.doctor } else { &mut self.patient };
        let Some(conn) = end.take() else { return };
        if silently {
            self.unsure_until = self.sim.now.mono + Duration::from_secs(46);
            self.sim.silence(conn);
        } else {
            self.sim.take(conn);
            self.sim.lose(conn);
        }
    }

    fn dial(&mut self, doctor: bool) {
        let end = if doctor { self.doctor } else { self.patient };
        if end.is_none() {
            let conn = self.sim.raw("r", browser(u64::from(doctor)));
            *(if doctor { &mut self.doctor } else { &mut self.patient }) = Some(conn);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn raw_sockets_get_the_latest_unanswered_offer_and_its_candidates_at_least_once(
        steps in prop::collection::vec(raw_step(), 1..80),
    ) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
            let doctor = pair.doctor.map(|d| pair.sim.take(d)).unwrap_or_default();
            prop_assert!(doctor.is_empty(), "the doctor's own messages came back: {doctor:?}");
        }
        pair.dial(false);
        pair.sim.pass(Duration::from_secs(6));
        pair.read();
        let mut seen = pair.seen.iter();
        for (n, text) in pair.latest.iter().enumerate() {
            prop_assert!(seen.any(|s| s == text), "{n} of {:?} is missing in {:?}", pair.latest, pair.seen);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn native_sessions_get_everything_exactly_once_in_each_senders_order(steps in prop::collection::vec(step(), 1..120)) {
        let limits = Limits {
            frame_rate: 100_000, frame_burst: 100_000, connects_per_minute: 100_000, ..Limits::default()
        };
        let mut sim = Sim::with(limits);
        let mut people: Vec<Person> = (0..PEOPLE).map(|n| Person::enter(&mut sim, &format!("p{n}"))).collect();
        for step in steps {
            match step {
                Step::Send(who) => people[who].send(&mut sim),
                Step::Read(who, n) => people[who].read(&mut sim, n),
                Step::Lose(who, n) => people[who].lose(&mut sim, n),
                Step::Resume(who) => people[who].resume(&mut sim),
                Step::Wait(seconds) => sim.pass(Duration::from_millis(seconds * 100)),
                Step::Ack(who) => {
                    if let Some(conn) = people[who].conn {
                        let frame = format!(r#"{{"t":"ack","ack":{}}}"#, people[who].last_seq);
                        sim.frame(conn, &frame);
                    }
                }
            }
        }
        for person in &mut people {
            person.resume(&mut sim);
        }
        for person in &mut people {
            person.read(&mut sim, usize::MAX);
        }
        for reader in &people {
            prop_assert!(reader.unanswered.is_empty());
            for writer in people.iter().filter(|w| w.member != reader.member) {
                let got = reader.got.get(&writer.member).cloned().unwrap_or_default();
                prop_assert_eq!(got, (1..=writer.sent).collect::<Vec<_>>());
            }
        }
        prop_assert_eq!(sim.hub.stats().sessions, PEOPLE as u64);
    }

    #[test]
    fn whatever_comes_in_the_hub_neither_panics_nor_keeps_what_is_over(
        frames in prop::collection::vec(("[ -~]{0,60}", 0..4usize), 0..60),
        nonsense in prop::collection::vec(prop_oneof![
            Just(r#"{"t":"hello","d":7}"#), Just(r#"{"t":"offer"}"#), Just(r#"{"t":"join","d":{"room":"r"}}"#),
            Just(r#"{"t":"custom","to":"x"}"#), Just(r#"{"t":"ack","ack":18446744073709551615}"#),
            Just(r#"{"type":"offer","offer":null}"#), Just(r#"{"type":"ice-candidate","candidate":{}}"#),
            Just(r#"{"t":"leave"}"#), Just("null"), Just("\"\\ud800\""), Just(r#"{"t":"bye"}"#),
        ], 0..40),
    ) {
        let mut sim = Sim::new();
        let (a, _) = sim.member("ann", "r");
        let conns = [a, sim.raw("r", browser(1)), sim.raw("r", crate::sim::bare(2)), sim.native("bob").0];
        for (text, who) in &frames {
            sim.frame(conns[*who], text);
        }
        for (n, text) in nonsense.iter().enumerate() {
            sim.frame(conns[n % 4], text);
        }
        for conn in conns {
            sim.lose(conn);
        }
        sim.pass(Duration::from_secs(300));
        let stats = sim.hub.stats();
        prop_assert_eq!((stats.sockets, stats.sessions, stats.rooms, stats.members), (0, 0, 0, 0));
        prop_assert_eq!(sim.hub.poll_timeout(), None);
    }
}
