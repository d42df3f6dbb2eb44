//! Many packets a call: recvmmsg and sendmmsg, and where asked for runs of packets as one (UDP_GRO, UDP_SEGMENT) and
//! relay sockets that are connected to their peer.

use std::io;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::incoming::{Datagrams, Incoming, SLOTS};
use super::outgoing::Outgoing;
use super::table::{Change, Table, header, payload_end};

/// What a relay socket may fill before others have their turn.
const RELAY_SHARE: usize = 32;

/// What is used beside recvmmsg and sendmmsg.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// UDP_GRO and UDP_SEGMENT.
    pub(crate) offload: bool,
    /// Relay sockets are connected to their peer.
    pub(crate) connected: bool,
}

struct Relay {
    table: Table,
    options: Options,
    poll: Poll,
    incoming: Incoming,
    /// To peers, from the socket of the last one.
    up: Outgoing,
    /// To clients, all from the listener.
    down: Outgoing,
}

pub(crate) fn run(table: Table, options: Options) -> io::Result<()> {
    let poll = Poll::new()?;
    let listener = table.listener.as_raw_fd();
    poll.registry().register(&mut SourceFd(&listener), Token(0), Interest::READABLE)?;
    // An odd number of cache lines: slots do not share the sets of a cache.
    let incoming = Incoming::new(if options.offload { 1024 * 64 } else { 32 * 64 });
    let (up, down) = (Outgoing::new(options.offload), Outgoing::new(options.offload));
    let mut relay = Relay { table, options, poll, incoming, up, down };
    relay.coalesce(listener)?;
    let mut events = Events::with_capacity(1024);
    loop {
        relay.poll.poll(&mut events, None)?;
        for event in &events {
            relay.serve(event.token().0)?;
        }
        relay.flush();
    }
}

impl Relay {
    fn serve(&mut self, token: usize) -> io::Result<()> {
        let (fd, most) = match token {
            0 => (self.table.listener.as_raw_fd(), SLOTS),
            n => (self.table.flows[n - 1].relay.as_raw_fd(), RELAY_SHARE),
        };
        loop {
            if self.incoming.vacant() < most.min(SLOTS / 2) {
                self.flush();
            }
            let (slots, is_drained) = self.incoming.recv(fd, most, self.options.offload);
            for slot in slots {
                let datagrams = self.incoming.get(slot);
                match token {
                    0 => self.pass_up(&datagrams)?,
                    n => self.pass_down(n - 1, &datagrams),
                }
            }
            if is_drained {
                return Ok(());
            }
        }
    }

    fn pass_up(&mut self, datagrams: &Datagrams) -> io::Result<()> {
        for (n, packet) in datagrams.bytes().chunks(datagrams.stride.max(1)).enumerate() {
            let flow = self.table.flow_of(datagrams.from.port());
            let (Some(end), Some(index)) = (payload_end(packet), flow) else {
                let change = self.table.answer(datagrams.from, packet)?;
                self.follow(&change)?;
                continue;
            };
            let flow = &self.table.flows[index];
            let to = (!self.options.connected).then_some(flow.peer);
            let start = datagrams.start.wrapping_add(n * datagrams.stride + 4);
            self.up.push(flow.relay.as_raw_fd(), index, to, None, (start, end - 4));
        }
        Ok(())
    }

    fn pass_down(&mut self, index: usize, datagrams: &Datagrams) {
        let (fd, to) = (self.table.listener.as_raw_fd(), Some(self.table.flows[index].client));
        for (n, packet) in datagrams.bytes().chunks(datagrams.stride.max(1)).enumerate() {
            let start = datagrams.start.wrapping_add(n * datagrams.stride);
            if n > 0 {
                self.down.push(fd, index, to, Some(header(packet.len())), (start, packet.len()));
                continue;
            }
            let front = start.wrapping_sub(4);
            // SAFETY: the first packet of a slot has room in front of it, which nobody else uses.
            unsafe { front.cast::<[u8; 4]>().write(header(packet.len())) };
            self.down.push(fd, index, to, None, (front, packet.len() + 4));
        }
    }

    /// Reads a new relay socket, connects one whose peer is known.
    fn follow(&mut self, change: &Change) -> io::Result<()> {
        match *change {
            Change::Opened(flow) => {
                let fd = self.table.flows[flow].relay.as_raw_fd();
                self.poll.registry().register(&mut SourceFd(&fd), Token(flow + 1), Interest::READABLE)?;
                self.coalesce(fd)
            }
            Change::Bound(flow) if self.options.connected => {
                self.table.flows[flow].relay.connect(self.table.flows[flow].peer)
            }
            Change::Bound(_) | Change::Nothing => Ok(()),
        }
    }

    fn coalesce(&self, fd: i32) -> io::Result<()> {
        if !self.options.offload {
            return Ok(());
        }
        let on = 1;
        // SAFETY: pointer and length describe `on`.
        let result = unsafe { libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_GRO, (&raw const on).cast(), 4) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn flush(&mut self) {
        self.up.flush();
        self.down.flush();
        self.incoming.recycle();
    }
}
