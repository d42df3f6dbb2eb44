//! Allocations that move between workers with their clients (RFC 8016).
//!
//! Where the kernel gives a client's new 5-tuple to another worker than the one that holds its
//! allocation, that worker asks for it with the client's own request. The holder judges the request and
//! either sends back an answer, or the allocation with its relay sockets, in whose kernel buffers packets
//! wait meanwhile. Each is one command; what is lost is asked for again when the client repeats itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use mio::{Interest, Token};

use super::desk::Command;
use super::run::Worker;
use crate::io::{Datagrams, SocketRef, UdpSocket};
use crate::turn::{Asked, ClientPath, Moving, RelayId, WorkerId};

/// Questions that may wait for an answer.
const MAX_QUESTIONS: usize = 256;

/// How long a question waits before it may be asked again; clients repeat themselves sooner.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client's request that concerns an allocation of another worker.
pub(super) struct Question {
    from: WorkerId,
    path: ClientPath,
    packet: Vec<u8>,
}

/// An allocation on its way, with its relay sockets in the order of their families.
pub(super) struct Mover {
    moving: Moving,
    sockets: Vec<UdpSocket>,
}

/// The questions a worker has asked, by client, and when.
#[derive(Default)]
pub(super) struct Questions(HashMap<SocketAddr, Duration>);

impl Questions {
    /// Whether a question for this client may be asked now; it is noted.
    fn ask(&mut self, client: SocketAddr, now: Duration) -> bool {
        if self.0.get(&client).is_some_and(|asked| now < *asked + PATIENCE) {
            return false;
        }
        if self.0.len() >= MAX_QUESTIONS {
            self.0.retain(|_, asked| now < *asked + PATIENCE);
        }
        let has_room = self.0.len() < MAX_QUESTIONS;
        if has_room {
            self.0.insert(client, now);
        }
        has_room
    }
}

impl<D: Datagrams> Worker<D> {
    /// Asks the worker that holds the allocation for it. A request that cannot be asked about now is
    /// dropped: its client will repeat it.
    pub(super) fn ask(&mut self, holder: WorkerId, path: ClientPath, packet: Vec<u8>) {
        let Some(hand) = self.hands.get(usize::from(holder.0)) else { return };
        if self.questions.ask(path.five_tuple.client, self.now.mono) {
            hand.tell(Command::Ask(Box::new(Question { from: self.worker, path, packet })));
        }
    }

    /// Another worker asks: the answer, or the allocation, goes there.
    pub(super) fn answer(&mut self, question: &Question) {
        if self.outgoing.is_full() {
            self.send();
        }
        let Question { from, path, packet } = question;
        match self.core.handle_ask(self.now, *path, packet, self.outgoing.stage()) {
            Asked::Answered { len } => {
                let bytes = self.outgoing.stage()[..len].to_vec();
                self.hands[usize::from(from.0)].tell(Command::Answer(*path, bytes));
            }
            Asked::Leaves(moving, relays) => self.part_with(*from, *moving, relays),
            Asked::Dropped => {}
        }
    }

    fn part_with(&mut self, to: WorkerId, moving: Moving, relays: Vec<RelayId>) {
        // The other worker says them anew.
        self.drain();
        // Packets that wait to leave through these sockets leave first.
        self.flush();
        let sockets = relays.iter().filter_map(|relay| self.release(*relay)).collect();
        let command = Command::Bring(Box::new(Mover { moving, sockets }));
        let hand = &self.hands[usize::from(to.0)];
        match hand.commands.try_send(command) {
            Ok(()) => {
                // A worker whose waker fails has lost its poll and is about to end.
                let _ = hand.waker.wake();
                self.counters.allocations_moved += 1;
            }
            Err(
                TrySendError::Full(Command::Bring(mover)) | TrySendError::Disconnected(Command::Bring(mover)),
            ) => {
                let Mover { moving, sockets } = *mover;
                self.core.take_back(moving);
                self.hold_all(relays, sockets);
            }
            Err(_) => {}
        }
    }

    /// The answer of the worker that was asked. Nobody needs it who has got his allocation meanwhile.
    pub(super) fn pass_answer(&mut self, path: ClientPath, bytes: &[u8]) {
        self.questions.0.remove(&path.five_tuple.client);
        if self.core.has_allocation(&path.five_tuple) {
            return;
        }
        if self.outgoing.is_full() {
            self.send();
        }
        self.outgoing.stage()[..bytes.len()].copy_from_slice(bytes);
        let route = self.route_to(&path);
        self.outgoing.push_staged(route, bytes.len());
    }

    /// An allocation arrives.
    pub(super) fn take_in(&mut self, mover: Mover) {
        let Mover { moving, sockets } = mover;
        self.questions.0.remove(&moving.client());
        if self.outgoing.is_full() {
            self.send();
        }
        let (relays, verdict) = self.core.handle_arrival(self.now, moving, self.outgoing.stage());
        self.carry_out(verdict, 0);
        self.hold_all(relays, sockets);
    }

    fn hold_all(&mut self, relays: Vec<RelayId>, sockets: Vec<UdpSocket>) {
        for (relay, socket) in relays.into_iter().zip(sockets) {
            self.hold(self.name_of(relay), socket);
        }
    }

    /// Takes a relay socket out of the poll.
    fn release(&mut self, relay: RelayId) -> Option<UdpSocket> {
        let mut socket = self.sockets.remove(self.name_of(relay))?;
        self.counters.recv_overflows += self.io.overflows(&socket);
        // It fails only for a socket that is not registered.
        let _ = self.poll.registry().deregister(socket.source_mut());
        Some(socket)
    }

    /// Puts a relay socket into the poll, which tells of what has come to it meanwhile.
    fn hold(&mut self, name: SocketRef, mut socket: UdpSocket) {
        let token = Token(name.0 as usize);
        if let Err(error) = self.poll.registry().register(socket.source_mut(), token, Interest::READABLE) {
            tracing::warn!(%error, "a relay socket cannot be watched");
        }
        self.sockets.insert(name, socket);
        self.unfinished.push(name);
    }
}
