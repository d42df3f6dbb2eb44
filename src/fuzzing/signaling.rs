//! The hub behind a script of sockets, frames and time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::value::RawValue;

use super::{Script, UNIX};
use crate::signal::dialect::socketio::Vocabulary;
use crate::signal::{
    Change, ClientKey, ConnId, Connect, Dialect, Grants, Hub, Ice, Identity, Limits, Now, Output,
};

/// Sockets that come and go, say anything, and fall silent: nothing is sent to a socket that is
/// closed, every frame that is sent is JSON, the bounds hold, what the hub writes down it can read, and what happened
/// can be told.
pub fn signaling(script: &[u8]) {
    let limits = Limits { connects_per_minute: 1000, ..Limits::default() };
    let mut bench = Bench {
        hub: Hub::new(limits, false, [4; 32]),
        now: Now { mono: Duration::ZERO, unix: UNIX },
        open: BTreeSet::new(),
        member: "0".into(),
        next: 0,
    };
    bench.hub.keep_journal();
    let mut script = Script(script);
    while let Some(step) = script.byte() {
        match step % 8 {
            0 => bench.connect(&mut script),
            1 => bench.pass(Duration::from_millis(u64::from(script.number()) * 4)),
            2 => {
                let conn = bench.socket(script.byte());
                bench.hub.handle_disconnect(bench.now, conn);
                bench.open.remove(&conn);
            }
            3 => {
                let conn = bench.socket(script.byte());
                bench.hub.handle_frame(bench.now, conn, &String::from_utf8_lossy(script.chunk()));
            }
            _ => {
                let conn = bench.socket(script.byte());
                let frame = frame(&mut script, &bench.member);
                bench.hub.handle_frame(bench.now, conn, &frame);
            }
        }
        bench.drain();
        assert_eq!(bench.hub.stats().sockets, bench.open.len() as u64);
    }
    bench.read_timelines();
    let is_row = |change| if let Change::Put(row) = change { Some(row) } else { None };
    let rows = bench.hub.snapshot().into_iter().filter_map(is_row).collect();
    let mut next = Hub::new(Limits::default(), false, [5; 32]);
    assert_eq!(next.restore(bench.now, rows), 0, "rows that cannot be read");
}

struct Bench {
    hub: Hub,
    now: Now,
    open: BTreeSet<ConnId>,
    /// The member that was heard of last.
    member: String,
    next: u64,
}

impl Bench {
    fn connect(&mut self, script: &mut Script<'_>) {
        let kind = script.byte().unwrap_or(0);
        let socket_io = Dialect::SocketIo(Vocabulary::Invite);
        let dialect = [Dialect::Native, Dialect::Broadcast, socket_io, Dialect::Call, Dialect::PeerJs]
            [usize::from(kind % 5)];
        let user = format!("user{}", kind / 2 % 4);
        let id = ConnId(self.next);
        self.next += 1;
        self.open.insert(id);
        let connect = Connect {
            dialect,
            ip: IpAddr::from([192, 0, 2, kind % 8]),
            key: ClientKey {
                traits: u64::from(kind / 4),
                declared: (dialect == Dialect::PeerJs).then(|| user.as_str().into()),
                ..ClientKey::default()
            },
            identity: Some(match kind {
                0..64 => Identity::member(user),
                64..128 => {
                    Identity { grants: Grants { moderate: true, ..Grants::ALL }, ..Identity::member(user) }
                }
                128.. => Identity::guest(user, true),
            }),
            room: matches!(dialect, Dialect::Broadcast | Dialect::Call | Dialect::PeerJs)
                .then(|| ROOMS[usize::from(kind / 8) % ROOMS.len()].into()),
            wants_events: kind.is_multiple_of(3),
        };
        self.hub.handle_connect(self.now, id, connect);
    }

    /// Whatever was said, a timeline is bounded, in its order, and judged in a sentence.
    fn read_timelines(&mut self) {
        let admin = Identity { role: Some("admin".into()), ..Identity::member("admin") };
        for room in ROOMS {
            let Ok(timeline) = self.hub.handle_timeline(self.now, &admin, room) else { continue };
            assert!(timeline.events.len() <= 200 && timeline.events.is_sorted_by_key(|event| event.after_ms));
            assert!(timeline.verdict.sentence.ends_with('.'), "{}", timeline.verdict.sentence);
        }
    }

    /// One of the sockets there were; closed ones too.
    fn socket(&self, choice: Option<u8>) -> ConnId {
        ConnId(u64::from(choice.unwrap_or(0)) % self.next.max(1))
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.hub.poll_timeout().filter(|at| *at <= end) {
            self.set_time(at.max(self.now.mono));
            self.hub.handle_timeout(self.now);
            self.drain();
        }
        self.set_time(end);
    }

    fn set_time(&mut self, mono: Duration) {
        self.now = Now { mono, unix: UNIX + mono.as_secs() };
    }

    fn drain(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Send { conn, text } => {
                    assert!(self.open.contains(&conn), "to a socket that is closed: {text}");
                    let is_json = |text: &str| serde_json::from_str::<&RawValue>(text).is_ok();
                    // A packet of Socket.IO begins with its type and perhaps a number.
                    let packet = text.trim_start_matches(|c: char| c.is_ascii_digit());
                    assert!(
                        &*text == "1" || is_json(&text) || is_json(packet),
                        "neither JSON nor a packet: {text}"
                    );
                    if let Some((_, rest)) = text.split_once(r#""member":""#) {
                        self.member = rest.chars().take(16).collect();
                    }
                }
                Output::Ping { conn, seq } => {
                    assert!(self.open.contains(&conn));
                    // Every third socket has fallen silent.
                    if !conn.0.is_multiple_of(3) {
                        self.hub.handle_pong(self.now, conn, seq);
                    }
                }
                Output::Close { conn, code, reason } => {
                    assert!(self.open.remove(&conn), "closed once");
                    assert!((1000..5000).contains(&code) && reason.len() <= 123);
                }
                Output::Revoke { until, .. } => assert!(until > self.now.unix, "it has ended by itself"),
                Output::Log(line) => assert!(line.to_string().starts_with("[WebRTC] ")),
                Output::Authenticate { conn, .. } => {
                    self.hub.handle_identity(self.now, conn, Err("not valid here".into()));
                }
                Output::NeedIce { session, asked, .. } => {
                    let ttl = Duration::from_secs(60);
                    let ice = Ice { servers: RawValue::NULL.to_owned(), ttl, expires_at: self.now.unix + 60 };
                    self.hub.handle_ice(self.now, session, asked, &ice);
                }
            }
        }
    }
}

const ROOMS: [&str; 3] = ["a", "b", "another"];

/// A frame of either dialect whose parts the script chooses.
fn frame(script: &mut Script<'_>, member: &str) -> String {
    const KINDS: [&str; 21] = [
        "hello",
        "join",
        "leave",
        "offer",
        "answer",
        "candidate",
        "ice-candidate",
        "restart",
        "media",
        "chat",
        "state",
        "custom",
        "ice",
        "ping",
        "pong",
        "ack",
        "bye",
        "unheard-of",
        "kick",
        "mute",
        "token",
    ];
    const BODIES: [&str; 9] = [
        r#"{"room":"a"}"#,
        r#"{"room":"b","name":"n","role":"r"}"#,
        r#"{"type":"offer","sdp":"v=0\r\na=ice-ufrag:abcd\r\n"}"#,
        r#"{"type":"answer","sdp":"v=0\r\na=ice-ufrag:efgh\r\n"}"#,
        r#"{"candidate":"candidate:1 1 udp 1 192.0.2.1 5 typ host ufrag abcd","sdpMid":"0","sdpMLineIndex":0}"#,
        "null",
        r#"{"resume":"x","last_seq":3}"#,
        r#"[1,2,{"deep":[[[]]]}]"#,
        r#"{"track":"audio","token":"t"}"#,
    ];
    let kind = KINDS[usize::from(script.byte().unwrap_or(0)) % KINDS.len()];
    let body = BODIES[usize::from(script.byte().unwrap_or(0)) % BODIES.len()];
    let detail = script.byte().unwrap_or(0);
    let id = if detail & 1 == 0 { String::new() } else { format!(r#","id":"{}""#, detail / 16) };
    let ack = if detail & 2 == 0 { String::new() } else { format!(r#","ack":{}"#, detail / 8) };
    if detail & 24 == 24 {
        const EVENTS: [&str; 18] = [
            "webrtc:join_room",
            "join_consultation_room",
            "join_room",
            "leave_room",
            "webrtc:offer",
            "webrtc_answer",
            "ice_candidate",
            "toggle_audio",
            "send_message",
            "chat:join_room",
            "chat:send_message",
            "call.invite",
            "call.offer",
            "call.answer",
            "call.accept",
            "call.end",
            "webrtc:kick",
            "mute",
        ];
        const FIELDS: [&str; 6] = [
            r#""room_id":"a""#,
            r#""roomId":"b","to":"user1""#,
            r#""offer":{"type":"offer","sdp":"v=0\r\n"},"answer":{"type":"answer","sdp":"v=0\r\n"}"#,
            r#""candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.1 5 typ host","sdpMid":"0"},"enabled":true,"track":"audio""#,
            r#""message":"m","to":"user2""#,
            r#""token":"t","room_id":"a""#,
        ];
        let event = EVENTS[usize::from(script.byte().unwrap_or(0)) % EVENTS.len()];
        let fields = FIELDS[usize::from(script.byte().unwrap_or(0)) % FIELDS.len()];
        let ack = if detail & 1 == 0 { String::new() } else { (detail / 32).to_string() };
        return match detail & 6 {
            0 => r#"0{"pid":"0000000000000001.x","offset":"1"}"#.into(),
            2 => "0".into(),
            _ => format!(r#"2{ack}["{event}",{{{fields}}}]"#),
        };
    }
    let to = if detail & 64 == 0 { String::new() } else { format!(r#","to":"{member}""#) };
    match detail & 4 {
        0 => format!(r#"{{"t":"{kind}"{id}{ack}{to},"d":{body}}}"#),
        _ => format!(r#"{{"type":"{kind}","{kind}":{body},"candidate":{body}}}"#),
    }
}
