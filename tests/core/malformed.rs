//! Every message cut at every length and with every bit flipped: no panic, no state, no reply beyond
//! the sizes of section 4.7 of the design.

use turnkey::stun::{AttributeType, Class, MessageWriter, Method, TransactionId};

use crate::lab::{Client, Event, Lab, PEER, UDP, addr, channel_data, send_indication};

const HERE: &str = "192.0.2.9:40000";

/// One message of each kind, as a client would send them.
fn samples(lab: &mut Lab, client: &Client) -> Vec<Vec<u8>> {
    let bare = |method| {
        let mut buffer = [0; 28];
        MessageWriter::new(&mut buffer, Class::Request, method, TransactionId([3; 12]))
            .fingerprint()
            .finish()
            .unwrap();
        buffer.to_vec()
    };
    let transport = |w: &mut MessageWriter<'_>| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP);
    };
    let peer = |w: &mut MessageWriter<'_>| {
        w.xor_address(AttributeType::XOR_PEER_ADDRESS, addr(PEER));
    };
    vec![
        bare(Method::BINDING),
        bare(Method::ALLOCATE),
        client.signed(lab.transaction(), Method::ALLOCATE, |w| {
            transport(w);
            w.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0])
                .u32(AttributeType::LIFETIME, 700);
        }),
        client.signed(lab.transaction(), Method::REFRESH, |w| {
            w.u32(AttributeType::LIFETIME, 0);
        }),
        client.signed(lab.transaction(), Method::CREATE_PERMISSION, peer),
        client.signed(lab.transaction(), Method::CHANNEL_BIND, |w| {
            w.u32(AttributeType::CHANNEL_NUMBER, 0x4000 << 16);
            peer(w);
        }),
        send_indication(lab.transaction(), addr(PEER), b"payload"),
        channel_data(0x4000, b"payload"),
    ]
}

/// Sends a damaged packet of a stranger and checks the size of whatever comes back.
fn check(lab: &mut Lab, client: &Client, packet: &[u8]) {
    for event in lab.client_sends(client.path, packet) {
        let Event::Answer(_, answer) = event else { panic!("a stranger's packet went on: {event:?}") };
        assert!(answer.bytes.len() <= 128, "{} bytes to {} bytes", answer.bytes.len(), packet.len());
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_harmless() {
    let mut lab = Lab::new();
    let mut client = Client::new(&mut lab, HERE);
    // Right in form, wrong in signature: whatever is damaged, no allocation may come of it.
    client.key = turnkey::stun::IntegrityKey::from_bytes(b"no key");
    for sample in samples(&mut lab, &client) {
        for len in 0..sample.len() {
            check(&mut lab, &client, &sample[..len]);
        }
        for bit in 0..sample.len() * 8 {
            let mut damaged = sample.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            check(&mut lab, &client, &damaged);
        }
    }
    assert_eq!((lab.allocations(), lab.outputs.len()), (0, 0));
}

#[test]
fn rfc8489_14_5_a_signed_request_with_any_bit_flipped_changes_nothing() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    let before = lab.server.poll_timeout();
    for sample in samples(&mut lab, &client).into_iter().skip(3).take(3) {
        for bit in 0..sample.len() * 8 {
            let mut damaged = sample.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            for event in lab.client_sends(client.path, &damaged) {
                let Event::Answer(_, answer) = event else { panic!("{event:?}") };
                assert_eq!(answer.class, if answer.error.is_some() { Class::Error } else { Class::Success });
                // A flipped bit in the method of a request makes it a Binding, which anybody may ask.
                let is_binding = answer.message().method() == Method::BINDING;
                assert!(answer.error.is_some() || is_binding, "bit {bit} went through");
            }
        }
    }
    assert_eq!((lab.allocations(), lab.server.poll_timeout()), (1, before));
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), [], "no channel came to be");
}

#[test]
fn random_bytes_behind_every_first_byte_are_harmless() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..20_000_u32 {
        let len = (random() % 200) as usize;
        let mut packet: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        if let Some(first) = packet.first_mut() {
            *first = round as u8;
        }
        if round % 2 == 0 && packet.len() >= 20 {
            packet[4..8].copy_from_slice(&turnkey::stun::MAGIC_COOKIE.to_be_bytes());
            let length = (packet.len() - 20) as u16 & !3;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet.truncate(20 + usize::from(length));
        }
        lab.client_sends(client.path, &packet);
    }
    assert_eq!(lab.allocations(), 1);
}
