//! What the core says is to be done: what becomes of a message, and what it wants of the outside, relay sockets that
//! open and close, connections to peers, flows that the kernel relays.

use std::io;
use std::net::SocketAddr;

use mio::{Interest, Token};

use super::ring::{Label, Way};
use super::run::Worker;
use crate::io::{Bodies, Datagrams, Fields, Role, Route, UdpSocket};
use crate::turn::{Forward, OpenError, Output, RelayId, Verdict, Via};

impl<D: Datagrams> Worker<D> {
    /// Does what the core says about a message that begins at `start` of the receive buffer.
    pub(super) fn carry_out(&mut self, verdict: Verdict, start: usize) {
        self.carry_out_run(verdict, start, 0);
    }

    /// The same for messages that begin `stride` bytes apart; of how many the core has spoken.
    pub(super) fn carry_out_run(&mut self, verdict: Verdict, start: usize, stride: usize) -> usize {
        match verdict {
            Verdict::Forward(Forward { via, prefix, payload, count, pad, ip, dont_fragment }) => {
                let bodies = Bodies { first: start + payload.start..start + payload.end, count, stride };
                let route = match via {
                    Via::Client(path) => self.route_to(&path),
                    Via::Relay(relay, peer) => Route { socket: self.name_of(relay), to: peer, from: None },
                    Via::Neighbour(owner, from) => {
                        let label = Label { way: Way::Neighbour(owner), tos: ip.tos, from };
                        bodies.iter().for_each(|body| self.hand_on(owner.worker(), label, body));
                        return count;
                    }
                };
                let fields = Fields { tos: ip.tos, dont_fragment };
                match self.received.prepend(prefix.as_bytes(), start, &bodies) {
                    Some(whole) => self.outgoing.push(route, fields, &[], whole, pad),
                    None => self.outgoing.push(route, fields, prefix.as_bytes(), bodies, pad),
                }
                count
            }
            Verdict::Reply { path, len } | Verdict::Join { path, len, .. } => {
                let route = self.route_to(&path);
                self.outgoing.push_staged(route, len);
                1
            }
            Verdict::Elsewhere(_) | Verdict::Consumed | Verdict::Drop(_) => 1,
        }
    }

    /// Carries out what the core wants of the outside.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::OpenRelay { relay, bind, reserve } => {
                    let result = self.open_relay(relay, bind, reserve).map_err(|e| refusal(&e));
                    self.tell_opened(relay, result);
                }
                Output::OpenListener { relay, bind } => {
                    let result = self.open_listener(relay, bind);
                    self.tell_opened(relay, result);
                }
                Output::Connect { link, from, to } => self.connect_peer(link, from, to),
                Output::GiveUp { link } => self.give_up_peer(link),
                Output::ClosePeer { link } => self.close_peer(link),
                Output::CloseRelay { relay } => self.close_relay(relay),
                Output::ReleaseRelay { bind } => drop(self.reserved.take(bind)),
                Output::Offload(row) => self.install(&row),
                Output::Unload(flow) => self.uninstall(flow),
            }
        }
    }

    fn tell_opened(&mut self, relay: RelayId, result: Result<(), OpenError>) {
        if self.outgoing.is_full() {
            self.send();
        }
        let verdict = self.core.handle_relay_opened(self.now, relay, result, self.outgoing.stage());
        self.carry_out(verdict, 0);
    }

    fn open_relay(
        &mut self,
        relay: RelayId,
        bind: SocketAddr,
        reserve: Option<SocketAddr>,
    ) -> io::Result<()> {
        if let Some(one_port) = &mut self.one_port {
            let is_open = one_port.open(relay, bind);
            return if is_open { Ok(()) } else { Err(io::ErrorKind::AddrNotAvailable.into()) };
        }
        let name = self.name_of(relay);
        let mut socket = match self.reserved.take(bind) {
            Some(socket) => {
                socket.set_buffers(self.relay_buf);
                socket
            }
            None => UdpSocket::bind(bind, Role::Relay, self.relay_buf)?,
        };
        // Nobody reads it yet, so it gets the least buffer the kernel gives.
        let second = reserve.map(|address| UdpSocket::bind(address, Role::Relay, 0)).transpose()?;
        self.io.prepare(&mut socket);
        self.poll.registry().register(socket.source_mut(), Token(name.0 as usize), Interest::READABLE)?;
        self.sockets.insert(name, socket);
        if let Some(socket) = second {
            self.reserved.put(socket);
        }
        Ok(())
    }

    fn close_relay(&mut self, relay: RelayId) {
        if self.one_port.is_some() {
            return;
        }
        let name = self.name_of(relay);
        self.relayed.close_listener(name);
        // Packets that wait to leave through this socket must not leave through its successor.
        if self.outgoing.flows().iter().any(|flow| flow.route.socket == name) {
            self.send();
        }
        let Some(socket) = self.sockets.remove(name) else { return };
        self.counters.recv_overflows += self.io.overflows(&socket);
    }
}

/// What an error of `socket`, `bind` or the poll means to the core.
pub(super) fn refusal(error: &io::Error) -> OpenError {
    #[cfg(unix)]
    if let Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC) =
        error.raw_os_error()
    {
        return OpenError::Exhausted;
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => OpenError::InUse,
        _ => OpenError::Unavailable,
    }
}
