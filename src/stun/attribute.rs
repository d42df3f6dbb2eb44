//! Attribute numbers (RFC 8489 §18.3, RFC 8656 §18) and one attribute as it stands in a message.

use std::net::SocketAddr;

use super::address;
use super::header::TransactionId;

/// The number of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeType(pub u16);

macro_rules! attribute_types {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl AttributeType {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
        }
    };
}

attribute_types! {
    /// MAPPED-ADDRESS, RFC 8489 §14.1
    MAPPED_ADDRESS = 0x0001;
    /// CHANGE-REQUEST, RFC 5780 §7.2
    CHANGE_REQUEST = 0x0003;
    /// USERNAME, RFC 8489 §14.3
    USERNAME = 0x0006;
    /// MESSAGE-INTEGRITY, RFC 8489 §14.5
    MESSAGE_INTEGRITY = 0x0008;
    /// ERROR-CODE, RFC 8489 §14.8
    ERROR_CODE = 0x0009;
    /// UNKNOWN-ATTRIBUTES, RFC 8489 §14.13
    UNKNOWN_ATTRIBUTES = 0x000A;
    /// CHANNEL-NUMBER, RFC 8656 §18.1
    CHANNEL_NUMBER = 0x000C;
    /// LIFETIME, RFC 8656 §18.2
    LIFETIME = 0x000D;
    /// XOR-PEER-ADDRESS, RFC 8656 §18.3
    XOR_PEER_ADDRESS = 0x0012;
    /// DATA, RFC 8656 §18.4
    DATA = 0x0013;
    /// REALM, RFC 8489 §14.9
    REALM = 0x0014;
    /// NONCE, RFC 8489 §14.10
    NONCE = 0x0015;
    /// XOR-RELAYED-ADDRESS, RFC 8656 §18.5
    XOR_RELAYED_ADDRESS = 0x0016;
    /// REQUESTED-ADDRESS-FAMILY, RFC 8656 §18.6
    REQUESTED_ADDRESS_FAMILY = 0x0017;
    /// EVEN-PORT, RFC 8656 §18.7
    EVEN_PORT = 0x0018;
    /// REQUESTED-TRANSPORT, RFC 8656 §18.8
    REQUESTED_TRANSPORT = 0x0019;
    /// DONT-FRAGMENT, RFC 8656 §18.9
    DONT_FRAGMENT = 0x001A;
    /// ACCESS-TOKEN, RFC 7635 §6.2
    ACCESS_TOKEN = 0x001B;
    /// MESSAGE-INTEGRITY-SHA256, RFC 8489 §14.6
    MESSAGE_INTEGRITY_SHA256 = 0x001C;
    /// PASSWORD-ALGORITHM, RFC 8489 §14.12
    PASSWORD_ALGORITHM = 0x001D;
    /// USERHASH, RFC 8489 §14.4
    USERHASH = 0x001E;
    /// XOR-MAPPED-ADDRESS, RFC 8489 §14.2
    XOR_MAPPED_ADDRESS = 0x0020;
    /// CONNECTION-ID, RFC 6062 §6.2.1
    CONNECTION_ID = 0x002A;
    /// RESERVATION-TOKEN, RFC 8656 §18.10
    RESERVATION_TOKEN = 0x0022;
    /// PADDING, RFC 5780 §7.6
    PADDING = 0x0026;
    /// RESPONSE-PORT, RFC 5780 §7.5
    RESPONSE_PORT = 0x0027;
    /// ADDITIONAL-ADDRESS-FAMILY, RFC 8656 §18.11
    ADDITIONAL_ADDRESS_FAMILY = 0x8000;
    /// The number ADDITIONAL-ADDRESS-FAMILY had in the drafts; clients built on coturn before 4.8 send it.
    ADDITIONAL_ADDRESS_FAMILY_OF_DRAFTS = 0x8032;
    /// ADDRESS-ERROR-CODE, RFC 8656 §18.12
    ADDRESS_ERROR_CODE = 0x8001;
    /// PASSWORD-ALGORITHMS, RFC 8489 §14.11
    PASSWORD_ALGORITHMS = 0x8002;
    /// ALTERNATE-DOMAIN, RFC 8489 §14.16
    ALTERNATE_DOMAIN = 0x8003;
    /// ICMP, RFC 8656 §18.13
    ICMP = 0x8004;
    /// SOFTWARE, RFC 8489 §14.14
    SOFTWARE = 0x8022;
    /// ALTERNATE-SERVER, RFC 8489 §14.15
    ALTERNATE_SERVER = 0x8023;
    /// THIRD-PARTY-AUTHORIZATION, RFC 7635 §6.1
    THIRD_PARTY_AUTHORIZATION = 0x802E;
    /// MOBILITY-TICKET, RFC 8016 §4.1
    MOBILITY_TICKET = 0x8030;
    /// FINGERPRINT, RFC 8489 §14.7
    FINGERPRINT = 0x8028;
    /// RESPONSE-ORIGIN, RFC 5780 §7.3
    RESPONSE_ORIGIN = 0x802B;
    /// OTHER-ADDRESS, RFC 5780 §7.4
    OTHER_ADDRESS = 0x802C;
}

impl AttributeType {
    /// Whether a receiver that does not know it must refuse the message (RFC 8489 §14).
    #[must_use]
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

/// One attribute of a message: its number and its value without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The attribute's number.
    pub kind: AttributeType,
    /// The value as it stands, without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The value as a 32-bit number; `None` when it is not 4 bytes long.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.try_into().ok()?))
    }

    /// The value as UTF-8 text.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.value).ok()
    }

    /// The value as an XOR-ed transport address (RFC 8489 §14.2).
    #[must_use]
    pub fn as_xor_address(&self, transaction: TransactionId) -> Option<SocketAddr> {
        address::decode(self.value).map(|plain| address::xor(plain, transaction))
    }

    /// The value as a plain transport address (RFC 8489 §14.1).
    #[must_use]
    pub fn as_address(&self) -> Option<SocketAddr> {
        address::decode(self.value)
    }

    /// The value as an error code and its reason phrase (RFC 8489 §14.8).
    #[must_use]
    pub fn as_error(&self) -> Option<(u16, &'a str)> {
        let [_, _, class, number, reason @ ..] = self.value else { return None };
        let code = u16::from(class & 0x07) * 100 + u16::from(*number);
        Some((code, std::str::from_utf8(reason).ok()?))
    }
}
