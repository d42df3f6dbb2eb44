//! REST of calls (seed 003): a call is made, accepted, refused and ended here; its signaling happens
//! on `/ws/webrtc/{call_id}`. Errors are problem details (RFC 9457).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::access::Question;
use super::app::{App, unix};
use super::ice;
use crate::signal::{Call, CallAction, Code, Identity, Refusal};

/// Requests a minute of one client: one a second for its polling, and as many again.
const PER_MINUTE: u32 = 120;

/// Bytes of a request's body.
pub(super) const MAX_BODY: usize = 16 * 1024;

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
    let Ok(body) = body else {
        let detail = format!("a body has at most {MAX_BODY} bytes");
        return details(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge.as_str(), &detail);
    };
    let initiate = match serde_json::from_slice::<Initiate>(&body) {
        Ok(initiate) => initiate,
        Err(error) => {
            let detail = format!("the body is {{\"callee_id\":…, \"media\":…}}: {error}");
            return details(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", &detail);
        }
    };
    let action = CallAction::Initiate { callee: initiate.callee_id.into(), media: initiate.media };
    match ask(&app, &who, action).await {
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
    answer["ice_servers"] = ice::for_user(app, &question.settings, who);
    answer
}

/// Asks the hub, for somebody with a token.
async fn act(
    app: &App,
    question: &Question,
    action: CallAction,
) -> Result<(Identity, Vec<Call>), Box<Response>> {
    let who = user(app, question)?;
    ask(app, &who, action).await.map(|calls| (who, calls))
}

/// The user whose token came with the request. Every request counts, so that nobody tries tokens.
fn user(app: &App, question: &Question) -> Result<Identity, Box<Response>> {
    let (settings, asker) = (&question.settings, question.asker());
    if let Err(wait) = app.take_request(asker.ip(settings), PER_MINUTE) {
        return Err(Box::new(refused(&Refusal::later(Code::RateLimited, "too many requests", wait))));
    }
    asker.user(settings, unix()).map_err(|denied| {
        let (code, detail) = denied.words();
        let status =
            if denied.is_authentication() { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        Box::new(details(status, code, &detail))
    })
}

async fn ask(app: &App, who: &Identity, action: CallAction) -> Result<Vec<Call>, Box<Response>> {
    let stopping = || Refusal::later(Code::Busy, "the server is stopping", Duration::from_secs(1));
    let answer = app.call(who.clone(), action).await.unwrap_or_else(|| Err(stopping()));
    answer.map_err(|refusal| Box::new(refused(&refusal)))
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.code {
        Code::BadFrame | Code::UnknownType | Code::TooDeep => StatusCode::UNPROCESSABLE_ENTITY,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NoSuchCall | Code::NoSuchMember => StatusCode::NOT_FOUND,
        Code::WrongState | Code::NotJoined => StatusCode::CONFLICT,
        Code::Busy | Code::RoomFull | Code::MailboxFull => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = details(status, refusal.code.as_str(), &refusal.message);
    if let Some(seconds) = refusal.retry_seconds() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Problem details (RFC 9457), with our stable word as `code`.
fn details(status: StatusCode, code: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "code": code,
    });
    let mut response = (status, ice::private(Json(body))).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
