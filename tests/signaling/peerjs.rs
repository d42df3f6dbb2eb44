//! PeerJS's protocol: ids, the switchboard of those without a key, what the stock client is told.

use serde_json::{Value, json};
use turnkey::signal::dialect::peerjs::LOBBY;
use turnkey::signal::{ConnId, Connect, Dialect, Identity, Limits};

use crate::server::{Server, guarded, jwt, open};
use crate::sim::{Sim, browser, raw_connect, token};

fn connect(sim: &mut Sim, room: &str, id: &str, secret: &str, identity: Option<Identity>) -> ConnId {
    let mut connect = raw_connect(room, browser(1));
    connect.key.declared = Some(id.into());
    connect.key.cookie = Some(secret.into());
    sim.connect(Connect { dialect: Dialect::PeerJs, identity, ..connect })
}

fn guest(sim: &mut Sim, id: &str) -> ConnId {
    let conn = connect(sim, LOBBY, id, id, Some(Identity::guest("guest", true)));
    assert_eq!(sim.take(conn), [r#"{"type":"OPEN"}"#]);
    conn
}

fn offer(to: &str) -> String {
    let payload = r#"{"sdp":{"type":"offer","sdp":"v=0\r\n"},"type":"data","connectionId":"dc_1","label":"x","n":1.50}"#;
    format!(r#"{{"type":"OFFER","dst":"{to}","payload":{payload}}}"#)
}

#[test]
fn s0_14_a_message_reaches_the_peer_of_that_id_as_it_came() {
    let mut sim = Sim::new();
    let (ann, bob) = (guest(&mut sim, "ann"), guest(&mut sim, "bob"));
    let eve = guest(&mut sim, "eve");
    sim.frame(ann, &offer("bob"));
    let got = sim.take(bob);
    assert!(got[0].starts_with(r#"{"type":"OFFER","src":"ann","payload":{"sdp""#), "{got:?}");
    assert!(got[0].contains(r#""label":"x","n":1.50}"#), "{got:?}");
    sim.frame(ann, r#"{"type":"HEARTBEAT"}"#);
    assert!(sim.take(eve).is_empty() && sim.take(ann).is_empty());
    sim.frame(ann, &offer("nobody"));
    assert_eq!(sim.take_one(ann), json!({ "type": "EXPIRE", "src": "nobody" }));
    sim.frame(ann, r#"{"type":"NONSENSE","dst":"bob"}"#);
    assert_eq!(sim.take_one(ann)["payload"]["code"], "unknown_type");
    sim.frame(bob, r#"{"type":"LEAVE"}"#);
    assert_eq!(sim.closed(bob), Some(1000));
    sim.frame(ann, &offer("bob"));
    assert_eq!(sim.take_one(ann)["type"], "EXPIRE");
}

#[test]
fn an_id_is_one_clients_until_that_is_gone_and_its_own_token_takes_it_back() {
    let mut sim = Sim::new();
    let ann = guest(&mut sim, "ann");
    let other = connect(&mut sim, LOBBY, "ann", "another", Some(Identity::guest("guest", true)));
    assert_eq!(sim.take_one(other)["type"], "ID-TAKEN");
    assert_eq!((sim.closed(other), sim.closed(ann)), (Some(4409), None));
    for first in [true, false] {
        let mut bare = raw_connect(LOBBY, browser(1));
        bare.key.declared = Some("bare".into());
        let conn = sim.connect(Connect { dialect: Dialect::PeerJs, ..bare });
        let answer = sim.take_one(conn)["type"].take();
        assert_eq!(answer, if first { "OPEN" } else { "ID-TAKEN" }, "two without a secret are not one");
    }
    let bob = guest(&mut sim, "bob");
    sim.lose(ann);
    sim.frame(bob, &offer("ann"));
    let again = connect(&mut sim, LOBBY, "ann", "ann", Some(Identity::guest("guest", true)));
    let got = sim.take(again);
    assert_eq!((got.len(), &*got[0]), (2, r#"{"type":"OPEN"}"#), "and what it missed: {got:?}");
    sim.lose(again);
    let other = connect(&mut sim, LOBBY, "ann", "another", Some(Identity::guest("guest", true)));
    assert_eq!(sim.take(other), [r#"{"type":"OPEN"}"#]);
}

#[test]
fn a_token_names_the_id_and_without_one_a_guarded_server_is_closed() {
    let mut sim = Sim::new();
    let conn = connect(&mut sim, LOBBY, "ann", "x", None);
    assert_eq!((sim.take_one(conn)["type"].clone(), sim.closed(conn)), (json!("ERROR"), Some(4401)));
    let conn = connect(&mut sim, LOBBY, "ann", "x", Some(token("eve", None)));
    assert_eq!(sim.closed(conn), Some(4403));
    let conn = connect(&mut sim, LOBBY, "ann", "x", Some(token("ann", None)));
    assert_eq!(sim.closed(conn), None);
}

#[test]
fn the_switchboard_is_larger_than_a_room_bounded_and_closed_to_others() {
    let mut sim = Sim::with(Limits { peers: 20, connects_per_minute: 1000, ..Limits::default() });
    for n in 0..20 {
        guest(&mut sim, &format!("peer{n}"));
    }
    let full = connect(&mut sim, LOBBY, "late", "late", Some(Identity::guest("guest", true)));
    assert_eq!(sim.closed(full), Some(4409));
    let (native, _) = sim.native("nat");
    sim.frame(native, &format!(r#"{{"t":"join","id":1,"d":{{"room":"{LOBBY}"}}}}"#));
    assert_eq!(sim.take_one(native)["d"]["code"], "forbidden");
}

#[tokio::test]
async fn s0_14_peers_over_real_sockets_with_random_words_and_with_tokens() {
    let server = Server::start(open()).await;
    let id = server.get("/peerjs/id", &[]).await.body;
    assert_eq!(id.len(), 16);
    let mut ann = server.ws(&format!("/peerjs?key=peerjs&id={id}&token=k3j4h5&version=1.5.5")).await;
    assert_eq!(ann.next().await["type"], "OPEN");
    let mut bob = server.ws("/peerjs?key=peerjs&id=bob&token=abc&version=1.5.5").await;
    assert_eq!(bob.next().await["type"], "OPEN");
    bob.send(&offer(&id)).await;
    let got: Value = ann.next().await;
    assert_eq!(
        (&got["type"], &got["src"], &got["payload"]["label"]),
        (&json!("OFFER"), &json!("bob"), &json!("x"))
    );

    let server = Server::start(guarded()).await;
    let mut stranger = server.ws("/peerjs?key=peerjs&id=bob&token=abc").await;
    assert_eq!(stranger.close_code().await, Some(4401));
    let mut known = server.ws(&format!("/peerjs?key=peerjs&id=bob&token={}", jwt("bob", None))).await;
    assert_eq!(known.next().await["type"], "OPEN");
}
