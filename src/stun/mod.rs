//! STUN and TURN messages: bytes to meaning and back (RFC 8489, RFC 8656).
//!
//! Owns the wire format: header, attributes, integrity, FINGERPRINT, ChannelData, and telling the
//! three apart by their first bytes. Decoding is a view over the received bytes and allocates
//! nothing; encoding writes into a buffer of the caller. Keeps no state and takes no decision about
//! what a message is worth.

mod address;
mod attribute;
mod channel;
mod encode;
mod error_code;
mod header;
mod integrity;
mod message;

pub use attribute::{Attribute, AttributeType};
pub use channel::{CHANNEL_HEADER_LEN, ChannelData, ChannelNumber};
pub use encode::{BufferTooSmall, MessageWriter};
pub use error_code::ErrorCode;
pub use header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, message_type, split_message_type};
pub use integrity::{
    INTEGRITY_LEN, INTEGRITY_SHA256_LEN, Integrity, IntegrityKey, PasswordAlgorithm, userhash,
};
pub use message::{Message, ParseError};

/// What the first byte of a packet says it is (RFC 8656 §12, RFC 7983).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// 00xxxxxx: a STUN message.
    Stun,
    /// 01xxxxxx: ChannelData.
    ChannelData,
    /// Anything else, or nothing.
    Other,
}

/// Tells STUN, ChannelData and the rest apart.
#[must_use]
pub const fn classify(packet: &[u8]) -> PacketKind {
    match packet {
        [0x00..=0x3F, ..] => PacketKind::Stun,
        [0x40..=0x7F, ..] => PacketKind::ChannelData,
        _ => PacketKind::Other,
    }
}
