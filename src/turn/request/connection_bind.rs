//! ConnectionBind (RFC 6062 §5.4): makes the connection it comes on a client data connection.

use super::{Outcome, Request};
use crate::stun::{AttributeType, ErrorCode, Message};
use crate::turn::Server;
use crate::turn::auth::Caller;
use crate::turn::peer_connections::{ConnectionId, Stage};

impl Server {
    pub(super) fn connection_bind(
        &mut self,
        request: &Request<'_>,
        caller: &Caller,
    ) -> Result<Outcome, ErrorCode> {
        let five_tuple = &request.path.five_tuple;
        if !five_tuple.transport.is_stream() {
            return Err(ErrorCode::BadRequest);
        }
        // A control connection cannot be a data connection as well.
        if self.table.id_of(five_tuple).is_some() {
            return Err(ErrorCode::AllocationMismatch);
        }
        let id = connection_id(&request.message).ok_or(ErrorCode::BadRequest)?;
        let (link, connection) = self.peers.by_id(id).ok_or(ErrorCode::BadRequest)?;
        if connection.stage != Stage::Pending || caller.allocation.is_none() {
            return Err(ErrorCode::BadRequest);
        }
        self.peers.bound(link);
        Ok(Outcome::Bound(link))
    }
}

/// CONNECTION-ID (RFC 6062 §6.2.1).
pub(in crate::turn) fn connection_id(message: &Message<'_>) -> Option<ConnectionId> {
    message.attribute(AttributeType::CONNECTION_ID)?.as_u32().map(ConnectionId)
}
