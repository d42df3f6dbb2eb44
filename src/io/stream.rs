//! TURN over a byte stream (RFC 8656 §2.1, §12.5): where a message ends, and a bounded write queue.
//!
//! The reader keeps only the incomplete end of what was read; complete messages are used where the
//! read has put them. The writer writes at once and queues what the connection does not take:
//! relayed data is dropped when the queue is full, replies have some room beyond that, and a message
//! of which a part has left is always finished.

mod socket;

use std::io::{self, IoSlice, Write};
use std::ops::Range;

pub use socket::Socket;

use super::{Packet, RecvBatch, SLOT_LEN, SendBatch};

/// Largest STUN message or padded ChannelData message there can be.
pub const MAX_FRAME: usize = 20 + 65_532;

/// Largest message taken from a client that has shown no allocation: no request is longer.
pub const MAX_UNKNOWN_FRAME: usize = 4096;

/// Bytes that may wait to be written before relayed data is dropped.
pub const MEDIA_BOUND: usize = 256 * 1024;

/// Bytes that may wait before the connection is given up.
pub const CONTROL_BOUND: usize = MEDIA_BOUND + 64 * 1024;

/// A queue that has grown beyond this is freed when it is empty again.
const KEPT_CAPACITY: usize = 16 * 1024;

/// Messages written with one call.
const GATHERED: usize = 64;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

const _: () = assert!(MAX_FRAME + 512 <= SLOT_LEN, "a slot takes a frame and some more of the stream");

/// Why a stream cannot be TURN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Neither a STUN message nor ChannelData begins here, or ChannelData is the very first.
    Garbage,
    /// The message is longer than the limit.
    TooLarge,
}

/// The message at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// More bytes are needed: how many there must be in all before anything more can be said.
    Partial(usize),
    /// A message of `len` bytes that takes `padded` bytes of the stream.
    Complete {
        /// Bytes of the message.
        len: usize,
        /// Bytes with padding.
        padded: usize,
    },
}

/// Looks at the beginning of `bytes`. Garbage is told from the first byte that shows it.
///
/// # Errors
/// See [`FrameError`].
pub fn frame(bytes: &[u8], limit: usize) -> Result<Frame, FrameError> {
    let Some(&first) = bytes.first() else { return Ok(Frame::Partial(4)) };
    let is_stun = match first >> 6 {
        0 => true,
        1 => false,
        _ => return Err(FrameError::Garbage),
    };
    if is_stun {
        let shown = bytes.get(4..).unwrap_or_default();
        if !shown.iter().zip(COOKIE).all(|(a, b)| *a == b) {
            return Err(FrameError::Garbage);
        }
    }
    let &[_, _, high, low, ..] = bytes else { return Ok(Frame::Partial(4)) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if is_stun && length % 4 != 0 {
        return Err(FrameError::Garbage);
    }
    let len = if is_stun { 20 + length } else { 4 + length };
    let padded = len.next_multiple_of(4);
    if padded > limit {
        return Err(FrameError::TooLarge);
    }
    Ok(match bytes.len() {
        // The cookie is looked at before the rest is waited for.
        ..8 if is_stun => Frame::Partial(8),
        have if have < padded => Frame::Partial(padded),
        _ => Frame::Complete { len, padded },
    })
}

/// Cuts a stream into messages. Holds the incomplete message between two reads, nothing else.
#[derive(Debug)]
pub struct Reader {
    partial: Vec<u8>,
    /// Bytes there must be before the held message can be complete.
    wanted: usize,
    limit: usize,
    /// A message has been seen, so this is no HTTP request that looks like ChannelData.
    begun: bool,
}

impl Reader {
    /// A reader at the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self { partial: Vec::new(), wanted: 0, limit: MAX_UNKNOWN_FRAME, begun: false }
    }

    /// Takes messages of any size from now on: the client has an allocation.
    pub fn trust(&mut self) {
        self.limit = MAX_FRAME;
    }

    /// Whether messages of any size are taken.
    #[must_use]
    pub fn trusts(&self) -> bool {
        self.limit == MAX_FRAME
    }

    /// How many bytes are held: a read puts what comes behind this offset of a slot.
    #[must_use]
    pub fn held(&self) -> usize {
        self.partial.len()
    }

    /// `slot` has `read` new bytes behind the offset [`Reader::held`]. Returns the part of the slot to
    /// take messages from with [`Reader::next`], or `None` if the held message is still incomplete.
    pub fn begin(&mut self, slot: &mut [u8], read: usize) -> Option<Range<usize>> {
        let held = self.partial.len();
        if held > 0 && held + read < self.wanted {
            self.partial.extend_from_slice(&slot[held..held + read]);
            return None;
        }
        slot[..held].copy_from_slice(&self.partial);
        self.partial.clear();
        Some(0..held + read)
    }

    /// The next message in `slot[rest]` as a range, padding excluded; `rest` moves behind it. `None`
    /// when only an incomplete one is left, which is then held.
    ///
    /// # Errors
    /// See [`FrameError`]; after `TooLarge` the call may be repeated if [`Reader::trust`] was called.
    pub fn next(&mut self, slot: &[u8], rest: &mut Range<usize>) -> Result<Option<Range<usize>>, FrameError> {
        let bytes = &slot[rest.clone()];
        if !self.begun && bytes.first().is_some_and(|first| first >> 6 != 0) {
            return Err(FrameError::Garbage);
        }
        match frame(bytes, self.limit)? {
            Frame::Complete { len, padded } => {
                self.begun = true;
                let start = rest.start;
                rest.start += padded;
                Ok(Some(start..start + len))
            }
            Frame::Partial(wanted) => {
                self.wanted = wanted;
                if self.partial.capacity() > KEPT_CAPACITY && bytes.is_empty() {
                    self.partial = Vec::new();
                }
                self.partial.extend_from_slice(bytes);
                rest.start = rest.end;
                Ok(None)
            }
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// The write queue overflowed: not even replies get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

/// Writes messages to a connection that may take them later.
#[derive(Debug, Default)]
pub struct Writer {
    queue: Vec<u8>,
    /// Bytes of the queue that have left.
    done: usize,
    /// Every message is written by itself.
    apart: bool,
}

impl Writer {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes every message by itself from now on, and flushes behind the last: a TLS record then holds one
    /// message. Clients that take each record for one message exist (coturn's among them).
    pub fn keep_messages_apart(&mut self) {
        self.apart = true;
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len() - self.done
    }

    /// The bytes that wait, for who takes the connection over.
    #[must_use]
    pub fn into_waiting(mut self) -> Vec<u8> {
        self.queue.drain(..self.done);
        self.queue
    }

    /// Writes packets, at once as far as the connection takes them. Returns how many were dropped
    /// because the queue is full.
    ///
    /// # Errors
    /// [`Stuck`] if a packet that must not be dropped does not fit. Errors of the connection are left to
    /// the next read to find.
    pub fn send(
        &mut self,
        to: &mut impl Write,
        mut packets: impl Iterator<Item = Packet>,
        batch: &SendBatch,
        received: &RecvBatch,
    ) -> Result<u64, Stuck> {
        if self.waiting() > 0 {
            self.flush(to);
        }
        if self.apart {
            return self.send_apart(to, packets, batch, received);
        }
        let mut dropped = 0;
        loop {
            let mut list: [Option<Packet>; GATHERED] = [None; GATHERED];
            let count =
                list.iter_mut().zip(packets.by_ref()).map(|(place, packet)| *place = Some(packet)).count();
            if count == 0 {
                return Ok(dropped);
            }
            let list = || list[..count].iter().flatten().copied();
            let mut written =
                if self.waiting() == 0 { gather::<{ 3 * GATHERED }>(to, list(), batch, received) } else { 0 };
            for packet in list() {
                let len = packet.len();
                if written >= len {
                    written -= len;
                    continue;
                }
                dropped += u64::from(!self.enqueue(&packet, written, batch, received)?);
                written = 0;
            }
        }
    }

    fn send_apart(
        &mut self,
        to: &mut impl Write,
        packets: impl Iterator<Item = Packet>,
        batch: &SendBatch,
        received: &RecvBatch,
    ) -> Result<u64, Stuck> {
        let mut dropped = 0;
        for packet in packets {
            let is_free = self.waiting() == 0;
            let written = if is_free { gather::<3>(to, std::iter::once(packet), batch, received) } else { 0 };
            if written < packet.len() {
                dropped += u64::from(!self.enqueue(&packet, written, batch, received)?);
            }
        }
        // An error is left to the next read to find.
        let _ = to.flush();
        Ok(dropped)
    }

    /// Queues what follows the first `written` bytes of a packet; `false` if it was dropped.
    fn enqueue(
        &mut self,
        packet: &Packet,
        written: usize,
        batch: &SendBatch,
        received: &RecvBatch,
    ) -> Result<bool, Stuck> {
        let after = self.waiting() + packet.len() - written;
        if written == 0 && packet.is_media() && after > MEDIA_BOUND {
            return Ok(false);
        }
        if written == 0 && after > CONTROL_BOUND {
            return Err(Stuck);
        }
        let mut skip = written;
        for part in packet.parts(batch, received) {
            let skipped = skip.min(part.len());
            skip -= skipped;
            self.queue.extend_from_slice(&part[skipped..]);
        }
        Ok(true)
    }

    /// Writes what waits, as far as the connection takes it.
    pub fn flush(&mut self, to: &mut impl Write) {
        while self.waiting() > 0 {
            match to.write_vectored(&[IoSlice::new(&self.queue[self.done..self.next_end()])]) {
                Ok(0) => break,
                Ok(written) => self.done += written,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if self.apart {
            let _ = to.flush();
        }
        if self.waiting() == 0 {
            self.done = 0;
            self.queue.clear();
            if self.queue.capacity() > KEPT_CAPACITY {
                self.queue = Vec::new();
            }
        } else if self.done > MEDIA_BOUND / 2 {
            self.queue.drain(..self.done);
            self.done = 0;
        }
    }

    /// Where what is written next ends in the queue.
    fn next_end(&self) -> usize {
        let frame =
            if self.apart { frame(&self.queue[self.done..], MAX_FRAME) } else { Ok(Frame::Partial(0)) };
        match frame {
            Ok(Frame::Complete { padded, .. }) => self.done + padded,
            Ok(Frame::Partial(_)) | Err(_) => self.queue.len(),
        }
    }
}

/// Writes whole packets with one call, `N` parts at most; returns the bytes that were taken.
fn gather<'a, const N: usize>(
    to: &mut impl Write,
    packets: impl Iterator<Item = Packet>,
    batch: &'a SendBatch,
    received: &'a RecvBatch,
) -> usize {
    let mut slices = [IoSlice::new(&[]); N];
    let parts = packets.flat_map(|packet| packet.parts(batch, received)).filter(|part| !part.is_empty());
    let count = slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count();
    loop {
        match to.write_vectored(&slices[..count]) {
            Ok(written) => return written,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return 0,
        }
    }
}

#[cfg(test)]
mod tests;
