//! Reads the PROXY header of a connection, and not a byte of what follows it.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Refusal;
use crate::proxy::{Ends, Header, parse};

/// Takes the header off the connection; `None` if it names nobody.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<Ends>, Refusal> {
    let mut header = Vec::new();
    let mut window = [0; 256];
    loop {
        let seen = stream.peek(&mut window).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let before = header.len();
        header.extend_from_slice(&window[..seen]);
        // What was seen of an incomplete header is all the header's, and taken; the next look waits for more.
        let (taken, done) = match parse(&header).map_err(|_| Refusal::ProxyHeader)? {
            Header::Complete { len, ends } => (len - before, Some(ends)),
            Header::Partial => (seen, None),
        };
        stream.read_exact(&mut window[..taken]).await?;
        if let Some(ends) = done {
            return Ok(ends);
        }
    }
}
