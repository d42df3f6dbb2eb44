//! A consultation as the journal has it: with what no client sees, and times that are numbers.

use serde::{Deserialize, Serialize};

use super::{Attendee, Consultation, Role};
use crate::signal::MemberId;

/// One row.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    id: Box<str>,
    room: Box<str>,
    doctor: Box<str>,
    patient: Box<str>,
    creator: Box<str>,
    start: Option<Box<str>>,
    end: Option<Box<str>>,
    created_at: u64,
    started_at: Option<u64>,
    ended_at: Option<u64>,
    expires_at: u64,
    minutes: Option<u64>,
    attendees: Vec<KeptAttendee>,
}

#[derive(Serialize, Deserialize)]
struct KeptAttendee {
    id: Box<str>,
    peer: String,
    user: Box<str>,
    role: Role,
    member: MemberId,
    tokens: Vec<[u8; 32]>,
}

impl From<&Consultation> for Kept {
    fn from(from: &Consultation) -> Self {
        let attendee = |one: &Attendee| KeptAttendee {
            id: one.attendee_id.clone(),
            peer: one.peer_id.clone(),
            user: (&*one.user_id).into(),
            role: one.role,
            member: one.member,
            tokens: one.tokens.clone(),
        };
        Self {
            id: (&*from.id).into(),
            room: (&*from.room).into(),
            doctor: (&*from.doctor).into(),
            patient: (&*from.patient).into(),
            creator: (&*from.creator).into(),
            start: from.scheduled_start_time.clone(),
            end: from.scheduled_end_time.clone(),
            created_at: from.created_at,
            started_at: from.started_at,
            ended_at: from.ended_at,
            expires_at: from.expires_at,
            minutes: from.session_duration_minutes,
            attendees: from.attendees.iter().map(attendee).collect(),
        }
    }
}

impl From<Kept> for Consultation {
    fn from(kept: Kept) -> Self {
        let attendee = |one: KeptAttendee| Attendee {
            attendee_id: one.id,
            peer_id: one.peer,
            user_id: one.user.into(),
            role: one.role,
            member: one.member,
            tokens: one.tokens,
        };
        let status = match (kept.ended_at, kept.started_at) {
            (Some(_), _) => "ended",
            (None, Some(_)) => "active",
            (None, None) => "scheduled",
        };
        Self {
            id: kept.id.into(),
            room: kept.room.into(),
            status,
            doctor: kept.doctor.into(),
            patient: kept.patient.into(),
            creator: kept.creator.into(),
            scheduled_start_time: kept.start,
            scheduled_end_time: kept.end,
            created_at: kept.created_at,
            started_at: kept.started_at,
            ended_at: kept.ended_at,
            expires_at: kept.expires_at,
            session_duration_minutes: kept.minutes,
            attendees: kept.attendees.into_iter().map(attendee).collect(),
            armed: None,
        }
    }
}
