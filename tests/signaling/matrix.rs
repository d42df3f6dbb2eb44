//! Every dialect against every other: what one says, the other hears in its own words.

use serde_json::{Value, json};
use turnkey::signal::dialect::socketio::Vocabulary;
use turnkey::signal::{CallAction, ConnId, Connect, Dialect, Limits};

use crate::consultations::socket_of;
use crate::sim::{Sim, browser, raw_connect, token};

/// Who speaks how.
const ALL: [Dialect; 8] = [
    Dialect::Broadcast,
    Dialect::Call,
    Dialect::SocketIo(Vocabulary::Invite),
    Dialect::SocketIo(Vocabulary::Webrtc),
    Dialect::SocketIo(Vocabulary::WebrtcOld),
    Dialect::SocketIo(Vocabulary::Rooms),
    Dialect::PeerJs,
    Dialect::Native,
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Offer(String),
    Answer(String),
    Candidate(u64),
    Chat(String),
    Audio(bool),
    Left,
}

struct Client {
    dialect: Dialect,
    user: &'static str,
    room: String,
    conn: ConnId,
}

fn description(kind: &str, sdp: &str) -> Value {
    json!({ "type": kind, "sdp": format!("v=0\r\n{sdp}") })
}

fn candidate(n: u64) -> Value {
    json!({ "candidate": format!("candidate:{n} 1 udp 1 192.0.2.1 9 typ host"), "sdpMid": "0" })
}

impl Client {
    /// Comes into the room as its dialect does; what it is greeted with is taken off.
    fn enter(sim: &mut Sim, dialect: Dialect, user: &'static str, room: &str) -> Self {
        let client = Self::come(sim, dialect, user, room);
        sim.take(client.conn);
        client
    }

    fn come(sim: &mut Sim, dialect: Dialect, user: &'static str, room: &str) -> Self {
        let identity = token(user, Some(&["*", room]));
        let conn = match dialect {
            Dialect::Broadcast | Dialect::Call => {
                let mut connect = raw_connect(room, browser(user.len() as u64));
                connect.key.user = Some(user.into());
                sim.connect(Connect { dialect, identity: Some(identity), wants_events: true, ..connect })
            }
            Dialect::PeerJs => {
                let mut connect = raw_connect(room, browser(user.len() as u64));
                connect.key.declared = Some(user.into());
                sim.connect(Connect { dialect, identity: Some(identity), ..connect })
            }
            Dialect::SocketIo(_) => socket_of(sim, identity),
            Dialect::Native => sim.native_socket(Some(identity)),
        };
        let client = Self { dialect, user, room: room.into(), conn };
        match dialect {
            Dialect::Broadcast | Dialect::Call | Dialect::PeerJs => {}
            Dialect::SocketIo(Vocabulary::Invite) => {
                client.emit(sim, "call.accept", &json!({ "callId": room }))
            }
            Dialect::SocketIo(Vocabulary::Webrtc) => {
                client.emit(sim, "webrtc:join_room", &json!({ "roomId": room }))
            }
            Dialect::SocketIo(Vocabulary::WebrtcOld) => {
                client.emit(sim, "join_consultation_room", &json!({ "roomId": room }));
            }
            Dialect::SocketIo(Vocabulary::Rooms) => {
                client.emit(sim, "join_room", &json!({ "room_id": room, "user_id": user, "role": "DOCTOR" }));
            }
            Dialect::Native => {
                sim.frame(conn, r#"{"t":"hello"}"#);
                sim.join(conn, room);
            }
        }
        client
    }

    /// Calls `callee` in seed 001's words.
    fn invite(sim: &mut Sim, user: &'static str, callee: &str) -> Self {
        let conn = socket_of(sim, token(user, None));
        sim.frame(conn, &format!(r#"21["call.invite",{{"to":"{callee}"}}]"#));
        let answer = sim.take(conn).into_iter().find(|text| text.starts_with("31[")).expect("an answer");
        let answer: Value = serde_json::from_str(&answer[2..]).expect("json");
        let room = answer[0]["callId"].as_str().expect("a call").to_owned();
        Self { dialect: Dialect::SocketIo(Vocabulary::Invite), user, room, conn }
    }

    fn emit(&self, sim: &mut Sim, name: &str, payload: &Value) {
        sim.frame(self.conn, &format!(r#"2["{name}",{payload}]"#));
    }

    fn say(&self, sim: &mut Sim, word: &Word) {
        match self.dialect {
            Dialect::Broadcast | Dialect::Call => self.say_raw(sim, word),
            Dialect::PeerJs => self.say_peerjs(sim, word),
            Dialect::SocketIo(vocabulary) => self.say_event(sim, vocabulary, word),
            Dialect::Native => {
                let (kind, payload) = match word {
                    Word::Offer(sdp) => ("offer", description("offer", sdp)),
                    Word::Answer(sdp) => ("answer", description("answer", sdp)),
                    Word::Candidate(n) => ("candidate", candidate(*n)),
                    Word::Chat(text) => ("chat", json!({ "message": text, "timestamp": "now" })),
                    Word::Audio(on) => ("media", json!({ "audio": on })),
                    Word::Left => ("bye", Value::Null),
                };
                sim.frame(self.conn, &json!({ "t": kind, "d": payload }).to_string());
            }
        }
    }

    fn say_peerjs(&self, sim: &mut Sim, word: &Word) {
        let connection = format!("mc_of_{}", self.user);
        let (kind, mut payload) = match word {
            Word::Offer(sdp) => ("OFFER", json!({ "sdp": description("offer", sdp) })),
            Word::Answer(sdp) => ("ANSWER", json!({ "sdp": description("answer", sdp) })),
            Word::Candidate(n) => ("CANDIDATE", json!({ "candidate": candidate(*n) })),
            Word::Left => ("LEAVE", json!({})),
            Word::Chat(_) | Word::Audio(_) => panic!("PeerJS has no words for {word:?}"),
        };
        payload["type"] = json!("media");
        payload["connectionId"] = json!(connection);
        let mut message = json!({ "type": kind, "payload": payload });
        if kind != "LEAVE" {
            message["dst"] = json!(if self.user == "ann" { "bob" } else { "ann" });
        }
        sim.frame(self.conn, &message.to_string());
    }

    fn say_raw(&self, sim: &mut Sim, word: &Word) {
        let is_call = self.dialect == Dialect::Call;
        let message = match word {
            Word::Offer(sdp) => json!({ "type": "offer", "offer": description("offer", sdp) }),
            Word::Answer(sdp) => json!({ "type": "answer", "answer": description("answer", sdp) }),
            Word::Candidate(n) if is_call => json!({ "type": "ice_candidate", "candidate": candidate(*n) }),
            Word::Candidate(n) => json!({ "type": "ice-candidate", "candidate": candidate(*n) }),
            Word::Chat(text) if is_call => json!({ "type": "text", "message": text, "timestamp": "now" }),
            Word::Chat(text) => json!({ "type": "chat", "chat": text }),
            Word::Audio(on) => json!({ "type": "media", "media": { "audio": on } }),
            Word::Left => {
                sim.lose(self.conn);
                return sim.pass(Limits::default().resume_window);
            }
        };
        sim.frame(self.conn, &message.to_string());
    }

    fn say_event(&self, sim: &mut Sim, vocabulary: Vocabulary, word: &Word) {
        use Vocabulary::{Invite, Rooms, Webrtc, WebrtcOld};
        let names = match vocabulary {
            Invite => ["call.offer", "call.answer", "call.ice", "call.chat", "call.media", "call.end"],
            Webrtc => [
                "webrtc:offer",
                "webrtc:answer",
                "webrtc:ice_candidate",
                "chat:send_message",
                "webrtc:media",
                "webrtc:leave_room",
            ],
            WebrtcOld => [
                "webrtc_offer",
                "webrtc_answer",
                "webrtc_ice_candidate",
                "chat:send_message",
                "webrtc:media",
                "webrtc:leave_room",
            ],
            Rooms => [
                "webrtc_offer",
                "webrtc_answer",
                "ice_candidate",
                "send_message",
                "toggle_audio",
                "leave_room",
            ],
        };
        let (at, mut payload) = match word {
            Word::Offer(sdp) => (0, json!({ "offer": description("offer", sdp) })),
            Word::Answer(sdp) => (1, json!({ "answer": description("answer", sdp) })),
            Word::Candidate(n) => (2, json!({ "candidate": candidate(*n) })),
            Word::Chat(text) => (3, json!({ "message": text, "timestamp": "now" })),
            Word::Audio(on) if vocabulary == Rooms => (4, json!({ "enabled": on })),
            Word::Audio(on) => (4, json!({ "media": { "audio": on } })),
            Word::Left => (5, json!({})),
        };
        let key = match vocabulary {
            Invite => "callId",
            Webrtc | WebrtcOld => "roomId",
            Rooms => "room_id",
        };
        payload[key] = json!(self.room);
        if vocabulary == Rooms {
            payload["from_peer_id"] = json!("me");
            payload["user_id"] = json!(self.user);
        }
        self.emit(sim, names[at], &payload);
    }

    /// What it heard since the last time, in order; what its dialect says beside that is left out.
    fn hears(&self, sim: &mut Sim) -> Vec<Word> {
        let mut words: Vec<Word> = sim.take(self.conn).iter().filter_map(|text| self.word(text)).collect();
        if sim.closed(self.conn).is_some() {
            words.push(Word::Left);
        }
        words.dedup_by(|a, b| *a == Word::Left && *b == Word::Left);
        words
    }

    fn word(&self, text: &str) -> Option<Word> {
        let (name, payload) = match self.dialect {
            Dialect::PeerJs => return peerjs_word(text),
            Dialect::Broadcast | Dialect::Call => {
                let message: Value = serde_json::from_str(text).expect("json");
                (message["type"].as_str().expect("a type").to_owned(), message)
            }
            Dialect::SocketIo(_) => {
                let event: Value = serde_json::from_str(text.strip_prefix('2')?).expect("json");
                (event[0].as_str().expect("a name").to_owned(), event[1].clone())
            }
            Dialect::Native => {
                let frame: Value = serde_json::from_str(text).expect("json");
                let kind = frame["t"].as_str().expect("t").to_owned();
                (kind.clone(), json!({ &*kind: frame["d"], "status": frame["d"]["status"] }))
            }
        };
        let sdp = |key: &str| {
            assert_eq!(payload[key]["type"], *key, "{text}");
            payload[key]["sdp"].as_str().expect("sdp").trim_start_matches("v=0\r\n").to_owned()
        };
        let is_over = matches!(payload["status"].as_str(), Some("ended" | "failed"));
        let chat = [&payload["message"], &payload["chat"]["message"], &payload["chat"]];
        Some(match (self.dialect, &*name) {
            (_, "offer" | "call.offer" | "webrtc:offer" | "webrtc_offer") => Word::Offer(sdp("offer")),
            (_, "answer" | "call.answer" | "webrtc:answer" | "webrtc_answer") => Word::Answer(sdp("answer")),
            (Dialect::Broadcast, "ice-candidate")
            | (Dialect::Call, "ice_candidate")
            | (Dialect::Native, "candidate")
            | (Dialect::SocketIo(Vocabulary::Rooms), "ice_candidate")
            | (Dialect::SocketIo(Vocabulary::Invite), "call.ice")
            | (Dialect::SocketIo(Vocabulary::Webrtc), "webrtc:ice_candidate")
            | (Dialect::SocketIo(Vocabulary::WebrtcOld), "webrtc_ice_candidate") => {
                let line = payload["candidate"]["candidate"].as_str().expect("a candidate");
                Word::Candidate(line["candidate:".len()..].split(' ').next()?.parse().expect("a number"))
            }
            (Dialect::Call, "text")
            | (Dialect::Broadcast | Dialect::Native, "chat")
            | (Dialect::SocketIo(Vocabulary::Rooms), "chat_message")
            | (Dialect::SocketIo(Vocabulary::Invite), "call.chat")
            | (Dialect::SocketIo(Vocabulary::Webrtc | Vocabulary::WebrtcOld), "chat:message") => {
                Word::Chat(chat.into_iter().find_map(Value::as_str).expect("a text").to_owned())
            }
            (_, "media" | "call.media" | "webrtc:media") => {
                Word::Audio(payload["media"]["audio"].as_bool().expect("audio"))
            }
            (_, "audio_toggled") => Word::Audio(payload["enabled"].as_bool().expect("enabled")),
            (_, "peer-left" | "member-left" | "user_left" | "webrtc:user_left" | "call.end") => Word::Left,
            (_, "call_ended" | "call_failed") => Word::Left,
            (_, "call") if is_over => Word::Left,
            (_, "error" | "refused") => panic!("{text}"),
            (_, _) => return None,
        })
    }
}

fn peerjs_word(text: &str) -> Option<Word> {
    let message: Value = serde_json::from_str(text).expect("json");
    let payload = &message["payload"];
    let sdp = || payload["sdp"]["sdp"].as_str().expect("sdp").trim_start_matches("v=0\r\n").to_owned();
    let kind = message["type"].as_str().expect("a type");
    if let "OFFER" | "ANSWER" | "CANDIDATE" = kind {
        assert!(message["src"].is_string() && payload["type"] == "media", "{text}");
        assert!(payload["connectionId"].as_str().is_some_and(|id| !id.is_empty()), "{text}");
    }
    Some(match kind {
        "OFFER" => Word::Offer(sdp()),
        "ANSWER" => Word::Answer(sdp()),
        "CANDIDATE" => {
            let line = payload["candidate"]["candidate"].as_str().expect("a candidate");
            Word::Candidate(line["candidate:".len()..].split(' ').next()?.parse().expect("a number"))
        }
        "LEAVE" => Word::Left,
        "OPEN" => return None,
        _ => panic!("{text}"),
    })
}

/// PeerJS clients chat and mute over data connections of their own, and call nobody but one.
fn has_chat(dialect: Dialect) -> bool {
    dialect != Dialect::PeerJs
}

fn needs_call(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Call | Dialect::SocketIo(Vocabulary::Invite))
}

/// Two clients in one room; in that of a call where one of them knows nothing else.
fn pair(sim: &mut Sim, a: Dialect, b: Dialect) -> (Client, Client) {
    let ann = match a {
        Dialect::SocketIo(Vocabulary::Invite) => Client::invite(sim, "ann", "bob"),
        _ if needs_call(a) || needs_call(b) => {
            let initiate = CallAction::Initiate { callee: "bob".into(), media: None };
            let call = sim.hub.handle_call(sim.now, &token("ann", None), initiate).expect("a call");
            sim.drain();
            Client::enter(sim, a, "ann", &call[0].id)
        }
        _ => Client::enter(sim, a, "ann", "room"),
    };
    if ann.room != "room" && b != Dialect::SocketIo(Vocabulary::Invite) {
        let accept = CallAction::Accept(ann.room.as_str().into());
        sim.hub.handle_call(sim.now, &token("bob", None), accept).expect("accepted");
        sim.drain();
    }
    let bob = Client::enter(sim, b, "bob", &ann.room);
    ann.hears(sim);
    (ann, bob)
}

/// One says it, the other hears exactly that.
fn passes(sim: &mut Sim, from: &Client, to: &Client, word: Word) {
    from.say(sim, &word);
    assert_eq!(to.hears(sim), [word], "{:?} to {:?}", from.dialect, to.dialect);
    assert_eq!(from.hears(sim), [], "{:?} hears itself", from.dialect);
}

#[test]
fn c1_c4_c6_c7_c8_every_dialect_calls_every_other() {
    for a in ALL {
        for b in ALL {
            let mut sim = Sim::new();
            let (ann, bob) = pair(&mut sim, a, b);
            passes(&mut sim, &ann, &bob, Word::Offer("one".into()));
            passes(&mut sim, &ann, &bob, Word::Candidate(1));
            passes(&mut sim, &bob, &ann, Word::Answer("two".into()));
            for n in 2..5 {
                passes(&mut sim, &bob, &ann, Word::Candidate(n));
                passes(&mut sim, &ann, &bob, Word::Candidate(n + 10));
            }
            passes(&mut sim, &bob, &ann, Word::Offer("again".into()));
            passes(&mut sim, &ann, &bob, Word::Answer("yes".into()));
            for (from, to) in [(&ann, &bob), (&bob, &ann)].into_iter().filter(|_| has_chat(a) && has_chat(b))
            {
                passes(&mut sim, from, to, Word::Chat(format!("hello from {}", from.user)));
                passes(&mut sim, from, to, Word::Audio(false));
                passes(&mut sim, from, to, Word::Audio(true));
            }
            bob.say(&mut sim, &Word::Left);
            assert_eq!(ann.hears(&mut sim), [Word::Left], "{b:?} leaves {a:?}");
        }
    }
}

#[test]
fn s1_08_in_every_dialect_candidates_wait_for_their_description() {
    for a in ALL {
        for b in ALL {
            let mut sim = Sim::new();
            let (ann, bob) = pair(&mut sim, a, b);
            for n in 0..3 {
                ann.say(&mut sim, &Word::Candidate(n));
            }
            assert_eq!(bob.hears(&mut sim), [], "{a:?} to {b:?}");
            ann.say(&mut sim, &Word::Offer("late".into()));
            let mut wanted = vec![Word::Offer("late".into())];
            wanted.extend((0..3).map(Word::Candidate));
            assert_eq!(bob.hears(&mut sim), wanted, "{a:?} to {b:?}");
        }
    }
}

#[test]
fn s0_11_s2_11_c11_in_every_dialect_an_early_offer_waits_for_the_other_side() {
    for a in ALL {
        // Nobody can offer to a PeerJS id that is not there: its caller is told so.
        let is_right = |b: &Dialect| !needs_call(a) && !needs_call(*b) && a != Dialect::PeerJs;
        for b in ALL.into_iter().filter(is_right) {
            let mut sim = Sim::new();
            let ann = Client::enter(&mut sim, a, "ann", "room");
            ann.say(&mut sim, &Word::Offer("early".into()));
            ann.say(&mut sim, &Word::Candidate(7));
            let bob = Client::come(&mut sim, b, "bob", "room");
            assert_eq!(
                bob.hears(&mut sim),
                [Word::Offer("early".into()), Word::Candidate(7)],
                "{a:?} to {b:?}"
            );
        }
    }
}

#[test]
fn all_dialects_in_one_room_hear_each_other() {
    let mut sim = Sim::new();
    let mut all = vec![Client::invite(&mut sim, "ann", "bob")];
    let room = all[0].room.clone();
    all.push(Client::enter(&mut sim, Dialect::SocketIo(Vocabulary::Invite), "bob", &room));
    let others = ["cleo", "dan", "eva", "finn", "gus", "hal", "ida"];
    for (dialect, user) in ALL.into_iter().zip(others) {
        if dialect != Dialect::SocketIo(Vocabulary::Invite) && has_chat(dialect) {
            all.push(Client::enter(&mut sim, dialect, user, &room));
        }
    }
    for one in &all {
        one.hears(&mut sim);
    }
    let mut say = |from: &Client, words: &[Word]| {
        for word in words {
            from.say(&mut sim, word);
        }
        for to in all.iter().filter(|to| to.conn != from.conn) {
            assert_eq!(to.hears(&mut sim), words, "{:?} to {:?}", from.dialect, to.dialect);
        }
    };
    say(&all[0], &[Word::Offer("for all".into()), Word::Candidate(1), Word::Candidate(2)]);
    for from in &all {
        say(from, &[Word::Chat(from.user.to_owned()), Word::Audio(false)]);
    }
}
