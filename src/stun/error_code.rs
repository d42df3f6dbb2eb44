//! Error codes and their shortest reason phrases (RFC 8489 §14.8, RFC 8656 §19).

/// An error code this server sends. Reasons are short: nobody parses them, and an unauthenticated
/// reply must not be longer than it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// 300: ask the server named in ALTERNATE-SERVER.
    TryAlternate,
    /// 400: malformed.
    BadRequest,
    /// 401: credentials missing or wrong.
    Unauthenticated,
    /// 403: forbidden by policy.
    Forbidden,
    /// 405: no mobility here (RFC 8016 §4.2).
    MobilityForbidden,
    /// 420: a comprehension-required attribute is unknown.
    UnknownAttribute,
    /// 437: no allocation, or one too many, for this 5-tuple.
    AllocationMismatch,
    /// 438: the nonce is too old or not ours.
    StaleNonce,
    /// 440: the address family is not served.
    AddressFamilyNotSupported,
    /// 441: not the credentials the allocation was made with.
    WrongCredentials,
    /// 442: the requested transport is not served.
    UnsupportedTransport,
    /// 443: the peer is of another family than the allocation.
    PeerAddressFamilyMismatch,
    /// 446: there is a connection to this peer already (RFC 6062 §6.3).
    ConnectionAlreadyExists,
    /// 447: the peer was not reached (RFC 6062 §6.3).
    ConnectionTimeoutOrFailure,
    /// 486: the user has too many allocations.
    AllocationQuotaReached,
    /// 508: cannot be done now.
    InsufficientCapacity,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::TryAlternate => 300,
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::MobilityForbidden => 405,
            Self::UnknownAttribute => 420,
            Self::AllocationMismatch => 437,
            Self::StaleNonce => 438,
            Self::AddressFamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::UnsupportedTransport => 442,
            Self::PeerAddressFamilyMismatch => 443,
            Self::ConnectionAlreadyExists => 446,
            Self::ConnectionTimeoutOrFailure => 447,
            Self::AllocationQuotaReached => 486,
            Self::InsufficientCapacity => 508,
        }
    }

    /// A reason phrase for people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TryAlternate => "Try Alternate",
            Self::BadRequest => "Bad Request",
            Self::Unauthenticated => "",
            Self::Forbidden => "Forbidden",
            Self::MobilityForbidden => "Mobility Forbidden",
            Self::UnknownAttribute => "Unknown Attribute",
            Self::AllocationMismatch => "Allocation Mismatch",
            Self::StaleNonce => "",
            Self::AddressFamilyNotSupported => "Address Family",
            Self::WrongCredentials => "Wrong Credentials",
            Self::UnsupportedTransport => "Transport",
            Self::PeerAddressFamilyMismatch => "Peer Family",
            Self::ConnectionAlreadyExists => "Connection Exists",
            Self::ConnectionTimeoutOrFailure => "Connection Failure",
            Self::AllocationQuotaReached => "Quota Reached",
            Self::InsufficientCapacity => "Insufficient Capacity",
        }
    }
}
