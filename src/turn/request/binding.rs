//! Binding (RFC 8489 §12): tells anybody their address. On the listeners of NAT behaviour discovery
//! (RFC 5780 §6.1) also who else this server is, from another of its addresses if asked to.

use std::net::SocketAddr;

use super::{MAX_UNKNOWN, Outcome, Request, Signature, Success, refuse_unknown, unknown_attributes};
use crate::stun::{Attribute, AttributeType, Class, ErrorCode, Message, MessageWriter};
use crate::turn::output::{ClientPath, DropReason, FiveTuple, LinkId, Transport, Verdict};
use crate::turn::{MAX_REPLY, ReplyBuffer, Server, is_suspicious};

/// One of the four UDP listeners of NAT behaviour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vantage {
    /// The listener.
    pub link: LinkId,
    /// Its local address.
    pub local: SocketAddr,
    /// The same as the world sees it.
    pub public: SocketAddr,
}

/// The listeners of NAT behaviour discovery: an address with a port and another port, then the other
/// address with the same two ports.
pub type Vantages = [Vantage; 4];

/// What leads from one [`Vantage`] to the one that differs in address, in port, or in both.
const OTHER_ADDRESS: usize = 2;
const OTHER_PORT: usize = 1;
const OTHER: usize = OTHER_ADDRESS | OTHER_PORT;

/// The flags of CHANGE-REQUEST (RFC 5780 §7.2).
const CHANGE_IP: u32 = 4;
const CHANGE_PORT: u32 = 2;

/// Attributes that only these listeners take.
const OWN: [AttributeType; 3] =
    [AttributeType::CHANGE_REQUEST, AttributeType::RESPONSE_PORT, AttributeType::PADDING];

/// What a request asks for.
struct Wish {
    change: usize,
    response_port: Option<u16>,
    padding: bool,
}

impl Server {
    pub(super) fn binding(&mut self, request: &Request<'_>, reply: &mut ReplyBuffer) -> Verdict {
        if let Some((vantages, here)) = self.vantage(&request.path) {
            return self.discover(request, &vantages, here, reply);
        }
        let result = refuse_unknown(&request.message, self.settings.dont_fragment)
            .map(|()| Outcome::Done(Success::Mapped));
        self.answer(request, result, Signature::None, reply)
    }

    /// Which listener of NAT behaviour discovery the client came to, if it is one.
    fn vantage(&self, path: &ClientPath) -> Option<(Vantages, usize)> {
        let vantages = self.settings.vantages.as_deref()?;
        let is_it = |vantage: &Vantage| vantage.link == path.link;
        let here = vantages.iter().position(is_it)?;
        (path.five_tuple.transport == Transport::Udp).then_some((*vantages, here))
    }

    fn discover(
        &mut self,
        request: &Request<'_>,
        vantages: &Vantages,
        here: usize,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        let message = &request.message;
        let dont_fragment = self.settings.dont_fragment;
        let wish = Wish::parse(message, dont_fragment);
        let change = wish.as_ref().map_or(0, |wish| wish.change);
        let (from, other) = (&vantages[here ^ change], &vantages[here ^ OTHER]);
        let mut five_tuple = FiveTuple { server: from.local, ..request.path.five_tuple };
        if let Ok(Wish { response_port: Some(port), .. }) = wish {
            five_tuple.client.set_port(port);
            if is_suspicious(&five_tuple) {
                return self.drop(DropReason::SuspiciousSource);
            }
        }
        self.stats.count_request(message.method(), wish.as_ref().map(|_| ()).map_err(|error| *error));
        let client = request.path.five_tuple.client;
        let len = match &wish {
            Ok(wish) => write_success(message, client, wish, from, other, reply),
            Err(error) => write_error(message, *error, dont_fragment, reply),
        };
        // Whoever asks may spoof its address, but not choose another network's.
        if !self.limiter.may_send(client, len, request.now.mono) {
            return self.drop(DropReason::RateLimited);
        }
        Verdict::Reply { path: ClientPath { five_tuple, link: from.link }, len }
    }
}

impl Wish {
    /// The checks of RFC 5780 §6.1.
    fn parse(message: &Message<'_>, dont_fragment: bool) -> Result<Self, ErrorCode> {
        if unknown(message, dont_fragment).next().is_some() {
            return Err(ErrorCode::UnknownAttribute);
        }
        let change = message.attribute(AttributeType::CHANGE_REQUEST);
        let change = change.map(|attribute| attribute.as_u32().ok_or(ErrorCode::BadRequest)).transpose()?;
        let flag = |bit: u32, step: usize| change.map_or(0, |flags| if flags & bit != 0 { step } else { 0 });
        let response_port = message.attribute(AttributeType::RESPONSE_PORT).map(|attribute| port(&attribute));
        let response_port = response_port.transpose()?;
        let padding = message.has(AttributeType::PADDING);
        if padding && response_port.is_some() {
            return Err(ErrorCode::BadRequest);
        }
        let change = flag(CHANGE_IP, OTHER_ADDRESS) | flag(CHANGE_PORT, OTHER_PORT);
        Ok(Self { change, response_port, padding })
    }
}

/// RESPONSE-PORT (RFC 5780 §7.5): a port, with or without the two bytes of padding in its length.
fn port(attribute: &Attribute<'_>) -> Result<u16, ErrorCode> {
    match attribute.value {
        [high, low] | [high, low, _, _] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(ErrorCode::BadRequest),
    }
}

fn unknown<'a>(message: &Message<'a>, dont_fragment: bool) -> impl Iterator<Item = AttributeType> + use<'a> {
    unknown_attributes(message, dont_fragment).filter(|kind| !OWN.contains(kind))
}

fn write_success(
    message: &Message<'_>,
    client: SocketAddr,
    wish: &Wish,
    from: &Vantage,
    other: &Vantage,
    reply: &mut ReplyBuffer,
) -> usize {
    let mut writer = MessageWriter::new(reply, Class::Success, message.method(), message.transaction());
    writer
        .xor_address(AttributeType::XOR_MAPPED_ADDRESS, client)
        .address(AttributeType::MAPPED_ADDRESS, client)
        .address(AttributeType::RESPONSE_ORIGIN, from.public)
        .address(AttributeType::OTHER_ADDRESS, other.public);
    if wish.padding {
        let len = writer.finish().expect("four addresses are far smaller than the buffer");
        let fingerprint = if message.has_fingerprint() { 8 } else { 0 };
        // The answer is as long as the question, never longer: a spoofed one is worth nothing.
        let room = message.size().min(MAX_REPLY).saturating_sub(len + fingerprint + 4);
        writer.attribute(AttributeType::PADDING, &[0; MAX_REPLY][..room & !3]);
    }
    if message.has_fingerprint() {
        writer.fingerprint();
    }
    writer.finish().expect("it was fitted")
}

fn write_error(
    message: &Message<'_>,
    error: ErrorCode,
    dont_fragment: bool,
    reply: &mut ReplyBuffer,
) -> usize {
    let mut writer = MessageWriter::new(reply, Class::Error, message.method(), message.transaction());
    writer.error(error);
    if error == ErrorCode::UnknownAttribute {
        let kinds = unknown(message, dont_fragment).take(MAX_UNKNOWN);
        let list: Vec<u8> = kinds.flat_map(|kind| kind.0.to_be_bytes()).collect();
        writer.attribute(AttributeType::UNKNOWN_ATTRIBUTES, &list);
    }
    if message.has_fingerprint() {
        writer.fingerprint();
    }
    writer.finish().expect("an error is far smaller than the buffer")
}
