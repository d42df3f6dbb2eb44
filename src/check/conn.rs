//! Connections to a TURN server as the `turn` crate wants them: datagrams over a connected UDP socket,
//! or framed in a stream (RFC 8656 §2.1), which that crate has nothing for.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use webrtc_util::{Conn, Error};

use super::dial::Stream;

/// Bytes a stream may hold before a message is complete.
const MAX_INBOX: usize = 256 << 10;

/// A UDP socket that talks to the server, and when it is shared to others as well.
pub(super) struct UdpConn {
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    connected: bool,
}

impl UdpConn {
    /// Binds any port and connects it, so that the kernel reports a closed port.
    pub(super) async fn connect(server: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(any_like(server)).await?;
        socket.connect(server).await?;
        Ok(Self { socket: Arc::new(socket), server, connected: true })
    }

    /// Uses a socket that talks to others too.
    pub(super) fn sharing(socket: Arc<UdpSocket>, server: SocketAddr) -> Self {
        Self { socket, server, connected: false }
    }
}

/// The unspecified address and port of the same family.
pub(super) fn any_like(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    }
}

#[async_trait]
impl Conn for UdpConn {
    async fn connect(&self, _address: SocketAddr) -> Result<(), Error> {
        Ok(())
    }

    async fn recv(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        Ok(self.socket.recv_from(buffer).await?.0)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        Ok((self.recv(buffer).await?, self.server))
    }

    async fn send(&self, bytes: &[u8]) -> Result<usize, Error> {
        if self.connected {
            return Ok(self.socket.send(bytes).await?);
        }
        Ok(self.socket.send_to(bytes, self.server).await?)
    }

    async fn send_to(&self, bytes: &[u8], _target: SocketAddr) -> Result<usize, Error> {
        self.send(bytes).await
    }

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        Ok(self.socket.local_addr()?)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.server)
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

/// A stream, plain or TLS.
pub(super) struct StreamConn {
    reader: Mutex<Reader>,
    writer: Mutex<WriteHalf<Box<dyn Stream>>>,
    server: SocketAddr,
}

/// The reading half, and what was read of a message that is not complete.
type Reader = (ReadHalf<Box<dyn Stream>>, Vec<u8>);

impl StreamConn {
    /// Frames a connected stream.
    pub(super) fn new(stream: Box<dyn Stream>, server: SocketAddr) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader: Mutex::new((reader, Vec::new())), writer: Mutex::new(writer), server }
    }
}

#[async_trait]
impl Conn for StreamConn {
    async fn connect(&self, _address: SocketAddr) -> Result<(), Error> {
        Ok(())
    }

    async fn recv(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut guard = self.reader.lock().await;
        let (reader, inbox) = &mut *guard;
        // What was read stays in the inbox when this future is dropped half-way.
        while framed_len(inbox).is_none_or(|len| inbox.len() < len) {
            if inbox.len() > MAX_INBOX || reader.read_buf(inbox).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let len = framed_len(inbox).unwrap_or(inbox.len());
        let fitting = len.min(buffer.len());
        buffer[..fitting].copy_from_slice(&inbox[..fitting]);
        inbox.drain(..len);
        Ok(fitting)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        Ok((self.recv(buffer).await?, self.server))
    }

    async fn send(&self, bytes: &[u8]) -> Result<usize, Error> {
        let mut framed = bytes.to_vec();
        framed.resize(framed_len(bytes).unwrap_or(bytes.len()), 0);
        let mut writer = self.writer.lock().await;
        writer.write_all(&framed).await?;
        writer.flush().await?;
        Ok(bytes.len())
    }

    async fn send_to(&self, bytes: &[u8], _target: SocketAddr) -> Result<usize, Error> {
        self.send(bytes).await
    }

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        // Only its family is ever looked at.
        Ok(any_like(self.server))
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.server)
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(self.writer.lock().await.shutdown().await?)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

/// Bytes that the message at the front takes in a stream: ChannelData is padded to 4 (RFC 8656
/// §12.5), STUN messages are that long anyway.
fn framed_len(bytes: &[u8]) -> Option<usize> {
    let [first, _, high, low, ..] = *bytes else { return None };
    let length = usize::from(u16::from_be_bytes([high, low]));
    Some(if first & 0xC0 == 0x40 { 4 + length.next_multiple_of(4) } else { 20 + length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (StreamConn, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let any = SocketAddr::from(([127, 0, 0, 1], 1));
        (StreamConn::new(Box::new(ours), any), theirs)
    }

    #[tokio::test]
    async fn rfc8656_12_5_channel_data_is_padded_in_a_stream() {
        let (conn, mut other) = pair();
        conn.send(&[0x40, 0, 0, 1, b'x']).await.expect("sent");
        let mut framed = [9; 8];
        other.read_exact(&mut framed).await.expect("read");
        assert_eq!(framed, [0x40, 0, 0, 1, b'x', 0, 0, 0]);
    }

    #[tokio::test]
    async fn messages_are_cut_out_of_the_stream_whatever_the_pieces() {
        let (conn, mut other) = pair();
        let mut stun = [0; 24];
        stun[3] = 4;
        let stream = [&[0x40, 0, 0, 1, b'x', 0, 0, 0][..], &stun].concat();
        tokio::spawn(async move {
            for byte in stream {
                other.write_all(&[byte]).await.expect("written");
            }
        });
        let mut buffer = [0; 100];
        assert_eq!(conn.recv(&mut buffer).await.expect("first"), 8);
        assert_eq!(conn.recv(&mut buffer).await.expect("second"), 24);
        assert!(conn.recv(&mut buffer).await.is_err());
    }
}
