//! What attackers try, over real sockets: each is refused with its code, counted, and nobody else's loss.

use std::time::Duration;

use serde_json::{Value, json};
use turnkey::http::token::{Claims, mint};
use turnkey::http::{Access, Settings};
use turnkey::signal::Limits;

use crate::server::{Client, SECRET, Server, guarded, jwt, open, unix};

const SOCKETIO: &str = "/socket.io/?EIO=4&transport=websocket";
const HOUR: Duration = Duration::from_secs(3600);

/// The next Socket.IO packet: its type and its payload.
async fn packet(client: &mut Client) -> (String, Value) {
    loop {
        let text = client.text().await;
        if text == "2" {
            client.send("3").await;
        } else if !text.starts_with('0') {
            let start = text.find(['{', '[']).expect("payload");
            return (text[..start].to_owned(), serde_json::from_str(&text[start..]).expect("json"));
        }
    }
}

async fn socketio(server: &Server, token: &str, headers: &[(&str, &str)]) -> (Client, String, Value) {
    let mut client = server.ws_with(SOCKETIO, headers).await;
    client.send(&format!("40{}", json!({ "token": token }))).await;
    let (kind, payload) = packet(&mut client).await;
    (client, kind, payload)
}

fn token_of(claims: Claims) -> String {
    mint(SECRET, claims, unix(), HOUR).expect("token")
}

fn bad_tokens() -> [(&'static str, String); 5] {
    let claims = || Claims { sub: "eve".into(), ..Claims::default() };
    let (head, rest) = (jwt("eve", None), jwt("ann", None));
    let spliced =
        format!("{}.{}", head.rsplit_once('.').expect("dots").0, rest.rsplit_once('.').expect("dots").1);
    [
        (
            "signed with another key",
            mint(b"another secret, also thirty-two bytes", claims(), unix(), HOUR).expect("token"),
        ),
        ("expired", mint(SECRET, claims(), unix() - 7200, HOUR).expect("token")),
        // {"alg":"none","typ":"JWT"} . {"sub":"eve","exp":4102444800}
        ("alg:none", "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJldmUiLCJleHAiOjQxMDI0NDQ4MDB9.".into()),
        ("another token's signature", spliced),
        ("nonsense", "x".into()),
    ]
}

#[tokio::test]
async fn bad_tokens_open_no_socket_of_any_dialect_and_are_counted() {
    let server = Server::start(guarded()).await;
    let mut refused = 0;
    for (what, token) in bad_tokens() {
        for path in ["/v1/ws", "/ws/signaling/r", "/ws/webrtc/c"] {
            let (code, _, texts) = server.ws(&format!("{path}?token={token}")).await.end().await;
            assert_eq!((code, texts.len()), (Some(4401), 0), "{what} {path}");
            refused += 1;
        }
        let (_, kind, error) = socketio(&server, &token, &[]).await;
        assert_eq!((kind.as_str(), &error["data"]["code"]), ("44", &json!("unauthenticated")), "{what}");
        let (_, kind, error) = socketio(&server, "", &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!((kind.as_str(), &error["data"]["code"]), ("44", &json!("unauthenticated")), "{what}");
        refused += 1;
    }
    let stats = server.app.stats();
    assert!(stats.refused >= refused && stats.errors >= 5, "{stats:?}");
    assert_eq!((stats.sessions, stats.members), (0, 0));
}

#[tokio::test]
async fn tokens_for_another_room_or_role_give_neither() {
    let server = Server::start(guarded()).await;
    let claims = Claims {
        sub: "eve".into(),
        room: Some("mine".into()),
        role: Some("patient".into()),
        ..Claims::default()
    };
    let token = token_of(claims);
    let (code, _, _) = server.ws(&format!("/ws/signaling/yours?token={token}")).await.end().await;
    assert_eq!(code, Some(4403));
    let (mut client, kind, _) = socketio(&server, &token, &[]).await;
    assert_eq!(kind, "40");
    assert_eq!(packet(&mut client).await.1[0], "connected");
    let join = |room: &str| json!(["join_room", { "room_id": room, "user_id": "eve", "role": "DOCTOR", "token": token }]);
    client.send(&format!("421{}", join("yours"))).await;
    let (kind, answer) = packet(&mut client).await;
    assert_eq!((kind.as_str(), &answer[0]["code"]), ("431", &json!("forbidden")));
    client.send(&format!("422{}", join("mine"))).await;
    let (kind, answer) = packet(&mut client).await;
    assert_eq!(
        (kind.as_str(), &answer[0]["role"]),
        ("432", &json!("patient")),
        "the token's role, not the claimed one"
    );
}

#[tokio::test]
async fn a_resume_secret_that_was_used_is_worth_nothing() {
    let server = Server::start(guarded()).await;
    let path = format!("/v1/ws?token={}", jwt("ann", None));
    let (first, welcome) = server.native(&path, r#"{"t":"hello"}"#).await;
    drop(first);
    let hello = json!({ "t": "hello", "d": { "resume": welcome["resume"], "last_seq": 0 } }).to_string();
    let (mut second, resumed) = server.native(&path, &hello).await;
    assert_eq!(resumed["resumed"], true);
    // The acknowledgement says that the new secret arrived, which ends the old one.
    second.send(r#"{"t":"ping","id":"1","ack":1}"#).await;
    second.until("pong").await;
    let thief = format!("/v1/ws?token={}", jwt("eve", None));
    let (_, replayed) = server.native(&thief, &hello).await;
    assert_ne!(replayed["resumed"], true);
    second.send(r#"{"t":"ping","id":"2"}"#).await;
    second.until("pong").await;
    assert_eq!(server.app.stats().resume_failed, 1);
}

/// A token that opens one session, once.
fn ticket(id: &str) -> String {
    let rooms = Some(vec!["r".into()]);
    token_of(Claims { sub: "eve".into(), jti: Some(id.into()), once: true, rooms, ..Claims::default() })
}

/// Sockets of each dialect that take the ticket with the upgrade.
fn ways_in(ticket: &str) -> [String; 3] {
    [
        format!("/ws/signaling/r?token={ticket}"),
        format!("/ws/webrtc/r?token={ticket}"),
        format!("/peerjs?key=r&id=eve&token={ticket}"),
    ]
}

/// No dialect takes the ticket.
async fn is_used_up(server: &Server, ticket: &str) {
    for path in ways_in(ticket) {
        assert_eq!(server.ws(&path).await.close_code().await, Some(4401), "{path}");
    }
    let mut native = server.ws(&format!("/v1/ws?token={ticket}")).await;
    native.send(r#"{"t":"hello"}"#).await;
    assert_eq!(native.until("error").await["d"]["code"], "unauthenticated");
    assert_eq!(native.close_code().await, Some(4401));
    let mut native = server.ws("/v1/ws").await;
    native.send(&json!({ "t": "hello", "d": { "token": ticket } }).to_string()).await;
    assert_eq!(native.close_code().await, Some(4401));
    let (_, kind, error) = socketio(server, ticket, &[]).await;
    assert_eq!((kind.as_str(), &error["data"]["code"]), ("44", &json!("unauthenticated")));
    let bearer = format!("Bearer {ticket}");
    for path in ["/v1/ice", "/calls/active"] {
        let answer = server.get(path, &[("authorization", &bearer)]).await;
        assert_eq!(answer.status, 401, "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_replayed_ticket_opens_nothing_whatever_it_has_opened_before() {
    let limits = Limits { connects_per_minute: 1000, sockets_per_ip: 1000, ..Limits::default() };
    let server = Server::start(Settings { limits, ..guarded() }).await;
    let (mut ann, _) =
        server.native(&format!("/v1/ws?token={}", jwt("ann", Some("r"))), r#"{"t":"hello"}"#).await;
    ann.join("r").await;
    let (_eve, welcome) =
        server.native(&format!("/v1/ws?token={}", ticket("native")), r#"{"t":"hello"}"#).await;
    assert_eq!(welcome["user"], "eve");
    is_used_up(&server, &ticket("native")).await;

    let (_eve, kind, _) = socketio(&server, &ticket("socket.io"), &[]).await;
    assert_eq!(kind, "40");
    is_used_up(&server, &ticket("socket.io")).await;

    for (n, way) in (0..3).zip(["broadcast", "call", "peerjs"]) {
        let eve = server.ws(&ways_in(&ticket(way))[n]).await;
        ann.until("member-joined").await;
        is_used_up(&server, &ticket(way)).await;
        drop(eve);
    }
}

#[tokio::test]
async fn of_many_who_show_the_same_ticket_at_once_one_is_let_in() {
    let limits = Limits { connects_per_minute: 1000, ..Limits::default() };
    let server = Server::start(Settings { limits, ..guarded() }).await;
    let path = format!("/v1/ws?token={}", ticket("race"));
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(server.ws(&path).await);
    }
    for socket in &mut sockets {
        socket.send(r#"{"t":"hello"}"#).await;
    }
    let mut let_in = 0;
    for socket in &mut sockets {
        let_in += u32::from(socket.next().await["t"] == "welcome");
    }
    assert_eq!(let_in, 1);
    assert_eq!(server.app.stats().sessions, 1);
}

#[tokio::test]
async fn pages_of_other_origins_get_no_socketio_session() {
    let server = Server::start(open()).await;
    let evil = [("origin", "https://evil.example")];
    let mut client = server.ws_with(SOCKETIO, &evil).await;
    client.send("40").await;
    let (kind, error) = packet(&mut client).await;
    assert_eq!((kind.as_str(), &error["data"]["code"]), ("44", &json!("forbidden")));
    let polled = server.get("/socket.io/?EIO=4&transport=polling", &evil).await;
    assert_eq!(polled.header("access-control-allow-origin"), None, "the page cannot read it");
    let own = format!("http://{}", server.address);
    let mut client = server.ws_with(SOCKETIO, &[("origin", &own)]).await;
    client.send("40").await;
    assert_eq!(packet(&mut client).await.0, "40");
    assert_eq!(server.app.stats().refused, 1);
}

#[tokio::test]
async fn a_deeply_nested_oversized_or_binary_packet_is_refused_by_socketio_too() {
    let server = Server::start(Settings {
        limits: Limits { connects_per_minute: 1000, ..Limits::default() },
        ..open()
    })
    .await;
    let mut client = server.ws(SOCKETIO).await;
    client.send("40").await;
    assert_eq!(packet(&mut client).await.0, "40");
    assert_eq!(packet(&mut client).await.1[0], "connected");
    for (text, code) in [
        (format!("42[\"x\",{}{}]", "[".repeat(31), "]".repeat(31)), "unknown_type"),
        (format!("42[\"x\",{}{}]", "[".repeat(32), "]".repeat(32)), "too_deep"),
        (format!("42[\"x\",{}]", "[".repeat(100_000)), "too_deep"),
    ] {
        client.send(&text).await;
        assert_eq!(packet(&mut client).await.1[1]["code"], code);
    }
    client.send_binary(vec![0; 100]).await;
    assert_eq!(packet(&mut client).await.1[1]["code"], "bad_frame");
    let mut large = server.ws(SOCKETIO).await;
    large.try_send(&format!("42[\"{}\"]", "x".repeat(300 * 1024))).await;
    large.end().await;
    assert!(server.app.stats().errors >= 4);
}

#[tokio::test]
async fn malformed_binary_and_deeply_nested_frames_get_a_typed_error_in_each_raw_dialect() {
    let server = Server::start(guarded()).await;
    let token = jwt("ann", Some("r"));
    let deep =
        |levels: usize| format!(r#"{{"type":"x","t":"x","d":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    for (path, code) in [
        (format!("/ws/signaling/r?token={token}"), "/code"),
        (format!("/ws/webrtc/r?token={token}"), "/code"),
        (format!("/peerjs?key=r&id=ann&token={token}"), "/payload/code"),
        (format!("/v1/ws?token={token}"), "/d/code"),
    ] {
        let mut client = match code {
            "/d/code" => server.native(&path, r#"{"t":"hello"}"#).await.0,
            _ => server.ws(&path).await,
        };
        if code == "/payload/code" {
            assert_eq!(client.next().await["type"], "OPEN");
        }
        let mut codes = Vec::new();
        for frame in [Some("{".to_owned()), None, Some(deep(32))] {
            match frame {
                Some(text) => client.send(&text).await,
                None => client.send_binary(vec![0; 9]).await,
            }
            codes.push(client.next().await.pointer(code).and_then(Value::as_str).map(str::to_owned));
        }
        assert_eq!(codes, ["bad_frame", "bad_frame", "too_deep"].map(|code| Some(code.to_owned())), "{path}");
        assert_eq!(client.close_code().await, Some(4400), "{path}");
        let mut large = match code {
            "/d/code" => server.native(&path, r#"{"t":"hello"}"#).await.0,
            _ => server.ws(&path).await,
        };
        large.try_send(&format!("\"{}\"", "x".repeat(300 * 1024))).await;
        assert_eq!(large.close_code().await, Some(4413), "{path}");
    }
}

/// Clients of different addresses behind one proxy.
async fn proxied(limits: Limits) -> Server {
    let trusted_proxies = vec![("127.0.0.1".parse().expect("address"), 32)];
    let settings =
        Settings { trusted_proxies, limits, access: Access::Token, allow_anonymous: true, ..guarded() };
    Server::start(settings).await
}

#[tokio::test]
async fn a_flood_of_sockets_and_frames_from_one_address_costs_nobody_else_a_message() {
    let server = proxied(Limits { sockets_per_ip: 8, connects_per_minute: 20, ..Limits::default() }).await;
    let from = |address: &'static str| [("x-forwarded-for", address)];
    let room = "/ws/signaling/quiet";
    let mut ann = server.ws_with(room, &from("203.0.113.1")).await;
    let mut bob = server.ws_with(room, &from("203.0.113.2")).await;
    let flood = async {
        let mut codes = Vec::new();
        let mut open = Vec::new();
        for n in 0..40 {
            let path = format!("/ws/signaling/loud-{n}");
            let mut client = server.ws_with(&path, &from("203.0.113.66")).await;
            match n {
                0..8 => open.push(client),
                _ => codes.push(client.close_code().await),
            }
        }
        for mut client in open {
            for _ in 0..1000 {
                if !client.try_send("1").await {
                    break;
                }
            }
            codes.push(client.close_code().await);
        }
        codes
    };
    let call = async {
        for n in 0..100 {
            let text = format!(r#"{{"type":"chat","chat":{{"message":"{n}"}}}}"#);
            ann.send(&text).await;
            assert_eq!(bob.text().await, text, "delivered, in order");
            // Below what one socket may send on average.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (codes, ()) = tokio::join!(flood, call);
    assert!(codes.len() == 40 && codes.iter().all(|code| *code == Some(4429)), "{codes:?}");
    let stats = server.app.stats();
    assert!(stats.refused == 32 && stats.rate_limited > 0 && stats.struck_out > 0, "{stats:?}");
}
