//! The steps at which a request fails to prove who sent it.

/// Which step of the authentication failed (RFC 8489 §9.2.4, RFC 7635 §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// There is an integrity attribute, but USERNAME or USERHASH, REALM or NONCE is missing.
    Incomplete,
    /// PASSWORD-ALGORITHMS is not what was offered: somebody on the way may have changed it.
    BadAlgorithms,
    /// Neither a static user nor `expiry:id` or `id:expiry`; or too long, or no text.
    UnknownUser,
    /// A USERHASH of a name that this process neither has nor minted.
    UnknownHash,
    /// A time-limited credential that ended `by` seconds ago.
    Expired {
        /// Seconds since the expiry.
        by: u64,
    },
    /// Expires further away than `max_ttl`.
    TooFarAhead,
    /// The integrity does not match under any secret or the user's password.
    WrongPassword,
    /// The integrity does not match, and REALM is not this server's.
    WrongRealm,
    /// ACCESS-TOKEN cannot be decrypted with the key that USERNAME names, or makes no sense.
    BadToken,
    /// An access token that ended `by` seconds ago, or that begins as far in the future.
    TokenExpired {
        /// Seconds outside of its lifetime.
        by: u64,
    },
    /// The nonce is this server's and too old.
    StaleNonce,
    /// The nonce is not this server's, or was made for another address.
    ForeignNonce,
    /// A right credential that was taken back before its end.
    Revoked,
    /// A right credential, but not of the user who made the allocation on this 5-tuple.
    OtherUser,
}

impl AuthFailure {
    /// Names of the steps, in the order of [`AuthFailure::index`].
    pub const STEPS: [&str; 14] = [
        "incomplete",
        "bad_algorithms",
        "unknown_user",
        "unknown_hash",
        "expired",
        "too_far_ahead",
        "wrong_password",
        "wrong_realm",
        "bad_token",
        "token_expired",
        "stale_nonce",
        "foreign_nonce",
        "other_user",
        "revoked",
    ];

    /// Where the step stands in [`AuthFailure::STEPS`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Incomplete => 0,
            Self::BadAlgorithms => 1,
            Self::UnknownUser => 2,
            Self::UnknownHash => 3,
            Self::Expired { .. } => 4,
            Self::TooFarAhead => 5,
            Self::WrongPassword => 6,
            Self::WrongRealm => 7,
            Self::BadToken => 8,
            Self::TokenExpired { .. } => 9,
            Self::StaleNonce => 10,
            Self::ForeignNonce => 11,
            Self::OtherUser => 12,
            Self::Revoked => 13,
        }
    }

    /// The step's name, as in metrics and logs.
    #[must_use]
    pub const fn step(self) -> &'static str {
        Self::STEPS[self.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_name_of_its_own() {
        let steps = [
            (AuthFailure::Incomplete, "incomplete"),
            (AuthFailure::BadAlgorithms, "bad_algorithms"),
            (AuthFailure::UnknownUser, "unknown_user"),
            (AuthFailure::UnknownHash, "unknown_hash"),
            (AuthFailure::Expired { by: 1 }, "expired"),
            (AuthFailure::TooFarAhead, "too_far_ahead"),
            (AuthFailure::WrongPassword, "wrong_password"),
            (AuthFailure::WrongRealm, "wrong_realm"),
            (AuthFailure::BadToken, "bad_token"),
            (AuthFailure::TokenExpired { by: 1 }, "token_expired"),
            (AuthFailure::StaleNonce, "stale_nonce"),
            (AuthFailure::ForeignNonce, "foreign_nonce"),
            (AuthFailure::OtherUser, "other_user"),
            (AuthFailure::Revoked, "revoked"),
        ];
        assert_eq!(steps.map(|(_, name)| name), AuthFailure::STEPS);
        steps.into_iter().for_each(|(failure, name)| assert_eq!(failure.step(), name));
    }
}
