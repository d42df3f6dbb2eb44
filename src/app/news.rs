//! What the relay has done goes to signaling, which has the timelines of calls and the books.

use std::time::Instant;

use crate::http::News;
use crate::signal::{Carried, Families, RelayStep, RelayTransport};
use crate::turn::{Account, Event, Happening, Transport};

/// The relay's words in those of signaling.
pub(super) fn translate(events: Vec<(Instant, Event)>) -> Vec<News> {
    events
        .into_iter()
        .map(|(at, event)| News { at, user: event.user, scope: event.session, step: step(&event.what) })
        .collect()
}

fn step(what: &Happening) -> RelayStep {
    match *what {
        Happening::AuthFailed(failure) => RelayStep::AuthFailed(failure.step()),
        Happening::NotAllocated(error) => RelayStep::NotAllocated(error.code()),
        Happening::Allocated { transport, families } => {
            RelayStep::Allocated { transport: spoken(transport), relayed: relayed(families) }
        }
        Happening::FirstByte => RelayStep::FirstByte,
        Happening::Carried(account) => RelayStep::Carried(carried(account)),
        Happening::Ended(account) => RelayStep::Released(carried(account)),
    }
}

fn carried(Account { name, transport, lasted, usage }: Account) -> Carried {
    Carried {
        allocation: name,
        transport: spoken(transport),
        lasted,
        to_peer: (usage.to_peer.packets, usage.to_peer.bytes),
        to_client: (usage.to_client.packets, usage.to_client.bytes),
    }
}

fn spoken(transport: Transport) -> RelayTransport {
    match transport {
        Transport::Udp => RelayTransport::Udp,
        Transport::Tcp => RelayTransport::Tcp,
        Transport::Tls => RelayTransport::Tls,
        Transport::Dtls => RelayTransport::Dtls,
    }
}

fn relayed([ipv4, ipv6]: [bool; 2]) -> Families {
    match (ipv4, ipv6) {
        (true, true) => Families::Both,
        (false, true) => Families::Ipv6,
        (_, false) => Families::Ipv4,
    }
}
