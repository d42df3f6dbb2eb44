//! A connection that is ready for the relay: accepted, its addresses known, TLS established.

use std::io;
use std::net::{SocketAddr, TcpStream};

use crate::io::stream::Socket;

/// What a worker needs to take a client's connection over.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub(super) socket: Socket,
    /// Who it comes from.
    pub(super) client: SocketAddr,
    /// Where the client sees the server.
    pub(super) server: SocketAddr,
    /// Bytes that were read already.
    pub(super) first: Vec<u8>,
}

impl Arrival {
    /// A connection between the addresses its socket shows.
    ///
    /// # Errors
    /// When they cannot be read: the connection is gone.
    pub fn plain(stream: TcpStream, first: Vec<u8>) -> io::Result<Self> {
        let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
        Ok(Self::between(Socket::plain(stream)?, client, server, first))
    }

    /// A connection between these addresses, which a proxy may have told.
    #[must_use]
    pub fn between(socket: Socket, client: SocketAddr, server: SocketAddr, first: Vec<u8>) -> Self {
        Self { socket, client: canonical(client), server: canonical(server), first }
    }
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
