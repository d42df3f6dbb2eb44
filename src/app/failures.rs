//! Says in the log why clients are refused: one line a second for each step that failed, with a count. A client's
//! first request, which is always refused, is no failure.
//!
//! User names and addresses appear only where the level of this module is `debug`.

use std::time::{Duration, Instant};

use crate::credential::AuthFailure;
use crate::turn::AuthReport;

/// How often at most a step is reported.
const INTERVAL: Duration = Duration::from_secs(1);

/// When the log was written last.
pub(super) struct FailureLog {
    next: Instant,
}

impl FailureLog {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now }
    }

    /// Writes what `take` finds, unless the last time was less than a second ago.
    pub(super) fn look(&mut self, now: Instant, take: impl FnOnce() -> Vec<AuthReport>) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        take().iter().for_each(write);
    }
}

fn write(report: &AuthReport) {
    let AuthReport { failure, count, client, username } = report;
    let (step, hint) = (failure.step(), hint(*failure));
    let by = match failure {
        AuthFailure::Expired { by } | AuthFailure::TokenExpired { by } => Some(*by),
        _ => None,
    };
    // New nonces are part of the protocol, all else is worth a look.
    match failure {
        AuthFailure::StaleNonce => tracing::info!(step, count, hint, "client asked to authenticate again"),
        _ => tracing::warn!(step, seconds = by, count, hint, "client not authenticated"),
    }
    tracing::debug!(step, user = ?username, %client, "last client not authenticated");
}

/// What it means and where to look.
fn hint(failure: AuthFailure) -> &'static str {
    match failure {
        AuthFailure::Incomplete => "a signed request without USERNAME, REALM or NONCE",
        AuthFailure::BadAlgorithms => "PASSWORD-ALGORITHMS is not what was offered: changed on the way",
        AuthFailure::UnknownUser => "neither in credentials.users nor of the form expiry:id",
        AuthFailure::UnknownHash => "USERHASH of a name not handed out here; see credentials.hide_usernames",
        AuthFailure::Expired { .. } => {
            "the credential is over: the client keeps it too long, or a clock is wrong"
        }
        AuthFailure::TooFarAhead => "the credential lives longer than credentials.max_ttl allows",
        AuthFailure::WrongPassword => "whoever made the password has another secret than credentials.secrets",
        AuthFailure::WrongRealm => "the client signs for another realm than relay.realm",
        AuthFailure::BadToken => "the access token does not open with the key of credentials.third_party",
        AuthFailure::TokenExpired { .. } => "the access token is over, or a clock is wrong",
        AuthFailure::StaleNonce => "its nonce is an hour old",
        AuthFailure::ForeignNonce => "its nonce is of another address or from before a restart",
        AuthFailure::Revoked => {
            "the credential was taken back: its user left, was sent out, or the call is over"
        }
        AuthFailure::OtherUser => "another user made the allocation at this address",
    }
}
