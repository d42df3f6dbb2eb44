//! The data path takes no memory: every allocation of the process is counted while packets flow.

#![expect(unsafe_code, reason = "an allocator is unsafe by nature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use turnkey::worker::Backend;

use crate::client::{Client, Link};
use crate::rig::{accept, in_own_process, peer, pool};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes that are in use.
static LIVE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Bytes of memory in use.
pub(crate) fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

const CHANNEL: u16 = 0x4001;
const LEN: usize = 1000;

/// Sends `burst` packets each way, `rounds` times, without taking memory itself.
fn relay(client: &mut Client, peer: &UdpSocket, burst: usize, rounds: usize) {
    let frame = client.channel_data(CHANNEL, &[5; LEN]);
    let mut buffer = [0; 4 + LEN];
    for _ in 0..rounds {
        for _ in 0..burst {
            client.send_raw(&frame);
        }
        for _ in 0..burst {
            assert_eq!(peer.recv(&mut buffer).unwrap(), LEN);
        }
        for _ in 0..burst {
            peer.send(&buffer[..LEN]).unwrap();
        }
        for _ in 0..burst {
            match &mut client.link {
                Link::Udp(socket) => assert_eq!(socket.recv(&mut buffer).unwrap(), 4 + LEN),
                Link::Tcp { stream, .. } => stream.read_exact(&mut buffer).unwrap(),
                Link::Tls { stream, .. } => stream.read_exact(&mut buffer).unwrap(),
                Link::Dtls(_) => unreachable!("the clients of this test"),
            }
        }
    }
}

fn steady_relaying_takes_no_memory(backend: Backend) {
    let pool = Arc::new(pool(backend));
    for mut client in [Client::udp(pool.udp_addresses()[0]), Client::tcp(accept(&pool, "127.0.0.1"))] {
        let relayed = client.allocate(1);
        let (peer, address) = peer("127.0.0.1");
        peer.connect(relayed).unwrap();
        client.bind(CHANNEL, address);
        // A first round sizes the list of sockets that are ready and the buffer of a cut message.
        if let Link::Tcp { stream, .. } = &mut client.link {
            stream.write_all(&[0x40]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50));
            stream.write_all(&[0x01, 0, 0]).unwrap();
            assert_eq!(peer.recv(&mut [0; 10]).unwrap(), 0);
        }
        relay(&mut client, &peer, 20, 5);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        relay(&mut client, &peer, 20, 100);
        let taken = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // The test's own: the frame of each call of `relay`, and what the clock of a second brings.
        assert!(taken <= 20, "{taken} allocations for 4000 packets");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn linux() {
    in_own_process("allocations::linux", || steady_relaying_takes_no_memory(Backend::Linux));
}

#[test]
fn portable() {
    in_own_process("allocations::portable", || steady_relaying_takes_no_memory(Backend::Portable));
}
