//! Writes a message into a buffer of the caller.

use std::net::SocketAddr;

use super::address;
use super::attribute::AttributeType;
use super::error_code::ErrorCode;
use super::header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, message_type};
use super::integrity::{self, INTEGRITY_LEN, INTEGRITY_SHA256_LEN, Integrity, IntegrityKey};

/// The buffer was too small for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferTooSmall;

impl std::fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the buffer is too small for the message")
    }
}

impl std::error::Error for BufferTooSmall {}

/// Writes one message from front to back. What does not fit is noted and reported by
/// [`MessageWriter::finish`], so that calls chain. Padding is zeroed: no old bytes leave.
#[derive(Debug)]
pub struct MessageWriter<'b> {
    buffer: &'b mut [u8],
    len: usize,
    transaction: TransactionId,
    overflow: bool,
}

impl<'b> MessageWriter<'b> {
    /// Starts a message.
    #[must_use]
    pub fn new(buffer: &'b mut [u8], class: Class, method: Method, transaction: TransactionId) -> Self {
        let mut writer = Self { buffer, len: 0, transaction, overflow: false };
        writer.put(&message_type(class, method).to_be_bytes());
        writer.put(&[0, 0]);
        writer.put(&MAGIC_COOKIE.to_be_bytes());
        writer.put(&transaction.0);
        writer
    }

    /// An attribute with any value, padded with zeros.
    pub fn attribute(&mut self, kind: AttributeType, value: &[u8]) -> &mut Self {
        let Ok(length) = u16::try_from(value.len()) else {
            self.overflow = true;
            return self;
        };
        self.put(&kind.0.to_be_bytes());
        self.put(&length.to_be_bytes());
        self.put(value);
        self.put(&[0; 3][..value.len().next_multiple_of(4) - value.len()]);
        self
    }

    /// An attribute with a 32-bit value.
    pub fn u32(&mut self, kind: AttributeType, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// A transport address in the clear (RFC 8489 §14.1).
    pub fn address(&mut self, kind: AttributeType, value: SocketAddr) -> &mut Self {
        let mut bytes = [0; address::MAX_LEN];
        let len = address::encode(value, &mut bytes);
        self.attribute(kind, &bytes[..len])
    }

    /// A transport address XOR-ed with cookie and transaction id (RFC 8489 §14.2).
    pub fn xor_address(&mut self, kind: AttributeType, value: SocketAddr) -> &mut Self {
        self.address(kind, address::xor(value, self.transaction))
    }

    /// ERROR-CODE (RFC 8489 §14.8).
    pub fn error(&mut self, error: ErrorCode) -> &mut Self {
        self.error_of(AttributeType::ERROR_CODE, 0, error)
    }

    /// ADDRESS-ERROR-CODE for an address family, 1 or 2 (RFC 8656 §18.12).
    pub fn address_error(&mut self, family: u8, error: ErrorCode) -> &mut Self {
        self.error_of(AttributeType::ADDRESS_ERROR_CODE, family, error)
    }

    fn error_of(&mut self, kind: AttributeType, family: u8, error: ErrorCode) -> &mut Self {
        let mut value = [0; 4 + 32];
        let reason = error.reason().as_bytes();
        value[0] = family;
        value[2] = (error.code() / 100) as u8;
        value[3] = (error.code() % 100) as u8;
        value[4..4 + reason.len()].copy_from_slice(reason);
        self.attribute(kind, &value[..4 + reason.len()])
    }

    /// MESSAGE-INTEGRITY over all that was written (RFC 8489 §14.5).
    pub fn integrity(&mut self, key: &IntegrityKey) -> &mut Self {
        self.set_length(4 + INTEGRITY_LEN);
        if !self.overflow {
            let (header, body) = self.buffer[..self.len].split_at(HEADER_LEN);
            let mac = key.sign(header, body);
            self.attribute(AttributeType::MESSAGE_INTEGRITY, &mac);
        }
        self
    }

    /// MESSAGE-INTEGRITY-SHA256 over all that was written (RFC 8489 §14.6).
    pub fn integrity_sha256(&mut self, key: &IntegrityKey) -> &mut Self {
        self.set_length(4 + INTEGRITY_SHA256_LEN);
        if !self.overflow {
            let (header, body) = self.buffer[..self.len].split_at(HEADER_LEN);
            let mac = key.sign_sha256(header, body);
            self.attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &mac);
        }
        self
    }

    /// The integrity attributes of a kind.
    pub fn sign(&mut self, key: &IntegrityKey, integrity: Integrity) -> &mut Self {
        match integrity {
            Integrity::Sha1 => self.integrity(key),
            Integrity::Sha256 => self.integrity_sha256(key),
            Integrity::Both => self.integrity(key).integrity_sha256(key),
        }
    }

    /// FINGERPRINT over all that was written; must be the last attribute (RFC 8489 §14.7).
    pub fn fingerprint(&mut self) -> &mut Self {
        self.set_length(8);
        if !self.overflow {
            let (header, body) = self.buffer[..self.len].split_at(HEADER_LEN);
            let value = integrity::fingerprint(header, body);
            self.u32(AttributeType::FINGERPRINT, value);
        }
        self
    }

    /// Sets the length field and returns the length of the whole message.
    ///
    /// # Errors
    /// [`BufferTooSmall`] when something did not fit.
    pub fn finish(&mut self) -> Result<usize, BufferTooSmall> {
        self.set_length(0);
        if self.overflow { Err(BufferTooSmall) } else { Ok(self.len) }
    }

    /// Writes the length field as if `more` bytes followed.
    fn set_length(&mut self, more: usize) {
        match u16::try_from(self.len.saturating_sub(HEADER_LEN) + more) {
            Ok(length) if !self.overflow => self.buffer[2..4].copy_from_slice(&length.to_be_bytes()),
            _ => self.overflow = true,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.len..self.len + bytes.len()) {
            Some(room) if !self.overflow => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.overflow = true,
        }
    }
}
