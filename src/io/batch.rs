//! Batches of datagrams in memory. Pure: no socket, no clock.
//!
//! A [`RecvBatch`] is one buffer cut into slots; a slot takes a datagram, a coalesced run of them or
//! a read of a stream. A [`SendBatch`] describes what is to leave as pieces of those slots, so a
//! payload is not touched between the two system calls. Both are allocated once and never grow.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::socket::SocketRef;

/// Bytes of a slot: the largest datagram or frame.
pub const SLOT_LEN: usize = STEP - HEAD;

/// From slot to slot: an odd number of cache lines, so that the first lines of different slots do not fall into the same
/// set of the cache.
const STEP: usize = 1035 * 64;

/// Bytes before each slot, for a prefix.
const HEAD: usize = 64;

/// Slots of a batch.
pub const SLOTS: usize = 64;

/// Bytes of a buffer for a packet this program writes itself.
pub const STAGE_LEN: usize = 1280;

/// Packets a [`SendBatch`] takes before it must be sent; those pushed together are one.
const PACKETS: usize = 512;

/// Own packets a [`SendBatch`] takes before it must be sent.
const STAGES: usize = 64;

/// Largest prefix of a packet: a Data indication's header for an IPv6 peer.
const PREFIX_LEN: usize = 48;

/// What arrived in one slot: a datagram, or a run of datagrams of `stride` bytes from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Source of the datagrams.
    pub from: SocketAddr,
    /// Local address they came to, if the socket is bound to the wildcard and the kernel told.
    pub to: Option<IpAddr>,
    /// Where in the batch's buffer they begin.
    pub start: u32,
    /// Bytes in all.
    pub len: u32,
    /// Bytes of each datagram but the last, which may be shorter.
    pub stride: u32,
    /// DSCP and ECN they came with, 0 where the system does not tell.
    pub tos: u8,
}

impl Received {
    /// All of it as a range of the batch's buffer.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }

    /// Takes the first `count` datagrams from `rest`, the end of the range; whether some are left.
    pub fn skip(&self, count: usize, rest: &mut Range<usize>) -> bool {
        rest.start = rest.end.min(rest.start + count * self.stride as usize);
        rest.start < rest.end
    }

    /// The datagrams as ranges of the batch's buffer; an empty datagram is an empty range.
    pub fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Range { start, end } = self.range();
        let stride = (self.stride as usize).max(1);
        let mut next = Some(start);
        std::iter::from_fn(move || {
            let start = next?;
            let stop = (start + stride).min(end);
            next = (stop < end).then_some(stop);
            Some(start..stop)
        })
    }
}

/// Preallocated memory for what is received, and the list of what the last read brought.
pub struct RecvBatch {
    buffer: Box<[u8]>,
    used: usize,
    list: Vec<Received>,
}

impl RecvBatch {
    /// A batch of [`SLOTS`] slots. Memory is touched only as it is filled.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; SLOTS * STEP].into_boxed_slice(), used: 0, list: Vec::with_capacity(SLOTS) }
    }

    /// Slots that can still be filled before [`RecvBatch::recycle`].
    #[must_use]
    pub fn vacant(&self) -> usize {
        SLOTS - self.used
    }

    /// What the last read brought.
    #[must_use]
    pub fn list(&self) -> &[Received] {
        &self.list
    }

    /// A part of the buffer.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// A part of the buffer, to be written in.
    pub fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.buffer[range]
    }

    /// Makes every slot vacant; what refers to them must have been sent.
    pub fn recycle(&mut self) {
        self.used = 0;
        self.list.clear();
    }

    /// Takes a slot for a stream: where it begins, and its memory. `None` if none is vacant.
    pub fn claim(&mut self) -> Option<(usize, &mut [u8])> {
        if self.used == SLOTS {
            return None;
        }
        let start = self.next_start();
        self.used += 1;
        Some((start, &mut self.buffer[start..start + SLOT_LEN]))
    }

    /// Gives back the slot of the last [`RecvBatch::claim`], because nothing in it is needed.
    pub fn unclaim(&mut self) {
        self.used = self.used.saturating_sub(1);
    }

    /// The slot that begins at `start`.
    #[must_use]
    pub fn slot(&self, start: usize) -> &[u8] {
        &self.buffer[start..start + SLOT_LEN]
    }

    /// Forgets the previous list, for the next read.
    pub(super) fn begin(&mut self) {
        self.list.clear();
    }

    /// Writes `prefix` right before each body, each a part of a datagram, the first of that which begins at `start`: over the
    /// front of its own datagram, or, of a single one, into the room before a slot. Where both lie together then; `None` if there
    /// is no such room.
    pub fn prepend(&mut self, prefix: &[u8], start: usize, bodies: &Bodies) -> Option<Bodies> {
        let Bodies { first, count, stride } = bodies;
        // Behind an empty datagram the next one begins at the same place.
        let head = if start % STEP == HEAD && *count == 1 && !first.is_empty() { HEAD } else { 0 };
        (prefix.len() <= first.start - start + head).then(|| {
            for body in bodies.iter() {
                self.buffer[body.start - prefix.len()..body.start].copy_from_slice(prefix);
            }
            Bodies { first: first.start - prefix.len()..first.end, count: *count, stride: *stride }
        })
    }

    /// Where the next vacant slot begins.
    fn next_start(&self) -> usize {
        self.used * STEP + HEAD
    }

    /// The memory of the next vacant slot; there is one.
    pub(super) fn vacant_memory(&mut self) -> &mut [u8] {
        let start = self.next_start();
        &mut self.buffer[start..start + SLOT_LEN]
    }

    /// The memory of all slots and of what is before each.
    #[cfg(target_os = "linux")]
    pub(super) fn memory(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// The memory of each slot.
    #[cfg(target_os = "linux")]
    pub(super) fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.buffer.chunks_exact_mut(STEP).map(|slot| &mut slot[HEAD..])
    }

    /// Records that the next vacant slot was filled.
    pub(super) fn filled(
        &mut self,
        from: SocketAddr,
        to: Option<IpAddr>,
        len: usize,
        stride: usize,
        tos: u8,
    ) {
        let start = self.next_start() as u32;
        self.used += 1;
        self.list.push(Received { from, to, start, len: len as u32, stride: stride as u32, tos });
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a packet leaves, to whom, and from which local address if that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The socket, stream or session.
    pub socket: SocketRef,
    /// Destination; ignored by a stream.
    pub to: SocketAddr,
    /// Source address on a wildcard socket.
    pub from: Option<IpAddr>,
}

/// What a packet's IP header shall say. The default is what the system puts into a fresh packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// DSCP and ECN.
    pub tos: u8,
    /// Whether it may only leave unfragmented.
    pub dont_fragment: bool,
}

/// One packet to send: a prefix, a body that stays where it is, and zero bytes after it.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Where among the prefixes of its batch it has its own.
    prefix: u32,
    prefix_len: u8,
    pad: u8,
    media: bool,
    staged: bool,
    fields: Fields,
    start: u32,
    len: u32,
}

/// Bodies of packets, parts of a receive buffer: `count` of them, as long as the first, that begin `stride` bytes apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bodies {
    /// The first.
    pub first: Range<usize>,
    /// How many, at least one.
    pub count: usize,
    /// From the beginning of one to that of the next.
    pub stride: usize,
}

impl From<Range<usize>> for Bodies {
    fn from(first: Range<usize>) -> Self {
        Self { first, count: 1, stride: 0 }
    }
}

impl Bodies {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Self { first, count, stride } = self.clone();
        (0..count).map(move |n| first.start + n * stride..first.end + n * stride)
    }
}

/// Packets of a flow that differ in nothing but their bodies.
#[derive(Clone, Copy, Debug)]
struct Alike {
    first: Packet,
    count: u32,
    stride: u32,
    /// Those that follow in the flow.
    next: u32,
}

impl Alike {
    fn packets(self) -> impl Iterator<Item = Packet> {
        (0..self.count).map(move |n| Packet { start: self.first.start + n * self.stride, ..self.first })
    }
}

const NONE: u32 = u32::MAX;
const ZEROS: [u8; 3] = [0; 3];

impl Packet {
    /// Bytes on the wire.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the length of a datagram; emptiness is nothing special")]
    pub fn len(&self) -> usize {
        usize::from(self.prefix_len) + self.len as usize + usize::from(self.pad)
    }

    /// Whether it is relayed data, which may be dropped when a stream is congested.
    #[must_use]
    pub fn is_media(&self) -> bool {
        self.media
    }

    /// What its IP header shall say.
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.fields
    }

    /// The three parts that make up the packet; each may be empty.
    #[must_use]
    pub fn parts<'a>(&self, batch: &'a SendBatch, received: &'a RecvBatch) -> [&'a [u8]; 3] {
        let range = self.start as usize..(self.start + self.len) as usize;
        let body = if self.staged { &batch.stages[range] } else { received.bytes(range) };
        let prefix = &batch.prefixes[self.prefix as usize..][..usize::from(self.prefix_len)];
        [prefix, body, &ZEROS[..usize::from(self.pad)]]
    }
}

/// Packets with the same [`Route`], in the order they were pushed.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Where they go.
    pub route: Route,
    head: u32,
    tail: u32,
}

/// Packets of one flow that can leave as one: all of `segment` bytes but the last, which may be shorter,
/// and with the same header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    first: Place,
    next: Place,
    /// How many packets.
    pub count: usize,
    /// Bytes of each but the last.
    pub segment: usize,
    /// What their IP headers shall say.
    pub fields: Fields,
}

/// A packet of a batch: the one of this number among some that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    alike: u32,
    at: u32,
}

/// What a backend can send as one.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Packets; 1 without segmentation.
    pub count: usize,
    /// Bytes of the largest packet in a run.
    pub segment: usize,
    /// Bytes in all.
    pub bytes: usize,
}

/// Buckets of the table that finds a packet's flow.
const BUCKETS: usize = 256;
const EMPTY: u16 = u16::MAX;

/// Packets to send, grouped into flows as they come.
pub struct SendBatch {
    packets: Vec<Alike>,
    flows: Vec<Flow>,
    /// Newest flow of a bucket. A flow that lost its bucket to another is complete: later packets of
    /// the same route start a new flow further back, so the order within a route holds.
    buckets: Box<[u16; BUCKETS]>,
    prefixes: Vec<u8>,
    stages: Box<[u8]>,
    staged: usize,
    has_links: bool,
}

impl SendBatch {
    /// An empty batch with all the memory it will ever use.
    #[must_use]
    pub fn new() -> Self {
        Self {
            packets: Vec::with_capacity(PACKETS),
            flows: Vec::with_capacity(PACKETS),
            buckets: Box::new([EMPTY; BUCKETS]),
            prefixes: Vec::with_capacity(PACKETS * PREFIX_LEN),
            stages: vec![0; STAGES * STAGE_LEN].into_boxed_slice(),
            staged: 0,
            has_links: false,
        }
    }

    /// Whether it must be sent before another packet is pushed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.packets.len() == PACKETS || self.staged == STAGES
    }

    /// Packets it takes before it must be sent, as far as they are none of its own.
    #[must_use]
    pub fn remaining(&self) -> usize {
        PACKETS - self.packets.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether some packet goes to a stream or a session.
    #[must_use]
    pub fn has_links(&self) -> bool {
        self.has_links
    }

    /// The buffer the next own packet is written into; [`SendBatch::push_staged`] makes it one. The
    /// batch must not be full.
    pub fn stage(&mut self) -> &mut [u8; STAGE_LEN] {
        let start = self.staged * STAGE_LEN;
        (&mut self.stages[start..start + STAGE_LEN]).try_into().expect("a stage is STAGE_LEN bytes")
    }

    /// Adds the first `len` bytes of the buffer of [`SendBatch::stage`] as a packet.
    pub fn push_staged(&mut self, route: Route, len: usize) {
        let start = self.staged * STAGE_LEN;
        self.staged += 1;
        self.append(route, Fields::default(), &[], &(start..start + len).into(), 0, true);
    }

    /// Adds a packet of `prefix` (at most 48 bytes), a part of the receive buffer, and `pad` (at most 3) zero bytes; or
    /// several, with a part each.
    pub fn push(&mut self, route: Route, fields: Fields, prefix: &[u8], bodies: impl Into<Bodies>, pad: u8) {
        self.append(route, fields, prefix, &bodies.into(), pad.min(3), false);
    }

    fn append(
        &mut self,
        route: Route,
        fields: Fields,
        prefix: &[u8],
        bodies: &Bodies,
        pad: u8,
        staged: bool,
    ) {
        let index = self.packets.len() as u32;
        debug_assert!(prefix.len() <= PREFIX_LEN);
        let first = Packet {
            prefix: self.prefixes.len() as u32,
            prefix_len: prefix.len() as u8,
            pad,
            media: !staged,
            staged,
            fields,
            start: bodies.first.start as u32,
            len: bodies.first.len() as u32,
        };
        self.prefixes.extend_from_slice(prefix);
        let (count, stride) = (bodies.count as u32, bodies.stride as u32);
        self.packets.push(Alike { first, count, stride, next: NONE });
        self.has_links |= !route.socket.is_socket();
        let bucket = bucket_of(&route);
        if let Some(flow) = self.flows.get_mut(usize::from(self.buckets[bucket]))
            && flow.route == route
        {
            self.packets[flow.tail as usize].next = index;
            flow.tail = index;
        } else {
            self.buckets[bucket] = self.flows.len() as u16;
            self.flows.push(Flow { route, head: index, tail: index });
        }
    }

    /// The flows, in the order of their first packets.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// The packets of a flow.
    pub fn packets(&self, flow: &Flow) -> impl Iterator<Item = Packet> {
        self.chain(flow.head).flat_map(|alike| alike.packets())
    }

    /// The packets of a run.
    pub fn run_packets(&self, run: &Run) -> impl Iterator<Item = Packet> {
        let alike = self.chain(run.first.alike).flat_map(|alike| alike.packets());
        alike.skip(run.first.at as usize).take(run.count)
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = &Alike> {
        let mut next = first;
        std::iter::from_fn(move || {
            let alike = self.packets.get(next as usize)?;
            next = alike.next;
            Some(alike)
        })
    }

    /// The place of the packet that is `count` after one, among those alike or the first after them.
    fn after(&self, place: Place, count: usize) -> Place {
        let Place { alike, at } = place;
        let (all, at) = (&self.packets[alike as usize], at + count as u32);
        if at < all.count { Place { alike, at } } else { Place { alike: all.next, at: 0 } }
    }

    /// The run that begins a flow, or the one after `previous`.
    #[must_use]
    pub fn next_run(&self, flow: &Flow, previous: Option<&Run>, limits: &RunLimits) -> Option<Run> {
        let first = previous.map_or(Place { alike: flow.head, at: 0 }, |run| run.next);
        let packet = self.packets.get(first.alike as usize)?.first;
        let segment = packet.len();
        let mut run = Run { first, next: self.after(first, 1), count: 1, segment, fields: packet.fields };
        if segment == 0 || segment > limits.segment {
            return Some(run);
        }
        let mut bytes = segment;
        while run.count < limits.count {
            let Some(alike) = self.packets.get(run.next.alike as usize) else { break };
            let len = alike.first.len();
            if len == 0 || len > segment || bytes + len > limits.bytes || alike.first.fields != run.fields {
                break;
            }
            let is_last = len < segment;
            let left = (alike.count - run.next.at) as usize;
            let more = match is_last || left == 1 {
                true => 1,
                false => left.min(limits.count - run.count).min((limits.bytes - bytes) / len),
            };
            bytes += more * len;
            run.count += more;
            run.next = self.after(run.next, more);
            if is_last {
                break;
            }
        }
        Some(run)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.prefixes.clear();
        self.flows.clear();
        self.buckets.fill(EMPTY);
        self.staged = 0;
        self.has_links = false;
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Cheap on purpose: a collision costs a chance to coalesce, nothing else.
fn bucket_of(route: &Route) -> usize {
    let address = match route.to.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => (ip.to_bits() ^ (ip.to_bits() >> 64)) as u32,
    };
    let mixed =
        (address ^ route.socket.0.rotate_left(16) ^ u32::from(route.to.port())).wrapping_mul(0x9E37_79B1);
    (mixed >> 24) as usize % BUCKETS
}

#[cfg(test)]
mod tests;
