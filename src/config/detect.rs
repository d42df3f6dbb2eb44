//! `relay.detect_from`: which address the world sees, asked of a STUN server elsewhere.
//!
//! One Binding request (RFC 8489 §6.2.1) from the address relay sockets bind to, sent again twice. Blocks for
//! as long as [`WAITS`] at most.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use super::{StunServer, secret};
use crate::stun::{AttributeType, Class, Message, MessageWriter, Method, TransactionId};

/// When the request is sent again, and when the answer is given up.
const WAITS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_millis(1000), Duration::from_millis(2000)];

/// Under which address `server` sees `local`.
///
/// # Errors
/// Why that cannot be told, in words.
pub(super) fn seen_from(server: &StunServer, local: IpAddr) -> Result<IpAddr, String> {
    let family = if local.is_ipv4() { "IPv4" } else { "IPv6" };
    let address = (server.host.as_str(), server.port)
        .to_socket_addrs()
        .map_err(|e| format!("\"{}\" does not resolve: {e}", server.host))?
        .find(|address| address.is_ipv4() == local.is_ipv4())
        .ok_or_else(|| format!("\"{}\" has no {family} address", server.host))?;
    let mapped = ask(address, local).map_err(|e| format!("no answer from {address} to {local}: {e}"))?;
    let is_usable = mapped.is_ipv4() == local.is_ipv4()
        && !(mapped.is_unspecified() || mapped.is_loopback() || mapped.is_multicast());
    if is_usable { Ok(mapped) } else { Err(format!("{address} says {mapped}, which clients cannot reach")) }
}

fn ask(server: SocketAddr, local: IpAddr) -> Result<IpAddr, String> {
    let told = |e: std::io::Error| e.to_string();
    let socket = UdpSocket::bind((local, 0)).map_err(told)?;
    // Connected: nothing from elsewhere is read.
    socket.connect(server).map_err(told)?;
    let id = TransactionId(secret::random());
    let mut request = [0; 20];
    MessageWriter::new(&mut request, Class::Request, Method::BINDING, id)
        .finish()
        .expect("a header is 20 bytes");
    let mut problem = String::from("is UDP to it blocked?");
    for wait in WAITS {
        socket.send(&request).map_err(told)?;
        match wait_for(&socket, id, wait) {
            Ok(Some(mapped)) => return Ok(mapped),
            Ok(None) => {}
            // Nobody there now; the next attempt may find somebody.
            Err(e) => {
                problem = e.to_string();
                std::thread::sleep(wait / 4);
            }
        }
    }
    Err(problem)
}

/// The mapped address of the answer; `None` when it did not come in time.
fn wait_for(socket: &UdpSocket, id: TransactionId, wait: Duration) -> std::io::Result<Option<IpAddr>> {
    let deadline = Instant::now() + wait;
    let mut buffer = [0; 1500];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(len) => {
                if let Some(mapped) = mapped_address(&buffer[..len], id) {
                    return Ok(Some(mapped));
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// What a Binding success response says; `None` for anything else.
fn mapped_address(bytes: &[u8], id: TransactionId) -> Option<IpAddr> {
    let message = Message::parse(bytes).ok()?;
    if message.transaction() != id || message.class() != Class::Success || message.method() != Method::BINDING
    {
        return None;
    }
    let xored = message.attribute(AttributeType::XOR_MAPPED_ADDRESS).and_then(|a| a.as_xor_address(id));
    let plain = || message.attribute(AttributeType::MAPPED_ADDRESS).and_then(|a| a.as_address());
    xored.or_else(plain).map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A STUN server that drops the first request, then answers it with a foreign answer before its own.
    fn server(mapped: &'static str) -> StunServer {
        let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            for attempt in 0.. {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { return };
                let request = Message::parse(&buffer[..len]).unwrap();
                if attempt == 0 {
                    continue;
                }
                for id in [TransactionId([9; 12]), request.transaction()] {
                    let address = if id.0 == [9; 12] { "192.0.2.1:1" } else { mapped };
                    let mut reply = [0; 100];
                    let len = MessageWriter::new(&mut reply, Class::Success, Method::BINDING, id)
                        .xor_address(AttributeType::XOR_MAPPED_ADDRESS, address.parse().unwrap())
                        .finish()
                        .unwrap();
                    socket.send_to(&reply[..len], from).unwrap();
                }
            }
        });
        StunServer { host: "127.0.0.1".into(), port }
    }

    #[test]
    fn the_answer_to_our_own_request_counts() {
        assert_eq!(seen_from(&server("203.0.113.7:9"), LOCAL), Ok("203.0.113.7".parse().unwrap()));
    }

    #[test]
    fn an_address_nobody_can_reach_is_refused() {
        for useless in ["127.0.0.1:1", "0.0.0.0:1", "224.0.0.1:1", "[2001:db8::1]:1"] {
            let problem = seen_from(&server(useless), LOCAL).unwrap_err();
            assert!(problem.contains("clients cannot reach"), "{problem}");
        }
    }

    #[test]
    fn who_does_not_answer_is_named() {
        let nobody = UdpSocket::bind((LOCAL, 0)).unwrap();
        let server = StunServer { host: "127.0.0.1".into(), port: nobody.local_addr().unwrap().port() };
        assert!(seen_from(&server, LOCAL).unwrap_err().starts_with("no answer from 127.0.0.1:"));
        let unknown = StunServer { host: "no-such-host.invalid".into(), port: 3478 };
        assert!(seen_from(&unknown, LOCAL).unwrap_err().contains("does not resolve"));
        let server = StunServer { host: "127.0.0.1".into(), port: 3478 };
        assert!(seen_from(&server, "::1".parse().unwrap()).unwrap_err().contains("no IPv6 address"));
    }
}
