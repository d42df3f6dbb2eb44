//! What clients do, whatever carries their messages.

use std::net::{SocketAddr, UdpSocket};

use crate::client::{Client, Data};
use crate::rig::{payload, peer};

pub(crate) const CHANNEL: u16 = 0x4001;

/// Messages that need padding and such that need none, both ways, also of `more` bytes; the peer and the relayed address.
pub(crate) fn relays_in_channels_and_indications(
    client: &mut Client,
    family: u8,
    more: usize,
) -> (UdpSocket, SocketAddr) {
    assert_eq!(client.mapped(), client.local());
    let relayed = client.allocate(family);
    let (peer, address) = peer(if family == 1 { "127.0.0.1" } else { "::1" });
    let lengths = [0, 1, 2, 3, 4, 5, more];
    let mut buffer = vec![0; more + 1];
    client.permit(address);
    for len in lengths {
        client.send_indication(address, &payload(1, len));
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (len, relayed));
        assert_eq!(buffer[..len], payload(1, len));
        peer.send_to(&payload(2, len), relayed).unwrap();
        assert_eq!(client.recv(), Data::Indication(address, payload(2, len)));
    }
    client.bind(CHANNEL, address);
    for len in lengths {
        client.send_channel(CHANNEL, &payload(3, len));
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (len, relayed));
        assert_eq!(buffer[..len], payload(3, len));
        peer.send_to(&payload(4, len), relayed).unwrap();
        assert_eq!(client.recv(), Data::Channel(CHANNEL, payload(4, len)));
    }
    (peer, relayed)
}

/// One has a channel to the other, which answers in indications.
pub(crate) fn call_each_other(mut a: Client, mut b: Client) {
    let (relayed_a, relayed_b) = (a.allocate(1), b.allocate(1));
    a.bind(CHANNEL, relayed_b);
    b.permit(relayed_a);
    for len in [0, 1, 2, 3, 4, 5, 6, 7, 8, 1200] {
        a.send_channel(CHANNEL, &payload(1, len));
        assert_eq!(b.recv(), Data::Indication(relayed_a, payload(1, len)));
        b.send_indication(relayed_a, &payload(2, len));
        assert_eq!(a.recv(), Data::Channel(CHANNEL, payload(2, len)));
    }
}
