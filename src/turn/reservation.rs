//! Reserved ports (RFC 8656 §7.2): the upper port of a pair, kept for the user whose Allocate asked for
//! it with EVEN-PORT until another Allocate of that user names its RESERVATION-TOKEN.
//!
//! A reservation lives in [`Shared`], so that any worker can claim it, and its socket is bound all the
//! while: no other program gets the port. The core that made it lets it expire. It takes a place in its
//! user's quota, which the claiming allocation inherits.

use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;

use super::allocation::Relay;
use super::output::{Now, Output};
use super::shared::{QuotaSlot, Shared};
use super::{Server, shared};

/// How long a port is reserved.
pub(super) const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// Reservations one core makes within [`RESERVATION_LIFETIME`].
pub(super) const MAX_RESERVATIONS: usize = 1024;

/// The value of RESERVATION-TOKEN (RFC 8656 §18.10): random, so that nobody guesses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Token(pub(super) [u8; 8]);

/// A port that waits for its user.
#[derive(Debug)]
pub(super) struct Reservation {
    /// The relayed transport address as the world sees it.
    pub(super) relayed: SocketAddr,
    /// The local address of the relay socket.
    pub(super) bind: SocketAddr,
    pub(super) quota: QuotaSlot,
    pub(super) expires: Duration,
}

impl Reservation {
    /// Of the port above a relay's, from the moment its allocation is answered.
    pub(super) fn above(lower: &Relay, quota: QuotaSlot) -> Self {
        let (relayed, bind) = (lower.relayed, lower.bind);
        let mut reservation = Self { relayed, bind, quota, expires: Duration::ZERO };
        reservation.set_port(relayed.port() + 1);
        reservation
    }

    pub(super) fn set_port(&mut self, port: u16) {
        self.relayed.set_port(port);
        self.bind.set_port(port);
    }
}

impl Shared {
    fn reserve(&self, token: Token, reservation: Reservation) {
        shared::lock(&self.reservations).insert(token, reservation);
    }

    /// The reservation of that name, if it is this user's and still stands.
    pub(super) fn claim(&self, token: Token, user: &str, now: Duration) -> Option<Reservation> {
        let mut reservations = shared::lock(&self.reservations);
        let found = reservations.get(&token)?;
        if found.quota.user() != user || found.expires <= now {
            return None;
        }
        reservations.remove(&token)
    }
}

impl Server {
    /// Whether one more port may be reserved.
    pub(super) fn may_reserve(&self) -> bool {
        self.reserved.len() < MAX_RESERVATIONS
    }

    /// Reserves a port from now on.
    pub(super) fn reserve(&mut self, mut reservation: Reservation, now: Now) -> Token {
        let mut token = Token([0; 8]);
        self.rng.fill_bytes(&mut token.0);
        reservation.expires = now.mono + RESERVATION_LIFETIME;
        self.reserved.push_back((reservation.expires, token));
        self.shared.reserve(token, reservation);
        token
    }

    /// Ends the reservations of this core that nobody has claimed in time.
    pub(super) fn expire_reservations(&mut self, now: Now) {
        while let Some((_, token)) = self.reserved.pop_front_if(|(expires, _)| *expires <= now.mono) {
            let unclaimed = shared::lock(&self.shared.reservations).remove(&token);
            let Some(Reservation { bind, .. }) = unclaimed else { continue };
            self.shared.return_port(bind, now.mono);
            self.outputs.push_back(Output::ReleaseRelay { bind });
        }
    }
}
