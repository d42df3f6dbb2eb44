//! TCP and TLS connections of a worker, found by a name that is never confused with an earlier one's.

use std::io;
use std::time::Duration;

use mio::{Interest, Registry, Token};

use super::Arrival;
use super::desk::{Newcomer, Place};
use crate::io::SocketRef;
use crate::io::stream::{Reader, Socket, Writer};
use crate::turn::{ClientPath, FiveTuple, LinkId, Transport};

/// Bits of a name that count slots; those above count generations.
const SLOT_BITS: u32 = 20;
const GENERATIONS: u32 = 1 << (31 - SLOT_BITS);

/// Bytes the kernel may hold unsent before it stops taking more: what waits longer is better dropped
/// than late.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 * 1024;

/// Moves between workers a connection may cause.
const MAX_MOVES: u8 = 8;

/// A client's connection.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) path: ClientPath,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// When the last whole message came.
    pub(super) last: Duration,
    /// The other side has closed; what it sent before is still to be read.
    pub(super) read_closed: bool,
    /// How often it has come from another worker.
    moves: u8,
    pub(super) place: Place,
}

impl Connection {
    /// Whether it may go on to another worker: nobody needs more than one move or two.
    pub(super) fn may_move(&self) -> bool {
        self.moves < MAX_MOVES
    }

    /// Makes it ready to travel to another worker; `first` are the bytes read that are not handled yet.
    pub(super) fn leave(mut self, first: Vec<u8>, registry: &Registry) -> Newcomer {
        // It fails only for a stream that is not registered.
        let _ = registry.deregister(&mut self.socket);
        let FiveTuple { client, server, .. } = self.path.five_tuple;
        let Self { socket, writer, moves, place, .. } = self;
        Newcomer { arrival: Arrival { socket, client, server, first }, writer, moves: moves + 1, place }
    }
}

struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// The connections of a worker by name.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Connections {
    /// Registers a new connection and returns its name and the bytes that were read from it already.
    pub(super) fn insert(
        &mut self,
        newcomer: Newcomer,
        registry: &Registry,
        now: Duration,
    ) -> io::Result<(SocketRef, Vec<u8>)> {
        let Newcomer { arrival, mut writer, moves, place } = newcomer;
        let Arrival { mut socket, client, server, first } = arrival;
        socket.tcp().set_nodelay(true)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(socket.tcp()).set_tcp_notsent_lowat(UNSENT);
        let slot = match self.free.last() {
            Some(slot) => *slot,
            None => self.grow()?,
        };
        let name = SocketRef(SocketRef::STREAM | self.slots[slot as usize].generation << SLOT_BITS | slot);
        registry.register(&mut socket, Token(name.0 as usize), Interest::READABLE | Interest::WRITABLE)?;
        self.free.pop();
        if socket.is_tls() {
            writer.keep_messages_apart();
        }
        let transport = if socket.is_tls() { Transport::Tls } else { Transport::Tcp };
        let five_tuple = FiveTuple { client, server, transport };
        self.slots[slot as usize].connection = Some(Connection {
            socket,
            path: ClientPath { five_tuple, link: LinkId(name.0) },
            reader: Reader::new(),
            writer,
            last: now,
            read_closed: false,
            moves,
            place,
        });
        Ok((name, first))
    }

    fn grow(&mut self) -> io::Result<u32> {
        let slot = self.slots.len() as u32;
        if slot == 1 << SLOT_BITS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.slots.push(Slot { generation: 0, connection: None });
        self.free.push(slot);
        Ok(slot)
    }

    fn slot_mut(&mut self, name: SocketRef) -> Option<&mut Slot> {
        let generation = (name.0 & !SocketRef::STREAM) >> SLOT_BITS;
        let slot = self.slots.get_mut((name.0 & ((1 << SLOT_BITS) - 1)) as usize)?;
        (slot.generation == generation).then_some(slot)
    }

    pub(super) fn get_mut(&mut self, name: SocketRef) -> Option<&mut Connection> {
        self.slot_mut(name)?.connection.as_mut()
    }

    /// Takes a connection out; dropping it closes it.
    pub(super) fn remove(&mut self, name: SocketRef) -> Option<Connection> {
        let slot = self.slot_mut(name)?;
        let connection = slot.connection.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(name.0 & ((1 << SLOT_BITS) - 1));
        Some(connection)
    }

    /// Connections that sent no message since `since`.
    pub(super) fn silent_since(&self, since: Duration) -> impl Iterator<Item = &Connection> {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        connections.filter(move |connection| connection.last < since)
    }
}
