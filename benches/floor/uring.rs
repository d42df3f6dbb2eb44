//! io_uring: multishot receives into provided buffers on every socket, the sends of a turn over all sockets with one
//! call, which is the one that waits as well.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::table::{Change, Table, header, payload_end};

/// Buffers the kernel takes for what arrives.
const BUFFERS: u16 = 2048;
/// Bytes of one: the kernel's header, the sender's name, a datagram.
const BUFFER: usize = 33 * 64;
/// Where in a buffer the name is, and the datagram.
const NAME: usize = 16;
const PAYLOAD: usize = NAME + size_of::<libc::sockaddr_in>();
/// Registered sockets: the listener, then one a flow.
const FILES: u32 = 1 << 14;
/// Says that a completion is of a send, which failed: others are silent.
const SEND: u64 = u64::MAX;

/// Whether this kernel lets us have a ring of this kind; containers often forbid it.
pub(crate) fn is_allowed() -> bool {
    open_ring().is_ok()
}

fn open_ring() -> io::Result<IoUring> {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(8192).build(1024)
}

pub(crate) fn run(table: Table) -> io::Result<()> {
    let ring = open_ring()?;
    ring.submitter().register_files_sparse(FILES)?;
    let buffers = Buffers::new(&ring)?;
    // SAFETY: plain integers and null pointers.
    let (mut template, nobody) = unsafe { (std::mem::zeroed::<libc::msghdr>(), std::mem::zeroed()) };
    template.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
    let names = vec![[nobody; 2]; FILES as usize].into();
    let mut relay = Relay { table, ring, buffers, template: Box::new(template), names };
    relay.watch(0, relay.table.listener.as_raw_fd())?;
    let mut ready: Vec<cqueue::Entry> = Vec::with_capacity(8192);
    let mut used = Vec::with_capacity(8192);
    loop {
        relay.ring.submit_and_wait(1)?;
        // What was sent has left: a send that would have to wait fails.
        relay.buffers.give(&mut used);
        ready.extend(relay.ring.completion());
        for completion in ready.drain(..) {
            relay.complete(&completion, &mut used)?;
        }
    }
}

struct Relay {
    table: Table,
    ring: IoUring,
    buffers: Buffers,
    /// What the multishot receives are to tell.
    template: Box<libc::msghdr>,
    /// Client and peer of each flow, where the kernel reads them.
    names: Box<[[libc::sockaddr_in; 2]]>,
}

impl Relay {
    fn complete(&mut self, completion: &cqueue::Entry, used: &mut Vec<u16>) -> io::Result<()> {
        if completion.user_data() == SEND {
            return Ok(());
        }
        let socket = completion.user_data() as u32;
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            used.push(buffer);
            let len = usize::try_from(completion.result()).unwrap_or(0).saturating_sub(PAYLOAD);
            match socket {
                0 => self.pass_up(buffer, len)?,
                _ => self.pass_down(socket as usize - 1, buffer, len),
            }
        }
        if cqueue::more(completion.flags()) { Ok(()) } else { self.receive(socket) }
    }

    fn pass_up(&mut self, buffer: u16, len: usize) -> io::Result<()> {
        let (from, packet) = self.buffers.get(buffer, len);
        let flow = self.table.flow_of(from.port());
        let (Some(end), Some(index)) = (payload_end(packet), flow) else {
            let packet = packet.to_vec();
            return match self.table.answer(from, &packet)? {
                Change::Opened(flow) => {
                    self.names[flow][0] = name_of(self.table.flows[flow].client);
                    self.watch(flow as u32 + 1, self.table.flows[flow].relay.as_raw_fd())
                }
                Change::Bound(flow) => {
                    self.names[flow][1] = name_of(self.table.flows[flow].peer);
                    Ok(())
                }
                Change::Nothing => Ok(()),
            };
        };
        self.send(index as u32 + 1, &raw const self.names[index][1], packet[4..].as_ptr(), end - 4)
    }

    fn pass_down(&mut self, index: usize, buffer: u16, len: usize) {
        let front = self.buffers.front(buffer, header(len));
        // Only fails where the ring itself does, which the next turn tells.
        let _ = self.send(0, &raw const self.names[index][0], front, len + 4);
    }

    fn send(
        &mut self,
        socket: u32,
        to: *const libc::sockaddr_in,
        start: *const u8,
        len: usize,
    ) -> io::Result<()> {
        let send = opcode::Send::new(Fixed(socket), start, len as u32)
            .dest_addr(to.cast())
            .dest_addr_len(size_of::<libc::sockaddr_in>() as u32)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(SEND);
        self.push(&send)
    }

    fn watch(&mut self, socket: u32, fd: i32) -> io::Result<()> {
        self.ring.submitter().register_files_update(socket, &[fd])?;
        self.receive(socket)
    }

    fn receive(&mut self, socket: u32) -> io::Result<()> {
        let receive = opcode::RecvMsgMulti::new(Fixed(socket), &raw const *self.template, 0);
        self.push(&receive.build().user_data(socket.into()))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: names, template and buffers live as long as the ring, and a buffer is given back only after the
        // next submission.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }
}

/// Memory the kernel puts datagrams into, and the ring through which it gets it.
struct Buffers {
    memory: Box<[u8]>,
    entries: *mut BufRingEntry,
    tail: u16,
}

impl Buffers {
    fn new(ring: &IoUring) -> io::Result<Self> {
        let layout = Layout::array::<BufRingEntry>(BUFFERS.into()).and_then(|layout| layout.align_to(4096));
        let layout = layout.expect("a few pages");
        // SAFETY: the layout is not empty; the memory is never freed, so the kernel may keep it.
        let entries = unsafe { alloc_zeroed(layout) }.cast::<BufRingEntry>();
        if entries.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: `entries` are as many and live as long as the process.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, 0, 0)? };
        let memory = vec![0; usize::from(BUFFERS) * BUFFER].into_boxed_slice();
        let mut buffers = Self { memory, entries, tail: 0 };
        buffers.give(&mut (0..BUFFERS).collect());
        Ok(buffers)
    }

    /// Lets the kernel have these buffers.
    fn give(&mut self, used: &mut Vec<u16>) {
        for buffer in used.drain(..) {
            let start = self.memory[usize::from(buffer) * BUFFER..].as_mut_ptr();
            // SAFETY: the index is below the number of entries.
            let entry = unsafe { &mut *self.entries.add(usize::from(self.tail % BUFFERS)) };
            entry.set_addr(start as u64);
            entry.set_len(BUFFER as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail is a field of the first entry, which the kernel reads at any time.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Who sent what is in a buffer, and the `len` bytes of it.
    fn get(&self, buffer: u16, len: usize) -> (SocketAddrV4, &[u8]) {
        let bytes = &self.memory[usize::from(buffer) * BUFFER..][..BUFFER];
        let port = u16::from_be_bytes([bytes[NAME + 2], bytes[NAME + 3]]);
        let ip = Ipv4Addr::new(bytes[NAME + 4], bytes[NAME + 5], bytes[NAME + 6], bytes[NAME + 7]);
        (SocketAddrV4::new(ip, port), &bytes[PAYLOAD..PAYLOAD + len])
    }

    /// Writes a header in front of the datagram, over what is not needed of the name; returns where it begins.
    fn front(&mut self, buffer: u16, header: [u8; 4]) -> *const u8 {
        let start = usize::from(buffer) * BUFFER + PAYLOAD - header.len();
        self.memory[start..start + header.len()].copy_from_slice(&header);
        self.memory[start..].as_ptr()
    }
}

fn name_of(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}
