//! Each reason to leave a packet to user space, by name, and what ends a row.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::against_user_space::{assert_equal, channel_data, user_space};
use super::frame::{L3, Udp};
use super::rig::{Fate, Kind, Rig, SLOTS, address, row, twins};
use crate::offload::InstallError;
use crate::turn::{Count, FlowId, NO_METER, OffloadRow, Usage};

/// Each with a program of its own.
pub(super) fn all(new: impl Fn() -> Rig) {
    let cases: [fn(&mut Rig); 14] = [
        rfc8656_12_channel_data_leaves_as_user_space_sends_it,
        rfc8656_12_5_other_padding_passes,
        rfc8656_14_fragments_options_and_tags_pass,
        a_checksum_that_is_absent_or_not_filled_in_passes,
        packets_of_nobody_pass,
        a_row_that_expired_passes,
        a_server_that_shows_no_sign_of_life_relays_nothing,
        what_has_no_next_hop_passes,
        what_grows_beyond_the_mtu_passes,
        a_relay_without_a_channel_back_passes,
        a_removed_row_relays_nothing_and_says_what_it_carried,
        bandwidth_counts_on_the_words_of_user_space,
        rows_are_bounded_and_keys_are_not_taken_away,
        the_kernel_looks_after_neighbours_of_xdp,
    ];
    for case in cases {
        case(&mut new());
    }
}

fn from_client(row: &OffloadRow, payload: &[u8]) -> Udp {
    Udp::new(row.client, row.server, &channel_data(row.channel, payload, 0))
}

fn from_peer(row: &OffloadRow, payload: &[u8]) -> Udp {
    Udp::new(row.peer, row.relay, payload)
}

fn rfc8656_12_channel_data_leaves_as_user_space_sends_it(rig: &mut Rig) {
    let mut rows = vec![row(0, true), row(1, false)];
    rows.extend(twins(2, true));
    rows.extend(twins(4, false));
    rig.install(&rows);
    for (row, behind) in rows.iter().zip([0, 1, 2, 3, 0, 1]) {
        let payload = vec![0x40; 172 - behind];
        let mut sent = Udp::new(row.client, row.server, &channel_data(row.channel, &payload, behind));
        (sent.tos, sent.ttl, sent.fragment) = (0xB9, 3, 0x4000);
        let mut frames = vec![sent.frame()];
        if !row.peer_is_relay {
            frames.push(from_peer(row, &payload).frame());
        }
        for frame in frames {
            let left = [vec![0; L3], rig.relayed(&frame)].concat();
            let expected = user_space(&rows, &frame).expect("its row is there");
            assert_equal(&expected, &frame, &left);
        }
    }
    let counters = rig.counters();
    assert_eq!((counters.to_peer, counters.to_client, counters.local), (2, 2, 4));
}

fn rfc8656_12_5_other_padding_passes(rig: &mut Rig) {
    let row = row(0, true);
    rig.install(&[row]);
    let send = |payload: &[u8]| Udp::new(row.client, row.server, payload).frame();
    rig.assert_passes("bad_length", &send(&channel_data(row.channel, b"12345678", 4)));
    rig.assert_passes("bad_length", &send(&channel_data(row.channel, b"1234567", 2)));
    rig.assert_passes("bad_length", &send(&channel_data(row.channel, b"12345678", 0)[..11]));
    rig.assert_passes("no_flow", &send(&row.channel.to_be_bytes()));
    rig.assert_passes("no_flow", &send(&[]));
}

fn rfc8656_14_fragments_options_and_tags_pass(rig: &mut Rig) {
    let (row, row6) = (row(0, true), row(1, false));
    rig.install(&[row, row6]);
    let plain = from_client(&row, b"12345678");
    for fragment in [0x2000, 0x0001, 0x8000] {
        rig.assert_passes("not_plain", &Udp { fragment, ..plain.clone() }.frame());
    }
    let frame = plain.frame();
    let mut options = frame.clone();
    options.splice(L3 + 20..L3 + 20, [1, 1, 1, 1]);
    (options[L3], options[L3 + 3]) = (0x46, options[L3 + 3] + 4);
    let mut tagged = frame.clone();
    tagged.splice(12..12, [0x81, 0x00, 0, 5]);
    let mut header = frame.clone();
    header[L3 + 11] ^= 1;
    let mut extension = from_client(&row6, b"12345678").frame();
    extension[L3 + 6] = 44;
    for frame in [options, tagged, header, extension, frame[..40].to_vec()] {
        rig.assert_passes("not_plain", &frame);
    }
    // Several packets in one, and packets of others, are told by the fields beside the bytes.
    if rig.kind() == Kind::Tc {
        let mut context = [0_u8; 192];
        context[176..180].copy_from_slice(&100_u32.to_ne_bytes());
        assert_eq!(rig.run_with(&frame, Some(&context)), Fate::Passed(frame.clone()));
    }
    let mut others = frame;
    others[0] = 1;
    assert_eq!(rig.run(&others), Fate::Passed(others));
    assert_eq!(rig.counters().forwarded(), 0);
}

fn a_checksum_that_is_absent_or_not_filled_in_passes(rig: &mut Rig) {
    let rows = [row(0, true), row(1, false)];
    rig.install(&rows);
    for row in &rows {
        for sent in [from_client(row, b"12345678"), from_peer(row, b"12345678")] {
            rig.assert_passes("no_checksum", &sent.frame_with_partial_checksum());
            let (mut absent, at) = (sent.frame(), L3 + sent.ip_len() + 6);
            absent[at..at + 2].fill(0);
            rig.assert_passes("no_checksum", &absent);
        }
    }
}

fn packets_of_nobody_pass(rig: &mut Rig) {
    let row = row(0, true);
    rig.install(&[row]);
    let (mut port, mut host, mut to) =
        (from_client(&row, b"1234"), from_peer(&row, b"1234"), from_client(&row, b"1234"));
    port.src.set_port(1);
    host.src.set_ip(address("10.0.2.3:1").ip());
    to.dst.set_ip(address("10.0.9.1:1").ip());
    let channel = Udp::new(row.client, row.server, &channel_data(0x4FFF, b"1234", 0));
    let stun = Udp::new(row.client, row.server, &[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
    for udp in [port, host, to, channel, stun] {
        rig.assert_passes("no_flow", &udp.frame());
    }
}

fn a_row_that_expired_passes(rig: &mut Rig) {
    let mut row = row(0, true);
    rig.install(&[row]);
    rig.relayed(&from_client(&row, b"1234").frame());
    row.expires = Duration::from_millis(1);
    rig.install(&[row]);
    rig.assert_passes("expired", &from_client(&row, b"1234").frame());
    rig.assert_passes("expired", &from_peer(&row, b"1234").frame());
    row.expires = Duration::from_secs(1 << 30);
    rig.install(&[row]);
    rig.relayed(&from_peer(&row, b"1234").frame());
    let [one, mut two] = twins(2, true);
    two.expires = Duration::from_millis(1);
    rig.install(&[one, two]);
    rig.assert_passes("expired", &from_client(&one, b"1234").frame());
}

fn a_server_that_shows_no_sign_of_life_relays_nothing(rig: &mut Rig) {
    let row = row(0, true);
    rig.install(&[row]);
    // The program's time began five seconds ago.
    rig.set_beat(Duration::ZERO);
    rig.assert_passes("no_beat", &from_client(&row, b"1234").frame());
    rig.assert_passes("no_beat", &from_peer(&row, b"1234").frame());
}

fn what_has_no_next_hop_passes(rig: &mut Rig) {
    let (mut nowhere, mut silent, mut here) = (row(0, true), row(1, true), row(2, true));
    nowhere.peer = address("192.0.2.1:9");
    silent.peer = address("10.0.2.77:9");
    here.peer = address("10.0.1.1:9");
    rig.install(&[nowhere, silent, here]);
    rig.assert_passes("no_route", &from_client(&nowhere, b"1234").frame());
    rig.assert_passes("no_route", &from_client(&here, b"1234").frame());
    let to_silent = from_client(&silent, b"1234").frame();
    match rig.kind() {
        // The kernel asks for the neighbour and keeps the packet meanwhile.
        Kind::Tc => assert!(matches!(rig.run(&to_silent), Fate::Relayed(_))),
        Kind::Xdp => rig.assert_passes("no_neighbour", &to_silent),
    }
}

fn what_grows_beyond_the_mtu_passes(rig: &mut Rig) {
    for (row, most) in [(row(0, true), 1500 - 28 - 4), (row(1, false), 1500 - 48 - 4)] {
        rig.install(&[row]);
        // First with no next hop known, then with one.
        rig.assert_passes("too_large", &from_peer(&row, &vec![7; most + 1]).frame());
        rig.relayed(&from_peer(&row, &vec![7; most]).frame());
        rig.assert_passes("too_large", &from_peer(&row, &vec![7; most + 1]).frame());
    }
}

fn a_relay_without_a_channel_back_passes(rig: &mut Rig) {
    let [one, two] = twins(0, true);
    rig.install(&[one]);
    rig.assert_passes("no_twin", &from_client(&one, b"1234").frame());
    rig.install(&[two]);
    rig.relayed(&from_client(&one, b"1234").frame());
    // Nobody outside sends from a relay of this server.
    rig.assert_passes("no_flow", &from_peer(&one, b"1234").frame());
    rig.offload.remove(two.flow);
    rig.assert_passes("no_twin", &from_client(&one, b"1234").frame());
}

fn a_removed_row_relays_nothing_and_says_what_it_carried(rig: &mut Rig) {
    let row = row(0, false);
    rig.install(&[row]);
    for payload in [&b"1234"[..], b"123456"] {
        rig.relayed(&from_client(&row, payload).frame());
    }
    rig.relayed(&from_peer(&row, b"").frame());
    let carried =
        Usage { to_peer: Count { packets: 2, bytes: 10 }, to_client: Count { packets: 1, bytes: 0 } };
    assert_eq!(rig.offload.usage(row.flow), carried);
    assert_eq!(rig.offload.remove(row.flow), carried);
    rig.assert_passes("no_flow", &from_client(&row, b"1234").frame());
    rig.assert_passes("no_flow", &from_peer(&row, b"1234").frame());
    // The next one in its place begins from nothing, and the old name says nothing of it.
    let next = OffloadRow { flow: FlowId { generation: 8, ..row.flow }, ..row };
    rig.install(&[next]);
    assert_eq!(rig.offload.usage(next.flow), Usage::default());
    rig.relayed(&from_client(&next, b"1").frame());
    assert_eq!(rig.offload.remove(row.flow), Usage::default());
    assert_eq!(rig.offload.usage(next.flow).to_peer, Count { packets: 1, bytes: 1 });
    // Nor do its packets leave where those of the last one did.
    rig.offload.remove(next.flow);
    let flow = FlowId { generation: 9, ..row.flow };
    let elsewhere = OffloadRow { flow, peer: address("[2001:db8::1]:9"), ..row };
    rig.install(&[elsewhere]);
    rig.assert_passes("no_route", &from_client(&elsewhere, b"1234").frame());
}

/// A byte a second, so that no delay of the test lets a second packet through.
fn bandwidth_counts_on_the_words_of_user_space(rig: &mut Rig) {
    let [mut one, mut two] = twins(0, true);
    (one.meters, two.meters) = ([1, 3, 0], [2, 3, 0]);
    let lone = OffloadRow { meters: [4, 5, 0], ..row(2, true) };
    let unmetered = OffloadRow { meters: [NO_METER; 3], ..row(3, true) };
    rig.install(&[one, two, lone, unmetered]);
    let words = rig.offload.meters();
    let is_used = |pair: usize, direction: usize| words[2 * pair + direction].load(Ordering::Relaxed) > 0;
    rig.offload.set_rates([1, 0, 0]);
    let send = from_client(&lone, &[7; 1000]).frame();
    rig.relayed(&send);
    let full = words[8].load(Ordering::Relaxed);
    assert!((1_000_000_000_000..2_000_000_000_000).contains(&full), "{full}");
    assert_eq!(rig.run(&send), Fate::Dropped);
    assert_eq!(words[8].load(Ordering::Relaxed), full, "what is dropped costs nothing");
    assert_eq!(rig.counters().over_bandwidth, 1);
    rig.relayed(&from_peer(&lone, &[7; 1000]).frame());
    assert!(is_used(4, 1) && !is_used(5, 0) && !is_used(0, 0));
    rig.assert_passes("no_meter", &from_client(&unmetered, b"1234").frame());
    // From client to client both pay: the one to its peer, the other to its client.
    rig.offload.set_rates([0, 1, 1 << 40]);
    rig.relayed(&from_client(&one, &[7; 1000]).frame());
    assert_eq!([is_used(3, 0), is_used(3, 1), is_used(0, 0), is_used(0, 1)], [true; 4]);
    assert_eq!([is_used(1, 0), is_used(2, 1)], [false; 2]);
    assert_eq!(rig.run(&from_client(&two, &[7; 10]).frame()), Fate::Dropped);
    // User space takes from the same words.
    rig.offload.set_rates([0; 3]);
    rig.relayed(&send);
    rig.offload.set_rates([0, 0, 1 << 40]);
    words[0].store(u64::MAX / 2, Ordering::Relaxed);
    assert_eq!(rig.run(&send), Fate::Dropped);
}

fn rows_are_bounded_and_keys_are_not_taken_away(rig: &mut Rig) {
    let rows: Vec<OffloadRow> = (0..SLOTS).map(|slot| row(slot, slot % 2 == 0)).collect();
    rig.install(&rows);
    let offload = &rig.offload;
    assert_eq!(offload.install(&row(SLOTS, true)), Err(InstallError::Full));
    assert_eq!(
        offload.install(&OffloadRow { peer: address("[fd00::2:2]:9"), ..rows[0] }),
        Err(InstallError::MixedFamilies)
    );
    assert_eq!(offload.install(&OffloadRow { channel: 0x4ABC, ..rows[0] }), Err(InstallError::Taken));
    let first = offload.remove(rows[2].flow);
    assert_eq!(first, Usage::default());
    assert_eq!(offload.install(&OffloadRow { flow: rows[2].flow, ..rows[0] }), Err(InstallError::Taken));
    assert_eq!(offload.counters().not_installed, 4);
    rig.relayed(&from_client(&rows[0], b"1234").frame());
}

fn the_kernel_looks_after_neighbours_of_xdp(rig: &mut Rig) {
    if rig.kind() == Kind::Tc {
        return;
    }
    let row = row(0, true);
    rig.install(&[row]);
    rig.offload.set_lookups(0, 3);
    rig.assert_passes("neighbour_due", &from_client(&row, b"1234").frame());
    rig.relayed(&from_client(&row, b"1234").frame());
}
