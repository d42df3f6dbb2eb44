//! Who may use the relay (draft-uberti-behave-turn-rest-00, RFC 8489 §9.2, RFC 7635).
//!
//! Owns time-limited HMAC credentials (minting and checking), static users, access tokens of a third party,
//! the stateless nonces of the challenge, and the seals on tickets. Pure: time is an argument. Keeps no table of
//! clients, so there is nothing a stranger could fill. Secrets and keys have no `Debug`.

mod ends;
mod failure;
mod issued;
mod known;
mod nonce;
mod opaque;
mod revoked;
mod secret;
mod ticket;
mod token;
mod users;
mod verifier;

pub use ends::Ends;
pub use failure::AuthFailure;
pub use issued::Issued;
pub use known::KnownKeys;
pub use nonce::{NonceCheck, Nonces};
pub use opaque::opaque_string;
pub use revoked::Revoked;
pub use secret::{Credential, MintError, Secrets, id, mint};
pub use ticket::SEAL;
pub use token::{KeyError, ThirdParty, TokenKey};
pub use users::Users;
pub use verifier::{Authenticated, Claim, Expiry, Name, Verifier, id_of, parts_of};
