//! Connect (RFC 6062 §5.2): opens a connection from the relayed address to a peer. The answer comes when
//! the peer has been reached, has not, or has kept silent for 30 s.

use std::net::SocketAddr;

use super::{Outcome, Request, Success, answer_later};
use crate::stun::{AttributeType, ErrorCode, Method};
use crate::turn::allocation::Relayed;
use crate::turn::auth::Seal;
use crate::turn::output::{Now, Output, PeerLink, Verdict};
use crate::turn::peer_connections::{Refused, Stage};
use crate::turn::reach::connect_to;
use crate::turn::shared::Family;
use crate::turn::table::AllocationId;
use crate::turn::{ReplyBuffer, Server};

impl Server {
    pub(super) fn connect(&mut self, request: &Request<'_>, id: AllocationId) -> Result<Outcome, ErrorCode> {
        let allocation = self.table.get(id).ok_or(ErrorCode::AllocationMismatch)?;
        if allocation.carries != Relayed::Tcp {
            return Err(ErrorCode::AllocationMismatch);
        }
        let peer = peer_address(request).ok_or(ErrorCode::BadRequest)?;
        let family = Family::of(peer.ip());
        let bind = allocation.relay(family).ok_or(ErrorCode::PeerAddressFamilyMismatch)?.bind;
        let to = connect_to(&self.settings, &self.shared, peer).ok_or(ErrorCode::Forbidden)?;
        if to == bind {
            return Err(ErrorCode::Forbidden);
        }
        let stage = Stage::Connecting {
            transaction: request.message.transaction(),
            seal: Seal::like(&request.message),
        };
        let opened = self.peers.open(id.relay(family), peer, stage, request.now.mono, &mut self.rng);
        let (link, _) = opened.map_err(|refused| match refused {
            Refused::Exists => ErrorCode::ConnectionAlreadyExists,
            Refused::Full => ErrorCode::InsufficientCapacity,
        })?;
        self.outputs.push_back(Output::Connect { link, from: bind, to });
        Ok(Outcome::Deferred)
    }

    /// The answer to [`Output::Connect`]; the Connect that waits for it is answered by the verdict.
    pub fn handle_peer_connected(
        &mut self,
        now: Now,
        link: PeerLink,
        is_connected: bool,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        let connection = self.peers.get(link).copied();
        let Some((connection, Stage::Connecting { transaction, seal })) =
            connection.map(|connection| (connection, connection.stage))
        else {
            return Verdict::Consumed;
        };
        let result = match is_connected {
            true => {
                self.peers.connected(link, now.mono);
                Ok(Success::Connected { id: connection.id })
            }
            false => {
                self.peers.remove(link);
                Err(ErrorCode::ConnectionTimeoutOrFailure)
            }
        };
        let Some(allocation) = self.table.of_relay(connection.relay) else { return Verdict::Consumed };
        self.stats.count_request(Method::CONNECT, result.map(|_| ()));
        answer_later(allocation, (Method::CONNECT, transaction), result, seal, reply)
    }
}

fn peer_address(request: &Request<'_>) -> Option<SocketAddr> {
    let peer = request.message.attribute(AttributeType::XOR_PEER_ADDRESS)?;
    peer.as_xor_address(request.message.transaction())
}
