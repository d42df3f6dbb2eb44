//! CreatePermission (RFC 8656 §10.2): all of its addresses or none.

use std::net::{IpAddr, SocketAddr};

use super::{Request, Success};
use crate::stun::{AttributeType, ErrorCode, Message};
use crate::turn::Server;
use crate::turn::allocation::MAX_PEERS;
use crate::turn::reach::{is_own_shared_relay, may_permit};
use crate::turn::table::AllocationId;

impl Server {
    pub(super) fn create_permission(
        &mut self,
        request: &Request<'_>,
        id: AllocationId,
    ) -> Result<Success, ErrorCode> {
        let (settings, shared) = (&self.settings, &self.shared);
        let ips = peer_ips(&request.message, |peer| !is_own_shared_relay(settings, shared, peer))?;
        let allocation = self.table.get_mut(id).ok_or(ErrorCode::AllocationMismatch)?;
        if ips.iter().any(|ip| allocation.relayed_for(*ip).is_none()) {
            return Err(ErrorCode::PeerAddressFamilyMismatch);
        }
        if !ips.iter().all(|ip| may_permit(settings, shared, *ip)) {
            return Err(ErrorCode::Forbidden);
        }
        if !allocation.has_room_for(&ips) {
            return Err(ErrorCode::InsufficientCapacity);
        }
        ips.iter().for_each(|ip| allocation.permit(*ip, request.now.mono));
        self.reschedule(id);
        Ok(Success::Plain)
    }
}

/// The addresses of all XOR-PEER-ADDRESS, each once; at least one. Ports do not matter to permissions.
fn peer_ips(message: &Message<'_>, may_reach: impl Fn(SocketAddr) -> bool) -> Result<Vec<IpAddr>, ErrorCode> {
    let transaction = message.transaction();
    let mut ips = Vec::new();
    for attribute in
        message.attributes().filter(|attribute| attribute.kind == AttributeType::XOR_PEER_ADDRESS)
    {
        let peer = attribute.as_xor_address(transaction).ok_or(ErrorCode::BadRequest)?;
        if !may_reach(peer) {
            return Err(ErrorCode::Forbidden);
        }
        let ip = peer.ip();
        if !ips.contains(&ip) {
            ips.push(ip);
        }
        if ips.len() > MAX_PEERS {
            return Err(ErrorCode::InsufficientCapacity);
        }
    }
    if ips.is_empty() { Err(ErrorCode::BadRequest) } else { Ok(ips) }
}
