//! DTLS for datagram listeners (RFC 6347, RFC 7350), without sockets and clocks.
//!
//! Owns the answer to strangers' hellos, which takes no memory ([`Hello`], [`Cookies`]), the certificate
//! that is shown ([`Identity`]), and one client's association ([`Session`]) over the `dimpl` crate.
//! A session comes into being only when a hello has brought back its cookie. Which sessions there are, their
//! bounds and their sockets belong to the worker. DTLS 1.2 alone: it is what RFC 7350 asks for and what
//! clients of TURN speak.

mod hello;
#[cfg(feature = "server")]
mod identity;
#[cfg(feature = "server")]
mod session;

pub use hello::{COOKIE_LEN, Cookies, Hello, RANDOM_LEN, VERIFY_REQUEST_LEN};
#[cfg(feature = "server")]
pub use identity::{Identity, IdentityError};
#[cfg(feature = "server")]
pub use session::{Event, Failed, MAX_OVERHEAD, MAX_PLAINTEXT, Session};
