//! ICE servers over HTTP: our own shape, the draft REST shape and Matrix's.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::access::{self, Asker, Denied, Question, guest_name, relay_id};
use super::app::{App, unix};
use super::settings::{IceServer, Settings};
use crate::credential::{Credential, mint};
use crate::signal::{Ice, Identity};

/// The user of somebody at this machine; each session counts on its own.
const LOCAL_GUEST: &str = "guest";

/// ICE servers for a signaling session, with credentials of the id `user.session`.
pub(super) fn for_session(
    settings: &Settings,
    now_unix: u64,
    lease: &str,
    user: &Arc<str>,
    may_relay: bool,
) -> Ice {
    let id = scoped_id(user, lease);
    let credential = if may_relay { mint(&settings.secrets, now_unix, settings.ttl, &id).ok() } else { None };
    let servers = serde_json::value::to_raw_value(&servers(settings, credential.as_ref()))
        .unwrap_or_else(|_| RawValue::NULL.to_owned());
    let expires_at = credential.map_or(now_unix + settings.ttl.as_secs(), |c| c.expires_at);
    Ice { servers, ttl: settings.ttl, expires_at }
}

/// The id of credentials that were made for a session or a call.
pub(super) fn scoped_id(user: &Arc<str>, scope: &str) -> String {
    if &**user == LOCAL_GUEST { relay_id(&guest_name(user, scope), scope) } else { relay_id(user, scope) }
}

/// An array of `RTCIceServer`. `turns:` over UDP is left out: browsers have no DTLS transport.
fn servers(settings: &Settings, credential: Option<&Credential>) -> Value {
    let urls = |wanted: fn(&str) -> bool| -> Vec<&str> {
        settings.ice_urls.iter().map(String::as_str).filter(|url| wanted(url)).collect()
    };
    let mut servers = Vec::new();
    let stun = urls(|url| url.starts_with("stun"));
    if !stun.is_empty() {
        servers.push(json!({ "urls": stun }));
    }
    let turn = urls(is_browser_turn);
    if let (false, Some(credential)) = (turn.is_empty(), credential) {
        servers.push(json!({
            "urls": turn, "username": credential.username, "credential": credential.password,
        }));
    }
    let is_due = |server: &&IceServer| server.credential.is_none() || credential.is_some();
    servers.extend(settings.further_ice.iter().filter(is_due).map(|server| json!(server)));
    Value::Array(servers)
}

fn is_browser_turn(url: &str) -> bool {
    url.starts_with("turn") && !(url.starts_with("turns:") && url.ends_with("transport=udp"))
}

/// `GET /v1/ice`.
pub(super) async fn ice(question: Question, State(app): State<Arc<App>>) -> Response {
    let (settings, asker, query) = (&question.settings, question.asker(), &question.query);
    let identity = match who(&app, settings, &asker) {
        Ok(identity) => identity,
        Err(response) => return *response,
    };
    let ttl = match query.given("ttl").map(seconds) {
        None => settings.ttl,
        Some(Some(seconds @ 1..)) => Duration::from_secs(seconds).min(settings.max_ttl),
        Some(Some(0) | None) => return bad_request("ttl must be a number of seconds, at least 1"),
    };
    match credential(&app, settings, &identity, ttl, None) {
        Ok(credential) => private(Json(json!({
            "iceServers": servers(settings, Some(&credential)),
            "ttl": ttl.as_secs(),
            "expires_at": credential.expires_at,
        }))),
        Err(response) => *response,
    }
}

/// A number of seconds in digits; one that is larger than any is the largest.
fn seconds(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Who asks. Clients are counted, wrong API keys too; a back end with a right one asks for many.
fn who(app: &App, settings: &Settings, asker: &Asker<'_>) -> Result<Identity, Box<Response>> {
    let back_end = asker.api_key(settings);
    if let Some(Ok(identity)) = back_end {
        return Ok(identity);
    }
    app.take_ice(asker.ip(settings), settings.ice_per_minute).map_err(|wait| Box::new(too_many(wait)))?;
    let denied = match back_end {
        Some(Err(denied)) => denied,
        Some(Ok(_)) | None => match asker.credentials(settings, unix()) {
            Ok(identity) => return Ok(identity),
            Err(denied) => denied,
        },
    };
    Err(Box::new(refused(&denied)))
}

/// `GET /turn?service=turn&username=…&key=…` (draft-uberti-behave-turn-rest-00).
pub(super) async fn draft(question: Question, State(app): State<Arc<App>>) -> Response {
    let (settings, asker, query) = (&question.settings, question.asker(), &question.query);
    if query.find("service") != Some("turn") {
        return bad_request("service must be turn");
    }
    // Janus calls the key `api`.
    let key = query.find("key").or_else(|| query.find("api"));
    let known = key.ok_or(Denied::NoToken).and_then(|key| asker.back_end(settings, key));
    let identity = match known {
        Ok(identity) => identity,
        // A right key asks for many users; wrong ones are counted, so that nobody tries them all.
        Err(denied) => {
            return match app.take_ice(asker.ip(settings), settings.ice_per_minute) {
                Ok(()) => refused(&denied),
                Err(wait) => too_many(wait),
            };
        }
    };
    match credential(&app, settings, &identity, settings.ttl, None) {
        Ok(credential) => private(Json(flat(settings, &credential))),
        Err(response) => *response,
    }
}

/// `GET /_matrix/client/v3/voip/turnServer` (Matrix client-server API).
pub(super) async fn matrix(question: Question, State(app): State<Arc<App>>) -> Response {
    let (settings, asker) = (&question.settings, question.asker());
    let Some(token) = asker.token() else {
        return matrix_refused("M_MISSING_TOKEN", "a token is needed in Authorization: Bearer");
    };
    let known = match asker.back_end(settings, token) {
        Ok(identity) => Ok(identity),
        Err(_) => match app.take_ice(asker.ip(settings), settings.ice_per_minute) {
            Ok(()) => access::check(settings, token, unix()).and_then(access::no_ticket),
            Err(wait) => return matrix_too_many(wait),
        },
    };
    let Ok(identity) = known else {
        return matrix_refused("M_UNKNOWN_TOKEN", "the token is not valid here");
    };
    match credential(&app, settings, &identity, settings.ttl, None) {
        Ok(credential) => private(Json(flat(settings, &credential))),
        Err(response) => *response,
    }
}

fn credential(
    app: &App,
    settings: &Settings,
    identity: &Identity,
    ttl: Duration,
    scope: Option<&str>,
) -> Result<Credential, Box<Response>> {
    let id = match scope {
        Some(scope) => scoped_id(&identity.user, scope),
        None if &*identity.user == LOCAL_GUEST => {
            relay_id(&guest_name(&identity.user, &app.random_name()), "")
        }
        None => relay_id(&identity.user, ""),
    };
    mint(&settings.secrets, unix(), ttl, &id).map_err(|_| {
        let message = "relay credentials cannot be made: the user name is too long, or there is no secret";
        Box::new(problem(StatusCode::INTERNAL_SERVER_ERROR, "no_credentials", message))
    })
}

/// An array of `RTCIceServer` for a user in a call or a session, with whose end they are taken back; without relays where
/// credentials cannot be made.
pub(super) fn for_call(app: &App, settings: &Settings, who: &Identity, call: &str) -> Value {
    servers(settings, credential(app, settings, who, settings.ttl, Some(call)).ok().as_ref())
}

/// The shape the draft and Matrix share.
fn flat(settings: &Settings, credential: &Credential) -> Value {
    let uris: Vec<&str> =
        settings.ice_urls.iter().map(String::as_str).filter(|u| is_browser_turn(u)).collect();
    json!({
        "username": credential.username,
        "password": credential.password,
        "ttl": settings.ttl.as_secs(),
        "uris": uris,
    })
}

/// No cache may keep credentials.
pub(super) fn private(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `{"error":{"code","message"}}`.
pub(super) fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    (status, private(Json(json!({ "error": { "code": code, "message": message } })))).into_response()
}

fn bad_request(message: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_request", message)
}

fn refused(denied: &Denied) -> Response {
    let (code, message) = denied.words();
    if !denied.is_authentication() {
        return problem(StatusCode::FORBIDDEN, code, &message);
    }
    let mut response = problem(StatusCode::UNAUTHORIZED, code, &message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn matrix_refused(code: &str, message: &str) -> Response {
    (StatusCode::UNAUTHORIZED, private(Json(json!({ "errcode": code, "error": message })))).into_response()
}

fn matrix_too_many(wait: Duration) -> Response {
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let body =
        json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "too many requests", "retry_after_ms": millis });
    (StatusCode::TOO_MANY_REQUESTS, private(Json(body))).into_response()
}

fn too_many(wait: Duration) -> Response {
    let mut response =
        problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests for credentials");
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}
