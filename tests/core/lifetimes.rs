//! Every lifetime to its edge: RFC 8656 §7.2, §8, §9, §12. Ten minutes take microseconds.

use std::time::Duration;

use crate::lab::{Client, Lab, PEER};

const HERE: &str = "192.0.2.9:40000";
const TICK: Duration = Duration::from_millis(1);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn rfc8656_7_2_an_allocation_lives_ten_minutes() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    lab.advance(seconds(600) - TICK);
    assert_eq!((lab.allocations(), lab.open.len()), (1, 1));
    lab.advance(TICK);
    assert_eq!((lab.allocations(), lab.open.len()), (0, 0));
    assert_eq!(lab.server.poll_timeout(), None, "nothing is left to wait for");
}

#[test]
fn rfc8656_8_a_refresh_counts_from_when_it_came() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    for _ in 0..50 {
        lab.advance(seconds(599));
        if client.refresh(&mut lab, 600).error == Some(438) {
            return; // an hour has passed: nonces have their own test
        }
    }
    panic!("the nonce never expired");
}

#[test]
fn rfc8656_9_a_permission_lives_five_minutes_and_data_does_not_refresh_it() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.permit(&mut lab, PEER);
    for _ in 0..299 {
        lab.advance(seconds(1));
        assert_eq!(client.send(&mut lab, PEER, b"x").len(), 1);
        assert_eq!(lab.peer_sends(relayed, PEER, b"x").len(), 1);
    }
    lab.advance(seconds(1));
    assert_eq!(client.send(&mut lab, PEER, b"x"), []);
    assert_eq!(lab.peer_sends(relayed, PEER, b"x"), []);
    client.permit(&mut lab, PEER);
    assert_eq!(client.send(&mut lab, PEER, b"x").len(), 1);
}

#[test]
fn rfc8656_12_a_channel_lives_ten_minutes() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    client.refresh(&mut lab, 3600);
    lab.advance(seconds(599));
    client.permit(&mut lab, PEER);
    assert_eq!(client.channel(&mut lab, 0x4000, b"x").len(), 1);
    lab.advance(seconds(1));
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), [], "the channel is over");
    let crate::lab::Event::ToClient(_, bytes) = lab.peer_sends(relayed, PEER, b"x").remove(0) else {
        panic!()
    };
    crate::lab::data_indication(&bytes);
}

#[test]
fn rfc8656_12_an_expired_channel_is_held_five_minutes_for_the_same_pair() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    client.refresh(&mut lab, 3600);
    lab.advance(seconds(600 + 299));
    assert_eq!(client.bind(&mut lab, 0x4000, "1.1.1.1:1"), Some(400));
    assert_eq!(client.bind(&mut lab, 0x4001, PEER), Some(400));
    lab.advance(seconds(1));
    assert_eq!(client.bind(&mut lab, 0x4000, "1.1.1.1:1"), None);
    assert_eq!(client.bind(&mut lab, 0x4001, PEER), None);
    // The same pair may come back at any time.
    lab.advance(seconds(700));
    assert_eq!(client.bind(&mut lab, 0x4001, PEER), None);
    assert_eq!(client.channel(&mut lab, 0x4001, b"x").len(), 1);
}

#[test]
fn rfc8656_7_2_everything_of_an_allocation_goes_with_it() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let first = client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    lab.advance(seconds(600));
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), []);
    let second = client.allocate(&mut lab);
    assert_ne!(first.port(), second.port(), "the old port rests");
    assert_eq!(client.channel(&mut lab, 0x4000, b"x"), []);
    assert_eq!(client.send(&mut lab, PEER, b"x"), []);
    assert_eq!(lab.peer_sends(second, PEER, b"x"), []);
}

#[test]
fn the_next_deadline_is_known_at_once_for_a_hundred_thousand_allocations() {
    // Two relay addresses give twice 65,000 ports.
    let mut lab = Lab::with(|settings| settings.ports = 1024..=65535);
    let mut allocated = 0;
    for n in 0..50_000_u32 {
        let client =
            Client::new(&mut lab, &format!("192.0.{}.{}:{}", 2 + n / 25_000, 1 + n % 250, 1024 + n / 250));
        client.allocate(&mut lab);
        let six =
            Client::new(&mut lab, &format!("198.51.{}.{}:{}", 2 + n / 25_000, 1 + n % 250, 1024 + n / 250));
        six.allocate_v6(&mut lab);
        allocated += 2;
    }
    assert_eq!((allocated, lab.allocations()), (100_000, 100_000));
    // Asking costs the same whatever the number: a million questions finish in no time.
    let deadline = lab.server.poll_timeout();
    assert!((0..1_000_000).all(|_| lab.server.poll_timeout() == deadline));
    assert_eq!(deadline, Some(lab.mono + seconds(600)));
    lab.advance(seconds(600));
    assert_eq!((lab.allocations(), lab.open.len(), lab.server.poll_timeout()), (0, 0, None));
}

#[test]
fn refreshing_over_and_over_leaves_no_trail_of_timers() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    for n in 0..3000 {
        client.refresh(&mut lab, 600 + n % 3000);
        client.bind(&mut lab, 0x4000, PEER);
        client.permit(&mut lab, PEER);
    }
    client.refresh(&mut lab, 0);
    let mut wakeups = 0;
    while let Some(at) = lab.server.poll_timeout() {
        lab.mono = lab.mono.max(at);
        lab.server.handle_timeout(lab.now());
        wakeups += 1;
    }
    assert!(wakeups <= 3, "{wakeups} entries for one allocation");
}

#[test]
fn allocations_that_come_and_go_leave_no_trail_of_timers() {
    let mut lab = Lab::new();
    for n in 0..5000_u32 {
        let client = Client::new(&mut lab, &format!("192.0.2.{}:{}", 1 + n % 250, 20_000 + n / 250));
        client.allocate(&mut lab);
        client.refresh(&mut lab, 0);
        lab.advance(TICK);
    }
    let mut wakeups = 0;
    while let Some(at) = lab.server.poll_timeout() {
        lab.mono = lab.mono.max(at);
        lab.server.handle_timeout(lab.now());
        wakeups += 1;
    }
    assert!(wakeups <= 1100, "{wakeups} moments at which nothing happens");
}
