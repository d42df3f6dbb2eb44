//! What the REST endpoints share: who asks and how often, bodies, and errors as problem details
//! (RFC 9457).

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::access::Question;
use super::app::{App, unix};
use super::ice;
use crate::signal::{Code, Identity, Refusal};

/// Requests a minute of one client: one a second for its polling, and as many again.
const PER_MINUTE: u32 = 120;

/// Bytes of a request's body.
pub(super) const MAX_BODY: usize = 16 * 1024;

/// Reads a JSON object from a body; `shape` is what it should be.
pub(super) fn read<T: DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    shape: &str,
) -> Result<T, Box<Response>> {
    let Ok(body) = body else {
        let detail = format!("a body has at most {MAX_BODY} bytes");
        return Err(Box::new(details(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge.as_str(), &detail)));
    };
    let wrong = |why: &dyn std::fmt::Display| {
        Box::new(details(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_request",
            &format!("the body is {shape}: {why}"),
        ))
    };
    // By itself a struct is read from an array of its fields as well.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(wrong(&"this is no JSON object"));
    }
    serde_json::from_slice(&body).map_err(|error| wrong(&error))
}

/// What the hub says, `None` when it is no longer there; a refusal as an answer.
pub(super) fn answered<T>(answer: Option<Result<T, Refusal>>) -> Result<T, Box<Response>> {
    let stopping = || Refusal::later(Code::Busy, "the server is stopping", Duration::from_secs(1));
    answer.unwrap_or_else(|| Err(stopping())).map_err(|refusal| Box::new(refused(&refusal)))
}

/// The user whose token came with the request. Every request counts, so that nobody tries tokens.
pub(super) fn user(app: &App, question: &Question) -> Result<Identity, Box<Response>> {
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

/// A refusal as an answer.
pub(super) fn refused(refusal: &Refusal) -> Response {
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
pub(super) fn details(status: StatusCode, code: &str, detail: &str) -> Response {
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
