//! REST of consultations (seed 004): a session is created, joined and ended here; its signaling
//! happens over Socket.IO in its room, with the access token that joining gives.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Question;
use super::app::App;
use super::ice;
use super::rest::{self, answered, user};
use crate::signal::{Consultation, ConsultationAction};

/// Body of `POST /api/video/sessions`.
#[derive(Deserialize)]
struct Create {
    #[serde(default)]
    doctor_id: Option<String>,
    patient_id: String,
    #[serde(default)]
    scheduled_start_time: Option<Box<str>>,
    #[serde(default)]
    scheduled_end_time: Option<Box<str>>,
}

/// Body of `POST /api/video/sessions/{session_id}/join`; what a client says of itself is not needed.
#[derive(Deserialize)]
struct Join {}

/// `POST /api/video/sessions`.
pub(super) async fn create(
    question: Question,
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let who = match user(&app, &question) {
        Ok(who) => who,
        Err(response) => return *response,
    };
    let shape = r#"{"doctor_id":…, "patient_id":…, "scheduled_start_time":…, "scheduled_end_time":…}"#;
    let create: Create = match rest::read(body, shape) {
        Ok(create) => create,
        Err(response) => return *response,
    };
    let action = ConsultationAction::Create {
        doctor: create.doctor_id.map(Into::into),
        patient: create.patient_id.into(),
        start: create.scheduled_start_time,
        end: create.scheduled_end_time,
    };
    match answered(app.consultation(who, action).await) {
        Ok((made, _)) => (StatusCode::CREATED, Json(with_url(&question, &made))).into_response(),
        Err(response) => *response,
    }
}

/// `POST /api/video/sessions/{session_id}/join`.
pub(super) async fn join(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let who = match user(&app, &question) {
        Ok(who) => who,
        Err(response) => return *response,
    };
    if body.as_ref().is_ok_and(|body| !body.is_empty())
        && let Err(response) = rest::read::<Join>(body, r#"{"device_type":…, "browser_info":…}"#)
    {
        return *response;
    }
    let joined = app.consultation(who.clone(), ConsultationAction::Join(id.into())).await;
    let (found, admission) = match answered(joined) {
        Ok(outcome) => outcome,
        Err(response) => return *response,
    };
    let mut answer = with_url(&question, &found);
    if let (Some(admission), Some(fields)) = (admission, answer.as_object_mut()) {
        fields.retain(|field, _| {
            matches!(&**field, "session_id" | "room_id" | "signaling_server_url" | "expires_at")
                || field.starts_with("scheduled_")
        });
        let mut attendee = json!(admission.attendee);
        attendee["access_token"] = json!(admission.access_token);
        fields.insert("attendee".into(), attendee);
        fields.insert("ice_servers".into(), ice::for_call(&app, &question.settings, &who, &found.id));
        fields.insert("ice_ttl".into(), json!(question.settings.ttl.as_secs()));
    }
    ice::private(Json(answer))
}

/// `POST /api/video/sessions/{session_id}/end`.
pub(super) async fn end(question: Question, State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    one(&question, act(&app, &question, ConsultationAction::End(id.into())).await)
}

/// `DELETE /api/video/sessions/{session_id}`.
pub(super) async fn delete(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    one(&question, act(&app, &question, ConsultationAction::Delete(id.into())).await)
}

/// `GET /api/video/sessions/{session_id}`.
pub(super) async fn view(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Response {
    one(&question, act(&app, &question, ConsultationAction::View(id.into())).await)
}

fn one(question: &Question, outcome: Result<Consultation, Box<Response>>) -> Response {
    match outcome {
        Ok(found) => Json(with_url(question, &found)).into_response(),
        Err(response) => *response,
    }
}

/// The session with where its signaling is, as this client reached the server. A page that makes
/// the URL a namespace of Socket.IO is served all the same.
fn with_url(question: &Question, found: &Consultation) -> Value {
    let mut answer = json!(found);
    answer["signaling_server_url"] = json!(question.asker().http_url(&question.settings, "/socket.io"));
    answer
}

async fn act(
    app: &App,
    question: &Question,
    action: ConsultationAction,
) -> Result<Consultation, Box<Response>> {
    let who = user(app, question)?;
    answered(app.consultation(who, action).await).map(|(found, _)| found)
}
