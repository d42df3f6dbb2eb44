//! The HTTP endpoints: shapes, who may, how often.

use std::time::Duration;

use turnkey::http::token::{Claims, mint};
use turnkey::http::{Access, Settings};

use crate::server::{SECRET, Server, guarded, jwt, open, unix};

#[tokio::test]
async fn s0_13_s1_10_s3_14_s3_15_v1_ice_returns_what_rtcpeerconnection_takes() {
    let server = Server::start(open()).await;
    let answer = server.get("/v1/ice", &[]).await;
    assert_eq!(answer.status, 200, "the person at this machine needs no token: {}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let ice = answer.json();
    assert_eq!(ice["iceServers"][0]["urls"][0], "stun:127.0.0.1:3478");
    let relay = &ice["iceServers"][1];
    let urls: Vec<&str> = relay["urls"].as_array().expect("urls").iter().filter_map(|u| u.as_str()).collect();
    assert_eq!(urls.len(), 3);
    assert!(
        !urls.iter().any(|u| u.starts_with("turns:") && u.ends_with("udp")),
        "browsers have no DTLS transport"
    );
    assert!(relay["credential"].is_string());
    let expiry: u64 =
        relay["username"].as_str().and_then(|u| u.split(':').next()).expect("user").parse().expect("expiry");
    assert_eq!(ice["expires_at"], expiry);
    assert_eq!(ice["ttl"], 3600);
    assert!(expiry.abs_diff(unix() + 3600) < 60);
}

#[tokio::test]
async fn v1_ice_takes_a_token_an_api_key_or_a_room_token() {
    let server = Server::start(guarded()).await;
    let bearer = |token: &str| format!("Bearer {token}");
    let user = |answer: crate::server::Answer| {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let username = answer.json()["iceServers"][1]["username"].as_str().expect("username").to_owned();
        username.split_once(':').expect("expiry:id").1.to_owned()
    };
    assert_eq!(user(server.get("/v1/ice", &[("authorization", &bearer(&jwt("ann", None)))]).await), "ann");
    assert_eq!(user(server.get(&format!("/v1/ice?token={}", jwt("bob", Some("r"))), &[]).await), "bob");
    assert_eq!(user(server.get("/v1/ice?user=carl", &[("x-api-key", "api-key")]).await), "carl");
    assert_eq!(user(server.get("/v1/ice", &[("authorization", "Bearer api-key")]).await), "api");
    let odd =
        user(server.get("/v1/ice", &[("authorization", &bearer(&jwt("@dora:example.org", None)))]).await);
    assert_eq!(odd, "@dora%3Aexample.org.", "a colon would end the expiry, a last dot the user");
}

#[tokio::test]
async fn v1_ice_refuses_with_a_reason() {
    let server = Server::start(Settings { ice_per_minute: 1000, ..guarded() }).await;
    let expired =
        mint(SECRET, Claims { sub: "e".into(), ..Claims::default() }, unix() - 7200, Duration::from_secs(60));
    let expired = format!("Bearer {}", expired.expect("token"));
    type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'a str);
    let cases: [Case<'_>; 4] = [
        (&[], 401, "unauthenticated"),
        (&[("authorization", &expired)], 401, "unauthenticated"),
        (&[("x-api-key", "wrong")], 401, "unauthenticated"),
        (&[("origin", "https://evil.example")], 403, "forbidden_origin"),
    ];
    for (headers, status, code) in cases {
        let answer = server.get("/v1/ice", headers).await;
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(answer.json()["error"]["code"], code);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for wrong in ["0", "", "x", "-1", "%2B5", "1.5"] {
        let answer = server.get(&format!("/v1/ice?ttl={wrong}"), &[("x-api-key", "api-key")]).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &"bad_request".into()),
            "{wrong:?}"
        );
    }
    for long in ["999999999", "99999999999999999999999"] {
        let day = server.get(&format!("/v1/ice?ttl={long}"), &[("x-api-key", "api-key")]).await;
        assert_eq!(day.json()["ttl"], 24 * 3600, "never beyond max_ttl");
    }
}

#[tokio::test]
async fn open_access_gives_nothing_to_other_machines_and_says_what_to_set() {
    let server = Server::start(Settings { ice_per_minute: 1000, ..open() }).await;
    let cases: [&[(&str, &str)]; 5] = [
        &[("host", "rebound.example")],
        &[("x-forwarded-for", "203.0.113.7")],
        &[("x-forwarded-proto", "https")],
        &[("forwarded", "for=203.0.113.7")],
        &[("via", "1.1 proxy")],
    ];
    for headers in cases {
        let answer = server.get("/v1/ice", headers).await;
        assert_eq!(answer.status, 403, "{headers:?}");
        assert!(answer.body.contains("signaling.jwt_secret"), "{}", answer.body);
    }
    assert_eq!(server.get("/v1/ice", &[("host", "localhost:8080")]).await.status, 200);
}

#[tokio::test]
async fn allow_anonymous_gives_credentials_counted_by_address() {
    let server = Server::start(Settings { allow_anonymous: true, ..guarded() }).await;
    let answer = server.get("/v1/ice", &[("host", "turn.example.org")]).await;
    let username = answer.json()["iceServers"][1]["username"].as_str().expect("username").to_owned();
    assert!(username.ends_with(":guest-127-0-0-1"), "{username}");
}

#[tokio::test]
async fn credentials_are_rate_limited_but_not_for_a_back_end() {
    let server =
        Server::start(Settings { ice_per_minute: 3, api_keys: vec!["api-key".into()], ..open() }).await;
    for _ in 0..3 {
        assert_eq!(server.get("/v1/ice", &[]).await.status, 200);
    }
    let answer = server.get("/v1/ice", &[]).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["error"]["code"], "rate_limited");
    let wait: u64 = answer.header("retry-after").expect("retry-after").parse().expect("seconds");
    assert!((1..=20).contains(&wait));
    for path in ["/turn?service=turn&key=wrong", "/_matrix/client/v3/voip/turnServer?token=wrong"] {
        assert_eq!(server.get(path, &[]).await.status, 429, "guessing keys counts: {path}");
    }
    assert_eq!(server.get("/v1/ice", &[("x-api-key", "api-key")]).await.status, 200);
}

#[tokio::test]
async fn the_draft_shape() {
    let server = Server::start(guarded()).await;
    for key in ["key", "api"] {
        let answer = server.get(&format!("/turn?service=turn&username=j%C3%B6rg&{key}=api-key"), &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let turn = answer.json();
        assert!(turn["username"].as_str().expect("username").ends_with(":jörg"));
        assert!(turn["password"].is_string() && turn["ttl"] == 3600);
        assert_eq!(turn["uris"][0], "turn:127.0.0.1:3478?transport=udp");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(server.get("/turn?service=turn&key=api-ke", &[]).await.status, 401);
    assert_eq!(server.get("/turn?service=turn", &[]).await.status, 401);
    assert_eq!(server.get("/turn?key=api-key", &[]).await.status, 400);
}

#[tokio::test]
async fn the_matrix_shape() {
    let server = Server::start(guarded()).await;
    let path = "/_matrix/client/v3/voip/turnServer";
    let missing = server.get(path, &[]).await;
    assert_eq!((missing.status, &missing.json()["errcode"]), (401, &"M_MISSING_TOKEN".into()));
    let unknown = server.get(path, &[("authorization", "Bearer nonsense")]).await;
    assert_eq!((unknown.status, &unknown.json()["errcode"]), (401, &"M_UNKNOWN_TOKEN".into()));
    for token in [jwt("ann", None), "api-key".to_owned()] {
        let answer = server.get(path, &[("authorization", &format!("Bearer {token}"))]).await;
        let turn = answer.json();
        assert_eq!(answer.status, 200);
        assert!(turn["username"].is_string() && turn["password"].is_string() && turn["uris"].is_array());
        assert_eq!(turn["ttl"], 3600);
    }
}

#[tokio::test]
async fn cors_is_answered_for_listed_origins_only() {
    let server = Server::start(Settings { origins: vec!["http://localhost:5173".into()], ..open() }).await;
    let preflight = |origin: &'static str| {
        [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "authorization"),
        ]
    };
    let answer = server.request("OPTIONS", "/v1/ice", &preflight("http://localhost:5173")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:5173"));
    assert!(answer.header("access-control-allow-headers").is_some_and(|h| h.contains("authorization")));
    let answer = server.request("OPTIONS", "/v1/ice", &preflight("http://localhost:5174")).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let answer = server.get("/v1/ice", &[("origin", "http://localhost:5173")]).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("http://localhost:5173"))
    );
}

#[tokio::test]
async fn the_clients_address_is_believed_from_trusted_proxies_only() {
    let proxied = Settings {
        access: Access::Token,
        allow_anonymous: true,
        trusted_proxies: vec![
            ("127.0.0.0".parse().expect("address"), 8),
            ("10.0.0.0".parse().expect("address"), 8),
        ],
        ..guarded()
    };
    let user = |answer: crate::server::Answer| {
        answer.json()["iceServers"][1]["username"].as_str().expect("user").to_owned()
    };
    let chain = [("x-forwarded-for", "1.2.3.4, 203.0.113.9, 10.1.2.3")];
    let server = Server::start(proxied.clone()).await;
    assert!(
        user(server.get("/v1/ice", &chain).await).ends_with("guest-203-0-113-9"),
        "the rightmost untrusted hop"
    );
    let server = Server::start(Settings { trusted_proxies: Vec::new(), ..proxied }).await;
    assert!(user(server.get("/v1/ice", &chain).await).ends_with("guest-127-0-0-1"));
}

#[tokio::test]
async fn s4_02_health_and_pages() {
    let server = Server::start(open()).await;
    assert_eq!(server.get("/health", &[]).await.json()["status"], "ok");
    for path in ["/v1/ws", "/ws/signaling/r"] {
        let answer = server.get(path, &[]).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (426, &"upgrade_required".into()));
    }
    let page = server.get("/", &[]).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").is_some_and(|p| p.contains("script-src 'self'")));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let module = server.get("/turnkey.js", &[]).await;
    assert_eq!((module.status, module.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    let tag = module.header("etag").expect("etag").to_owned();
    assert_eq!(server.get("/turnkey.js", &[("if-none-match", &tag)]).await.status, 304);
    assert_eq!(server.get("/turnkey.d.ts", &[]).await.status, 200);
    for path in ["/nothing", "/../Cargo.toml", "/.keep", "/package.json", "/v1/nothing"] {
        assert_eq!(server.get(path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(server.request("POST", "/", &[("content-length", "0")]).await.status, 405);
}

#[tokio::test]
async fn open_access_is_for_this_machine_even_where_somebody_else_mounts_the_router() {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").expect("port");
    let route = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr());
    let Ok(outside) = route.map(|address| address.ip()).map_err(|_| ()) else { return };
    let server = Server::start_on("0.0.0.0:0", open()).await;
    let address = std::net::SocketAddr::new(outside, server.address.port());
    let server = Server { address, ..server };
    // The address a neighbour would use, with the Host header of somebody who lies.
    let answer = server.get("/v1/ice", &[("host", "localhost")]).await;
    assert_eq!(answer.status, 403, "{}", answer.body);
}
