//! Refresh (RFC 8656 §8.2): a new lifetime, or the end of the allocation.

use std::time::Duration;

use super::allocate::requested_family;
use super::{Request, Success, requested_lifetime};
use crate::stun::ErrorCode;
use crate::turn::Server;
use crate::turn::auth::Caller;
use crate::turn::table::AllocationId;

impl Server {
    pub(super) fn refresh(
        &mut self,
        request: &Request<'_>,
        caller: &Caller<'_>,
        id: AllocationId,
    ) -> Result<Success, ErrorCode> {
        let allocation = self.table.get(id).ok_or(ErrorCode::AllocationMismatch)?;
        if requested_family(&request.message)?.is_some_and(|family| family != allocation.family()) {
            return Err(ErrorCode::PeerAddressFamilyMismatch);
        }
        let requested = requested_lifetime(&request.message)?;
        if requested == Some(0) {
            self.close(id, request.now);
            return Ok(Success::Refreshed { lifetime: Duration::ZERO });
        }
        let lifetime = self.granted(requested, caller.credential_expires, request.now);
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.expires = request.now.mono + lifetime;
        }
        self.reschedule(id);
        Ok(Success::Refreshed { lifetime })
    }
}
