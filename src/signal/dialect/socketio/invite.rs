//! Seed 001: `call.invite`, `call.offer`, `call.answer`, `call.ice`, from user to user. A payload reaches
//! its like as it came, with `from` and `callId`.

use serde_json::value::RawValue;

use super::{Envelope, Fields, Kind, Limits, Refusal, Request, Sender, Verb, Vocabulary};
use crate::signal::call::{Call, CallStatus};
use crate::signal::json;

/// Reads an event of this vocabulary; `None` for those of others.
pub(super) fn request(
    name: &str,
    payload: &RawValue,
    fields: &Fields<'_>,
    limits: &Limits,
) -> Option<Result<Request, Refusal>> {
    let relay = |kind, canonical: Result<Box<RawValue>, Refusal>| {
        canonical.map(|canonical| {
            let message = fields.message(super::as_it_came(Vocabulary::Invite, kind, payload, canonical));
            // A call is between two: whom the client names is the other one.
            Request::Relay(super::Message { to: None, room: fields.call(), ..message })
        })
    };
    let call = |verb| Ok(Request::Call { verb, id: fields.call() });
    Some(match name {
        "call.invite" => Ok(Request::Invite { callee: fields.to(), payload: json::own(payload) }),
        "call.offer" => relay(Kind::Offer, fields.description("offer", limits)),
        "call.answer" => relay(Kind::Answer, fields.description("answer", limits)),
        "call.ice" => relay(Kind::Candidate, fields.candidate(limits)),
        "call.chat" => relay(Kind::Chat, fields.chat(limits)),
        "call.media" => relay(Kind::Media, fields.media()),
        "call.accept" => call(Verb::Accept),
        "call.reject" | "call.busy" => call(Verb::Reject),
        "call.cancel" | "call.end" => call(Verb::End),
        _ => return None,
    })
}

/// Name and payload of a relayed message.
pub(super) fn render(sender: &Sender, envelope: &Envelope) -> Option<(&'static str, String)> {
    let payload = envelope.payload.as_deref().map_or("null", RawValue::get);
    let (name, key) = match envelope.kind {
        Kind::Offer => ("call.offer", "offer"),
        Kind::Answer => ("call.answer", "answer"),
        Kind::Candidate if payload == "null" => return None,
        Kind::Candidate => ("call.ice", "candidate"),
        Kind::Chat => ("call.chat", "chat"),
        Kind::Media => ("call.media", "media"),
        Kind::State => ("call.state", "state"),
        Kind::Restart => ("call.restart", "restart"),
        Kind::Custom => ("call.custom", "data"),
    };
    let stamp = format!(r#""from":{},"callId":{}"#, json::text(&sender.shown()), json::text(&&*sender.room));
    let as_it_came = super::own_words(envelope, Vocabulary::Invite).filter(|text| text.starts_with('{'));
    let object = match as_it_came {
        Some(text) => super::extended(text, &stamp),
        None if envelope.kind == Kind::Chat => super::extended(&super::chat_object(payload), &stamp),
        None => format!(r#"{{"{key}":{payload},{stamp}}}"#),
    };
    Some((name, object))
}

/// What a user is told of a change of a call; `None` for the one who has caused it.
pub(crate) fn event(call: &Call, reader: &str) -> Option<(&'static str, String)> {
    let is_caller = *call.caller == *reader;
    let name = match call.status {
        CallStatus::Pending if is_caller => "call.ringing",
        CallStatus::Pending => "call.invite",
        CallStatus::Ongoing => "call.accept",
        CallStatus::Rejected => "call.reject",
        CallStatus::Cancelled => "call.cancel",
        CallStatus::Missed => "call.timeout",
        CallStatus::Ended | CallStatus::Failed => "call.end",
    };
    let other = if is_caller { &call.callee } else { &call.caller };
    let (from, id) = (json::text(&&**other), json::text(&&*call.id));
    let stamp = format!(r#""from":{from},"callId":{id},"status":"{}""#, call.status.as_str());
    let payload = call.media.as_deref().map_or("{}", RawValue::get);
    let object = if call.status == CallStatus::Pending { payload } else { "{}" };
    Some((name, super::extended(object, &stamp)))
}

/// What the other connections of a user are told when one of them has taken a call.
pub(crate) fn answered_elsewhere(call: &Call) -> (&'static str, String) {
    let id = json::text(&&*call.id);
    ("call.cancel", format!(r#"{{"callId":{id},"reason":"answered_elsewhere"}}"#))
}
