//! Real WebSockets against a real server: who gets in, what is refused, what survives.

use std::time::Duration;

use turnkey::http::token::{Claims, JwtKey, mint};
use turnkey::http::{Access, Settings};
use turnkey::signal::Limits;

use crate::server::{SECRET, Server, guarded, jwt, open, unix};

const OFFER: &str = r#"{"type":"offer","offer":{"type":"offer","sdp":"v=0\r\n"}}"#;
const ANSWER: &str = r#"{ "answer" : {"type":"answer","sdp":"v=0\r\n"}, "type":"answer" }"#;
const CANDIDATE: &str = r#"{"type":"ice-candidate","candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0"}}"#;

#[tokio::test]
async fn s0_01_s0_10_s0_11_a_call_as_seed_000_makes_it() {
    let server = Server::start(open()).await;
    let mut doctor = server.ws("/ws/signaling/consultation%2042").await;
    doctor.send(OFFER).await;
    doctor.send(CANDIDATE).await;
    let mut patient = server.ws("/ws/signaling/consultation%2042").await;
    assert_eq!(patient.text().await, OFFER);
    assert_eq!(patient.text().await, CANDIDATE);
    patient.send(ANSWER).await;
    patient.send(CANDIDATE).await;
    assert_eq!(doctor.text().await, ANSWER, "the bytes it came in");
    assert_eq!(doctor.text().await, CANDIDATE);
    assert_eq!(server.app.stats().rooms, 1);
}

#[tokio::test]
async fn s0_02_without_a_token_nobody_enters_a_guarded_server() {
    let server = Server::start(guarded()).await;
    for path in ["/ws/signaling/r", "/ws/signaling/r?token=nonsense"] {
        let (code, reason, _) = server.ws(path).await.end().await;
        assert_eq!(code, Some(4401), "{reason}");
        assert!(reason.contains("token"), "{reason}");
    }
    let mut native = server.ws("/v1/ws").await;
    native.send(r#"{"t":"hello"}"#).await;
    let error = native.next().await;
    assert_eq!((&error["t"], &error["d"]["code"]), (&"error".into(), &"unauthenticated".into()));
    assert_eq!(native.close_code().await, Some(4401));
}

#[tokio::test]
async fn s0_02_c2_anonymous_sockets_enter_open_rooms_but_not_protected_ones() {
    let server = Server::start(Settings { allow_anonymous: true, ..guarded() }).await;
    let mut guest = server.ws("/ws/signaling/open").await;
    let mut other = server.ws(&format!("/ws/signaling/open?token={}", jwt("ann", None))).await;
    guest.send(ANSWER).await;
    assert_eq!(other.text().await, ANSWER);
    let mut early = server.ws("/ws/signaling/secret").await;
    let mut owner = server.ws(&format!("/ws/signaling/secret?token={}", jwt("ann", Some("secret")))).await;
    assert_eq!(early.close_code().await, Some(4403), "whoever came without a token has to leave");
    let mut late = server.ws("/ws/signaling/secret").await;
    assert_eq!(late.close_code().await, Some(4403));
    let mut colleague =
        server.ws(&format!("/ws/signaling/secret?token={}", jwt("bob", Some("secret")))).await;
    colleague.send(ANSWER).await;
    assert_eq!(owner.text().await, ANSWER);
}

#[tokio::test]
async fn a_token_travels_in_query_subprotocol_header_and_hello() {
    let server = Server::start(guarded()).await;
    let token = jwt("ann", None);
    let (_, welcome) = server.native(&format!("/v1/ws?token={token}"), r#"{"t":"hello"}"#).await;
    assert_eq!(welcome["user"], "ann");
    let hello = format!(r#"{{"t":"hello","d":{{"token":"{token}"}}}}"#);
    let (_, welcome) = server.native("/v1/ws", &hello).await;
    assert_eq!(welcome["user"], "ann");
    let protocols = format!("turnkey.v1, bearer.{token}");
    for headers in
        [[("sec-websocket-protocol", protocols.as_str())], [("authorization", &format!("Bearer {token}"))]]
    {
        let mut client = server.ws_with("/v1/ws", &headers).await;
        client.send(r#"{"t":"hello"}"#).await;
        assert_eq!(client.next().await["d"]["user"], "ann");
    }
    let client = server.ws_with("/v1/ws", &[("sec-websocket-protocol", &protocols)]).await;
    assert_eq!(client.response.headers()["sec-websocket-protocol"], "turnkey.v1", "the token is not echoed");
}

#[tokio::test]
async fn wrong_tokens_are_refused_with_4401() {
    let server = Server::start(guarded()).await;
    let claims = |exp| Claims { sub: "eve".into(), exp, ..Claims::default() };
    let hour = Duration::from_secs(3600);
    let foreign = mint(b"another secret, also thirty-two bytes", claims(0), unix(), hour).expect("token");
    let expired = mint(SECRET, claims(0), unix() - 7200, hour).expect("token");
    // {"alg":"none","typ":"JWT"} . {"sub":"eve","exp":4102444800}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJldmUiLCJleHAiOjQxMDI0NDQ4MDB9.";
    let truncated = &jwt("eve", None)[..40];
    for token in [foreign.as_str(), expired.as_str(), none, truncated, "x"] {
        for path in ["/ws/signaling/r", "/v1/ws"] {
            let (code, reason, texts) = server.ws(&format!("{path}?token={token}")).await.end().await;
            assert_eq!((code, texts.len()), (Some(4401), 0), "{token} {reason}");
        }
        let mut client = server.ws("/v1/ws").await;
        client.send(&format!(r#"{{"t":"hello","d":{{"token":"{token}"}}}}"#)).await;
        let (code, _, texts) = client.end().await;
        assert_eq!((code, texts.len()), (Some(4401), 1), "{token} {texts:?}");
    }
}

#[tokio::test]
async fn a_token_for_another_room_is_refused() {
    let server = Server::start(guarded()).await;
    let token = jwt("ann", Some("mine"));
    let mut raw = server.ws(&format!("/ws/signaling/yours?token={token}")).await;
    assert_eq!(raw.close_code().await, Some(4403));
    let (mut native, _) = server.native(&format!("/v1/ws?token={token}"), r#"{"t":"hello"}"#).await;
    native.send(r#"{"t":"join","id":"1","d":{"room":"yours"}}"#).await;
    let error = native.next().await;
    assert_eq!((&error["ref"], &error["d"]["code"]), (&"1".into(), &"forbidden".into()));
    assert_eq!(native.join("mine").await["room"], "mine", "the socket stays");
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let server = Server::start(guarded()).await;
    let claims = Claims { sub: "ann".into(), ..Claims::default() };
    // Long enough to be greeted on a busy machine.
    let token = mint(SECRET, claims, unix(), Duration::from_secs(6)).expect("token");
    let (mut native, _) = server.native(&format!("/v1/ws?token={token}"), r#"{"t":"hello"}"#).await;
    assert_eq!(native.close_code().await, Some(4401));
}

#[tokio::test]
async fn pages_of_other_origins_are_upgraded_and_closed_with_a_reason() {
    let server = Server::start(open()).await;
    for path in ["/ws/signaling/r", "/ws/webrtc/c", "/peerjs?key=peerjs&id=eve&token=x", "/v1/ws"] {
        let mut client = server.ws_with(path, &[("origin", "https://evil.example")]).await;
        let (code, reason, _) = client.end().await;
        assert_eq!(code, Some(4403));
        assert!(reason.contains("origins"), "{reason}");
    }
    let own = format!("http://{}", server.address);
    let mut own = server.ws_with("/v1/ws", &[("origin", &own)]).await;
    own.send(r#"{"t":"hello"}"#).await;
    assert_eq!(own.next().await["t"], "welcome");

    let listed = Settings { origins: vec!["http://localhost:5173".into()], ..open() };
    let server = Server::start(listed).await;
    let mut client = server.ws_with("/v1/ws", &[("origin", "http://localhost:5173")]).await;
    client.send(r#"{"t":"hello"}"#).await;
    assert_eq!(client.next().await["t"], "welcome");
    let mut other = server.ws_with("/v1/ws", &[("origin", "http://localhost:5174")]).await;
    assert_eq!(other.close_code().await, Some(4403));

    let server = Server::start(Settings { origins: vec!["*".into()], ..open() }).await;
    let mut client = server.ws_with("/v1/ws", &[("origin", "https://anywhere.example")]).await;
    client.send(r#"{"t":"hello"}"#).await;
    assert_eq!(client.next().await["t"], "welcome");
}

#[tokio::test]
async fn open_access_answers_only_this_machine() {
    let server = Server::start(open()).await;
    let refused: [&[(&str, &str)]; 4] = [
        &[("host", "rebound.example:8080")],
        &[("x-forwarded-for", "203.0.113.7")],
        &[("forwarded", "for=203.0.113.7")],
        &[("via", "1.1 proxy")],
    ];
    for headers in refused {
        for path in ["/ws/signaling/r", "/v1/ws"] {
            let (code, reason, _) = server.ws_with(path, headers).await.end().await;
            assert_eq!(code, Some(4403), "{headers:?}");
            assert!(reason.contains("signaling.jwt_secret"), "it says what to set: {reason}");
        }
    }
    for host in ["localhost", "localhost:9", "127.0.0.1", "[::1]:80", "127.9.9.9:1"] {
        let mut client = server.ws_with("/v1/ws", &[("host", host)]).await;
        client.send(r#"{"t":"hello"}"#).await;
        assert_eq!(client.next().await["t"], "welcome", "{host}");
    }
}

#[tokio::test]
async fn bad_frames_get_typed_errors_and_at_last_a_close() {
    let server = Server::start(open()).await;
    let (mut client, _) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    client.send_binary(vec![1, 2, 3]).await;
    assert_eq!(client.next().await["d"]["code"], "bad_frame");
    let nested = format!(r#"{{"t":"custom","d":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    client.send(&nested).await;
    assert_eq!(client.next().await["d"]["code"], "too_deep");
    client.send(r#"{"t":"from-the-future","id":"9"}"#).await;
    let error = client.next().await;
    assert_eq!((&error["ref"], &error["d"]["code"]), (&"9".into(), &"unknown_type".into()));
    client.send("not json").await;
    assert_eq!(client.next().await["d"]["code"], "bad_frame");
    assert_eq!(client.close_code().await, Some(4400));
}

#[tokio::test]
async fn oversized_frames_are_closed_with_4413() {
    let server = Server::start(open()).await;
    let mut listener = server.ws("/ws/signaling/r").await;
    // Read whole, and beyond what the socket reads at all.
    for size in [300 * 1024, 2 * 1024 * 1024] {
        let mut client = server.ws("/ws/signaling/r").await;
        client.try_send(&format!("\"{}\"", "x".repeat(size))).await;
        let (code, _, texts) = client.end().await;
        // Who is still sending when the server gives up may see a reset in place of the code.
        assert!(code == Some(4413) || (size > 1 << 20 && code.is_none()), "{size}: {code:?}");
        assert!(texts.iter().all(|t| t.contains("too_large")), "{size}: {texts:?}");
    }
    server.ws("/ws/signaling/r").await.send(ANSWER).await;
    assert_eq!(listener.text().await, ANSWER, "nothing of it was relayed");
}

#[tokio::test]
async fn a_flood_is_closed_with_4429_and_the_others_go_on() {
    let server = Server::start(open()).await;
    let mut bystander = server.ws("/ws/signaling/quiet").await;
    let mut listener = server.ws("/ws/signaling/quiet").await;
    let mut flood = server.ws("/ws/signaling/loud").await;
    for _ in 0..1000 {
        if !flood.try_send("1").await {
            break;
        }
    }
    let (code, _, texts) = flood.end().await;
    assert_eq!(code, Some(4429));
    assert!(texts.iter().all(|t| t.contains("rate_limited") && t.contains("retry_after")), "{texts:?}");
    bystander.send(ANSWER).await;
    assert_eq!(listener.text().await, ANSWER);
}

#[tokio::test]
async fn a_slow_consumer_loses_its_socket_not_its_session() {
    let many = 1 << 30;
    let limits = Limits {
        frame_rate: many,
        frame_burst: many,
        byte_rate: many,
        byte_burst: many,
        ..Limits::default()
    };
    let server = Server::start(Settings { limits, ..open() }).await;
    let (mut slow, welcome) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    slow.join("r").await;
    let (mut fast, _) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    fast.join("r").await;
    let big = "x".repeat(200 * 1024);
    // More than the kernel's buffers of both ends take, while nobody reads on the other side.
    for n in 0..400 {
        fast.send(&format!(r#"{{"t":"custom","id":"{n}","d":"{big}"}}"#)).await;
        let ok = fast.next().await;
        if ok["t"] == "member-away" {
            break;
        }
        assert_eq!(ok["t"], "ok");
        assert!(n < 399, "never cut");
    }
    drop(slow);
    let resume = welcome["resume"].as_str().expect("resume");
    let hello = format!(r#"{{"t":"hello","d":{{"resume":"{resume}","last_seq":0}}}}"#);
    let (_again, welcome) = server.native("/v1/ws", &hello).await;
    // 512 KiB hold two such frames: the rest is gone and the client is told to start afresh.
    assert_eq!(welcome["resumed"], false);
    let back = fast.until("member-left").await;
    assert_eq!(back["d"]["reason"], "lost");
}

#[tokio::test]
async fn a_session_resumes_on_another_socket_and_misses_nothing() {
    let server = Server::start(open()).await;
    let (mut ann, welcome) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    let ann_id = ann.join("r").await["member"].clone();
    let (mut bob, _) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    bob.join("r").await;
    assert_eq!(ann.next().await["seq"], 1);
    drop(ann);
    assert_eq!(bob.until("member-away").await["d"]["member"], ann_id);
    for n in 0..5 {
        bob.send(&format!(r#"{{"t":"custom","id":"{n}","d":{n}}}"#)).await;
        let ok = bob.until("ok").await;
        assert_eq!((&ok["d"]["delivered"], &ok["d"]["held"]), (&0.into(), &1.into()));
    }
    let resume = welcome["resume"].as_str().expect("resume");
    let hello = format!(r#"{{"t":"hello","d":{{"resume":"{resume}","last_seq":1}}}}"#);
    let (mut ann, again) = server.native("/v1/ws", &hello).await;
    assert_eq!((&again["resumed"], &again["replayed"]), (&true.into(), &5.into()));
    assert_eq!(again["session"], welcome["session"]);
    assert_ne!(again["resume"], welcome["resume"], "rotated");
    for n in 0..5 {
        assert_eq!(ann.next().await["d"], n);
    }
    assert_eq!(bob.until("member-back").await["d"]["member"], ann_id);

    let (_, stolen) = {
        let hello = r#"{"t":"hello","d":{"resume":"0000000000000001.guess","last_seq":0}}"#;
        server.native("/v1/ws", hello).await
    };
    assert_eq!(stolen["resumed"], false, "a guess becomes a fresh session");
}

#[tokio::test]
async fn credentials_come_with_the_welcome_and_again_at_half_of_their_life() {
    let server = Server::start(Settings { ttl: Duration::from_secs(2), ..open() }).await;
    let (mut client, welcome) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    let session = welcome["session"].as_str().expect("session");
    let username = welcome["ice_servers"][1]["username"].as_str().expect("relay credentials");
    assert!(username.ends_with(session), "{username} is of the session {session}");
    let pushed = client.until("ice").await;
    assert!(pushed.get("ref").is_none());
    assert_eq!(pushed["d"]["ttl"], 2);
    assert_ne!(pushed["d"]["ice_servers"][1]["username"], username, "a later expiry");
    client.send(r#"{"t":"ice","id":"7"}"#).await;
    loop {
        let ice = client.until("ice").await;
        if ice["ref"] == "7" {
            assert_eq!(ice["d"]["ice_servers"][0]["urls"][0], "stun:127.0.0.1:3478");
            break;
        }
    }
}

#[tokio::test]
async fn native_and_seed_000_call_each_other() {
    let server = Server::start(open()).await;
    let mut page = server.ws("/ws/signaling/r").await;
    page.send(OFFER).await;
    page.send(CANDIDATE).await;
    let (mut native, _) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    let joined = native.join("r").await;
    let peer = joined["members"][0]["id"].as_str().expect("member").to_owned();
    assert_eq!(joined["members"][0]["polite"], false, "the page takes any offer at any time");
    let offer = native.until("offer").await;
    assert_eq!((&offer["from"], &offer["d"]["sdp"]), (&peer.as_str().into(), &"v=0\r\n".into()));
    assert_eq!(native.next().await["t"], "candidate");
    native.send(&format!(r#"{{"t":"answer","to":"{peer}","d":{{"type":"answer","sdp":"v=0\r\n"}}}}"#)).await;
    native.send(&format!(r#"{{"t":"candidate","to":"{peer}","d":null}}"#)).await;
    native.send(r#"{"t":"candidate","d":{"candidate":"candidate:1","sdpMid":"0"}}"#).await;
    assert_eq!(page.text().await, r#"{"type":"answer","answer":{"type":"answer","sdp":"v=0\r\n"}}"#);
    assert_eq!(
        page.text().await,
        r#"{"type":"ice-candidate","candidate":{"candidate":"candidate:1","sdpMid":"0"}}"#,
        "the null before it would break the page"
    );
}

#[tokio::test]
async fn a_stop_tells_every_socket_to_come_back_later() {
    let server = Server::start(open()).await;
    let (mut native, _) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    let mut raw = server.ws("/ws/signaling/r").await;
    let app = server.app.clone();
    let stop = tokio::spawn(async move { app.shutdown().await });
    assert_eq!(native.close_code().await, Some(4450));
    assert_eq!(raw.close_code().await, Some(4450));
    stop.await.expect("stopped");
    assert_eq!(server.ws("/ws/signaling/r").await.close_code().await, Some(4450));
}

#[tokio::test]
async fn new_settings_hold_for_the_next_socket() {
    let server = Server::start(open()).await;
    let mut first = server.ws("/ws/signaling/r").await;
    server.app.reconfigure(Settings { access: Access::Token, jwt: Some(JwtKey::hs256(SECRET)), ..open() });
    assert_eq!(server.ws("/ws/signaling/r").await.close_code().await, Some(4401));
    let mut second = server.ws(&format!("/ws/signaling/r?token={}", jwt("ann", None))).await;
    second.send(ANSWER).await;
    assert_eq!(first.text().await, ANSWER, "open sockets stay");
}

#[tokio::test]
async fn sockets_of_one_address_are_bounded() {
    let limits = Limits { sockets_per_ip: 2, ..Limits::default() };
    let server = Server::start(Settings { limits, ..open() }).await;
    let _a = server.ws("/ws/signaling/r").await;
    let _b = server.ws("/v1/ws").await;
    let (code, reason, _) = server.ws("/ws/signaling/r").await.end().await;
    assert_eq!(code, Some(4429));
    assert!(reason.contains("too many sockets"), "{reason}");
}

#[tokio::test]
async fn a_browser_is_told_from_another_one_behind_the_same_address_by_its_cookie() {
    let server = Server::start(open()).await;
    let origin = format!("http://{}", server.address);
    let first = server.ws_with("/ws/signaling/r", &[("origin", &origin)]).await;
    let cookie = first.response.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("Path=/ws/"), "{cookie}");
    let value = cookie.split(';').next().expect("pair");
    let mut first = first;
    first.send(OFFER).await;
    drop(first);
    let headers =
        [("origin", origin.as_str()), ("cookie", value), ("user-agent", "after a change of network")];
    let mut again = server.ws_with("/ws/signaling/r", &headers).await;
    let mut other = server.ws_with("/ws/signaling/r", &[("origin", &origin)]).await;
    assert_eq!(other.text().await, OFFER);
    other.send(ANSWER).await;
    assert_eq!(again.text().await, ANSWER, "its own offer did not come back");
}
