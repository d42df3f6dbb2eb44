//! What a worker does with connections: read, cut into messages, write, close.

use std::io::{self, Read, Write};
use std::ops::Range;

use super::desk::Newcomer;
use super::run::Worker;
use crate::io::stream::FrameError;
use crate::io::{Datagrams, SLOT_LEN, SocketRef};
use crate::turn::{ClientPath, IpFields, PeerLink, Verdict, WorkerId};

/// What becomes of a connection after a message.
enum Next {
    /// Its next message is handled.
    Message,
    /// It moves to this worker, which handles the message.
    Move(WorkerId),
    /// It is joined to the connection of a peer.
    Join(PeerLink),
}

impl<D: Datagrams> Worker<D> {
    /// Writes what waits, then reads once.
    pub(super) fn serve_stream(&mut self, name: SocketRef) {
        if self.received.vacant() == 0 {
            self.flush();
        }
        let Some(connection) = self.connections.get_mut(name) else { return };
        // An error shows when the connection is read.
        let _ = connection.socket.flush();
        if connection.writer.waiting() > 0 {
            connection.writer.flush(&mut connection.socket);
        }
        let Some((start, slot)) = self.received.claim() else { return };
        let room = &mut slot[connection.reader.held()..];
        match connection.socket.read(room) {
            Ok(0) => {
                self.close_stream(name);
            }
            Ok(read) => {
                if read == room.len() || connection.read_closed || connection.socket.has_unread() {
                    self.unfinished.push(name);
                }
                match connection.reader.begin(slot, read) {
                    Some(rest) => self.handle_messages(name, start, rest, true),
                    None => self.received.unclaim(),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.received.unclaim(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                self.received.unclaim();
                self.unfinished.push(name);
            }
            Err(_) => {
                self.close_stream(name);
            }
        }
    }

    /// Handles the messages in the part `rest` of the slot at `start`. `may_move`: the first of them has
    /// not moved here from another worker.
    fn handle_messages(&mut self, name: SocketRef, start: usize, mut rest: Range<usize>, mut may_move: bool) {
        while let Some(connection) = self.connections.get_mut(name) {
            match connection.reader.next(self.received.slot(start), &mut rest) {
                Ok(Some(message)) => {
                    connection.last = self.now.mono;
                    let path = connection.path;
                    let begin = start + message.start;
                    let message = begin..start + message.end;
                    let may_move = std::mem::replace(&mut may_move, true) && connection.may_move();
                    match self.handle_stream_message(path, message, may_move) {
                        Next::Message => {}
                        Next::Move(worker) => return self.move_stream(name, worker, begin..start + rest.end),
                        Next::Join(link) => {
                            return self.join(name, link, start + rest.start..start + rest.end);
                        }
                    }
                }
                Ok(None) => return,
                Err(FrameError::TooLarge)
                    if !connection.reader.trusts()
                        && self.core.has_allocation(&connection.path.five_tuple) =>
                {
                    connection.reader.trust();
                }
                Err(FrameError::Garbage | FrameError::TooLarge) => {
                    self.counters.streams_garbage += 1;
                    self.close_stream(name);
                }
            }
        }
    }

    /// A message of a connection.
    fn handle_stream_message(&mut self, path: ClientPath, message: Range<usize>, may_move: bool) -> Next {
        if self.outgoing.is_full() {
            self.send();
        }
        let bytes = self.received.bytes(message.clone());
        let mut verdict = match may_move {
            true => {
                let stage = self.outgoing.stage();
                self.core.handle_client(self.now, path, IpFields::default(), bytes.into(), stage)
            }
            false => self.core.handle_unmoved(self.now, path, bytes, self.outgoing.stage()),
        };
        if let Verdict::Elsewhere(worker) = verdict {
            if usize::from(worker.0) < self.hands.len() {
                return Next::Move(worker);
            }
            verdict = self.core.handle_unmoved(self.now, path, bytes, self.outgoing.stage());
        }
        let next = if let Verdict::Join { link, .. } = verdict { Next::Join(link) } else { Next::Message };
        self.carry_out(verdict, message.start);
        self.drain();
        next
    }

    /// Moves a connection to another worker, with the part `unread` of the receive buffer to begin with.
    /// It is closed if that worker is too busy, as a new one would be.
    fn move_stream(&mut self, name: SocketRef, worker: WorkerId, unread: Range<usize>) {
        self.send();
        let Some(connection) = self.connections.remove(name) else { return };
        let newcomer = connection.leave(self.received.bytes(unread).to_vec(), self.poll.registry());
        if let Some(hand) = self.hands.get(usize::from(worker.0)) {
            self.counters.streams_moved += u64::from(hand.pass(newcomer));
        }
    }

    /// Takes over a connection and handles what was read from it before.
    pub(super) fn adopt(&mut self, newcomer: Newcomer) {
        if self.received.vacant() == 0 {
            self.flush();
        }
        let moved = newcomer.moves > 0;
        let Ok((name, first)) = self.connections.insert(newcomer, self.poll.registry(), self.now.mono) else {
            return;
        };
        self.counters.streams_opened += u64::from(!moved);
        // A TLS session may have read what the poll then does not tell of.
        self.unfinished.push(name);
        let (Some(connection), Some((start, slot))) = (self.connections.get_mut(name), self.received.claim())
        else {
            return;
        };
        let len = first.len().min(SLOT_LEN);
        slot[..len].copy_from_slice(&first[..len]);
        match connection.reader.begin(slot, len) {
            Some(rest) => self.handle_messages(name, start, rest, !moved),
            None => self.received.unclaim(),
        }
    }

    /// Closes a connection, and with it the client's allocation; `false` if it was closed before.
    pub(super) fn close_stream(&mut self, name: SocketRef) -> bool {
        let Some(connection) = self.connections.remove(name) else { return false };
        self.core.handle_client_closed(self.now, connection.path);
        self.drain();
        true
    }

    /// Writes to the connections what has been collected for them.
    pub(super) fn send_to_streams(&mut self) {
        for flow in self.outgoing.flows().iter().filter(|flow| flow.route.socket.is_stream()) {
            let packets = self.outgoing.packets(flow);
            let Some(connection) = self.connections.get_mut(flow.route.socket) else {
                self.counters.gone += packets.count() as u64;
                continue;
            };
            let (writer, socket) = (&mut connection.writer, &mut connection.socket);
            match writer.send(socket, packets, &self.outgoing, &self.received) {
                Ok(dropped) => self.counters.stream_drops += dropped,
                Err(_) => self.stuck.push(flow.route.socket),
            }
        }
    }

    /// Closes the connections that have said nothing for long and hold no allocation.
    pub(super) fn close_idle(&mut self) {
        let since = self.now.mono.saturating_sub(self.tcp_idle);
        let silent = self.connections.silent_since(since).map(|connection| connection.path);
        let idle: Vec<_> = silent.filter(|path| !self.core.has_allocation(&path.five_tuple)).collect();
        for path in idle {
            self.counters.streams_idle += 1;
            self.close_stream(SocketRef(path.link.0));
        }
    }
}
