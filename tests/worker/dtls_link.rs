//! The wire of a DTLS client: the `dimpl` client over a blocking socket. That it is right is for OpenSSL to say, in
//! `tests/coturn` and `tests/dtls`.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output};

use crate::rig::PATIENCE;

pub(crate) struct DtlsLink {
    pub(crate) socket: UdpSocket,
    dtls: Dtls,
    data: VecDeque<Vec<u8>>,
    /// The certificate the server has shown.
    pub(crate) shown: Vec<u8>,
    is_connected: bool,
    is_closed: bool,
}

impl DtlsLink {
    /// A client that has not said anything.
    pub(crate) fn new(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
        let (certificate, private_key) = (made.cert.der().to_vec(), made.signing_key.serialize_der());
        let config = Config::builder().build().unwrap();
        let certificate = DtlsCertificate { certificate, private_key };
        let mut dtls = Dtls::new_12(Arc::new(config), certificate, Instant::now());
        dtls.set_active(true);
        let (data, shown) = Default::default();
        Self { socket, dtls, data, shown, is_connected: false, is_closed: false }
    }

    /// A client whose handshake is complete.
    pub(crate) fn connect(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.connect(server).unwrap();
        Self::handshake(socket)
    }

    /// The same over a socket that may have been used before.
    pub(crate) fn handshake(socket: UdpSocket) -> Self {
        let mut link = Self::new(socket);
        let deadline = Instant::now() + PATIENCE;
        while !link.is_connected {
            assert!(Instant::now() < deadline, "no handshake");
            link.turn();
        }
        link
    }

    /// Lets time pass, says what there is to say, and waits a little for an answer.
    pub(crate) fn turn(&mut self) {
        self.dtls.handle_timeout(Instant::now()).unwrap();
        self.speak();
        let mut datagram = [0; 20_000];
        if let Ok(len) = self.socket.recv(&mut datagram) {
            self.dtls.handle_packet(&datagram[..len]).unwrap();
            self.speak();
        }
    }

    fn speak(&mut self) {
        let mut buffer = [0; 20_000];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                // Nobody may be there any more.
                Output::Packet(packet) => drop(self.socket.send(packet)),
                Output::ApplicationData(data) => self.data.push_back(data.to_vec()),
                Output::Connected => self.is_connected = true,
                Output::CloseNotify => self.is_closed = true,
                Output::PeerCert(certificate) => self.shown = certificate.to_vec(),
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        self.dtls.send_application_data(message).unwrap();
        self.speak();
    }

    /// The next message; `None` when the server has said goodbye.
    pub(crate) fn recv(&mut self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(data) = self.data.pop_front() {
                return Some(data);
            }
            if self.is_closed {
                return None;
            }
            assert!(Instant::now() < deadline, "nothing from the server");
            self.turn();
        }
    }

    pub(crate) fn close(&mut self) {
        self.dtls.close().unwrap();
        self.speak();
    }

    /// The hello this client would say next; nothing is sent.
    pub(crate) fn hello(&mut self) -> Vec<u8> {
        self.dtls.handle_timeout(Instant::now()).unwrap();
        let mut buffer = [0; 2000];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => return packet.to_vec(),
                Output::Timeout(_) => panic!("it has nothing to say"),
                _ => {}
            }
        }
    }

    /// Takes the server's answer, without an answer of its own.
    pub(crate) fn hear(&mut self, datagram: &[u8]) {
        self.dtls.handle_packet(datagram).unwrap();
    }
}
