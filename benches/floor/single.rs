//! One packet a call, readiness by epoll.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::table::{Change, Table, header, payload_end};

/// Room for a header in front of what a peer sends.
const HEAD: usize = 4;

pub(crate) fn run(mut table: Table) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 1 << 16];
    poll.registry().register(&mut SourceFd(&table.listener.as_raw_fd()), Token(0), Interest::READABLE)?;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token().0 {
                0 => serve_clients(&mut table, &poll, &mut buffer)?,
                n => serve_peer(&table, n - 1, &mut buffer)?,
            }
        }
    }
}

fn serve_clients(table: &mut Table, poll: &Poll, buffer: &mut [u8]) -> io::Result<()> {
    while let Some((len, from)) = waiting(table.listener.recv_from(buffer))? {
        let packet = &buffer[..len];
        match (payload_end(packet), table.flow_of(from.port())) {
            (Some(end), Some(flow)) => {
                let flow = &table.flows[flow];
                drop(flow.relay.send_to(&packet[HEAD..end], flow.peer));
            }
            _ => {
                if let Change::Opened(flow) = table.answer(from, packet)? {
                    let fd = table.flows[flow].relay.as_raw_fd();
                    poll.registry().register(&mut SourceFd(&fd), Token(flow + 1), Interest::READABLE)?;
                }
            }
        }
    }
    Ok(())
}

fn serve_peer(table: &Table, flow: usize, buffer: &mut [u8]) -> io::Result<()> {
    let flow = &table.flows[flow];
    while let Some((len, _)) = waiting(flow.relay.recv_from(&mut buffer[HEAD..]))? {
        buffer[..HEAD].copy_from_slice(&header(len));
        drop(table.listener.send_to(&buffer[..HEAD + len], flow.client));
    }
    Ok(())
}

/// What came; nothing when the socket is empty or tells of an earlier packet that did not arrive.
fn waiting(received: io::Result<(usize, SocketAddr)>) -> io::Result<Option<(usize, SocketAddrV4)>> {
    match received {
        Ok((len, SocketAddr::V4(from))) => Ok(Some((len, from))),
        Ok(_) => Ok(None),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
