//! The long-term credential mechanism in the order of RFC 8489 §9.2.4, and what is said to those who
//! fail it.

use super::Server;
use super::request::Request;
use super::table::AllocationId;
use crate::credential::{AuthFailure, NonceCheck};
use crate::stun::{AttributeType, ErrorCode, IntegrityKey};

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
        let client = request.path.five_tuple.client;
        match self.settings.nonces.check(nonce.value, client, request.now.unix) {
            NonceCheck::Valid => {}
            NonceCheck::Expired | NonceCheck::Foreign => {
                return Err(Refusal::Challenge(ErrorCode::StaleNonce));
            }
        }
        let username = username.as_str().ok_or(Refusal::Challenge(ErrorCode::Unauthenticated))?;
        self.identify(request, username)
    }

    fn identify<'a>(&self, request: &Request<'a>, username: &'a str) -> Result<Caller<'a>, Refusal> {
        let unauthenticated = Refusal::Challenge(ErrorCode::Unauthenticated);
        let id = self.table.id_of(&request.path.five_tuple);
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
