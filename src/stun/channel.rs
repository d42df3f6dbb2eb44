//! ChannelData messages and channel numbers (RFC 8656 §12).

/// Bytes before the payload.
pub const CHANNEL_HEADER_LEN: usize = 4;

/// A channel number. Wire range 0x4000-0x7FFF; what may be *bound* is narrower, see
/// [`ChannelNumber::is_bindable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// A number as it stands in a ChannelData header: the two top bits must be 01.
    #[must_use]
    pub const fn from_wire(number: u16) -> Option<Self> {
        if number >> 14 == 0b01 { Some(Self(number)) } else { None }
    }

    /// Whether ChannelBind may take it: 0x4000-0x4FFF (RFC 8656 §12), with `legacy` also up to
    /// 0x7FFE as in RFC 5766 §11.
    #[must_use]
    pub const fn is_bindable(self, legacy: bool) -> bool {
        self.0 <= 0x4FFF || (legacy && self.0 <= 0x7FFE)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn to_u16(self) -> u16 {
        self.0
    }
}

/// A ChannelData message: number and length of the payload that follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel.
    pub number: ChannelNumber,
    /// The application data, without padding.
    pub payload: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Reads a ChannelData message. Bytes behind the payload are padding and ignored, whatever their
    /// number (RFC 8656 §12.5 allows them over UDP too); a payload shorter than its length is `None`.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let [n0, n1, l0, l1, rest @ ..] = bytes else { return None };
        let number = ChannelNumber::from_wire(u16::from_be_bytes([*n0, *n1]))?;
        let payload = rest.get(..usize::from(u16::from_be_bytes([*l0, *l1])))?;
        Some(Self { number, payload })
    }

    /// The header that goes before a payload of `len` bytes.
    #[must_use]
    pub const fn header(number: ChannelNumber, len: u16) -> [u8; CHANNEL_HEADER_LEN] {
        let [n0, n1] = number.0.to_be_bytes();
        let [l0, l1] = len.to_be_bytes();
        [n0, n1, l0, l1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8656_12_4_header_and_payload() {
        let number = ChannelNumber::from_wire(0x4001).expect("in range");
        let mut bytes = ChannelData::header(number, 3).to_vec();
        bytes.extend_from_slice(b"abc");
        assert_eq!(ChannelData::parse(&bytes), Some(ChannelData { number, payload: b"abc" }));
    }

    #[test]
    fn rfc8656_12_5_padding_is_accepted_and_left_out() {
        let data = ChannelData::parse(&[0x40, 0x00, 0, 1, b'x', 9, 9, 9]).expect("valid");
        assert_eq!(data.payload, b"x");
    }

    #[test]
    fn rfc8656_12_6_shorter_than_its_length_is_refused() {
        assert_eq!(ChannelData::parse(&[0x40, 0x00, 0, 2, b'x']), None);
        assert_eq!(ChannelData::parse(&[0x40, 0x00, 0]), None);
        assert_eq!(ChannelData::parse(&[0x3F, 0xFF, 0, 0]), None);
        assert_eq!(ChannelData::parse(&[0x80, 0x00, 0, 0]), None);
    }

    #[test]
    fn rfc8656_12_bindable_range() {
        let bindable = |n, legacy| ChannelNumber::from_wire(n).is_some_and(|c| c.is_bindable(legacy));
        assert!(bindable(0x4000, false) && bindable(0x4FFF, false));
        assert!(!bindable(0x5000, false) && bindable(0x5000, true) && bindable(0x7FFE, true));
        assert!(!bindable(0x7FFF, true) && !bindable(0x3FFF, true) && !bindable(0x8000, true));
    }
}
