//! The long-term credential mechanism in the order of RFC 8489 §9.2.4, access tokens of a third party
//! (RFC 7635), and what is said to those who fail.

use super::Server;
use super::allocation::Allocation;
use super::output::WorkerId;
use super::request::{Origin, Request, connection_id};
use super::table::AllocationId;
use crate::credential::{AuthFailure, Authenticated, Claim, Expiry, Name, NonceCheck, Nonces};
use crate::stun::{
    AttributeType, ErrorCode, Integrity, IntegrityKey, Message, MessageWriter, Method, PasswordAlgorithm,
    userhash,
};

/// A client that proved its credential.
pub(super) struct Caller {
    /// The user name in full.
    pub(super) username: Box<str>,
    /// The user that quotas count on.
    pub(super) user: Box<str>,
    /// Signs the reply.
    pub(super) key: IntegrityKey,
    /// End of the credential.
    pub(super) expiry: Option<Expiry>,
    /// The allocation of this 5-tuple, made by this user.
    pub(super) allocation: Option<AllocationId>,
}

/// How an answer to a known client ends, which is how its request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    integrity: Integrity,
    fingerprint: bool,
}

impl Seal {
    /// RFC 8489 §9.2.4 wants MESSAGE-INTEGRITY-SHA256 in the answer where an algorithm was chosen and
    /// MESSAGE-INTEGRITY otherwise; who signed with the other one gets that one as well.
    pub(super) fn like(message: &Message<'_>) -> Self {
        let chose = message.has(AttributeType::PASSWORD_ALGORITHM);
        let integrity = match (chose, message.has_integrity_sha256()) {
            (false, false) => Integrity::Sha1,
            (true, true) => Integrity::Sha256,
            (true, false) | (false, true) => Integrity::Both,
        };
        Self { integrity, fingerprint: message.has_fingerprint() }
    }

    /// Signs what was written.
    pub(super) fn write(self, writer: &mut MessageWriter<'_>, key: &IntegrityKey) {
        writer.sign(key, self.integrity);
        if self.fingerprint {
            writer.fingerprint();
        }
    }

    /// Whether the client knows RFC 8489: it signed with MESSAGE-INTEGRITY-SHA256.
    pub(super) fn is_modern(self) -> bool {
        self.integrity != Integrity::Sha1
    }
}

/// Why a request is not served.
pub(super) enum Refusal {
    /// 401 to who has not tried yet, with REALM and a fresh NONCE, unsigned.
    Challenge,
    /// A step failed; the answer is unsigned.
    Failed(AuthFailure),
    /// 441 to somebody who proved a credential, though not the right one.
    OtherUser(Box<IntegrityKey>),
    /// It concerns an allocation of another worker, which will answer.
    Elsewhere(WorkerId),
}

impl Refusal {
    /// The step that failed; the normal first request has not failed any.
    pub(super) fn failure(&self) -> Option<AuthFailure> {
        match self {
            Self::Challenge | Self::Elsewhere(_) => None,
            Self::Failed(failure) => Some(*failure),
            Self::OtherUser(..) => Some(AuthFailure::OtherUser),
        }
    }
}

/// What a request brings to prove who sent it, beside its integrity.
struct Proof<'a> {
    claim: Claim<'a>,
    realm: &'a [u8],
    nonce: &'a [u8],
}

impl Server {
    /// Who sent the request. Nothing is remembered of those who fail.
    pub(super) fn authenticate(&mut self, request: &Request<'_>) -> Result<Caller, Refusal> {
        let message = &request.message;
        if !message.has_integrity() && !message.has_integrity_sha256() {
            return Err(Refusal::Challenge);
        }
        let proof = proof(message).map_err(Refusal::Failed)?;
        let subject = match self.subject(request) {
            Ok(subject) => subject,
            Err(worker) => {
                // Another worker is asked for an allocation only for who can be reached at its address.
                if message.method() == Method::REFRESH {
                    self.check_nonce(request, proof.nonce, None).map_err(Refusal::Failed)?;
                }
                return Err(Refusal::Elsewhere(worker));
            }
        };
        let caller = self.identify(request, &proof, subject).map_err(Refusal::Failed)?;
        self.check_nonce(request, proof.nonce, subject).map_err(Refusal::Failed)?;
        if subject.is_some_and(|id| self.table.get(id).is_some()) && caller.allocation.is_none() {
            return Err(Refusal::OtherUser(Box::new(caller.key)));
        }
        Ok(caller)
    }

    /// Whether the nonce was given to this client. A data connection may bring the one of its control
    /// connection (RFC 6062 §4.3): there are clients that know no other.
    pub(super) fn check_nonce(
        &self,
        request: &Request<'_>,
        nonce: &[u8],
        subject: Option<AllocationId>,
    ) -> Result<(), AuthFailure> {
        let given_to = |client| self.settings.nonces.check(nonce, client, request.now.unix);
        let named = subject.filter(|_| request.message.method() == Method::CONNECTION_BIND);
        let control = named.and_then(|id| self.table.get(id));
        let control = control.map(|allocation| allocation.path.five_tuple.client);
        match given_to(request.path.five_tuple.client) {
            NonceCheck::Valid => Ok(()),
            _ if control.map(given_to) == Some(NonceCheck::Valid) => Ok(()),
            NonceCheck::Expired => Err(AuthFailure::StaleNonce),
            NonceCheck::Foreign => Err(AuthFailure::ForeignNonce),
        }
    }

    /// The allocation the request is about: the one of its 5-tuple, or the one a token names.
    fn subject(&self, request: &Request<'_>) -> Result<Option<AllocationId>, WorkerId> {
        let of_five_tuple = self.table.id_of(&request.path.five_tuple);
        if of_five_tuple.is_some() {
            return Ok(of_five_tuple);
        }
        let (worker, allocation) = match request.message.method() {
            Method::CONNECTION_BIND if request.path.five_tuple.transport.is_stream() => {
                match connection_id(&request.message) {
                    Some(id) => (id.worker(), self.allocation_of_connection(id)),
                    None => return Ok(None),
                }
            }
            Method::REFRESH => match self.ticket(&request.message) {
                Ok(Some(ticket)) => (ticket.worker, self.allocation_of_ticket(ticket)),
                Ok(None) | Err(_) => return Ok(None),
            },
            _ => return Ok(None),
        };
        match request.origin {
            _ if worker == self.worker => Ok(allocation),
            Origin::Client => Err(worker),
            Origin::Moved | Origin::Asked => Ok(None),
        }
    }

    /// Finds the user and checks the integrity: with the key of the allocation, which outlives its credential
    /// and needs no token, or else by what the request brings.
    fn identify(
        &mut self,
        request: &Request<'_>,
        proof: &Proof<'_>,
        id: Option<AllocationId>,
    ) -> Result<Caller, AuthFailure> {
        let (settings, now) = (&self.settings, request.now.unix);
        let allocation = id.and_then(|id| self.table.get(id));
        let may_go_on = |allocation: &&Allocation| {
            is_name_of(proof.claim.name, &allocation.username, &settings.realm)
                && !settings.verifier.is_revoked(&allocation.username)
        };
        if let Some(allocation) = allocation.filter(may_go_on) {
            let ends = allocation.expiry.filter(|end| end.ends_allocation || settings.strict_expiry);
            if ends.is_none_or(|end| now < end.at) && request.message.verify(&allocation.key) {
                return Ok(Caller {
                    username: allocation.username.clone(),
                    user: allocation.user.clone(),
                    key: allocation.key.clone(),
                    expiry: allocation.expiry,
                    allocation: id,
                });
            }
        }
        let who = settings.verifier.authenticate(
            &request.message,
            &proof.claim,
            &settings.realm,
            now,
            &mut self.known,
        );
        let Authenticated { key, username, user, expiry } = who.map_err(|failure| match failure {
            AuthFailure::WrongPassword if proof.realm != settings.realm.as_bytes() => AuthFailure::WrongRealm,
            other => other,
        })?;
        let allocation = id.filter(|_| allocation.is_some_and(|allocation| allocation.username == username));
        Ok(Caller { username, user, key, expiry, allocation })
    }

    /// The credential an allocation's user proved last is the one it goes on with: a new access token, or
    /// another password algorithm.
    pub(super) fn renew_credential(&mut self, caller: &Caller) {
        if let Some(allocation) = caller.allocation.and_then(|id| self.table.get_mut(id)) {
            allocation.key = caller.key.clone();
            allocation.expiry = caller.expiry;
        }
    }
}

/// Reads what has to be there beside the integrity: 400 where it is not, and where the password algorithms are
/// not the ones that were offered (RFC 8489 §9.2.4).
fn proof<'a>(message: &Message<'a>) -> Result<Proof<'a>, AuthFailure> {
    let value = |kind| message.attribute(kind).map(|attribute| attribute.value);
    let (Some(realm), Some(nonce)) = (value(AttributeType::REALM), value(AttributeType::NONCE)) else {
        return Err(AuthFailure::Incomplete);
    };
    let name = match (value(AttributeType::USERNAME), value(AttributeType::USERHASH)) {
        (Some(name), _) => std::str::from_utf8(name).map(Name::Plain).map_err(|_| AuthFailure::UnknownUser),
        (None, Some(hash)) => hash.try_into().map(Name::Hash).map_err(|_| AuthFailure::Incomplete),
        (None, None) => return Err(AuthFailure::Incomplete),
    };
    let algorithm = match Nonces::offers_algorithms(nonce) {
        true => chosen_algorithm(
            value(AttributeType::PASSWORD_ALGORITHM),
            value(AttributeType::PASSWORD_ALGORITHMS),
        )?,
        false => PasswordAlgorithm::Md5,
    };
    let claim = Claim { name: name?, algorithm, token: value(AttributeType::ACCESS_TOKEN) };
    Ok(Proof { claim, realm, nonce })
}

/// Bid-down protection (RFC 8489 §9.2.1): without both attributes it is MD5, with both the list must be the one
/// that was sent.
fn chosen_algorithm(
    algorithm: Option<&[u8]>,
    algorithms: Option<&[u8]>,
) -> Result<PasswordAlgorithm, AuthFailure> {
    match (algorithm, algorithms) {
        (None, None) => Ok(PasswordAlgorithm::Md5),
        (Some(algorithm), Some(algorithms)) if *algorithms == PasswordAlgorithm::OFFER => {
            PasswordAlgorithm::from_value(algorithm).ok_or(AuthFailure::BadAlgorithms)
        }
        _ => Err(AuthFailure::BadAlgorithms),
    }
}

fn is_name_of(name: Name<'_>, username: &str, realm: &str) -> bool {
    match name {
        Name::Plain(name) => name == username,
        Name::Hash(hash) => *hash == userhash(username, realm),
    }
}

/// What the client is told about a step that failed.
pub(super) fn error_of(failure: AuthFailure) -> ErrorCode {
    match failure {
        AuthFailure::Incomplete | AuthFailure::BadAlgorithms => ErrorCode::BadRequest,
        AuthFailure::UnknownUser
        | AuthFailure::UnknownHash
        | AuthFailure::Expired { .. }
        | AuthFailure::TooFarAhead
        | AuthFailure::WrongPassword
        | AuthFailure::WrongRealm
        | AuthFailure::BadToken
        | AuthFailure::TokenExpired { .. }
        | AuthFailure::Revoked => ErrorCode::Unauthenticated,
        AuthFailure::StaleNonce | AuthFailure::ForeignNonce => ErrorCode::StaleNonce,
        AuthFailure::OtherUser => ErrorCode::WrongCredentials,
    }
}
