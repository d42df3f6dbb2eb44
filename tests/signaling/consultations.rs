//! Sessions of seed 004: who gets a token, what it opens, and how they end.

use std::time::Duration;

use serde_json::{Value, json};
use turnkey::http::Settings;
use turnkey::signal::dialect::socketio::Vocabulary;
use turnkey::signal::{
    Admission, Code, ConnId, Connect, Consultation, ConsultationAction, Dialect, Identity, Limits, Refusal,
};

use crate::server::{Server, guarded, jwt};
use crate::sim::{Sim, browser, ip, token};

type Answer = Result<(Consultation, Option<Admission>), Refusal>;

pub(crate) fn act(sim: &mut Sim, user: &str, action: ConsultationAction) -> Answer {
    let answer = sim.hub.handle_consultation(sim.now, &token(user, None), action);
    sim.drain();
    answer
}

pub(crate) fn create(doctor: Option<&str>, patient: &str, end: Option<&str>) -> ConsultationAction {
    ConsultationAction::Create {
        doctor: doctor.map(Into::into),
        patient: patient.into(),
        start: None,
        end: end.map(Into::into),
    }
}

/// A session of dora and paul.
pub(crate) fn made(sim: &mut Sim) -> Consultation {
    act(sim, "dora", create(None, "paul", None)).expect("created").0
}

pub(crate) fn join(sim: &mut Sim, user: &str, made: &Consultation) -> Admission {
    let joined = act(sim, user, ConsultationAction::Join(made.id.clone())).expect("joined");
    joined.1.expect("an admission")
}

pub(crate) fn code(answer: Answer) -> Code {
    answer.expect_err("refused").code
}

pub(crate) fn socket(sim: &mut Sim) -> ConnId {
    socket_of(sim, Identity::nobody())
}

pub(crate) fn socket_of(sim: &mut Sim, identity: Identity) -> ConnId {
    let conn = sim.connect(Connect {
        dialect: Dialect::SocketIo(Vocabulary::Invite),
        ip: ip(3),
        identity: Some(identity),
        key: browser(3),
        room: None,
        wants_events: true,
    });
    sim.frame(conn, "0");
    sim.take(conn);
    conn
}

pub(crate) fn enter(sim: &mut Sim, conn: ConnId, room: &str, user: &str, token: &str) -> Value {
    let join = json!({ "room_id": room, "user_id": user, "role": "DOCTOR", "token": token });
    sim.frame(conn, &format!(r#"21["join_room",{join}]"#));
    let answer = sim.take(conn).into_iter().find(|text| text.starts_with("31[")).expect("an answer");
    serde_json::from_str::<Value>(&answer[2..]).expect("json")[0].clone()
}

#[test]
fn s4_03_s4_25_both_roles_are_given_at_creation() {
    let mut sim = Sim::new();
    let made = made(&mut sim);
    assert_eq!((&*made.doctor, &*made.patient, made.status), ("dora", "paul", "scheduled"));
    assert!(made.id.len() == 36 && made.room.starts_with("room_") && !made.room.contains(&*made.id));
    assert_eq!(code(act(&mut sim, "dora", create(None, "dora", None))), Code::BadFrame);
    assert_eq!(code(act(&mut sim, "dora", create(None, "", None))), Code::BadFrame);
    assert_eq!(code(act(&mut sim, "dora", create(None, "paul", Some("tomorrow")))), Code::BadFrame);
    assert_eq!(
        code(act(&mut sim, "dora", create(None, "paul", Some("2001-01-01T00:00:00")))),
        Code::BadFrame
    );
    let guest =
        sim.hub.handle_consultation(sim.now, &Identity::guest("guest", true), create(None, "paul", None));
    assert_eq!(code(guest), Code::Forbidden);
}

#[test]
fn c2_s4_05_s4_07_s4_08_s4_31_a_token_opens_one_room_for_one_user_in_its_role() {
    let mut sim = Sim::new();
    let made = made(&mut sim);
    assert_eq!(code(act(&mut sim, "eve", ConsultationAction::Join(made.id.clone()))), Code::NoSuchCall);
    let first = join(&mut sim, "dora", &made);
    assert!(first.attendee.peer_id.starts_with("doctor_dora_") && first.access_token.len() == 67);
    let again = join(&mut sim, "dora", &made);
    assert_eq!(again.attendee.peer_id, first.attendee.peer_id, "whoever joins again is who it was");
    assert_ne!(again.access_token, first.access_token);
    let paul = join(&mut sim, "paul", &made);

    for admission in [&first, &again] {
        let conn = socket(&mut sim);
        let joined = enter(&mut sim, conn, &made.room, "dora", &admission.access_token);
        assert_eq!((&joined["ok"], &joined["role"]), (&json!(true), &json!("DOCTOR")), "{joined}");
    }
    let conn = socket(&mut sim);
    let joined = enter(&mut sim, conn, &made.room, "paul", &paul.access_token);
    assert_eq!(joined["role"], "PATIENT", "not what it says it is");
    assert_eq!(joined["peer_id"], json!(paul.attendee.peer_id), "the one REST has named");

    let stranger = sim.raw(&made.room, browser(9));
    assert_eq!(sim.closed(stranger), Some(4403), "c2: what REST has made is closed to who shows nothing");
    for (room, user, token, code) in [
        ("another", "dora", &*first.access_token, "unauthenticated"),
        (&*made.room, "paul", &*first.access_token, "forbidden"),
        (&*made.room, "dora", "at_guess", "unauthenticated"),
        (&*made.room, "eve", "good:eve", "forbidden"),
    ] {
        let conn = socket(&mut sim);
        assert_eq!(enter(&mut sim, conn, room, user, token)["code"], code, "{room} {user}");
    }
}

#[test]
fn s4_25_the_doctor_ends_it_and_everybody_is_out() {
    let mut sim = Sim::new();
    let made = made(&mut sim);
    let (dora, paul) = (join(&mut sim, "dora", &made), join(&mut sim, "paul", &made));
    let sockets = [("dora", &dora), ("paul", &paul)].map(|(user, admission)| {
        let conn = socket(&mut sim);
        enter(&mut sim, conn, &made.room, user, &admission.access_token);
        sim.take(conn);
        conn
    });
    let (native, _) = sim.member("paul", &made.room);
    sim.take(native);
    sim.pass(Duration::from_secs(601));
    assert_eq!(code(act(&mut sim, "paul", ConsultationAction::End(made.id.clone()))), Code::Forbidden);
    let ended = act(&mut sim, "dora", ConsultationAction::End(made.id.clone())).expect("ended").0;
    assert_eq!((ended.status, ended.session_duration_minutes), ("ended", Some(11)));
    for conn in sockets {
        let got = sim.take(conn);
        assert!(got.iter().any(|text| text.contains("session_ended")), "{got:?}");
        assert_eq!(sim.closed(conn), Some(4404));
    }
    assert_eq!(sim.closed(native), Some(4404));
    assert_eq!((sim.hub.stats().members, sim.hub.stats().rooms), (0, 0));
    assert_eq!(code(act(&mut sim, "paul", ConsultationAction::Join(made.id.clone()))), Code::WrongState);
    let late = socket(&mut sim);
    assert_eq!(enter(&mut sim, late, &made.room, "dora", &dora.access_token)["code"], "unauthenticated");
    let again = act(&mut sim, "dora", ConsultationAction::End(made.id.clone())).expect("still ended").0;
    assert_eq!(again.session_duration_minutes, Some(11));
    sim.pass(Limits::default().call_memory);
    assert_eq!(code(act(&mut sim, "dora", ConsultationAction::View(made.id))), Code::NoSuchCall, "forgotten");
}

#[test]
fn s4_31_tokens_end_an_hour_after_the_appointed_end() {
    let mut sim = Sim::new();
    // 1,800,000,000 is 2027-01-15T08:00:00Z.
    let made =
        act(&mut sim, "dora", create(None, "paul", Some("2027-01-15T09:30:00+01:00"))).expect("made").0;
    let dora = join(&mut sim, "dora", &made);
    let conn = socket(&mut sim);
    enter(&mut sim, conn, &made.room, "dora", &dora.access_token);
    sim.pass(Duration::from_secs(5399));
    assert_eq!(sim.closed(conn), None);
    sim.pass(Duration::from_secs(2));
    assert!(sim.closed(conn).is_some(), "half past eight, and an hour");
    let seen = act(&mut sim, "paul", ConsultationAction::View(made.id)).expect("remembered").0;
    assert_eq!(seen.status, "ended");
}

#[test]
fn sessions_are_bounded_by_user_and_in_all() {
    let mut sim = Sim::with(Limits { consultations: 3, consultations_per_user: 2, ..Limits::default() });
    let ids: Vec<_> =
        (0..2).map(|_| act(&mut sim, "ann", create(None, "paul", None)).expect("made").0.id).collect();
    assert_eq!(code(act(&mut sim, "ann", create(None, "paul", None))), Code::RateLimited);
    act(&mut sim, "bob", create(None, "paul", None)).expect("another user's");
    assert_eq!(code(act(&mut sim, "carl", create(None, "paul", None))), Code::Busy);
    act(&mut sim, "ann", ConsultationAction::End(ids[0].clone())).expect("ended");
    sim.pass(Limits::default().call_memory);
    act(&mut sim, "ann", create(None, "paul", None)).expect("there is room again");
}

#[tokio::test]
async fn s4_03_s4_04_s4_05_s4_06_c10_sessions_over_rest() {
    let server = Server::start(Settings { origins: vec!["http://app.example".into()], ..guarded() }).await;
    let (dora, paul) = (format!("Bearer {}", jwt("dora", None)), jwt("paul", None));
    let path = "/api/video/sessions";
    let refused = server.request_with("POST", path, &[], r#"{"patient_id":"paul"}"#).await;
    assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("unauthenticated")));
    let auth = [("authorization", &*dora)];
    for body in ["", "{", "[]", r#"{"patient_id":7}"#] {
        let bad = server.request_with("POST", path, &auth, body).await;
        assert_eq!(bad.status, 422, "{body}: {}", bad.body);
        assert_eq!(bad.header("content-type"), Some("application/problem+json"));
    }
    let made = server
        .request_with(
            "POST",
            path,
            &auth,
            r#"{"patient_id":"paul","scheduled_end_time":"2099-01-25T10:30:00"}"#,
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.json()["session_id"].as_str().expect("an id").to_owned();

    // A page that sends no header may carry its token in a cookie, as long as its origin is known.
    let cookie = format!("theme=dark; turnkey_token={paul}");
    let body = r#"{"device_type":"web","browser_info":"x"}"#;
    let joined = server
        .request_with(
            "POST",
            &format!("{path}/{id}/join"),
            &[("cookie", &cookie), ("origin", "http://app.example")],
            body,
        )
        .await;
    assert_eq!((joined.status, joined.header("cache-control")), (200, Some("no-store")), "{}", joined.body);
    let joined = joined.json();
    let fields: Vec<&str> = joined.as_object().expect("an object").keys().map(String::as_str).collect();
    for field in [
        "session_id",
        "room_id",
        "signaling_server_url",
        "attendee",
        "scheduled_start_time",
        "ice_servers",
        "ice_ttl",
        "expires_at",
    ] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    assert_eq!(joined["signaling_server_url"], format!("http://{}/socket.io", server.address));
    assert_eq!(joined["scheduled_end_time"], "2099-01-25T10:30:00", "as it was given");
    let attendee = &joined["attendee"];
    assert_eq!((&attendee["user_id"], &attendee["role"]), (&json!("paul"), &json!("PATIENT")));
    for key in ["attendee_id", "peer_id", "access_token"] {
        assert!(attendee[key].is_string(), "{key} in {attendee}");
    }
    let elsewhere = server
        .request_with(
            "POST",
            &format!("{path}/{id}/join"),
            &[("cookie", &cookie), ("origin", "http://evil.example")],
            body,
        )
        .await;
    assert_eq!(elsewhere.status, 403, "{}", elsewhere.body);

    let seen = server.get(&format!("{path}/{id}"), &auth).await.json();
    assert_eq!((&seen["status"], seen["attendees"].as_array().map(Vec::len)), (&json!("active"), Some(1)));
    assert!(!seen.to_string().contains("at_"), "tokens are shown once");
    let ended = server.request_with("POST", &format!("{path}/{id}/end"), &auth, "").await.json();
    assert_eq!(ended["status"], "ended");
    let over = server.request_with("POST", &format!("{path}/{id}/join"), &auth, "{}").await;
    assert_eq!((over.status, &over.json()["code"]), (409, &json!("wrong_state")));
    assert_eq!(server.request("DELETE", &format!("{path}/{id}"), &auth).await.status, 200);
    assert_eq!(server.get(&format!("{path}/{id}"), &auth).await.status, 404, "forgotten");
}
