//! Seed 000 promise by promise, on the pure hub.
//!
//! Elsewhere: S0-02 and S0-13 in `sockets` and `web`. S0-14 names other products and S0-17 the
//! seed's own fault, which every test here contradicts. S0-15's steps are endpoint, exchange and
//! broadcast (here), front-end wiring (the browser tests run the seed's client), TURN and tests
//! across networks (the lab).

use std::time::Duration;

use turnkey::signal::{ClientKey, ConnId, Connect};

use crate::sim::{self, Sim, bare, browser, token};

const OFFER: &str = r#"{"type":"offer","offer":{"type":"offer","sdp":"v=0\r\na=ice-ufrag:aaaa\r\n"}}"#;
const OFFER_2: &str = r#"{"type":"offer","offer":{"type":"offer","sdp":"v=0\r\na=ice-ufrag:bbbb\r\n"}}"#;
const ANSWER: &str = r#"{"type":"answer","answer":{"type":"answer","sdp":"v=0\r\n"}}"#;

fn candidate(n: u32) -> String {
    format!(
        r#"{{"type":"ice-candidate","candidate":{{"candidate":"candidate:{n} 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0","usernameFragment":"aaaa"}}}}"#
    )
}

#[test]
fn s0_01_connecting_is_joining_and_s0_04_messages_go_to_all_others_verbatim() {
    let mut sim = Sim::new();
    let (a, b, c) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)), sim.raw("r", browser(3)));
    let elsewhere = sim.raw("other", browser(4));
    for text in [
        r#"{ "type" : "anything", "n": 1.50, "z":1, "a": "\u00e9" }"#,
        "[1,2,3]",
        "42",
        r#"{"type":7}"#,
        r#"{"a":1,"a":2}"#,
        ANSWER,
    ] {
        sim.frame(a, text);
        assert_eq!(sim.take(b), [text]);
        assert_eq!(sim.take(c), [text]);
    }
    assert!(sim.take(a).is_empty(), "never to the sender");
    assert!(sim.take(elsewhere).is_empty(), "never to another room");
}

#[test]
fn s0_03_a_room_lives_from_its_first_socket_to_its_last() {
    let mut sim = Sim::new();
    assert_eq!(sim.hub.stats().rooms, 0);
    let (a, b) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    assert_eq!((sim.hub.stats().rooms, sim.hub.stats().members), (1, 2));
    sim.lose(a);
    sim.lose(b);
    assert_eq!((sim.hub.stats().rooms, sim.hub.stats().members), (0, 0));
    sim.pass(Duration::from_secs(200));
    assert_eq!(sim.hub.stats().sessions, 0, "nothing is left once the window is over");
    assert_eq!(sim.hub.poll_timeout(), None);
}

#[test]
fn s0_05_s0_06_s0_07_s0_10_offer_answer_and_candidates_pass_both_ways_in_order() {
    let mut sim = Sim::new();
    let (doctor, patient) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    for (from, to) in [(doctor, patient), (patient, doctor)] {
        let sent = [OFFER.to_owned(), candidate(1), ANSWER.to_owned(), candidate(2)];
        for text in &sent {
            sim.frame(from, text);
        }
        assert_eq!(sim.take(to), sent);
    }
}

#[test]
fn s0_08_a_null_candidate_is_tolerated() {
    let mut sim = Sim::new();
    let (a, b) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    sim.frame(a, OFFER);
    for text in [r#"{"type":"ice-candidate","candidate":null}"#, r#"{"type":"ice-candidate"}"#] {
        sim.frame(a, text);
        assert_eq!(sim.take(b).last().expect("relayed"), text);
    }
    assert!(sim.take(a).is_empty());
}

#[test]
fn s0_09_s0_12_nobody_is_told_of_comings_and_goings_unless_asked_for() {
    let mut sim = Sim::new();
    let a = sim.raw("r", browser(1));
    let b = sim.raw("r", browser(2));
    sim.lose(b);
    sim.pass(Duration::from_secs(61));
    assert!(sim.take(a).is_empty());
}

#[test]
fn s0_09_s0_12_presence_events_come_on_request() {
    let mut sim = Sim::new();
    let a = sim.connect(Connect { wants_events: true, ..sim::raw_connect("r", browser(1)) });
    let b = sim.raw("r", browser(2));
    let joined = sim.take_one(a);
    assert_eq!(joined["type"], "peer-joined");
    sim.lose(b);
    assert_eq!(sim.take_one(a)["type"], "peer-away");
    let b = sim.raw("r", browser(2));
    assert_eq!(sim.take_one(a)["type"], "peer-back");
    sim.lose(b);
    sim.pass(Duration::from_secs(61));
    let frames = sim.take_json(a);
    assert_eq!((&frames[0]["type"], &frames[1]["type"]), (&"peer-away".into(), &"peer-left".into()));
    assert_eq!(frames[1]["peer"], joined["peer"]);
}

#[test]
fn s0_11_early_offer_waits_for_the_one_who_joins_later_with_its_candidates_after_it() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    sim.frame(doctor, OFFER);
    sim.frame(doctor, &candidate(1));
    sim.frame(doctor, &candidate(2));
    sim.pass(Duration::from_secs(100));
    let patient = sim.raw("r", browser(2));
    assert_eq!(sim.take(patient), [OFFER.to_owned(), candidate(1), candidate(2)]);
    sim.frame(patient, ANSWER);
    assert_eq!(sim.take(doctor), [ANSWER]);
    let third = sim.raw("r", browser(3));
    assert!(sim.take(third).is_empty(), "an answered offer does not wait");
}

#[test]
fn s0_11_candidates_that_overtook_the_offer_come_after_it() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    sim.frame(doctor, &candidate(1));
    sim.frame(doctor, OFFER);
    let patient = sim.raw("r", browser(2));
    assert_eq!(sim.take(patient), [OFFER.to_owned(), candidate(1)]);

    let mut sim = Sim::new();
    let (doctor, patient) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    sim.frame(doctor, &candidate(1));
    assert!(sim.take(patient).is_empty(), "held for its description");
    sim.frame(doctor, OFFER);
    assert_eq!(sim.take(patient), [OFFER.to_owned(), candidate(1)]);
}

#[test]
fn s0_11_a_newer_offer_replaces_the_older_one_with_its_candidates() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    sim.frame(doctor, OFFER);
    sim.frame(doctor, &candidate(1));
    sim.frame(doctor, OFFER_2);
    let patient = sim.raw("r", browser(2));
    assert_eq!(sim.take(patient), [OFFER_2]);
}

#[test]
fn s0_11_mail_ends_after_its_life() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    sim.frame(doctor, OFFER);
    sim.pass(Duration::from_secs(121));
    assert_eq!(sim.hub.stats().mail_expired, 1);
    let patient = sim.raw("r", browser(2));
    assert!(sim.take(patient).is_empty());
}

#[test]
fn s0_16_two_tabs_of_one_browser_call_each_other() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    sim.frame(doctor, OFFER);
    sim.frame(doctor, &candidate(1));
    let patient = sim.raw("r", browser(1));
    assert_eq!(
        sim.take(patient),
        [OFFER.to_owned(), candidate(1)],
        "the first tab answered a ping: it is another client"
    );
    sim.frame(patient, ANSWER);
    assert_eq!(sim.take(doctor), [ANSWER]);
}

#[test]
fn s0_16_a_held_message_does_not_come_back_to_its_senders_new_socket() {
    for key in [browser(1), bare(1)] {
        let mut sim = Sim::new();
        let doctor = sim.raw("r", key.clone());
        sim.frame(doctor, OFFER);
        sim.lose(doctor);
        let doctor = sim.raw("r", key.clone());
        assert!(sim.take(doctor).is_empty());
        let patient = sim.raw("r", browser(2));
        assert_eq!(sim.take(patient), [OFFER], "and is not lost either");
        sim.frame(patient, ANSWER);
        assert_eq!(sim.take(doctor), [ANSWER]);
    }
}

#[test]
fn s0_16_a_second_connection_is_accepted_while_the_first_is_silently_dead_and_takes_over() {
    for identity in [None, Some(token("dr", None))] {
        let mut sim = Sim::new();
        let dial = |sim: &mut Sim, traits| match &identity {
            None => sim.raw("r", browser(traits)),
            Some(identity) => sim.raw_as("r", bare(traits), identity.clone()),
        };
        let doctor = dial(&mut sim, 1);
        sim.frame(doctor, OFFER);
        let patient = sim.raw("r", browser(2));
        assert_eq!(sim.take(patient), [OFFER]);
        sim.silence(doctor);
        sim.frame(patient, ANSWER);
        sim.frame(patient, &candidate(9));
        let again = dial(&mut sim, 1);
        assert!(sim.take(again).is_empty(), "its own offer does not come back");
        sim.frame(again, &candidate(3));
        assert!(sim.closed(doctor).is_none());
        sim.pass(Duration::from_secs(6));
        assert_eq!(sim.closed(doctor), Some(4440));
        assert_eq!(sim.take(again), [ANSWER.to_owned(), candidate(9)], "what the dead socket never got");
        assert_eq!(sim.take(patient), [candidate(3)], "same sender, no new description needed");
    }
}

#[test]
fn s0_16_a_silent_bare_client_gets_the_benefit_of_the_doubt() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", bare(1));
    sim.silence(doctor);
    sim.frame(doctor, OFFER);
    let patient = sim.raw("r", bare(1));
    assert!(sim.take(patient).is_empty());
    sim.pass(Duration::from_secs(2));
    assert_eq!(sim.take(patient), [OFFER]);
}

#[test]
fn s0_16_an_answer_sent_to_a_closed_socket_is_replayed() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    sim.frame(doctor, OFFER);
    let patient = sim.raw("r", browser(2));
    sim.silence(doctor);
    sim.frame(patient, ANSWER);
    sim.pass(Duration::from_secs(3));
    sim.lose(doctor);
    sim.frame(patient, &candidate(4));
    let doctor = sim.raw("r", browser(1));
    assert_eq!(sim.take(doctor), [ANSWER.to_owned(), candidate(4)]);
}

#[test]
fn s0_16_an_unanswered_offer_is_given_to_the_patients_next_socket() {
    let mut sim = Sim::new();
    let (doctor, patient) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    sim.frame(doctor, OFFER);
    sim.frame(doctor, &candidate(1));
    sim.pass(Duration::from_secs(3));
    assert_eq!(sim.take(patient).len(), 2);
    sim.lose(patient);
    let patient = sim.raw("r", browser(2));
    assert_eq!(sim.take(patient), [OFFER.to_owned(), candidate(1)]);
}

#[test]
fn s0_16_only_the_latest_offer_waits_for_a_raw_client_that_is_away() {
    let mut sim = Sim::new();
    let (doctor, patient) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    sim.lose(patient);
    sim.frame(doctor, OFFER);
    sim.frame(doctor, &candidate(1));
    sim.frame(doctor, OFFER_2);
    let patient = sim.raw("r", browser(2));
    assert_eq!(sim.take(patient), [OFFER_2]);
}

#[test]
fn s0_18_bad_json_is_answered_and_the_socket_stays_up_to_the_strike_limit() {
    let mut sim = Sim::new();
    let (a, b) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    for _ in 0..2 {
        sim.frame(a, "{not json");
        let error = sim.take_one(a);
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"bad_frame".into()));
    }
    sim.frame(a, ANSWER);
    assert_eq!(sim.take(b), [ANSWER], "still up");
    sim.frame(a, "{");
    assert_eq!(sim.take(a).len(), 1);
    assert_eq!(sim.closed(a), Some(4400));
}

#[test]
fn s0_16_candidates_that_overtook_a_restarts_offer_stay_with_it() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    sim.frame(doctor, OFFER_2);
    sim.frame(doctor, &candidate(1));
    sim.frame(doctor, OFFER);
    let patient = sim.raw("r", browser(2));
    assert_eq!(
        sim.take(patient),
        [OFFER.to_owned(), candidate(1)],
        "its fragment is that of the newer offer"
    );
}

#[test]
fn s0_16_several_calls_at_once_do_not_mix() {
    let mut sim = Sim::new();
    let rooms: Vec<_> = (0..10)
        .map(|n| (sim.raw(&format!("r{n}"), browser(2 * n)), sim.raw(&format!("r{n}"), browser(2 * n + 1))))
        .collect();
    for (n, (a, _)) in rooms.iter().enumerate() {
        sim.frame(*a, &format!(r#"{{"type":"n","n":{n}}}"#));
    }
    for (n, (_, b)) in rooms.iter().enumerate() {
        assert_eq!(sim.take(*b), [format!(r#"{{"type":"n","n":{n}}}"#)]);
    }
}

#[test]
fn s0_16_two_people_with_the_same_browser_behind_one_address_are_told_apart_by_their_cookies() {
    let cookie = |c: &str| ClientKey { cookie: Some(c.into()), ..browser(1) };
    let mut sim = Sim::new();
    let doctor = sim.raw("r", cookie("d"));
    sim.frame(doctor, OFFER);
    sim.lose(doctor);
    let patient = sim.raw("r", cookie("p"));
    assert_eq!(sim.take(patient), [OFFER], "not taken for the doctor");
    sim.frame(patient, ANSWER);
    let doctor = sim.raw("r", ClientKey { traits: 2, ..cookie("d") });
    assert_eq!(sim.take(doctor), [ANSWER], "from another network");
}

#[test]
fn s0_16_what_came_while_nobody_was_sure_is_not_sent_twice() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    let patient = sim.raw("r", browser(2));
    sim.silence(doctor);
    sim.frame(patient, OFFER);
    let again = sim.raw("r", browser(1));
    assert_eq!(sim.take(again), [OFFER], "unanswered, so whoever comes gets it");
    sim.frame(patient, &candidate(1));
    sim.lose(doctor);
    let texts = sim.take(again);
    assert_eq!(texts.iter().filter(|t| **t == candidate(1)).count(), 1, "{texts:?}");
}

#[test]
fn s0_16_who_comes_after_somebody_left_gets_nothing_but_negotiation_of_theirs() {
    let mut sim = Sim::new();
    let (a, b, c) = (sim.raw("r", bare(1)), sim.raw("r", bare(1)), sim.raw("r", bare(1)));
    sim.lose(a);
    sim.frame(b, r#"{"type":"chat","message":"old"}"#);
    assert_eq!(sim.take(c).len(), 1);
    assert_eq!(sim.hub.stats().missed, 1, "what is lost is counted");
    let d = sim.raw("r", bare(1));
    sim.frame(b, r#"{"type":"chat","message":"new"}"#);
    assert_eq!(sim.take(d), [r#"{"type":"chat","message":"new"}"#]);
}

#[test]
fn s0_16_of_several_young_sockets_one_succeeds_the_dead_one_and_the_others_get_its_offer() {
    let mut sim = Sim::new();
    let doctor = sim.raw("r", browser(1));
    sim.frame(doctor, OFFER);
    sim.silence(doctor);
    let heir = sim.raw("r", browser(1));
    let other = sim.raw("r", browser(1));
    assert!(sim.take(heir).is_empty() && sim.take(other).is_empty());
    sim.pass(Duration::from_secs(6));
    assert_eq!(sim.closed(doctor), Some(4440));
    assert!(sim.take(heir).is_empty());
    assert_eq!(sim.take(other), [OFFER]);
    sim.frame(other, ANSWER);
    assert_eq!(sim.take(heir), [ANSWER]);
}

#[test]
fn s0_16_who_answers_has_given_up_its_own_offer() {
    let mut sim = Sim::new();
    let (a, b) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    sim.frame(a, OFFER);
    sim.frame(b, OFFER_2);
    sim.frame(a, ANSWER);
    sim.lose(b);
    let c = sim.raw("r", browser(3));
    assert!(sim.take(c).is_empty(), "both offers are settled");
}

#[test]
fn a_socket_is_pinged_every_15_s_and_dead_after_two_missed() {
    let mut sim = Sim::new();
    let a = sim.raw("r", browser(1));
    sim.pass(Duration::from_secs(120));
    assert_eq!(sim.closed(a), None);
    sim.silence(a);
    sim.pass(Duration::from_secs(46));
    assert!(sim.closed(a).is_some());
    assert_eq!(sim.hub.stats().dead_sockets, 1);
}

/// A pair whose first client was cut without anybody noticing, and what the other one sent since.
fn waiting_for_a_dead_socket(sim: &mut Sim) -> ConnId {
    let (doctor, patient) = (sim.raw("r", browser(1)), sim.raw("r", browser(2)));
    sim.frame(doctor, OFFER);
    sim.take(patient);
    sim.silence(doctor);
    sim.frame(patient, ANSWER);
    sim.frame(patient, &candidate(1));
    patient
}

#[test]
fn a_client_that_is_cut_twice_before_anybody_notices_gets_what_waited_for_its_first_socket() {
    let mut sim = Sim::new();
    waiting_for_a_dead_socket(&mut sim);
    let second = sim.raw("r", browser(1));
    sim.silence(second);
    let third = sim.raw("r", browser(1));
    sim.pass(Duration::from_secs(60));
    assert_eq!(sim.take(third), [ANSWER.to_owned(), candidate(1)]);
    assert_eq!(sim.hub.stats().sessions, 2, "the dead sockets are nobody's any more");
}

#[test]
fn a_client_that_is_cut_thrice_gets_all_of_it_once_and_in_order() {
    let mut sim = Sim::new();
    let patient = waiting_for_a_dead_socket(&mut sim);
    for n in 2..4 {
        let next = sim.raw("r", browser(1));
        sim.silence(next);
        sim.frame(patient, &candidate(n));
    }
    let last = sim.raw("r", browser(1));
    sim.frame(patient, &candidate(4));
    sim.pass(Duration::from_secs(60));
    assert_eq!(sim.take(last), [ANSWER.to_owned(), candidate(1), candidate(2), candidate(3), candidate(4)]);
}

#[test]
fn candidates_that_come_while_a_successor_waits_follow_what_its_dead_socket_had() {
    let mut sim = Sim::new();
    let patient = waiting_for_a_dead_socket(&mut sim);
    let second = sim.raw("r", browser(1));
    sim.frame(patient, &candidate(2));
    sim.pass(Duration::from_secs(20));
    assert_eq!(sim.take(second), [ANSWER.to_owned(), candidate(1), candidate(2)]);
}

#[test]
fn a_second_socket_whose_end_is_noticed_first_keeps_the_seat_for_the_third() {
    let mut sim = Sim::new();
    waiting_for_a_dead_socket(&mut sim);
    let second = sim.raw("r", browser(1));
    sim.lose(second);
    sim.pass(Duration::from_secs(30));
    let third = sim.raw("r", browser(1));
    assert_eq!(sim.take(third), [ANSWER.to_owned(), candidate(1)]);
}

#[test]
fn candidates_of_a_second_socket_that_is_cut_as_well_reach_the_others() {
    let mut sim = Sim::new();
    let patient = waiting_for_a_dead_socket(&mut sim);
    let second = sim.raw("r", browser(1));
    sim.frame(second, &candidate(9));
    sim.lose(second);
    sim.pass(Duration::from_secs(30));
    assert_eq!(sim.take(patient), [candidate(9)]);
}

#[test]
fn a_second_socket_that_is_alive_is_the_successor_and_a_third_is_another_client() {
    let mut sim = Sim::new();
    waiting_for_a_dead_socket(&mut sim);
    let second = sim.raw("r", browser(1));
    let third = sim.raw("r", browser(1));
    sim.pass(Duration::from_secs(20));
    assert_eq!(sim.take(second), [ANSWER.to_owned(), candidate(1)]);
    assert!(sim.take(third).is_empty());
}
