//! Seed 002: `webrtc:join_room`, `webrtc:offer`, `webrtc:answer`, `webrtc:ice_candidate`, the older names
//! of the same, and the chat on the same socket. A payload reaches its like as it came, with `from`.

use serde_json::value::RawValue;

use super::{Envelope, Fields, Kind, Limits, Refusal, Request, Sender, Vocabulary};
use crate::signal::json;

/// Reads an event of this vocabulary; `None` for those of others.
pub(super) fn request(
    name: &str,
    payload: &RawValue,
    fields: &Fields<'_>,
    limits: &Limits,
) -> Option<Result<Request, Refusal>> {
    use Vocabulary::{Webrtc, WebrtcOld};
    let message = |kind, vocabulary, canonical: Result<Box<RawValue>, Refusal>| {
        canonical.map(|canonical| fields.message(super::as_it_came(vocabulary, kind, payload, canonical)))
    };
    let relay = |kind, vocabulary, canonical| message(kind, vocabulary, canonical).map(Request::Relay);
    Some(match name {
        "webrtc:join_room" => fields.join(Webrtc),
        "join_consultation_room" => fields.join(WebrtcOld),
        "webrtc:leave_room" => Ok(Request::Leave),
        "webrtc:offer" => relay(Kind::Offer, Webrtc, fields.description("offer", limits)),
        "webrtc:answer" => relay(Kind::Answer, Webrtc, fields.description("answer", limits)),
        "webrtc:ice_candidate" => relay(Kind::Candidate, Webrtc, fields.candidate(limits)),
        // The same names with peer ids are seed 004's.
        "webrtc_offer" if !fields.has_peer_ids() => {
            relay(Kind::Offer, WebrtcOld, fields.description("offer", limits))
        }
        "webrtc_answer" if !fields.has_peer_ids() => {
            relay(Kind::Answer, WebrtcOld, fields.description("answer", limits))
        }
        "webrtc_ice_candidate" => relay(Kind::Candidate, WebrtcOld, fields.candidate(limits)),
        "chat:join_room" => fields.join(Webrtc).map(|join| match join {
            Request::Join(join) => Request::JoinChat(join.room),
            other => other,
        }),
        "chat:send_message" => message(Kind::Chat, Webrtc, fields.chat(limits)).map(Request::Chat),
        "webrtc:media" => relay(Kind::Media, Webrtc, fields.media()),
        "identify_as_doctor" => Ok(Request::Identify("doctor")),
        "identify_as_patient" => Ok(Request::Identify("patient")),
        _ => return None,
    })
}

/// Name and payload of a relayed message.
pub(super) fn render(
    vocabulary: Vocabulary,
    sender: &Sender,
    envelope: &Envelope,
) -> Option<(&'static str, String)> {
    let is_old = vocabulary == Vocabulary::WebrtcOld;
    let payload = envelope.payload.as_deref().map_or("null", RawValue::get);
    let (name, key) = match envelope.kind {
        Kind::Offer if is_old => ("webrtc_offer", "offer"),
        Kind::Offer => ("webrtc:offer", "offer"),
        Kind::Answer if is_old => ("webrtc_answer", "answer"),
        Kind::Answer => ("webrtc:answer", "answer"),
        // `new RTCIceCandidate(null)` throws in pages that do not expect the end.
        Kind::Candidate if payload == "null" => return None,
        Kind::Candidate if is_old => ("webrtc_ice_candidate", "candidate"),
        Kind::Candidate => ("webrtc:ice_candidate", "candidate"),
        Kind::Chat => ("chat:message", "chat"),
        Kind::Media => ("webrtc:media", "media"),
        Kind::State => ("webrtc:state", "state"),
        Kind::Restart => ("webrtc:restart", "restart"),
        Kind::Custom => ("webrtc:custom", "data"),
    };
    let from = json::text(&sender.shown());
    let as_it_came = super::own_words(envelope, Vocabulary::Webrtc)
        .or_else(|| super::own_words(envelope, Vocabulary::WebrtcOld))
        .filter(|text| text.starts_with('{'));
    let object = match as_it_came {
        Some(text) => super::extended(text, &format!(r#""from":{from}"#)),
        None if envelope.kind == Kind::Chat => {
            super::extended(&super::chat_object(payload), &format!(r#""from":{from}"#))
        }
        None => {
            let room = json::text(&&*sender.room);
            format!(r#"{{"roomId":{room},"{key}":{payload},"from":{from}}}"#)
        }
    };
    Some((name, object))
}
