//! Sending: packets are gathered from where their parts lie, runs leave as one, and what the kernel
//! refuses is sent again the simpler way.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::super::{Capabilities, Counters, Flow, RecvBatch, Run, RunLimits, SendBatch, Sockets};
use super::control::Control;
use super::sys::{self, Name};

/// Messages of one sendmmsg.
const MESSAGES: usize = 64;
/// Pieces of them all; the kernel takes 1024 a message.
const IOVECS: usize = 1024;
/// Segments of a run (UDP_MAX_SEGMENTS of older kernels).
const SEGMENTS: usize = 64;
/// Bytes of a run: the payload of the largest IP packet of either family.
const RUN_BYTES: usize = 65_487;
/// A segment that fits every IPv4 path (RFC 791: 576 bytes): refused as too large, UDP_SEGMENT does not work at all.
const SMALLEST_PATH: usize = 548;

/// What a message of the ring carries.
#[derive(Clone, Copy, Default)]
struct Carried {
    packets: usize,
    segment: usize,
    first_iovec: usize,
    /// Bytes of control that say where to leave from and with which header fields: what a packet taken
    /// out of a run keeps.
    kept_len: usize,
}

pub(super) struct Sender {
    messages: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    carried: Box<[Carried]>,
    filled: usize,
    iovecs_used: usize,
    fd: RawFd,
}

impl Sender {
    pub(super) fn new() -> Self {
        Self {
            messages: vec![sys::empty_message(); MESSAGES].into_boxed_slice(),
            iovecs: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; IOVECS]
                .into_boxed_slice(),
            names: vec![Name::zeroed(); MESSAGES].into_boxed_slice(),
            controls: vec![Control::zeroed(); MESSAGES].into_boxed_slice(),
            carried: vec![Carried::default(); MESSAGES].into_boxed_slice(),
            filled: 0,
            iovecs_used: 0,
            fd: -1,
        }
    }

    /// See [`super::super::Datagrams::send`].
    pub(super) fn send(
        &mut self,
        sockets: &Sockets,
        batch: &SendBatch,
        received: &RecvBatch,
        caps: &mut Capabilities,
        counters: &mut Counters,
    ) {
        for flow in batch.flows().iter().filter(|flow| flow.route.socket.is_socket()) {
            let Some(socket) = sockets.get(flow.route.socket) else {
                counters.gone += batch.packets(flow).count() as u64;
                continue;
            };
            let fd = socket.inner.as_raw_fd();
            let is_ipv4 = flow.route.to.is_ipv4();
            if fd != self.fd {
                self.submit(caps, counters);
                self.fd = fd;
            }
            let mut previous = None;
            // DF is an option of the socket, not of a message: it is on for as few packets as can be.
            let mut whole = false;
            while let Some(run) = batch.next_run(flow, previous.as_ref(), &limits(caps)) {
                previous = Some(run);
                if run.fields.dont_fragment != whole {
                    self.submit(caps, counters);
                    if let Err(error) = sys::keep_whole(fd, is_ipv4, !whole) {
                        counters.failed(&error, run.count);
                        continue;
                    }
                    whole = !whole;
                }
                if self.filled == MESSAGES || self.iovecs_used + 3 * run.count > IOVECS {
                    self.submit(caps, counters);
                }
                self.add(flow, &run, batch, received);
            }
            if whole {
                self.submit(caps, counters);
                // Cannot fail where turning it on did not.
                let _ = sys::keep_whole(fd, is_ipv4, false);
            }
        }
        self.submit(caps, counters);
    }

    /// Describes a run in the next header. There is room for it.
    fn add(&mut self, flow: &Flow, run: &Run, batch: &SendBatch, received: &RecvBatch) {
        let first = self.iovecs_used;
        for packet in batch.run_packets(run) {
            for part in packet.parts(batch, received) {
                if !part.is_empty() {
                    let base = part.as_ptr().cast_mut().cast();
                    self.iovecs[self.iovecs_used] = libc::iovec { iov_base: base, iov_len: part.len() };
                    self.iovecs_used += 1;
                }
            }
        }
        let control = &mut self.controls[self.filled];
        let mut kept_len = flow.route.from.map_or(0, |source| control.set_source(source));
        if run.fields.tos != 0 {
            kept_len = control.set_tos(kept_len, flow.route.to, run.fields.tos);
        }
        let control_len = if run.count > 1 { control.set_segment(kept_len, run.segment) } else { kept_len };
        self.carried[self.filled] =
            Carried { packets: run.count, segment: run.segment, first_iovec: first, kept_len };
        let header = &mut self.messages[self.filled].msg_hdr;
        header.msg_namelen = self.names[self.filled].set(flow.route.to);
        header.msg_iovlen = self.iovecs_used - first;
        header.msg_controllen = control_len;
        self.filled += 1;
    }

    /// Hands the described messages to the kernel, whatever happens to single ones.
    fn submit(&mut self, caps: &mut Capabilities, counters: &mut Counters) {
        self.aim();
        let mut done = 0;
        while done < self.filled {
            counters.send_calls += 1;
            match self.call(done, caps.sendmmsg) {
                Ok(count) => {
                    self.carried[done..done + count].iter().for_each(|carried| sent(*carried, counters));
                    done += count;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if caps.sendmmsg && e.raw_os_error() == Some(libc::ENOSYS) => {
                    caps.sendmmsg = false;
                    counters.fallbacks += 1;
                }
                Err(e) => {
                    self.rescue(done, &e, caps, counters);
                    done += 1;
                }
            }
        }
        self.filled = 0;
        self.iovecs_used = 0;
    }

    /// Points the headers at what `add` has filled in for them.
    fn aim(&mut self) {
        let iovecs = self.iovecs.as_mut_ptr();
        for (n, message) in self.messages[..self.filled].iter_mut().enumerate() {
            let header = &mut message.msg_hdr;
            header.msg_name = std::ptr::from_mut(&mut self.names[n]).cast();
            header.msg_iov = iovecs.wrapping_add(self.carried[n].first_iovec);
            header.msg_control = self.controls[n].as_mut_ptr();
        }
    }

    /// Sends from message `from` on; returns how many left.
    fn call(&mut self, from: usize, many: bool) -> io::Result<usize> {
        // SAFETY: `aim` has pointed these headers at names, controls and iovecs of this struct, and the
        // iovecs at parts of the two batches that the caller of `send` holds until `submit` is over.
        unsafe {
            if many && self.filled - from > 1 {
                sys::sendmmsg(self.fd, &mut self.messages[from..self.filled])
            } else {
                sys::sendmsg(self.fd, &self.messages[from].msg_hdr).map(|()| 1)
            }
        }
    }

    /// Message `index` failed. The error may be left over from an earlier packet to somebody else, so
    /// it is tried once more; a run is then taken apart if it was the run that was refused.
    fn rescue(&mut self, index: usize, error: &io::Error, caps: &mut Capabilities, counters: &mut Counters) {
        let carried = self.carried[index];
        if error.kind() == io::ErrorKind::WouldBlock {
            return counters.failed(error, carried.packets);
        }
        let header = self.messages[index].msg_hdr;
        match self.resend(&header, carried, counters) {
            Ok(_) => sent(carried, counters),
            Err(e)
                if carried.packets > 1
                    && (refuses_runs(&e) || carried.kept_len > 0 && refuses_control(&e)) =>
            {
                if self.send_apart(&header, carried, counters) {
                    counters.fallbacks += 1;
                    caps.gso_max_segment = shrunk(carried.segment, &e);
                }
            }
            Err(e) => counters.failed(&e, carried.packets),
        }
    }

    /// Sends the packets of a run one by one. Returns whether some left just so, that is, whether being
    /// a run was what the kernel refused.
    fn send_apart(&self, run: &libc::msghdr, carried: Carried, counters: &mut Counters) -> bool {
        let mut header = *run;
        header.msg_controllen = carried.kept_len;
        let mut single = Carried { packets: 1, ..carried };
        let end = carried.first_iovec + run.msg_iovlen;
        let mut just_so = false;
        while single.first_iovec < end {
            header.msg_iov = run.msg_iov.wrapping_add(single.first_iovec - carried.first_iovec);
            header.msg_iovlen = self.pieces(single.first_iovec..end, carried.segment);
            let first = self.resend(&header, single, counters);
            match first.or_else(|_| self.resend(&header, single, counters)) {
                Ok(as_described) => {
                    just_so |= as_described;
                    sent(single, counters);
                }
                Err(e) => counters.failed(&e, 1),
            }
            single.first_iovec += header.msg_iovlen;
        }
        just_so
    }

    /// How many iovecs at the front of `range` make up a packet of `segment` bytes, or the shorter last one.
    fn pieces(&self, range: std::ops::Range<usize>, segment: usize) -> usize {
        let mut bytes = 0;
        let ends = |iovec: &libc::iovec| {
            bytes += iovec.iov_len;
            bytes >= segment
        };
        let all = range.len();
        self.iovecs[range].iter().position(ends).map_or(all, |last| last + 1)
    }

    /// Sends one message by itself: `true` if it left as described, `false` if without its source
    /// address and header fields because the kernel does not take them.
    fn resend(&self, header: &libc::msghdr, carried: Carried, counters: &mut Counters) -> io::Result<bool> {
        counters.send_calls += 1;
        // SAFETY: as in `call`; the header is one that `aim` has completed, or a part of it.
        match unsafe { sys::sendmsg(self.fd, header) } {
            Err(e) if carried.packets == 1 && carried.kept_len > 0 && refuses_control(&e) => {
                let mut bare = *header;
                bare.msg_controllen = 0;
                counters.fallbacks += 1;
                // SAFETY: as above, with less control.
                unsafe { sys::sendmsg(self.fd, &bare) }.map(|()| false)
            }
            result => result.map(|()| true),
        }
    }
}

/// The largest segment to try from now on, after runs of `segment` bytes were refused.
fn shrunk(segment: usize, error: &io::Error) -> usize {
    if segment <= SMALLEST_PATH || error.raw_os_error() == Some(libc::EIO) { 0 } else { segment - 1 }
}

fn limits(caps: &Capabilities) -> RunLimits {
    let count = if caps.gso_max_segment > 0 { SEGMENTS } else { 1 };
    RunLimits { count, segment: caps.gso_max_segment, bytes: RUN_BYTES }
}

fn sent(carried: Carried, counters: &mut Counters) {
    counters.send_packets += carried.packets as u64;
    if carried.packets > 1 {
        counters.send_coalesced += carried.packets as u64;
    }
}

/// EIO: no checksum offload on the way out. EINVAL, EMSGSIZE: the segment does not fit the path.
/// The others: this kernel or socket does not know UDP_SEGMENT.
fn refuses_runs(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

/// The address is no longer on this host, or this kernel takes none, or no header fields.
fn refuses_control(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::ENOPROTOOPT)
    )
}
