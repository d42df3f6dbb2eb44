//! Transport addresses as attribute values, plain and XOR-ed (RFC 8489 §14.1, §14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{MAGIC_COOKIE, TransactionId};

/// Longest encoded address: IPv6.
pub(super) const MAX_LEN: usize = 20;

const FAMILY_IPV4: u8 = 0x01;
const FAMILY_IPV6: u8 = 0x02;

/// Reads an address; `None` for an unknown family or a wrong length.
pub(super) fn decode(value: &[u8]) -> Option<SocketAddr> {
    let [_, family, p0, p1, ip @ ..] = value else { return None };
    let ip: IpAddr = match *family {
        FAMILY_IPV4 => Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?).into(),
        FAMILY_IPV6 => Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([*p0, *p1])))
}

/// Writes an address and returns how many bytes it took: 8 for IPv4, 20 for IPv6.
pub(super) fn encode(address: SocketAddr, out: &mut [u8; MAX_LEN]) -> usize {
    out[0] = 0;
    out[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            out[1] = FAMILY_IPV4;
            out[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            out[1] = FAMILY_IPV6;
            out[4..20].copy_from_slice(&ip.octets());
            20
        }
    }
}

/// XORs an address with the cookie and, for IPv6, the transaction id. Its own inverse.
pub(super) fn xor(address: SocketAddr, transaction: TransactionId) -> SocketAddr {
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match address.ip() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE).into(),
        IpAddr::V6(ip) => {
            let mut mask = [0; 16];
            mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            mask[4..].copy_from_slice(&transaction.0);
            Ipv6Addr::from_bits(ip.to_bits() ^ u128::from_be_bytes(mask)).into()
        }
    };
    SocketAddr::new(ip, port)
}
