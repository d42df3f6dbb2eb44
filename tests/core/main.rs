//! The pure core under simulated time: no sockets, no clock, no sleep.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod addresses;
mod against_turn_server_proto;
mod allocate;
mod authentication;
mod bandwidth;
mod channels;
mod differential;
mod discovery;
mod dual;
mod events;
#[cfg(feature = "fuzzing")]
mod fuzz_corpus;
mod icmp;
mod ip_header;
mod lab;
mod lifetimes;
mod malformed;
mod mobility;
mod model;
mod modern;
mod offload;
mod one_port;
mod permissions;
mod redirect;
mod relaying;
mod reservations;
mod retransmissions;
mod runs;
mod strangers;
mod stun_codec;
mod tcp_relaying;
mod third_party;
mod why_refused;
