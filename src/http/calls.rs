//! REST of calls (seed 003): a call is made, accepted, refused and ended here; its signaling happens
//! on `/ws/webrtc/{call_id}`. Errors are problem details (RFC 9457).

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::access::Question;
use super::app::App;
use super::rest::{answered, user};
use super::{ice, rest};
use crate::signal::{Call, CallAction, Code, Identity, Refusal};

/// Body of `POST /calls/initiate`.
#[derive(Deserialize)]
struct Initiate {
    #[serde(alias = "user_id", alias = "calleeId", alias = "userId")]
    callee_id: String,
    #[serde(default)]
    media: Option<Box<RawValue>>,
}

/// `POST /calls/initiate`.
pub(super) async fn initiate(
    question: Question,
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let who = match user(&app, &question) {
        Ok(who) => who,
        Err(response) => return *response,
    };
    let initiate: Initiate = match rest::read(body, r#"{"callee_id":…, "media":…}"#) {
        Ok(initiate) => initiate,
        Err(response) => return *response,
    };
    let action = CallAction::Initiate { callee: initiate.callee_id.into(), media: initiate.media };
    match answered(app.call(who.clone(), action).await) {
        Ok(calls) => (StatusCode::CREATED, Json(with_ice(&app, &question, &who, &calls))).into_response(),
        Err(response) => *response,
    }
}

/// `POST /calls/accept/{call_id}`.
pub(super) async fn accept(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    match act(&app, &question, CallAction::Accept(id.into())).await {
        Ok((who, calls)) => Json(with_ice(&app, &question, &who, &calls)).into_response(),
        Err(response) => *response,
    }
}

/// `POST /calls/reject/{call_id}`.
pub(super) async fn reject(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    one(act(&app, &question, CallAction::Reject(id.into())).await)
}

/// `POST /calls/end/{call_id}`.
pub(super) async fn end(question: Question, State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    one(act(&app, &question, CallAction::End(id.into())).await)
}

/// `GET /calls/{call_id}`.
pub(super) async fn view(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    one(act(&app, &question, CallAction::View(id.into())).await)
}

/// `GET /calls/active`: the youngest call of the user that is not over, and all of them.
pub(super) async fn active(question: Question, State(app): State<Arc<App>>) -> Response {
    match act(&app, &question, CallAction::Active).await {
        Ok((_, calls)) => {
            let mut youngest = calls.last().map_or_else(|| json!({ "call_id": null }), |call| json!(call));
            youngest["calls"] = json!(calls);
            Json(youngest).into_response()
        }
        Err(response) => *response,
    }
}

/// `GET /ws/webrtc/connection-state/{call_id}`: for the call's parties, and for admins.
pub(super) async fn connection_state(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    match act(&app, &question, CallAction::View(id.into())).await {
        Ok((_, calls)) => Json(calls.first().map_or(Value::Null, state_of)).into_response(),
        Err(response) => *response,
    }
}

/// `GET /ws/webrtc/active-connections`: for admins.
pub(super) async fn active_connections(question: Question, State(app): State<Arc<App>>) -> Response {
    match act(&app, &question, CallAction::Overview).await {
        Ok((_, calls)) => {
            let connections: serde_json::Map<String, Value> =
                calls.iter().map(|call| (call.id.to_string(), state_of(call))).collect();
            Json(json!({ "total_calls": calls.len(), "connections": connections })).into_response()
        }
        Err(response) => *response,
    }
}

/// `GET /v1/calls/{call_id}/timeline`: what happened in it, and in words what became of it.
pub(super) async fn timeline(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    let who = match user(&app, &question) {
        Ok(who) => who,
        Err(response) => return *response,
    };
    match app.timeline(who.clone(), id.clone()).await {
        // Not here, or not any more.
        Some(Err(Refusal { code: Code::NoSuchCall, .. })) => {
            private(Some(app.past_timeline(&who, &id).await))
        }
        found => private(found),
    }
}

fn private<T: Serialize>(found: Option<Result<T, Refusal>>) -> Response {
    match answered(found) {
        Ok(found) => ice::private(Json(found)),
        Err(response) => *response,
    }
}

fn state_of(call: &Call) -> Value {
    let call = json!(call);
    let fields =
        ["call_id", "status", "connection_state", "ice_candidates_count", "created_at", "updated_at"];
    fields.into_iter().map(|field| (field.to_owned(), call[field].clone())).collect()
}

fn one(result: Result<(Identity, Vec<Call>), Box<Response>>) -> Response {
    match result {
        Ok((_, calls)) => Json(json!(calls.first())).into_response(),
        Err(response) => *response,
    }
}

/// The call with what its caller needs next: where its socket is, and ICE servers.
fn with_ice(app: &App, question: &Question, who: &Identity, calls: &[Call]) -> Value {
    let Some(call) = calls.first() else { return Value::Null };
    let mut answer = json!(call);
    answer["ws_url"] = json!(question.asker().ws_url(&question.settings, &format!("/ws/webrtc/{}", call.id)));
    answer["ice_servers"] = ice::for_call(app, &question.settings, who, &call.id);
    answer
}

/// Asks the hub, for somebody with a token.
async fn act(
    app: &App,
    question: &Question,
    action: CallAction,
) -> Result<(Identity, Vec<Call>), Box<Response>> {
    let who = user(app, question)?;
    let calls = answered(app.call(who.clone(), action).await)?;
    Ok((who, calls))
}
