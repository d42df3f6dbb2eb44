//! The front of a DTLS listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::dtls::{Cookies, Hello, RANDOM_LEN, VERIFY_REQUEST_LEN};

/// Any first datagram of a stranger: the answer is smaller, says what the hello says, and its cookie is good for
/// this hello from this address alone.
pub fn dtls_hello(bytes: &[u8]) {
    let Some(hello) = Hello::parse(bytes) else { return };
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (client, server, now) = (address(1), address(5349), Duration::from_secs(1000));
    let cookies = Cookies::new([3; 32]);
    assert!(cookies.verify(&hello, client, server, now).is_none(), "nobody knows the key");
    let cookie = cookies.issue(&hello, client, server, now);
    let request = hello.verify_request(&cookie);
    assert!(request.len() == VERIFY_REQUEST_LEN && request.len() < bytes.len());
    assert_eq!((&request[5..11], &request[17..19]), (&bytes[5..11], &bytes[17..19]), "the hello's numbers");

    let second = with_cookie(bytes, &cookie);
    let second = Hello::parse(&second).expect("a hello with a cookie is a hello");
    assert_eq!(second.random(), hello.random());
    assert!(cookies.verify(&second, client, server, now).is_some());
    assert!(cookies.verify(&second, address(2), server, now).is_none());
}

/// The hello again with this cookie, cut off behind it.
fn with_cookie(bytes: &[u8], cookie: &[u8]) -> Vec<u8> {
    const BODY: usize = 13 + 12;
    let session_id_at = BODY + 2 + RANDOM_LEN;
    let mut second = bytes[..session_id_at + 1 + usize::from(bytes[session_id_at])].to_vec();
    second.push(cookie.len() as u8);
    second.extend_from_slice(cookie);
    let length = (second.len() - BODY) as u16;
    second[11..13].copy_from_slice(&(12 + length).to_be_bytes());
    for at in [14, 22] {
        second[at..at + 3].copy_from_slice(&u32::from(length).to_be_bytes()[1..]);
    }
    second
}
