//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): what a proxy in front of this server
//! writes before the first byte of a connection, to say who it comes from.
//!
//! Reads bytes and nothing else; who is believed, and how long a header may take, is decided where connections
//! are accepted. Of version 2 the addresses are read, the extensions (TLV) are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header that is taken. Version 1 ends within 107 bytes; version 2 with every extension in use stays
/// well below this.
pub const MAX_LEN: usize = 4096;

/// Longest line of version 1, its end included.
const MAX_LINE: usize = 107;

/// Commands of version 2: the proxy speaks for itself, or for a client.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What the beginning of a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed.
    Partial,
    /// A header of `len` bytes.
    Complete {
        /// Where the client's own bytes begin.
        len: usize,
        /// The client and the address it reached; `None` where the proxy speaks for itself (a health check) or
        /// tells of something that is no TCP connection: then the addresses of the connection count.
        ends: Option<Ends>,
    },
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who it comes from.
    pub client: SocketAddr,
    /// What the client connected to.
    pub server: SocketAddr,
}

/// The bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Looks at the beginning of a connection. What cannot become a header is told from the first byte that shows it.
///
/// # Errors
/// [`Malformed`].
pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    let shown = bytes.len().min(SIGNATURE.len());
    if bytes.first() == Some(&b'P') {
        parse_line(bytes)
    } else if bytes[..shown] != SIGNATURE[..shown] {
        Err(Malformed)
    } else {
        parse_binary(bytes)
    }
}

/// Version 1: one line of words.
fn parse_line(bytes: &[u8]) -> Result<Header, Malformed> {
    const WORD: &[u8] = b"PROXY ";
    let shown = bytes.len().min(WORD.len());
    if bytes[..shown] != WORD[..shown] {
        return Err(Malformed);
    }
    let line = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < MAX_LINE { Ok(Header::Partial) } else { Err(Malformed) };
    };
    let text = std::str::from_utf8(&line[WORD.len()..end]).map_err(|_| Malformed)?;
    let words: Vec<&str> = text.split(' ').collect();
    let ends = match words[..] {
        ["UNKNOWN", ..] => None,
        ["TCP4", client, server, from, to] => Some(Ends {
            client: SocketAddr::new(IpAddr::V4(word(client)?), port(from)?),
            server: SocketAddr::new(IpAddr::V4(word(server)?), port(to)?),
        }),
        ["TCP6", client, server, from, to] => Some(Ends {
            client: SocketAddr::new(IpAddr::V6(word(client)?), port(from)?),
            server: SocketAddr::new(IpAddr::V6(word(server)?), port(to)?),
        }),
        _ => return Err(Malformed),
    };
    Ok(Header::Complete { len: end + 2, ends })
}

fn word<T: std::str::FromStr>(text: &str) -> Result<T, Malformed> {
    text.parse().map_err(|_| Malformed)
}

fn port(text: &str) -> Result<u16, Malformed> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if is_number { word(text) } else { Err(Malformed) }
}

/// Version 2: sixteen bytes that say how many follow, and what they are.
fn parse_binary(bytes: &[u8]) -> Result<Header, Malformed> {
    if bytes.get(12).is_some_and(|command| *command != LOCAL && *command != PROXY) {
        return Err(Malformed);
    }
    let Some([command, kind, high, low]) = bytes.get(12..16).and_then(|fixed| fixed.first_chunk().copied())
    else {
        return Ok(Header::Partial);
    };
    let len = 16 + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_LEN {
        return Err(Malformed);
    }
    let Some(body) = bytes.get(16..len) else { return Ok(Header::Partial) };
    let ends = match kind {
        _ if command == LOCAL => None,
        // TCP over IPv4 and IPv6.
        0x11 => Some(ends::<4>(body)?),
        0x21 => Some(ends::<16>(body)?),
        // Unspecified, datagrams, and sockets of a file system.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(Malformed),
    };
    Ok(Header::Complete { len, ends })
}

/// Two addresses of `N` bytes and two ports.
fn ends<const N: usize>(body: &[u8]) -> Result<Ends, Malformed> {
    let (client, rest) = body.split_first_chunk::<N>().ok_or(Malformed)?;
    let (server, rest) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    let Some(&[a, b, c, d]) = rest.first_chunk() else { return Err(Malformed) };
    let address = |bytes: &[u8; N], port| Some(SocketAddr::new(ip(bytes)?, u16::from_be_bytes(port)));
    let (client, server) = (address(client, [a, b]), address(server, [c, d]));
    client.zip(server).map(|(client, server)| Ends { client, server }).ok_or(Malformed)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || bytes.try_into().map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = || bytes.try_into().map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets)));
    v4().or_else(|_| v6()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(client: &str, server: &str, len: usize) -> Header {
        let ends = Ends { client: client.parse().unwrap(), server: server.parse().unwrap() };
        Header::Complete { len, ends: Some(ends) }
    }

    fn binary(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let fixed = [&SIGNATURE[..], &[command, kind], &(body.len() as u16).to_be_bytes()].concat();
        [fixed, body.to_vec()].concat()
    }

    #[test]
    fn version_1_names_the_client() {
        let line = b"PROXY TCP4 198.51.100.7 203.0.113.1 40000 443\r\n\x16\x03\x01";
        assert_eq!(parse(line), Ok(told("198.51.100.7:40000", "203.0.113.1:443", line.len() - 3)));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n";
        assert_eq!(parse(line), Ok(told("[2001:db8::7]:1", "[2001:db8::1]:65535", line.len())));
        let line = b"PROXY UNKNOWN whatever it says\r\n";
        assert_eq!(parse(line), Ok(Header::Complete { len: line.len(), ends: None }));
    }

    #[test]
    fn version_2_names_the_client() {
        let mut body = vec![198, 51, 100, 7, 203, 0, 113, 1, 0x9C, 0x40, 1, 0xBB];
        assert_eq!(parse(&binary(0x21, 0x11, &body)), Ok(told("198.51.100.7:40000", "203.0.113.1:443", 28)));
        // Extensions belong to the header and are passed over.
        body.extend([4, 0, 2, 0, 0]);
        assert_eq!(parse(&binary(0x21, 0x11, &body)), Ok(told("198.51.100.7:40000", "203.0.113.1:443", 33)));
        let six =
            [&[0x20, 1, 0xD, 0xB8][..], &[0; 11], &[7], &[0x20, 1, 0xD, 0xB8], &[0; 11], &[1, 0, 1, 0, 2]]
                .concat();
        assert_eq!(parse(&binary(0x21, 0x21, &six)), Ok(told("[2001:db8::7]:1", "[2001:db8::1]:2", 52)));
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_names_nobody() {
        let nobody = |len| Ok(Header::Complete { len, ends: None });
        assert_eq!(parse(&binary(0x20, 0x00, &[])), nobody(16));
        assert_eq!(parse(&binary(0x20, 0x11, &[1; 12])), nobody(28));
        assert_eq!(parse(&binary(0x21, 0x00, &[])), nobody(16));
        assert_eq!(parse(&binary(0x21, 0x31, &[0; 216])), nobody(232));
    }

    #[test]
    fn every_beginning_of_a_header_is_partial() {
        let line = b"PROXY TCP4 198.51.100.7 203.0.113.1 40000 443\r\n".to_vec();
        for header in [line, binary(0x21, 0x11, &[9; 12]), binary(0x20, 0, &[])] {
            for len in 0..header.len() {
                assert_eq!(parse(&header[..len]), Ok(Header::Partial), "{len} of {header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        for bytes in [
            &b"G"[..],
            b"\x16\x03\x01",
            b"\0\x01",
            b"PROXX",
            b"PUT / HTTP/1.1",
            b"\r\nG",
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
            &[b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 93]].concat(),
            &binary(0x11, 0x11, &[9; 12]),
            &binary(0x22, 0x11, &[9; 12]),
            &binary(0x21, 0x13, &[9; 12]),
            &binary(0x21, 0x11, &[9; 11]),
            &binary(0x21, 0x21, &[9; 12]),
            &binary(0x21, 0x11, &[9; MAX_LEN]),
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
