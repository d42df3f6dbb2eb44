//! A received message as a view over its bytes. Parsing checks the framing of every attribute once
//! and allocates nothing.

use super::attribute::{Attribute, AttributeType};
use super::header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, split_message_type};
use super::integrity::{self, INTEGRITY_LEN, IntegrityKey};

/// Why bytes are no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter than the header.
    TooShort,
    /// The two top bits are not zero, or the magic cookie is missing.
    NotStun,
    /// The length field is no multiple of 4 or not what follows the header.
    BadLength,
    /// An attribute reaches beyond the end.
    BadAttribute,
    /// Something stands behind FINGERPRINT, or an integrity attribute has the wrong size.
    BadTrailer,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooShort => "shorter than a STUN header",
            Self::NotStun => "not STUN: top bits or magic cookie",
            Self::BadLength => "the length field does not match",
            Self::BadAttribute => "an attribute reaches beyond the end",
            Self::BadTrailer => "misplaced or missized integrity or fingerprint",
        })
    }
}

impl std::error::Error for ParseError {}

/// A STUN message. Attributes that stand behind an integrity attribute are invisible
/// (RFC 8489 §14.5), so nothing unprotected is ever read.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    /// Offset of the first attribute that is not for [`Message::attributes`].
    visible_end: usize,
    /// Offsets of the trailing attributes' headers.
    integrity: Option<usize>,
    integrity_sha256: Option<usize>,
    fingerprint: Option<usize>,
}

impl<'a> Message<'a> {
    /// Reads a message that fills `bytes` exactly.
    ///
    /// # Errors
    /// See [`ParseError`]; nothing of a message that fails is used.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(ParseError::TooShort)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let cookie = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if kind & 0xC000 != 0 || cookie != MAGIC_COOKIE {
            return Err(ParseError::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length % 4 != 0 || HEADER_LEN + length != bytes.len() {
            return Err(ParseError::BadLength);
        }
        let (class, method) = split_message_type(kind);
        let mut message = Self {
            bytes,
            class,
            method,
            visible_end: bytes.len(),
            integrity: None,
            integrity_sha256: None,
            fingerprint: None,
        };
        message.find_trailer()?;
        Ok(message)
    }

    /// Walks all attributes once: checks their framing and notes where the protected part ends.
    fn find_trailer(&mut self) -> Result<(), ParseError> {
        let mut walk = Walk { bytes: self.bytes, at: HEADER_LEN };
        loop {
            let offset = walk.at;
            let Some(attribute) = walk.next() else { break };
            let attribute = attribute.ok_or(ParseError::BadAttribute)?;
            if self.fingerprint.is_some() {
                return Err(ParseError::BadTrailer);
            }
            let (slot, sizes) = match attribute.kind {
                // RFC 8489 §14.6: behind MESSAGE-INTEGRITY-SHA256 only FINGERPRINT counts.
                AttributeType::MESSAGE_INTEGRITY if self.integrity_sha256.is_some() => continue,
                AttributeType::MESSAGE_INTEGRITY => (&mut self.integrity, 20..=20),
                AttributeType::MESSAGE_INTEGRITY_SHA256 => (&mut self.integrity_sha256, 16..=32),
                AttributeType::FINGERPRINT => (&mut self.fingerprint, 4..=4),
                _ => continue,
            };
            if !sizes.contains(&attribute.value.len()) || attribute.value.len() % 4 != 0 {
                return Err(ParseError::BadTrailer);
            }
            slot.get_or_insert(offset);
            self.visible_end = self.visible_end.min(offset);
        }
        Ok(())
    }

    /// Bytes of the whole message.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Request, indication or response.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What it asks for.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The id that a response repeats.
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        TransactionId(self.bytes[8..HEADER_LEN].try_into().expect("the header was checked"))
    }

    /// The protected attributes in order; those behind an integrity attribute are left out.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        Walk { bytes: &self.bytes[..self.visible_end], at: HEADER_LEN }.flatten()
    }

    /// The first attribute of this number (RFC 8489 §14: later duplicates are ignored).
    #[must_use]
    pub fn attribute(&self, kind: AttributeType) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }

    /// Whether the attribute is there.
    #[must_use]
    pub fn has(&self, kind: AttributeType) -> bool {
        self.attribute(kind).is_some()
    }

    /// Whether MESSAGE-INTEGRITY is there.
    #[must_use]
    pub const fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there.
    #[must_use]
    pub const fn has_integrity_sha256(&self) -> bool {
        self.integrity_sha256.is_some()
    }

    /// Whether FINGERPRINT is there.
    #[must_use]
    pub const fn has_fingerprint(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// Checks the stronger one of the integrity attributes that are there; false when there is none
    /// (RFC 8489 §9.2.4).
    #[must_use]
    pub fn verify(&self, key: &IntegrityKey) -> bool {
        match self.integrity_sha256 {
            Some(_) => self.verify_integrity_sha256(key),
            None => self.verify_integrity(key),
        }
    }

    /// Checks MESSAGE-INTEGRITY-SHA256; false when there is none, and when it is truncated
    /// (RFC 8489 §14.6).
    #[must_use]
    pub fn verify_integrity_sha256(&self, key: &IntegrityKey) -> bool {
        let Some(at) = self.integrity_sha256 else { return false };
        let length = usize::from(u16::from_be_bytes([self.bytes[at + 2], self.bytes[at + 3]]));
        let header = self.header_as_if_ending_at(at + 4 + length);
        key.verify_sha256(&header, &self.bytes[HEADER_LEN..at], &self.bytes[at + 4..at + 4 + length])
    }

    /// Checks MESSAGE-INTEGRITY; false when there is none (RFC 8489 §14.5).
    #[must_use]
    pub fn verify_integrity(&self, key: &IntegrityKey) -> bool {
        let Some(at) = self.integrity else { return false };
        let header = self.header_as_if_ending_at(at + 4 + INTEGRITY_LEN);
        key.verify(&header, &self.bytes[HEADER_LEN..at], &self.bytes[at + 4..at + 4 + INTEGRITY_LEN])
    }

    /// Checks FINGERPRINT; `None` when there is none (RFC 8489 §14.7).
    #[must_use]
    pub fn verify_fingerprint(&self) -> Option<bool> {
        let at = self.fingerprint?;
        let header = self.header_as_if_ending_at(at + 8);
        let expected = integrity::fingerprint(&header, &self.bytes[HEADER_LEN..at]);
        Some(self.bytes[at + 4..at + 8] == expected.to_be_bytes())
    }

    /// Where the value of an attribute of this message starts, as an offset into the bytes it was parsed from.
    #[must_use]
    pub fn value_offset(&self, attribute: &Attribute<'_>) -> usize {
        attribute.value.as_ptr().addr() - self.bytes.as_ptr().addr()
    }

    /// The header with the length an integrity check wants: up to and including that attribute.
    fn header_as_if_ending_at(&self, end: usize) -> [u8; HEADER_LEN] {
        let mut header: [u8; HEADER_LEN] =
            self.bytes[..HEADER_LEN].try_into().expect("the header was checked");
        let length = u16::try_from(end - HEADER_LEN).expect("within a message of 16-bit length");
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header
    }
}

/// Steps over attributes: `Some(None)` is one that reaches beyond the end.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Option<Attribute<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let attribute = (|| {
            let (header, body) = rest.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let value = body.get(..length)?;
            body.get(..length.next_multiple_of(4))?;
            let kind = AttributeType(u16::from_be_bytes([header[0], header[1]]));
            Some(Attribute { kind, value })
        })();
        self.at = match attribute {
            Some(attribute) => self.at + 4 + attribute.value.len().next_multiple_of(4),
            None => self.bytes.len(),
        };
        Some(attribute)
    }
}
