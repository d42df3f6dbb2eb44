//! STUN and TURN messages: bytes to meaning and back (RFC 8489, RFC 8656).
