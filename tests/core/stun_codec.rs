//! The codec against the vectors of RFC 5769 and against itself.

use proptest::prelude::*;
use turnkey::stun::{
    AttributeType, Class, ErrorCode, Integrity, IntegrityKey, Message, MessageWriter, Method, ParseError,
    PasswordAlgorithm, TransactionId, userhash,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

const TRANSACTION: TransactionId =
    TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

#[test]
fn rfc5769_2_1_sample_request() {
    let bytes = hex("00 01 00 58 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae
         80 22 00 10 53 54 55 4e 20 74 65 73 74 20 63 6c 69 65 6e 74
         00 24 00 04 6e 00 01 ff 80 29 00 08 93 2f f9 b1 51 26 3b 36
         00 06 00 09 65 76 74 6a 3a 68 36 76 59 20 20 20
         00 08 00 14 9a ea a7 0c bf d8 cb 56 78 1e f2 b5 b2 d3 f2 49 c1 b5 71 a2
         80 28 00 04 e5 7a 3b cf");
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(message.transaction(), TRANSACTION);
    assert_eq!(message.attribute(AttributeType::SOFTWARE).unwrap().as_str(), Some("STUN test client"));
    assert_eq!(message.attribute(AttributeType::USERNAME).unwrap().as_str(), Some("evtj:h6vY"));
    assert!(message.verify_integrity(&IntegrityKey::short_term("VOkJxbRl1RmTxUk/WvJxBt")));
    assert!(!message.verify_integrity(&IntegrityKey::short_term("VOkJxbRl1RmTxUk/WvJxBu")));
    assert_eq!(message.verify_fingerprint(), Some(true));
}

#[test]
fn rfc5769_2_2_sample_ipv4_response() {
    let bytes = hex("01 01 00 3c 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae
         80 22 00 0b 74 65 73 74 20 76 65 63 74 6f 72 20
         00 20 00 08 00 01 a1 47 e1 12 a6 43
         00 08 00 14 2b 91 f5 99 fd 9e 90 c3 8c 74 89 f9 2a f9 ba 53 f0 6b e7 d7
         80 28 00 04 c0 7d 4c 96");
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.class(), Class::Success);
    let mapped = message.attribute(AttributeType::XOR_MAPPED_ADDRESS).unwrap();
    assert_eq!(mapped.as_xor_address(TRANSACTION), Some("192.0.2.1:32853".parse().unwrap()));
    assert!(message.verify_integrity(&IntegrityKey::short_term("VOkJxbRl1RmTxUk/WvJxBt")));
    assert_eq!(message.verify_fingerprint(), Some(true));
}

#[test]
fn rfc5769_2_3_sample_ipv6_response() {
    let bytes = hex("01 01 00 48 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae
         80 22 00 0b 74 65 73 74 20 76 65 63 74 6f 72 20
         00 20 00 14 00 02 a1 47 01 13 a9 fa a5 d3 f1 79 bc 25 f4 b5 be d2 b9 d9
         00 08 00 14 a3 82 95 4e 4b e6 7b f1 17 84 c9 7c 82 92 c2 75 bf e3 ed 41
         80 28 00 04 c8 fb 0b 4c");
    let message = Message::parse(&bytes).unwrap();
    let mapped = message.attribute(AttributeType::XOR_MAPPED_ADDRESS).unwrap();
    assert_eq!(
        mapped.as_xor_address(TRANSACTION),
        Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap())
    );
    assert!(message.verify_integrity(&IntegrityKey::short_term("VOkJxbRl1RmTxUk/WvJxBt")));
    assert_eq!(message.verify_fingerprint(), Some(true));
}

#[test]
fn rfc5769_2_4_long_term_request() {
    let bytes = hex("00 01 00 60 21 12 a4 42 78 ad 34 33 c6 ad 72 c0 29 da 41 2e
         00 06 00 12 e3 83 9e e3 83 88 e3 83 aa e3 83 83 e3 82 af e3 82 b9 00 00
         00 15 00 1c 66 2f 2f 34 39 39 6b 39 35 34 64 36 4f 4c 33 34 6f 4c 39 46 53 54 76 79 36 34 73 41
         00 14 00 0b 65 78 61 6d 70 6c 65 2e 6f 72 67 00
         00 08 00 14 f6 70 24 65 6d d6 4a 3e 02 b8 e0 71 2e 85 c9 a2 8c a8 96 66");
    let message = Message::parse(&bytes).unwrap();
    let username = message.attribute(AttributeType::USERNAME).unwrap().as_str().unwrap();
    assert_eq!(username, "マトリックス");
    assert!(message.verify_integrity(&IntegrityKey::long_term(username, "example.org", "TheMatrIX")));
    assert_eq!(message.verify_fingerprint(), None);
}

/// Appendix B.1; the password is what OpaqueString makes of the one there.
#[test]
fn rfc8489_b_1_sample_request_with_userhash_and_sha256() {
    let bytes = hex("00 01 00 90 21 12 a4 42 78 ad 34 33 c6 ad 72 c0 29 da 41 2e
         00 1e 00 20 4a 3c f3 8f ef 69 92 bd a9 52 c6 78 04 17 da 0f 24 81 94 15 56 9e 60 b2 05 c4 6e 41 40 7f 17 04
         00 15 00 29 6f 62 4d 61 74 4a 6f 73 32 41 41 41 43 66 2f 2f 34 39 39 6b 39 35 34 64 36 4f 4c 33 34 6f 4c 39
         46 53 54 76 79 36 34 73 41 00 00 00
         00 14 00 0b 65 78 61 6d 70 6c 65 2e 6f 72 67 00
         00 1d 00 04 00 02 00 00
         00 1c 00 20 b5 c7 bf 00 5b 6c 52 a2 1c 51 c5 e8 92 f8 19 24 13 62 96 cb 92 7c 43 14 93 09 27 8c c6 51 8e 65");
    let message = Message::parse(&bytes).unwrap();
    let value = |kind| message.attribute(kind).unwrap().value;
    assert_eq!(value(AttributeType::USERHASH), userhash("マトリックス", "example.org"));
    let algorithm = PasswordAlgorithm::from_value(value(AttributeType::PASSWORD_ALGORITHM)).unwrap();
    assert_eq!(algorithm, PasswordAlgorithm::Sha256);
    let key = |password| IntegrityKey::long_term_by(algorithm, "マトリックス", "example.org", password);
    assert!(message.verify_integrity_sha256(&key("TheMatrIX")) && message.verify(&key("TheMatrIX")));
    assert!(
        !message.verify_integrity_sha256(&key("TheMatrix")) && !message.verify_integrity(&key("TheMatrIX"))
    );
}

#[test]
fn rfc8489_14_6_both_integrities_in_their_order_and_nothing_behind() {
    let key = IntegrityKey::short_term("x");
    let mut buffer = [0; 256];
    let len = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, TRANSACTION)
        .attribute(AttributeType::USERNAME, b"abc")
        .sign(&key, Integrity::Both)
        .fingerprint()
        .finish()
        .unwrap();
    let message = Message::parse(&buffer[..len]).unwrap();
    assert!(message.verify_integrity(&key) && message.verify_integrity_sha256(&key));
    assert_eq!(message.verify_fingerprint(), Some(true));
    // The other way round MESSAGE-INTEGRITY is one of the attributes that are not read.
    let len = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, TRANSACTION)
        .integrity_sha256(&key)
        .integrity(&key)
        .attribute(AttributeType::USERNAME, b"abc")
        .finish()
        .unwrap();
    let message = Message::parse(&buffer[..len]).unwrap();
    assert!(message.verify_integrity_sha256(&key) && !message.has_integrity());
    assert_eq!(message.attributes().count(), 0);
}

#[test]
fn rfc8489_14_6_lengths_of_the_integrity() {
    for length in 0..=40 {
        let mut buffer = [0; 128];
        let len = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, TRANSACTION)
            .attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &[7; 40][..length])
            .finish()
            .unwrap();
        let is_valid = (16..=32).contains(&length) && length % 4 == 0;
        assert_eq!(Message::parse(&buffer[..len]).is_ok(), is_valid, "{length}");
    }
}

#[test]
fn rfc8489_14_8_error_codes_read_back() {
    let mut buffer = [0; 128];
    let len = MessageWriter::new(&mut buffer, Class::Error, Method::ALLOCATE, TRANSACTION)
        .error(ErrorCode::AllocationQuotaReached)
        .finish()
        .unwrap();
    let message = Message::parse(&buffer[..len]).unwrap();
    assert_eq!(
        message.attribute(AttributeType::ERROR_CODE).unwrap().as_error(),
        Some((486, "Quota Reached"))
    );
}

#[test]
fn rfc8489_5_what_is_no_stun_is_told_why() {
    let mut buffer = [0; 64];
    let len = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, TRANSACTION)
        .attribute(AttributeType::USERNAME, b"abc")
        .fingerprint()
        .finish()
        .unwrap();
    let good = buffer[..len].to_vec();
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Message::parse(&bytes).err()
    };
    assert_eq!(error(&|_| {}), None);
    assert_eq!(error(&|b| b.truncate(19)), Some(ParseError::TooShort));
    assert_eq!(error(&|b| b[0] |= 0x80), Some(ParseError::NotStun));
    assert_eq!(error(&|b| b[4] ^= 1), Some(ParseError::NotStun));
    assert_eq!(error(&|b| b[3] += 1), Some(ParseError::BadLength));
    assert_eq!(error(&|b| b.push(0)), Some(ParseError::BadLength));
    assert_eq!(error(&|b| b[22..24].copy_from_slice(&[0xFF, 0xFF])), Some(ParseError::BadAttribute));
    assert_eq!(error(&|b| b[31] = 3), Some(ParseError::BadTrailer));
    let behind = |b: &mut Vec<u8>| {
        b.extend([0x80, 0x22, 0, 0]);
        b[3] += 4;
    };
    assert_eq!(error(&behind), Some(ParseError::BadTrailer));
}

#[test]
fn padding_is_zero_whatever_the_buffer_held() {
    let mut buffer = [0xAA; 64];
    let len = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, TRANSACTION)
        .attribute(AttributeType::USERNAME, b"a")
        .finish()
        .unwrap();
    assert_eq!(buffer[20..len], [0, 6, 0, 1, b'a', 0, 0, 0]);
}

#[test]
fn a_buffer_that_is_too_small_is_an_error_at_every_size() {
    let write = |buffer: &mut [u8]| {
        MessageWriter::new(buffer, Class::Request, Method::BINDING, TRANSACTION)
            .attribute(AttributeType::USERNAME, b"abcde")
            .integrity(&IntegrityKey::short_term("x"))
            .fingerprint()
            .finish()
    };
    let needed = write(&mut [0; 256]).unwrap();
    for size in 0..256 {
        assert_eq!(write(&mut vec![0; size]).is_ok(), size >= needed, "{size}");
    }
}

fn any_attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let kind = any::<u16>()
        .prop_filter("trailers have their own place", |kind| ![0x0008, 0x001C, 0x8028].contains(kind));
    (kind, proptest::collection::vec(any::<u8>(), 0..80))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        class in 0..4_usize,
        method in 0..0x1000_u16,
        transaction in any::<[u8; 12]>(),
        attributes in proptest::collection::vec(any_attribute(), 0..12),
        password in ".{0,20}",
        signed in any::<bool>(),
        fingerprint in any::<bool>(),
    ) {
        let class = [Class::Request, Class::Indication, Class::Success, Class::Error][class];
        let key = IntegrityKey::short_term(&password);
        let mut buffer = [0; 2048];
        let mut writer = MessageWriter::new(&mut buffer, class, Method::from_u16(method), TransactionId(transaction));
        attributes.iter().for_each(|(kind, value)| { writer.attribute(AttributeType(*kind), value); });
        if signed { writer.integrity(&key); }
        if fingerprint { writer.fingerprint(); }
        let len = writer.finish().unwrap();
        let message = Message::parse(&buffer[..len]).unwrap();
        prop_assert_eq!((message.class(), message.method().to_u16()), (class, method));
        prop_assert_eq!(message.transaction().0, transaction);
        let read: Vec<_> = message.attributes().map(|a| (a.kind.0, a.value.to_vec())).collect();
        prop_assert_eq!(read, attributes);
        prop_assert_eq!(message.verify_integrity(&key), signed);
        prop_assert_eq!(message.verify_fingerprint(), fingerprint.then_some(true));
    }

    #[test]
    fn addresses_survive_xor(ip in any::<std::net::IpAddr>(), port in any::<u16>(), transaction in any::<[u8; 12]>()) {
        let address = std::net::SocketAddr::new(ip, port);
        let mut buffer = [0; 128];
        let len = MessageWriter::new(&mut buffer, Class::Success, Method::BINDING, TransactionId(transaction))
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, address)
            .address(AttributeType::MAPPED_ADDRESS, address)
            .finish().unwrap();
        let message = Message::parse(&buffer[..len]).unwrap();
        let read = message.attribute(AttributeType::XOR_MAPPED_ADDRESS).unwrap();
        prop_assert_eq!(read.as_xor_address(message.transaction()), Some(address));
        prop_assert_eq!(message.attribute(AttributeType::MAPPED_ADDRESS).unwrap().as_address(), Some(address));
    }

    #[test]
    fn any_bytes_parse_or_fail_but_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), cookie in any::<bool>()) {
        if cookie && bytes.len() >= 20 {
            bytes[0] &= 0x3F;
            bytes[4..8].copy_from_slice(&turnkey::stun::MAGIC_COOKIE.to_be_bytes());
            bytes.truncate(bytes.len() & !3);
            let length = (bytes.len() - 20) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if let Ok(message) = Message::parse(&bytes) {
            let _ = message.attributes().count();
            let _ = message.verify_integrity(&IntegrityKey::short_term("x"));
            let _ = message.verify_fingerprint();
        }
    }
}
