//! Seed 003: raw JSON on `/ws/webrtc/{call_id}`, between the two parties of a call.
//!
//! `{"type":"offer","offer":…}`, `{"type":"answer","answer":…}`, `{"type":"ice_candidate",
//! "candidate":…}` with an underscore, `{"type":"connection_state","state":…}`, and
//! `{"type":"text","message":…,"timestamp":…}` for chat where the data channel is not open.
//! Every message is checked before it is relayed; one of another type is refused.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Dialect, broadcast, native};
use crate::signal::call::Call;
use crate::signal::envelope::{Code, Envelope, Kind, Refusal, Verbatim};
use crate::signal::json;
use crate::signal::limits::Limits;

/// What a client asks for.
#[derive(Debug)]
pub enum Request {
    /// A message to the other party.
    Relay(Envelope),
    /// A new token for the old one, which is about to end.
    Token(String),
    /// Are you there?
    Ping,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow, default)]
    offer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    answer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    candidate: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
    #[serde(borrow, default)]
    media: Option<&'a RawValue>,
    #[serde(default)]
    token: Option<String>,
}

/// Reads one text frame.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(text: &str, limits: &Limits) -> Result<Request, Refusal> {
    if json::is_deeper_than(text, limits.depth) {
        let message = format!("the message is nested deeper than {} levels", limits.depth);
        return Err(Refusal::new(Code::TooDeep, message));
    }
    let message: Message<'_> = serde_json::from_str(text)
        .map_err(|e| Refusal::new(Code::BadFrame, format!("the message cannot be read: {e}")))?;
    let (kind, payload) = match message.kind.as_str() {
        "ping" => return Ok(Request::Ping),
        "auth" | "token_refresh" => {
            let needed = || Refusal::new(Code::BadFrame, "auth and token_refresh need token");
            return message.token.ok_or_else(needed).map(Request::Token);
        }
        "offer" => (Kind::Offer, native::description(message.offer, "offer", limits)?),
        "answer" => (Kind::Answer, native::description(message.answer, "answer", limits)?),
        "ice_candidate" | "ice-candidate" => (Kind::Candidate, native::candidate(message.candidate, limits)?),
        "text" => (Kind::Chat, chat(&message, limits)?),
        "connection_state" => (Kind::State, object("state", message.state)),
        "media" => (Kind::Media, message.media.map_or_else(|| RawValue::NULL.to_owned(), json::own)),
        "restart" => (Kind::Restart, RawValue::NULL.to_owned()),
        other => {
            let shown: String = other.chars().take(32).collect();
            return Err(Refusal::new(Code::UnknownType, format!("there is no message of type {shown:?}")));
        }
    };
    let ufrag = if kind == Kind::Candidate { broadcast::ufrag_of(&payload) } else { None };
    let verbatim = Some(Verbatim { dialect: Dialect::Call, text: Arc::from(text) });
    Ok(Request::Relay(Envelope { kind, payload: Some(payload), verbatim, ufrag }))
}

/// The canonical chat message: text and time as they came.
fn chat(message: &Message<'_>, limits: &Limits) -> Result<Box<RawValue>, Refusal> {
    let Some(text) = message.message.filter(|m| m.get().starts_with('"')) else {
        return Err(Refusal::new(Code::BadFrame, "text needs message, a string"));
    };
    native::limit_size(text, limits.chat, "chat message")?;
    let time = message.timestamp.map_or("null", RawValue::get);
    Ok(json::raw(format!(r#"{{"message":{text},"timestamp":{time}}}"#)))
}

fn object(key: &str, value: Option<&RawValue>) -> Box<RawValue> {
    json::raw(format!(r#"{{"{key}":{}}}"#, value.map_or("null", RawValue::get)))
}

/// The message as seed 003's page reads it; `None` for what would only break that page.
#[must_use]
pub fn render(envelope: &Envelope) -> Option<Arc<str>> {
    let payload = envelope.payload.as_deref()?.get();
    let text = match envelope.kind {
        // The page calls `new RTCIceCandidate(null)`, which throws: the end is left out.
        Kind::Candidate if payload == "null" => return None,
        Kind::Candidate => format!(r#"{{"type":"ice_candidate","candidate":{payload}}}"#),
        Kind::Chat => text(payload),
        Kind::State => format!(r#"{{"type":"connection_state","state":{}}}"#, state(payload)),
        Kind::Restart => r#"{"type":"restart"}"#.into(),
        Kind::Offer | Kind::Answer | Kind::Media | Kind::Custom => {
            let word = envelope.kind.as_str();
            format!(r#"{{"type":"{word}","{word}":{payload}}}"#)
        }
    };
    Some(text.into())
}

/// `{"type":"text",…}` of a canonical chat message, which may also be a bare string.
fn text(payload: &str) -> String {
    #[derive(Deserialize)]
    struct Chat<'a> {
        #[serde(borrow)]
        message: &'a RawValue,
        #[serde(borrow, default)]
        timestamp: Option<&'a RawValue>,
    }
    match serde_json::from_str::<Chat<'_>>(payload) {
        Ok(chat) => {
            let time = chat.timestamp.map_or("null", RawValue::get);
            format!(r#"{{"type":"text","message":{},"timestamp":{time}}}"#, chat.message)
        }
        Err(_) => format!(r#"{{"type":"text","message":{payload},"timestamp":null}}"#),
    }
}

/// The word of a canonical state report.
pub(crate) fn state(payload: &str) -> &str {
    #[derive(Deserialize)]
    struct State<'a> {
        #[serde(borrow)]
        state: &'a RawValue,
    }
    serde_json::from_str::<State<'_>>(payload).map_or("null", |s| s.state.get())
}

/// What happened to the call.
#[must_use]
pub fn event(call: &Call) -> Arc<str> {
    let fields = json::text(call);
    format!(r#"{{"type":"call_{}",{}"#, call.status.as_str(), &fields[1..]).into()
}
