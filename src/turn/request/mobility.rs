//! MOBILITY-TICKET in requests (RFC 8016 §3): asked for in Allocate, brought back in Refresh.

use std::time::Duration;

use super::{Answered, Origin, Outcome, Request, Success};
use crate::stun::{AttributeType, ErrorCode, Message};
use crate::turn::Server;
use crate::turn::allocation::Relayed;
use crate::turn::auth::Seal;
use crate::turn::mobility::Ticket;
use crate::turn::table::AllocationId;

/// Whether an Allocate asks for a ticket (RFC 8016 §3.1). Connections of peers do not move.
pub(super) fn wants_ticket(message: &Message<'_>, is_on: bool, carries: Relayed) -> Result<bool, ErrorCode> {
    match message.attribute(AttributeType::MOBILITY_TICKET).map(|attribute| attribute.value) {
        None => Ok(false),
        Some([]) if is_on && carries == Relayed::Udp => Ok(true),
        Some([]) => Err(ErrorCode::MobilityForbidden),
        Some(_) => Err(ErrorCode::BadRequest),
    }
}

impl Server {
    /// The ticket a Refresh brings; 400 for what is none of ours (RFC 8016 §3.2.2).
    pub(in crate::turn) fn ticket(&self, message: &Message<'_>) -> Result<Option<Ticket>, ErrorCode> {
        let Some(attribute) = message.attribute(AttributeType::MOBILITY_TICKET) else { return Ok(None) };
        if !self.settings.mobility {
            return Err(ErrorCode::MobilityForbidden);
        }
        Ticket::decode(attribute.value, &self.settings.nonces).map(Some).ok_or(ErrorCode::BadRequest)
    }

    /// What a Refresh that is granted does for the mobility of its allocation.
    pub(super) fn resume(
        &mut self,
        request: &Request<'_>,
        id: AllocationId,
        lifetime: Duration,
    ) -> Result<Outcome, ErrorCode> {
        let Some(ticket) = self.ticket(&request.message)? else {
            return Ok(Outcome::Done(Success::Refreshed { lifetime, ticket: None }));
        };
        let transaction = request.message.transaction();
        let seal = Seal::like(&request.message);
        let mobile = self.table.get(id).and_then(|allocation| allocation.mobile);
        let mobile = mobile.ok_or(ErrorCode::AllocationMismatch)?;
        if self.table.id_of(&request.path.five_tuple) == Some(id) {
            // Repeated, or from a client that has not moved at all.
            if mobile.moved_by != transaction && (ticket.worker, ticket.id) != (self.worker, id) {
                return Err(ErrorCode::AllocationMismatch);
            }
        } else if request.origin == Origin::Asked {
            self.depart(id, request.path, Answered { transaction, seal, lifetime });
            return Ok(Outcome::Deferred);
        } else {
            self.move_to(id, request.path, transaction);
        }
        Ok(Outcome::Done(Success::Refreshed { lifetime, ticket: self.ticket_of(id) }))
    }
}
