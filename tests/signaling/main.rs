//! Signaling from outside: the pure hub in simulated time, and real sockets against a real server.

mod calls;
mod chaos;
mod limits;
mod native;
mod raw;
mod server;
mod sim;
mod socketio;
mod sockets;
mod tokens;
mod web;
