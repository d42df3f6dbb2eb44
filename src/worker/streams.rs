//! What a worker does with connections: read, cut into messages, write, close.

use std::io::{self, Read};
use std::ops::Range;

use super::desk::Newcomer;
use super::run::Worker;
use crate::io::stream::FrameError;
use crate::io::{Datagrams, SLOT_LEN, SocketRef};

impl<D: Datagrams> Worker<D> {
    /// Writes what waits, then reads once.
    pub(super) fn serve_stream(&mut self, name: SocketRef) {
        if self.received.vacant() == 0 {
            self.flush();
        }
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.writer.waiting() > 0 {
            connection.writer.flush(&mut connection.stream);
        }
        let Some((start, slot)) = self.received.claim() else { return };
        let room = &mut slot[connection.reader.held()..];
        match connection.stream.read(room) {
            Ok(0) => {
                self.close_stream(name);
            }
            Ok(read) => {
                if read == room.len() || connection.read_closed {
                    self.unfinished.push(name);
                }
                match connection.reader.begin(slot, read) {
                    Some(rest) => self.handle_messages(name, start, rest),
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

    /// Handles the messages in the part `rest` of the slot at `start`.
    fn handle_messages(&mut self, name: SocketRef, start: usize, mut rest: Range<usize>) {
        while let Some(connection) = self.connections.get_mut(name) {
            match connection.reader.next(self.received.slot(start), &mut rest) {
                Ok(Some(message)) => {
                    connection.last = self.now.mono;
                    let path = connection.path;
                    self.handle_client(path, start + message.start..start + message.end);
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

    /// Takes over a connection and handles what was read from it before.
    pub(super) fn adopt(&mut self, newcomer: Newcomer) {
        if self.received.vacant() == 0 {
            self.flush();
        }
        let Ok((name, first)) = self.connections.insert(newcomer, self.poll.registry(), self.now.mono) else {
            return;
        };
        self.counters.streams_opened += 1;
        let (Some(connection), Some((start, slot))) = (self.connections.get_mut(name), self.received.claim())
        else {
            return;
        };
        let len = first.len().min(SLOT_LEN);
        slot[..len].copy_from_slice(&first[..len]);
        match connection.reader.begin(slot, len) {
            Some(rest) => self.handle_messages(name, start, rest),
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
            let (writer, stream) = (&mut connection.writer, &mut connection.stream);
            match writer.send(stream, packets, &self.outgoing, &self.received) {
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
