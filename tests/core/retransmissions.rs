//! Every request may come twice, because its answer was lost: the second answer is as good as the first
//! (RFC 8489 §6.3, RFC 8656 §7.2; mistakes 1 and 17 of existing servers).

use std::time::Duration;

use turnkey::stun::{AttributeType, MessageWriter, Method};

use crate::lab::{Client, Lab, PEER, UDP, addr};

const HERE: &str = "192.0.2.9:40000";

type Fill = fn(&mut MessageWriter<'_>);

fn peer(w: &mut MessageWriter<'_>) {
    w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(PEER));
}

fn channel(w: &mut MessageWriter<'_>) {
    w.u32(AttributeType::CHANNEL_NUMBER, 0x4000 << 16);
    peer(w);
}

fn lifetime(w: &mut MessageWriter<'_>) {
    w.u32(AttributeType::LIFETIME, 1200);
}

#[test]
fn rfc8489_6_3_every_retransmitted_request_gets_the_same_answer() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let requests: [(Method, Fill); 3] =
        [(Method::REFRESH, lifetime), (Method::CREATE_PERMISSION, peer), (Method::CHANNEL_BIND, channel)];
    for (method, fill) in requests {
        let packet = client.signed(lab.transaction(), method, fill);
        let answers = [(); 3].map(|()| lab.ask(client.path, &packet));
        assert_eq!(answers[0].error, None, "{method:?}");
        assert!(answers.iter().all(|answer| answer.bytes == answers[0].bytes), "{method:?}");
    }
    assert_eq!((lab.allocations(), lab.open.len()), (1, 1));
    assert_eq!(client.channel(&mut lab, 0x4000, b"x").len(), 1);
}

#[test]
fn rfc8656_8_2_a_retransmitted_deletion_finds_nothing_any_more() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let packet = client.signed(lab.transaction(), Method::REFRESH, |w| {
        w.u32(AttributeType::LIFETIME, 0);
    });
    assert_eq!(lab.ask(client.path, &packet).lifetime(), Some(0));
    // Clients take this for success.
    assert_eq!(lab.ask(client.path, &packet).error, Some(437));
}

#[test]
fn rfc8656_7_2_a_retransmission_tells_the_lifetime_as_it_is_now() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let packet = client.signed(lab.transaction(), Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP);
    });
    lab.ask(client.path, &packet);
    client.refresh(&mut lab, 1800);
    lab.advance(Duration::from_secs(1));
    assert_eq!(lab.ask(client.path, &packet).lifetime(), Some(1799));
    // After its end the same bytes are a new request.
    lab.advance(Duration::from_secs(1799));
    assert_eq!(lab.ask(client.path, &packet).lifetime(), Some(600));
}

#[test]
fn rfc8656_12_a_held_channel_may_be_bound_again_to_the_same_peer_at_any_time() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.refresh(&mut lab, 3600);
    client.bind(&mut lab, 0x4000, PEER);
    lab.advance(Duration::from_secs(899));
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), [], "it is held, not alive");
    assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
    assert_eq!(client.channel(&mut lab, 0x4000, b"x").len(), 1);
    // The hold counts from the new end.
    lab.advance(Duration::from_secs(600 + 299));
    assert_eq!(client.bind(&mut lab, 0x4000, "1.1.1.1:1"), Some(400), "mistake 26");
    lab.advance(Duration::from_secs(1));
    assert_eq!(client.bind(&mut lab, 0x4000, "1.1.1.1:1"), None);
}
