//! A TURN client over a blocking socket that does just what a test says.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

use turnkey::stun::{AttributeType as A, Class, IntegrityKey, Message, MessageWriter, Method, TransactionId};

use crate::dtls_link::DtlsLink;
use crate::rig::PATIENCE;

/// How the client reaches the server.
pub(crate) enum Link {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, buffer: Vec<u8> },
    Tls { stream: Box<TlsStream>, buffer: Vec<u8> },
    Dtls(Box<DtlsLink>),
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

pub(crate) type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Data from a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Channel(u16, Vec<u8>),
    Indication(SocketAddr, Vec<u8>),
    /// A peer has connected (RFC 6062), and the connection's identifier.
    Attempt(SocketAddr, u32),
}

pub(crate) struct Client {
    pub(crate) link: Link,
    nonce: Vec<u8>,
    transaction: u64,
    data: VecDeque<Data>,
    icmp: VecDeque<(SocketAddr, [u8; 8])>,
}

impl Client {
    pub(crate) fn udp(server: SocketAddr) -> Self {
        let local = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(local).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::new(Link::Udp(socket))
    }

    pub(crate) fn tcp(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(Link::Tcp { stream, buffer: Vec::new() })
    }

    /// `config` says which certificate is trusted and which protocols are offered.
    pub(crate) fn tls(server: SocketAddr, config: &Arc<rustls::ClientConfig>) -> Self {
        let tcp = TcpStream::connect(server).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = "localhost".try_into().unwrap();
        let session = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
        let stream = Box::new(rustls::StreamOwned::new(session, tcp));
        Self::new(Link::Tls { stream, buffer: Vec::new() })
    }

    pub(crate) fn dtls(server: SocketAddr) -> Self {
        Self::over(DtlsLink::connect(server))
    }

    pub(crate) fn over(link: DtlsLink) -> Self {
        Self::new(Link::Dtls(Box::new(link)))
    }

    fn new(link: Link) -> Self {
        Self { link, nonce: Vec::new(), transaction: 0, data: VecDeque::new(), icmp: VecDeque::new() }
    }

    pub(crate) fn local(&self) -> SocketAddr {
        match &self.link {
            Link::Udp(socket) => socket.local_addr().unwrap(),
            Link::Tcp { stream, .. } => stream.local_addr().unwrap(),
            Link::Tls { stream, .. } => stream.sock.local_addr().unwrap(),
            Link::Dtls(link) => link.socket.local_addr().unwrap(),
        }
    }

    /// What this client's datagrams are marked with from now on.
    #[cfg(target_os = "linux")]
    pub(crate) fn set_tos(&self, tos: u8) {
        let Link::Udp(socket) = &self.link else { panic!("a stream has no datagrams") };
        let marks = socket2::SockRef::from(socket);
        match self.local() {
            SocketAddr::V4(_) => marks.set_tos_v4(tos.into()).unwrap(),
            SocketAddr::V6(_) => marks.set_tclass_v6(tos.into()).unwrap(),
        }
    }

    // Requests.

    /// Allocates; the relayed address. `family` 1 is IPv4, 2 is IPv6.
    pub(crate) fn allocate(&mut self, family: u8) -> SocketAddr {
        let reply = self.request(Method::ALLOCATE, |writer| {
            writer
                .u32(A::REQUESTED_TRANSPORT, 17 << 24)
                .u32(A::REQUESTED_ADDRESS_FAMILY, u32::from(family) << 24);
        });
        let message = succeeded(&reply);
        let relayed = message.attribute(A::XOR_RELAYED_ADDRESS).unwrap();
        relayed.as_xor_address(message.transaction()).unwrap()
    }

    /// Allocates for connections (RFC 6062); the relayed address.
    pub(crate) fn allocate_tcp(&mut self) -> SocketAddr {
        let reply = self.request(Method::ALLOCATE, |writer| {
            writer.u32(A::REQUESTED_TRANSPORT, 6 << 24);
        });
        let message = succeeded(&reply);
        let relayed = message.attribute(A::XOR_RELAYED_ADDRESS).unwrap();
        relayed.as_xor_address(message.transaction()).unwrap()
    }

    /// Has a connection to a peer opened; its identifier, or the error.
    pub(crate) fn connect(&mut self, peer: SocketAddr) -> Result<u32, u16> {
        let reply = self.request(Method::CONNECT, |writer| {
            writer.xor_address(A::XOR_PEER_ADDRESS, peer);
        });
        let message = Message::parse(&reply).unwrap();
        match message.attribute(A::ERROR_CODE) {
            Some(error) => Err(error.as_error().unwrap().0),
            None => Ok(message.attribute(A::CONNECTION_ID).unwrap().as_u32().unwrap()),
        }
    }

    /// Makes this connection a data connection; `None` if that is refused.
    pub(crate) fn bind_connection(self, id: u32) -> Option<TcpStream> {
        match self.bind_link(id)? {
            Link::Tcp { stream, .. } => Some(stream),
            Link::Udp(_) | Link::Dtls(_) | Link::Tls { .. } => panic!("only over TCP"),
        }
    }

    /// The same over TLS.
    pub(crate) fn bind_secure_connection(self, id: u32) -> Option<Box<TlsStream>> {
        match self.bind_link(id)? {
            Link::Tls { stream, .. } => Some(stream),
            Link::Udp(_) | Link::Dtls(_) | Link::Tcp { .. } => panic!("only over TLS"),
        }
    }

    fn bind_link(mut self, id: u32) -> Option<Link> {
        self.request(Method::REFRESH, |_| {});
        let (_, request) = self.write_request(Method::CONNECTION_BIND, &|writer| {
            writer.u32(A::CONNECTION_ID, id);
        });
        let stream: &mut dyn Stream = match &mut self.link {
            Link::Udp(_) | Link::Dtls(_) => panic!("only over streams"),
            Link::Tcp { stream, .. } => stream,
            Link::Tls { stream, .. } => stream,
        };
        stream.write_all(&request).unwrap();
        // No byte of what may follow the answer is read here.
        let mut reply = vec![0; 20];
        stream.read_exact(&mut reply).unwrap();
        reply.resize(20 + usize::from(u16::from_be_bytes([reply[2], reply[3]])), 0);
        stream.read_exact(&mut reply[20..]).unwrap();
        (Message::parse(&reply).unwrap().class() == Class::Success).then_some(self.link)
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) {
        succeeded(&self.request(Method::CREATE_PERMISSION, |writer| {
            writer.xor_address(A::XOR_PEER_ADDRESS, peer);
        }));
    }

    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr) {
        succeeded(&self.request(Method::CHANNEL_BIND, |writer| {
            writer.u32(A::CHANNEL_NUMBER, u32::from(channel) << 16).xor_address(A::XOR_PEER_ADDRESS, peer);
        }));
    }

    /// Ends the allocation.
    pub(crate) fn release(&mut self) {
        succeeded(&self.request(Method::REFRESH, |writer| {
            writer.u32(A::LIFETIME, 0);
        }));
    }

    /// A Binding request; the address the server sees.
    pub(crate) fn mapped(&mut self) -> SocketAddr {
        let mut buffer = [0; 64];
        let id = self.next_id();
        let len = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, id).finish().unwrap();
        self.send_raw(&buffer[..len]);
        let reply = self.reply(id);
        let message = succeeded(&reply);
        message.attribute(A::XOR_MAPPED_ADDRESS).unwrap().as_xor_address(id).unwrap()
    }

    /// Sends an authenticated request and returns the reply, after the challenge if there is one.
    pub(crate) fn request(&mut self, method: Method, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
        loop {
            let (id, bytes) = self.write_request(method, &attributes);
            self.send_raw(&bytes);
            let reply = self.reply(id);
            let message = Message::parse(&reply).unwrap();
            let code = message.attribute(A::ERROR_CODE).and_then(|error| Some(error.as_error()?.0));
            if !matches!(code, Some(401 | 438)) || !self.nonce.is_empty() {
                return reply;
            }
            self.nonce = message.attribute(A::NONCE).unwrap().value.to_vec();
        }
    }

    pub(crate) fn write_request(
        &mut self,
        method: Method,
        attributes: &impl Fn(&mut MessageWriter<'_>),
    ) -> (TransactionId, Vec<u8>) {
        let id = self.next_id();
        let mut buffer = vec![0; 1500];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, id);
        attributes(&mut writer);
        if !self.nonce.is_empty() {
            writer
                .attribute(A::USERNAME, b"user")
                .attribute(A::REALM, b"test")
                .attribute(A::NONCE, &self.nonce);
            writer.integrity(&IntegrityKey::long_term("user", "test", "pass"));
        }
        let len = writer.finish().unwrap();
        buffer.truncate(len);
        (id, buffer)
    }

    fn next_id(&mut self) -> TransactionId {
        self.transaction += 1;
        let mut id = [0x5A; 12];
        id[4..].copy_from_slice(&self.transaction.to_be_bytes());
        TransactionId(id)
    }

    // Data.

    pub(crate) fn send_channel(&mut self, channel: u16, payload: &[u8]) {
        let bytes = self.channel_data(channel, payload);
        self.send_raw(&bytes);
    }

    /// A ChannelData message as it goes on this client's link.
    pub(crate) fn channel_data(&self, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = channel.to_be_bytes().to_vec();
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(payload);
        if !matches!(self.link, Link::Udp(_)) {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    pub(crate) fn send_indication(&mut self, peer: SocketAddr, payload: &[u8]) {
        self.send_indication_with(peer, payload, |_| {});
    }

    /// A Send indication with DONT-FRAGMENT.
    pub(crate) fn send_whole(&mut self, peer: SocketAddr, payload: &[u8]) {
        self.send_indication_with(peer, payload, |writer| {
            writer.attribute(A::DONT_FRAGMENT, &[]);
        });
    }

    fn send_indication_with(
        &mut self,
        peer: SocketAddr,
        payload: &[u8],
        attributes: impl Fn(&mut MessageWriter<'_>),
    ) {
        let mut buffer = vec![0; payload.len() + 100];
        let id = self.next_id();
        let mut writer = MessageWriter::new(&mut buffer, Class::Indication, Method::SEND, id);
        attributes(&mut writer);
        writer.xor_address(A::XOR_PEER_ADDRESS, peer).attribute(A::DATA, payload);
        let len = writer.finish().unwrap();
        self.send_raw(&buffer[..len]);
    }

    /// The next data from a peer.
    pub(crate) fn recv(&mut self) -> Data {
        loop {
            if let Some(data) = self.data.pop_front() {
                return data;
            }
            let message = self.recv_raw();
            self.sort(&message);
        }
    }

    /// Over UDP, the data that has come by now; waits for nothing.
    pub(crate) fn waiting(&mut self) -> Vec<Data> {
        let Link::Udp(socket) = &self.link else { panic!("only over UDP") };
        let socket = socket.try_clone().unwrap();
        let mut datagram = [0; 65_536];
        socket.set_nonblocking(true).unwrap();
        while let Ok(len) = socket.recv(&mut datagram) {
            self.sort(&datagram[..len]);
        }
        socket.set_nonblocking(false).unwrap();
        self.data.drain(..).collect()
    }

    /// The next ICMP error: the peer, and the attribute's value.
    pub(crate) fn recv_icmp(&mut self) -> (SocketAddr, [u8; 8]) {
        loop {
            if let Some(icmp) = self.icmp.pop_front() {
                return icmp;
            }
            let message = self.recv_raw();
            self.sort(&message);
        }
    }

    /// The first bytes of the data that have come over UDP until now, at most `count`; the client is not
    /// used any more.
    pub(crate) fn received(mut self, count: usize) -> Vec<u8> {
        let Link::Udp(socket) = &self.link else { panic!("only over UDP") };
        socket.set_nonblocking(true).unwrap();
        let mut datagram = [0; 2000];
        let mut messages = Vec::new();
        while messages.len() < count
            && let Ok(len) = socket.recv(&mut datagram)
        {
            messages.push(datagram[..len].to_vec());
        }
        messages.iter().for_each(|message| self.sort(message));
        let first = |data: Data| match data {
            Data::Indication(_, data) | Data::Channel(_, data) => data[0],
            Data::Attempt(..) => panic!("nobody connects"),
        };
        self.data.drain(..).map(first).collect()
    }

    // The wire.

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Link::Tcp { stream, .. } => stream.write_all(bytes).unwrap(),
            Link::Tls { stream, .. } => stream.write_all(bytes).unwrap(),
            Link::Dtls(link) => link.send(bytes),
        }
    }

    /// The next message of the server; on a stream padding is checked and taken off.
    pub(crate) fn recv_raw(&mut self) -> Vec<u8> {
        self.try_recv_raw().expect("the server closed the connection")
    }

    /// As [`Client::recv_raw`]; `None` if the server has closed the connection.
    pub(crate) fn try_recv_raw(&mut self) -> Option<Vec<u8>> {
        let (stream, buffer): (&mut dyn Read, _) = match &mut self.link {
            Link::Udp(socket) => {
                let mut datagram = vec![0; 65_536];
                let len = socket.recv(&mut datagram).unwrap();
                datagram.truncate(len);
                return Some(datagram);
            }
            Link::Dtls(link) => return link.recv(),
            Link::Tcp { stream, buffer } => (stream, buffer),
            Link::Tls { stream, buffer } => (stream, buffer),
        };
        loop {
            if let [kind, _, high, low, ..] = buffer[..] {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let len = if kind >> 6 == 0 { 20 + length } else { 4 + length };
                let padded = len.next_multiple_of(4);
                if buffer.len() >= padded {
                    assert!(buffer[len..padded].iter().all(|byte| *byte == 0), "padding is zero");
                    let message = buffer[..len].to_vec();
                    buffer.drain(..padded);
                    return Some(message);
                }
            }
            let mut chunk = [0; 16_384];
            match stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(len) => buffer.extend(&chunk[..len]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("nothing from the server: {e}"),
            }
        }
    }

    fn reply(&mut self, id: TransactionId) -> Vec<u8> {
        loop {
            let bytes = self.recv_raw();
            if Message::parse(&bytes).is_ok_and(|message| message.transaction() == id) {
                return bytes;
            }
            self.sort(&bytes);
        }
    }

    fn sort(&mut self, bytes: &[u8]) {
        if bytes[0] >> 6 == 1 {
            let channel = u16::from_be_bytes([bytes[0], bytes[1]]);
            let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            assert_eq!(bytes.len(), 4 + len);
            self.data.push_back(Data::Channel(channel, bytes[4..].to_vec()));
            return;
        }
        let message = Message::parse(bytes).unwrap();
        if message.method() == Method::CONNECTION_ATTEMPT {
            let peer = message.attribute(A::XOR_PEER_ADDRESS).unwrap().as_xor_address(message.transaction());
            let id = message.attribute(A::CONNECTION_ID).unwrap().as_u32();
            self.data.push_back(Data::Attempt(peer.unwrap(), id.unwrap()));
            return;
        }
        assert_eq!(message.method(), Method::DATA);
        let peer = message.attribute(A::XOR_PEER_ADDRESS).unwrap().as_xor_address(message.transaction());
        if let Some(icmp) = message.attribute(A::ICMP) {
            self.icmp.push_back((peer.unwrap(), icmp.value.try_into().unwrap()));
            return;
        }
        let data = message.attribute(A::DATA).unwrap().value.to_vec();
        self.data.push_back(Data::Indication(peer.unwrap(), data));
    }
}

fn succeeded(reply: &[u8]) -> Message<'_> {
    let message = Message::parse(reply).unwrap();
    let error = message.attribute(A::ERROR_CODE);
    assert_eq!(message.class(), Class::Success, "{:?}", error.and_then(|error| error.as_error()));
    message
}
