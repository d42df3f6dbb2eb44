//! A worker's part where all allocations share a relay port: its own socket on that port. The kernel gives
//! a peer's packets to any worker; the one that has the allocation gets them through its ring, and judges
//! them as if it had received them.

use std::net::SocketAddr;

use super::ring::{Label, Way};
use super::run::Worker;
use crate::io::{Datagrams, SocketRef, UdpSocket};
use crate::turn::{IpFields, RelayId, Verdict};

/// The shared sockets of one worker, one for each relay address.
pub(super) struct OnePort {
    /// The sockets' names begin here.
    first: u32,
    relays: Vec<SocketAddr>,
    /// By `RelayId`: which of the sockets it leaves through.
    by_relay: Vec<u8>,
}

impl OnePort {
    pub(super) fn new(first: u32, sockets: &[UdpSocket]) -> Self {
        Self { first, relays: sockets.iter().map(UdpSocket::local).collect(), by_relay: Vec::new() }
    }

    /// How many sockets there are.
    pub(super) fn sockets(&self) -> u32 {
        self.relays.len() as u32
    }

    /// Notes which socket a relay leaves through; `false` if none is bound to the address.
    pub(super) fn open(&mut self, relay: RelayId, bind: SocketAddr) -> bool {
        let Some(index) = self.relays.iter().position(|local| *local == bind) else { return false };
        let place = relay.0 as usize;
        if place >= self.by_relay.len() {
            self.by_relay.resize(place + 1, 0);
        }
        self.by_relay[place] = index as u8;
        true
    }

    /// The socket a relay leaves through.
    pub(super) fn name_of(&self, relay: RelayId) -> SocketRef {
        let index = self.by_relay.get(relay.0 as usize).copied().unwrap_or_default();
        SocketRef(self.first + u32::from(index))
    }

    /// Which of the shared sockets that is.
    fn index_of(&self, name: SocketRef) -> Option<u8> {
        let index = name.0.checked_sub(self.first)?;
        ((index as usize) < self.relays.len()).then_some(index as u8)
    }
}

impl<D: Datagrams> Worker<D> {
    /// What peers sent to a shared socket. `false` if the socket is no shared one.
    pub(super) fn handle_shared_relay(&mut self, name: SocketRef) -> bool {
        let index = self.one_port.as_ref().and_then(|one_port| one_port.index_of(name));
        let Some(socket) = index else { return false };
        for index in 0..self.received.list().len() {
            let received = self.received.list()[index];
            let ip = IpFields { tos: received.tos };
            let label = Label { way: Way::Shared(socket), tos: received.tos, from: received.from };
            for datagram in received.datagrams() {
                if self.outgoing.is_full() {
                    self.send();
                }
                let bytes = self.received.bytes(datagram.clone());
                match self.core.handle_shared_relay(self.now, socket, received.from, ip, bytes) {
                    Verdict::Elsewhere(worker) => self.hand_on(worker, label, datagram),
                    verdict => self.carry_out(verdict, datagram.start),
                }
                self.drain();
            }
        }
        true
    }
}
