//! What people who run seed 002's front-end look for in the server's log, in the words of its checklist. The hub says
//! that it happened; whether it is written down is its caller's choice, as users and rooms are named.

use std::fmt;
use std::sync::Arc;

use crate::signal::SessionId;
use crate::signal::envelope::Kind;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A socket has a session.
    Authenticated {
        /// Whose.
        user: Arc<str>,
    },
    /// A token was refused.
    NotAuthenticated,
    /// A client has said what it is.
    Connected {
        /// `doctor` or `patient`.
        role: &'static str,
        /// Its Socket.IO id.
        session: SessionId,
    },
    /// A client is in a room.
    Joined {
        /// Which.
        room: Arc<str>,
    },
    /// An offer or an answer came.
    Sending {
        /// Which of the two.
        kind: Kind,
        /// From whom.
        user: Arc<str>,
        /// For whom.
        room: Arc<str>,
    },
    /// It was delivered, or waits for whoever comes.
    Forwarded {
        /// Which of the two.
        kind: Kind,
        /// To whom.
        room: Arc<str>,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[WebRTC] ")?;
        let word = |kind: Kind| if kind == Kind::Offer { "Offer" } else { "Answer" };
        // A name that clients choose stays within its line.
        let name = |text: &'_ Arc<str>| text.escape_debug().to_string();
        match self {
            Self::Authenticated { user } => write!(f, "✅ Socket authenticated for user: {}", name(user)),
            Self::NotAuthenticated => f.write_str("❌ Socket auth failed"),
            Self::Connected { role, session } => {
                write!(f, "✅ Socket connected ({}): {session}", role.to_uppercase())
            }
            Self::Joined { room } => write!(f, "✅ Successfully joined room {}", name(room)),
            Self::Sending { kind, user, room } => {
                let word = word(*kind).to_uppercase();
                write!(f, "📤 User {} sending {word} to room {}", name(user), name(room))
            }
            Self::Forwarded { kind, room } => {
                write!(f, "✅ {} forwarded to room {}", word(*kind), name(room))
            }
        }
    }
}
