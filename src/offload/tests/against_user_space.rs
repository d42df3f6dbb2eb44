//! Any packet: what the program relays is byte for byte what user space would have sent, and all else passes
//! up as it came.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::frame::{L3, Udp, is_intact, read};
use super::rig::{Fate, Kind, Rig, row, twins};
use crate::stun::ChannelData;
use crate::turn::OffloadRow;

/// A packet of a row, and what is wrong with it.
#[derive(Clone, Debug)]
struct Case {
    row: usize,
    to_peer: bool,
    payload: Vec<u8>,
    /// Bytes behind ChannelData.
    behind: usize,
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    /// Bytes behind the packet, as short Ethernet frames have them.
    trailer: usize,
    /// A byte that is another than it was.
    damage: Option<(usize, u8)>,
}

fn rows() -> Vec<OffloadRow> {
    let plain = (0..4).map(|slot| row(slot, slot % 2 == 0));
    plain.chain(twins(4, true)).chain(twins(6, false)).collect()
}

fn case() -> impl Strategy<Value = Case> {
    let payload =
        prop_oneof![prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..1400)];
    let behind = prop_oneof![5 => Just(0), 3 => 1_usize..4, 1 => 4_usize..9];
    let damage = prop_oneof![Just(None), (0_usize..90, 1_u8..).prop_map(Some)];
    let header = (any::<u8>(), any::<u8>(), any::<bool>(), 0_usize..20);
    (0_usize..8, any::<bool>(), payload, behind, header, damage).prop_map(
        |(row, to_peer, payload, behind, (tos, ttl, dont_fragment, trailer), damage)| Case {
            row,
            to_peer,
            payload,
            behind,
            tos,
            ttl,
            dont_fragment,
            trailer,
            damage,
        },
    )
}

impl Case {
    fn sent(&self, rows: &[OffloadRow]) -> Udp {
        let row = &rows[self.row];
        let mut udp = match self.to_peer || row.peer_is_relay {
            true => Udp::new(row.client, row.server, &channel_data(row.channel, &self.payload, self.behind)),
            false => Udp::new(row.peer, row.relay, &self.payload),
        };
        (udp.tos, udp.ttl, udp.fragment) = (self.tos, self.ttl, u16::from(self.dont_fragment) << 14);
        udp
    }

    fn frame(&self, rows: &[OffloadRow]) -> Vec<u8> {
        let mut frame = self.sent(rows).frame();
        frame.extend(std::iter::repeat_n(0xAA, self.trailer));
        if let Some((at, change)) = self.damage
            && let Some(byte) = frame.get_mut(at)
        {
            *byte ^= change;
        }
        frame
    }

    /// Nothing about it gives the program a reason to leave it. One checksum in 65,535 looks like one that is not
    /// filled in yet.
    fn is_plain(&self, rows: &[OffloadRow]) -> bool {
        let sent = self.sent(rows);
        if sent.frame() == sent.frame_with_partial_checksum() {
            return false;
        }
        let is_padded =
            self.behind == 0 || self.behind < 4 && (self.payload.len() + self.behind).is_multiple_of(4);
        self.damage.is_none() && (is_padded || !self.to_peer && self.row < 4)
    }
}

pub(super) fn channel_data(channel: u16, payload: &[u8], behind: usize) -> Vec<u8> {
    let len = payload.len() as u16;
    [&channel.to_be_bytes()[..], &len.to_be_bytes(), payload, &vec![0xEE; behind]].concat()
}

/// What the data path (src/turn/relay.rs) makes of a packet: whose channel it is, and what is sent on.
pub(super) fn user_space(rows: &[OffloadRow], frame: &[u8]) -> Option<Udp> {
    let udp = read(frame)?;
    let of = |ends: fn(&OffloadRow) -> (SocketAddr, SocketAddr)| {
        rows.iter().filter(move |row| ends(row) == (udp.src, udp.dst))
    };
    let to_client = |row: &OffloadRow, payload: &[u8]| {
        Some(Udp { tos: udp.tos, ..Udp::new(row.server, row.client, &channel_data(row.channel, payload, 0)) })
    };
    let data = ChannelData::parse(&udp.payload);
    let sender = data
        .and_then(|data| of(|row| (row.client, row.server)).find(|row| row.channel == data.number.to_u16()));
    let (Some(row), Some(data)) = (sender, data) else {
        return of(|row| (row.peer, row.relay))
            .find(|row| !row.peer_is_relay)
            .and_then(|row| to_client(row, &udp.payload));
    };
    match row.peer_is_relay {
        false => Some(Udp { tos: udp.tos, ..Udp::new(row.relay, row.peer, data.payload) }),
        true => rows
            .iter()
            .find(|twin| twin.relay == row.peer && twin.peer == row.relay)
            .and_then(|twin| to_client(twin, data.payload)),
    }
}

/// What left is what should have. The identification of IPv4 is anybody's; a checksum that was wrong stays so.
pub(super) fn assert_equal(expected: &Udp, came: &[u8], left: &[u8]) {
    let id = if expected.src.is_ipv4() { u16::from_be_bytes([left[L3 + 4], left[L3 + 5]]) } else { 0 };
    let mut wanted = Udp { id, ..expected.clone() }.packet();
    let mut left_packet = left[L3..].to_vec();
    if !is_intact(came) {
        assert!(!is_intact(left), "a wrong checksum was made right");
        let check = expected.ip_len() + 6;
        for packet in [&mut wanted, &mut left_packet] {
            packet[check..check + 2].fill(0);
        }
    }
    assert_eq!(left_packet, wanted);
}

/// Runs so many packets.
pub(super) fn holds(rig: Rig, cases: u32) {
    let rows = rows();
    rig.install(&rows);
    let (rig, relayed) = (RefCell::new(rig), Cell::new(0));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&case(), |case| {
            let mut rig = rig.borrow_mut();
            let frame = case.frame(&rows);
            let mut fate = rig.run(&frame);
            // XDP leaves one packet in some seconds to the kernel's neighbour discovery.
            if rig.kind() == Kind::Xdp && matches!(fate, Fate::Passed(_)) {
                fate = rig.run(&frame);
            }
            match fate {
                Fate::Relayed(left) => {
                    let expected = user_space(&rows, &frame);
                    prop_assert!(expected.is_some(), "user space would not have relayed it");
                    assert_equal(&expected.expect("just seen"), &frame, &left);
                    relayed.set(relayed.get() + 1);
                }
                Fate::Passed(left) => {
                    prop_assert_eq!(left, frame);
                    prop_assert!(!case.is_plain(&rows), "nothing is wrong with it: {:?}", rig.counters());
                }
                Fate::Dropped => prop_assert!(false, "dropped"),
            }
            Ok(())
        })
        .expect("the program does what user space does");
    assert!(relayed.get() > cases / 3, "{relayed:?} of {cases}");
}
