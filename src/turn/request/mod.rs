//! Requests and their answers. One file a method; adding a method is one file and one line in
//! [`Server::serve`].

mod allocate;
mod channel_bind;
mod connect;
mod connection_bind;
mod create_permission;
mod opened;
mod refresh;
mod requested_transport;
mod wish;

pub(super) use connection_bind::connection_id;

use std::net::SocketAddr;
use std::time::Duration;

use super::allocation::{Allocation, Granted};
use super::auth::{Caller, Refusal};
use super::ip_header::IpFields;
use super::output::{ClientPath, DropReason, Now, PeerLink, Verdict};
use super::peer_connections::ConnectionId;
use super::reservation::Token;
use super::{ReplyBuffer, Server};
use crate::stun::{
    AttributeType, Class, ErrorCode, IntegrityKey, Message, MessageWriter, Method, TransactionId,
};

/// UNKNOWN-ATTRIBUTES lists at most this many: the answer must not outgrow the question.
const MAX_UNKNOWN: usize = 8;

/// A request as it came in.
pub(super) struct Request<'a> {
    pub(super) now: Now,
    pub(super) path: ClientPath,
    /// What the IP header said.
    pub(super) ip: IpFields,
    pub(super) message: Message<'a>,
    /// Another worker may be asked to handle it.
    pub(super) may_move: bool,
}

/// What a successful answer carries.
#[derive(Clone, Copy)]
enum Success {
    /// The client's address.
    Mapped,
    /// The addresses and the lifetime of an allocation.
    Allocated(Granted),
    /// The identifier of a peer data connection.
    Connected { id: ConnectionId },
    /// A lifetime.
    Refreshed { lifetime: Duration },
    /// Nothing.
    Plain,
}

/// What became of a request.
#[derive(Clone, Copy)]
enum Outcome {
    /// Answer with success now.
    Done(Success),
    /// The answer comes when the relay socket is open, or the peer reached.
    Deferred,
    /// Answer with success, then join the connection to the peer's.
    Bound(PeerLink),
}

/// How an answer is made unforgeable.
#[derive(Clone, Copy)]
enum Signature<'a> {
    /// To somebody who proved a credential.
    Key(&'a IntegrityKey),
    /// Not at all.
    None,
    /// With REALM and a fresh NONCE to try again with.
    Challenge,
}

impl Server {
    /// Answers a request, or drops what nobody should get an answer to.
    pub(super) fn handle_request(&mut self, request: &Request<'_>, reply: &mut ReplyBuffer) -> Verdict {
        match request.message.method() {
            // RFC 8489 §12: tells anybody their address.
            Method::BINDING => {
                let result = refuse_unknown(&request.message, self.settings.dont_fragment)
                    .map(|()| Outcome::Done(Success::Mapped));
                self.answer(request, result, Signature::None, reply)
            }
            Method::ALLOCATE | Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND => {
                self.handle_authenticated(request, reply)
            }
            Method::CONNECT | Method::CONNECTION_BIND if self.settings.tcp => {
                self.handle_authenticated(request, reply)
            }
            // RFC 8489 §6.3: a method that is not served gets no answer.
            _ => self.drop(DropReason::UnexpectedClass),
        }
    }

    fn handle_authenticated(&mut self, request: &Request<'_>, reply: &mut ReplyBuffer) -> Verdict {
        self.forget_replaced_connection(request);
        match self.authenticate(request) {
            Ok(caller) => {
                let result = self.serve(request, &caller);
                self.answer(request, result, Signature::Key(&caller.key), reply)
            }
            Err(Refusal::Signed(error, key)) => self.answer(request, Err(error), Signature::Key(&key), reply),
            Err(Refusal::Elsewhere(worker)) => Verdict::Elsewhere(worker),
            Err(Refusal::Unsigned(error)) => self.answer(request, Err(error), Signature::None, reply),
            Err(Refusal::Challenge(error)) => self.answer(request, Err(error), Signature::Challenge, reply),
        }
    }

    /// The methods that need a credential; all but Allocate need an allocation as well.
    fn serve(&mut self, request: &Request<'_>, caller: &Caller<'_>) -> Result<Outcome, ErrorCode> {
        if request.message.method() == Method::ALLOCATE {
            return self.allocate(request, caller);
        }
        refuse_unknown(&request.message, self.settings.dont_fragment)?;
        if request.message.method() == Method::CONNECTION_BIND {
            return self.connection_bind(request, caller);
        }
        let id = caller.allocation.ok_or(ErrorCode::AllocationMismatch)?;
        let success = match request.message.method() {
            Method::REFRESH => self.refresh(request, caller, id),
            Method::CREATE_PERMISSION => self.create_permission(request, id),
            Method::CONNECT => return self.connect(request, id),
            _ => self.channel_bind(request, id),
        };
        success.map(Outcome::Done)
    }

    fn answer(
        &mut self,
        request: &Request<'_>,
        result: Result<Outcome, ErrorCode>,
        signature: Signature<'_>,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        let mut joined = None;
        let result = match result {
            Ok(Outcome::Deferred) => return Verdict::Consumed,
            Ok(Outcome::Done(success)) => Ok(success),
            Ok(Outcome::Bound(link)) => {
                joined = Some(link);
                Ok(Success::Plain)
            }
            Err(error) => Err(error),
        };
        self.stats.count_request(request.message.method(), result.map(|_| ()));
        let path = request.path;
        let len = self.write_reply(request, result, signature, reply);
        let is_stranger = !matches!(signature, Signature::Key(_));
        if is_stranger && !self.limiter.may_send(path.five_tuple.client, len, request.now.mono) {
            return self.drop(DropReason::RateLimited);
        }
        match joined {
            Some(link) => Verdict::Join { path, len, link },
            None => Verdict::Reply { path, len },
        }
    }

    fn write_reply(
        &self,
        request: &Request<'_>,
        result: Result<Success, ErrorCode>,
        signature: Signature<'_>,
        reply: &mut ReplyBuffer,
    ) -> usize {
        let message = &request.message;
        let client = request.path.five_tuple.client;
        let class = if result.is_ok() { Class::Success } else { Class::Error };
        let mut writer = MessageWriter::new(reply, class, message.method(), message.transaction());
        write_result(&mut writer, result, client);
        if result.err() == Some(ErrorCode::UnknownAttribute) {
            write_unknown(&mut writer, message, self.settings.dont_fragment);
        }
        match signature {
            Signature::Key(key) => {
                writer.integrity(key);
            }
            Signature::None => {}
            Signature::Challenge => {
                let nonce = self.settings.nonces.issue(client, request.now.unix);
                writer.attribute(AttributeType::REALM, self.settings.realm.as_bytes());
                writer.attribute(AttributeType::NONCE, &nonce);
            }
        }
        if message.has_fingerprint() {
            writer.fingerprint();
        }
        writer.finish().expect("every reply fits: the realm is bounded by the configuration")
    }

    /// A connection that reuses a 5-tuple proves that the one before is gone, whether or not its end
    /// has been reported yet.
    fn forget_replaced_connection(&mut self, request: &Request<'_>) {
        let path = request.path;
        let Some(id) = self.table.id_of(&path.five_tuple) else { return };
        if self.table.get(id).is_some_and(|allocation| allocation.path.link != path.link) {
            self.close(id, request.now);
        }
    }
}

/// The answer to a request that is gone by now, from what the allocation remembers.
fn answer_later(
    allocation: &Allocation,
    (method, transaction): (Method, TransactionId),
    result: Result<Success, ErrorCode>,
    fingerprint: bool,
    reply: &mut ReplyBuffer,
) -> Verdict {
    let path = allocation.path;
    let class = if result.is_ok() { Class::Success } else { Class::Error };
    let mut writer = MessageWriter::new(reply, class, method, transaction);
    write_result(&mut writer, result, path.five_tuple.client);
    writer.integrity(&allocation.key);
    if fingerprint {
        writer.fingerprint();
    }
    let len = writer.finish().expect("such a response is far smaller than the buffer");
    Verdict::Reply { path, len }
}

/// ERROR-CODE, or the attributes of a success response.
fn write_result(writer: &mut MessageWriter<'_>, result: Result<Success, ErrorCode>, client: SocketAddr) {
    match result {
        Ok(Success::Mapped) => {
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, client);
        }
        Ok(Success::Allocated(granted)) => write_granted(writer, granted, client),
        Ok(Success::Connected { id }) => {
            writer.u32(AttributeType::CONNECTION_ID, id.0);
        }
        Ok(Success::Refreshed { lifetime }) => {
            writer.u32(AttributeType::LIFETIME, seconds(lifetime));
        }
        Ok(Success::Plain) => {}
        Err(error) => {
            writer.error(error);
        }
    }
}

/// RFC 8656 §7.2.
fn write_granted(writer: &mut MessageWriter<'_>, granted: Granted, client: SocketAddr) {
    for relayed in granted.relayed.into_iter().flatten() {
        writer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, relayed);
    }
    if let Some((family, error)) = granted.refused {
        writer.address_error(family.number(), error);
    }
    if let Some(Token(token)) = granted.token {
        writer.attribute(AttributeType::RESERVATION_TOKEN, &token);
    }
    writer.u32(AttributeType::LIFETIME, seconds(granted.lifetime));
    writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, client);
}

fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}

fn write_unknown(writer: &mut MessageWriter<'_>, message: &Message<'_>, dont_fragment: bool) {
    let mut list = [0; MAX_UNKNOWN * 2];
    let mut len = 0;
    for (room, kind) in list.chunks_exact_mut(2).zip(unknown_attributes(message, dont_fragment)) {
        room.copy_from_slice(&kind.0.to_be_bytes());
        len += 2;
    }
    writer.attribute(AttributeType::UNKNOWN_ATTRIBUTES, &list[..len]);
}

/// Comprehension-required attributes this server does not know (RFC 8489 §6.3.1). DONT-FRAGMENT is
/// among them where the bit cannot be set, as RFC 8656 §7.2 wants.
fn unknown_attributes<'a>(
    message: &Message<'a>,
    dont_fragment: bool,
) -> impl Iterator<Item = AttributeType> + use<'a> {
    const KNOWN: [AttributeType; 17] = [
        AttributeType::MAPPED_ADDRESS,
        AttributeType::USERNAME,
        AttributeType::ERROR_CODE,
        AttributeType::UNKNOWN_ATTRIBUTES,
        AttributeType::CHANNEL_NUMBER,
        AttributeType::LIFETIME,
        AttributeType::XOR_PEER_ADDRESS,
        AttributeType::DATA,
        AttributeType::REALM,
        AttributeType::NONCE,
        AttributeType::XOR_RELAYED_ADDRESS,
        AttributeType::REQUESTED_ADDRESS_FAMILY,
        AttributeType::EVEN_PORT,
        AttributeType::REQUESTED_TRANSPORT,
        AttributeType::XOR_MAPPED_ADDRESS,
        AttributeType::RESERVATION_TOKEN,
        AttributeType::CONNECTION_ID,
    ];
    let kinds = message.attributes().map(|attribute| attribute.kind);
    let is_known = move |kind: &AttributeType| {
        KNOWN.contains(kind) || dont_fragment && *kind == AttributeType::DONT_FRAGMENT
    };
    kinds.filter(move |kind| kind.is_comprehension_required() && !is_known(kind))
}

/// RFC 8489 §6.3.1: 420 when an attribute that must be understood is not.
pub(super) fn refuse_unknown(message: &Message<'_>, dont_fragment: bool) -> Result<(), ErrorCode> {
    match unknown_attributes(message, dont_fragment).next() {
        Some(_) => Err(ErrorCode::UnknownAttribute),
        None => Ok(()),
    }
}

/// LIFETIME in seconds, if there is one (RFC 8656 §18.2).
fn requested_lifetime(message: &Message<'_>) -> Result<Option<u32>, ErrorCode> {
    let attribute = message.attribute(AttributeType::LIFETIME);
    attribute.map(|attribute| attribute.as_u32().ok_or(ErrorCode::BadRequest)).transpose()
}
