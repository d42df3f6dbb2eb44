//! The long-term credential mechanism in the order of RFC 8489 §9.2.4, and what is said to those who
//! fail it.

use super::Server;
use super::output::WorkerId;
use super::request::{Request, connection_id};
use super::table::AllocationId;
use crate::credential::{AuthFailure, NonceCheck};
use crate::stun::{AttributeType, ErrorCode, IntegrityKey, Method};

/// A client that proved its credential.
pub(super) struct Caller<'a> {
    /// USERNAME as it was sent.
    pub(super) username: &'a str,
    /// The user that quotas count on.
    pub(super) user: Box<str>,
    /// Signs the reply.
    pub(super) key: IntegrityKey,
    /// End of the credential in Unix seconds.
    pub(super) credential_expires: Option<u64>,
    /// The allocation of this 5-tuple, made with this credential.
    pub(super) allocation: Option<AllocationId>,
}

/// Why a request is not served.
pub(super) enum Refusal {
    /// 401 or 438 with REALM and a fresh NONCE, unsigned.
    Challenge(ErrorCode),
    /// It concerns an allocation of another worker, which will answer.
    Elsewhere(WorkerId),
    /// An unsigned error without a challenge.
    Unsigned(ErrorCode),
    /// An error to somebody who proved a credential, though not the right one.
    Signed(ErrorCode, Box<IntegrityKey>),
}

impl Server {
    /// Who sent the request. Nothing is remembered of those who fail.
    pub(super) fn authenticate<'a>(&self, request: &Request<'a>) -> Result<Caller<'a>, Refusal> {
        let message = &request.message;
        if !message.has_integrity() {
            return Err(Refusal::Challenge(ErrorCode::Unauthenticated));
        }
        let (Some(username), Some(_), Some(nonce)) = (
            message.attribute(AttributeType::USERNAME),
            message.attribute(AttributeType::REALM),
            message.attribute(AttributeType::NONCE),
        ) else {
            return Err(Refusal::Unsigned(ErrorCode::BadRequest));
        };
        let subject = self.subject(request).map_err(Refusal::Elsewhere)?;
        if !self.is_fresh(nonce.value, request, subject) {
            return Err(Refusal::Challenge(ErrorCode::StaleNonce));
        }
        let username = username.as_str().ok_or(Refusal::Challenge(ErrorCode::Unauthenticated))?;
        self.identify(request, username, subject)
    }

    /// Whether the nonce was given to this client. A data connection may bring the one of its control
    /// connection (RFC 6062 §4.3): there are clients that know no other.
    fn is_fresh(&self, nonce: &[u8], request: &Request<'_>, subject: Option<AllocationId>) -> bool {
        let given_to =
            |client| self.settings.nonces.check(nonce, client, request.now.unix) == NonceCheck::Valid;
        let control =
            subject.and_then(|id| self.table.get(id)).map(|allocation| allocation.path.five_tuple.client);
        given_to(request.path.five_tuple.client) || control.is_some_and(given_to)
    }

    /// The allocation the request is about: the one of its 5-tuple, or the one a token names.
    fn subject(&self, request: &Request<'_>) -> Result<Option<AllocationId>, WorkerId> {
        let of_five_tuple = self.table.id_of(&request.path.five_tuple);
        if request.message.method() != Method::CONNECTION_BIND || of_five_tuple.is_some() {
            return Ok(of_five_tuple);
        }
        let Some(id) = connection_id(&request.message) else { return Ok(None) };
        match id.worker() {
            worker if worker == self.worker || !request.may_move => Ok(self.allocation_of_connection(id)),
            worker => Err(worker),
        }
    }

    fn identify<'a>(
        &self,
        request: &Request<'a>,
        username: &'a str,
        id: Option<AllocationId>,
    ) -> Result<Caller<'a>, Refusal> {
        let unauthenticated = Refusal::Challenge(ErrorCode::Unauthenticated);
        let allocation = id.and_then(|id| self.table.get(id));
        if let Some(allocation) = allocation.filter(|allocation| *allocation.username == *username) {
            let is_over = self.settings.strict_expiry
                && allocation.credential_expires.is_some_and(|end| end <= request.now.unix);
            if is_over || !request.message.verify_integrity(&allocation.key) {
                return Err(unauthenticated);
            }
            return Ok(Caller {
                username,
                user: allocation.user.clone(),
                key: allocation.key.clone(),
                credential_expires: allocation.credential_expires,
                allocation: id,
            });
        }
        let verifier = &self.settings.verifier;
        let who = verifier
            .authenticate(&request.message, username, &self.settings.realm, request.now.unix)
            .map_err(|_: AuthFailure| unauthenticated)?;
        if allocation.is_some() {
            return Err(Refusal::Signed(ErrorCode::WrongCredentials, Box::new(who.key)));
        }
        Ok(Caller {
            username,
            user: who.user,
            key: who.key,
            credential_expires: who.expires_at,
            allocation: None,
        })
    }
}
