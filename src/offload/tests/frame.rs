//! Ethernet frames made and read byte by byte, with checksums computed from nothing.

use std::net::{IpAddr, SocketAddr};

/// Where the IP header begins.
pub(super) const L3: usize = 14;

/// A UDP packet that nothing has to be said about but this.
#[derive(Clone, Debug)]
pub(super) struct Udp {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// Flags and offset of IPv4.
    pub(super) fragment: u16,
    pub(super) id: u16,
    pub(super) payload: Vec<u8>,
}

impl Udp {
    pub(super) fn new(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Self {
        Self { src, dst, tos: 0, ttl: 64, fragment: 0, id: 0, payload: payload.to_vec() }
    }

    /// From the IP header on.
    pub(super) fn packet(&self) -> Vec<u8> {
        let len = 8 + self.payload.len() as u16;
        let mut udp =
            [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes(), len.to_be_bytes(), [0; 2]]
                .concat();
        udp.extend_from_slice(&self.payload);
        let check = match checksum(&[&self.pseudo(len), &udp]) {
            0 => 0xFFFF,
            check => check,
        };
        udp[6..8].copy_from_slice(&check.to_be_bytes());
        [self.ip_header(len), udp].concat()
    }

    /// The whole, for the interface with the address of nothing (the loopback, where tests run programs).
    pub(super) fn frame(&self) -> Vec<u8> {
        let kind: [u8; 2] = if self.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xDD] };
        [&[0; 6], &[2, 0, 0, 0, 0, 9][..], &kind, &self.packet()].concat()
    }

    /// The UDP checksum as offloading leaves it: addresses and length only.
    pub(super) fn frame_with_partial_checksum(&self) -> Vec<u8> {
        let mut frame = self.frame();
        let check = !checksum(&[&self.pseudo(8 + self.payload.len() as u16)]);
        let at = L3 + self.ip_len() + 6;
        frame[at..at + 2].copy_from_slice(&check.to_be_bytes());
        frame
    }

    pub(super) fn ip_len(&self) -> usize {
        if self.src.is_ipv4() { 20 } else { 40 }
    }

    fn pseudo(&self, len: u16) -> Vec<u8> {
        [octets(self.src.ip()), octets(self.dst.ip()), vec![0, 17], len.to_be_bytes().to_vec()].concat()
    }

    fn ip_header(&self, len: u16) -> Vec<u8> {
        let addresses = [octets(self.src.ip()), octets(self.dst.ip())].concat();
        if self.src.is_ipv6() {
            let start = [0x60 | self.tos >> 4, self.tos << 4, 0, 0];
            return [&start[..], &len.to_be_bytes(), &[17, self.ttl], &addresses].concat();
        }
        let [id, fragment, len] = [self.id, self.fragment, len + 20].map(u16::to_be_bytes);
        let mut header =
            [&[0x45, self.tos][..], &len, &id, &fragment, &[self.ttl, 17, 0, 0], &addresses].concat();
        let check = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&check);
        header
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// RFC 1071, over parts of even length but the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

/// What user space gets to see of a frame: that of an Ethernet, IP and UDP that is in order, its checksum aside.
pub(super) fn read(frame: &[u8]) -> Option<Udp> {
    let packet = frame.get(L3..)?;
    let (src, dst, tos, ip_len, total) = match (&frame[12..14], packet.first()? >> 4) {
        ([0x08, 0x00], 4) if packet.len() >= 28 => {
            let is_plain = packet[0] == 0x45 && packet[9] == 17 && checksum(&[&packet[..20]]) == 0;
            let is_whole = u16::from_be_bytes([packet[6], packet[7]]) & 0xBFFF == 0;
            let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four"));
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            (is_plain && is_whole).then_some((ip(12), ip(16), packet[1], 20, total))?
        }
        ([0x86, 0xDD], 6) if packet.len() >= 48 => {
            let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen"));
            let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (packet[6] == 17).then_some((ip(8), ip(24), packet[0] << 4 | packet[1] >> 4, 40, total))?
        }
        _ => return None,
    };
    let udp = packet.get(ip_len..total)?;
    let (header, payload) = udp.split_at_checked(8)?;
    let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if usize::from(field(4)) != udp.len() {
        return None;
    }
    let (src, dst) = (SocketAddr::new(src, field(0)), SocketAddr::new(dst, field(2)));
    Some(Udp { tos, ..Udp::new(src, dst, payload) })
}

/// Whether the UDP checksum of a packet that `read` can read is that of its bytes.
pub(super) fn is_intact(frame: &[u8]) -> bool {
    let Some(udp) = read(frame) else { return false };
    let at = L3 + udp.ip_len() + 6;
    frame[at..at + 2] == udp.packet()[at - L3..at - L3 + 2]
}
