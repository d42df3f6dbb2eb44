//! ChannelBind (RFC 8656 §12.2): binds or refreshes a channel, and the permission with it.

use std::net::SocketAddr;

use super::{Request, Success};
use crate::stun::{AttributeType, ChannelNumber, ErrorCode, Message};
use crate::turn::Server;
use crate::turn::allocation::{BindError, Relayed};
use crate::turn::one_port::ClaimError;
use crate::turn::reach::may_bind_to;
use crate::turn::table::AllocationId;

impl Server {
    pub(super) fn channel_bind(
        &mut self,
        request: &Request<'_>,
        id: AllocationId,
    ) -> Result<Success, ErrorCode> {
        let (number, peer) = channel_and_peer(&request.message)?;
        if !number.is_bindable(self.settings.legacy_channels) {
            return Err(ErrorCode::BadRequest);
        }
        if self.table.get(id).is_some_and(|allocation| allocation.carries == Relayed::Tcp) {
            return Err(ErrorCode::BadRequest);
        }
        let allocation = self.table.get(id).ok_or(ErrorCode::AllocationMismatch)?;
        if allocation.relayed_for(peer.ip()).is_none() {
            return Err(ErrorCode::PeerAddressFamilyMismatch);
        }
        if !may_bind_to(&self.settings, &self.shared, peer) {
            return Err(ErrorCode::Forbidden);
        }
        allocation.may_bind(number, peer).map_err(|error| match error {
            BindError::Conflict => ErrorCode::BadRequest,
            BindError::Full => ErrorCode::InsufficientCapacity,
        })?;
        if !allocation.has_room_for(&[peer.ip()]) {
            return Err(ErrorCode::InsufficientCapacity);
        }
        // RFC 8656 §12.2: 508 for want of capacity, which one port for all has for one allocation a peer.
        self.claim_peer(id, peer).map_err(|_: ClaimError| ErrorCode::InsufficientCapacity)?;
        let now = request.now.mono;
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.permit(peer.ip(), now);
            allocation.bind_channel(number, peer, now);
        }
        self.reschedule(id);
        Ok(Success::Plain)
    }
}

/// CHANNEL-NUMBER (RFC 8656 §18.1) and XOR-PEER-ADDRESS, both needed.
fn channel_and_peer(message: &Message<'_>) -> Result<(ChannelNumber, SocketAddr), ErrorCode> {
    let number = message.attribute(AttributeType::CHANNEL_NUMBER).and_then(|attribute| attribute.as_u32());
    let number = number.and_then(|value| ChannelNumber::from_wire((value >> 16) as u16));
    let peer = message.attribute(AttributeType::XOR_PEER_ADDRESS);
    let peer = peer.and_then(|attribute| attribute.as_xor_address(message.transaction()));
    number.zip(peer).ok_or(ErrorCode::BadRequest)
}
