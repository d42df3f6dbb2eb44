//! The canonical message between two dialects, and the refusals every dialect can express.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::dialect::Dialect;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A session description that asks.
    Offer,
    /// A session description that answers.
    Answer,
    /// An ICE candidate, or the end of them.
    Candidate,
    /// A wish for new negotiation.
    Restart,
    /// Which of audio, video and screen are on.
    Media,
    /// What a client says about its connection.
    State,
    /// A line of text for people.
    Chat,
    /// Anything else; relayed, not understood.
    Custom,
}

impl Kind {
    /// Whether this is an offer or an answer.
    #[must_use]
    pub fn is_description(self) -> bool {
        matches!(self, Self::Offer | Self::Answer)
    }

    /// The word native frames use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::Candidate => "candidate",
            Self::Restart => "restart",
            Self::Media => "media",
            Self::State => "state",
            Self::Chat => "chat",
            Self::Custom => "custom",
        }
    }
}

/// One message on its way. Payloads are the bytes they came in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// What it is about.
    pub kind: Kind,
    /// The canonical payload: a session description, a candidate or null, or data. `None` where a
    /// raw client sent something that has no canonical form.
    pub payload: Option<Box<RawValue>>,
    /// The whole message where a raw dialect sent it: its like gets the bytes it came in.
    pub verbatim: Option<Verbatim>,
    /// The user name fragment a candidate belongs to, where it says so.
    pub ufrag: Option<Box<str>>,
}

/// A message as it came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verbatim {
    /// Whose words these are.
    pub dialect: Dialect,
    /// The whole frame.
    pub text: Arc<str>,
}

impl Envelope {
    /// The bytes it came in, for a recipient of the sender's own dialect.
    #[must_use]
    pub fn verbatim_in(&self, dialect: Dialect) -> Option<&Arc<str>> {
        self.verbatim.as_ref().filter(|v| v.dialect == dialect).map(|v| &v.text)
    }

    /// Bytes this message takes while it waits.
    #[must_use]
    pub fn len(&self) -> usize {
        let payload = self.payload.as_ref().map_or(0, |p| p.get().len());
        self.verbatim.as_ref().map_or(payload, |v| v.text.len() + payload)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an offer's description carries this user name fragment.
    #[must_use]
    pub fn has_ufrag(&self, ufrag: &str) -> bool {
        let Some(payload) = &self.payload else { return false };
        let needle = format!("a=ice-ufrag:{ufrag}\\");
        payload.get().contains(&needle)
    }
}

/// Why a frame is refused. The words are stable; clients switch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// No JSON, no text, or a field that is missing or wrong.
    BadFrame,
    /// A kind of frame this server does not know.
    UnknownType,
    /// Larger than a limit.
    TooLarge,
    /// Nested deeper than the limit.
    TooDeep,
    /// Too many frames, joins or connections.
    RateLimited,
    /// The session is in no room.
    NotJoined,
    /// The room has no such member.
    NoSuchMember,
    /// The token does not allow it.
    Forbidden,
    /// There is no valid token where one is needed.
    Unauthenticated,
    /// The room has as many members as it may have.
    RoomFull,
    /// The server has as many rooms or sessions as it may have.
    Busy,
    /// Too much is waiting already.
    MailboxFull,
    /// There is no such call, or it is over.
    NoSuchCall,
    /// The call is in a state that does not allow it.
    WrongState,
}

impl Code {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::UnknownType => "unknown_type",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::RateLimited => "rate_limited",
            Self::NotJoined => "not_joined",
            Self::NoSuchMember => "no_such_member",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
            Self::RoomFull => "room_full",
            Self::Busy => "busy",
            Self::MailboxFull => "mailbox_full",
            Self::NoSuchCall => "no_such_call",
            Self::WrongState => "wrong_state",
        }
    }

    /// Whether a client that goes on doing this is closed. A type this server does not know yet is
    /// no offence.
    #[must_use]
    pub fn is_strike(self) -> bool {
        matches!(self, Self::BadFrame | Self::TooLarge | Self::TooDeep)
    }
}

/// A refusal, before a dialect has put it into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable word.
    pub code: Code,
    /// One line that says what to do.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without a time to try again.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// A refusal with a time to try again.
    #[must_use]
    pub fn later(code: Code, message: impl Into<String>, retry_after: Duration) -> Self {
        Self { code, message: message.into(), retry_after: Some(retry_after) }
    }

    /// Whole seconds, at least one, as the wire has them.
    #[must_use]
    pub fn retry_seconds(&self) -> Option<u64> {
        self.retry_after.map(|d| d.as_secs_f64().ceil().max(1.0) as u64)
    }
}
