//! Relay sockets that are bound for a client to come back for (RFC 8656 §7.2), whichever worker it
//! reaches: the port stays out of other programs' hands meanwhile.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::io::UdpSocket;

/// The reserved sockets of all workers by their local address. The cores bound their number.
#[derive(Default)]
pub(super) struct Reserved {
    sockets: Mutex<HashMap<SocketAddr, UdpSocket>>,
}

impl Reserved {
    pub(super) fn put(&self, socket: UdpSocket) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.insert(socket.local(), socket);
    }

    pub(super) fn take(&self, address: SocketAddr) -> Option<UdpSocket> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(&address)
    }
}
