//! ICMP errors of relay sockets on their way to the core (RFC 8656 §11.5).

use super::run::Worker;
use crate::io::{Datagrams, SocketRef};
use crate::turn::{Icmp, RelayId};

/// Errors taken from a relay socket in one turn before others have theirs.
const SHARE: usize = 16;

impl<D: Datagrams> Worker<D> {
    /// Hands the errors of the sockets that have some to the core.
    pub(super) fn report_errors(&mut self) {
        let mut erring = std::mem::take(&mut self.erring);
        erring.sort_unstable();
        erring.dedup();
        for name in erring {
            if name.0 >= self.listeners && !self.report_some(name) {
                self.erring.push(name);
            }
        }
    }

    /// Whether there are no more.
    fn report_some(&mut self, name: SocketRef) -> bool {
        let relay = RelayId(name.0 - self.listeners);
        for _ in 0..SHARE {
            let Some(socket) = self.sockets.get(name) else { return true };
            let Some(error) = self.io.peer_error(socket) else { return true };
            if self.outgoing.is_full() {
                self.send();
            }
            let icmp = Icmp { kind: error.kind, code: error.code, data: error.data };
            let reply = self.outgoing.stage();
            let verdict = self.core.handle_peer_error(self.now, relay, error.peer, icmp, reply);
            self.carry_out(verdict, 0);
            self.drain();
        }
        false
    }
}
