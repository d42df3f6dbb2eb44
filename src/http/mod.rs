//! HTTP: ICE servers, signaling sockets, the call page.
//!
//! Owns who may ask, what an answer looks like, and the sockets of [`crate::signal::Hub`]. It never
//! touches the relay: what it hands out are credentials the relay verifies on its own. Listeners
//! and TLS belong to `app`. Query strings carry tokens and are never logged.

mod access;
mod app;
mod calls;
mod exchange;
mod ice;
mod journal;
pub mod jwks;
mod outgoing;
mod pages;
mod rest;
mod sessions;
mod settings;
mod socketio;
pub mod token;
mod ws;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_http::cors::{AllowOrigin, CorsLayer};

pub use app::{App, Lookup, News, Outside, Revoke};
pub use journal::{Batch, Journal, Progress};
pub use settings::{Access, IceServer, Settings};

/// All paths of the public listener. Serve it with `into_make_service_with_connect_info` of
/// [`std::net::SocketAddr`].
pub fn router(app: Arc<App>) -> Router {
    let (doors, owner) = (socketio::doors(&app), app.clone());
    let socketio = move |request: Request| socketio::serve(owner, doors, request);
    let api = Router::new()
        .route("/health", get(health))
        .route("/openapi.json", get(openapi))
        .route("/{key}/id", get(peer_id))
        .route("/v1/ice", get(ice::ice))
        .route("/turn", get(ice::draft))
        .route("/_matrix/client/v3/voip/turnServer", get(ice::matrix))
        .route("/calls/initiate", post(calls::initiate))
        .route("/calls/accept/{call_id}", post(calls::accept))
        .route("/calls/reject/{call_id}", post(calls::reject))
        .route("/calls/end/{call_id}", post(calls::end))
        .route("/calls/active", get(calls::active))
        .route("/calls/{call_id}", get(calls::view))
        .route("/v1/calls/{call_id}/timeline", get(calls::timeline))
        .route("/api/video/sessions", post(sessions::create))
        .route("/api/video/sessions/{session_id}", get(sessions::view).delete(sessions::delete))
        .route("/api/video/sessions/{session_id}/join", post(sessions::join))
        .route("/api/video/sessions/{session_id}/end", post(sessions::end))
        .route("/ws/webrtc/connection-state/{call_id}", get(calls::connection_state))
        .route("/ws/webrtc/active-connections", get(calls::active_connections))
        .route("/socket.io/", any(socketio.clone()))
        .route("/socket.io/{*rest}", any(socketio))
        .layer(DefaultBodyLimit::max(rest::MAX_BODY))
        .layer(cors(app.clone()));
    Router::new()
        .route("/v1/ws", get(ws::native))
        .route("/ws/signaling/{room}", get(ws::broadcast))
        .route("/ws/webrtc/{call_id}", get(ws::call))
        .route("/peerjs", get(ws::peerjs))
        .merge(api)
        .fallback(pages::page)
        .with_state(app)
}

/// `GET /health`: the process answers.
async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /{key}/id`: an id for a PeerJS client that has none.
async fn peer_id(State(app): State<Arc<App>>) -> String {
    app.random_name()
}

/// `GET /openapi.json`: the REST endpoints, for programs.
async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

/// Pages of other origins may ask if the settings list them.
fn cors(app: Arc<App>) -> CorsLayer {
    let may = move |origin: &HeaderValue, parts: &Parts| {
        let host = parts.headers.get(HOST).and_then(|h| h.to_str().ok());
        origin.to_str().is_ok_and(|origin| access::is_origin_allowed(&app.settings(), origin, host))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(may))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("x-api-key")])
        .expose_headers([RETRY_AFTER])
        .max_age(Duration::from_secs(600))
}
