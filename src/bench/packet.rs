//! The test packets: a header that tells which flow a packet belongs to and when it was sent, and
//! what is in front of it on the way to the server.

use std::net::SocketAddr;

use crate::stun::{
    AttributeType, ChannelData, ChannelNumber, Class, Message, MessageWriter, Method, PacketKind, classify,
};

use super::session::TransactionIds;

/// Bytes of the header; the smallest packet.
pub(super) const HEADER: usize = 24;

/// What a test packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The run it belongs to; packets of other runs and strangers are not counted.
    pub(super) run: u32,
    /// Index of its flow in the worker.
    pub(super) flow: u32,
    /// Counts up from 0 in each flow.
    pub(super) sequence: u64,
    /// When it was sent, in nanoseconds since the worker's epoch.
    pub(super) sent_ns: u64,
}

impl Stamp {
    fn write(self, out: &mut [u8]) {
        out[..4].copy_from_slice(&self.run.to_be_bytes());
        out[4..8].copy_from_slice(&self.flow.to_be_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        out[16..24].copy_from_slice(&self.sent_ns.to_be_bytes());
    }

    /// Reads the header of a payload.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = payload.first_chunk()?;
        let (run, rest) = header.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        Some(Self {
            run: u32::from_be_bytes(*run),
            flow: u32::from_be_bytes(*flow),
            sequence: u64::from_be_bytes(*sequence),
            sent_ns: u64::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

/// Packets that only lack their stamps: one, or as many equal ones as leave with one call.
#[derive(Clone, Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    packet_len: usize,
    payload_at: usize,
}

impl Template {
    /// A bare payload of `size` bytes, as peers send it.
    pub(super) fn bare(size: usize) -> Self {
        Self::new(&[], size, 0)
    }

    /// ChannelData, padded when it goes into a stream.
    pub(super) fn channel(number: ChannelNumber, size: usize, stream: bool) -> Self {
        let length = u16::try_from(size).expect("--size is at most 8192");
        let padding = if stream { size.next_multiple_of(4) - size } else { 0 };
        Self::new(&ChannelData::header(number, length), size, padding)
    }

    /// A Send indication.
    pub(super) fn indication(peer: SocketAddr, size: usize, ids: &mut TransactionIds) -> Self {
        let mut bytes = vec![0; size + 128];
        let payload = vec![0; size];
        let len = MessageWriter::new(&mut bytes, Class::Indication, Method::SEND, ids.next())
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
            .attribute(AttributeType::DATA, &payload)
            .finish()
            .expect("128 bytes hold the header and an address");
        bytes.truncate(len);
        let payload_at = len - size.next_multiple_of(4);
        Self { bytes, packet_len: len, payload_at }
    }

    fn new(prefix: &[u8], size: usize, padding: usize) -> Self {
        let mut bytes = prefix.to_vec();
        bytes.resize(prefix.len() + size + padding, 0);
        Self { packet_len: bytes.len(), bytes, payload_at: prefix.len() }
    }

    /// The same packet `count` times.
    pub(super) fn repeated(mut self, count: usize) -> Self {
        self.bytes = self.bytes.repeat(count);
        self
    }

    /// Bytes of one packet.
    pub(super) fn packet_len(&self) -> usize {
        self.packet_len
    }

    /// `count` packets, the first with this stamp and the others with the sequence numbers after it.
    pub(super) fn stamped(&mut self, stamp: Stamp, count: usize) -> &[u8] {
        let packets = self.bytes.chunks_exact_mut(self.packet_len).take(count);
        for (packet, sequence) in packets.zip(stamp.sequence..) {
            Stamp { sequence, ..stamp }.write(&mut packet[self.payload_at..]);
        }
        &self.bytes[..count * self.packet_len]
    }
}

/// What a client received.
pub(super) enum Received<'a> {
    /// Relayed data.
    Payload(&'a [u8]),
    /// An answer to a request.
    Answer(Message<'a>),
    /// Neither.
    Other,
}

/// Reads what the server sent to a client.
pub(super) fn received(packet: &[u8]) -> Received<'_> {
    match classify(packet) {
        PacketKind::ChannelData => {
            ChannelData::parse(packet).map_or(Received::Other, |data| Received::Payload(data.payload))
        }
        PacketKind::Stun => Message::parse(packet).map_or(Received::Other, |message| {
            match (message.class(), message.attribute(AttributeType::DATA)) {
                (Class::Indication, Some(data)) => Received::Payload(data.value),
                (Class::Indication, None) => Received::Other,
                _ => Received::Answer(message),
            }
        }),
        PacketKind::Other => Received::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 7, flow: 3, sequence: 1 << 40, sent_ns: 42 };

    fn payload_of(packet: &[u8]) -> Vec<u8> {
        match received(packet) {
            Received::Payload(payload) => payload.to_vec(),
            Received::Answer(_) | Received::Other => panic!("no payload"),
        }
    }

    #[test]
    fn a_stamp_survives_channel_data() {
        let number = ChannelNumber::from_wire(0x4001).expect("in range");
        for (stream, len) in [(false, 4 + 25), (true, 4 + 28)] {
            let mut template = Template::channel(number, 25, stream);
            let packet = template.stamped(STAMP, 1);
            assert_eq!(packet.len(), len);
            assert_eq!(Stamp::read(&payload_of(packet)), Some(STAMP));
            assert_eq!(payload_of(packet).len(), 25);
        }
    }

    #[test]
    fn a_send_indication_carries_the_payload_where_it_is_stamped() {
        let peer = "127.0.0.1:9".parse().expect("valid");
        for size in [24, 25, 160] {
            let mut template = Template::indication(peer, size, &mut TransactionIds::new());
            let packet = template.stamped(STAMP, 1);
            let message = Message::parse(packet).expect("valid");
            let peer_attribute = message.attribute(AttributeType::XOR_PEER_ADDRESS).expect("there");
            assert_eq!(peer_attribute.as_xor_address(message.transaction()), Some(peer));
            assert_eq!(payload_of(packet).len(), size);
            assert_eq!(Stamp::read(&payload_of(packet)), Some(STAMP));
        }
    }

    #[test]
    fn the_packets_of_a_run_count_up() {
        let number = ChannelNumber::from_wire(0x4000).expect("in range");
        let mut template = Template::channel(number, 100, false).repeated(4);
        let run = template.stamped(STAMP, 3);
        let sequences = run.chunks(104).map(|packet| Stamp::read(&payload_of(packet)));
        let sequences: Vec<_> = sequences.map(|stamp| stamp.map_or(0, |stamp| stamp.sequence)).collect();
        assert_eq!(sequences, [1 << 40, (1 << 40) + 1, (1 << 40) + 2]);
    }

    #[test]
    fn a_short_payload_has_no_stamp() {
        assert_eq!(Stamp::read(&[0; HEADER - 1]), None);
    }
}
