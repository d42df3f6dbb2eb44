//! Signaling from outside: the pure hub in simulated time, and real sockets against a real server.

mod attack;
mod calls;
mod chaos;
mod consultations;
mod engineio;
mod journal;
mod kept;
mod limits;
mod matrix;
mod native;
mod openapi;
mod peerjs;
mod raw;
mod server;
mod sim;
mod socketio;
mod sockets;
mod timeline;
mod tokens;
mod web;
