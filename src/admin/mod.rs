//! The admin listener: liveness, readiness, metrics. Never part of the public router.
//!
//! Owns the routes and the Prometheus page. Knows the counters of the other modules, not what they count for.

mod metrics;
mod page;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

pub use metrics::Snapshot;

/// What the admin listener asks a running server.
pub trait Observe: Send + Sync + 'static {
    /// All counters, now.
    fn snapshot(&self) -> Snapshot;
    /// Whether every part still moves; if not, which does not.
    ///
    /// # Errors
    /// What stands still, in words.
    fn is_live(&self) -> Result<(), String>;
    /// Whether new clients are taken; if not, why.
    ///
    /// # Errors
    /// Why not, in words.
    fn is_ready(&self) -> Result<(), String>;
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn router(server: Arc<dyn Observe>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(server)
}

async fn livez(State(server): State<Arc<dyn Observe>>) -> impl IntoResponse {
    answer(server.is_live())
}

async fn readyz(State(server): State<Arc<dyn Observe>>) -> impl IntoResponse {
    answer(server.is_live().and_then(|()| server.is_ready()))
}

fn answer(state: Result<(), String>) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

async fn metrics(State(server): State<Arc<dyn Observe>>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    // A busy worker answers late.
    match tokio::task::spawn_blocking(move || server.snapshot()).await {
        Ok(snapshot) => (kind, metrics::render(&snapshot)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
