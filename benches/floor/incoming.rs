//! Receiving many datagrams with one call into slots that stay until what is in them has been sent.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::RawFd;

/// Datagrams, or coalesced runs of them, held at a time.
pub(crate) const SLOTS: usize = 64;
/// Bytes in front of what is received, for the header of the first packet of a slot.
const HEAD: usize = 64;
/// Room for the control message that tells the size of the datagrams of a run.
const CONTROL: usize = 32;

/// One datagram, or a run of datagrams of `stride` bytes from one sender.
#[derive(Clone, Copy)]
pub(crate) struct Datagrams {
    pub(crate) from: SocketAddrV4,
    /// The first byte; [`HEAD`] bytes in front of it may be written.
    pub(crate) start: *mut u8,
    pub(crate) len: usize,
    pub(crate) stride: usize,
}

impl Datagrams {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: made by `Incoming::get` from a slot that holds `len` bytes and is not written before `recycle`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

pub(crate) struct Incoming {
    memory: Box<[u8]>,
    slot_len: usize,
    used: usize,
    messages: Box<[libc::mmsghdr]>,
    // What the messages point to.
    _iovecs: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_in]>,
    controls: Box<[[u64; CONTROL / 8]]>,
}

impl Incoming {
    /// Slots for datagrams of up to `payload` bytes.
    pub(crate) fn new(payload: usize) -> Self {
        let slot_len = HEAD + payload;
        let mut memory = vec![0; SLOTS * slot_len].into_boxed_slice();
        // SAFETY: plain integers and null pointers.
        let (mut names, mut messages) = unsafe {
            let names: Box<[libc::sockaddr_in]> = vec![std::mem::zeroed(); SLOTS].into();
            let messages: Box<[libc::mmsghdr]> = vec![std::mem::zeroed(); SLOTS].into();
            (names, messages)
        };
        let mut controls = vec![[0; CONTROL / 8]; SLOTS].into_boxed_slice();
        let mut iovecs: Box<[libc::iovec]> = memory
            .chunks_exact_mut(slot_len)
            .map(|slot| libc::iovec { iov_base: slot[HEAD..].as_mut_ptr().cast(), iov_len: payload })
            .collect();
        for (n, message) in messages.iter_mut().enumerate() {
            let header = &mut message.msg_hdr;
            header.msg_name = (&raw mut names[n]).cast();
            header.msg_iov = &raw mut iovecs[n];
            header.msg_iovlen = 1;
            header.msg_control = controls[n].as_mut_ptr().cast();
        }
        Self { memory, slot_len, used: 0, messages, _iovecs: iovecs, names, controls }
    }

    pub(crate) fn vacant(&self) -> usize {
        SLOTS - self.used
    }

    /// Makes all slots vacant.
    pub(crate) fn recycle(&mut self) {
        self.used = 0;
    }

    /// Receives at most `most` into vacant slots; which they are, and whether nothing is left.
    pub(crate) fn recv(&mut self, fd: RawFd, most: usize, tells: bool) -> (std::ops::Range<usize>, bool) {
        let first = self.used;
        let wanted = most.min(self.vacant());
        for message in &mut self.messages[first..first + wanted] {
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            message.msg_hdr.msg_controllen = if tells { CONTROL } else { 0 };
        }
        let start = self.messages[first..].as_mut_ptr();
        // SAFETY: the headers point to name, control and slot of their own in boxes of this struct.
        let count =
            unsafe { libc::recvmmsg(fd, start, wanted as u32, libc::MSG_DONTWAIT, std::ptr::null_mut()) };
        let Ok(count) = usize::try_from(count) else {
            // A pending error about an earlier packet is no reason to stop.
            return (first..first, io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock);
        };
        self.used += count;
        (first..self.used, count < wanted)
    }

    /// What is in a slot.
    pub(crate) fn get(&mut self, slot: usize) -> Datagrams {
        let message = &self.messages[slot];
        let name = &self.names[slot];
        let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
        let len = message.msg_len as usize;
        // The only control message asked for: its header is 16 bytes, an int follows.
        let stride = match message.msg_hdr.msg_controllen {
            0 => len,
            _ => self.controls[slot][2] as u32 as usize,
        };
        let start = self.memory[slot * self.slot_len + HEAD..].as_mut_ptr();
        Datagrams { from: SocketAddrV4::new(ip, u16::from_be(name.sin_port)), start, len, stride }
    }
}
