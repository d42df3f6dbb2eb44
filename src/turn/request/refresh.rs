//! Refresh (RFC 8656 §8.2): a new lifetime, or the end of the allocation; of one family or of all.

use std::time::Duration;

use super::wish::requested_family;
use super::{Outcome, Request, Success, requested_lifetime};
use crate::stun::ErrorCode;
use crate::turn::Server;
use crate::turn::auth::Caller;
use crate::turn::shared::Family;
use crate::turn::table::AllocationId;

impl Server {
    pub(super) fn refresh(
        &mut self,
        request: &Request<'_>,
        caller: &Caller,
        id: AllocationId,
    ) -> Result<Outcome, ErrorCode> {
        let allocation = self.table.get(id).ok_or(ErrorCode::AllocationMismatch)?;
        let family = requested_family(&request.message).map_err(|error| match error {
            // RFC 8656 §8.2: no allocation has a family that does not exist.
            ErrorCode::AddressFamilyNotSupported => ErrorCode::PeerAddressFamilyMismatch,
            other => other,
        })?;
        if family.is_some_and(|family| allocation.relay(family).is_none()) {
            return Err(ErrorCode::PeerAddressFamilyMismatch);
        }
        let requested = requested_lifetime(&request.message)?;
        if requested == Some(0) {
            match family {
                Some(family) => self.close_relay(id, family, request.now),
                None => drop(self.close(id, request.now)),
            }
            return Ok(Outcome::Done(Success::Refreshed { lifetime: Duration::ZERO, ticket: None }));
        }
        let lifetime = self.granted(requested, caller.expiry, request.now);
        if let Some(allocation) = self.table.get_mut(id) {
            for &family in family.map_or(&Family::BOTH[..], Family::alone) {
                if let Some(relay) = allocation.relay_mut(family) {
                    relay.expires = request.now.mono + lifetime;
                }
            }
        }
        self.reschedule(id);
        self.resume(request, id, lifetime)
    }
}
