//! One client's association: handshake, records in, records out.
//!
//! Wraps the `dimpl` state machine and hides what it does not know: that the first hello was answered without
//! it. It is brought to where it would be had it answered itself, by hellos it never hears of otherwise.

use std::time::Instant;

use dimpl::{Dtls, Error, Output};

use super::hello::{COOKIE_LEN, Hello, RANDOM_LEN};
use super::identity::{Identity, with_cookie};

/// Largest plaintext of a record (RFC 6347 §4.1.1, as in TLS).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// Bytes a record has beyond its plaintext: header, explicit nonce and tag of AES-GCM.
pub const MAX_OVERHEAD: usize = 13 + 8 + 16;

/// The association has failed or ended and is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

impl From<Error> for Failed {
    fn from(_: Error) -> Self {
        Self
    }
}

/// What a session has for the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// So many bytes of the buffer are a datagram for the client.
    Datagram(usize),
    /// So many bytes of the buffer are a message of the client.
    Data(usize),
    /// The handshake is complete.
    Connected,
    /// The client has closed (close_notify).
    Closed,
    /// The buffer must have so many bytes for what comes next.
    TooSmall(usize),
    /// Nothing until then.
    Wait(Instant),
}

/// A DTLS 1.2 association of the server's side.
pub struct Session {
    dtls: Dtls,
    random: [u8; RANDOM_LEN],
    cookie: [u8; COOKIE_LEN],
    /// What is added to the numbers of plaintext records.
    renumber: u64,
    is_connected: bool,
}

impl Session {
    /// Begins with the datagram of a hello whose `cookie` was found valid. Poll afterwards.
    ///
    /// # Errors
    /// [`Failed`] if the hello offers nothing this side speaks.
    pub fn accept(
        identity: &Identity,
        datagram: &[u8],
        hello: &Hello<'_>,
        cookie: [u8; COOKIE_LEN],
        now: Instant,
    ) -> Result<Self, Failed> {
        let mut dtls = Dtls::new_12(identity.config.clone(), identity.certificate.clone(), now);
        dtls.handle_timeout(now)?;
        let before = hello.message_seq;
        for message_seq in 0..before {
            with_cookie(cookie, || dtls.handle_packet(&bare_hello(message_seq)))?;
            // The request for the cookie, which was sent long ago.
            while let Output::Packet(_) = dtls.poll_output(&mut [0; 256]) {}
        }
        with_cookie(cookie, || dtls.handle_packet(datagram))?;
        // What cannot be read is passed over in silence. No buffer is large enough for a flight, so it stays.
        let is_answered = matches!(dtls.poll_output(&mut []), Output::BufferTooSmall { .. });
        if hello.is_whole && !is_answered {
            return Err(Failed);
        }
        Ok(Self {
            dtls,
            random: hello.random(),
            cookie,
            // RFC 6347 §4.2.1: the ServerHello has the record number of the hello it answers.
            renumber: hello.record_seq.wrapping_sub(u64::from(before)),
            is_connected: false,
        })
    }

    /// Whether this is the hello the session began with, sent again.
    #[must_use]
    pub fn began_with(&self, hello: &Hello<'_>) -> bool {
        self.random == hello.random()
    }

    /// Whether the handshake is complete.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Takes a datagram of the client. Poll afterwards.
    ///
    /// # Errors
    /// [`Failed`] ends the session. A record that cannot be authenticated is no error.
    pub fn handle(&mut self, datagram: &[u8], now: Instant) -> Result<(), Failed> {
        // Time matters to handshakes alone; data need not look at timers.
        if !self.is_connected || datagram.first() != Some(&CONTENT_DATA) {
            self.dtls.handle_timeout(now)?;
        }
        if self.is_connected {
            return Ok(self.dtls.handle_packet(datagram)?);
        }
        // The hello may have come in fragments, of which this is the last.
        Ok(with_cookie(self.cookie, || self.dtls.handle_packet(datagram))?)
    }

    /// Lets time pass: retransmits, or gives up. Poll afterwards.
    ///
    /// # Errors
    /// [`Failed`] when the handshake has taken too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Failed> {
        Ok(self.dtls.handle_timeout(now)?)
    }

    /// The next thing to do; its bytes are at the beginning of `buffer`.
    pub fn poll(&mut self, buffer: &mut [u8]) -> Event {
        loop {
            let len = match self.dtls.poll_output(buffer) {
                // While a hello is incomplete, the request for its cookie is repeated; the client is beyond that.
                Output::Packet(packet)
                    if packet.get(13) == Some(&HELLO_VERIFY_REQUEST) && !self.is_connected =>
                {
                    continue;
                }
                Output::Packet(packet) => packet.len(),
                Output::ApplicationData(data) => return Event::Data(data.len()),
                Output::BufferTooSmall { needed } => return Event::TooSmall(needed),
                Output::Timeout(at) => return Event::Wait(at),
                Output::CloseNotify => return Event::Closed,
                Output::Connected => {
                    self.is_connected = true;
                    return Event::Connected;
                }
                // Keys for SRTP and certificates of clients are not asked for.
                _ => continue,
            };
            renumber(&mut buffer[..len], self.renumber);
            return Event::Datagram(len);
        }
    }

    /// Encrypts a message; the datagram is polled. `None` if it is longer than [`MAX_PLAINTEXT`], the
    /// handshake is not complete, or the session cannot encrypt any more.
    pub fn seal(&mut self, message: &[u8], into: &mut [u8]) -> Option<usize> {
        if message.len() > MAX_PLAINTEXT || !self.is_connected {
            return None;
        }
        self.dtls.send_application_data(message).ok()?;
        match self.poll(into) {
            Event::Datagram(len) => Some(len),
            _ => None,
        }
    }

    /// Says goodbye: the datagram with the close_notify, if one can be said. The session is over.
    pub fn close(mut self, into: &mut [u8]) -> Option<usize> {
        self.dtls.close().ok()?;
        match self.poll(into) {
            Event::Datagram(len) => Some(len),
            _ => None,
        }
    }
}

const CONTENT_DATA: u8 = 23;

const HELLO_VERIFY_REQUEST: u8 = 3;

/// A hello without a cookie, as the library would have seen it before.
fn bare_hello(message_seq: u16) -> [u8; 67] {
    let mut hello = [0; 67];
    hello[..13].copy_from_slice(&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, message_seq as u8, 0, 54]);
    hello[13..25].copy_from_slice(&[1, 0, 0, 42, 0, message_seq as u8, 0, 0, 0, 0, 0, 42]);
    hello[25..27].copy_from_slice(&[254, 253]);
    hello[61..].copy_from_slice(&[0, 2, 0xC0, 0x2B, 1, 0]);
    hello
}

/// Adds `by` to the numbers of the plaintext records in a datagram.
fn renumber(datagram: &mut [u8], by: u64) {
    let mut rest = datagram;
    while by != 0
        && let Some((header, _)) = rest.split_first_chunk_mut::<13>()
    {
        if header[3..5] == [0, 0] {
            let mut number = [0; 8];
            number[2..].copy_from_slice(&header[5..11]);
            let number = u64::from_be_bytes(number).wrapping_add(by).to_be_bytes();
            header[5..11].copy_from_slice(&number[2..]);
        }
        let len = 13 + usize::from(u16::from_be_bytes([header[11], header[12]]));
        rest = rest.get_mut(len..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
