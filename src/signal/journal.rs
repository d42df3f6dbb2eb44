//! What the hub writes down: the rows it is restored from, and the records that outlive it.
//!
//! Owns their shape only. The caller takes them with [`super::Hub::take_changes`], makes them durable, and only
//! then sends what the hub put out in the same turn: nothing is acknowledged that a crash could lose.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call::{Call, CallStatus};
use super::envelope::Kind;
use super::timeline::{RelayTransport, TimelineView};
use super::{MemberId, json};

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// A session; owner is its id.
    Session,
    /// A frame that waits for confirmation; owner is its session, number its place in the order.
    Frame,
    /// An answer that is given again to a repeated message; owner is its session.
    Answer,
    /// A consultation; owner is its id. Stands before the rooms, which are restored by it.
    Consultation,
    /// The timeline of a room that is in use or of a call that is not over; owner is the room. Stands before the
    /// rooms and calls, which go on with it.
    Timeline,
    /// A room with its members and mail; owner is its name.
    Room,
    /// A call; owner is its id.
    Call,
    /// What is valid no longer although it has not ended: a token that was used up, a user who was sent out of a
    /// room, relay credentials of who left; number is when it would have ended, in Unix seconds.
    Void,
}

impl Table {
    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Frame => "frame",
            Self::Answer => "answer",
            Self::Room => "room",
            Self::Call => "call",
            Self::Consultation => "consultation",
            Self::Timeline => "timeline",
            Self::Void => "void",
        }
    }

    /// Reads [`Self::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        use Table::{Answer, Call, Consultation, Frame, Room, Session, Timeline, Void};
        let all = [Session, Frame, Answer, Consultation, Timeline, Room, Call, Void];
        all.into_iter().find(|table| table.as_str() == word)
    }
}

/// One row. Table, owner and number name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub table: Table,
    /// Whose it is.
    pub owner: Box<str>,
    /// Which of the owner's it is; 0 where there is one only.
    pub number: u64,
    /// JSON.
    pub value: Box<str>,
}

/// One step of the journal.
#[derive(Clone, Debug)]
pub enum Change {
    /// The row is there, in place of any older one.
    Put(Row),
    /// The rows of an owner with these numbers are gone, the last one included.
    Drop {
        /// What they are about.
        table: Table,
        /// Whose they are.
        owner: Box<str>,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Something for the books.
    Record(Record),
}

impl Change {
    /// Whether nothing says it again, so that it is kept for a database that does not answer.
    #[must_use]
    pub fn is_said_once(&self) -> bool {
        match self {
            Self::Put(_) | Self::Drop { .. } => false,
            Self::Record(Record::Usage(usage)) => usage.is_over,
            Self::Record(_) => true,
        }
    }
}

/// What is kept for those who look later. Times are Unix seconds.
#[derive(Clone, Debug)]
pub enum Record {
    /// A call, as it is now.
    Call(Box<Call>),
    /// Somebody entered an empty room.
    Began {
        /// Names the time until the last one leaves.
        session: Box<str>,
        /// The room.
        room: Box<str>,
        /// When.
        at: u64,
    },
    /// The last one left the room.
    Ended {
        /// As in [`Self::Began`].
        session: Box<str>,
        /// When.
        at: u64,
    },
    /// Somebody entered.
    Joined {
        /// As in [`Self::Began`].
        session: Box<str>,
        /// Names this stay.
        attendee: Box<str>,
        /// The user; what a guest calls itself.
        user: Box<str>,
        /// The role, if there is one.
        role: Option<Box<str>>,
        /// The name others address it by.
        peer: Box<str>,
        /// When.
        at: u64,
    },
    /// What was relayed on an allocation, in place of what was said of it before.
    Usage(Box<Usage>),
    /// The timeline of a call or a room that is over, in place of an older one of that name.
    Timeline {
        /// The call's id; of a room, as in [`Self::Began`].
        name: Box<str>,
        /// What is kept.
        view: Box<TimelineView>,
    },
    /// Somebody left.
    Left {
        /// As in [`Self::Joined`].
        attendee: Box<str>,
        /// `left`, `lost` or `kicked`.
        reason: &'static str,
        /// When.
        at: u64,
    },
}

/// What was relayed on an allocation, for whom.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Names it.
    pub usage: Box<str>,
    /// The user its credentials were made for.
    pub user: Box<str>,
    /// What they were made for: a session, a call, or nothing in particular.
    pub scope: Box<str>,
    /// How the client reached the relay.
    pub transport: RelayTransport,
    /// Whether the allocation has ended.
    pub is_over: bool,
    /// When it ended, or until when this counts; in Unix seconds.
    pub ended_at: u64,
    /// How long it stood until then.
    pub lasted: Duration,
    /// Packets and bytes of payload from the client.
    pub to_peer: (u64, u64),
    /// The same to the client.
    pub to_client: (u64, u64),
}

/// A frame of an outbox as a row has it.
#[derive(Serialize, Deserialize)]
pub(crate) struct FrameValue {
    pub(crate) text: Box<str>,
    pub(crate) about: Option<(MemberId, Kind)>,
}

/// An answer as a row has it.
#[derive(Serialize, Deserialize)]
pub(crate) struct AnswerValue {
    pub(crate) id: Box<str>,
    pub(crate) answer: Box<str>,
}

/// A call as a row has it: times are numbers, unlike on the wire.
#[derive(Serialize, Deserialize)]
pub(crate) struct CallValue(#[serde(with = "CallFields")] pub(crate) Call);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Call")]
struct CallFields {
    id: Arc<str>,
    status: CallStatus,
    caller: Arc<str>,
    callee: Arc<str>,
    media: Option<Box<serde_json::value::RawValue>>,
    created_at: u64,
    updated_at: u64,
    accepted_at: Option<u64>,
    ended_at: Option<u64>,
    connection_state: Box<str>,
    ice_candidates_count: u32,
}

/// A digest of what was written last, to leave out what has not changed.
pub(crate) fn digest(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher as _};
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish().max(1)
}

/// A row with one of our own structures.
pub(crate) fn row<T: Serialize>(table: Table, owner: impl Into<Box<str>>, number: u64, value: &T) -> Row {
    Row { table, owner: owner.into(), number, value: json::text(value).into() }
}
