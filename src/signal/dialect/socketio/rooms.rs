//! Seed 004: `join_room`, `webrtc_offer` and `webrtc_answer` with peer ids, `ice_candidate`, toggles and
//! chat. Peer ids are the server's: whom a client says it is, is not believed.

use serde_json::value::RawValue;

use super::{Envelope, Fields, Kind, Limits, Refusal, Request, Sender, Vocabulary};
use crate::signal::json;

/// Reads an event of this vocabulary; `None` for those of others.
pub(super) fn request(name: &str, fields: &Fields<'_>, limits: &Limits) -> Option<Result<Request, Refusal>> {
    let relay = |kind, canonical: Result<Box<RawValue>, Refusal>| {
        canonical.map(|payload| Request::Relay(fields.message(super::envelope(kind, payload))))
    };
    Some(match name {
        "join_room" => fields.join(Vocabulary::Rooms),
        "leave_room" => Ok(Request::Leave),
        "webrtc_offer" => relay(Kind::Offer, fields.description("offer", limits)),
        "webrtc_answer" => relay(Kind::Answer, fields.description("answer", limits)),
        "ice_candidate" => relay(Kind::Candidate, fields.candidate(limits)),
        "toggle_audio" => relay(Kind::Media, fields.toggle("audio")),
        "toggle_video" => relay(Kind::Media, fields.toggle("video")),
        "screen_share" => relay(Kind::Media, fields.toggle("screen")),
        "send_message" => relay(Kind::Chat, fields.chat(limits)),
        _ => return None,
    })
}

/// Name and payload of a relayed message. A media state must be about one track, see [`tracks`].
pub(super) fn render(sender: &Sender, envelope: &Envelope) -> Option<(&'static str, String)> {
    let payload = envelope.payload.as_deref().map_or("null", RawValue::get);
    let from = json::text(&sender.peer_id());
    Some(match envelope.kind {
        Kind::Offer => ("webrtc_offer", format!(r#"{{"from_peer_id":{from},"offer":{payload}}}"#)),
        Kind::Answer => ("webrtc_answer", format!(r#"{{"from_peer_id":{from},"answer":{payload}}}"#)),
        // `addIceCandidate(null)` is fine, but an older browser's page may not expect it.
        Kind::Candidate if payload == "null" => return None,
        Kind::Candidate => ("ice_candidate", format!(r#"{{"from_peer_id":{from},"candidate":{payload}}}"#)),
        Kind::Media => {
            let (track, enabled) = tracks(payload).next()?;
            toggled(sender.shown(), track, enabled)
        }
        Kind::Chat => {
            let user = json::text(&sender.shown());
            ("chat_message", super::extended(&super::chat_object(payload), &format!(r#""user_id":{user}"#)))
        }
        Kind::Restart => ("renegotiate", format!(r#"{{"from_peer_id":{from}}}"#)),
        Kind::State | Kind::Custom => return None,
    })
}

/// The event that says a track is on or off.
pub(crate) fn toggled(user: &str, track: &str, enabled: bool) -> (&'static str, String) {
    let name = match track {
        "audio" => "audio_toggled",
        "video" => "video_toggled",
        _ => "screen_share_toggled",
    };
    (name, format!(r#"{{"user_id":{},"enabled":{enabled}}}"#, json::text(&user)))
}

/// The tracks a canonical media state is about.
pub(crate) fn tracks(payload: &str) -> impl Iterator<Item = (&'static str, bool)> + use<> {
    let state: serde_json::Map<String, serde_json::Value> = serde_json::from_str(payload).unwrap_or_default();
    let on = move |track: &'static str| state.get(track)?.as_bool().map(|on| (track, on));
    ["audio", "video", "screen"].into_iter().filter_map(on)
}
