//! Two byte streams joined into one (RFC 6062 §5.4): what one side sends the other receives, in both
//! directions, with bounded memory and half-close.
//!
//! Pure but for the streams it is given; any non-blocking stream will do. A direction reads only when
//! all it has read before has been written, so that a slow receiver slows its sender down.

use std::io::{self, ErrorKind, Read, Write};

/// A stream of which one direction can be ended.
pub trait Duplex: Read + Write {
    /// Tells the other side that nothing more will be sent.
    ///
    /// # Errors
    /// Whatever the stream answers; `WouldBlock` if what was written before has not left yet.
    fn finish(&mut self) -> io::Result<()>;
}

impl Duplex for mio::net::TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(std::net::Shutdown::Write)
    }
}

/// How far a [`Pipe`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It waits for one of its streams.
    Waiting,
    /// It had its share and could go on.
    More,
    /// The sender has ended and the receiver has been told.
    Ended,
}

/// One direction between two streams. Holds what was read and could not be written yet: never more
/// than one read.
#[derive(Debug, Default)]
pub struct Pipe {
    queue: Vec<u8>,
    /// Bytes of the queue that have left.
    done: usize,
    /// The sender has ended.
    is_over: bool,
    ended: bool,
}

impl Pipe {
    /// A direction that begins with `first`.
    #[must_use]
    pub fn new(first: Vec<u8>) -> Self {
        Self { queue: first, done: 0, is_over: false, ended: false }
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len() - self.done
    }

    /// Moves bytes until a stream would block, at most `share` reads into `scratch`. Returns the bytes
    /// that were written as well.
    ///
    /// # Errors
    /// An error of either stream: both are to be closed.
    pub fn pump(
        &mut self,
        from: &mut impl Read,
        to: &mut impl Duplex,
        scratch: &mut [u8],
        share: usize,
    ) -> io::Result<(Flow, u64)> {
        let mut moved = self.flush(to)?;
        for _ in 0..share {
            if self.waiting() > 0 {
                return Ok((Flow::Waiting, moved));
            }
            if self.is_over {
                return self.end(to).map(|flow| (flow, moved));
            }
            match from.read(scratch) {
                Ok(0) => self.is_over = true,
                Ok(read) => moved += self.pass(to, &scratch[..read])?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok((Flow::Waiting, moved)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok((Flow::More, moved))
    }

    fn end(&mut self, to: &mut impl Duplex) -> io::Result<Flow> {
        if !self.ended {
            match to.finish() {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Flow::Waiting),
                result => result?,
            }
            self.ended = true;
        }
        Ok(Flow::Ended)
    }

    /// Writes what was just read, and keeps what the stream does not take.
    fn pass(&mut self, to: &mut impl Write, bytes: &[u8]) -> io::Result<u64> {
        let written = write_some(to, bytes)?;
        self.queue.extend_from_slice(&bytes[written..]);
        Ok(written as u64)
    }

    fn flush(&mut self, to: &mut impl Write) -> io::Result<u64> {
        match to.flush() {
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
        let written = write_some(to, &self.queue[self.done..])?;
        self.done += written;
        if self.waiting() == 0 && self.done > 0 {
            // Streams that keep up need no memory.
            self.queue = Vec::new();
            self.done = 0;
        }
        Ok(written as u64)
    }
}

/// Writes until the stream would block; how many bytes it took.
fn write_some(to: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => written += len,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A stream that gives what it is told to and takes at most `room` bytes.
    #[derive(Default)]
    struct Fake {
        incoming: VecDeque<Vec<u8>>,
        is_closed: bool,
        taken: Vec<u8>,
        room: usize,
        finished: usize,
    }

    impl Read for Fake {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.incoming.pop_front() {
                Some(bytes) => {
                    into[..bytes.len()].copy_from_slice(&bytes);
                    Ok(bytes.len())
                }
                None if self.is_closed => Ok(0),
                None => Err(ErrorKind::WouldBlock.into()),
            }
        }
    }

    impl Write for Fake {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.room);
            if len == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= len;
            self.taken.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Duplex for Fake {
        fn finish(&mut self) -> io::Result<()> {
            self.finished += 1;
            Ok(())
        }
    }

    #[test]
    fn a_slow_receiver_slows_its_sender_down() {
        let mut from = Fake { incoming: vec![vec![7; 100]; 50].into(), ..Fake::default() };
        let mut to = Fake { room: 30, ..Fake::default() };
        let mut pipe = Pipe::new(b"first".to_vec());
        let mut scratch = [0; 128];
        assert_eq!(pipe.pump(&mut from, &mut to, &mut scratch, 100).unwrap(), (Flow::Waiting, 30));
        assert_eq!((pipe.waiting(), from.incoming.len()), (75, 49), "one read and no more");
        to.room = usize::MAX;
        assert_eq!(pipe.pump(&mut from, &mut to, &mut scratch, 10).unwrap().0, Flow::More);
        assert_eq!((pipe.waiting(), pipe.queue.capacity()), (0, 0), "no memory is kept");
        assert_eq!(pipe.pump(&mut from, &mut to, &mut scratch, 100).unwrap().0, Flow::Waiting);
        assert_eq!((&to.taken[..5], to.taken.len()), (&b"first"[..], 5005));
    }

    #[test]
    fn rfc6062_5_5_an_end_is_passed_on_behind_the_data() {
        let mut from = Fake { incoming: vec![vec![7; 100]].into(), is_closed: true, ..Fake::default() };
        let mut to = Fake { room: 60, ..Fake::default() };
        let mut pipe = Pipe::default();
        let mut scratch = [0; 128];
        assert_eq!(pipe.pump(&mut from, &mut to, &mut scratch, 9).unwrap().0, Flow::Waiting);
        assert_eq!(to.finished, 0, "40 bytes are still to come");
        to.room = 40;
        for _ in 0..2 {
            assert_eq!(pipe.pump(&mut from, &mut to, &mut scratch, 9).unwrap().0, Flow::Ended);
        }
        assert_eq!((to.finished, to.taken.len()), (1, 100));
    }
}
