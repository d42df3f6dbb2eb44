//! Rows of offloaded flows against the reference: what a kernel would do by them is what the core would do, and no
//! packet that could go by a row lacks one.

use std::net::SocketAddr;

use turnkey::turn::OffloadRow;

use super::reference::{CLIENTS, Out, PORTS, Reference, relay_ip, worker_of};
use super::{NUMBERS, World};

/// Where a packet goes by the rows.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    Outside(&'a OffloadRow),
    ToClient(&'a OffloadRow),
}

fn is_own_relay(address: SocketAddr) -> bool {
    let own = [0, 1].map(relay_ip);
    PORTS.contains(&address.port()) && own.iter().any(|own| own.0 == address.ip() || own.1 == address.ip())
}

impl World {
    pub(super) fn check_rows(&mut self) {
        for client in 0..CLIENTS {
            NUMBERS.into_iter().for_each(|number| self.check_channel(client, number));
        }
        let now = self.reference.now;
        let mut live = 0;
        for row in self.rows.0.values().filter(|row| now < row.expires && !row.peer_is_relay) {
            let client = self.client_at(row.client);
            let expected = Out::Channel(self.reference.allocations[&client].path, row.channel);
            assert_eq!(self.reference.receive(client, row.peer), expected, "back: {row:?}");
            live += 1;
        }
        if live > 0 {
            self.count("flows offloaded");
        }
    }

    fn client_at(&self, address: SocketAddr) -> usize {
        let is_it = |client: &super::Client| client.path.five_tuple.client == address;
        self.clients.iter().position(is_it).expect("a client of the model")
    }

    fn way(&self, client: usize, number: u16) -> Option<Way<'_>> {
        let (address, now) = (self.clients[client].path.five_tuple.client, self.reference.now);
        let row = self.rows.of_channel(address, number, now)?;
        if !row.peer_is_relay {
            return Some(Way::Outside(row));
        }
        let is_twin = |twin: &&OffloadRow| {
            twin.peer_is_relay && now < twin.expires && (twin.peer, twin.relay) == (row.relay, row.peer)
        };
        self.rows.0.values().find(is_twin).map(Way::ToClient)
    }

    fn check_channel(&mut self, client: usize, number: u16) {
        let expected = self.reference.channel_data(client, number);
        let open = &self.open[worker_of(client)];
        let is_datagram = !Reference::pads(self.clients[client].path);
        match (self.way(client, number), &expected) {
            (Some(Way::Outside(row)), Out::Peer(relay, to)) => {
                assert_eq!((open[relay], *to), (row.relay, row.peer), "{row:?}");
            }
            (Some(Way::ToClient(row)), Out::Channel(path, number)) => {
                assert_eq!((path.five_tuple.client, *number), (row.client, row.channel), "{row:?}");
                let is_apart = worker_of(self.client_at(row.client)) != worker_of(client);
                self.count(match is_apart {
                    true => "flows between workers offloaded",
                    false => "flows between clients offloaded",
                });
            }
            (Some(way), out) => panic!("{way:?}, and the core: {out:?}"),
            (None, Out::Peer(relay, to)) => {
                let is_simple = is_datagram && to.is_ipv4() && open[relay].is_ipv4() && !is_own_relay(*to);
                assert!(!is_simple, "{client} on {number:#x} to {to} has no row");
            }
            (None, _) => {}
        }
    }
}
