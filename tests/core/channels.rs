//! ChannelBind and ChannelData: RFC 8656 §12.

use std::time::Duration;

use turnkey::stun::{AttributeType, Method};
use turnkey::turn::{DropReason, Transport};

use crate::lab::{Client, Event, Lab, PEER, addr, channel_data, path};

const HERE: &str = "192.0.2.9:40000";

fn bound() -> (Lab, Client, std::net::SocketAddr) {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
    (lab, client, relayed)
}

#[test]
fn rfc8656_12_2_number_range_is_4000_to_4fff() {
    let (mut lab, client, _) = bound();
    for (number, error) in
        [(0x3FFF, Some(400)), (0x4FFF, None), (0x5000, Some(400)), (0x7FFE, Some(400)), (0x8000, Some(400))]
    {
        assert_eq!(client.bind(&mut lab, number, &format!("1.1.1.1:{number}")), error, "{number:#x}");
    }
}

#[test]
fn rfc5766_11_legacy_numbers_by_option() {
    let mut lab = Lab::with(|settings| settings.legacy_channels = true);
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    for (number, error) in [(0x5000, None), (0x7FFE, None), (0x7FFF, Some(400))] {
        assert_eq!(client.bind(&mut lab, number, &format!("1.1.1.1:{number}")), error, "{number:#x}");
    }
    assert_eq!(client.channel(&mut lab, 0x7FFE, b"x").len(), 1);
}

#[test]
fn rfc8656_12_2_missing_attributes_are_400_and_other_errors_have_their_codes() {
    let (mut lab, client, _) = bound();
    let only_number = client.call(&mut lab, Method::CHANNEL_BIND, |w| {
        w.u32(AttributeType::CHANNEL_NUMBER, 0x4001 << 16);
    });
    let only_peer = client.call(&mut lab, Method::CHANNEL_BIND, |w| {
        w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(PEER));
    });
    assert_eq!((only_number.error, only_peer.error), (Some(400), Some(400)));
    assert_eq!(client.bind(&mut lab, 0x4001, "[2600::9]:1"), Some(443));
    assert_eq!(client.bind(&mut lab, 0x4001, "10.0.0.9:1"), Some(403));
    let other = Client::new(&mut lab, "192.0.2.9:2");
    assert_eq!(other.bind(&mut lab, 0x4000, PEER), Some(437));
}

#[test]
fn rfc8656_12_2_a_number_and_a_peer_belong_together() {
    let (mut lab, client, _) = bound();
    assert_eq!(client.bind(&mut lab, 0x4000, "1.1.1.1:1"), Some(400), "the number has another peer");
    assert_eq!(client.bind(&mut lab, 0x4001, PEER), Some(400), "the peer has another number");
    assert_eq!(client.bind(&mut lab, 0x4000, PEER), None, "a refresh");
    assert_eq!(client.bind(&mut lab, 0x4001, "8.8.8.8:5001"), None, "another port is another peer");
}

#[test]
fn rfc8656_12_data_flows_both_ways_without_padding_over_udp() {
    let (mut lab, client, relayed) = bound();
    let relay = lab.relays()[0].0;
    assert_eq!(
        client.channel(&mut lab, 0x4000, b"hello"),
        [Event::ToPeer(relay, addr(PEER), b"hello".to_vec())]
    );
    assert_eq!(
        lab.peer_sends(relayed, PEER, b"world"),
        [Event::ToClient(client.path, channel_data(0x4000, b"world"))]
    );
    assert_eq!(
        client.channel(&mut lab, 0x4000, b""),
        [Event::ToPeer(relay, addr(PEER), vec![])],
        "empty datagrams too"
    );
    assert_eq!(lab.peer_sends(relayed, PEER, b""), [Event::ToClient(client.path, channel_data(0x4000, b""))]);
    let stats = lab.server.stats();
    assert_eq!((stats.to_peer_packets, stats.to_peer_bytes), (2, 5));
    assert_eq!((stats.to_client_packets, stats.to_client_bytes), (2, 5));
}

#[test]
fn rfc8656_12_5_padding_is_accepted_over_udp_and_written_over_streams() {
    let (mut lab, client, _) = bound();
    let mut padded = channel_data(0x4000, b"hello");
    padded.extend([0; 3]);
    let relay = lab.relays()[0].0;
    assert_eq!(lab.client_sends(client.path, &padded), [Event::ToPeer(relay, addr(PEER), b"hello".to_vec())]);

    let tcp = Client::with(&mut lab, path("192.0.2.9:7", Transport::Tcp), "static", "pass");
    let relayed = tcp.allocate(&mut lab);
    tcp.bind(&mut lab, 0x4000, PEER);
    for len in 0..9 {
        let data = vec![7; len];
        let mut expected = channel_data(0x4000, &data);
        expected.resize(expected.len().next_multiple_of(4), 0);
        assert_eq!(lab.peer_sends(relayed, PEER, &data), [Event::ToClient(tcp.path, expected)]);
    }
}

#[test]
fn rfc8656_12_6_short_or_unbound_channel_data_is_dropped() {
    let (mut lab, client, _) = bound();
    lab.silent(client.path, &channel_data(0x4001, b"x"));
    lab.silent(client.path, &channel_data(0x4000, b"hello")[..8]);
    lab.silent(path("192.0.2.9:2", Transport::Udp), &channel_data(0x4000, b"x"));
    let drops = lab.server.stats().drops;
    assert_eq!(drops[DropReason::NoChannel as usize], 1);
    assert_eq!(drops[DropReason::Malformed as usize], 1);
    assert_eq!(drops[DropReason::NoAllocation as usize], 1);
}

#[test]
fn rfc8656_12_2_binding_installs_the_permission() {
    let (mut lab, client, relayed) = bound();
    assert_eq!(client.send(&mut lab, "8.8.8.8:99", b"x").len(), 1);
    assert_eq!(lab.peer_sends(relayed, "8.8.8.8:99", b"x").len(), 1);
}

#[test]
fn rfc8656_12_data_on_a_live_channel_stops_with_its_permission() {
    let (mut lab, client, relayed) = bound();
    lab.advance(Duration::from_secs(300) - Duration::from_millis(1));
    assert_eq!(client.channel(&mut lab, 0x4000, b"x").len(), 1);
    lab.advance(Duration::from_millis(1));
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), []);
    assert_eq!(lab.peer_sends(relayed, PEER, b"x"), []);
    client.permit(&mut lab, PEER);
    assert_eq!(client.channel(&mut lab, 0x4000, b"x").len(), 1, "the channel was still there");
}

#[test]
fn rfc8656_12_packets_that_take_turns_on_two_channels_keep_to_their_peers() {
    let (mut lab, client, relayed) = bound();
    lab.advance(Duration::from_secs(100));
    let other = "8.8.4.4:7";
    assert_eq!(client.bind(&mut lab, 0x4001, other), None);
    let turns = |lab: &mut Lab| {
        [(0x4000, PEER), (0x4001, other)].map(|(number, peer)| {
            let up = client.channel(lab, number, b"up");
            let down = lab.peer_sends(relayed, peer, b"down");
            let is_up = matches!(&up[..], [Event::ToPeer(_, to, _)] if *to == addr(peer));
            let is_down =
                matches!(&down[..], [Event::ToClient(_, bytes)] if *bytes == channel_data(number, b"down"));
            (is_up, is_down)
        })
    };
    for _ in 0..2 {
        assert_eq!(turns(&mut lab), [(true, true); 2]);
    }
    lab.advance(Duration::from_secs(200));
    assert_eq!(turns(&mut lab), [(false, false), (true, true)], "the first one's permission is over");
}

#[test]
fn rfc8656_12_256_channels_and_no_more() {
    let (mut lab, client, _) = bound();
    for n in 1..256 {
        assert_eq!(client.bind(&mut lab, 0x4000 + n, &format!("8.8.8.8:{}", 6000 + n)), None);
    }
    assert_eq!(client.bind(&mut lab, 0x4100, "8.8.8.8:7000"), Some(508));
    assert_eq!(client.bind(&mut lab, 0x40FF, "8.8.8.8:6255"), None, "refreshing goes on");
}
