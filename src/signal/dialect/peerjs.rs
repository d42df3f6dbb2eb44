//! PeerJS: `{"type":"OFFER","dst":…,"payload":{"sdp":…,"connectionId":…}}` on `/peerjs`, from peer id to
//! peer id. The client's `key` is the room, so that peers of other dialects can be called too; the
//! stock one is a room of its own that only PeerJS enters. Chat and media states have no words here:
//! such clients send them over their own data connections.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Dialect, Sender, native};
use crate::signal::envelope::{Code, Envelope, Kind, Refusal, Verbatim};
use crate::signal::json;
use crate::signal::limits::Limits;

/// The room of clients that set no key.
pub const LOBBY: &str = "peerjs";

/// What a client asks for.
#[derive(Debug)]
pub enum Request {
    /// A message to another peer.
    Relay {
        /// Its id.
        to: String,
        /// The connection it belongs to.
        connection: Connection,
        /// The message.
        envelope: Envelope,
    },
    /// The client lives.
    Heartbeat,
    /// The client leaves for good.
    Leave,
}

/// One of the connections between two peers, as the client has named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its id.
    pub id: Box<str>,
    /// `media` or `data`.
    pub kind: Box<str>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    dst: Option<String>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    #[serde(borrow, default)]
    sdp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    candidate: Option<&'a RawValue>,
    #[serde(default)]
    connection_id: Box<str>,
    #[serde(default, rename = "type")]
    kind: Box<str>,
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
    let unreadable = |e| Refusal::new(Code::BadFrame, format!("the message cannot be read: {e}"));
    let message: Message<'_> = serde_json::from_str(text).map_err(unreadable)?;
    let kind = match message.kind.as_str() {
        "HEARTBEAT" => return Ok(Request::Heartbeat),
        "LEAVE" => return Ok(Request::Leave),
        "OFFER" => Kind::Offer,
        "ANSWER" => Kind::Answer,
        "CANDIDATE" => Kind::Candidate,
        other => {
            let shown: String = other.chars().take(32).collect();
            return Err(Refusal::new(Code::UnknownType, format!("there is no message of type {shown:?}")));
        }
    };
    let missing = |what: &str| Refusal::new(Code::BadFrame, format!("{} needs {what}", message.kind));
    let to = message.dst.clone().ok_or_else(|| missing("dst"))?;
    let raw = message.payload.ok_or_else(|| missing("payload"))?;
    let payload: Payload<'_> = serde_json::from_str(raw.get()).map_err(unreadable)?;
    if payload.connection_id.len() > limits.name || payload.kind.len() > limits.name {
        return Err(missing(&format!("a connectionId and a type of at most {} bytes", limits.name)));
    }
    native::limit_size(raw, limits.sdp, "payload")?;
    let canonical = if kind == Kind::Candidate {
        native::candidate(payload.candidate, limits)?
    } else {
        native::description(payload.sdp, kind.as_str(), limits)?
    };
    let verbatim = Some(Verbatim { dialect: Dialect::PeerJs, text: Arc::from(raw.get()) });
    let ufrag = if kind == Kind::Candidate { super::broadcast::ufrag_of(&canonical) } else { None };
    let envelope = Envelope { kind, payload: Some(canonical), verbatim, ufrag };
    Ok(Request::Relay {
        to,
        connection: Connection { id: payload.connection_id, kind: payload.kind },
        envelope,
    })
}

/// The message as the stock client reads it, on `connection` where it did not come with one of its own.
#[must_use]
pub fn render(sender: &Sender, connection: &Connection, envelope: &Envelope) -> Option<Arc<str>> {
    let payload = envelope.payload.as_deref().map_or("null", RawValue::get);
    let (word, key) = match envelope.kind {
        Kind::Offer => ("OFFER", "sdp"),
        Kind::Answer => ("ANSWER", "sdp"),
        // The client calls `new RTCIceCandidate(null)`, which throws: the end is left out.
        Kind::Candidate if payload == "null" => return None,
        Kind::Candidate => ("CANDIDATE", "candidate"),
        Kind::Restart | Kind::Media | Kind::State | Kind::Chat | Kind::Custom => return None,
    };
    let src = json::text(&sender.handle());
    let payload = match envelope.verbatim_in(Dialect::PeerJs) {
        Some(text) => text.to_string(),
        None => {
            let (id, kind) = (json::text(&connection.id), json::text(&connection.kind));
            format!(r#"{{"{key}":{payload},"type":{kind},"connectionId":{id}}}"#)
        }
    };
    Some(format!(r#"{{"type":"{word}","src":{src},"payload":{payload}}}"#).into())
}

/// The client is known under its id.
#[must_use]
pub fn open() -> Arc<str> {
    r#"{"type":"OPEN"}"#.into()
}

/// Another client has the id.
#[must_use]
pub fn id_taken() -> Arc<str> {
    r#"{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}"#.into()
}

/// There is no peer of that id: the client reports `peer-unavailable`.
#[must_use]
pub fn expire(peer: &str) -> Arc<str> {
    format!(r#"{{"type":"EXPIRE","src":{}}}"#, json::text(&peer)).into()
}

/// A peer has left for good.
#[must_use]
pub fn leave(sender: &Sender) -> Arc<str> {
    format!(r#"{{"type":"LEAVE","src":{}}}"#, json::text(&sender.handle())).into()
}

/// An error frame.
#[must_use]
pub fn refuse(refusal: &Refusal) -> Arc<str> {
    let error = serde_json::json!({
        "type": "ERROR", "payload": { "msg": refusal.message, "code": refusal.code.as_str() },
    });
    error.to_string().into()
}
