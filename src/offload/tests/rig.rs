//! The program in a namespace with two interfaces' worth of routes, rows in it, and packets run through it by
//! `BPF_PROG_TEST_RUN`.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};

use super::super::maps::Loaded;
use super::super::outcome::Counters;
use super::super::running::Offload;
use super::super::{PASSED, system};
use super::namespace::ip;
use crate::turn::{FlowId, NO_METER, OffloadRow};

/// Which of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tc,
    Xdp,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Relayed(Vec<u8>),
    Dropped,
    Passed(Vec<u8>),
}

pub(super) struct Rig {
    pub(super) offload: Offload,
    kind: Kind,
}

pub(super) const SLOTS: u32 = 32;
const FOREVER: Duration = Duration::from_secs(1 << 30);

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A row between 10.0.1.2 (client) and 10.0.2.2 (peer), or the same in IPv6.
pub(super) fn row(slot: u32, is_ipv4: bool) -> OffloadRow {
    let host = |name: &str, port: u16| match is_ipv4 {
        true => address(&format!("10.0.{name}:{port}")),
        false => address(&format!("[fd00::{}]:{port}", name.replace('.', ":"))),
    };
    let nth = slot as u16;
    OffloadRow {
        flow: FlowId { slot, generation: 7 },
        client: host("1.2", 20_000 + nth),
        server: host("1.1", 3478),
        channel: 0x4000 + nth,
        relay: host("2.1", 50_000 + nth),
        peer: host("2.2", 9000 + nth),
        peer_is_relay: false,
        expires: FOREVER,
        meters: [NO_METER, NO_METER, 0],
    }
}

/// Two rows whose peers are each other's relays.
pub(super) fn twins(slot: u32, is_ipv4: bool) -> [OffloadRow; 2] {
    let [mut one, mut two] = [slot, slot + 1].map(|slot| row(slot, is_ipv4));
    for row in [&mut one, &mut two] {
        row.peer_is_relay = true;
    }
    (one.peer, two.peer) = (two.relay, one.relay);
    [one, two]
}

/// The namespace that the current process is in gets addresses, neighbours and a narrow way out.
pub(super) fn build_namespace() {
    ip("link set lo up; link add near type veth peer name far; link set far up; link set near up mtu 1500");
    ip("addr add 10.0.1.1/24 dev near; addr add 10.0.2.1/24 dev near; addr add 10.0.9.1/24 dev near");
    ip("addr add fd00::1:1/112 dev near nodad; addr add fd00::2:1/112 dev near nodad");
    for host in ["10.0.1.2", "10.0.2.2", "fd00::1:2", "fd00::2:2"] {
        ip(&format!("neigh add {host} lladdr 02:00:00:00:00:02 dev near nud permanent"));
    }
    for family in ["ipv4", "ipv6"] {
        std::fs::write(format!("/proc/sys/net/{family}/conf/lo/forwarding"), "1")
            .expect("inside a namespace");
    }
}

impl Rig {
    pub(super) fn new(object: &[u8], kind: Kind) -> Self {
        let origin = Instant::now() - Duration::from_secs(5);
        let mut loaded = Loaded::new(object, origin, SLOTS).expect("maps");
        let near = system::index_of("near").expect("an interface");
        loaded.tables.exits.insert(near, 1, 0).expect("room");
        let mut rig = Self { offload: Offload::new(loaded, Vec::new(), origin, SLOTS), kind };
        match kind {
            Kind::Tc => rig.tc().load().expect("the verifier accepts it"),
            Kind::Xdp => rig.xdp().load().expect("the verifier accepts it"),
        }
        rig.set_beat(FOREVER);
        rig
    }

    fn tc(&mut self) -> &mut SchedClassifier {
        self.offload.programs.program_mut("turn_tc").expect("is there").try_into().expect("is one")
    }

    fn xdp(&mut self) -> &mut Xdp {
        self.offload.programs.program_mut("turn_xdp").expect("is there").try_into().expect("is one")
    }

    /// When user space was last seen.
    pub(super) fn set_beat(&self, at: Duration) {
        self.offload.control[0].store(at.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn install(&self, rows: &[OffloadRow]) {
        rows.iter().for_each(|row| self.offload.install(row).expect("there is room"));
    }

    pub(super) fn run(&mut self, frame: &[u8]) -> Fate {
        self.run_with(frame, None)
    }

    /// With fields of the `__sk_buff` beside the bytes.
    pub(super) fn run_with(&mut self, frame: &[u8], context: Option<&[u8]>) -> Fate {
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: context,
            ..TestRunOptions::default()
        };
        let result: TestRunResult = match self.kind {
            Kind::Tc => self.tc().test_run(options),
            Kind::Xdp => self.xdp().test_run(options),
        }
        .expect("a run");
        out.truncate(result.data_size_out as usize);
        match (self.kind, result.return_value as i32) {
            (Kind::Tc, 7) | (Kind::Xdp, 3 | 4) => Fate::Relayed(out),
            (Kind::Tc, 2) | (Kind::Xdp, 1) => Fate::Dropped,
            (Kind::Tc, -1) | (Kind::Xdp, 2) => Fate::Passed(out),
            (kind, verdict) => panic!("{kind:?} said {verdict}"),
        }
    }

    /// The bytes from the IP header on; of IPv4 without the identification, which is drawn.
    pub(super) fn relayed(&mut self, frame: &[u8]) -> Vec<u8> {
        match self.run(frame) {
            Fate::Relayed(out) => out[super::frame::L3..].to_vec(),
            fate => panic!("{:?}: {fate:?}, {:?}", self.kind, self.offload.counters()),
        }
    }

    /// Asserts that a frame passes up as it came, for this reason.
    pub(super) fn assert_passes(&mut self, reason: &str, frame: &[u8]) {
        let which = PASSED.iter().position(|known| *known == reason).expect("a reason");
        let before = self.counters().passed[which];
        assert_eq!(self.run(frame), Fate::Passed(frame.to_vec()), "{:?} {reason}", self.kind);
        assert_eq!(
            self.counters().passed[which],
            before + 1,
            "{:?} {reason}: {:?}",
            self.kind,
            self.counters()
        );
    }

    pub(super) fn counters(&self) -> Counters {
        self.offload.counters()
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }
}
