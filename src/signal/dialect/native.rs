//! `turnkey.v1`: `{"t":kind,"id":…,"seq":…,"ack":…,"to":…,"from":…,"ref":…,"d":payload}`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::broadcast::ufrag_of;
use crate::signal::MemberId;
use crate::signal::envelope::{Code, Envelope, Kind, Refusal};
use crate::signal::json;
use crate::signal::limits::Limits;

/// The WebSocket subprotocol of this dialect.
pub const SUBPROTOCOL: &str = "turnkey.v1";

/// A frame as it came.
#[derive(Deserialize)]
struct Wire<'a> {
    t: String,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    ack: Option<u64>,
    #[serde(default)]
    to: Option<String>,
    #[serde(borrow, default)]
    d: Option<&'a RawValue>,
}

/// A frame that was understood.
#[derive(Debug)]
pub struct Frame {
    /// The client's message id, as JSON text.
    pub id: Option<Box<str>>,
    /// The last sequence number the client has seen.
    pub ack: Option<u64>,
    /// What it asks for.
    pub request: Request,
}

/// What a client asks for.
#[derive(Debug)]
pub enum Request {
    /// The first frame.
    Hello(Hello),
    /// Enter a room.
    Join(Join),
    /// Leave the room.
    Leave,
    /// A message to one member, or to all others.
    Relay {
        /// The member's id as the client wrote it.
        to: Option<String>,
        /// The message.
        envelope: Envelope,
    },
    /// Send a member out of the room.
    Kick {
        /// The member's id as the client wrote it.
        to: String,
    },
    /// Ask a member to turn a track off.
    Mute {
        /// The member's id as the client wrote it.
        to: String,
        /// Which one.
        track: Track,
    },
    /// A new token for the old one, which is about to end.
    Token(String),
    /// Fresh ICE servers.
    Ice,
    /// Are you there?
    Ping,
    /// Here I am.
    Pong,
    /// Only the `ack` field matters.
    Ack,
    /// End the session at once.
    Bye,
}

/// What of a member can be muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    /// The microphone.
    Audio,
    /// The camera.
    Video,
    /// The screen.
    Screen,
}

impl Track {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Screen => "screen",
        }
    }
}

/// Payload of `mute`.
#[derive(Deserialize)]
struct Mute {
    track: Track,
}

/// Payload of `hello`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Hello {
    /// A JWT, where it did not travel with the upgrade.
    #[serde(default)]
    pub token: Option<String>,
    /// The resume secret of the last welcome.
    #[serde(default)]
    pub resume: Option<String>,
    /// The last sequence number seen.
    #[serde(default)]
    pub last_seq: Option<u64>,
}

/// Payload of `join`.
#[derive(Clone, Debug, Deserialize)]
pub struct Join {
    /// The room's name.
    pub room: String,
    /// What others call this member.
    #[serde(default)]
    pub name: Option<String>,
    /// A role; a token's role wins.
    #[serde(default)]
    pub role: Option<String>,
}

/// A refusal together with the id of the frame it is about.
pub type Refused = (Option<Box<str>>, Refusal);

/// Reads one text frame.
///
/// # Errors
/// What is wrong with it, and its id where that could be read.
pub fn parse(text: &str, limits: &Limits) -> Result<Frame, Refused> {
    if json::is_deeper_than(text, limits.depth) {
        let message = format!("the frame is nested deeper than {} levels", limits.depth);
        return Err((None, Refusal::new(Code::TooDeep, message)));
    }
    let wire: Wire<'_> = serde_json::from_str(text)
        .map_err(|e| (None, Refusal::new(Code::BadFrame, format!("the frame cannot be read: {e}"))))?;
    let id = match wire.id {
        None => None,
        Some(raw) => Some(read_id(raw).map_err(|refusal| (None, refusal))?),
    };
    match request(&wire, limits) {
        Ok(request) => Ok(Frame { id, ack: wire.ack, request }),
        Err(refusal) => Err((id, refusal)),
    }
}

fn read_id(raw: &RawValue) -> Result<Box<str>, Refusal> {
    let text = raw.get();
    let is_scalar = text.starts_with('"') || text.bytes().all(|b| b.is_ascii_digit());
    if !is_scalar || text.len() > 66 {
        return Err(Refusal::new(Code::BadFrame, "id must be a string or a number of at most 64 characters"));
    }
    Ok(text.into())
}

fn request(wire: &Wire<'_>, limits: &Limits) -> Result<Request, Refusal> {
    Ok(match wire.t.as_str() {
        "hello" => Request::Hello(payload(wire)?.unwrap_or_default()),
        "join" => Request::Join(join(wire, limits)?),
        "leave" => Request::Leave,
        "token" => {
            let hello: Hello = payload(wire)?.unwrap_or_default();
            let needed = || Refusal::new(Code::BadFrame, "token needs d.token");
            Request::Token(hello.token.ok_or_else(needed)?)
        }
        "kick" => Request::Kick { to: target(wire)? },
        "mute" => {
            let mute: Option<Mute> = payload(wire)?;
            let needed = || Refusal::new(Code::BadFrame, "mute needs d.track: audio, video or screen");
            Request::Mute { to: target(wire)?, track: mute.ok_or_else(needed)?.track }
        }
        "ice" => Request::Ice,
        "ping" => Request::Ping,
        "pong" => Request::Pong,
        "ack" => Request::Ack,
        "bye" => Request::Bye,
        "offer" => relay(wire, Kind::Offer, description(wire.d, "offer", limits)?),
        "answer" => relay(wire, Kind::Answer, description(wire.d, "answer", limits)?),
        "candidate" => relay(wire, Kind::Candidate, candidate(wire.d, limits)?),
        "chat" => relay(wire, Kind::Chat, chat(wire, limits)?),
        "restart" => relay(wire, Kind::Restart, data(wire)),
        "media" => relay(wire, Kind::Media, data(wire)),
        "state" => relay(wire, Kind::State, data(wire)),
        "custom" => relay(wire, Kind::Custom, data(wire)),
        other => {
            let shown: String = other.chars().take(32).collect();
            return Err(Refusal::new(Code::UnknownType, format!("there is no frame of type {shown:?}")));
        }
    })
}

fn target(wire: &Wire<'_>) -> Result<String, Refusal> {
    let needed = || Refusal::new(Code::BadFrame, format!("{} needs to, the member that is meant", wire.t));
    wire.to.clone().ok_or_else(needed)
}

fn relay(wire: &Wire<'_>, kind: Kind, payload: Box<RawValue>) -> Request {
    let ufrag = if kind == Kind::Candidate { ufrag_of(&payload) } else { None };
    let envelope = Envelope { kind, payload: Some(payload), verbatim: None, ufrag };
    Request::Relay { to: wire.to.clone(), envelope }
}

fn payload<'a, T: Deserialize<'a>>(wire: &Wire<'a>) -> Result<Option<T>, Refusal> {
    let Some(raw) = wire.d else { return Ok(None) };
    serde_json::from_str(raw.get())
        .map(Some)
        .map_err(|e| Refusal::new(Code::BadFrame, format!("d of {} cannot be read: {e}", wire.t)))
}

fn join(wire: &Wire<'_>, limits: &Limits) -> Result<Join, Refusal> {
    let join: Join = payload(wire)?.ok_or_else(|| Refusal::new(Code::BadFrame, "join needs d.room"))?;
    let fields = [Some(&join.room), join.name.as_ref(), join.role.as_ref()];
    if join.room.is_empty() || fields.into_iter().flatten().any(|f| f.len() > limits.name) {
        let message = format!("room, name and role must have at most {} bytes, room at least 1", limits.name);
        return Err(Refusal::new(Code::BadFrame, message));
    }
    Ok(join)
}

fn data(wire: &Wire<'_>) -> Box<RawValue> {
    wire.d.map_or_else(|| RawValue::NULL.to_owned(), json::own)
}

/// Checks a session description before it is relayed.
pub(super) fn description(
    raw: Option<&RawValue>,
    kind: &str,
    limits: &Limits,
) -> Result<Box<RawValue>, Refusal> {
    #[derive(Deserialize)]
    struct Description {
        #[serde(rename = "type")]
        kind: String,
        sdp: String,
    }
    let bad = |why: &str| Refusal::new(Code::BadFrame, format!("{kind} needs {{type, sdp}}: {why}"));
    let raw = raw.ok_or_else(|| bad("it is missing"))?;
    limit_size(raw, limits.sdp, "session description")?;
    let description: Description = serde_json::from_str(raw.get()).map_err(|e| bad(&e.to_string()))?;
    if description.kind != kind {
        return Err(bad(&format!("type must be {kind}")));
    }
    if !description.sdp.starts_with("v=0") {
        return Err(bad("sdp must begin with v=0"));
    }
    Ok(json::own(raw))
}

/// Checks a candidate before it is relayed; none is the end of them.
pub(super) fn candidate(raw: Option<&RawValue>, limits: &Limits) -> Result<Box<RawValue>, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Candidate {
        candidate: String,
        #[serde(default)]
        sdp_mid: Option<String>,
        #[serde(default)]
        sdp_m_line_index: Option<u32>,
    }
    let Some(raw) = raw else { return Ok(RawValue::NULL.to_owned()) };
    limit_size(raw, limits.candidate, "candidate")?;
    if raw.get() == "null" {
        return Ok(json::own(raw));
    }
    let bad = |why: &str| {
        Refusal::new(Code::BadFrame, format!("candidate needs an RTCIceCandidateInit or null: {why}"))
    };
    let candidate: Candidate = serde_json::from_str(raw.get()).map_err(|e| bad(&e.to_string()))?;
    let line = candidate.candidate.strip_prefix("a=").unwrap_or(&candidate.candidate);
    if line.is_empty() {
        return Ok(json::own(raw));
    }
    if !line.starts_with("candidate:") {
        return Err(bad("candidate must begin with candidate:"));
    }
    if candidate.sdp_mid.is_none() && candidate.sdp_m_line_index.is_none() {
        return Err(bad("sdpMid or sdpMLineIndex is missing"));
    }
    Ok(json::own(raw))
}

fn chat(wire: &Wire<'_>, limits: &Limits) -> Result<Box<RawValue>, Refusal> {
    let data = data(wire);
    limit_size(&data, limits.chat, "chat message")?;
    Ok(data)
}

pub(super) fn limit_size(raw: &RawValue, limit: usize, what: &str) -> Result<(), Refusal> {
    let size = raw.get().len();
    if size > limit {
        let message = format!("the {what} has {size} bytes, the limit is {limit}");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    Ok(())
}

/// A relayed message.
#[must_use]
pub fn render(from: MemberId, seq: u64, envelope: &Envelope) -> Arc<str> {
    let (word, payload) = match (&envelope.payload, &envelope.verbatim) {
        (Some(payload), _) => (envelope.kind.as_str(), payload.get()),
        (None, Some(verbatim)) => (Kind::Custom.as_str(), &*verbatim.text),
        (None, None) => (envelope.kind.as_str(), "null"),
    };
    format!(r#"{{"t":"{word}","from":"{from}","seq":{seq},"d":{payload}}}"#).into()
}

/// A frame of the server's own that counts in the session's order.
#[must_use]
pub fn event<T: Serialize>(word: &str, seq: u64, data: &T) -> Arc<str> {
    format!(r#"{{"t":"{word}","seq":{seq},"d":{}}}"#, json::text(data)).into()
}

/// The answer to the frame `reference`, or a frame outside of the session's order.
#[must_use]
pub fn reply<T: Serialize>(word: &str, reference: Option<&str>, data: &T) -> Arc<str> {
    let data = json::text(data);
    match reference {
        Some(id) => format!(r#"{{"t":"{word}","ref":{id},"d":{data}}}"#).into(),
        None => format!(r#"{{"t":"{word}","d":{data}}}"#).into(),
    }
}

/// An error frame.
#[must_use]
pub fn refuse(reference: Option<&str>, refusal: &Refusal) -> Arc<str> {
    #[derive(Serialize)]
    struct Error<'a> {
        code: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    }
    let error = Error {
        code: refusal.code.as_str(),
        message: &refusal.message,
        retry_after: refusal.retry_seconds(),
    };
    reply("error", reference, &error)
}
