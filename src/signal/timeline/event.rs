//! The events of a timeline.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::candidate::Candidate;
use crate::credential::AuthFailure;
use crate::signal::call::CallStatus;

/// A word out of a few.
pub(crate) type Word = &'static str;

/// Why somebody left.
const REASONS: [Word; 4] = ["left", "lost", "kicked", "ended"];

/// Reads a reason, or where a credential failed; a word of another version says nothing here.
fn word<'de, D: Deserializer<'de>>(reader: D) -> Result<Word, D::Error> {
    let text = String::deserialize(reader)?;
    let mut words = REASONS.into_iter().chain(AuthFailure::STEPS);
    Ok(words.find(|word| *word == text).unwrap_or("unknown"))
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Milliseconds since the timeline began.
    pub(crate) at: u32,
    /// Whose it is, as its place among the parties.
    pub(crate) who: Option<u8>,
    /// What happened.
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// The caller called.
    Initiated,
    /// The callee was told of it.
    Ringing,
    /// The callee took the call.
    Accepted,
    /// The call is over.
    Ended {
        /// How.
        status: CallStatus,
    },
    /// It went on in a new process; what the one before had not written down is not known any more.
    Restored,
    /// Somebody entered the room.
    Joined,
    /// A member's socket is gone, and may come back.
    Away,
    /// It came back.
    Back,
    /// Somebody left.
    Left {
        /// `left`, `lost`, `kicked` or `ended`.
        #[serde(deserialize_with = "word")]
        reason: Word,
    },
    /// Relay credentials were handed out.
    Credentials,
    /// A description that asks.
    Offer,
    /// A description that answers.
    Answer,
    /// A wish for new negotiation.
    Restart,
    /// The first candidate of its type and protocol; those after it are counted.
    Candidate(Candidate),
    /// What a client says about its connection.
    State {
        /// The word.
        state: PeerState,
    },
    /// The relay did not believe the credentials.
    AuthFailed {
        /// The step that failed, as in logs and metrics.
        #[serde(deserialize_with = "word")]
        step: Word,
    },
    /// The credentials were right, and the relay gave no allocation.
    NotAllocated {
        /// The STUN error code.
        code: u16,
    },
    /// The relay gave an allocation.
    Allocated {
        /// How the client reaches the relay.
        transport: RelayTransport,
        /// The families of its relayed addresses.
        relayed: Families,
    },
    /// The first byte was relayed on an allocation.
    FirstByte,
    /// An allocation has ended.
    Released {
        /// How the client reached the relay.
        transport: RelayTransport,
        /// How long it stood.
        seconds: u32,
        /// Payload that was relayed from the client.
        bytes_to_peer: u64,
        /// And to the client.
        bytes_to_client: u64,
    },
}

/// How a client reaches the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayTransport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

impl RelayTransport {
    /// The word on the wire and in the books.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }
}

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// One of each.
    Both,
}

/// The states of an `RTCPeerConnection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Nothing was tried yet.
    New,
    /// It is trying.
    Connecting,
    /// Packets flow.
    Connected,
    /// Packets have stopped, which may be for a moment.
    Disconnected,
    /// No path was found, or none is left.
    Failed,
    /// The page has closed it.
    Closed,
}

impl PeerState {
    /// The word clients use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Failed => "failed",
            Self::Closed => "closed",
        }
    }

    /// Reads the word of a client; there are others, which say nothing here.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let all =
            [Self::New, Self::Connecting, Self::Connected, Self::Disconnected, Self::Failed, Self::Closed];
        all.into_iter().find(|state| state.as_str() == word)
    }
}

/// What the relay tells of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayNews {
    /// The user it was made for.
    pub user: Box<str>,
    /// What it was made for: the name of a session's credentials, or a call; empty where it was for neither.
    pub scope: Box<str>,
    /// When, on the clock of the hub.
    pub at: Duration,
    /// What.
    pub step: RelayStep,
}

/// What happened with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayStep {
    /// The relay did not believe it.
    AuthFailed(&'static str),
    /// The relay gave no allocation, with this STUN error code.
    NotAllocated(u16),
    /// It gave one.
    Allocated {
        /// How the client reaches it.
        transport: RelayTransport,
        /// Families of the relayed addresses.
        relayed: Families,
    },
    /// It relayed the first byte.
    FirstByte,
    /// The allocation stands, and has carried more.
    Carried(Carried),
    /// The allocation has ended.
    Released(Carried),
}

/// What was relayed on an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Names the allocation.
    pub allocation: u64,
    /// How the client reaches it.
    pub transport: RelayTransport,
    /// For how long it has stood.
    pub lasted: Duration,
    /// Packets and bytes of payload from the client.
    pub to_peer: (u64, u64),
    /// The same to the client.
    pub to_client: (u64, u64),
}

impl Carried {
    /// Whether there is anything to count.
    pub(crate) fn is_something(&self) -> bool {
        (self.to_peer, self.to_client) != ((0, 0), (0, 0))
    }
}

impl RelayStep {
    /// The event of a timeline, if it is one.
    pub(crate) fn event(&self) -> Option<What> {
        Some(match *self {
            Self::AuthFailed(step) => What::AuthFailed { step },
            Self::NotAllocated(code) => What::NotAllocated { code },
            Self::Allocated { transport, relayed } => What::Allocated { transport, relayed },
            Self::FirstByte => What::FirstByte,
            Self::Carried(_) => return None,
            Self::Released(carried) => What::Released {
                transport: carried.transport,
                seconds: u32::try_from(carried.lasted.as_secs()).unwrap_or(u32::MAX),
                bytes_to_peer: carried.to_peer.1,
                bytes_to_client: carried.to_client.1,
            },
        })
    }
}
