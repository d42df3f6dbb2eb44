//! The memory of a relay core, counted to the byte: what an allocation costs, and that it is given
//! back when its time is over.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType as A, Class, IntegrityKey, MessageWriter, Method, TransactionId};
use turnkey::turn::{
    ClientPath, FiveTuple, IpFields, LinkId, MAX_REPLY, Now, Output, Server, Shared, Transport, Verdict,
    WorkerId,
};

use crate::allocations::live;
use crate::rig::{in_own_process, settings};

const ALLOCATIONS: u32 = 10_000;
/// User-space memory of an idle allocation with one channel.
const EACH: usize = 2048;

struct Core {
    server: Server,
    key: IntegrityKey,
    now: Now,
    reply: Box<[u8; MAX_REPLY]>,
    open: usize,
}

impl Core {
    fn new() -> Self {
        let settings = settings();
        let shared = Arc::new(Shared::new(settings.ports.clone()));
        Self {
            server: Server::new(settings, shared, WorkerId(0), [1; 32]),
            key: IntegrityKey::long_term("user", "test", "pass"),
            now: Now { mono: Duration::from_secs(1), unix: 1_700_000_000 },
            reply: Box::new([0; MAX_REPLY]),
            open: 0,
        }
    }

    fn ask(&mut self, n: u32, method: Method, fill: impl FnOnce(&mut MessageWriter<'_>)) {
        let client = SocketAddr::new(Ipv4Addr::from(0xC612_0000 + n).into(), 40_000);
        let five_tuple =
            FiveTuple { client, server: "192.0.2.1:3478".parse().unwrap(), transport: Transport::Udp };
        let path = ClientPath { five_tuple, link: LinkId(0) };
        let nonce = settings().nonces.issue(client, self.now.unix);
        let mut id = [method.to_u16() as u8; 12];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let mut buffer = [0; 512];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, TransactionId(id));
        fill(&mut writer);
        writer.attribute(A::USERNAME, b"user").attribute(A::REALM, b"test").attribute(A::NONCE, &nonce);
        let len = writer.integrity(&self.key).finish().unwrap();
        let packet = &buffer[..len];
        let verdict =
            self.server.handle_client(self.now, path, IpFields::default(), packet.into(), &mut self.reply);
        let verdict = self.drain().unwrap_or(verdict);
        assert!(matches!(verdict, Verdict::Reply { .. }), "{verdict:?}");
        assert_eq!(self.reply[0], 1, "a success response");
    }

    fn drain(&mut self) -> Option<Verdict> {
        let mut answer = None;
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::OpenRelay { relay, .. } => {
                    self.open += 1;
                    answer = Some(self.server.handle_relay_opened(self.now, relay, Ok(()), &mut self.reply));
                }
                Output::CloseRelay { .. } => self.open -= 1,
                other => panic!("{other:?}"),
            }
        }
        answer
    }

    fn crowd(&mut self, count: u32) {
        for n in 0..count {
            self.ask(n, Method::ALLOCATE, |w| {
                w.u32(A::REQUESTED_TRANSPORT, 17 << 24);
            });
            self.ask(n, Method::CHANNEL_BIND, |w| {
                w.u32(A::CHANNEL_NUMBER, 0x4000 << 16)
                    .xor_address(A::XOR_PEER_ADDRESS, "127.0.0.1:9".parse().unwrap());
            });
        }
        assert_eq!((self.server.stats().allocations, self.open), (count.into(), count as usize));
    }

    /// Lets all of them expire.
    fn wait(&mut self) {
        while let Some(at) = self.server.poll_timeout() {
            self.now.mono = at;
            self.server.handle_timeout(self.now);
            self.drain();
        }
        assert_eq!((self.server.stats().allocations, self.open), (0, 0));
    }
}

#[test]
fn ten_thousand_allocations_leave_nothing_when_they_expire() {
    in_own_process("memory::ten_thousand_allocations_leave_nothing_when_they_expire", || {
        let mut core = Core::new();
        core.crowd(100);
        core.wait();
        let before = live();
        core.crowd(ALLOCATIONS);
        let full = live();
        core.wait();
        let after = live();
        let each = (full - before) / ALLOCATIONS as usize;
        println!("{before} bytes before, {full} with {ALLOCATIONS} allocations ({each} each), {after} after");
        assert!(each <= EACH, "{each} bytes each");
        // What stays is the list of ports that rest, at most the port range.
        assert!(after - before <= (full - before) / 20, "{before} bytes before, {after} after");
    });
}
