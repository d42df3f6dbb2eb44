//! A client of the model test: how it signs, and how its answers are read.

use std::net::SocketAddr;

use turnkey::credential::Nonces;
use turnkey::stun::{AttributeType as A, Class, IntegrityKey, Message, MessageWriter, Method, TransactionId};
use turnkey::turn::{ClientPath, FiveTuple, LinkId, Transport};

use super::reference::{Granted, WORKERS, ip, user_of};
use crate::lab::{REALM, START_UNIX, addr};

#[derive(Clone)]
pub(super) struct Client {
    pub(super) path: ClientPath,
    pub(super) username: String,
    pub(super) key: IntegrityKey,
    pub(super) nonce: Vec<u8>,
    /// The last Allocate, to be sent again.
    pub(super) last: Option<(Vec<u8>, [u8; 12])>,
}

impl Client {
    /// Every other one of a worker talks over TCP.
    pub(super) fn new(n: usize, nonces: &Nonces) -> Self {
        let client = SocketAddr::new(ip("192.0.2.9"), 40_000 + n as u16);
        let transport = if n / (2 * WORKERS) == 0 { Transport::Udp } else { Transport::Tcp };
        let five_tuple = FiveTuple { client, server: addr("198.51.100.1:3478"), transport };
        let username = format!("user{}", user_of(n));
        Self {
            path: ClientPath { five_tuple, link: LinkId(1) },
            key: IntegrityKey::long_term(&username, REALM, "pass"),
            nonce: nonces.issue(client, START_UNIX).to_vec(),
            username,
            last: None,
        }
    }

    pub(super) fn signed(
        &self,
        transaction: [u8; 12],
        method: Method,
        fill: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let mut buffer = vec![0; 512];
        let mut writer = MessageWriter::new(&mut buffer, Class::Request, method, TransactionId(transaction));
        fill(&mut writer);
        let len = writer
            .attribute(A::USERNAME, self.username.as_bytes())
            .attribute(A::REALM, REALM.as_bytes())
            .attribute(A::NONCE, &self.nonce)
            .integrity(&self.key)
            .finish()
            .unwrap();
        buffer.truncate(len);
        buffer
    }
}

pub(super) fn error_of(message: &Message<'_>) -> Option<u16> {
    message.attribute(A::ERROR_CODE).and_then(|error| error.as_error()).map(|(code, _)| code)
}

pub(super) fn plain(answer: &[u8]) -> Result<(), u16> {
    error_of(&Message::parse(answer).unwrap()).map_or(Ok(()), Err)
}

pub(super) fn granted(message: &Message<'_>, path: ClientPath) -> Granted {
    let address = |value: turnkey::stun::Attribute<'_>| value.as_xor_address(message.transaction()).unwrap();
    assert_eq!(message.attribute(A::XOR_MAPPED_ADDRESS).map(address), Some(path.five_tuple.client));
    let relayed = message.attributes().filter(|attribute| attribute.kind == A::XOR_RELAYED_ADDRESS);
    let refused = message.attribute(A::ADDRESS_ERROR_CODE).map(|attribute| attribute.value);
    Granted {
        relayed: relayed.map(address).collect(),
        refused: refused.map(|value| (value[0], u16::from(value[2]) * 100 + u16::from(value[3]))),
        token: message.attribute(A::RESERVATION_TOKEN).map(|token| token.value.try_into().unwrap()),
        lifetime: message.attribute(A::LIFETIME).unwrap().as_u32().unwrap(),
    }
}
