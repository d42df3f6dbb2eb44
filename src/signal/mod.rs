//! Signaling: how two browsers find each other.
//!
//! Owns rooms, members, sessions that outlive their sockets, the mailbox of early offers, and the
//! dialects. Pure: time, randomness and limits are arguments; sockets and tokens belong to `http`.
//! The contract of [`Hub`] is that of the relay's core:
//!
//! - time never goes backwards;
//! - after each `handle_*` the caller drains [`Hub::poll_output`] before the next one;
//! - a panic is a bug, never a consequence of input;
//! - identical inputs give identical outputs.

mod call;
mod consultation;
pub mod dialect;
mod envelope;
mod hub;
mod identity;
mod journal;
mod json;
mod limits;
mod line;
mod outbox;
mod rate;
mod room;
mod session;
mod stats;
mod timeline;
mod voids;

pub use call::{Call, CallAction, CallStatus};
pub use consultation::{Admission, Attendee, Consultation, ConsultationAction, Role};
pub use dialect::Dialect;
pub use envelope::{Code, Envelope, Kind, Refusal};
pub use hub::{AskedIce, Connect, Hub, Ice, Output, close, lease_name};
pub use identity::{ClientKey, Grants, Identity, Rooms};
pub use journal::{Change, Record, Row, Table, Usage};
pub use limits::Limits;
pub use line::Line;
pub use rate::{Bucket, PerClient, client_key};
pub use stats::Stats;
pub use timeline::{
    Candidate, CandidateKind, Carried, Cause, EventView, Families, PartyView, PeerState, Protocol, RelayNews,
    RelayStep, RelayTransport, TimelineView, Verdict, What, read_timeline,
};

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The two clocks of signaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since an arbitrary start; all windows are measured with it.
    pub mono: Duration,
    /// Seconds since 1970-01-01 UTC; tokens and credentials expire by it.
    pub unix: u64,
}

/// One socket, numbered by the caller; a number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// One session; it outlives its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub(crate) u64);

/// One member of one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberId(pub(crate) u64);

/// Hashes ids that were given out here; nobody else chooses them.
pub type OwnIds = foldhash::fast::FixedState;

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl MemberId {
    /// Reads what [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}
