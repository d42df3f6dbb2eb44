//! Our codec against the one of the `stun` crate, both ways: what one writes the other reads alike.

use proptest::prelude::*;
use rtc_stun::attributes::{ATTR_NONCE, ATTR_REALM, ATTR_USERNAME, ATTR_XORMAPPED_ADDRESS, AttrType};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{Getter, Message as Theirs, MessageType, Setter};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;
use turnkey::stun::{
    AttributeType, Class, IntegrityKey, Message, MessageWriter, Method, TransactionId, message_type,
};

const CLASSES: [Class; 4] = [Class::Request, Class::Indication, Class::Success, Class::Error];

proptest! {
    #[test]
    fn theirs_reads_what_ours_writes(
        class in 0..4_usize, method in 0..0x1000_u16, transaction in any::<[u8; 12]>(),
        name in "[a-z0-9:]{1,40}", realm in "[a-z.]{1,40}", password in "[ -~]{1,30}",
        ip in any::<std::net::IpAddr>(), port in any::<u16>(),
    ) {
        let mut buffer = [0; 1024];
        let len = MessageWriter::new(&mut buffer, CLASSES[class], Method::from_u16(method), TransactionId(transaction))
            .attribute(AttributeType::USERNAME, name.as_bytes())
            .attribute(AttributeType::REALM, realm.as_bytes())
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, (ip, port).into())
            .integrity(&IntegrityKey::long_term(&name, &realm, &password))
            .fingerprint()
            .finish().unwrap();
        let mut theirs = Theirs::new();
        theirs.unmarshal_binary(&buffer[..len]).unwrap();
        prop_assert_eq!(theirs.typ.value(), message_type(CLASSES[class], Method::from_u16(method)));
        prop_assert_eq!(theirs.transaction_id.0, transaction);
        prop_assert_eq!(TextAttribute::get_from_as(&theirs, ATTR_USERNAME).unwrap().text, &*name);
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&theirs).unwrap();
        prop_assert_eq!((mapped.ip, mapped.port), (ip, port));
        MessageIntegrity::new_long_term_integrity(name, realm, password).check(&mut theirs).unwrap();
        FINGERPRINT.check(&theirs).unwrap();
    }

    #[test]
    fn ours_reads_what_theirs_writes(
        class in 0..4_usize, method in 0..0x1000_u16, transaction in any::<[u8; 12]>(),
        name in "[a-z0-9:]{1,40}", realm in "[a-z.]{1,40}", password in "[ -~]{1,30}",
        ip in any::<std::net::IpAddr>(), port in any::<u16>(),
    ) {
        let mut theirs = Theirs::new();
        theirs.transaction_id = rtc_stun::agent::TransactionId(transaction);
        let mut kind = MessageType::default();
        kind.read_value(message_type(CLASSES[class], Method::from_u16(method)));
        theirs.set_type(kind);
        theirs.write_header();
        TextAttribute::new(ATTR_USERNAME, name.clone()).add_to(&mut theirs).unwrap();
        TextAttribute::new(ATTR_NONCE, "nonce".into()).add_to(&mut theirs).unwrap();
        TextAttribute::new(ATTR_REALM, realm.clone()).add_to(&mut theirs).unwrap();
        XorMappedAddress { ip, port }.add_to(&mut theirs).unwrap();
        MessageIntegrity::new_long_term_integrity(name.clone(), realm.clone(), password.clone()).add_to(&mut theirs).unwrap();
        FINGERPRINT.add_to(&mut theirs).unwrap();
        let message = Message::parse(&theirs.raw).unwrap();
        prop_assert_eq!((message.class(), message.method().to_u16()), (CLASSES[class], method));
        prop_assert_eq!(message.attribute(AttributeType::USERNAME).unwrap().as_str(), Some(&*name));
        let mapped = message.attribute(AttributeType::XOR_MAPPED_ADDRESS).unwrap();
        prop_assert_eq!(mapped.as_xor_address(message.transaction()), Some((ip, port).into()));
        prop_assert!(message.verify_integrity(&IntegrityKey::long_term(&name, &realm, &password)));
        prop_assert_eq!(message.verify_fingerprint(), Some(true));
        prop_assert_eq!(ATTR_XORMAPPED_ADDRESS, AttrType(AttributeType::XOR_MAPPED_ADDRESS.0));
    }

    #[test]
    fn both_agree_on_what_is_a_message(mut bytes in proptest::collection::vec(any::<u8>(), 20..120)) {
        bytes[0] &= 0x3F;
        bytes[4..8].copy_from_slice(&turnkey::stun::MAGIC_COOKIE.to_be_bytes());
        bytes.truncate(bytes.len() & !3);
        let length = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        let mut theirs = Theirs::new();
        let is_theirs = theirs.unmarshal_binary(&bytes).is_ok();
        // Ours also refuses misplaced trailers; beyond that both draw the same line.
        match Message::parse(&bytes) {
            Ok(_) => prop_assert!(is_theirs),
            Err(turnkey::stun::ParseError::BadTrailer) => {}
            Err(_) => prop_assert!(!is_theirs),
        }
    }
}
