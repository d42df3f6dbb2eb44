//! Moderating over Socket.IO, in every vocabulary: `kick` and `mute` (seed 004), `webrtc:kick` (seed 002), `call.kick`
//! (seed 001). Whom it concerns hears `kicked` and `muted` with the same prefix. None of the seeds has it.

use std::sync::Arc;

use super::{Code, Fields, Refusal, Request, Vocabulary};
use crate::signal::dialect::native::Track;
use crate::signal::json;

/// What a moderator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Send somebody out.
    Kick,
    /// Have a track turned off.
    Mute(Track),
}

/// Reads an event of a moderator; `None` for those of others.
pub(super) fn request(name: &str, fields: &Fields<'_>) -> Option<Result<Request, Refusal>> {
    let verb = name.strip_prefix("webrtc:").or_else(|| name.strip_prefix("call.")).unwrap_or(name);
    Some(match verb {
        "kick" => measure(Ok(Measure::Kick), fields),
        "mute" => measure(track(fields).map(Measure::Mute), fields),
        _ => return None,
    })
}

fn measure(measure: Result<Measure, Refusal>, fields: &Fields<'_>) -> Result<Request, Refusal> {
    let to = fields.to().or_else(|| fields.user_id.as_ref().map(|user| user.0.clone()));
    let to = to.ok_or_else(|| {
        Refusal::new(Code::BadFrame, "it needs target_peer_id or user_id, the one it is about")
    })?;
    measure.map(|measure| Request::Moderate { measure, to })
}

fn track(fields: &Fields<'_>) -> Result<Track, Refusal> {
    let read = fields.track.and_then(|track| serde_json::from_str(track.get()).ok());
    read.ok_or_else(|| Refusal::new(Code::BadFrame, "mute needs track: audio, video or screen"))
}

/// What somebody is told who was sent out of a room.
#[must_use]
pub fn kicked(vocabulary: Vocabulary, room: &str, message: &str, seq: u64) -> Arc<str> {
    let rest = format!(r#""message":{}"#, json::text(&message));
    event(vocabulary, "kicked", room, &rest, seq)
}

/// What somebody is told whose track is to be turned off; `by` is the moderator's peer id.
#[must_use]
pub fn muted(vocabulary: Vocabulary, room: &str, track: Track, by: &str, seq: u64) -> Arc<str> {
    let rest = format!(r#""track":"{}","by":{}"#, track.as_str(), json::text(&by));
    event(vocabulary, "muted", room, &rest, seq)
}

fn event(vocabulary: Vocabulary, verb: &str, room: &str, rest: &str, seq: u64) -> Arc<str> {
    let (prefix, key) = match vocabulary {
        Vocabulary::Rooms => ("", "room_id"),
        Vocabulary::Webrtc | Vocabulary::WebrtcOld => ("webrtc:", "roomId"),
        Vocabulary::Invite => ("call.", "callId"),
    };
    super::emit(&format!("{prefix}{verb}"), &format!(r#"{{"{key}":{},{rest}}}"#, json::text(&room)), seq)
}
