//! Packets from one worker to another: a ring for each pair and direction, with all its memory from the
//! start.
//!
//! Nothing here waits, locks or allocates. A ring that is full drops: the receiver is behind, and media
//! that waits is worth less than media that follows. A worker that may sleep is woken once for all that
//! was put into its rings in one turn of the sender's loop.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::turn::{Owner, WorkerId};

/// Bytes of a ring: some hundred packets of media, or three of the largest. Pages that no packet has used
/// take no memory; `n` workers have `n * (n - 1)` rings.
const CAPACITY: usize = 256 * 1024;

/// Bytes before each packet.
const LABEL: usize = 32;

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) way: Way,
    /// DSCP and ECN of its IP header.
    pub(super) tos: u8,
    pub(super) from: SocketAddr,
}

/// Why a packet changes the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It came to a socket that all workers share, that one of them.
    Shared(u8),
    /// It is for the client of this allocation, from the client of another one.
    Neighbour(Owner),
}

impl Label {
    fn to_bytes(self, len: u16) -> [u8; LABEL] {
        let mut bytes = [0; LABEL];
        let (family, ip) = match self.from.ip() {
            IpAddr::V4(ip) => (4, ip.to_ipv6_mapped()),
            IpAddr::V6(ip) => (6, ip),
        };
        let (way, name) = match self.way {
            Way::Shared(socket) => (0, socket.into()),
            Way::Neighbour(owner) => (1, owner.to_bits()),
        };
        bytes[..4].copy_from_slice(&[way, self.tos, family, 0]);
        bytes[4..6].copy_from_slice(&len.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.from.port().to_ne_bytes());
        bytes[8..24].copy_from_slice(&ip.octets());
        bytes[24..].copy_from_slice(&name.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; LABEL]) -> (Self, usize) {
        let [way, tos, family, _, len0, len1, port0, port1, rest @ ..] = bytes;
        let (ip, name) = rest.split_first_chunk::<16>().expect("24 bytes are left");
        let name = u64::from_ne_bytes(name.try_into().expect("eight bytes are left"));
        let ip = Ipv6Addr::from(*ip);
        let ip = if family == 4 { IpAddr::V6(ip).to_canonical() } else { IpAddr::V6(ip) };
        let from = SocketAddr::new(ip, u16::from_ne_bytes([port0, port1]));
        let way = if way == 0 { Way::Shared(name as u8) } else { Way::Neighbour(Owner::from_bits(name)) };
        (Self { way, tos, from }, u16::from_ne_bytes([len0, len1]).into())
    }
}

/// One worker's ends of the rings between it and the others.
pub(super) struct Ends {
    me: usize,
    to: Vec<Option<Outbox>>,
    from: Vec<Consumer<u8>>,
    /// The ring that is read next.
    turn: usize,
    /// Set for a worker that has packets in its rings and was told so.
    bells: Arc<[AtomicBool]>,
    /// The rings were left with something to read.
    pub(super) is_unfinished: bool,
}

struct Outbox {
    ring: Producer<u8>,
    /// Something was put in since the receiver was last told.
    is_new: bool,
}

/// The ends of all workers.
pub(super) fn rings(workers: usize) -> Vec<Ends> {
    let bells: Arc<[AtomicBool]> = (0..workers).map(|_| AtomicBool::new(false)).collect();
    let mut all: Vec<Ends> = (0..workers)
        .map(|me| Ends {
            me,
            to: Vec::new(),
            from: Vec::new(),
            turn: 0,
            bells: Arc::clone(&bells),
            is_unfinished: false,
        })
        .collect();
    for from in 0..workers {
        for to in 0..workers {
            let outbox = (from != to).then(|| {
                let (ring, end) = RingBuffer::new(CAPACITY);
                all[to].from.push(end);
                Outbox { ring, is_new: false }
            });
            all[from].to.push(outbox);
        }
    }
    all
}

impl Ends {
    /// Puts a packet into the ring to a worker; `false` if it does not fit now, or is no datagram.
    pub(super) fn push(&mut self, to: WorkerId, label: Label, packet: &[u8]) -> bool {
        let Some(Some(outbox)) = self.to.get_mut(usize::from(to.0)) else { return false };
        let Ok(len) = u16::try_from(packet.len()) else { return false };
        let has_room = outbox.ring.slots() >= LABEL + packet.len();
        // The receiver takes a packet only when all of it is there.
        let is_put = has_room
            && outbox.ring.push_entire_slice(&label.to_bytes(len)).is_ok()
            && outbox.ring.push_entire_slice(packet).is_ok();
        outbox.is_new |= is_put;
        is_put
    }

    /// The workers to wake, each once for all that was put in since the last time.
    pub(super) fn sleepers(&mut self) -> impl Iterator<Item = usize> {
        let bells = &self.bells;
        self.to.iter_mut().enumerate().filter_map(move |(to, outbox)| {
            let is_new = outbox.as_mut().is_some_and(|outbox| std::mem::take(&mut outbox.is_new));
            (is_new && !bells[to].swap(true, Ordering::AcqRel)).then_some(to)
        })
    }

    /// Whether somebody has put something in. Asked before the rings are read, and forgotten by it.
    pub(super) fn was_rung(&mut self) -> bool {
        // Bells share cache lines: most turns only read.
        let bell = &self.bells[self.me];
        bell.load(Ordering::Acquire) && bell.swap(false, Ordering::AcqRel)
    }

    /// Takes the next packet, from each ring in its turn, into the front of `room`: what is known of it
    /// and its length. `None` when there is none that fits.
    pub(super) fn pop(&mut self, room: &mut [u8]) -> Option<(Label, usize)> {
        for _ in 0..self.from.len() {
            self.turn = (self.turn + 1) % self.from.len();
            if let Some(packet) = take(&mut self.from[self.turn], room) {
                return Some(packet);
            }
        }
        None
    }
}

fn take(ring: &mut Consumer<u8>, room: &mut [u8]) -> Option<(Label, usize)> {
    let mut bytes = [0; LABEL];
    {
        let chunk = ring.read_chunk(LABEL).ok()?;
        let (head, tail) = chunk.as_slices();
        bytes[..head.len()].copy_from_slice(head);
        bytes[head.len()..].copy_from_slice(tail);
    }
    let (label, len) = Label::from_bytes(bytes);
    let room = room.get_mut(..len)?;
    if ring.slots() < LABEL + len {
        return None;
    }
    ring.pop_entire_slice(&mut bytes).ok()?;
    ring.pop_entire_slice(room).ok()?;
    Some((label, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(from: &str) -> Label {
        Label { way: Way::Shared(3), tos: 0xB8, from: from.parse().unwrap() }
    }

    fn pop(ends: &mut Ends) -> Option<(Label, Vec<u8>)> {
        let mut room = vec![0; 1 << 16];
        ends.pop(&mut room).map(|(label, len)| (label, room[..len].to_vec()))
    }

    #[test]
    fn packets_arrive_whole_and_in_order() {
        let mut ends = rings(3);
        for from in ["192.0.2.1:5", "[2001:db8::1]:65535", "[::ffff:192.0.2.1]:1"] {
            for len in [0, 1, 1200, 65_507] {
                let packet: Vec<u8> = (0..len).map(|n| n as u8).collect();
                assert!(ends[0].push(WorkerId(2), label(from), &packet));
                assert_eq!(pop(&mut ends[2]), Some((label(from), packet)));
            }
        }
        assert_eq!(pop(&mut ends[2]), None);
        for n in 0..100 {
            assert!(ends[1].push(WorkerId(0), label("192.0.2.1:5"), &[n; 7]));
        }
        let taken: Vec<u8> = std::iter::from_fn(|| pop(&mut ends[0])).map(|(_, packet)| packet[0]).collect();
        assert_eq!(taken, (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn a_label_says_which_allocation_is_meant() {
        let mut ends = rings(2);
        let way = Way::Neighbour(Owner::from_bits(255 << 56 | 0xFF_FFFF << 32 | 0x0102_0304));
        let label = Label { way, ..label("[2001:db8::1]:5") };
        assert!(ends[0].push(WorkerId(1), label, b"x"));
        assert_eq!(pop(&mut ends[1]), Some((label, b"x".to_vec())));
    }

    #[test]
    fn a_packet_without_room_waits() {
        let mut ends = rings(2);
        assert!(ends[0].push(WorkerId(1), label("192.0.2.1:5"), &[7; 100]));
        assert_eq!(ends[1].pop(&mut [0; 99]), None);
        assert_eq!(pop(&mut ends[1]), Some((label("192.0.2.1:5"), vec![7; 100])));
    }

    #[test]
    fn a_full_ring_drops_and_takes_again_when_it_was_read() {
        let mut ends = rings(2);
        let packet = [9; 1000];
        let fit = (0..).take_while(|_| ends[0].push(WorkerId(1), label("192.0.2.1:5"), &packet)).count();
        assert_eq!(fit, CAPACITY / (LABEL + packet.len()));
        assert!(pop(&mut ends[1]).is_some());
        assert!(ends[0].push(WorkerId(1), label("192.0.2.1:5"), &packet));
        let rest = std::iter::from_fn(|| pop(&mut ends[1])).filter(|(_, taken)| taken == &packet).count();
        assert_eq!(rest, fit);
    }

    #[test]
    fn a_worker_is_woken_once_until_it_has_looked() {
        let mut ends = rings(3);
        let put = |from: usize, ends: &mut Vec<Ends>| {
            assert!(ends[from].push(WorkerId(1), label("192.0.2.1:5"), b"x"));
            ends[from].sleepers().collect::<Vec<_>>()
        };
        assert_eq!(put(0, &mut ends), [1]);
        assert!(put(0, &mut ends).is_empty() && put(2, &mut ends).is_empty(), "it knows");
        assert!(ends[1].was_rung() && !ends[1].was_rung() && !ends[0].was_rung());
        assert_eq!(std::iter::from_fn(|| pop(&mut ends[1])).count(), 3);
        assert_eq!(put(2, &mut ends), [1]);
        assert_eq!(ends[0].sleepers().count(), 0, "nothing new");
    }

    #[test]
    fn each_ring_has_its_turn() {
        let mut ends = rings(3);
        for n in 0..10 {
            assert!(ends[0].push(WorkerId(2), label("192.0.2.1:5"), &[0, n]));
        }
        assert!(ends[1].push(WorkerId(2), label("192.0.2.1:5"), &[1]));
        let first: Vec<_> = (0..2).filter_map(|_| pop(&mut ends[2])).map(|(_, packet)| packet[0]).collect();
        assert!(first.contains(&0) && first.contains(&1), "{first:?}");
    }

    #[test]
    fn nobody_sends_to_itself_or_to_nobody() {
        let mut ends = rings(2);
        assert!(!ends[0].push(WorkerId(0), label("192.0.2.1:5"), b"x"));
        assert!(!ends[0].push(WorkerId(9), label("192.0.2.1:5"), b"x"));
        assert_eq!(rings(1).len(), 1);
    }
}
