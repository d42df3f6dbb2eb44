//! NAT behaviour discovery: RFC 5780.

use turnkey::stun::{AttributeType as A, Class, MessageWriter, Method};
use turnkey::turn::{ClientPath, DropReason, LinkId, MAX_REPLY, Settings, Transport, Vantage};

use crate::lab::{Answer, Event, Lab, addr, path};

const CLIENT: &str = "192.0.2.9:40000";

/// The address with a port and another port, then the other address with the same.
const LOCAL: [&str; 4] = ["10.0.0.1:3478", "10.0.0.1:3479", "10.0.0.2:3478", "10.0.0.2:3479"];
const PUBLIC: [&str; 4] =
    ["198.51.100.1:3478", "198.51.100.1:3479", "198.51.100.2:3478", "198.51.100.2:3479"];

fn with_discovery(settings: &mut Settings) {
    let vantage =
        |n: usize| Vantage { link: LinkId(n as u32 + 5), local: addr(LOCAL[n]), public: addr(PUBLIC[n]) };
    settings.vantages = Some(Box::new([0, 1, 2, 3].map(vantage)));
}

/// The client at one of the four listeners.
fn at(listener: usize) -> ClientPath {
    let mut path = path(CLIENT, Transport::Udp);
    path.five_tuple.server = addr(LOCAL[listener]);
    path.link = LinkId(listener as u32 + 5);
    path
}

fn binding(lab: &mut Lab, fill: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let transaction = lab.transaction();
    let mut writer = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, transaction);
    fill(&mut writer);
    let len = writer.finish().unwrap();
    buffer.truncate(len);
    buffer
}

/// The answer and where it leaves from and goes to.
fn ask(lab: &mut Lab, from: ClientPath, fill: impl FnOnce(&mut MessageWriter<'_>)) -> (ClientPath, Answer) {
    let request = binding(lab, fill);
    let mut events = lab.client_sends(from, &request);
    assert_eq!(events.len(), 1, "{events:?}");
    let Event::Answer(path, answer) = events.remove(0) else { panic!("no answer") };
    (path, answer)
}

fn plain(answer: &Answer, kind: A) -> Option<std::net::SocketAddr> {
    answer.message().attribute(kind)?.as_address()
}

#[test]
fn rfc5780_7_2_the_answer_leaves_from_where_it_is_asked_to() {
    let mut lab = Lab::with(with_discovery);
    for here in 0..4 {
        for (flags, step) in [(0, 0), (2, 1), (4, 2), (6, 3)] {
            let (path, answer) = ask(&mut lab, at(here), |w| {
                w.u32(A::CHANGE_REQUEST, flags);
            });
            let from = here ^ step;
            assert_eq!((path.link, path.five_tuple.server), (at(from).link, addr(LOCAL[from])));
            assert_eq!(path.five_tuple.client, addr(CLIENT));
            assert_eq!(answer.class, Class::Success);
            assert_eq!(plain(&answer, A::RESPONSE_ORIGIN), Some(addr(PUBLIC[from])));
            // Whatever was asked for: the other address and port of the one the request came to.
            assert_eq!(plain(&answer, A::OTHER_ADDRESS), Some(addr(PUBLIC[here ^ 3])));
            assert_eq!(plain(&answer, A::MAPPED_ADDRESS), Some(addr(CLIENT)));
            assert_eq!(answer.xor_address(A::XOR_MAPPED_ADDRESS), Some(addr(CLIENT)));
        }
    }
    // A request that asks for nothing is told the same.
    let (path, answer) = ask(&mut lab, at(0), |w| {
        w.fingerprint();
    });
    assert_eq!(path, at(0));
    assert_eq!(plain(&answer, A::OTHER_ADDRESS), Some(addr(PUBLIC[3])));
    assert_eq!(answer.message().verify_fingerprint(), Some(true));
}

#[test]
fn rfc5780_7_4_only_on_its_listeners_and_only_over_udp() {
    let mut lab = Lab::with(with_discovery);
    let mut tcp = at(0);
    tcp.five_tuple.transport = Transport::Tcp;
    for elsewhere in [tcp, path(CLIENT, Transport::Udp)] {
        let (_, answer) = ask(&mut lab, elsewhere, |_| {});
        assert_eq!((plain(&answer, A::OTHER_ADDRESS), answer.bytes.len()), (None, 32));
    }
    // Nor where it is off.
    let mut off = Lab::new();
    for (lab, path) in [(&mut lab, tcp), (&mut off, at(0))] {
        for kind in [A::CHANGE_REQUEST, A::RESPONSE_PORT, A::PADDING] {
            let (_, answer) = ask(lab, path, |w| {
                w.u32(kind, 6);
            });
            assert_eq!(answer.error, Some(420));
        }
    }
}

#[test]
fn rfc5780_7_5_the_answer_goes_to_the_port_it_is_asked_to() {
    let mut lab = Lab::with(with_discovery);
    for value in [&[0x9C, 0x41][..], &[0x9C, 0x41, 0, 0]] {
        let (path, answer) = ask(&mut lab, at(2), |w| {
            w.attribute(A::RESPONSE_PORT, value).u32(A::CHANGE_REQUEST, 2);
        });
        assert_eq!(path.five_tuple.client, addr("192.0.2.9:40001"));
        assert_eq!(path.link, at(3).link);
        assert_eq!(answer.xor_address(A::XOR_MAPPED_ADDRESS), Some(addr(CLIENT)));
    }
    // Nobody is sent to services that answer whatever they get.
    for port in [0_u16, 7, 19, 53, 123] {
        let request = binding(&mut lab, |w| {
            w.attribute(A::RESPONSE_PORT, &port.to_be_bytes());
        });
        lab.silent(at(0), &request);
    }
    assert_eq!(lab.server.stats().drops[DropReason::SuspiciousSource as usize], 5);
}

#[test]
fn rfc5780_7_6_a_padded_answer_is_as_long_as_the_question_and_no_longer() {
    let mut lab = Lab::with(with_discovery);
    for len in [0, 4, 60, 100, 500, 1200, 1500, 3000] {
        for fingerprint in [false, true] {
            let request = binding(&mut lab, |w| {
                w.attribute(A::PADDING, &vec![0; len]);
                if fingerprint {
                    w.fingerprint();
                }
            });
            let events = lab.client_sends(at(0), &request);
            let [Event::Answer(_, answer)] = &events[..] else { panic!("{events:?}") };
            let least = if fingerprint { 80 } else { 72 };
            assert_eq!(answer.bytes.len(), request.len().clamp(least, MAX_REPLY), "{len}");
            assert!(answer.message().has(A::PADDING));
        }
    }
}

#[test]
fn rfc5780_6_1_what_cannot_be_served_is_refused_from_where_it_came_to() {
    let mut lab = Lab::with(with_discovery);
    let (path, answer) = ask(&mut lab, at(1), |w| {
        w.attribute(A::PADDING, &[0; 4]).u32(A::RESPONSE_PORT, 5 << 16).u32(A::CHANGE_REQUEST, 6);
    });
    assert_eq!((path, answer.error), (at(1), Some(400)));
    for (kind, value) in [(A::CHANGE_REQUEST, &[6][..]), (A::RESPONSE_PORT, &[1, 2, 3])] {
        let (path, answer) = ask(&mut lab, at(1), |w| {
            w.attribute(kind, value);
        });
        assert_eq!((path, answer.error), (at(1), Some(400)));
    }
    let (path, answer) = ask(&mut lab, at(1), |w| {
        w.u32(A::CHANGE_REQUEST, 6).attribute(A(0x7F00), &[]);
    });
    assert_eq!((path, answer.error), (at(1), Some(420)));
    assert_eq!(answer.value(A::UNKNOWN_ATTRIBUTES), Some(vec![0x7F, 0]), "only what is unknown here");
}

#[test]
fn design_4_7_discovery_is_limited_by_source_prefix_as_all_that_strangers_get() {
    let mut lab = Lab::with(|settings| {
        with_discovery(settings);
        settings.unauthenticated_rate = 700;
    });
    let answered = (0..20).filter(|_| {
        let request = binding(&mut lab, |w| {
            w.u32(A::CHANGE_REQUEST, 6);
        });
        !lab.client_sends(at(0), &request).is_empty()
    });
    assert_eq!(answered.count(), 700 / 68);
    assert!(lab.server.stats().drops[DropReason::RateLimited as usize] > 0);
}
