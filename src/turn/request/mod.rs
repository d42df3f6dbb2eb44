//! Requests and their answers. One file a method; adding a method is one file and one line in
//! [`Server::serve`].

mod allocate;
mod binding;
mod channel_bind;
mod connect;
mod connection_bind;
mod create_permission;
mod mobility;
mod opened;
mod refresh;
mod requested_transport;
mod wish;

pub use binding::{Vantage, Vantages};
pub(super) use connection_bind::connection_id;

use std::net::SocketAddr;
use std::time::Duration;

use super::allocation::{Allocation, Granted};
use super::auth::{Caller, Refusal, Seal, error_of};
use super::ip_header::IpFields;
use super::mobility::TICKET_LEN;
use super::output::{ClientPath, DropReason, Now, PeerLink, Verdict};
use super::peer_connections::ConnectionId;
use super::reservation::Token;
use super::table::AllocationId;
use super::{ReplyBuffer, Server};
use crate::credential::AuthFailure;
use crate::stun::{
    AttributeType, Class, ErrorCode, IntegrityKey, Message, MessageWriter, Method, PasswordAlgorithm,
    TransactionId,
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
    pub(super) origin: Origin,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From its client; another worker may be asked to handle it.
    Client,
    /// From another worker together with its connection, or from a client where nobody can be asked.
    Moved,
    /// From another worker, which has the client and wants the allocation.
    Asked,
}

/// What the answer to a request is made of that another worker gives.
#[derive(Clone, Copy)]
pub(super) struct Answered {
    pub(super) transaction: TransactionId,
    pub(super) seal: Seal,
    pub(super) lifetime: Duration,
}

/// What a successful answer carries.
#[derive(Clone, Copy)]
enum Success {
    /// The client's address.
    Mapped,
    /// The addresses and the lifetime of an allocation.
    Allocated(Granted, Option<[u8; TICKET_LEN]>),
    /// The identifier of a peer data connection.
    Connected { id: ConnectionId },
    /// A lifetime, and the next ticket of an allocation that moves.
    Refreshed { lifetime: Duration, ticket: Option<[u8; TICKET_LEN]> },
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
    Key(&'a IntegrityKey, Seal),
    /// Not at all.
    None,
    /// With REALM and a fresh NONCE to try again with.
    Challenge,
}

impl Server {
    /// Answers a request, or drops what nobody should get an answer to.
    pub(super) fn handle_request(&mut self, request: &Request<'_>, reply: &mut ReplyBuffer) -> Verdict {
        match request.message.method() {
            Method::BINDING => self.binding(request, reply),
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
        if request.origin != Origin::Asked {
            self.forget_replaced_connection(request);
        }
        let seal = Seal::like(&request.message);
        let refusal = match self.authenticate(request) {
            Ok(caller) => {
                self.renew_credential(&caller);
                if self.moves > 0 {
                    self.confirm_path(&request.path, Some(request.message.transaction()));
                }
                let result = self.serve(request, &caller);
                if let (Method::ALLOCATE, Err(error)) = (request.message.method(), &result) {
                    self.tell_refused(request.now, &caller, *error);
                }
                return self.answer(request, result, Signature::Key(&caller.key, seal), reply);
            }
            Err(refusal) => refusal,
        };
        if let Some(failure) = refusal.failure() {
            self.note_failure(request, failure);
        }
        match &refusal {
            Refusal::Challenge => {
                self.answer(request, Err(ErrorCode::Unauthenticated), Signature::Challenge, reply)
            }
            Refusal::OtherUser(key) => {
                self.answer(request, Err(ErrorCode::WrongCredentials), Signature::Key(key, seal), reply)
            }
            Refusal::Elsewhere(worker) => Verdict::Elsewhere(*worker),
            Refusal::Failed(failure) => match error_of(*failure) {
                error @ ErrorCode::BadRequest => self.answer(request, Err(error), Signature::None, reply),
                error => self.answer(request, Err(error), Signature::Challenge, reply),
            },
        }
    }

    fn note_failure(&mut self, request: &Request<'_>, failure: AuthFailure) {
        self.stats.auth_failures[failure.index()] += 1;
        let username = request.message.attribute(AttributeType::USERNAME).map_or(&[][..], |name| name.value);
        self.failures.note(failure, request.path.five_tuple.client, username);
        self.tell_failure(request, failure);
    }

    /// The methods that need a credential; all but Allocate need an allocation as well.
    fn serve(&mut self, request: &Request<'_>, caller: &Caller) -> Result<Outcome, ErrorCode> {
        if request.message.method() == Method::ALLOCATE {
            return self.allocate(request, caller);
        }
        refuse_unknown(&request.message, self.settings.dont_fragment)?;
        if request.message.method() == Method::CONNECTION_BIND {
            return self.connection_bind(request, caller);
        }
        if request.message.method() == Method::REFRESH && caller.allocation.is_none() {
            self.ticket(&request.message)?;
        }
        let id = caller.allocation.ok_or(ErrorCode::AllocationMismatch)?;
        let success = match request.message.method() {
            Method::REFRESH => return self.refresh(request, caller, id),
            Method::CREATE_PERMISSION => self.create_permission(request, id),
            Method::CONNECT => return self.connect(request, id),
            _ => self.channel_bind(request, id),
        };
        success.map(Outcome::Done)
    }

    /// Answers the Refresh of an allocation that has arrived from another worker.
    pub(super) fn answer_moved(
        &mut self,
        id: AllocationId,
        path: ClientPath,
        answer: &Answered,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        let ticket = self.ticket_of(id);
        let Some(allocation) = self.table.get(id) else { return Verdict::Consumed };
        self.stats.count_request(Method::REFRESH, Ok(()));
        let success = Success::Refreshed { lifetime: answer.lifetime, ticket };
        let request = (Method::REFRESH, answer.transaction);
        answer_on(path, allocation, request, Ok(success), answer.seal, reply)
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
        let is_stranger = !matches!(signature, Signature::Key(..));
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
        if let (Some(ErrorCode::TryAlternate), Some(redirect), Signature::Key(_, seal)) =
            (result.err(), &self.settings.redirect, signature)
        {
            redirect.write(&mut writer, &request.path.five_tuple, seal);
        }
        match signature {
            Signature::Key(key, seal) => seal.write(&mut writer, key),
            Signature::Challenge => self.write_challenge(&mut writer, request, result.err()),
            Signature::None => {}
        }
        if message.has_fingerprint() && !matches!(signature, Signature::Key(..)) {
            writer.fingerprint();
        }
        writer.finish().expect("every reply fits: the realm is bounded by the configuration")
    }

    /// What is needed to try again (RFC 8489 §9.2.4, RFC 7635 §6.1).
    fn write_challenge(
        &self,
        writer: &mut MessageWriter<'_>,
        request: &Request<'_>,
        error: Option<ErrorCode>,
    ) {
        let settings = &self.settings;
        let nonce = settings.nonces.issue(request.path.five_tuple.client, request.now.unix);
        writer.attribute(AttributeType::REALM, settings.realm.as_bytes());
        writer.attribute(AttributeType::NONCE, &nonce);
        writer.attribute(AttributeType::PASSWORD_ALGORITHMS, &PasswordAlgorithm::OFFER);
        if let (Some(third_party), Some(ErrorCode::Unauthenticated)) = (&settings.verifier.third_party, error)
        {
            writer.attribute(AttributeType::THIRD_PARTY_AUTHORIZATION, third_party.server.as_bytes());
        }
    }

    /// A connection that reuses a 5-tuple proves that the one before is gone, whether or not its end
    /// has been reported yet.
    fn forget_replaced_connection(&mut self, request: &Request<'_>) {
        let path = request.path;
        let Some(id) = self.table.id_of(&path.five_tuple) else { return };
        let Some(allocation) = self.table.get(id) else { return };
        let next = allocation.mobile.and_then(|mobile| mobile.next);
        let mut paths = [Some(allocation.path), next].into_iter().flatten();
        let replaced = paths.find(|other| other.five_tuple == path.five_tuple && other.link != path.link);
        if let Some(replaced) = replaced {
            self.lose_path(id, &replaced, request.now);
        }
    }
}

/// The answer to a request that is gone by now, from what the allocation remembers.
fn answer_later(
    allocation: &Allocation,
    (method, transaction): (Method, TransactionId),
    result: Result<Success, ErrorCode>,
    seal: Seal,
    reply: &mut ReplyBuffer,
) -> Verdict {
    answer_on(allocation.path, allocation, (method, transaction), result, seal, reply)
}

/// The same on a path of its own.
fn answer_on(
    path: ClientPath,
    allocation: &Allocation,
    (method, transaction): (Method, TransactionId),
    result: Result<Success, ErrorCode>,
    seal: Seal,
    reply: &mut ReplyBuffer,
) -> Verdict {
    let class = if result.is_ok() { Class::Success } else { Class::Error };
    let mut writer = MessageWriter::new(reply, class, method, transaction);
    write_result(&mut writer, result, path.five_tuple.client);
    seal.write(&mut writer, &allocation.key);
    let len = writer.finish().expect("such a response is far smaller than the buffer");
    Verdict::Reply { path, len }
}

/// ERROR-CODE, or the attributes of a success response.
fn write_result(writer: &mut MessageWriter<'_>, result: Result<Success, ErrorCode>, client: SocketAddr) {
    match result {
        Ok(Success::Mapped) => {
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, client);
        }
        Ok(Success::Allocated(granted, ticket)) => {
            write_granted(writer, granted, client);
            write_ticket(writer, ticket);
        }
        Ok(Success::Connected { id }) => {
            writer.u32(AttributeType::CONNECTION_ID, id.0);
        }
        Ok(Success::Refreshed { lifetime, ticket }) => {
            writer.u32(AttributeType::LIFETIME, seconds(lifetime));
            write_ticket(writer, ticket);
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

fn write_ticket(writer: &mut MessageWriter<'_>, ticket: Option<[u8; TICKET_LEN]>) {
    if let Some(ticket) = ticket {
        writer.attribute(AttributeType::MOBILITY_TICKET, &ticket);
    }
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
    const KNOWN: [AttributeType; 20] = [
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
        AttributeType::ACCESS_TOKEN,
        AttributeType::PASSWORD_ALGORITHM,
        AttributeType::USERHASH,
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
