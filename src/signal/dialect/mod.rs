//! The languages clients speak. Each is one file: parse into the canonical [`Envelope`], render for
//! a recipient. A dialect decides words, never who gets what.

pub mod broadcast;
pub mod call;
pub mod native;

use std::sync::Arc;

use super::MemberId;
use super::envelope::{Envelope, Refusal};

/// The language of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Raw room broadcast on `/ws/signaling/{room}` (seed 000).
    Broadcast,
    /// Raw messages between the parties of a call on `/ws/webrtc/{call_id}` (seed 003).
    Call,
    /// `turnkey.v1` on `/v1/ws`.
    Native,
}

impl Dialect {
    /// Whether its clients confirm what they received, and come back with a resume secret.
    #[must_use]
    pub fn acknowledges(self) -> bool {
        match self {
            Self::Native => true,
            Self::Broadcast | Self::Call => false,
        }
    }

    /// Whether its clients take any offer at any time, whatever they have sent themselves. Such a
    /// client is the polite one toward every client that knows roles.
    #[must_use]
    pub fn always_yields(self) -> bool {
        match self {
            Self::Broadcast | Self::Call => true,
            Self::Native => false,
        }
    }

    /// `envelope` from `from` in this dialect's words; `None` where it has none for it.
    #[must_use]
    pub fn render(self, from: MemberId, seq: u64, envelope: &Envelope) -> Option<Arc<str>> {
        match self {
            Self::Broadcast => broadcast::render(envelope),
            Self::Call => call::render(envelope),
            Self::Native => Some(native::render(from, seq, envelope)),
        }
    }

    /// A refusal in this dialect's words.
    #[must_use]
    pub fn refuse(self, reference: Option<&str>, refusal: &Refusal) -> Arc<str> {
        match self {
            Self::Broadcast | Self::Call => broadcast::refuse(refusal),
            Self::Native => native::refuse(reference, refusal),
        }
    }
}
