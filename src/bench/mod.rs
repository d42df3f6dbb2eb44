//! turnkey bench: a load generator against any TURN server.
