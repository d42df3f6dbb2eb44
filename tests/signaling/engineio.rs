//! The cases of the public test suites of the Engine.IO v4 and Socket.IO v5 protocols, over real
//! sockets. Where those have an echo, the server here acknowledges; what the suites close, it refuses
//! with a typed error first (invalid events, attachments).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::Value;
use turnkey::http::Settings;
use turnkey::signal::Limits;

use crate::server::{Answer, Client, Server, guarded, jwt, open};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// The head of a request for a WebSocket.
const UPGRADE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

async fn server(change: impl FnOnce(&mut Limits)) -> Server {
    let mut limits = Limits { connects_per_minute: 1000, ..Limits::default() };
    change(&mut limits);
    Server::start(Settings { limits, ..open() }).await
}

/// An Engine.IO session over long polling.
struct Polling<'a> {
    server: &'a Server,
    path: String,
    sid: String,
    packets: VecDeque<String>,
}

impl<'a> Polling<'a> {
    async fn open(server: &'a Server) -> Self {
        let opened = server.get(POLLING, &[]).await;
        assert_eq!(opened.status, 200, "{}", opened.body);
        let handshake: Value = serde_json::from_str(&opened.body[1..]).expect("json");
        let sid = handshake["sid"].as_str().expect("sid").to_owned();
        Self { server, path: format!("{POLLING}&sid={sid}"), sid, packets: VecDeque::new() }
    }

    async fn poll(&self) -> Answer {
        self.server.get(&self.path, &[]).await
    }

    async fn post(&self, body: &str) -> Answer {
        self.server.request_with("POST", &self.path, &[], body).await
    }

    async fn say(&self, body: &str) {
        let answer = self.post(body).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    }

    /// The next packet that is no ping.
    async fn packet(&mut self) -> String {
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return packet;
            }
            let polled = self.poll().await;
            assert_eq!(polled.status, 200, "{}", polled.body);
            let all = polled.body.split('\u{1e}').map(str::to_owned);
            self.packets.extend(all.filter(|packet| packet != "2"));
        }
    }
}

/// A WebSocket whose handshake was read.
async fn websocket(server: &Server) -> Client {
    let mut client = server.ws(WEBSOCKET).await;
    assert!(client.text().await.starts_with('0'));
    client
}

/// The next packet that is no ping.
async fn packet(client: &mut Client) -> String {
    loop {
        let text = client.text().await;
        if text != "2" {
            return text;
        }
        client.send("3").await;
    }
}

/// A WebSocket that is connected to a namespace: `""` is the main one, others end with a comma.
async fn connected(server: &Server, namespace: &str) -> Client {
    let mut client = websocket(server).await;
    connect(&mut client, namespace).await;
    client
}

async fn connect(client: &mut Client, namespace: &str) {
    client.send(&format!("40{namespace}")).await;
    let answer = packet(client).await;
    let rest = answer.strip_prefix(&format!("40{namespace}")).expect("connected");
    let answer: Value = serde_json::from_str(rest).expect("json");
    assert!(answer["sid"].is_string() && answer["pid"].is_string(), "{answer}");
    let hello = packet(client).await;
    assert!(hello.starts_with(&format!(r#"42{namespace}["connected""#)), "{hello}");
}

/// The connection answers: an event of `namespace` is acknowledged.
async fn answers(client: &mut Client, namespace: &str) {
    client.send(&format!(r#"42{namespace}456["identify_as_doctor"]"#)).await;
    let expected = format!(r#"43{namespace}456[{{"ok":true,"role":"doctor"}}]"#);
    assert_eq!(packet(client).await, expected);
}

fn keys(handshake: &str) -> BTreeSet<String> {
    let value: Value = serde_json::from_str(&handshake[1..]).expect("json");
    value.as_object().expect("object").keys().cloned().collect()
}

// Engine.IO: handshake.

#[tokio::test]
async fn eio_handshake_over_polling_and_websocket_names_everything() {
    let server = server(|_| {}).await;
    let expected = ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"].map(str::to_owned);
    let polling = server.get(POLLING, &[]).await;
    let websocket = server.ws(WEBSOCKET).await.text().await;
    for (text, upgrades) in [(&polling.body, r#"["websocket"]"#), (&websocket, "[]")] {
        assert!(text.starts_with('0'), "{text}");
        assert_eq!(keys(text), BTreeSet::from(expected.clone()));
        let value: Value = serde_json::from_str(&text[1..]).expect("json");
        assert_eq!(value["upgrades"].to_string(), upgrades);
        let numbers = ["pingInterval", "pingTimeout", "maxPayload"].map(|key| value[key].as_u64());
        assert_eq!(numbers, [Some(25_000), Some(20_000), Some(256 * 1024)]);
    }
    assert_eq!(polling.status, 200);
}

#[tokio::test]
async fn eio_a_wrong_version_transport_or_method_gets_400() {
    let server = server(|_| {}).await;
    for query in [
        "transport=polling",
        "EIO=abc&transport=polling",
        "EIO=3&transport=polling",
        "EIO=4",
        "EIO=4&transport=abc",
        "transport=websocket",
        "EIO=abc&transport=websocket",
        "EIO=4&transport=polling&sid=unknown",
    ] {
        assert_eq!(server.get(&format!("/socket.io/?{query}"), &[]).await.status, 400, "{query}");
    }
    // The same of who asks for an upgrade.
    for query in ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=abc"] {
        assert_eq!(server.get(&format!("/socket.io/?{query}"), &UPGRADE).await.status, 400, "{query}");
    }
    for method in ["POST", "PUT"] {
        assert_eq!(server.request(method, POLLING, &[]).await.status, 400, "{method}");
    }
}

// Engine.IO: messages.

#[tokio::test]
async fn eio_polling_carries_one_packet_several_and_binary_ones() {
    let server = server(|_| {}).await;
    let mut session = Polling::open(&server).await;
    session.say("40").await;
    assert!(session.packet().await.starts_with(r#"40{"sid":"#));
    assert!(session.packet().await.starts_with(r#"42["connected","#));
    session.say("420[\"identify_as_doctor\"]\u{1e}421[\"identify_as_patient\"]").await;
    assert_eq!(session.packet().await, r#"430[{"ok":true,"role":"doctor"}]"#);
    assert_eq!(session.packet().await, r#"431[{"ok":true,"role":"patient"}]"#);
    session.say("422[\"identify_as_doctor\"]\u{1e}bAQIDBA==").await;
    assert_eq!(session.packet().await, r#"432[{"ok":true,"role":"doctor"}]"#);
    let error = session.packet().await;
    assert!(error.starts_with(r#"42["error","#) && error.contains("bad_frame"), "{error}");
}

#[tokio::test]
async fn eio_polling_ends_with_an_invalid_packet_and_one_that_is_too_large() {
    let server = server(|_| {}).await;
    let session = Polling::open(&server).await;
    assert_eq!(session.post("abc").await.status, 400);
    assert_eq!(session.poll().await.status, 400);
    let session = Polling::open(&server).await;
    let large = format!("42[\"{}\"]", "x".repeat(256 * 1024));
    assert_eq!(session.post(&large).await.status, 413);
    assert_eq!(session.poll().await.status, 400);
}

#[tokio::test]
async fn eio_polling_ends_with_a_second_poll() {
    let server = server(|_| {}).await;
    let session = Polling::open(&server).await;
    let (one, other) = tokio::join!(session.poll(), session.poll());
    let (first, second) = if one.status == 200 { (one, other) } else { (other, one) };
    assert_eq!((first.status, first.body.as_str()), (200, "1"));
    assert_eq!(second.status, 400);
    assert_eq!(session.poll().await.status, 400);
}

#[tokio::test]
async fn eio_websocket_carries_text_and_binary_and_ends_with_an_invalid_packet() {
    let server = server(|_| {}).await;
    let mut client = connected(&server, "").await;
    answers(&mut client, "").await;
    client.send_binary(vec![1, 2, 3, 4]).await;
    assert!(packet(&mut client).await.contains("bad_frame"));
    client.send("abc").await;
    client.end().await;
}

// Engine.IO: heartbeat, close, upgrade.

#[tokio::test]
async fn eio_pings_come_and_pongs_keep_the_session() {
    let server = server(|l| l.heartbeat = (Duration::from_millis(50), Duration::from_secs(20))).await;
    let session = Polling::open(&server).await;
    let mut client = websocket(&server).await;
    for _ in 0..3 {
        assert_eq!(session.poll().await.body, "2");
        session.say("3").await;
        assert_eq!(client.text().await, "2");
        client.send("3").await;
    }
}

#[tokio::test]
async fn eio_a_session_ends_when_pings_stay_unanswered() {
    let server = server(|l| l.heartbeat = (Duration::from_millis(50), Duration::from_millis(50))).await;
    let session = Polling::open(&server).await;
    let mut client = websocket(&server).await;
    let last = loop {
        let polled = session.poll().await;
        if polled.status != 200 {
            break polled.status;
        }
    };
    assert_eq!(last, 400);
    client.end().await;
}

#[tokio::test]
async fn eio_a_close_packet_ends_the_pending_poll_with_a_noop() {
    let server = server(|_| {}).await;
    let mut ended = Vec::new();
    // Which of the two requests the server reads first is open; nearly always it is the poll.
    while ended.len() < 20 && !ended.contains(&(200, "6".to_owned())) {
        let session = Polling::open(&server).await;
        let close = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            session.say("1").await;
        };
        let (polled, ()) = tokio::join!(session.poll(), close);
        ended.push((polled.status, polled.body));
        assert_eq!(session.poll().await.status, 400);
    }
    assert!(ended.contains(&(200, "6".to_owned())), "{ended:?}");
    let mut client = websocket(&server).await;
    client.send("1").await;
    client.end().await;
}

#[tokio::test]
async fn eio_polling_is_upgraded_and_the_session_is_the_sockets_alone_then() {
    let server = server(|_| {}).await;
    let session = Polling::open(&server).await;
    let path = format!("{WEBSOCKET}&sid={}", session.sid);
    let mut client = server.ws(&path).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    assert_eq!(session.poll().await.body, "6", "a noop ends the polling");
    client.send("5").await;
    connect(&mut client, "").await;
    assert_eq!(session.poll().await.status, 400);
    assert_eq!(session.post("41").await.status, 400);
    assert_eq!(server.get(&path, &UPGRADE).await.status, 400, "a second one");
    answers(&mut client, "").await;
}

#[tokio::test]
async fn eio_what_waits_for_a_poll_comes_first_over_the_websocket() {
    let server = server(|_| {}).await;
    let session = Polling::open(&server).await;
    let mut client = server.ws(&format!("{WEBSOCKET}&sid={}", session.sid)).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    session.say("40\u{1e}420[\"identify_as_doctor\"]").await;
    client.send("5").await;
    client.send(r#"421["identify_as_patient"]"#).await;
    assert!(client.text().await.starts_with(r#"40{"sid":"#));
    assert!(client.text().await.starts_with(r#"42["connected","#));
    assert_eq!(client.text().await, r#"430[{"ok":true,"role":"doctor"}]"#);
    assert_eq!(client.text().await, r#"431[{"ok":true,"role":"patient"}]"#);
}

#[tokio::test]
async fn eio_a_session_goes_on_polling_when_its_upgrade_fails() {
    let server = server(|_| {}).await;
    let mut session = Polling::open(&server).await;
    for words in [&["2probe", "4x"][..], &["4x"]] {
        let mut client = server.ws(&format!("{WEBSOCKET}&sid={}", session.sid)).await;
        for word in words {
            client.send(word).await;
        }
        client.end().await;
    }
    session.say("40").await;
    assert!(session.packet().await.starts_with(r#"40{"sid":"#));
}

// Socket.IO: connect.

#[tokio::test]
async fn sio_namespaces_are_connected_with_and_without_a_payload() {
    let server = server(|_| {}).await;
    for namespace in ["", "/consultation,", "/socket.io,"] {
        let mut client = connected(&server, namespace).await;
        answers(&mut client, namespace).await;
    }
    let guarded = Server::start(guarded()).await;
    for namespace in ["", "/consultation,"] {
        let mut client = websocket(&guarded).await;
        client.send(&format!(r#"40{namespace}{{"token":"{}"}}"#, jwt("ann", None))).await;
        assert!(packet(&mut client).await.starts_with(&format!(r#"40{namespace}{{"sid":"#)));
        let mut client = websocket(&guarded).await;
        client.send(&format!(r#"40{namespace}{{"token":"x"}}"#)).await;
        let refused = packet(&mut client).await;
        assert!(refused.starts_with(&format!(r#"44{namespace}{{"#)), "{refused}");
        assert!(refused.contains("unauthenticated"), "{refused}");
    }
}

#[tokio::test]
async fn sio_an_unknown_namespace_is_refused_and_the_connection_goes_on() {
    let server = server(|_| {}).await;
    let mut client = websocket(&server).await;
    client.send("40/random").await;
    let refused = packet(&mut client).await;
    let refused: Value =
        serde_json::from_str(refused.strip_prefix("44/random,").expect("refused")).expect("json");
    assert_eq!(refused["message"], "Invalid namespace");
    connect(&mut client, "").await;
}

#[tokio::test]
async fn sio_a_connection_ends_with_an_invalid_handshake_or_without_one() {
    let server = server(|l| l.hello = Duration::from_millis(50)).await;
    let mut silent = websocket(&server).await;
    silent.end().await;
    let patient = self::server(|_| {}).await;
    for text in ["4abc", "4", "49", "45[]", "45x-[]"] {
        for mut client in [websocket(&patient).await, connected(&patient, "").await] {
            client.send(text).await;
            client.end().await;
        }
    }
}

// Socket.IO: disconnect, events, acknowledgements.

#[tokio::test]
async fn sio_a_namespace_is_left_and_the_others_stay() {
    let server = server(|_| {}).await;
    let mut client = connected(&server, "").await;
    connect(&mut client, "/consultation,").await;
    client.send("41/consultation,").await;
    client.send(r#"42/consultation,1["identify_as_doctor"]"#).await;
    answers(&mut client, "").await;
    // The comma is not needed where nothing follows it.
    client.send("40/consultation").await;
    assert!(packet(&mut client).await.starts_with(r#"40/consultation,{"sid":"#));
    assert!(packet(&mut client).await.starts_with(r#"42/consultation,["connected""#));
    client.send("41/consultation").await;
    answers(&mut client, "").await;
    client.send("41").await;
    connect(&mut client, "/consultation,").await;
}

#[tokio::test]
async fn sio_events_reach_the_others_as_they_came_and_are_acknowledged_by_their_id() {
    let server = server(|_| {}).await;
    let (mut ann, mut bob) = (connected(&server, "").await, connected(&server, "/consultation,").await);
    ann.send(r#"427["webrtc:join_room",{"roomId":"r"}]"#).await;
    assert!(packet(&mut ann).await.starts_with(r#"437[{"#));
    assert!(packet(&mut ann).await.starts_with(r#"42["webrtc:joined_room""#));
    bob.send(r#"42/consultation,["webrtc:join_room",{"roomId":"r"}]"#).await;
    assert!(packet(&mut bob).await.starts_with(r#"42/consultation,["webrtc:joined_room""#));
    assert!(packet(&mut ann).await.starts_with(r#"42["webrtc:user_joined""#));
    let payload = r#"{"roomId":"r","message":"1","kept":[1.50,{"3":[true]}]"#;
    ann.send(&format!(r#"42123["chat:send_message",{payload}}}]"#)).await;
    assert!(packet(&mut ann).await.starts_with(r#"43123[{"#));
    let heard = packet(&mut bob).await;
    assert!(heard.starts_with(&format!(r#"42/consultation,["chat:message",{payload},"from":"#)), "{heard}");
    ann.send("43999[1]").await;
    answers(&mut ann, "").await;
}

#[tokio::test]
async fn sio_an_event_with_attachments_gets_one_typed_answer_for_all_of_it() {
    let server = server(|_| {}).await;
    let mut client = connected(&server, "").await;
    let placeholders = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    client.send(&format!(r#"452-["chat:send_message",{placeholders}]"#)).await;
    client.send_binary(vec![1, 2, 3]).await;
    client.send_binary(vec![4, 5, 6]).await;
    let error = packet(&mut client).await;
    assert!(error.starts_with(r#"42["error","#) && error.contains("bad_frame"), "{error}");
    client.send(&format!(r#"452-789["chat:send_message",{placeholders}]"#)).await;
    client.send_binary(vec![1, 2, 3]).await;
    client.send_binary(vec![4, 5, 6]).await;
    let error = packet(&mut client).await;
    assert!(error.starts_with(r#"43789[{"#) && error.contains("bad_frame"), "{error}");
    client.send("462-7[]").await;
    client.send_binary(vec![1]).await;
    client.send_binary(vec![2]).await;
    answers(&mut client, "").await;
}

#[tokio::test]
async fn sio_invalid_events_get_typed_errors_and_the_third_ends_the_namespace() {
    let server = server(|_| {}).await;
    let mut client = connected(&server, "").await;
    for text in ["42{}", r#"42abc["message",1,"2",{"3":[false]}]"#, "42[]"] {
        client.send(text).await;
        let error = packet(&mut client).await;
        assert!(error.starts_with(r#"42["error","#) && error.contains("bad_frame"), "{text}: {error}");
    }
    assert_eq!(packet(&mut client).await, "41");
    connect(&mut client, "").await;
}

#[tokio::test]
async fn packets_that_connect_no_namespace_keep_no_session() {
    let server = server(|l| l.hello = Duration::from_millis(300)).await;
    let mut client = websocket(&server).await;
    let mut sent = 0;
    while sent < 200 && client.try_send(r#"42/consultation,["x"]"#).await {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sent < 200, "it goes on as long as junk comes");
}
