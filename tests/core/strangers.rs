//! What people without a credential get: nothing kept, little sent, and silence for nonsense.

use std::sync::Arc;

use turnkey::stun::{AttributeType, Class, MessageWriter, Method, TransactionId};
use turnkey::turn::{DropReason, Settings, Shared, Transport};

use crate::lab::{Client, Event, Lab, PEER, channel_data, path, send_indication, settings};

fn request(method: Method, fingerprint: bool, fill: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 1024];
    let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, TransactionId([1; 12]));
    fill(&mut writer);
    if fingerprint {
        writer.fingerprint();
    }
    let len = writer.finish().unwrap();
    buffer.truncate(len);
    buffer
}

#[test]
fn design_4_7_binding_replies_are_at_most_44_and_56_bytes() {
    let mut lab = Lab::new();
    let four = path("192.0.2.9:40000", Transport::Udp);
    let six = path("[2001:db8::9]:40000", Transport::Udp);
    for (client, fingerprint, size) in
        [(four, false, 32), (four, true, 40), (six, false, 44), (six, true, 52)]
    {
        let answer = lab.ask(client, &request(Method::BINDING, fingerprint, |_| {}));
        assert_eq!(answer.bytes.len(), size);
        assert_eq!(answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS), Some(client.five_tuple.client));
        assert_eq!(answer.message().verify_fingerprint(), fingerprint.then_some(true));
        assert_eq!(answer.value(AttributeType::SOFTWARE), None);
    }
}

#[test]
fn design_4_7_challenges_are_at_most_128_bytes() {
    let mut lab = Lab::new();
    for client in ["192.0.2.9:40000", "[2001:db8::9]:40000"] {
        let answer = lab.ask(path(client, Transport::Udp), &request(Method::ALLOCATE, true, |_| {}));
        assert_eq!(answer.error, Some(401));
        assert!(answer.bytes.len() <= 128, "{}", answer.bytes.len());
    }
}

#[test]
fn rfc8489_6_3_1_binding_with_an_unknown_attribute_is_420_and_no_longer_than_the_question() {
    let mut lab = Lab::new();
    let client = path("192.0.2.9:40000", Transport::Udp);
    for count in [1, 2, 8, 20] {
        let question = request(Method::BINDING, false, |w| {
            (0..count).for_each(|n| {
                w.attribute(AttributeType(0x7000 + n), &[]);
            });
        });
        let answer = lab.ask(client, &question);
        assert_eq!(answer.error, Some(420));
        let listed = answer.value(AttributeType::UNKNOWN_ATTRIBUTES).unwrap();
        assert_eq!(listed.len(), usize::from(count.min(8)) * 2);
        assert!(answer.bytes.len() <= question.len() + 52, "{} to {}", answer.bytes.len(), question.len());
    }
}

#[test]
fn rfc8489_6_3_only_requests_of_known_methods_are_answered() {
    let mut lab = Lab::new();
    let client = path("192.0.2.9:40000", Transport::Udp);
    for method in (0..=0xFFF).map(Method::from_u16) {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            let mut buffer = [0; 20];
            MessageWriter::new(&mut buffer, class, method, TransactionId([1; 12])).finish().unwrap();
            let answered = !lab.client_sends(client, &buffer).is_empty();
            let served = [
                Method::BINDING,
                Method::ALLOCATE,
                Method::REFRESH,
                Method::CREATE_PERMISSION,
                Method::CHANNEL_BIND,
            ];
            assert_eq!(answered, class == Class::Request && served.contains(&method), "{class:?} {method:?}");
        }
    }
}

#[test]
fn design_4_7_reflector_ports_and_impossible_sources_get_nothing() {
    let mut lab = Lab::new();
    let packet = request(Method::BINDING, false, |_| {});
    for source in [
        "192.0.2.9:0",
        "192.0.2.9:53",
        "192.0.2.9:123",
        "192.0.2.9:1900",
        "192.0.2.9:11211",
        "0.0.0.0:5",
        "224.0.0.1:5",
        "255.255.255.255:5",
        "[ff02::1]:5",
    ] {
        lab.silent(path(source, Transport::Udp), &packet);
    }
    assert_eq!(lab.server.stats().drops[DropReason::SuspiciousSource as usize], 9);
    assert!(
        !lab.client_sends(path("192.0.2.9:53", Transport::Tcp), &packet).is_empty(),
        "a connection proves itself"
    );
}

#[test]
fn design_4_7_unauthenticated_bytes_are_limited_by_prefix_and_authenticated_ones_are_not() {
    let mut lab = Lab::with(|settings| settings.unauthenticated_rate = 1000);
    let client = Client::new(&mut lab, "198.51.100.9:40000");
    client.allocate(&mut lab);
    let binding = request(Method::BINDING, false, |_| {});
    let answered = (0..100)
        .filter(|n| {
            !lab.client_sends(path(&format!("198.51.100.{n}:777"), Transport::Udp), &binding).is_empty()
        })
        .count();
    assert!((20..32).contains(&answered), "{answered} of 32 bytes each");
    assert!(lab.server.stats().drops[DropReason::RateLimited as usize] > 60);
    for _ in 0..100 {
        assert_eq!(client.refresh(&mut lab, 600).error, None);
    }
    assert!(
        !lab.client_sends(path("198.51.101.1:777", Transport::Udp), &binding).is_empty(),
        "another prefix"
    );
}

#[test]
fn design_4_3_a_hundred_thousand_spoofed_allocates_leave_no_state() {
    let shared = Arc::new(Shared::new(49152..=65535));
    let mut lab = Lab::of(Settings { unauthenticated_rate: 100_000, ..settings() }, Arc::clone(&shared));
    let good = Client::new(&mut lab, "192.0.2.9:40000");
    let bare = request(Method::ALLOCATE, true, |_| {});
    let signed = good.signed(lab.transaction(), Method::ALLOCATE, |_| {});
    for n in 0..100_000_u32 {
        let source = std::net::SocketAddr::from((
            std::net::Ipv4Addr::from(0x0B00_0000 + n * 7),
            1024 + (n % 60_000) as u16,
        ));
        let mut spoofed = good.path;
        spoofed.five_tuple.client = source;
        lab.client_sends(spoofed, &bare);
        // A nonce of another address is worth nothing.
        for event in lab.client_sends(spoofed, &signed) {
            let Event::Answer(_, answer) = event else { panic!("{event:?}") };
            assert_eq!(answer.error, Some(438));
        }
    }
    assert_eq!((lab.allocations(), shared.allocations(), lab.server.poll_timeout()), (0, 0, None));
    assert!(lab.outputs.is_empty());
}

#[test]
fn indications_and_channel_data_of_strangers_are_dropped() {
    let mut lab = Lab::new();
    let client = path("192.0.2.9:40000", Transport::Udp);
    let packet = send_indication(lab.transaction(), PEER.parse().unwrap(), b"x");
    lab.silent(client, &packet);
    lab.silent(client, &channel_data(0x4000, b"x"));
    lab.silent(client, b"");
    lab.silent(client, b"\x80rtp");
    lab.silent(client, b"GET / HTTP/1.1\r\n\r\n");
}
