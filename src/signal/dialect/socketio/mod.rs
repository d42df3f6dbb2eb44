//! Socket.IO v5 packets (seeds 001, 002, 004), without the namespace, which is the transport's business:
//! `0{auth}` connect, `1` disconnect, `2[id]["event",…]` event, `3id[…]` acknowledgement, `4{…}` refused.
//!
//! One socket may speak three vocabularies; the first join decides which one it hears. Every event of
//! the server ends with its sequence number as a text: the stock client keeps it as the offset of its
//! connection state recovery.

pub mod invite;
pub mod moderate;
pub mod rooms;
pub mod webrtc;

use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::native::Hello;
use super::{Dialect, Sender};
use crate::signal::envelope::{Code, Envelope, Kind, Refusal, Verbatim};
use crate::signal::json;
use crate::signal::limits::Limits;
use moderate::Measure;

/// Why an event with attachments is refused.
const NO_BINARY: &str = "signaling has no binary attachments, send text";

/// Which names a Socket.IO client gives to things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Vocabulary {
    /// `call.invite`, `call.offer` … by user (seed 001); what a socket that has joined nothing hears.
    Invite,
    /// `webrtc:join_room`, `webrtc:offer` … (seed 002).
    Webrtc,
    /// The older names of seed 002: `join_consultation_room`, `webrtc_offer` ….
    WebrtcOld,
    /// `join_room`, `webrtc_offer` with peer ids … (seed 004).
    Rooms,
}

/// What a client asks for.
#[derive(Debug)]
pub enum Packet {
    /// The first packet: a token, and what to recover.
    Connect(Hello),
    /// The client leaves for good.
    Disconnect,
    /// An event, and the id of the acknowledgement it waits for.
    Event {
        /// As text.
        ack: Option<Box<str>>,
        /// What it asks for.
        request: Request,
    },
    /// The answer to an event of ours; we ask for none.
    Ack,
}

/// What an event asks for.
#[derive(Debug)]
pub enum Request {
    /// Enter a room.
    Join(Join),
    /// Leave it.
    Leave,
    /// A message to the others in the room.
    Relay(Message),
    /// Listen to the chat of a room.
    JoinChat(String),
    /// A line for the chat of a room, or of the one the socket is in.
    Chat(Message),
    /// What the client says it is.
    Identify(&'static str),
    /// Call a user.
    Invite {
        /// Whom.
        callee: Option<String>,
        /// The event's payload.
        payload: Box<RawValue>,
    },
    /// Accept, reject or end a call; the socket's only one where none is named.
    Call {
        /// What to do.
        verb: Verb,
        /// Which.
        id: Option<String>,
    },
    /// Send a member of the room out, or mute it.
    Moderate {
        /// Which of the two.
        measure: Measure,
        /// Peer id or user.
        to: String,
    },
}

impl Request {
    /// Whether it does no more than pass something on to those who are there.
    pub(crate) fn only_passes(&self) -> bool {
        match self {
            Self::Relay(message) => !message.envelope.kind.is_description(),
            Self::Chat(_) => true,
            Self::Join(_)
            | Self::Leave
            | Self::JoinChat(_)
            | Self::Identify(_)
            | Self::Invite { .. }
            | Self::Call { .. }
            | Self::Moderate { .. } => false,
        }
    }
}

/// What may be done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Take it.
    Accept,
    /// Refuse it.
    Reject,
    /// End it.
    End,
}

/// A wish to enter a room.
#[derive(Debug)]
pub struct Join {
    /// The names this client uses.
    pub vocabulary: Vocabulary,
    /// The room.
    pub room: String,
    /// Who the client says it is; a token's user wins.
    pub user: Option<String>,
    /// What the client says it is; a token's role wins.
    pub role: Option<String>,
    /// The token for the room.
    pub token: Option<String>,
}

/// A message on its way.
#[derive(Debug)]
pub struct Message {
    /// The room it names.
    pub room: Option<String>,
    /// The peer, user or member it names.
    pub to: Option<String>,
    /// The message.
    pub envelope: Envelope,
}

/// The fields of all vocabularies that decide where an event goes. Synonyms are read in their order.
#[derive(Default, Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(default, alias = "roomId", alias = "consultationId", alias = "consultation_id")]
    room_id: Option<Text>,
    #[serde(default, alias = "callId")]
    call_id: Option<Text>,
    #[serde(default, alias = "userId")]
    user_id: Option<Text>,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(
        default,
        alias = "target",
        alias = "targetUserId",
        alias = "calleeId",
        alias = "callee_id",
        alias = "receiverId",
        alias = "toUserId"
    )]
    to: Option<Text>,
    #[serde(default)]
    target_peer_id: Option<Text>,
    #[serde(default)]
    from_peer_id: Option<Text>,
    #[serde(borrow, default)]
    offer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    answer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sdp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    candidate: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    media: Option<&'a RawValue>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(borrow, default)]
    track: Option<&'a RawValue>,
}

/// A text, or a number written as one.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(u64),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::Text(text) => text,
            Either::Number(number) => number.to_string(),
        }))
    }
}

impl Fields<'_> {
    pub(super) fn room(&self) -> Option<String> {
        self.room_id.as_ref().or(self.call_id.as_ref()).map(|t| t.0.clone())
    }

    pub(super) fn call(&self) -> Option<String> {
        self.call_id.as_ref().or(self.room_id.as_ref()).map(|t| t.0.clone())
    }

    pub(super) fn to(&self) -> Option<String> {
        self.target_peer_id.as_ref().or(self.to.as_ref()).map(|t| t.0.clone())
    }

    pub(super) fn join(&self, vocabulary: Vocabulary) -> Result<Request, Refusal> {
        let room = self.room().filter(|room| !room.is_empty());
        let room = room.ok_or_else(|| Refusal::new(Code::BadFrame, "a join needs room_id"))?;
        Ok(Request::Join(Join {
            vocabulary,
            room,
            user: self.user_id.as_ref().map(|t| t.0.clone()),
            role: self.role.clone(),
            token: self.token.clone(),
        }))
    }

    pub(super) fn message(&self, envelope: Envelope) -> Message {
        Message { room: self.room(), to: self.to(), envelope }
    }

    /// A session description: nested, or as its parts.
    pub(super) fn description(&self, kind: &str, limits: &Limits) -> Result<Box<RawValue>, Refusal> {
        let own = if kind == "offer" { self.offer } else { self.answer };
        let found = own.or(self.description).or(self.sdp);
        let found = found.map(|raw| match raw.get().starts_with('"') {
            true => json::raw(format!(r#"{{"type":"{kind}","sdp":{raw}}}"#)),
            false => json::own(raw),
        });
        super::native::description(found.as_deref(), kind, limits)
    }

    pub(super) fn candidate(&self, limits: &Limits) -> Result<Box<RawValue>, Refusal> {
        super::native::candidate(self.candidate, limits)
    }

    /// The canonical chat message.
    pub(super) fn chat(&self, limits: &Limits) -> Result<Box<RawValue>, Refusal> {
        let text =
            self.message.ok_or_else(|| Refusal::new(Code::BadFrame, "a chat message needs message"))?;
        super::native::limit_size(text, limits.chat, "chat message")?;
        let time = self.timestamp.map_or("null", RawValue::get);
        Ok(json::raw(format!(r#"{{"message":{text},"timestamp":{time}}}"#)))
    }

    /// The canonical state of one track.
    pub(super) fn toggle(&self, track: &str) -> Result<Box<RawValue>, Refusal> {
        let enabled = self.enabled.ok_or_else(|| Refusal::new(Code::BadFrame, "a toggle needs enabled"))?;
        Ok(json::raw(format!(r#"{{"{track}":{enabled}}}"#)))
    }

    /// The canonical state of several tracks.
    pub(super) fn media(&self) -> Result<Box<RawValue>, Refusal> {
        let media = self.media.filter(|media| media.get().starts_with('{'));
        media
            .map(json::own)
            .ok_or_else(|| Refusal::new(Code::BadFrame, "a media state needs media, an object"))
    }

    pub(super) fn has_peer_ids(&self) -> bool {
        self.from_peer_id.is_some() || self.target_peer_id.is_some()
    }
}

/// Reads one packet.
///
/// # Errors
/// What is wrong with it, and the id of the acknowledgement it waits for.
pub fn parse(text: &str, limits: &Limits) -> Result<Packet, (Option<Box<str>>, Refusal)> {
    if json::is_deeper_than(text, limits.depth) {
        let message = format!("the packet is nested deeper than {} levels", limits.depth);
        return Err((None, Refusal::new(Code::TooDeep, message)));
    }
    let bad = |why: &str| (None, Refusal::new(Code::BadFrame, why));
    let kind = text.bytes().next().ok_or_else(|| bad("an empty packet"))?;
    let rest = text.get(1..).unwrap_or_default();
    match kind {
        b'0' => connect(rest).map(Packet::Connect).map_err(|refusal| (None, refusal)),
        b'1' => Ok(Packet::Disconnect),
        b'2' | b'5' => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (id, data) = rest.split_at(digits);
            if digits > 16 {
                return Err(bad("the acknowledgement's id has more than 16 digits"));
            }
            let ack: Option<Box<str>> = (digits > 0).then(|| id.into());
            if kind == b'5' {
                return Err((ack, Refusal::new(Code::BadFrame, NO_BINARY)));
            }
            match event(data, limits) {
                Ok(request) => Ok(Packet::Event { ack, request }),
                Err(refusal) => Err((ack, refusal)),
            }
        }
        b'3' | b'6' => Ok(Packet::Ack),
        _ => Err(bad("no Socket.IO packet of a client")),
    }
}

fn connect(text: &str) -> Result<Hello, Refusal> {
    #[derive(Default, Deserialize)]
    struct Auth {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        pid: Option<String>,
        #[serde(default)]
        offset: Option<String>,
    }
    let auth: Auth = match text {
        "" => Auth::default(),
        text => serde_json::from_str(text)
            .map_err(|e| Refusal::new(Code::BadFrame, format!("auth cannot be read: {e}")))?,
    };
    let last_seq = auth.offset.as_deref().and_then(|offset| offset.parse().ok());
    // Without an offset nothing was received yet, not even the event that comes with every connection.
    Ok(Hello { token: auth.token, resume: auth.pid, last_seq })
}

/// `["name", first argument, …]`.
struct Event<'a> {
    name: String,
    payload: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Event<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Arguments;
        impl<'de> Visitor<'de> for Arguments {
            type Value = Event<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array that begins with the event's name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let name = seq.next_element()?.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                let payload = seq.next_element()?;
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Event { name, payload })
            }
        }
        deserializer.deserialize_seq(Arguments)
    }
}

fn event(data: &str, limits: &Limits) -> Result<Request, Refusal> {
    let event: Event<'_> = serde_json::from_str(data)
        .map_err(|e| Refusal::new(Code::BadFrame, format!("the event cannot be read: {e}")))?;
    let payload = event.payload.unwrap_or(RawValue::NULL);
    let fields = match payload.get().as_bytes().first() {
        // A bare name where an object with a room is meant.
        Some(b'"') => {
            let room = serde_json::from_str(payload.get()).unwrap_or_default();
            Fields { room_id: Some(Text(room)), ..Fields::default() }
        }
        Some(b'{') => serde_json::from_str(payload.get())
            .map_err(|e| Refusal::new(Code::BadFrame, format!("the payload of {} : {e}", event.name)))?,
        _ => Fields::default(),
    };
    let name = event.name.as_str();
    let known = webrtc::request(name, payload, &fields, limits)
        .or_else(|| rooms::request(name, &fields, limits))
        .or_else(|| invite::request(name, payload, &fields, limits))
        .or_else(|| moderate::request(name, &fields));
    known.unwrap_or_else(|| {
        let shown: String = name.chars().take(32).collect();
        Err(Refusal::new(Code::UnknownType, format!("there is no event {shown:?}")))
    })
}

/// A relayed message in the recipient's vocabulary; `None` where it has no words for it.
#[must_use]
pub fn render(vocabulary: Vocabulary, sender: &Sender, seq: u64, envelope: &Envelope) -> Option<Arc<str>> {
    let (name, payload) = match vocabulary {
        Vocabulary::Invite => invite::render(sender, envelope)?,
        Vocabulary::Webrtc | Vocabulary::WebrtcOld => webrtc::render(vocabulary, sender, envelope)?,
        Vocabulary::Rooms => rooms::render(sender, envelope)?,
    };
    Some(emit(name, &payload, seq))
}

/// An event of the server.
#[must_use]
pub fn emit(name: &str, payload: &str, seq: u64) -> Arc<str> {
    format!(r#"2["{name}",{payload},"{seq}"]"#).into()
}

/// The answer to CONNECT. The stock client takes the session as recovered when `pid` is the one it had.
#[must_use]
pub fn connected(sid: &str, pid: &str) -> Arc<str> {
    format!(r#"0{{"sid":"{sid}","pid":"{pid}"}}"#).into()
}

/// Why a socket is not connected; `data` is what the client finds in its `connect_error`.
#[must_use]
pub fn connect_error(refusal: &Refusal) -> Arc<str> {
    let error = serde_json::json!({
        "message": refusal.message,
        "data": { "code": refusal.code.as_str(), "retry_after": refusal.retry_seconds() },
    });
    format!("4{error}").into()
}

/// What became of an event that waits for an acknowledgement.
#[must_use]
pub fn acknowledge(ack: &str, payload: &serde_json::Value) -> Arc<str> {
    format!("3{ack}[{payload}]").into()
}

/// A refusal: in the acknowledgement the client waits for, else as an `error` event outside of the
/// session's order.
#[must_use]
pub fn refuse(ack: Option<&str>, refusal: &Refusal) -> Arc<str> {
    let code = refusal.code.as_str();
    match ack {
        Some(ack) => acknowledge(
            ack,
            &serde_json::json!({
                "ok": false, "code": code, "message": refusal.message,
                "retry_after": refusal.retry_seconds(),
            }),
        ),
        None => {
            let error = serde_json::json!({
                "message": refusal.message, "code": code, "retry_after": refusal.retry_seconds(),
            });
            format!(r#"2["error",{error}]"#).into()
        }
    }
}

/// A canonical message that also keeps the payload it came with, for those who hear `vocabulary`.
pub(super) fn as_it_came(
    vocabulary: Vocabulary,
    kind: Kind,
    payload: &RawValue,
    canonical: Box<RawValue>,
) -> Envelope {
    let text = Arc::from(payload.get());
    let verbatim = Some(Verbatim { dialect: Dialect::SocketIo(vocabulary), text });
    Envelope { verbatim, ..envelope(kind, canonical) }
}

/// A canonical message without bytes of its own.
pub(super) fn envelope(kind: Kind, payload: Box<RawValue>) -> Envelope {
    let ufrag = if kind == Kind::Candidate { super::broadcast::ufrag_of(&payload) } else { None };
    Envelope { kind, payload: Some(payload), verbatim: None, ufrag }
}

/// `object` with further members; a member it has already is overruled, as the last of two counts.
pub(super) fn extended(object: &str, members: &str) -> String {
    let inner = object.trim().strip_prefix('{').and_then(|o| o.strip_suffix('}')).map(str::trim);
    match inner {
        Some("") | None => format!("{{{members}}}"),
        Some(inner) => format!("{{{inner},{members}}}"),
    }
}

/// The members of a chat message, which a client of another dialect may also send as a bare value.
pub(super) fn chat_object(payload: &str) -> std::borrow::Cow<'_, str> {
    match payload.starts_with('{') {
        true => payload.into(),
        false => format!(r#"{{"message":{payload},"timestamp":null}}"#).into(),
    }
}

/// Whether this envelope came in the words of `vocabulary`, and with which payload.
pub(super) fn own_words(envelope: &Envelope, vocabulary: Vocabulary) -> Option<&Arc<str>> {
    envelope.verbatim_in(Dialect::SocketIo(vocabulary))
}
