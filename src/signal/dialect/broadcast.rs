//! Seed 000: raw JSON, each message goes to all others of the room as the bytes it came in.
//!
//! `{"type":"offer","offer":…}`, `{"type":"answer","answer":…}`, `{"type":"ice-candidate",
//! "candidate":…}` are understood well enough to be kept for an absent peer and to be translated
//! for a native one; every other message is relayed all the same.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Dialect;
use crate::signal::envelope::{Code, Envelope, Kind, Refusal, Verbatim};
use crate::signal::json;
use crate::signal::limits::Limits;

/// The fields that matter; whatever else a message has stays in its verbatim text.
#[derive(Default, Deserialize)]
struct Message<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    offer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    answer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sdp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    candidate: Option<&'a RawValue>,
    #[serde(borrow, default)]
    chat: Option<&'a RawValue>,
    #[serde(borrow, default)]
    media: Option<&'a RawValue>,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
}

/// Reads one text frame. Any JSON value is a message.
///
/// # Errors
/// No JSON, nested too deeply, or a part over its limit.
pub fn parse(text: &str, limits: &Limits) -> Result<Envelope, Refusal> {
    if json::is_deeper_than(text, limits.depth) {
        let message = format!("the message is nested deeper than {} levels", limits.depth);
        return Err(Refusal::new(Code::TooDeep, message));
    }
    let message = match serde_json::from_str::<Message<'_>>(text) {
        Ok(message) => message,
        Err(_) => match serde_json::from_str::<&RawValue>(text) {
            // One that is no object, or has fields of other types than ours, is relayed as it is.
            Ok(_) => Message::default(),
            Err(error) => {
                return Err(Refusal::new(Code::BadFrame, format!("the message is not JSON: {error}")));
            }
        },
    };
    let (kind, payload) = classify(&message);
    check_size(kind, payload.as_deref(), limits)?;
    let ufrag = payload.as_deref().filter(|_| kind == Kind::Candidate).and_then(ufrag_of);
    let verbatim = Some(Verbatim { dialect: Dialect::Broadcast, text: Arc::from(text) });
    Ok(Envelope { kind, payload, verbatim, ufrag })
}

fn classify(message: &Message<'_>) -> (Kind, Option<Box<RawValue>>) {
    let own = |raw: Option<&RawValue>| raw.map(json::own);
    match &*message.kind {
        "offer" => (Kind::Offer, description(message.offer, message, "offer")),
        "answer" => (Kind::Answer, description(message.answer, message, "answer")),
        "ice-candidate" | "ice_candidate" | "candidate" => {
            // `"candidate": null` reads as absent; both are the end of candidates.
            (Kind::Candidate, own(message.candidate).or_else(|| Some(RawValue::NULL.to_owned())))
        }
        "chat" if message.chat.is_some() => (Kind::Chat, own(message.chat)),
        "media" if message.media.is_some() => (Kind::Media, own(message.media)),
        "state" if message.state.is_some() => (Kind::State, own(message.state)),
        "restart" => (Kind::Restart, Some(RawValue::NULL.to_owned())),
        _ => (Kind::Custom, None),
    }
}

/// The session description of a message: under its own key, under `description`, or as `sdp`.
fn description(own: Option<&RawValue>, message: &Message<'_>, kind: &'static str) -> Option<Box<RawValue>> {
    let found = own.or(message.description).or(message.sdp)?;
    if found.get().starts_with('{') {
        return Some(json::own(found));
    }
    #[derive(Serialize)]
    struct Description<'a> {
        r#type: &'a str,
        sdp: &'a RawValue,
    }
    if !found.get().starts_with('"') {
        return None;
    }
    serde_json::value::to_raw_value(&Description { r#type: kind, sdp: found }).ok()
}

pub(super) fn check_size(kind: Kind, payload: Option<&RawValue>, limits: &Limits) -> Result<(), Refusal> {
    let (what, limit) = match kind {
        Kind::Offer | Kind::Answer => ("session description", limits.sdp),
        Kind::Candidate => ("candidate", limits.candidate),
        Kind::Chat => ("chat message", limits.chat),
        Kind::Restart | Kind::Media | Kind::State | Kind::Custom => return Ok(()),
    };
    let size = payload.map_or(0, |p| p.get().len());
    if size > limit {
        let message = format!("the {what} has {size} bytes, the limit is {limit}");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    Ok(())
}

/// The user name fragment a candidate names.
pub(crate) fn ufrag_of(candidate: &RawValue) -> Option<Box<str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Candidate {
        #[serde(default)]
        username_fragment: Option<Box<str>>,
    }
    // Where the name does not occur nothing has to be read.
    static NAME: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("usernameFragment"));
    NAME.find(candidate.get().as_bytes())?;
    serde_json::from_str::<Candidate>(candidate.get()).ok()?.username_fragment
}

/// The message as seed 000's page reads it; `None` for what would only break that page.
#[must_use]
pub fn render(envelope: &Envelope) -> Option<Arc<str>> {
    let payload = envelope.payload.as_deref().map_or("null", RawValue::get);
    let text = match envelope.kind {
        // The page calls `new RTCIceCandidate(null)`, which throws: the end is left out.
        Kind::Candidate if payload == "null" => return None,
        Kind::Candidate => format!(r#"{{"type":"ice-candidate","candidate":{payload}}}"#),
        Kind::Custom if has_type(payload) => payload.to_owned(),
        Kind::Offer
        | Kind::Answer
        | Kind::Restart
        | Kind::Media
        | Kind::State
        | Kind::Chat
        | Kind::Custom => {
            let word = envelope.kind.as_str();
            format!(r#"{{"type":"{word}","{word}":{payload}}}"#)
        }
    };
    Some(text.into())
}

fn has_type(payload: &str) -> bool {
    serde_json::from_str::<Message<'_>>(payload).is_ok_and(|m| !m.kind.is_empty())
}

/// An error frame; seed 000's page ignores types it does not know.
#[must_use]
pub fn refuse(refusal: &Refusal) -> Arc<str> {
    #[derive(Serialize)]
    struct Error<'a> {
        r#type: &'static str,
        code: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    }
    let error = Error {
        r#type: "error",
        code: refusal.code.as_str(),
        message: &refusal.message,
        retry_after: refusal.retry_seconds(),
    };
    json::text(&error).into()
}

/// A presence event, for clients that asked for them with `?events=1`.
#[must_use]
pub fn event(word: &str, peer: &str) -> Arc<str> {
    format!(r#"{{"type":"{word}","peer":"{peer}"}}"#).into()
}

/// A moderator asks for a track to be turned off; for clients that asked for events.
#[must_use]
pub fn mute(data: &serde_json::Value) -> Arc<str> {
    format!(r#"{{"type":"mute","mute":{data}}}"#).into()
}
