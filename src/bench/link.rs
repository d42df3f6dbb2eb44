//! A client's way to the server: a connected datagram socket, or a stream with RFC 8656 framing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::Transport;

/// Socket buffer asked for on every socket; the kernel cuts it to net.core.rmem_max.
const SOCKET_BUFFER: usize = 4 << 20;
/// Bytes a stream may have waiting; more and packets are refused instead.
const MAX_OUTBOX: usize = 256 << 10;
/// Datagrams read from one socket before the others get their turn.
pub(super) const READ_BUDGET: usize = 64;
/// Large enough for any datagram or framed message.
pub(super) const READ_BUFFER: usize = 64 << 10;

/// What became of a packet that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// On its way.
    Yes,
    /// No room: not sent.
    Full,
}

/// A datagram socket that never blocks, bound to `local`, with large buffers.
pub(super) fn bind_udp(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Smaller buffers than asked for show as losses in the generator, which the report names.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&local.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// The unspecified address and port of the same family.
pub(super) fn any_like(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Sends one datagram; a full buffer is no error.
pub(super) fn outcome(result: io::Result<usize>) -> io::Result<Sent> {
    match result {
        Ok(_) => Ok(Sent::Yes),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(Sent::Full)
        }
        // ENOBUFS: the interface's queue is full.
        Err(error) if error.raw_os_error() == Some(105) => Ok(Sent::Full),
        Err(error) => Err(error),
    }
}

/// Lets a socket send and receive runs of datagrams of `segment` bytes as one.
pub(super) fn use_runs(socket: &UdpSocket, segment: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return crate::io::linux::use_runs(socket, u16::try_from(segment).unwrap_or(u16::MAX));
    #[cfg(not(target_os = "linux"))]
    Err(io::Error::new(ErrorKind::Unsupported, format!("runs of {segment} bytes need Linux: {:?}", socket)))
}

/// One client's connection to the server.
pub(super) enum Link {
    /// Connected, so that the kernel filters and looks the route up once.
    Udp(UdpSocket),
    /// With what waits in both directions.
    Tcp(Box<Stream>),
}

impl Link {
    /// Opens a link from any port; a stream is still connecting when this returns.
    pub(super) fn connect(server: SocketAddr, transport: Transport) -> io::Result<Self> {
        Self::connect_from(0, server, transport)
    }

    /// Opens a link, over UDP from this port.
    pub(super) fn connect_from(port: u16, server: SocketAddr, transport: Transport) -> io::Result<Self> {
        match transport {
            Transport::Udp => {
                let mut local = any_like(server);
                local.set_port(port);
                let socket = bind_udp(local)?;
                socket.connect(server)?;
                Ok(Self::Udp(socket))
            }
            Transport::Tcp => {
                let stream = TcpStream::connect(server)?;
                Ok(Self::Tcp(Box::new(Stream::new(stream))))
            }
        }
    }

    /// Our own address.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(stream) => stream.socket.local_addr(),
        }
    }

    /// Makes `token` ready whenever there is something to do.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Udp(socket) => registry.register(socket, token, Interest::READABLE),
            Self::Tcp(stream) => {
                registry.register(&mut stream.socket, token, Interest::READABLE | Interest::WRITABLE)
            }
        }
    }

    /// Sends one packet as it is; ChannelData must come padded for a stream.
    pub(super) fn send(&mut self, packet: &[u8]) -> io::Result<Sent> {
        match self {
            Self::Udp(socket) => outcome(socket.send(packet)),
            Self::Tcp(stream) => stream.send(packet),
        }
    }

    /// Reads what is there, at most [`READ_BUDGET`] times, and hands each packet to `sink`. True when
    /// there is nothing left to read.
    pub(super) fn receive(&mut self, buffer: &mut [u8], mut sink: impl FnMut(&[u8])) -> io::Result<bool> {
        match self {
            Self::Udp(socket) => {
                for _ in 0..READ_BUDGET {
                    match socket.recv(buffer) {
                        Ok(len) => sink(&buffer[..len]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                        Err(error) => return Err(error),
                    }
                }
                Ok(false)
            }
            Self::Tcp(stream) => stream.receive(buffer, sink),
        }
    }
}

/// A TCP connection and the bytes that wait in either direction.
pub(super) struct Stream {
    socket: TcpStream,
    connected: bool,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Stream {
    fn new(socket: TcpStream) -> Self {
        Self { socket, connected: false, inbox: Vec::new(), outbox: Vec::new() }
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<Sent> {
        if self.outbox.len() + packet.len() > MAX_OUTBOX {
            self.flush()?;
            if self.outbox.len() + packet.len() > MAX_OUTBOX {
                return Ok(Sent::Full);
            }
        }
        self.outbox.extend_from_slice(packet);
        self.flush()?;
        Ok(Sent::Yes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.connected {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            if self.socket.peer_addr().is_err() {
                return Ok(());
            }
            self.connected = true;
            self.socket.set_nodelay(true)?;
        }
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(len) => drop(self.outbox.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], mut sink: impl FnMut(&[u8])) -> io::Result<bool> {
        self.flush()?;
        if !self.connected {
            return Ok(true);
        }
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(io::Error::new(ErrorKind::ConnectionReset, "the server hung up")),
                Ok(len) => self.inbox.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            let mut at = 0;
            while let Some((message, framed)) = next_message(&self.inbox[at..]) {
                sink(&self.inbox[at..at + message]);
                at += framed;
            }
            self.inbox.drain(..at);
        }
    }
}

/// Length of the message at the front of a stream, and with its padding (RFC 8656 §2.1, §12.5);
/// `None` when not all of it is there.
fn next_message(bytes: &[u8]) -> Option<(usize, usize)> {
    let header: [u8; 4] = *bytes.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let message = if header[0] & 0xC0 == 0x40 { 4 + length } else { 20 + length };
    let framed = message.next_multiple_of(4);
    (bytes.len() >= framed).then_some((message, framed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8656_12_5_channel_data_in_a_stream_is_padded() {
        let stream = [0x40, 0, 0, 1, b'x', 0, 0, 0, 0x40, 0, 0, 4];
        assert_eq!(next_message(&stream), Some((5, 8)));
        assert_eq!(next_message(&stream[..7]), None);
        assert_eq!(next_message(&stream[8..]), None);
        assert_eq!(next_message(&stream[..3]), None);
    }

    #[test]
    fn stun_in_a_stream_is_as_long_as_its_header_says() {
        let mut stream = vec![0; 28];
        stream[3] = 8;
        assert_eq!(next_message(&stream), Some((28, 28)));
        assert_eq!(next_message(&stream[..27]), None);
    }
}
