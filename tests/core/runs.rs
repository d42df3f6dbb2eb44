//! Datagrams that came as one are relayed as if they had come one by one.

use std::time::Duration;

use proptest::prelude::*;
use turnkey::turn::{Bandwidth, Event as Told, PeerPolicy, Stats};

use crate::lab::{Client, Event, Lab, PEER, channel_data, send_indication};

const HERE: &str = "192.0.2.9:40000";
const THERE: &str = "192.0.2.10:40000";
/// Without a channel.
const ANOTHER: &str = "8.8.4.4:5000";
/// Bytes of each datagram.
const STRIDE: usize = 64;

/// What a client sends in datagrams of [`STRIDE`] bytes.
#[derive(Clone, Copy, Debug)]
enum Sent {
    /// On a channel to a peer, to another client, or on none.
    Channel(u16),
    /// Less than there is room for.
    Short,
    Indication,
    Garbage,
}

impl Sent {
    fn bytes(self, lab: &mut Lab, n: usize) -> Vec<u8> {
        let filler = [n as u8; STRIDE];
        let mut bytes = match self {
            Self::Channel(number) => channel_data(number, &filler[4..]),
            Self::Short => channel_data(0x4000, &filler[8..]),
            Self::Indication => send_indication(lab.transaction(), PEER.parse().unwrap(), &filler[36..]),
            Self::Garbage => vec![0xFF; STRIDE],
        };
        bytes.resize(STRIDE, 0);
        bytes
    }
}

/// Two clients with channels to each other and to a peer.
struct Rig {
    lab: Lab,
    one: Client,
    two: Client,
}

impl Rig {
    fn new(bandwidth: Bandwidth) -> Self {
        let mut lab = Lab::with(|settings| {
            settings.bandwidth = bandwidth;
            settings.peers = std::sync::Arc::new(PeerPolicy::default());
        });
        let of_session = |lab: &mut Lab, address| {
            let name = turnkey::credential::id("ann", Some("0123456789abcdef"));
            Client::minted(lab, address, Duration::from_secs(600), &name)
        };
        let (one, two) = (of_session(&mut lab, HERE), of_session(&mut lab, THERE));
        let [to_one, to_two] = [&one, &two].map(|client| client.allocate(&mut lab).to_string());
        for (client, other) in [(&one, &to_two), (&two, &to_one)] {
            assert_eq!(client.bind(&mut lab, 0x4000, PEER), None);
            assert_eq!(client.bind(&mut lab, 0x4001, other), None);
            assert_eq!(client.permit(&mut lab, ANOTHER), None);
        }
        Self { lab, one, two }
    }

    /// What a client sends leaves like this, and is counted like this.
    fn client_sends(mut self, run: &[u8], stride: usize) -> (Vec<Event>, Stats, Vec<Told>) {
        let path = self.one.path;
        let events = self.lab.client_sends_run(path, run, stride);
        self.end(events)
    }

    fn peer_sends(mut self, peer: &str, run: &[u8], stride: usize) -> (Vec<Event>, Stats, Vec<Told>) {
        let relayed = self.lab.relays()[0].1;
        let events = self.lab.peer_sends_run(relayed, peer, run, stride);
        self.end(events)
    }

    fn end(mut self, events: Vec<Event>) -> (Vec<Event>, Stats, Vec<Told>) {
        for client in [&self.one, &self.two] {
            client.refresh(&mut self.lab, 0);
        }
        let told = self.lab.server.take_events(self.lab.now());
        (events, self.lab.server.stats(), told)
    }
}

fn limits() -> impl Strategy<Value = Bandwidth> {
    let tight = Bandwidth { allocation: 500, ..Bandwidth::default() };
    prop_oneof![Just(Bandwidth::default()), Just(tight), Just(Bandwidth { total: 700, ..tight })]
}

fn sent() -> impl Strategy<Value = Sent> {
    let channel = prop_oneof![4 => Just(0x4000), 4 => Just(0x4001), 1 => Just(0x4002)];
    prop_oneof![
        8 => channel.prop_map(Sent::Channel),
        1 => Just(Sent::Short),
        1 => Just(Sent::Indication),
        1 => Just(Sent::Garbage),
    ]
}

/// Groups of the same, as a sender has them, and bytes cut off from the last.
fn runs() -> impl Strategy<Value = (Vec<Sent>, usize)> {
    let groups = prop::collection::vec((sent(), 1_usize..12), 1..6);
    let all = groups.prop_map(|groups| groups.into_iter().flat_map(|(sent, n)| vec![sent; n]).collect());
    (all, 0..STRIDE)
}

proptest! {
    #[test]
    fn of_a_client((all, cut) in runs(), bandwidth in limits()) {
        let [mut together, mut single] = [0, 1].map(|_| Rig::new(bandwidth));
        let mut run: Vec<u8> = Vec::new();
        for (n, sent) in all.into_iter().enumerate() {
            run.extend(sent.bytes(&mut together.lab, n));
            single.lab.transaction();
        }
        run.truncate(run.len() - cut);
        let mut events = Vec::new();
        for datagram in run.chunks(STRIDE) {
            let path = single.one.path;
            events.extend(single.lab.client_sends(path, datagram));
        }
        prop_assert_eq!(together.client_sends(&run, STRIDE), single.end(events));
    }

    #[test]
    fn of_a_peer(len in 0..40 * STRIDE, stride in 1..2 * STRIDE, has_channel: bool, bandwidth in limits()) {
        let peer = if has_channel { PEER } else { ANOTHER };
        let [together, mut single] = [0, 1].map(|_| Rig::new(bandwidth));
        let run: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let relayed = single.lab.relays()[0].1;
        let mut events = Vec::new();
        for datagram in run.chunks(stride) {
            events.extend(single.lab.peer_sends(relayed, peer, datagram));
        }
        if run.is_empty() {
            events = single.lab.peer_sends(relayed, peer, &run);
        }
        prop_assert_eq!(together.peer_sends(peer, &run, stride), single.end(events));
    }
}

#[test]
fn one_look_is_enough_for_all_that_are_alike() {
    let mut rig = Rig::new(Bandwidth::default());
    let run = channel_data(0x4000, &[7; 60]).repeat(16);
    let path = rig.one.path;
    assert_eq!(rig.lab.client_sends_run(path, &run, STRIDE).len(), 16);
    assert_eq!(rig.lab.looks, 1);
    let relayed = rig.lab.relays()[0].1;
    assert_eq!(rig.lab.peer_sends_run(relayed, PEER, &[0; 150], 10).len(), 15);
    assert_eq!(rig.lab.looks, 2);
    // A transaction each.
    assert_eq!(rig.lab.peer_sends_run(relayed, ANOTHER, &[0; 150], 10).len(), 15);
    assert_eq!(rig.lab.looks, 17);
}
