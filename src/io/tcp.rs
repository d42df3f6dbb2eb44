//! TCP sockets on relayed transport addresses (RFC 6062 §5): one that listens, and connections that
//! leave from the same port.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections of peers that may wait to be accepted.
const BACKLOG: i32 = 64;

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier relay on this port may still be in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Listens on exactly this address.
///
/// # Errors
/// Whatever `socket`, `bind` and `listen` answer; `AddrInUse` if anybody else listens there.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // Set only now, for the connections that are to leave from here: with it, bind would share the port
    // with any other listener of this user that set it too.
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Begins a connection from an address that [`listen`] has opened. It is established when the stream
/// has become writable and knows its peer.
///
/// # Errors
/// Whatever `socket`, `bind` and `connect` answer at once.
pub fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(from)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&from.into())?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        #[cfg(unix)]
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
        Err(e) => return Err(e),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Whether a failed accept concerns one connection that was gone before it, while the listener is well.
#[must_use]
pub fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let gone = [Kind::ConnectionAborted, Kind::ConnectionReset, Kind::ConnectionRefused, Kind::Interrupted];
    gone.contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_port_is_shared_with_its_own_connections_only() {
        let relay = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let here = relay.local_addr().unwrap();
        assert_eq!(listen(here).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(std::net::TcpListener::bind(here).is_err());
        let peers: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        for peer in &peers {
            let _leaving = connect(here, peer.local_addr().unwrap()).unwrap();
            assert_eq!(peer.accept().unwrap().1, here, "it leaves from the relay port");
        }
    }
}
