//! REQUESTED-TRANSPORT (RFC 8656 §18.8): what an Allocate wants relayed, and what must not be asked for
//! together with TCP (RFC 6062 §5.1).

use crate::stun::{AttributeType, ErrorCode, Message};
use crate::turn::allocation::Relayed;
use crate::turn::output::Transport;

/// Protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What the request wants relayed. `client` is how it came; `serves_tcp` is `relay.tcp`.
pub(super) fn requested_transport(
    message: &Message<'_>,
    client: Transport,
    serves_tcp: bool,
) -> Result<Relayed, ErrorCode> {
    let transport = message.attribute(AttributeType::REQUESTED_TRANSPORT).ok_or(ErrorCode::BadRequest)?;
    match transport.value {
        [UDP, _, _, _] => Ok(Relayed::Udp),
        [TCP, _, _, _] if serves_tcp => {
            const EXCLUDED: [AttributeType; 3] =
                [AttributeType::DONT_FRAGMENT, AttributeType::EVEN_PORT, AttributeType::RESERVATION_TOKEN];
            match client.is_stream() && !EXCLUDED.iter().any(|kind| message.has(*kind)) {
                true => Ok(Relayed::Tcp),
                false => Err(ErrorCode::BadRequest),
            }
        }
        [_, _, _, _] => Err(ErrorCode::UnsupportedTransport),
        _ => Err(ErrorCode::BadRequest),
    }
}
