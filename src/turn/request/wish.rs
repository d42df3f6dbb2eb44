//! What an Allocate asks for, and the checks of RFC 8656 §7.2 that look at nothing but the request and
//! the address families this server has.

use super::requested_lifetime;
use crate::stun::{Attribute, AttributeType, ErrorCode, Message};
use crate::turn::reservation::Token;
use crate::turn::shared::{Family, Parity};

/// What an Allocate asks for.
pub(super) struct Wish {
    pub(super) ports: Ports,
    /// LIFETIME in seconds.
    pub(super) lifetime: Option<u32>,
}

/// Which relayed addresses.
pub(super) enum Ports {
    /// New ones, of one family or of both.
    New { families: &'static [Family], parity: Parity },
    /// The one that was reserved under this token.
    Reserved(Token),
}

impl Wish {
    /// In the order of RFC 8656 §7.2 behind transport and unknown attributes: combinations, families.
    pub(super) fn parse(message: &Message<'_>, has: impl Fn(Family) -> bool) -> Result<Self, ErrorCode> {
        let ports = match reservation_token(message)? {
            Some(token) => Ports::Reserved(token),
            None => Ports::parse(message, has)?,
        };
        Ok(Self { ports, lifetime: requested_lifetime(message)? })
    }
}

impl Ports {
    fn parse(message: &Message<'_>, has: impl Fn(Family) -> bool) -> Result<Self, ErrorCode> {
        let is_dual = additional_family(message).is_some();
        if is_dual && message.has(AttributeType::REQUESTED_ADDRESS_FAMILY) {
            return Err(ErrorCode::BadRequest);
        }
        let family = requested_family(message)?.unwrap_or(Family::V4);
        if !is_dual && !has(family) {
            return Err(ErrorCode::AddressFamilyNotSupported);
        }
        let parity = parity(message)?;
        if is_dual && (parity == Parity::Pair || !wants_ipv6_as_well(message)) {
            return Err(ErrorCode::BadRequest);
        }
        Ok(Self::New { families: if is_dual { &Family::BOTH } else { family.alone() }, parity })
    }
}

/// RESERVATION-TOKEN (RFC 8656 §18.10), which says all there is to say about the address.
fn reservation_token(message: &Message<'_>) -> Result<Option<Token>, ErrorCode> {
    let Some(attribute) = message.attribute(AttributeType::RESERVATION_TOKEN) else { return Ok(None) };
    let token = attribute.value.try_into().map_err(|_| ErrorCode::BadRequest)?;
    let others = [AttributeType::EVEN_PORT, AttributeType::REQUESTED_ADDRESS_FAMILY];
    if others.into_iter().any(|other| message.has(other)) || additional_family(message).is_some() {
        return Err(ErrorCode::BadRequest);
    }
    Ok(Some(Token(token)))
}

/// EVEN-PORT and its R bit (RFC 8656 §18.7).
fn parity(message: &Message<'_>) -> Result<Parity, ErrorCode> {
    match message.attribute(AttributeType::EVEN_PORT).map(|attribute| attribute.value) {
        None => Ok(Parity::Any),
        Some([bits]) if bits & 0x80 == 0 => Ok(Parity::Even),
        Some([_]) => Ok(Parity::Pair),
        Some(_) => Err(ErrorCode::BadRequest),
    }
}

/// ADDITIONAL-ADDRESS-FAMILY, under the number of the drafts too: Debian's coturn tools still use it.
fn additional_family<'a>(message: &Message<'a>) -> Option<Attribute<'a>> {
    message
        .attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY)
        .or_else(|| message.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY_OF_DRAFTS))
}

/// ADDITIONAL-ADDRESS-FAMILY, whose only value is IPv6 (RFC 8656 §18.11).
fn wants_ipv6_as_well(message: &Message<'_>) -> bool {
    additional_family(message).is_some_and(|attribute| matches!(attribute.value, [0x02, _, _, _]))
}

/// REQUESTED-ADDRESS-FAMILY (RFC 8656 §18.6); an unknown family is 440.
pub(super) fn requested_family(message: &Message<'_>) -> Result<Option<Family>, ErrorCode> {
    let Some(attribute) = message.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY) else { return Ok(None) };
    match attribute.value {
        [0x01, _, _, _] => Ok(Some(Family::V4)),
        [0x02, _, _, _] => Ok(Some(Family::V6)),
        [_, _, _, _] => Err(ErrorCode::AddressFamilyNotSupported),
        _ => Err(ErrorCode::BadRequest),
    }
}
