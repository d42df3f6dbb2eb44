//! Who talks to whom: clients by their port, each with a relay socket and a peer. Filled by a client's requests,
//! which are answered without asking who it is.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use socket2::SockRef;
use turnkey::stun::{AttributeType, Class, ErrorCode, IntegrityKey, Message, MessageWriter, Method};

/// User, password and realm.
const NAME: &str = "floor";
/// The channel of every client.
pub(crate) const CHANNEL: [u8; 2] = [0x40, 0x00];
/// Socket buffers as turnkey asks for them.
const LISTENER_BUFFER: usize = 4 << 20;
const RELAY_BUFFER: usize = 1 << 20;
const NONE: u32 = u32::MAX;

/// A client, its relay socket and its peer.
pub(crate) struct Flow {
    pub(crate) relay: UdpSocket,
    pub(crate) client: SocketAddrV4,
    pub(crate) peer: SocketAddrV4,
}

/// What a request has changed.
pub(crate) enum Change {
    Nothing,
    /// This flow is new.
    Opened(usize),
    /// This flow has its peer.
    Bound(usize),
}

pub(crate) struct Table {
    pub(crate) listener: UdpSocket,
    pub(crate) flows: Vec<Flow>,
    by_client: Box<[u32]>,
    key: IntegrityKey,
}

impl Table {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        Ok(Self {
            listener: socket(port, LISTENER_BUFFER)?,
            flows: Vec::new(),
            by_client: vec![NONE; 1 << 16].into_boxed_slice(),
            key: IntegrityKey::long_term(NAME, NAME, NAME),
        })
    }

    /// The flow of the client with this port.
    pub(crate) fn flow_of(&self, client_port: u16) -> Option<usize> {
        let flow = self.by_client[usize::from(client_port)];
        (flow != NONE).then_some(flow as usize)
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, from: SocketAddrV4, bytes: &[u8]) -> io::Result<Change> {
        let Ok(request) = Message::parse(bytes) else { return Ok(Change::Nothing) };
        let mut buffer = [0; 512];
        let mut change = Change::Nothing;
        let is_signed = request.has_integrity();
        let is_open = request.method() == Method::BINDING || is_signed;
        let class = if is_open { Class::Success } else { Class::Error };
        let mut reply = MessageWriter::new(&mut buffer, class, request.method(), request.transaction());
        match request.method() {
            Method::BINDING => {
                reply.xor_address(AttributeType::XOR_MAPPED_ADDRESS, from.into());
            }
            _ if !is_signed => {
                reply.error(ErrorCode::Unauthenticated);
                reply.attribute(AttributeType::REALM, NAME.as_bytes());
                reply.attribute(AttributeType::NONCE, NAME.as_bytes());
            }
            Method::ALLOCATE => {
                let flow = self.open_flow(from)?;
                let relayed = self.flows[flow].relay.local_addr()?;
                reply.xor_address(AttributeType::XOR_RELAYED_ADDRESS, relayed);
                change = Change::Opened(flow);
            }
            Method::CHANNEL_BIND => {
                let peer = request.attribute(AttributeType::XOR_PEER_ADDRESS);
                let peer = peer.and_then(|peer| peer.as_xor_address(request.transaction()));
                if let (Some(flow), Some(SocketAddr::V4(peer))) = (self.flow_of(from.port()), peer) {
                    self.flows[flow].peer = peer;
                    change = Change::Bound(flow);
                }
            }
            _ => {}
        }
        if is_signed {
            reply.integrity(&self.key);
        }
        let len = reply.finish().map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.listener.send_to(&buffer[..len], from)?;
        Ok(change)
    }

    fn open_flow(&mut self, client: SocketAddrV4) -> io::Result<usize> {
        let flow = Flow { relay: socket(0, RELAY_BUFFER)?, client, peer: client };
        let index = self.flows.len();
        self.by_client[usize::from(client.port())] = index as u32;
        self.flows.push(flow);
        Ok(index)
    }
}

/// The header of ChannelData with a payload of `len` bytes.
pub(crate) fn header(len: usize) -> [u8; 4] {
    let [high, low] = (len as u16).to_be_bytes();
    [CHANNEL[0], CHANNEL[1], high, low]
}

/// Where the payload of ChannelData ends in `packet`; `None` if it is something else.
pub(crate) fn payload_end(packet: &[u8]) -> Option<usize> {
    let [first, second, high, low] = *packet.first_chunk()?;
    let end = 4 + usize::from(u16::from_be_bytes([high, low]));
    ([first, second] == CHANNEL && end <= packet.len()).then_some(end)
}

fn socket(port: u16, buffer: usize) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nonblocking(true)?;
    SockRef::from(&socket).set_recv_buffer_size(buffer)?;
    SockRef::from(&socket).set_send_buffer_size(buffer)?;
    Ok(socket)
}
