//! Who may use the relay (draft-uberti-behave-turn-rest-00, RFC 8489 §9.2).
//!
//! Owns time-limited HMAC credentials (minting and checking), static users, and the stateless nonces
//! of the challenge. Pure: time is an argument. Keeps no table of clients, so there is nothing a
//! stranger could fill. Secrets and keys have no `Debug`.

mod nonce;
mod secret;
mod verifier;

pub use nonce::{NonceCheck, Nonces};
pub use secret::{Credential, MintError, Secrets, id, mint};
pub use verifier::{AuthFailure, Authenticated, Verifier};
