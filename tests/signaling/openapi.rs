//! The document of the REST endpoints and the router say the same.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::server::{Server, guarded};

const ROUTER: &str = include_str!("../../src/http/mod.rs");

/// Sockets, which OpenAPI has no words for, and what only clients of one need.
const SOCKETS: [&str; 5] = ["/v1/ws", "/ws/signaling/{room}", "/ws/webrtc/{call_id}", "/peerjs", "/{key}/id"];

/// `GET /path` of every route with methods.
fn routes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for route in ROUTER.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once('"').expect("a path");
        let handlers = rest.lines().next().expect("handlers");
        for method in ["get", "post", "delete", "put", "patch"] {
            if handlers.contains(&format!("{method}(")) && !SOCKETS.contains(&path) {
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

#[tokio::test]
async fn s4_30_openapi_json_names_every_route_and_no_other() {
    let server = Server::start(guarded()).await;
    let answer = server.get("/openapi.json", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    let mut named = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys().filter(|key| *key != "parameters") {
            named.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    assert!(named.len() > 15);
    assert_eq!(named, routes());
}

/// Every `$ref` of the document.
fn references<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|one| references(one, into));
        }
        Value::Array(items) => items.iter().for_each(|one| references(one, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn openapi_json_refers_to_what_it_has() {
    let document = Server::start(guarded()).await.get("/openapi.json", &[]).await.json();
    let mut all = Vec::new();
    references(&document, &mut all);
    assert!(all.len() > 50);
    for reference in all {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}
