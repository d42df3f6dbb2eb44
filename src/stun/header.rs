//! The 20-byte header: class, method, transaction id (RFC 8489 §5).

/// The fixed value in bytes 4 to 7 of every message (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Bytes before the first attribute.
pub const HEADER_LEN: usize = 20;

/// The class of a message (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Success response.
    Success,
    /// Error response.
    Error,
}

/// The method of a message, 12 bits (RFC 8489 §5). Unknown ones are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(u16);

impl Method {
    /// RFC 8489 §18.2
    pub const BINDING: Self = Self(0x001);
    /// RFC 8656 §17
    pub const ALLOCATE: Self = Self(0x003);
    /// RFC 8656 §17
    pub const REFRESH: Self = Self(0x004);
    /// RFC 8656 §17
    pub const SEND: Self = Self(0x006);
    /// RFC 8656 §17
    pub const DATA: Self = Self(0x007);
    /// RFC 8656 §17
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// RFC 8656 §17
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// RFC 6062 §6.1
    pub const CONNECT: Self = Self(0x00A);
    /// RFC 6062 §6.1
    pub const CONNECTION_BIND: Self = Self(0x00B);
    /// RFC 6062 §6.1
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);

    /// A method by its number; only the low 12 bits count.
    #[must_use]
    pub const fn from_u16(number: u16) -> Self {
        Self(number & 0x0FFF)
    }

    /// The method's number, 0 to 0xFFF.
    #[must_use]
    pub const fn to_u16(self) -> u16 {
        self.0
    }
}

/// The 96-bit transaction id (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TransactionId(pub [u8; 12]);

/// Joins class and method into the 14-bit message type: the two class bits stand at bit 4 and bit 8.
#[must_use]
pub const fn message_type(class: Class, method: Method) -> u16 {
    let m = method.0;
    let spread = (m & 0x000F) | ((m & 0x0070) << 1) | ((m & 0x0F80) << 2);
    let class_bits = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    spread | class_bits
}

/// The reverse of [`message_type`]. The two top bits must be zero.
#[must_use]
pub const fn split_message_type(bits: u16) -> (Class, Method) {
    let class = match bits & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    let method = (bits & 0x000F) | ((bits & 0x00E0) >> 1) | ((bits & 0x3E00) >> 2);
    (class, Method(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8489_5_message_type_round_trips_for_all_methods_and_classes() {
        for number in 0..=0x0FFF {
            for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
                let bits = message_type(class, Method(number));
                assert_eq!(bits & 0xC000, 0);
                assert_eq!(split_message_type(bits), (class, Method(number)));
            }
        }
    }

    #[test]
    fn rfc8489_5_known_types() {
        assert_eq!(message_type(Class::Request, Method::BINDING), 0x0001);
        assert_eq!(message_type(Class::Success, Method::ALLOCATE), 0x0103);
        assert_eq!(message_type(Class::Error, Method::CHANNEL_BIND), 0x0119);
        assert_eq!(message_type(Class::Indication, Method::DATA), 0x0017);
    }
}
