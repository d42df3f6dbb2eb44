use super::*;

const LIMITS: RunLimits = RunLimits { count: 4, segment: 1000, bytes: 2500 };

fn route(socket: u32, port: u16) -> Route {
    Route { socket: SocketRef(socket), to: ([192, 0, 2, 1], port).into(), from: None }
}

fn runs(lengths: &[usize]) -> Vec<(usize, usize)> {
    let mut batch = SendBatch::new();
    for len in lengths {
        batch.push(route(0, 1), Fields::default(), &[], 0..*len, 0);
    }
    let flow = batch.flows()[0];
    let mut out: Vec<(usize, usize)> = Vec::new();
    let mut previous = None;
    while let Some(run) = batch.next_run(&flow, previous.as_ref(), &LIMITS) {
        assert_eq!(batch.run_packets(&run).count(), run.count);
        out.push((run.count, run.segment));
        previous = Some(run);
    }
    out
}

#[test]
fn a_run_is_equal_packets_and_at_most_one_shorter_last() {
    assert_eq!(runs(&[100, 100, 40, 100]), [(3, 100), (1, 100)]);
    assert_eq!(runs(&[40, 100, 100]), [(1, 40), (2, 100)]);
}

#[test]
fn rfc8656_14_a_run_has_one_tos_and_one_df() {
    let mut batch = SendBatch::new();
    let plain = Fields::default();
    let (expedited, whole) = (Fields { tos: 0xB8, ..plain }, Fields { dont_fragment: true, ..plain });
    for fields in [plain, plain, expedited, expedited, whole, plain] {
        batch.push(route(0, 1), fields, &[], 0..100, 0);
    }
    let flow = batch.flows()[0];
    let first = batch.next_run(&flow, None, &LIMITS);
    let runs = std::iter::successors(first, |run| batch.next_run(&flow, Some(run), &LIMITS));
    let runs: Vec<_> = runs.map(|run| (run.count, run.fields)).collect();
    assert_eq!(runs, [(2, plain), (2, expedited), (1, whole), (1, plain)], "in their order");
}

#[test]
fn a_run_keeps_the_limits() {
    assert_eq!(runs(&[10; 6]), [(4, 10), (2, 10)]);
    assert_eq!(runs(&[1000; 3]), [(2, 1000), (1, 1000)]);
    assert_eq!(runs(&[1001, 1001]), [(1, 1001), (1, 1001)]);
}

#[test]
fn an_empty_datagram_is_always_alone() {
    assert_eq!(runs(&[0, 0, 5, 0, 5]), [(1, 0), (1, 0), (1, 5), (1, 0), (1, 5)]);
}

#[test]
fn flows_collect_interleaved_packets_in_order() {
    let mut batch = SendBatch::new();
    for n in 0..6 {
        batch.push(route(n as u32 % 2, 7), Fields::default(), &[n], 0..0, 0);
    }
    assert_eq!(batch.flows().len(), 2);
    let order = |flow| batch.packets(flow).map(|p| batch.prefixes[p.prefix as usize]).collect::<Vec<_>>();
    assert_eq!(order(&batch.flows()[0]), [0, 2, 4]);
    assert_eq!(order(&batch.flows()[1]), [1, 3, 5]);
}

#[test]
fn the_order_within_a_route_survives_any_collision() {
    let mut batch = SendBatch::new();
    for n in 0..500_u32 {
        let route = route(n % 3, (n * n % 97) as u16);
        batch.push(route, Fields::default(), &n.to_be_bytes(), 0..0, 0);
    }
    let mut last = std::collections::HashMap::new();
    for flow in batch.flows() {
        for packet in batch.packets(flow) {
            let n = u32::from_be_bytes(batch.prefixes[packet.prefix as usize..][..4].try_into().unwrap());
            let key = (flow.route.socket.0, flow.route.to.port());
            assert!(last.insert(key, n).is_none_or(|before| before < n), "{key:?}");
        }
    }
    assert_eq!(batch.flows().iter().map(|f| batch.packets(f).count()).sum::<usize>(), 500);
}

#[test]
fn packets_pushed_together_are_as_those_pushed_one_by_one() {
    let mut received = RecvBatch::new();
    let (start, slot) = received.claim().expect("a vacant slot");
    slot[..1000].iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8);
    let sizes = [(1, 100), (3, 100), (2, 100), (1, 60), (9, 100), (2, 1), (3, 0), (30, 20)];
    let (mut together, mut single) = (SendBatch::new(), SendBatch::new());
    for (count, len) in sizes {
        let bodies = Bodies { first: start + 4..start + 4 + len, count, stride: len + 4 };
        for body in bodies.iter() {
            single.push(route(0, 1), Fields::default(), b"head", body, 2);
        }
        together.push(route(0, 1), Fields::default(), b"head", bodies, 2);
    }
    let describe = |batch: &SendBatch| {
        let flow = batch.flows()[0];
        let wire = |packet: Packet| packet.parts(batch, &received).concat();
        let all: Vec<_> = batch.packets(&flow).map(wire).collect();
        let runs = std::iter::successors(batch.next_run(&flow, None, &LIMITS), |run| {
            batch.next_run(&flow, Some(run), &LIMITS)
        });
        let runs: Vec<_> =
            runs.map(|run| (run.segment, batch.run_packets(&run).map(wire).collect::<Vec<_>>())).collect();
        assert_eq!(
            runs.iter().flat_map(|(_, packets)| packets).collect::<Vec<_>>(),
            all.iter().collect::<Vec<_>>()
        );
        (all, runs)
    };
    assert_eq!(describe(&together), describe(&single));
    assert_eq!(describe(&together).0.len(), sizes.iter().map(|(count, _)| count).sum::<usize>());
}

#[test]
fn a_packet_is_prefix_body_and_padding() {
    let mut received = RecvBatch::new();
    received.vacant_memory()[..4].copy_from_slice(b"body");
    received.filled(([127, 0, 0, 1], 9).into(), None, 4, 4, 0);
    let mut batch = SendBatch::new();
    batch.push(route(0, 1), Fields::default(), b"pre", HEAD + 1..HEAD + 4, 2);
    batch.stage()[..2].copy_from_slice(b"ok");
    batch.push_staged(route(0, 1), 2);
    let wire: Vec<Vec<u8>> =
        batch.packets(&batch.flows()[0]).map(|p| p.parts(&batch, &received).concat()).collect();
    assert_eq!(wire, [b"preody\0\0".to_vec(), b"ok".to_vec()]);
}

#[test]
fn a_batch_is_full_at_its_bound_and_empty_after_clear() {
    let mut batch = SendBatch::new();
    while !batch.is_full() {
        batch.push(route(0, 1), Fields::default(), &[], 0..1, 0);
    }
    assert_eq!(batch.packets.len(), PACKETS);
    batch.clear();
    assert!(batch.is_empty() && !batch.is_full());
    while !batch.is_full() {
        batch.push_staged(route(0, 1), 1);
    }
    assert_eq!(batch.packets.len(), STAGES);
}

#[test]
fn received_splits_by_stride() {
    let from = ([127, 0, 0, 1], 9).into();
    let split = |len, stride| {
        Received { from, to: None, start: 10, len, stride, tos: 0 }.datagrams().collect::<Vec<_>>()
    };
    assert_eq!(split(25, 10), [10..20, 20..30, 30..35]);
    assert_eq!(split(20, 10), [10..20, 20..30]);
    assert_eq!(split(0, 0), std::slice::from_ref(&(10..10)));
    assert_eq!(split(5, 5), std::slice::from_ref(&(10..15)));
}

#[test]
fn slots_are_claimed_until_none_is_vacant() {
    let mut received = RecvBatch::new();
    for n in 0..SLOTS {
        assert_eq!(received.claim().expect("a vacant slot").0, n * STEP + HEAD);
    }
    assert!(received.claim().is_none());
    received.recycle();
    assert_eq!(received.vacant(), SLOTS);
}

#[test]
fn a_prefix_goes_where_nothing_else_is() {
    let mut received = RecvBatch::new();
    let (first, _) = received.claim().expect("a vacant slot");
    let (second, _) = received.claim().expect("a vacant slot");
    received.bytes_mut(first..first + 12).copy_from_slice(b"HEADbodynext");
    let next = first + 8..first + 12;
    let whole = |bodies: Option<Bodies>| bodies.expect("room").first;
    let none = received.prepend(b"pre", next.start, &next.clone().into());
    assert_eq!(none, None, "that of another datagram");
    let own = whole(received.prepend(b"pre", first, &(first + 4..first + 8).into()));
    assert_eq!(received.bytes(own), b"prebody", "its own header");
    assert_eq!(received.prepend(&[0; 5], next.start, &(next.start + 4..next.end).into()), None);
    let front = whole(received.prepend(&[7; HEAD], second, &(second..second + 1).into()));
    assert_eq!(front, second - HEAD..second + 1, "the room before a slot");
    assert_eq!(received.prepend(&[7; HEAD + 1], second, &(second..second + 1).into()), None);
    let empty = received.prepend(b"pre", second, &(second..second).into());
    assert_eq!(empty, None, "the next one begins there too");
    assert_eq!(received.bytes(next), b"next");
    let bodies = Bodies { first: first + 4..first + 6, count: 2, stride: 6 };
    let both = received.prepend(b"abcd", first, &bodies).expect("each has its own");
    assert_eq!(both.iter().map(|whole| received.bytes(whole)).collect::<Vec<_>>(), [b"abcdbo", b"abcdxt"]);
    let bodies = Bodies { first: second..second + 2, count: 2, stride: 2 };
    assert_eq!(received.prepend(b"x", second, &bodies), None, "there is room before the first only");
}
