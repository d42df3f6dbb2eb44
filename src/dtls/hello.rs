//! The stateless front: recognising a ClientHello and demanding its cookie (RFC 6347 §4.2.1).
//!
//! Only the beginning of the message is read, so a hello that comes in fragments is answered from its first
//! one. The cookie is an HMAC over the addresses and what the client must repeat; its key changes with time
//! and is derived, so that not even the keys are kept.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of a cookie.
pub const COOKIE_LEN: usize = 32;

/// Bytes of the random value that identifies a hello and its repetitions.
pub const RANDOM_LEN: usize = 32;

/// Bytes of a HelloVerifyRequest in its record: less than any hello it answers.
pub const VERIFY_REQUEST_LEN: usize = RECORD + HANDSHAKE + 3 + COOKIE_LEN;

const RECORD: usize = 13;
const HANDSHAKE: usize = 12;

const CONTENT_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;

/// The version on the wire of what is said before one is agreed on (RFC 6347 §4.2.1).
const DTLS_1_0: [u8; 2] = [254, 255];

/// Largest hello that is looked at; those with post-quantum key shares have below 2 KiB.
const MAX_HELLO: usize = 8192;

/// Messages a client may have sent before: the hello without a cookie, and one or two whose cookie was
/// too old.
const MAX_MESSAGE_SEQ: u16 = 3;

/// How long a key of the cookies is in use; it is accepted as long again.
const KEY_LIFETIME: Duration = Duration::from_secs(30);

/// What is needed of a ClientHello, or of its first fragment, at the beginning of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Sequence number of its record.
    pub record_seq: u64,
    /// Number of the message in its handshake; 1 for the first hello with a cookie.
    pub message_seq: u16,
    /// Whether it came whole, not in fragments.
    pub is_whole: bool,
    /// Version, random value and session identifier as they came: what the client repeats with the cookie.
    parameters: &'a [u8],
    /// The cookie; empty in a first hello.
    pub cookie: &'a [u8],
}

impl<'a> Hello<'a> {
    /// Reads the beginning of a datagram; `None` if it is no hello anybody would begin a handshake with.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (record, rest) = datagram.split_first_chunk::<RECORD>()?;
        let [CONTENT_HANDSHAKE, 254, _, 0, 0, ..] = *record else { return None };
        let record_seq = number(&record[5..11]);
        let fragment = rest.get(..number(&record[11..13]) as usize)?;
        let (header, body) = fragment.split_first_chunk::<HANDSHAKE>()?;
        let (length, offset) = (number(&header[1..4]) as usize, number(&header[6..9]));
        let fragment_length = number(&header[9..12]) as usize;
        let message_seq = u16::from_be_bytes([header[4], header[5]]);
        let is_first_fragment = header[0] == CLIENT_HELLO && offset == 0 && fragment_length <= length;
        if !is_first_fragment || length > MAX_HELLO || message_seq > MAX_MESSAGE_SEQ {
            return None;
        }
        let body = body.get(..fragment_length)?;
        let session_id_at = 2 + RANDOM_LEN;
        let session_id_len = usize::from(*body.get(session_id_at)?);
        let (parameters, rest) = body.split_at_checked(session_id_at + 1 + session_id_len)?;
        let (cookie_len, rest) = rest.split_first()?;
        let cookie = rest.get(..usize::from(*cookie_len))?;
        Some(Self { record_seq, message_seq, is_whole: fragment_length == length, parameters, cookie })
    }

    /// The client's random value.
    #[must_use]
    pub fn random(&self) -> [u8; RANDOM_LEN] {
        *self.parameters[2..].first_chunk().expect("the parameters hold version and random value")
    }

    /// Writes the HelloVerifyRequest that asks for `cookie`. It carries the hello's own numbers, so that
    /// nothing of the exchange needs to be remembered (RFC 6347 §4.2.1).
    #[must_use]
    pub fn verify_request(&self, cookie: &[u8; COOKIE_LEN]) -> [u8; VERIFY_REQUEST_LEN] {
        const BODY: u8 = 3 + COOKIE_LEN as u8;
        let mut reply = [0; VERIFY_REQUEST_LEN];
        reply[0] = CONTENT_HANDSHAKE;
        reply[1..3].copy_from_slice(&DTLS_1_0);
        reply[5..11].copy_from_slice(&self.record_seq.to_be_bytes()[2..]);
        reply[12] = HANDSHAKE as u8 + BODY;
        reply[13] = HELLO_VERIFY_REQUEST;
        reply[16] = BODY;
        reply[17..19].copy_from_slice(&self.message_seq.to_be_bytes());
        reply[24] = BODY;
        reply[25..27].copy_from_slice(&DTLS_1_0);
        reply[27] = COOKIE_LEN as u8;
        reply[28..].copy_from_slice(cookie);
        reply
    }

    /// The fatal alert that ends a handshake which offers nothing this side speaks (handshake_failure), so
    /// that its client need not wait.
    #[must_use]
    pub fn refusal(&self) -> [u8; RECORD + 2] {
        let mut alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];
        alert[5..11].copy_from_slice(&self.record_seq.to_be_bytes()[2..]);
        alert
    }
}

/// A big-endian number of at most 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Makes and checks cookies. Holds one key and nothing of any client.
#[derive(Clone)]
pub struct Cookies {
    key: [u8; 32],
}

impl Cookies {
    /// Cookies of a process; `key` from the system's random source.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The cookie for a hello from `client` to `server`, `now` on a monotonic clock.
    #[must_use]
    pub fn issue(
        &self,
        hello: &Hello<'_>,
        client: SocketAddr,
        server: SocketAddr,
        now: Duration,
    ) -> [u8; COOKIE_LEN] {
        self.cookie(hello, client, server, period(now))
    }

    /// The cookie of the hello, if it is one of ours for this client and not too old.
    #[must_use]
    pub fn verify(
        &self,
        hello: &Hello<'_>,
        client: SocketAddr,
        server: SocketAddr,
        now: Duration,
    ) -> Option<[u8; COOKIE_LEN]> {
        let shown = <[u8; COOKIE_LEN]>::try_from(hello.cookie).ok()?;
        let period = period(now);
        let is_of = |period| bool::from(self.cookie(hello, client, server, period).ct_eq(&shown));
        (is_of(period) || period.checked_sub(1).is_some_and(is_of)).then_some(shown)
    }

    fn cookie(
        &self,
        hello: &Hello<'_>,
        client: SocketAddr,
        server: SocketAddr,
        period: u64,
    ) -> [u8; COOKIE_LEN] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(&period.to_be_bytes());
        for address in [client, server] {
            match address.ip() {
                IpAddr::V4(ip) => mac.update(&ip.to_ipv6_mapped().octets()),
                IpAddr::V6(ip) => mac.update(&ip.octets()),
            }
            mac.update(&address.port().to_be_bytes());
        }
        mac.update(hello.parameters);
        mac.finalize().into_bytes().into()
    }
}

fn period(now: Duration) -> u64 {
    now.as_secs() / KEY_LIFETIME.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.1:5000";
    const SERVER: &str = "198.51.100.1:5349";

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// A hello with one cipher suite, in one record; cut to `fragment` bytes of its body.
    fn hello(record_seq: u8, message_seq: u8, cookie: &[u8], fragment: usize) -> Vec<u8> {
        let mut body = vec![254, 253];
        body.extend([7; RANDOM_LEN]);
        body.push(0);
        body.push(cookie.len() as u8);
        body.extend(cookie);
        body.extend([0, 2, 0xC0, 0x2B, 1, 0]);
        let (length, fragment) = (body.len() as u8, fragment.min(body.len()));
        let mut datagram = vec![22, 254, 255, 0, 0, 0, 0, 0, 0, 0, record_seq, 0, 12 + fragment as u8];
        datagram.extend([1, 0, 0, length, 0, message_seq, 0, 0, 0, 0, 0, fragment as u8]);
        datagram.extend(&body[..fragment]);
        datagram
    }

    fn cookies() -> Cookies {
        Cookies::new([9; 32])
    }

    fn issue(now: u64) -> [u8; COOKIE_LEN] {
        let first = hello(0, 0, &[], 99);
        let first = Hello::parse(&first).expect("a hello");
        cookies().issue(&first, address(CLIENT), address(SERVER), Duration::from_secs(now))
    }

    fn is_valid(cookie: &[u8], client: &str, server: &str, now: u64) -> bool {
        let second = hello(1, 1, cookie, 99);
        let second = Hello::parse(&second).expect("a hello");
        cookies().verify(&second, address(client), address(server), Duration::from_secs(now)).is_some()
    }

    #[test]
    fn rfc6347_4_2_1_the_verify_request_repeats_the_hellos_numbers_and_is_smaller() {
        let datagram = hello(5, 0, &[], 99);
        let reply = Hello::parse(&datagram).expect("a hello").verify_request(&[0xAB; COOKIE_LEN]);
        assert!(reply.len() < datagram.len());
        let record = [22, 254, 255, 0, 0, 0, 0, 0, 0, 0, 5, 0, 47];
        let handshake = [3, 0, 0, 35, 0, 0, 0, 0, 0, 0, 0, 35, 254, 255, 32];
        assert_eq!(reply[..28], [&record[..], &handshake[..]].concat());
        assert_eq!(reply[28..], [0xAB; 32]);
    }

    #[test]
    fn rfc6347_4_2_1_a_cookie_is_good_for_its_client_its_hello_and_its_time() {
        let cookie = issue(100);
        assert!(is_valid(&cookie, CLIENT, SERVER, 100));
        assert!(is_valid(&cookie, CLIENT, SERVER, 140), "the key after it");
        assert!(!is_valid(&cookie, CLIENT, SERVER, 150), "too old");
        assert!(!is_valid(&cookie, CLIENT, SERVER, 80), "from the future");
        assert!(!is_valid(&cookie, "192.0.2.1:5001", SERVER, 100), "another port");
        assert!(!is_valid(&cookie, "192.0.2.2:5000", SERVER, 100), "another address");
        assert!(!is_valid(&cookie, CLIENT, "198.51.100.2:5349", 100), "another listener");
        let mut forged = cookie;
        forged[31] ^= 1;
        assert!(!is_valid(&forged, CLIENT, SERVER, 100));
        assert!(!is_valid(&cookie[..31], CLIENT, SERVER, 100) && !is_valid(&[], CLIENT, SERVER, 100));
        let other = Cookies::new([8; 32]);
        let datagram = hello(1, 1, &cookie, 99);
        let second = Hello::parse(&datagram).expect("a hello");
        let now = Duration::from_secs(100);
        assert_eq!(other.verify(&second, address(CLIENT), address(SERVER), now), None, "another process");
    }

    #[test]
    fn the_first_fragment_is_enough_and_later_ones_are_no_hello() {
        let whole = hello(0, 0, &[], 99);
        let cut = hello(0, 0, &[], 36);
        let of = |datagram| Hello::parse(datagram).map(|hello| (hello.parameters, hello.cookie));
        assert!(of(&cut).is_some());
        assert_eq!(of(&cut), of(&whole));
        assert_eq!(Hello::parse(&hello(0, 0, &[], 35)), None, "the cookie's length is not in it");
        let mut later = cut;
        later[21] = 36;
        assert_eq!(Hello::parse(&later), None);
    }

    #[test]
    fn what_is_no_plain_hello_is_none() {
        let good = hello(0, 0, &[], 99);
        let is_hello = |at: usize, value: u8| {
            let mut datagram = good.clone();
            datagram[at] = value;
            Hello::parse(&datagram).is_some()
        };
        assert!(is_hello(2, 253), "either version on the record");
        for (at, value, what) in [
            (0, 23, "application data"),
            (1, 3, "TLS"),
            (4, 1, "encrypted"),
            (12, 255, "longer than the datagram"),
            (13, 2, "another message"),
            (14, 1, "much too long"),
            (18, 4, "far into a handshake"),
            (24, 255, "a fragment longer than the message"),
            (59, 200, "a session identifier beyond the end"),
            (60, 200, "a cookie beyond the end"),
        ] {
            assert!(!is_hello(at, value), "{what}");
        }
        for len in 0..good.len() {
            assert_eq!(Hello::parse(&good[..len]), None, "{len} bytes of it");
        }
    }
}
