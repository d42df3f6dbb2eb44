//! Sockets. Knows datagrams and byte streams, not TURN.
