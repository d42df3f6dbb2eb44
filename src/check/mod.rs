//! turnkey check: proves a running server from outside.
