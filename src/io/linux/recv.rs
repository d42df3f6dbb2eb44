//! Receiving: headers are built once, each for the slot of its number; a call only says which of them to fill.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

use super::super::{Capabilities, Counters, RecvBatch, SLOT_LEN, SLOTS, UdpSocket};
use super::control::{Control, Told};
use super::sys::{self, Name};

/// Pending errors skipped in one read, so that a broken socket cannot hold the loop.
const MAX_ERRORS: usize = 16;

pub(super) struct Receiver {
    messages: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    /// Where the memory begins that the iovecs point into.
    aimed_at: usize,
}

impl Receiver {
    pub(super) fn new() -> Self {
        let mut receiver = Self {
            messages: vec![sys::empty_message(); SLOTS].into_boxed_slice(),
            iovecs: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: SLOT_LEN }; SLOTS]
                .into_boxed_slice(),
            names: vec![Name::zeroed(); SLOTS].into_boxed_slice(),
            controls: vec![Control::zeroed(); SLOTS].into_boxed_slice(),
            aimed_at: 0,
        };
        let parts = receiver.iovecs.iter_mut().zip(&mut receiver.names).zip(&mut receiver.controls);
        for (message, ((iovec, name), control)) in receiver.messages.iter_mut().zip(parts) {
            let header = &mut message.msg_hdr;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            header.msg_name = std::ptr::from_mut(name).cast();
            header.msg_control = control.as_mut_ptr();
            reset(header);
        }
        receiver
    }

    /// See [`super::super::Datagrams::recv`].
    pub(super) fn recv(
        &mut self,
        socket: &UdpSocket,
        into: &mut RecvBatch,
        limit: usize,
        caps: &mut Capabilities,
        counters: &mut Counters,
    ) -> bool {
        into.begin();
        let fd = socket.inner.as_raw_fd();
        let mut errors = 0;
        let mut room = limit.min(into.vacant());
        while room > 0 {
            let wanted = if caps.recvmmsg { room } else { 1 };
            let first = SLOTS - into.vacant();
            self.aim(into);
            counters.recv_calls += 1;
            match self.call(fd, first..first + wanted, caps.recvmmsg) {
                Ok(count) => {
                    self.take(socket, into, first..first + count, counters);
                    room -= count;
                    if caps.recvmmsg && count < wanted {
                        return true;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if caps.recvmmsg && e.raw_os_error() == Some(libc::ENOSYS) => {
                    caps.recvmmsg = false;
                    counters.fallbacks += 1;
                }
                // An error left by an ICMP message about some peer: it says nothing about what waits.
                Err(_) => {
                    counters.recv_errors += 1;
                    errors += 1;
                    if errors == MAX_ERRORS {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Points each header at the slot of its number, which they keep to while the memory is the same. The kernel
    /// knows addresses only: what lets it write to them is that each call exposes the memory anew.
    fn aim(&mut self, into: &mut RecvBatch) {
        let start = into.memory().as_mut_ptr().expose_provenance();
        if self.aimed_at != start {
            self.aimed_at = start;
            for (iovec, slot) in self.iovecs.iter_mut().zip(into.slots()) {
                iovec.iov_base = slot.as_mut_ptr().cast();
            }
        }
    }

    fn call(&mut self, fd: RawFd, slots: Range<usize>, many: bool) -> io::Result<usize> {
        // SAFETY: names, controls and iovecs are boxed slices of this struct as long as the headers,
        // and `aim` has seen to it that the iovecs point at different slots of SLOT_LEN bytes of the
        // batch that the caller of `recv` holds exclusively.
        unsafe {
            if many {
                sys::recvmmsg(fd, &mut self.messages[slots])
            } else {
                sys::recvmsg(fd, &mut self.messages[slots.start])
            }
        }
    }

    /// Lists what these headers have brought and readies them for the next call.
    fn take(
        &mut self,
        socket: &UdpSocket,
        into: &mut RecvBatch,
        slots: Range<usize>,
        counters: &mut Counters,
    ) {
        let parts = self.names[slots.clone()].iter().zip(&self.controls[slots.clone()]);
        for (message, (name, control)) in self.messages[slots].iter_mut().zip(parts) {
            let len = message.msg_len as usize;
            let told = match message.msg_hdr.msg_controllen {
                0 => Told::default(),
                len => control.told(len),
            };
            if let Some(total) = told.dropped {
                counters.recv_overflows += socket.newly_dropped(total);
            }
            let run = told.stride.filter(|stride| (1..len).contains(stride));
            reset(&mut message.msg_hdr);
            counters.recv_packets += run.map_or(1, |stride| len.div_ceil(stride)) as u64;
            // A datagram socket of ours has no other families; the slot is taken all the same, so
            // that slots and headers stay in step.
            let from = name.address().unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
            into.filled(from, told.to, len, run.unwrap_or(len), told.tos);
        }
    }
}

/// Gives name and control their full length again, which the kernel has replaced by what it used.
fn reset(header: &mut libc::msghdr) {
    header.msg_namelen = Name::LEN;
    header.msg_controllen = Control::LEN;
    header.msg_flags = 0;
}
