//! The languages clients speak. Each is one file: parse into the canonical [`Envelope`], render for
//! a recipient. A dialect decides words, never who gets what.

pub mod broadcast;
pub mod call;
pub mod native;
pub mod peerjs;
pub mod socketio;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MemberId;
use super::envelope::{Envelope, Refusal};
use super::room::Member;
use socketio::Vocabulary;

/// Who sent a message, as far as its recipients are told.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Its place in the room.
    pub member: MemberId,
    /// The room.
    pub room: Arc<str>,
    user: Arc<str>,
    name: Option<Arc<str>>,
    role: Option<Arc<str>>,
    is_guest: bool,
    peer: Option<Arc<str>>,
}

impl Sender {
    pub(crate) fn new(room: &Arc<str>, member: &Member) -> Self {
        Self {
            member: member.id,
            room: room.clone(),
            user: member.user.clone(),
            name: member.name.clone(),
            role: member.role.clone(),
            is_guest: member.is_guest,
            peer: member.peer.clone(),
        }
    }

    /// Somebody who is not in the room, but may speak in its chat.
    pub(crate) fn outside(room: &Arc<str>, user: Arc<str>, is_guest: bool) -> Self {
        Self { member: MemberId(0), room: room.clone(), user, name: None, role: None, is_guest, peer: None }
    }

    /// The user; of a guest, the name it gives itself.
    #[must_use]
    pub fn shown(&self) -> &str {
        match &self.name {
            Some(name) if self.is_guest => name,
            Some(_) | None => &self.user,
        }
    }

    /// The user, as quotas and calls know it.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The role, if there is one.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// What PeerJS clients call it: its own id there, or that of its place in the room.
    pub(crate) fn handle(&self) -> String {
        self.peer.as_deref().map_or_else(|| self.member.to_string(), str::to_owned)
    }

    /// Role, user and a part that is the server's own (seed 004).
    #[must_use]
    pub fn peer_id(&self) -> String {
        let role = self.role().unwrap_or("peer").to_ascii_lowercase();
        format!("{role}_{}_{}", self.shown(), self.member)
    }
}

/// The language of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dialect {
    /// Raw room broadcast on `/ws/signaling/{room}` (seed 000).
    Broadcast,
    /// Raw messages between the parties of a call on `/ws/webrtc/{call_id}` (seed 003).
    Call,
    /// Socket.IO (seeds 001, 002, 004).
    SocketIo(Vocabulary),
    /// PeerJS on `/peerjs`.
    PeerJs,
    /// `turnkey.v1` on `/v1/ws`.
    Native,
}

impl Dialect {
    /// Whether its clients confirm what they received, and come back with a resume secret.
    #[must_use]
    pub fn acknowledges(self) -> bool {
        match self {
            Self::Native | Self::SocketIo(_) => true,
            Self::Broadcast | Self::Call | Self::PeerJs => false,
        }
    }

    /// Whether its clients do not say at once what they received, so that their sockets are asked by a ping. A
    /// Socket.IO client says it when it comes back.
    #[must_use]
    pub fn is_asked(self) -> bool {
        self != Self::Native
    }

    /// Whether its clients take any offer at any time, whatever they have sent themselves. Such a
    /// client is the polite one toward every client that knows roles.
    #[must_use]
    pub fn always_yields(self) -> bool {
        match self {
            Self::Broadcast | Self::Call | Self::SocketIo(_) | Self::PeerJs => true,
            Self::Native => false,
        }
    }

    /// `envelope` as it came, where that is what a client of this dialect gets.
    #[must_use]
    pub fn verbatim(self, envelope: &Envelope) -> Option<&Arc<str>> {
        match self {
            Self::Broadcast | Self::Call => envelope.verbatim_in(self),
            Self::SocketIo(_) | Self::PeerJs | Self::Native => None,
        }
    }

    /// `envelope` from `sender` in this dialect's words; `None` where it has none for it.
    #[must_use]
    pub fn render(self, sender: &Sender, seq: u64, envelope: &Envelope) -> Option<Arc<str>> {
        if let Some(text) = self.verbatim(envelope) {
            return Some(text.clone());
        }
        match self {
            Self::Broadcast => broadcast::render(envelope),
            Self::Call => call::render(envelope),
            Self::SocketIo(vocabulary) => socketio::render(vocabulary, sender, seq, envelope),
            // Its messages belong to a connection, which the hub knows.
            Self::PeerJs => None,
            Self::Native => Some(native::render(sender.member, seq, envelope)),
        }
    }

    /// A refusal in this dialect's words.
    #[must_use]
    pub fn refuse(self, reference: Option<&str>, refusal: &Refusal) -> Arc<str> {
        match self {
            Self::Broadcast | Self::Call => broadcast::refuse(refusal),
            Self::SocketIo(_) => socketio::refuse(reference, refusal),
            Self::PeerJs => peerjs::refuse(refusal),
            Self::Native => native::refuse(reference, refusal),
        }
    }
}
