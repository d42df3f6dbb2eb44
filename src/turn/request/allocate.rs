//! Allocate (RFC 8656 §7.2), first phase: decide, take ports, and ask for relay sockets. The answer
//! comes when they are open.

use std::net::IpAddr;
use std::time::Duration;

use super::mobility::wants_ticket;
use super::requested_transport::requested_transport;
use super::wish::{Ports, Wish};
use super::{Outcome, Request, Success, refuse_unknown};
use crate::credential::Expiry;
use crate::stun::ErrorCode;
use crate::turn::allocation::{Allocation, NewAllocation, Opening, Relay, Relayed};
use crate::turn::auth::{Caller, Seal};
use crate::turn::mobility::Mobile;
use crate::turn::output::{Now, Output};
use crate::turn::reservation::{Reservation, Token};
use crate::turn::shared::{Family, Parity, QuotaSlot};
use crate::turn::table::AllocationId;
use crate::turn::{DEFAULT_LIFETIME, Mode, RelayAddress, Server};

/// What an allocation is made of, before it is one.
struct Parts {
    relays: [Option<Relay>; 2],
    /// What stands in the way of the other family of a dual allocation.
    refused: Option<(Family, ErrorCode)>,
    /// Which other ports would do.
    parity: Option<Parity>,
    reservation: Option<Reservation>,
    quota: QuotaSlot,
}

impl Server {
    pub(super) fn allocate(&mut self, request: &Request<'_>, caller: &Caller) -> Result<Outcome, ErrorCode> {
        if let Some(id) = caller.allocation {
            return self.repeat_success(request, id);
        }
        // What needs a socket of its own is not to be had where all share one.
        let has_ports = self.shared.one_port().is_none();
        let transport = request.path.five_tuple.transport;
        let carries = requested_transport(&request.message, transport, self.settings.tcp && has_ports)?;
        refuse_unknown(&request.message, self.settings.dont_fragment)?;
        let is_mobile = wants_ticket(&request.message, self.settings.mobility && has_ports, carries)?;
        let has = |family| self.settings.addresses.iter().any(|own| Family::of(own.bind) == family);
        let wish = Wish::parse(&request.message, has)?;
        if self.mode == Mode::Draining {
            return Err(self.no_room(request, ErrorCode::InsufficientCapacity));
        }
        let lifetime = self.granted(wish.lifetime, caller.expiry, request.now);
        let expires = request.now.mono + lifetime;
        let parts = match wish.ports {
            Ports::New { families, parity } => self.draw(request, caller, families, parity, expires)?,
            Ports::Reserved(token) => self.claim(request.now, caller, token, expires)?,
        };
        self.open(request, caller, carries, is_mobile, parts);
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
        match allocation.opening {
            Some(_) => Ok(Outcome::Deferred),
            None => {
                let granted = allocation.granted(request.now.mono);
                Ok(Outcome::Done(Success::Allocated(granted, self.ticket_of(id))))
            }
        }
    }

    /// Draws a port of each family; one of two is enough (RFC 8656 §7.2).
    fn draw(
        &mut self,
        request: &Request<'_>,
        caller: &Caller,
        families: &[Family],
        parity: Parity,
        expires: Duration,
    ) -> Result<Parts, ErrorCode> {
        let (quota, upper) = self.charge_for(request, caller, families, parity)?;
        let (mut relays, mut refused) = ([None, None], None);
        for &family in families {
            match self.draw_relay(request, family, parity, expires) {
                Ok(relay) => relays[family as usize] = Some(relay),
                // When both fail and only one could never be had, it is for want of capacity.
                Err(error) => refused = refused.max(Some((error, family))),
            }
        }
        if let ([None, None], Some((error, _))) = (&relays, refused) {
            return Err(match error {
                ErrorCode::InsufficientCapacity => self.no_room(request, error),
                other => other,
            });
        }
        let reservation = relays.iter().flatten().next().zip(upper);
        Ok(Parts {
            reservation: reservation.map(|(lower, quota)| Reservation::above(lower, quota)),
            relays,
            refused: refused.map(|(error, family)| (family, error)),
            parity: Some(parity),
            quota,
        })
    }

    /// Takes a place in the quotas, and a second one for a reservation. 508 goes before 486.
    fn charge_for(
        &self,
        request: &Request<'_>,
        caller: &Caller,
        families: &[Family],
        parity: Parity,
    ) -> Result<(QuotaSlot, Option<QuotaSlot>), ErrorCode> {
        let is_pair = parity == Parity::Pair;
        if is_pair && !self.may_reserve() {
            return Err(ErrorCode::InsufficientCapacity);
        }
        let charge = || self.shared.charge(&caller.user, self.settings.user_quota, self.settings.total_quota);
        if let Some(quota) = charge() {
            match is_pair.then(charge) {
                None => return Ok((quota, None)),
                Some(Some(upper)) => return Ok((quota, Some(upper))),
                Some(None) => {}
            }
        }
        let server = request.path.five_tuple.server.ip();
        let mut addresses = families.iter().filter_map(|family| self.relay_address(*family, server));
        let has_port = addresses.any(|address| self.shared.has_port(address.bind, parity));
        Err(match (has_port, self.is_full()) {
            (false, _) => self.no_room(request, ErrorCode::InsufficientCapacity),
            (true, true) => self.no_room(request, ErrorCode::AllocationQuotaReached),
            (true, false) => ErrorCode::AllocationQuotaReached,
        })
    }

    fn draw_relay(
        &mut self,
        request: &Request<'_>,
        family: Family,
        parity: Parity,
        expires: Duration,
    ) -> Result<Relay, ErrorCode> {
        let address = self.relay_address(family, request.path.five_tuple.server.ip());
        let address = address.ok_or(ErrorCode::AddressFamilyNotSupported)?;
        let port = self.shared.take_port(address.bind, parity, request.now.mono, &mut self.rng);
        let port = port.ok_or(ErrorCode::InsufficientCapacity)?;
        let (relayed, bind) = ((address.public, port).into(), (address.bind, port).into());
        Ok(Relay { relayed, bind, expires, is_open: false })
    }

    /// Takes the port over that was reserved under `token`, and its place in the quota.
    fn claim(&self, now: Now, caller: &Caller, token: Token, expires: Duration) -> Result<Parts, ErrorCode> {
        let reservation = self.shared.claim(token, &caller.user, now.mono);
        let Reservation { relayed, bind, quota, .. } = reservation.ok_or(ErrorCode::InsufficientCapacity)?;
        let mut relays = [None, None];
        relays[Family::of(relayed.ip()) as usize] = Some(Relay { relayed, bind, expires, is_open: false });
        Ok(Parts { relays, refused: None, parity: None, reservation: None, quota })
    }

    /// Enters the allocation and asks for its sockets.
    fn open(
        &mut self,
        request: &Request<'_>,
        caller: &Caller,
        carries: Relayed,
        is_mobile: bool,
        parts: Parts,
    ) {
        let Parts { relays, refused, parity, reservation, quota } = parts;
        let reserve = reservation.as_ref().map(|reservation| reservation.bind);
        let seal = Seal::like(&request.message);
        let id = self.table.insert(Allocation::new(NewAllocation {
            path: request.path,
            mobile: is_mobile.then(Mobile::default),
            carries,
            opening: Opening { taken: 0, parity, seal, reservation },
            relays,
            refused,
            transaction: request.message.transaction(),
            username: caller.username.clone(),
            user: caller.user.clone(),
            key: caller.key.clone(),
            expiry: caller.expiry,
            quota,
            meters: self.shared.new_meters(),
        }));
        let allocation = self.table.get(id).into_iter();
        for (family, relay) in allocation.flat_map(Allocation::relays) {
            let relay_id = id.relay(family);
            let bind = relay.bind;
            self.outputs.push_back(match carries {
                Relayed::Udp => Output::OpenRelay { relay: relay_id, bind, reserve },
                Relayed::Tcp => Output::OpenListener { relay: relay_id, bind },
            });
        }
    }

    /// RFC 8656 §7.2: at least the default, at most the maximum; with `strict_expiry`, and with an access token,
    /// not beyond the end of the credential.
    pub(super) fn granted(&self, requested: Option<u32>, expiry: Option<Expiry>, now: Now) -> Duration {
        let requested = requested.map_or(DEFAULT_LIFETIME, |seconds| Duration::from_secs(seconds.into()));
        let granted = requested.min(self.settings.max_lifetime).max(DEFAULT_LIFETIME);
        match expiry {
            Some(end) if self.settings.strict_expiry || end.ends_allocation => {
                granted.min(Duration::from_secs(end.at.saturating_sub(now.unix)))
            }
            _ => granted,
        }
    }
}
