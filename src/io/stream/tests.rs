use super::super::{Fields, Route, SocketRef};
use super::*;

fn binding() -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0];
    message.extend(COOKIE);
    message.extend([7; 12]);
    message
}

fn channel_data(len: u16) -> Vec<u8> {
    let mut message = vec![0x40, 0x01];
    message.extend(len.to_be_bytes());
    message.extend((0..len).map(|n| n as u8));
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// Feeds `stream` in pieces of `step` bytes and returns the messages.
fn read_all(reader: &mut Reader, stream: &[u8], step: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut messages = Vec::new();
    let mut slot = vec![0xEE; SLOT_LEN];
    for piece in stream.chunks(step) {
        let held = reader.held();
        slot[held..held + piece.len()].copy_from_slice(piece);
        let Some(mut rest) = reader.begin(&mut slot, piece.len()) else { continue };
        while let Some(message) = reader.next(&slot, &mut rest)? {
            messages.push(slot[message].to_vec());
        }
    }
    Ok(messages)
}

#[test]
fn rfc8656_12_5_messages_survive_any_cut_of_the_stream() {
    let parts =
        [binding(), channel_data(0), channel_data(5), binding(), channel_data(65_535), channel_data(8)];
    let stream = parts.concat();
    for step in [1, 2, 3, 5, 7, 1448, 4096, SLOT_LEN - MAX_FRAME, stream.len().min(512)] {
        let mut reader = Reader::new();
        reader.trust();
        let messages = read_all(&mut reader, &stream, step).unwrap();
        let lengths: Vec<usize> = messages.iter().map(Vec::len).collect();
        assert_eq!(lengths, [20, 4, 9, 20, 65_539, 12], "step {step}");
        assert!(messages.iter().zip(&parts).all(|(message, part)| part.starts_with(message)));
        assert_eq!(reader.held(), 0);
    }
}

#[test]
fn garbage_is_told_by_its_first_bytes() {
    let garbage = |bytes: &[u8]| read_all(&mut Reader::new(), bytes, 1).unwrap_err();
    assert_eq!(garbage(&[0x80]), FrameError::Garbage);
    assert_eq!(garbage(b"G"), FrameError::Garbage);
    assert_eq!(garbage(&[0x16, 0x03, 0x01, 0x02]), FrameError::Garbage, "a TLS hello");
    assert_eq!(garbage(&[0, 1, 2, 0, 0x22, 0, 0, 0]), FrameError::Garbage);
    assert_eq!(garbage(&[0, 1, 0, 3]), FrameError::Garbage);
    let mut reader = Reader::new();
    let late = [binding(), vec![0xC0]].concat();
    assert_eq!(read_all(&mut reader, &late, 21), Err(FrameError::Garbage));
}

#[test]
fn an_unknown_client_may_not_announce_a_large_message() {
    let large = [binding(), channel_data(60_000)].concat();
    assert_eq!(read_all(&mut Reader::new(), &large, 1448), Err(FrameError::TooLarge));
    let mut reader = Reader::new();
    reader.trust();
    assert_eq!(read_all(&mut reader, &large, 1448).unwrap().len(), 2);
    assert!(frame(&[0, 0x16, 0xFF, 0xFC, 0x21, 0x12, 0xA4, 0x42], MAX_FRAME).is_ok());
}

/// A connection that takes `room` bytes and then blocks.
struct Pipe {
    room: usize,
    taken: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.room);
        if n == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= n;
        self.taken.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.write(&all)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Wire {
    writer: Writer,
    pipe: Pipe,
    received: RecvBatch,
}

impl Wire {
    fn new(room: usize) -> Self {
        Self { writer: Writer::new(), pipe: Pipe { room, taken: Vec::new() }, received: RecvBatch::new() }
    }

    /// Sends `count` packets of `len` bytes, each beginning with its number.
    fn send(&mut self, count: u32, len: usize, media: bool) -> Result<u64, Stuck> {
        let route =
            Route { socket: SocketRef(SocketRef::STREAM), to: ([127, 0, 0, 1], 1).into(), from: None };
        let mut dropped = 0;
        for chunk in (0..count).collect::<Vec<_>>().chunks(32) {
            let mut batch = SendBatch::new();
            for n in chunk {
                if media {
                    batch.push(route, Fields::default(), &n.to_be_bytes(), 0..len - 6, 2);
                } else {
                    batch.stage()[..4].copy_from_slice(&n.to_be_bytes());
                    batch.push_staged(route, len);
                }
            }
            let flow = batch.flows()[0];
            dropped += self.writer.send(&mut self.pipe, batch.packets(&flow), &batch, &self.received)?;
        }
        Ok(dropped)
    }

    fn drain(&mut self) {
        self.pipe.room = usize::MAX;
        self.writer.flush(&mut self.pipe);
        assert_eq!(self.writer.waiting(), 0);
    }

    fn numbers(&self, len: usize) -> Vec<u32> {
        assert_eq!(self.pipe.taken.len() % len, 0, "only whole messages have left");
        self.pipe.taken.chunks(len).map(|m| u32::from_be_bytes(m[..4].try_into().unwrap())).collect()
    }
}

#[test]
fn an_open_connection_takes_everything_at_once() {
    let mut wire = Wire::new(usize::MAX);
    assert_eq!(wire.send(100, 100, true), Ok(0));
    assert_eq!(wire.writer.queue.capacity(), 0);
    assert_eq!(wire.numbers(100), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_partly_written_message_is_finished_and_order_holds() {
    for room in [1, 3, 5, 99, 100, 101, 250, 3199] {
        let mut wire = Wire::new(room);
        assert_eq!(wire.send(64, 100, true), Ok(0));
        assert_eq!(wire.pipe.taken.len(), room);
        wire.drain();
        assert_eq!(wire.numbers(100), (0..64).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_queue_drops_media_and_stays_within_its_bound() {
    let mut wire = Wire::new(10);
    let dropped = wire.send(1000, 1000, true).unwrap();
    assert!(wire.writer.waiting() <= MEDIA_BOUND && wire.writer.waiting() > MEDIA_BOUND - 2000);
    let kept = 1000 - dropped as u32;
    wire.drain();
    assert_eq!(wire.numbers(1000), (0..kept).collect::<Vec<_>>());
    assert_eq!(wire.writer.queue.capacity(), 0, "the memory of a long queue is given back");
}

#[test]
fn replies_have_room_beyond_media_and_then_the_connection_is_given_up() {
    let mut wire = Wire::new(0);
    assert!(wire.send(1000, 1000, true).unwrap() > 0);
    assert_eq!(wire.send(60, 1000, false), Ok(0));
    assert_eq!(wire.send(10, 1000, false), Err(Stuck));
    assert!(wire.writer.waiting() <= CONTROL_BOUND);
}

#[test]
fn a_reader_that_trickles_does_not_grow_the_queue() {
    let mut wire = Wire::new(0);
    for _ in 0..2000 {
        wire.pipe.room = 900;
        wire.send(1, 1000, true).unwrap();
        assert!(wire.writer.queue.len() <= 2 * CONTROL_BOUND);
    }
}

/// A connection that takes each write whole while there is room, and shows them.
struct Records {
    room: usize,
    taken: Vec<Vec<u8>>,
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= 1;
        self.taken.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.write(&all)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn messages_kept_apart_are_written_one_by_one_from_the_queue_as_well() {
    let route = Route { socket: SocketRef(SocketRef::STREAM), to: ([127, 0, 0, 1], 1).into(), from: None };
    let mut batch = SendBatch::new();
    for n in 0..9_u8 {
        let message = channel_data(u16::from(n) * 3);
        batch.stage()[..message.len()].copy_from_slice(&message);
        batch.push_staged(route, message.len());
    }
    let mut records = Records { room: 4, taken: Vec::new() };
    let mut writer = Writer::new();
    writer.keep_messages_apart();
    let packets = batch.packets(&batch.flows()[0]);
    assert_eq!(writer.send(&mut records, packets, &batch, &RecvBatch::new()), Ok(0));
    assert_eq!(records.taken.len(), 4);
    records.room = 100;
    writer.flush(&mut records);
    let wanted: Vec<_> = (0..9).map(|n| channel_data(n * 3)).collect();
    assert_eq!((records.taken, writer.waiting()), (wanted, 0));
}
