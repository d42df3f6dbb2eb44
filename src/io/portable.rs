//! One datagram a system call, on any system the standard library knows.
//!
//! A packet with a prefix or padding is put together in a scratch buffer, because there is no
//! portable gather. Replies of a wildcard socket leave from the address the routing table picks, so the
//! worker has a socket at each of the host's addresses beside it. IP header fields and ICMP errors stay
//! with the system: the standard library has no way to them.

use std::io;

use super::{
    Capabilities, Counters, Datagrams, PeerError, RecvBatch, SLOT_LEN, SendBatch, Sockets, UdpSocket,
};

/// Pending errors skipped in one read, so that a broken socket cannot hold the loop.
const MAX_ERRORS: usize = 16;

/// The portable backend.
pub struct Portable {
    scratch: Vec<u8>,
}

impl Portable {
    /// A backend with its scratch buffer.
    #[must_use]
    pub fn new() -> Self {
        Self { scratch: Vec::with_capacity(SLOT_LEN) }
    }
}

impl Default for Portable {
    fn default() -> Self {
        Self::new()
    }
}

impl Datagrams for Portable {
    fn prepare(&mut self, _socket: &mut UdpSocket) {}

    fn recv(
        &mut self,
        socket: &UdpSocket,
        into: &mut RecvBatch,
        limit: usize,
        counters: &mut Counters,
    ) -> bool {
        into.begin();
        let mut errors = 0;
        let mut room = limit.min(into.vacant());
        while room > 0 {
            counters.recv_calls += 1;
            match socket.inner.recv_from(into.vacant_memory()) {
                Ok((len, from)) => {
                    into.filled(from, None, len, len, 0);
                    counters.recv_packets += 1;
                    room -= 1;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    counters.recv_errors += 1;
                    errors += 1;
                    if errors == MAX_ERRORS {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn send(&mut self, sockets: &Sockets, batch: &SendBatch, received: &RecvBatch, counters: &mut Counters) {
        for flow in batch.flows().iter().filter(|flow| flow.route.socket.is_socket()) {
            let Some(socket) = sockets.get(flow.route.socket) else {
                counters.gone += batch.packets(flow).count() as u64;
                continue;
            };
            for packet in batch.packets(flow) {
                let [prefix, body, pad] = packet.parts(batch, received);
                let bytes = if prefix.is_empty() && pad.is_empty() {
                    body
                } else {
                    self.scratch.clear();
                    self.scratch.extend_from_slice(prefix);
                    self.scratch.extend_from_slice(body);
                    self.scratch.extend_from_slice(pad);
                    &self.scratch
                };
                send_one(socket, bytes, flow.route.to, counters);
            }
        }
    }

    fn peer_error(&mut self, _socket: &UdpSocket) -> Option<PeerError> {
        None
    }

    fn overflows(&self, _socket: &UdpSocket) -> u64 {
        0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

/// Sends one datagram. An error may be left over from an earlier packet to somebody else, so the
/// packet in hand is tried once more before it is given up.
fn send_one(socket: &UdpSocket, bytes: &[u8], to: std::net::SocketAddr, counters: &mut Counters) {
    let mut again = true;
    loop {
        counters.send_calls += 1;
        match socket.inner.send_to(bytes, to) {
            Ok(_) => {
                counters.send_packets += 1;
                return;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if again && e.kind() != io::ErrorKind::WouldBlock => again = false,
            Err(e) => return counters.failed(&e, 1),
        }
    }
}
