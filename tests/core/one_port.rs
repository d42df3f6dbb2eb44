//! One relay port for all allocations: who may talk to a peer, and who gets what it says.

use std::sync::Arc;
use std::time::Duration;

use turnkey::stun::{AttributeType, Method};
use turnkey::turn::{
    ClientPath, DropReason, IpFields, PeerPolicy, Server, Settings, Shared, Verdict, Via, WorkerId,
};

use crate::lab::{Client, Event, Lab, PEER, UDP, addr, settings};

const SHARED: &str = "198.51.100.1:49152";
const OTHER_PORT: &str = "8.8.8.8:5001";

fn shared() -> Arc<Shared> {
    Arc::new(Shared::with_one_port(&[addr("10.0.0.1:49152"), addr("[2600::1]:49153")]))
}

fn lab() -> Lab {
    Lab::of(settings(), shared())
}

/// The labs of two workers of one process.
fn two_workers(settings: &Settings) -> [Lab; 2] {
    let shared = shared();
    [0, 1].map(|worker| {
        let mut lab = Lab::of(settings.clone(), Arc::clone(&shared));
        lab.server = Server::new(settings.clone(), Arc::clone(&shared), WorkerId(worker), [4 + worker; 32]);
        lab
    })
}

fn client(lab: &mut Lab, n: u8) -> Client {
    let client = Client::new(lab, &format!("192.0.2.{n}:40000"));
    client.allocate(lab);
    client
}

fn comes_from(lab: &mut Lab, peer: &str) -> Verdict {
    let relay = u8::from(addr(peer).is_ipv6());
    lab.server.handle_shared_relay(lab.now(), relay, addr(peer), IpFields::default(), b"hello")
}

/// Who gets what comes from there.
fn receiver(lab: &mut Lab, peer: &str) -> Result<ClientPath, DropReason> {
    match comes_from(lab, peer) {
        Verdict::Forward(forward) => match forward.via {
            Via::Client(path) => Ok(path),
            Via::Relay(..) | Via::Neighbour(..) => panic!("to a peer"),
        },
        Verdict::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_allocations_have_one_relayed_address_a_family() {
    let mut lab = lab();
    for n in 1..=3 {
        assert_eq!(Client::new(&mut lab, &format!("192.0.2.{n}:1")).allocate(&mut lab), addr(SHARED));
        let six = Client::new(&mut lab, &format!("192.0.2.{n}:6")).allocate_v6(&mut lab);
        assert_eq!(six, addr("[2600::1]:49153"));
    }
    assert_eq!(lab.allocations(), 6);
}

#[test]
fn a_peer_is_claimed_by_a_channel_by_a_send_or_by_speaking_first() {
    let mut lab = lab();
    let (one, two) = (client(&mut lab, 1), client(&mut lab, 2));
    assert_eq!(one.bind(&mut lab, 0x4000, PEER), None);
    two.permit(&mut lab, OTHER_PORT);
    assert_eq!(two.send(&mut lab, OTHER_PORT, b"x").len(), 1);
    assert_eq!(receiver(&mut lab, PEER), Ok(one.path));
    assert_eq!(receiver(&mut lab, OTHER_PORT), Ok(two.path));
    // A third port of that host might be meant for either.
    assert_eq!(receiver(&mut lab, "8.8.8.8:1"), Err(DropReason::NoPermission));

    two.permit(&mut lab, "1.1.1.1:0");
    assert_eq!(receiver(&mut lab, "1.1.1.1:7"), Ok(two.path), "nobody else permitted it");
    one.permit(&mut lab, "1.1.1.1:0");
    assert_eq!(receiver(&mut lab, "1.1.1.1:7"), Ok(two.path), "it was claimed then");
    assert_eq!(receiver(&mut lab, "1.1.1.1:8"), Err(DropReason::NoPermission));
    assert_eq!(receiver(&mut lab, "1.0.0.1:7"), Err(DropReason::NoPermission), "nobody permitted it");
}

#[test]
fn rfc8656_12_2_a_peer_that_another_allocation_has_claimed_is_508() {
    let mut lab = lab();
    let (one, two) = (client(&mut lab, 1), client(&mut lab, 2));
    assert_eq!(one.bind(&mut lab, 0x4000, PEER), None);
    assert_eq!(two.bind(&mut lab, 0x4000, PEER), Some(508));
    assert_eq!(two.permit(&mut lab, PEER), None, "other ports of the host are free");
    assert_eq!(two.send(&mut lab, PEER, b"x"), []);
    assert_eq!(lab.server.stats().drops[DropReason::PeerClaimed as usize], 1);
    assert_eq!(two.bind(&mut lab, 0x4000, OTHER_PORT), None);
    assert_eq!(one.bind(&mut lab, 0x4000, PEER), None, "a refresh");
    assert_eq!((receiver(&mut lab, PEER), receiver(&mut lab, OTHER_PORT)), (Ok(one.path), Ok(two.path)));

    one.refresh(&mut lab, 0);
    assert_eq!(two.bind(&mut lab, 0x4001, PEER), None, "free with its allocation");
    assert_eq!(receiver(&mut lab, PEER), Ok(two.path));
}

#[test]
fn rfc8656_9_a_claim_ends_with_its_permission() {
    let mut lab = lab();
    let (one, two) = (client(&mut lab, 1), client(&mut lab, 2));
    one.permit(&mut lab, PEER);
    assert_eq!(one.send(&mut lab, PEER, b"x").len(), 1);
    lab.advance(Duration::from_secs(200));
    two.permit(&mut lab, PEER);
    assert_eq!(two.send(&mut lab, PEER, b"x"), []);
    lab.advance(Duration::from_secs(100));
    assert_eq!(receiver(&mut lab, PEER), Ok(two.path), "the only permission left");
    assert_eq!(two.send(&mut lab, PEER, b"x").len(), 1);
}

#[test]
fn rfc8656_12_a_claim_ends_with_its_channel() {
    let mut lab = lab();
    let (one, two) = (client(&mut lab, 1), client(&mut lab, 2));
    assert_eq!(one.bind(&mut lab, 0x4000, PEER), None);
    let keep_alive = |lab: &mut Lab, client: &Client| assert_eq!(client.refresh(lab, 3600).error, None);
    keep_alive(&mut lab, &one);
    keep_alive(&mut lab, &two);
    // The permission ends after five minutes, the channel after ten, and is held for five more.
    lab.advance(Duration::from_secs(899));
    assert_eq!(receiver(&mut lab, PEER), Err(DropReason::NoPermission));
    assert_eq!(two.bind(&mut lab, 0x4000, PEER), Some(508));
    lab.advance(Duration::from_secs(1));
    assert_eq!(two.bind(&mut lab, 0x4000, PEER), None);
}

#[test]
fn one_allocation_claims_no_more_than_256_peers() {
    let mut lab = lab();
    let one = client(&mut lab, 1);
    one.permit(&mut lab, PEER);
    for port in 1..=256 {
        assert_eq!(one.send(&mut lab, &format!("8.8.8.8:{port}"), b"x").len(), 1);
    }
    assert_eq!(one.send(&mut lab, "8.8.8.8:257", b"x"), []);
    assert_eq!(one.bind(&mut lab, 0x4000, "8.8.8.8:257"), Some(508));
    assert_eq!(receiver(&mut lab, "8.8.8.8:257"), Err(DropReason::PeerClaimed));
    assert_eq!(one.send(&mut lab, "8.8.8.8:256", b"x").len(), 1, "those it has go on");
    one.refresh(&mut lab, 0);
    // All of them are free again.
    let two = client(&mut lab, 2);
    two.permit(&mut lab, PEER);
    for port in 1..=256 {
        assert_eq!(two.send(&mut lab, &format!("8.8.8.8:{port}"), b"x").len(), 1);
    }
}

#[test]
fn rfc8656_7_2_pairs_reservations_and_even_ports_where_it_is_odd_are_508() {
    let mut lab = lab();
    let client = Client::new(&mut lab, "192.0.2.1:1");
    let mut ask = |kind: AttributeType, value: &[u8], family: &[u8]| {
        let fill = |w: &mut turnkey::stun::MessageWriter<'_>| {
            w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP).attribute(kind, value);
            if !family.is_empty() {
                w.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, family);
            }
        };
        client.call(&mut lab, Method::ALLOCATE, fill).error
    };
    assert_eq!(ask(AttributeType::EVEN_PORT, &[0x80], &[]), Some(508));
    assert_eq!(ask(AttributeType::RESERVATION_TOKEN, &[1; 8], &[]), Some(508));
    assert_eq!(ask(AttributeType::EVEN_PORT, &[0], &[2, 0, 0, 0]), Some(508), "49153 is odd");
    // Older clients ask for an even port out of habit; 49152 is one.
    assert_eq!(ask(AttributeType::EVEN_PORT, &[0], &[]), None);
}

#[test]
fn quotas_hold_and_give_their_places_back() {
    let mut lab = Lab::of(Settings { user_quota: 1, ..settings() }, shared());
    let (one, two) = (client(&mut lab, 1), Client::new(&mut lab, "192.0.2.2:1"));
    let ask = |lab: &mut Lab| {
        let fill = |w: &mut turnkey::stun::MessageWriter<'_>| {
            w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP);
        };
        two.call(lab, Method::ALLOCATE, fill).error
    };
    assert_eq!(ask(&mut lab), Some(486));
    one.refresh(&mut lab, 0);
    assert_eq!(ask(&mut lab), None);
}

#[test]
fn rfc8656_7_2_a_dual_allocation_has_the_port_of_each_family() {
    let mut lab = lab();
    let client = Client::new(&mut lab, "192.0.2.1:1");
    let answer = client.call(&mut lab, Method::ALLOCATE, |w| {
        w.attribute(AttributeType::REQUESTED_TRANSPORT, UDP)
            .attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    assert_eq!(answer.error, None);
    let six = "[2600::9]:5000";
    assert_eq!(client.permit(&mut lab, PEER), None);
    assert_eq!(client.bind(&mut lab, 0x4000, six), None);
    assert_eq!((receiver(&mut lab, PEER), receiver(&mut lab, six)), (Ok(client.path), Ok(client.path)));
    // One family can be given up, and its claims with it.
    let refresh = client.call(&mut lab, Method::REFRESH, |w| {
        w.u32(AttributeType::LIFETIME, 0).attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    assert_eq!(refresh.error, None);
    assert_eq!(receiver(&mut lab, six), Err(DropReason::NoPermission));
    assert_eq!(receiver(&mut lab, PEER), Ok(client.path));
    let other = Client::new(&mut lab, "192.0.2.2:1");
    other.allocate_v6(&mut lab);
    assert_eq!(other.bind(&mut lab, 0x4000, six), None);
}

#[test]
fn the_shared_relayed_address_is_no_peer() {
    let mut lab = Lab::of(
        Settings {
            // Even where policy allows all of it.
            peers: Arc::new(PeerPolicy::new(
                vec!["198.51.100.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
                vec![],
                vec![],
                vec![],
            )),
            ..settings()
        },
        shared(),
    );
    let one = client(&mut lab, 1);
    client(&mut lab, 2);
    for own in [SHARED, "10.0.0.1:49152"] {
        assert_eq!(one.permit(&mut lab, own), Some(403));
        assert_eq!(one.bind(&mut lab, 0x4000, own), Some(403));
    }
    assert_eq!(one.permit(&mut lab, "198.51.100.1:1"), None, "other programs of this host are as others");
    assert_eq!(one.send(&mut lab, SHARED, b"x"), []);
    assert_eq!(one.send(&mut lab, "198.51.100.1:1", b"x").len(), 1);
    // Without such an allowance there is nothing at the own address to be reached.
    let mut lab = Lab::with(|settings| settings.addresses[0].public = settings.addresses[0].bind);
    let plain = client(&mut lab, 1);
    assert_eq!(plain.permit(&mut lab, "10.0.0.1:1"), None, "relays of a range may be there");
    let mut private = settings();
    private.addresses[0].public = private.addresses[0].bind;
    let mut lab = Lab::of(private, shared());
    let one = client(&mut lab, 1);
    assert_eq!(one.permit(&mut lab, "10.0.0.1:1"), Some(403));
}

#[test]
fn a_packet_at_another_worker_is_for_the_one_that_has_the_claim() {
    let [mut here, mut there] = two_workers(&settings());
    let (one, two) = (client(&mut here, 1), client(&mut there, 2));
    assert_eq!(one.bind(&mut here, 0x4000, PEER), None);
    assert_eq!(two.bind(&mut there, 0x4000, PEER), Some(508), "claims are known to all workers");
    assert_eq!(comes_from(&mut there, PEER), Verdict::Elsewhere(WorkerId(0)));
    assert_eq!(receiver(&mut here, PEER), Ok(one.path));

    // Who speaks first is delivered by the worker that has the only permission, and claimed there.
    two.permit(&mut there, "1.1.1.1:1");
    assert_eq!(comes_from(&mut here, "1.1.1.1:9"), Verdict::Elsewhere(WorkerId(1)));
    assert_eq!(receiver(&mut there, "1.1.1.1:9"), Ok(two.path));
    one.permit(&mut here, "1.1.1.1:1");
    assert_eq!(comes_from(&mut here, "1.1.1.1:9"), Verdict::Elsewhere(WorkerId(1)));

    // The owner judges: its client's permission has ended, the channel has not.
    here.advance(Duration::from_secs(301));
    assert_eq!(comes_from(&mut there, PEER), Verdict::Elsewhere(WorkerId(0)));
    assert_eq!(receiver(&mut here, PEER), Err(DropReason::NoPermission));
    one.refresh(&mut here, 0);
    assert_eq!(comes_from(&mut there, PEER), Verdict::Drop(DropReason::NoPermission));
    assert_eq!(two.bind(&mut there, 0x4000, PEER), None);
}

#[test]
fn peers_that_are_no_longer_allowed_are_no_longer_claimed() {
    let [mut here, mut there] = two_workers(&settings());
    let (one, two) = (client(&mut here, 1), client(&mut there, 2));
    assert_eq!(one.bind(&mut here, 0x4000, PEER), None);
    let mut denying = settings();
    denying.peers = Arc::new(PeerPolicy::new(vec![], vec!["8.8.8.0/24".parse().unwrap()], vec![], vec![]));
    here.server.reconfigure(denying);
    assert_eq!(two.bind(&mut there, 0x4000, PEER), None);
}

#[test]
fn data_leaves_from_the_shared_port_of_its_family_and_comes_back_on_its_channel() {
    let mut lab = lab();
    let one = client(&mut lab, 1);
    assert_eq!(one.bind(&mut lab, 0x4000, PEER), None);
    let [Event::ToPeer(relay, to, data)] = &one.channel(&mut lab, 0x4000, b"hi")[..] else { panic!() };
    assert_eq!((lab.open[relay], *to, &data[..]), (addr("10.0.0.1:49152"), addr(PEER), &b"hi"[..]));
    let Verdict::Forward(forward) = comes_from(&mut lab, PEER) else { panic!("delivered") };
    assert_eq!(forward.prefix.as_bytes(), [0x40, 0, 0, 5]);
}
