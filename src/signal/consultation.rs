//! Consultations (seed 004): an appointed meeting of a doctor and a patient. Its room is open to its
//! attendees only, each with access tokens of the server's own that end with the appointment. Both
//! roles are given at creation; whom a client says it is, is not believed.

mod kept;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

pub(crate) use kept::Kept;

use super::MemberId;
use super::envelope::{Code, Refusal};
use super::identity::{Grants, Identity, Rooms};
use super::json;
use super::limits::Limits;
use super::session::hash;

/// How long after its appointed end a consultation may still go on.
const GRACE: u64 = 3600;

/// How long a consultation without an appointed end may go on.
const UNAPPOINTED: u64 = 24 * 3600;

/// Access tokens of one attendee that are valid beside each other: its tabs and devices.
const TOKENS: usize = 4;

/// What an attendee is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Calls, and ends the consultation.
    Doctor,
    /// Is called.
    Patient,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Doctor => "DOCTOR",
            Self::Patient => "PATIENT",
        }
    }
}

/// One consultation.
#[derive(Clone, Debug, Serialize)]
pub struct Consultation {
    /// Its id; unguessable.
    #[serde(rename = "session_id")]
    pub id: Arc<str>,
    /// The room its attendees meet in.
    #[serde(rename = "room_id")]
    pub room: Arc<str>,
    /// `scheduled`, `active` since somebody has joined, `ended`.
    pub status: &'static str,
    /// The doctor's user.
    #[serde(rename = "doctor_id")]
    pub doctor: Arc<str>,
    /// The patient's user.
    #[serde(rename = "patient_id")]
    pub patient: Arc<str>,
    /// As it was given.
    pub scheduled_start_time: Option<Box<str>>,
    /// As it was given.
    pub scheduled_end_time: Option<Box<str>>,
    /// Unix seconds; ISO 8601 on the wire, as the other times.
    #[serde(serialize_with = "json::time")]
    pub created_at: u64,
    /// When the first attendee joined.
    #[serde(serialize_with = "json::maybe_time")]
    pub started_at: Option<u64>,
    /// When it was ended.
    #[serde(serialize_with = "json::maybe_time")]
    pub ended_at: Option<u64>,
    /// When its tokens end, whatever happens.
    #[serde(serialize_with = "json::time")]
    pub expires_at: u64,
    /// From the first join to the end.
    pub session_duration_minutes: Option<u64>,
    /// Who has joined.
    pub attendees: Vec<Attendee>,
    #[serde(skip)]
    creator: Arc<str>,
    /// What its timer is set to.
    #[serde(skip)]
    pub(crate) armed: Option<Duration>,
}

/// One who has joined.
#[derive(Clone, Debug, Serialize)]
pub struct Attendee {
    /// Its id.
    pub attendee_id: Box<str>,
    /// What the others in the room call it.
    pub peer_id: String,
    /// The user.
    pub user_id: Arc<str>,
    /// Doctor or patient.
    pub role: Role,
    /// Its place in the room, whenever it enters.
    #[serde(skip)]
    pub(crate) member: MemberId,
    #[serde(skip)]
    tokens: Vec<[u8; 32]>,
}

/// An attendee, and the token that opens the room to it.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Who.
    pub attendee: Attendee,
    /// Shown once; the server keeps its hash.
    pub access_token: String,
}

/// What somebody wants of a consultation.
#[derive(Clone, Debug)]
pub enum ConsultationAction {
    /// Appoint one.
    Create {
        /// Who calls; the creator where nobody is named.
        doctor: Option<Arc<str>>,
        /// Who is called.
        patient: Arc<str>,
        /// ISO 8601.
        start: Option<Box<str>>,
        /// ISO 8601; tokens end an hour later.
        end: Option<Box<str>>,
    },
    /// Get a token for its room.
    Join(Arc<str>),
    /// End it for all.
    End(Arc<str>),
    /// End it for all, and forget it.
    Delete(Arc<str>),
    /// Look at it.
    View(Arc<str>),
}

/// Random bytes for what is created in one step.
pub(crate) type Chance = [u8; 64];

/// All consultations: those to come, those that go on, and for a while those that are over.
#[derive(Debug, Default)]
pub(crate) struct Consultations {
    all: HashMap<Arc<str>, Consultation>,
    rooms: HashMap<Arc<str>, Arc<str>>,
    /// How many that are not over somebody has created.
    created: HashMap<Arc<str>, usize>,
}

impl Consultation {
    /// Whether `user` is its doctor or its patient.
    #[must_use]
    pub fn role_of(&self, user: &str) -> Option<Role> {
        match user {
            user if *self.doctor == *user => Some(Role::Doctor),
            user if *self.patient == *user => Some(Role::Patient),
            _ => None,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended_at.is_some()
    }

    /// What the one in this place of the room is called.
    pub(crate) fn attendee_id(&self, member: MemberId) -> Option<&str> {
        let found = self.attendees.iter().find(|one| one.member == member);
        found.map(|one| &*one.attendee_id)
    }

    fn may_look(&self, who: &Identity) -> bool {
        self.role_of(&who.user).is_some() || self.creator == who.user || who.is_admin()
    }
}

impl Consultations {
    pub(crate) fn get(&self, id: &str) -> Option<&Consultation> {
        self.all.get(id)
    }

    /// The consultation whose room this is.
    pub(crate) fn of_room(&self, room: &str) -> Option<&Consultation> {
        self.rooms.get(room).and_then(|id| self.get(id))
    }

    /// One that `who` may know of; another looks like none.
    pub(crate) fn visible(&self, id: &str, who: &Identity) -> Result<&Consultation, Refusal> {
        let found = self.get(id).filter(|one| one.may_look(who));
        found.ok_or_else(|| Refusal::new(Code::NoSuchCall, "you have no such session"))
    }

    pub(crate) fn create(
        &mut self,
        who: &Identity,
        action: Appointment,
        unix: u64,
        chance: &Chance,
        limits: &Limits,
    ) -> Result<Consultation, Refusal> {
        let doctor = action.doctor.unwrap_or_else(|| who.user.clone());
        for (field, user) in [("doctor_id", &doctor), ("patient_id", &action.patient)] {
            if user.is_empty() || user.len() > limits.name {
                let message = format!("{field} has 1 to {} bytes", limits.name);
                return Err(Refusal::new(Code::BadFrame, message));
            }
        }
        if doctor == action.patient {
            return Err(Refusal::new(Code::BadFrame, "doctor_id and patient_id are the same user"));
        }
        let expires_at = expiry(action.start.as_deref(), action.end.as_deref(), unix)?;
        let count = self.created.get(&who.user).copied().unwrap_or_default();
        if count >= limits.consultations_per_user {
            return Err(Refusal::new(Code::RateLimited, "you have as many sessions as you may: end some"));
        }
        if self.all.len() >= limits.consultations {
            return Err(Refusal::new(Code::Busy, "the server has as many sessions as it may have"));
        }
        let id: Arc<str> = uuid(&chance[..16]).into();
        let room: Arc<str> = format!("room_{}", uuid(&chance[16..32])).into();
        let made = Consultation {
            id: id.clone(),
            room: room.clone(),
            status: "scheduled",
            doctor,
            patient: action.patient,
            scheduled_start_time: action.start,
            scheduled_end_time: action.end,
            created_at: unix,
            started_at: None,
            ended_at: None,
            expires_at,
            session_duration_minutes: None,
            attendees: Vec::new(),
            creator: who.user.clone(),
            armed: None,
        };
        self.created.insert(who.user.clone(), count + 1);
        self.rooms.insert(room, id.clone());
        self.all.insert(id, made.clone());
        Ok(made)
    }

    /// Gives a party a token; whoever joins again stays the attendee it was.
    pub(crate) fn join(
        &mut self,
        id: &str,
        who: &Identity,
        unix: u64,
        (member, chance): (MemberId, &Chance),
    ) -> Result<Admission, Refusal> {
        self.visible(id, who)?;
        let found = self.all.get_mut(id).expect("it is visible");
        let role = found.role_of(&who.user);
        let role = role.ok_or_else(|| Refusal::new(Code::Forbidden, "this session is between others"))?;
        if found.is_over() || found.expires_at <= unix {
            return Err(Refusal::new(Code::WrongState, "the session is over"));
        }
        found.started_at.get_or_insert(unix);
        found.status = "active";
        let at = match found.attendees.iter().position(|one| one.user_id == who.user) {
            Some(at) => at,
            None => {
                let word = role.as_str().to_ascii_lowercase();
                found.attendees.push(Attendee {
                    attendee_id: uuid(&chance[..16]).into(),
                    peer_id: format!("{word}_{}_{member}", who.user),
                    user_id: who.user.clone(),
                    role,
                    member,
                    tokens: Vec::new(),
                });
                found.attendees.len() - 1
            }
        };
        let attendee = &mut found.attendees[at];
        let access_token =
            chance[32..].iter().fold(String::from("at_"), |text, b| text + &format!("{b:02x}"));
        if attendee.tokens.len() >= TOKENS {
            attendee.tokens.remove(0);
        }
        attendee.tokens.push(hash(&access_token));
        Ok(Admission { attendee: attendee.clone(), access_token })
    }

    /// Ends it; one that is over stays as it ended.
    pub(crate) fn end(&mut self, id: &str, who: &Identity, unix: u64) -> Result<Consultation, Refusal> {
        let found = self.visible(id, who)?;
        let is_patient = found.role_of(&who.user) == Some(Role::Patient) && found.creator != who.user;
        if is_patient && !who.is_admin() {
            return Err(Refusal::new(Code::Forbidden, "the doctor ends the session; you can leave it"));
        }
        Ok(self.finish(id, unix).expect("it is visible"))
    }

    /// It is over.
    pub(crate) fn finish(&mut self, id: &str, unix: u64) -> Option<Consultation> {
        let found = self.all.get_mut(id)?;
        if !found.is_over() {
            found.ended_at = Some(unix);
            found.status = "ended";
            found.session_duration_minutes =
                Some(found.started_at.map_or(0, |at| unix.saturating_sub(at).div_ceil(60)));
            let creator = found.creator.clone();
            let count = self.created.remove(&creator).unwrap_or_default();
            if count > 1 {
                self.created.insert(creator, count - 1);
            }
        }
        self.all.get(id).cloned()
    }

    pub(crate) fn entry(&mut self, id: &str) -> Option<&mut Consultation> {
        self.all.get_mut(id)
    }

    /// Takes one back in that was written down.
    pub(crate) fn restore(&mut self, value: &str) -> serde_json::Result<()> {
        let found = Consultation::from(serde_json::from_str::<Kept>(value)?);
        if !found.is_over() {
            *self.created.entry(found.creator.clone()).or_default() += 1;
        }
        self.rooms.insert(found.room.clone(), found.id.clone());
        self.all.insert(found.id.clone(), found);
        Ok(())
    }

    /// The ids of all.
    pub(crate) fn ids(&self) -> Vec<Arc<str>> {
        self.all.keys().cloned().collect()
    }

    /// Forgets one that is over.
    pub(crate) fn forget(&mut self, id: &str) {
        if let Some(gone) = self.all.remove(id) {
            self.rooms.remove(&gone.room);
        }
    }

    /// Whom an access token lets into `room`.
    pub(crate) fn admits(&self, room: &str, token: &str, unix: u64) -> Option<Identity> {
        let found = self.of_room(room).filter(|one| !one.is_over() && one.expires_at > unix)?;
        let given = hash(token);
        let holds = |one: &&Attendee| one.tokens.iter().any(|known| bool::from(known.ct_eq(&given)));
        let attendee = found.attendees.iter().find(holds)?;
        Some(Identity {
            role: Some(attendee.role.as_str().into()),
            rooms: Rooms::Named([room.to_owned()].into()),
            grants: Grants::ALL,
            expires_at: Some(found.expires_at),
            ..Identity::member(attendee.user_id.clone())
        })
    }
}

/// What [`Consultations::create`] is asked for.
pub(crate) struct Appointment {
    pub(crate) doctor: Option<Arc<str>>,
    pub(crate) patient: Arc<str>,
    pub(crate) start: Option<Box<str>>,
    pub(crate) end: Option<Box<str>>,
}

/// When the tokens end.
fn expiry(start: Option<&str>, end: Option<&str>, unix: u64) -> Result<u64, Refusal> {
    let bad = |message: String| Refusal::new(Code::BadFrame, message);
    let read = |field: &str, text: &str| {
        let example = "2026-01-25T10:30:00Z";
        json::unix(text)
            .ok_or_else(|| bad(format!("{field} is a time as in {example}, UTC unless it says otherwise")))
    };
    let start = start.map(|text| read("scheduled_start_time", text)).transpose()?;
    let Some(end) = end.map(|text| read("scheduled_end_time", text)).transpose()? else {
        return Ok(start.unwrap_or(unix).max(unix) + UNAPPOINTED);
    };
    if start.is_some_and(|start| start > end) {
        return Err(bad("scheduled_end_time is before scheduled_start_time".into()));
    }
    if end + GRACE <= unix {
        return Err(bad("scheduled_end_time has passed".into()));
    }
    Ok(end + GRACE)
}

/// How long after `unix` the consultation ends by itself, or is forgotten because it has been over for `memory`.
pub(crate) fn life(consultation: &Consultation, unix: u64, memory: Duration) -> Duration {
    match consultation.ended_at {
        Some(at) => memory.saturating_sub(Duration::from_secs(unix.saturating_sub(at))),
        None => Duration::from_secs(consultation.expires_at.saturating_sub(unix)),
    }
}

/// A UUID of version 4, of 16 random bytes.
fn uuid(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let variant = ["8", "9", "a", "b"][usize::from(bytes[8] & 3)];
    format!("{}-{}-4{}-{variant}{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}
