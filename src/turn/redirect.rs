//! Where clients are sent that this server cannot take (RFC 8489 §10).

use std::net::SocketAddr;

use super::Server;
use super::auth::Seal;
use super::output::{FiveTuple, Transport};
use super::request::Request;
use crate::stun::{AttributeType, ErrorCode, MessageWriter};

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Its addresses, at most one a family.
    pub to: Vec<SocketAddr>,
    /// The name in its certificate where it is another than this server's; may be empty.
    pub domain: Box<str>,
}

impl Redirect {
    /// ALTERNATE-SERVER, the client's own family first, and ALTERNATE-DOMAIN under the conditions of
    /// RFC 8489 §10: over TLS or DTLS, to a client that signs with SHA-256.
    pub(super) fn write(&self, writer: &mut MessageWriter<'_>, five_tuple: &FiveTuple, seal: Seal) {
        let is_own = |to: &SocketAddr| to.is_ipv4() == five_tuple.client.is_ipv4();
        let (own, others) = (self.to.iter().filter(|to| is_own(to)), self.to.iter().filter(|to| !is_own(to)));
        for to in own.chain(others) {
            writer.address(AttributeType::ALTERNATE_SERVER, *to);
        }
        let is_secure = matches!(five_tuple.transport, Transport::Tls | Transport::Dtls);
        if is_secure && seal.is_modern() && !self.domain.is_empty() {
            writer.attribute(AttributeType::ALTERNATE_DOMAIN, self.domain.as_bytes());
        }
    }
}

impl Server {
    /// The answer to a client there is no room for: 300 where another server is known that it can reach, else
    /// `otherwise`.
    pub(super) fn no_room(&self, request: &Request<'_>, otherwise: ErrorCode) -> ErrorCode {
        let client = request.path.five_tuple.client;
        let is_of_family = |to: &SocketAddr| to.is_ipv4() == client.is_ipv4();
        match &self.settings.redirect {
            Some(redirect) if redirect.to.iter().any(is_of_family) => ErrorCode::TryAlternate,
            _ => otherwise,
        }
    }

    /// Whether there are as many allocations as there may be in all.
    pub(super) fn is_full(&self) -> bool {
        let limit = self.settings.total_quota;
        limit != 0 && self.shared.allocations() >= limit
    }
}
