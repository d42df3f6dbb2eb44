//! The signaling state machine. Pure.
