//! Allocate (RFC 8656 §7.2), in two phases: decide and ask for a relay socket; answer when it is open.

use std::net::IpAddr;
use std::time::Duration;

use super::{Outcome, Request, Success, refuse_unknown, requested_lifetime, write_result};
use crate::stun::{AttributeType, Class, ErrorCode, Message, MessageWriter, Method};
use crate::turn::allocation::{Allocation, NewAllocation, Phase};
use crate::turn::auth::Caller;
use crate::turn::output::{Now, OpenError, Output, RelayId, Verdict};
use crate::turn::shared::{Family, Parity};
use crate::turn::table::AllocationId;
use crate::turn::{DEFAULT_LIFETIME, Mode, RelayAddress, ReplyBuffer, Server};

/// Protocol number of UDP in REQUESTED-TRANSPORT.
const UDP: u8 = 17;
/// How many ports may turn out to be taken by other programs before an Allocate fails with 508.
const MAX_REFUSED: u8 = 16;

/// What an Allocate asks for.
struct Wish {
    family: Family,
    parity: Parity,
    lifetime: Option<u32>,
}

impl Server {
    pub(super) fn allocate(
        &mut self,
        request: &Request<'_>,
        caller: &Caller<'_>,
    ) -> Result<Outcome, ErrorCode> {
        if let Some(id) = caller.allocation {
            return self.repeat_success(request, id);
        }
        let wish = wish(&request.message)?;
        let server = request.path.five_tuple.server.ip();
        let address = self.relay_address(wish.family, server).ok_or(ErrorCode::AddressFamilyNotSupported)?;
        if self.mode == Mode::Draining {
            return Err(ErrorCode::InsufficientCapacity);
        }
        self.open(request, caller, &wish, address)?;
        Ok(Outcome::Deferred)
    }

    /// The relay address of a family for a client that came to `server`: the one it came to, while that
    /// has ports, else the one with most.
    fn relay_address(&self, family: Family, server: IpAddr) -> Option<RelayAddress> {
        let free = |address: &RelayAddress| self.shared.free_ports(address.bind);
        let of_family =
            || self.settings.addresses.iter().copied().filter(|own| Family::of(own.bind) == family);
        let fits = of_family().find(|own| own.bind == server && free(own) > 0);
        fits.or_else(|| of_family().max_by_key(free))
    }

    /// RFC 8656 §7.2: a retransmitted Allocate gets the same success, another one 437.
    fn repeat_success(&self, request: &Request<'_>, id: AllocationId) -> Result<Outcome, ErrorCode> {
        let allocation = self.table.get(id).ok_or(ErrorCode::AllocationMismatch)?;
        if allocation.transaction != request.message.transaction() {
            return Err(ErrorCode::AllocationMismatch);
        }
        match allocation.phase {
            Phase::Opening { .. } => Ok(Outcome::Deferred),
            Phase::Open => Ok(Outcome::Done(Success::Allocated {
                relayed: allocation.relayed,
                lifetime: allocation.expires.saturating_sub(request.now.mono),
            })),
        }
    }

    /// Takes a place in the quotas and a port, and asks for the socket.
    fn open(
        &mut self,
        request: &Request<'_>,
        caller: &Caller<'_>,
        wish: &Wish,
        address: RelayAddress,
    ) -> Result<(), ErrorCode> {
        let now = request.now;
        let (user_quota, total_quota) = (self.settings.user_quota, self.settings.total_quota);
        let quota = self.shared.charge(&caller.user, user_quota, total_quota);
        let quota = quota.ok_or(ErrorCode::AllocationQuotaReached)?;
        let port = self.shared.take_port(address.bind, wish.parity, now.mono, &mut self.rng);
        let port = port.ok_or(ErrorCode::InsufficientCapacity)?;
        let relay = self.table.next_id().relay(wish.family);
        let bind = (address.bind, port).into();
        let lifetime = self.granted(wish.lifetime, caller.credential_expires, now);
        self.table.insert(Allocation::new(NewAllocation {
            path: request.path,
            relay,
            relayed: (address.public, port).into(),
            bind,
            parity: wish.parity,
            fingerprint: request.message.has_fingerprint(),
            transaction: request.message.transaction(),
            username: caller.username.into(),
            user: caller.user.clone(),
            key: caller.key.clone(),
            credential_expires: caller.credential_expires,
            quota,
            expires: now.mono + lifetime,
        }));
        self.outputs.push_back(Output::OpenRelay { relay, bind });
        Ok(())
    }

    /// The second phase: the relay socket is open, or is not.
    pub(in crate::turn) fn relay_opened(
        &mut self,
        now: Now,
        relay: RelayId,
        result: Result<(), OpenError>,
        reply: &mut ReplyBuffer,
    ) -> Verdict {
        let id = self.table.id_of_relay(relay);
        let phase = id.and_then(|id| self.table.get(id)).map(|allocation| allocation.phase);
        let (Some(id), Some(Phase::Opening { refused, parity, fingerprint })) = (id, phase) else {
            // The client left meanwhile.
            if result.is_ok() {
                self.outputs.push_back(Output::CloseRelay { relay });
            }
            return Verdict::Consumed;
        };
        match result {
            Ok(()) => self.opened(now, id, fingerprint, reply),
            Err(OpenError::InUse) if refused < MAX_REFUSED && self.try_another_port(now, id, parity) => {
                Verdict::Consumed
            }
            Err(OpenError::InUse | OpenError::Unavailable | OpenError::Exhausted) => {
                self.refuse(now, id, fingerprint, reply)
            }
        }
    }

    fn opened(&mut self, now: Now, id: AllocationId, fingerprint: bool, reply: &mut ReplyBuffer) -> Verdict {
        let Some(allocation) = self.table.get_mut(id) else { return Verdict::Consumed };
        allocation.phase = Phase::Open;
        self.shared.set_live(allocation.bind, true);
        self.timers.schedule(allocation.scheduled, id);
        self.stats.allocations_total += 1;
        self.stats.count_request(Method::ALLOCATE, Ok(()));
        let lifetime = allocation.expires.saturating_sub(now.mono);
        let success = Success::Allocated { relayed: allocation.relayed, lifetime };
        answer_later(allocation, Ok(success), fingerprint, reply)
    }

    /// Another program has the port: draw the next one. False when there is none.
    fn try_another_port(&mut self, now: Now, id: AllocationId, parity: Parity) -> bool {
        let Some(allocation) = self.table.get_mut(id) else { return false };
        let taken = allocation.bind;
        let port = self.shared.take_port(taken.ip(), parity, now.mono, &mut self.rng);
        let Some(port) = port else { return false };
        self.shared.return_port(taken, now.mono);
        if let Phase::Opening { refused, .. } = &mut allocation.phase {
            *refused += 1;
        }
        let relay = allocation.relay;
        let bind = (taken.ip(), port).into();
        self.table.set_relayed_port(id, port);
        self.outputs.push_back(Output::OpenRelay { relay, bind });
        true
    }

    fn refuse(&mut self, now: Now, id: AllocationId, fingerprint: bool, reply: &mut ReplyBuffer) -> Verdict {
        let error = ErrorCode::InsufficientCapacity;
        self.stats.count_request(Method::ALLOCATE, Err(error));
        match self.close(id, now) {
            Some(allocation) => answer_later(&allocation, Err(error), fingerprint, reply),
            None => Verdict::Consumed,
        }
    }

    /// RFC 8656 §7.2: at least the default, at most the maximum; with `strict_expiry` not beyond the
    /// end of the credential.
    pub(super) fn granted(
        &self,
        requested: Option<u32>,
        credential_expires: Option<u64>,
        now: Now,
    ) -> Duration {
        let requested = requested.map_or(DEFAULT_LIFETIME, |seconds| Duration::from_secs(seconds.into()));
        let granted = requested.min(self.settings.max_lifetime).max(DEFAULT_LIFETIME);
        match credential_expires {
            Some(end) if self.settings.strict_expiry => {
                granted.min(Duration::from_secs(end.saturating_sub(now.unix)))
            }
            _ => granted,
        }
    }
}

/// The answer to an Allocate once its request is gone, from what the allocation remembers.
fn answer_later(
    allocation: &Allocation,
    result: Result<Success, ErrorCode>,
    fingerprint: bool,
    reply: &mut ReplyBuffer,
) -> Verdict {
    let path = allocation.path;
    let class = if result.is_ok() { Class::Success } else { Class::Error };
    let mut writer = MessageWriter::new(reply, class, Method::ALLOCATE, allocation.transaction);
    write_result(&mut writer, result, path.five_tuple.client);
    writer.integrity(&allocation.key);
    if fingerprint {
        writer.fingerprint();
    }
    let len = writer.finish().expect("an Allocate response is far smaller than the buffer");
    Verdict::Reply { path, len }
}

/// The checks of RFC 8656 §7.2 in their order: transport, unknown attributes, combinations, family.
fn wish(message: &Message<'_>) -> Result<Wish, ErrorCode> {
    let transport = message.attribute(AttributeType::REQUESTED_TRANSPORT).ok_or(ErrorCode::BadRequest)?;
    let [protocol, _, _, _] = transport.value else { return Err(ErrorCode::BadRequest) };
    if *protocol != UDP {
        return Err(ErrorCode::UnsupportedTransport);
    }
    refuse_unknown(message)?;
    let has_reservation = message.has(AttributeType::RESERVATION_TOKEN);
    let has_family = message.has(AttributeType::REQUESTED_ADDRESS_FAMILY);
    let has_additional = message.has(AttributeType::ADDITIONAL_ADDRESS_FAMILY);
    let even_port = even_port(message)?;
    if has_reservation && (even_port.is_some() || has_family || has_additional)
        || has_family && has_additional
    {
        return Err(ErrorCode::BadRequest);
    }
    let family = requested_family(message)?.unwrap_or(Family::V4);
    // This server hands out no reservations, so every token is unknown and no pair can be had.
    if has_reservation || even_port == Some(Reserve::Next) {
        return Err(ErrorCode::InsufficientCapacity);
    }
    let parity = if even_port.is_some() { Parity::Even } else { Parity::Any };
    Ok(Wish { family, parity, lifetime: requested_lifetime(message)? })
}

/// The R bit of EVEN-PORT.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserve {
    /// Only this port.
    No,
    /// The next higher one as well.
    Next,
}

/// EVEN-PORT (RFC 8656 §18.7).
fn even_port(message: &Message<'_>) -> Result<Option<Reserve>, ErrorCode> {
    let Some(attribute) = message.attribute(AttributeType::EVEN_PORT) else { return Ok(None) };
    let [bits] = attribute.value else { return Err(ErrorCode::BadRequest) };
    Ok(Some(if bits & 0x80 == 0 { Reserve::No } else { Reserve::Next }))
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
