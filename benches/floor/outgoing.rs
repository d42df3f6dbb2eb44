//! Sending many datagrams of one socket with one call, and runs of equal ones to one place as one.

use std::net::SocketAddrV4;
use std::os::fd::RawFd;

const MESSAGES: usize = 64;
const PIECES: usize = 1024;
/// Packets of a run, and bytes.
const RUN: usize = 64;
const RUN_BYTES: usize = 65_000;

/// The control message that says how large the packets of a run are.
#[derive(Clone, Copy)]
#[repr(C)]
struct Segment {
    header: libc::cmsghdr,
    size: u64,
}

/// The message that is being filled.
#[derive(Clone, Copy, Default)]
struct Run {
    /// Who gets it: the number of a flow.
    flow: usize,
    size: usize,
    bytes: usize,
    count: usize,
    is_over: bool,
}

pub(crate) struct Outgoing {
    fd: RawFd,
    runs: bool,
    messages: Box<[libc::mmsghdr]>,
    names: Box<[libc::sockaddr_in]>,
    segments: Box<[Segment]>,
    pieces: Box<[libc::iovec]>,
    headers: Box<[[u8; 4]]>,
    filled: usize,
    pieces_used: usize,
    last: Run,
}

impl Outgoing {
    /// `runs`: packets to one place may leave as one.
    pub(crate) fn new(runs: bool) -> Self {
        let header =
            libc::cmsghdr { cmsg_len: 16 + 2, cmsg_level: libc::SOL_UDP, cmsg_type: libc::UDP_SEGMENT };
        // SAFETY: plain integers and null pointers.
        let (names, messages) = unsafe { (std::mem::zeroed(), std::mem::zeroed::<libc::mmsghdr>()) };
        Self {
            fd: -1,
            runs,
            messages: vec![messages; MESSAGES].into(),
            names: vec![names; MESSAGES].into(),
            segments: vec![Segment { header, size: 0 }; MESSAGES].into(),
            pieces: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES].into(),
            headers: vec![[0; 4]; PIECES].into(),
            filled: 0,
            pieces_used: 0,
            last: Run::default(),
        }
    }

    /// Adds a packet of flow `flow`, which leaves through `fd`: `header` if there is one, and `len` bytes from `start`
    /// on, which stay until `flush`. Without an address the socket knows where to.
    pub(crate) fn push(
        &mut self,
        fd: RawFd,
        flow: usize,
        to: Option<SocketAddrV4>,
        header: Option<[u8; 4]>,
        (start, len): (*mut u8, usize),
    ) {
        let size = len + header.map_or(0, |header| header.len());
        if fd != self.fd || self.pieces_used + 2 > PIECES {
            self.flush();
            self.fd = fd;
        }
        if !self.joins(flow, size) {
            if self.filled == MESSAGES {
                self.flush();
            }
            self.begin(flow, to, size);
        }
        if let Some(header) = header {
            self.headers[self.pieces_used] = header;
            let base = self.headers[self.pieces_used].as_mut_ptr();
            self.piece(base, header.len());
        }
        self.piece(start, len);
        self.last.bytes += size;
        self.last.count += 1;
        self.last.is_over = size < self.last.size;
    }

    fn joins(&self, flow: usize, size: usize) -> bool {
        let last = &self.last;
        let fits = size <= last.size && last.count < RUN && last.bytes + size <= RUN_BYTES;
        self.runs && self.filled > 0 && last.flow == flow && !last.is_over && fits
    }

    fn begin(&mut self, flow: usize, to: Option<SocketAddrV4>, size: usize) {
        self.close();
        let header = &mut self.messages[self.filled].msg_hdr;
        header.msg_iov = self.pieces[self.pieces_used..].as_mut_ptr();
        header.msg_iovlen = 0;
        header.msg_namelen = 0;
        if let Some(to) = to {
            let name = &mut self.names[self.filled];
            name.sin_family = libc::AF_INET as u16;
            name.sin_port = to.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
            header.msg_name = std::ptr::from_mut(name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        }
        header.msg_controllen = 0;
        self.filled += 1;
        self.last = Run { flow, size, ..Run::default() };
    }

    fn piece(&mut self, base: *mut u8, len: usize) {
        self.pieces[self.pieces_used] = libc::iovec { iov_base: base.cast(), iov_len: len };
        self.pieces_used += 1;
        self.messages[self.filled - 1].msg_hdr.msg_iovlen += 1;
    }

    /// Makes a run of the message that is being filled if it has more than one packet.
    fn close(&mut self) {
        if self.last.count > 1 {
            let segment = &mut self.segments[self.filled - 1];
            segment.size = self.last.size as u64;
            let header = &mut self.messages[self.filled - 1].msg_hdr;
            header.msg_control = std::ptr::from_mut(segment).cast();
            header.msg_controllen = size_of::<Segment>();
        }
        self.last.count = 0;
    }

    /// Sends everything; what the kernel refuses is left out.
    pub(crate) fn flush(&mut self) {
        self.close();
        let mut done = 0;
        while done < self.filled {
            let rest = &mut self.messages[done..self.filled];
            // SAFETY: names, segments and pieces are boxes of this struct, and the pieces point to slots that the
            // caller keeps until this returns.
            let sent =
                unsafe { libc::sendmmsg(self.fd, rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT) };
            done += usize::try_from(sent).unwrap_or(1);
        }
        self.filled = 0;
        self.pieces_used = 0;
    }
}
