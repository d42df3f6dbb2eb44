//! The connection below a stream of messages: TCP, or TLS over TCP with the handshake done.
//!
//! To the reader and the writer both look alike. What TLS adds is bounded: nothing is encrypted while [`HELD`]
//! bytes wait for the connection, so the queue that drops relayed data is the writer's, in front of the
//! encryption, and what is dropped has cost nothing. Handshakes, certificates and ALPN are elsewhere.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream as StdStream;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token, event};
use rustls::ServerConnection;

use crate::io::splice::Duplex;

/// Bytes that may be encrypted before the connection is asked whether it takes them.
const HELD: usize = 16 * 1024;

/// Reads of the connection, of some 4 KiB each, before others have their turn: more than a slot takes, so that only
/// records without content reach it.
const READS: usize = 32;

/// A connection of a client.
#[derive(Debug)]
pub enum Socket {
    /// In the clear.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(Box<Tls>),
}

/// An established TLS session and the connection that carries it.
#[derive(Debug)]
pub struct Tls {
    socket: TcpStream,
    session: ServerConnection,
    /// Bytes encrypted since the connection last took everything.
    held: usize,
    /// There is something to read, or the end to be found, that the poll will not tell of.
    has_unread: bool,
}

impl Socket {
    /// A connection in the clear.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn plain(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Plain(TcpStream::from_std(stream)))
    }

    /// A connection whose TLS handshake is done. What `session` has read already comes first.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn tls(stream: StdStream, mut session: ServerConnection) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // A message is taken whole or not at all; `HELD` is the bound.
        session.set_buffer_limit(None);
        let socket = TcpStream::from_std(stream);
        Ok(Self::Tls(Box::new(Tls { socket, session, held: 0, has_unread: false })))
    }

    /// Whether the connection is inside TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The TCP connection.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    /// Whether there is something to read, or the end to be found, that the poll will not tell of.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unread,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(room),
            Self::Tls(tls) => tls.read(room),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    /// Inside TLS what is gathered becomes one record, taken whole or not at all, and may be held until the next
    /// flush.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(slices),
            Self::Tls(tls) => tls.encrypt(slices),
        }
    }

    /// Hands what was encrypted before to the connection.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.write_records(),
        }
    }
}

impl Duplex for Socket {
    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.finish(),
            Self::Tls(tls) => {
                tls.write_records()?;
                tls.session.send_close_notify();
                // The goodbye may wait; it is behind everything else.
                let _ = tls.write_records();
                Ok(())
            }
        }
    }
}

impl event::Source for Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.tcp_mut().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.tcp_mut().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.tcp_mut().deregister(registry)
    }
}

impl Socket {
    fn tcp_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut tls.socket,
        }
    }
}

impl Tls {
    /// Fills `room` as far as there is something, so that a short read means that nothing is left.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let (mut filled, mut reads) = (0, 0);
        let end = loop {
            match self.session.reader().read(&mut room[filled..]) {
                Ok(0) => break Ok(0),
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && reads < READS => {
                    reads += 1;
                    if let Err(e) = self.read_records() {
                        break Err(e);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    break Err(io::ErrorKind::Interrupted.into());
                }
                Err(e) => break Err(e),
            }
            if filled == room.len() {
                return Ok(filled);
            }
        };
        let is_pause = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        self.has_unread = !end.as_ref().is_err_and(is_pause);
        if filled > 0 { Ok(filled) } else { end }
    }

    /// Takes records from the connection and decrypts them.
    fn read_records(&mut self) -> io::Result<()> {
        loop {
            match self.session.read_tls(&mut self.socket) {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let processed = self.session.process_new_packets();
        if self.session.wants_write() {
            // A new key to acknowledge, or an alert; a connection in trouble shows when it is read.
            let _ = self.write_records();
        }
        processed.map(drop).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_records()?;
        let written = self.encrypt(&[IoSlice::new(bytes)])?;
        // What the connection does not take now is its to take later.
        let _ = self.write_records();
        Ok(written)
    }

    /// Makes a record; none while the connection does not take those before.
    fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.held >= HELD {
            self.write_records()?;
        }
        let written = self.session.writer().write_vectored(slices)?;
        self.held += written;
        Ok(written)
    }

    /// Writes the records that wait.
    fn write_records(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.held = 0;
        Ok(())
    }
}

impl Drop for Tls {
    /// Says goodbye as far as the connection takes it (RFC 8446 §6.1): whoever does not read cannot be told.
    fn drop(&mut self) {
        self.session.send_close_notify();
        let _ = self.write_records();
    }
}
