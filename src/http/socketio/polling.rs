//! Engine.IO v4 over polling: a GET takes the packets that wait, or waits for some; a POST brings packets. A WebSocket
//! of the same session may take its place (the upgrade), after which nothing of the polling is left.
//!
//! Requests and the session's task meet at a [`Door`], which goes with the task.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::ws::{Message, WebSocket};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::super::ice::problem;
use super::super::outgoing::SOCKET_FRAMES;
use super::heartbeat::{Beat, Heartbeat};
use super::{App, Incoming, Question, Session, Text, Visitor, handshake};

/// Packets that may wait for the session's task. A POST with more of them waits, too.
const INPUTS: usize = 32;

/// Bytes that may wait for the next poll, on top of one packet.
const WAITING: usize = 1024 * 1024;

/// How long an upgrade may take from its probe on, during which no poll waits.
const UPGRADE: Duration = Duration::from_secs(10);

/// Between the packets of one request.
const SEPARATOR: char = '\u{1e}';

/// The sessions that poll, by their ids.
pub(in crate::http) struct Doors {
    app: Arc<App>,
    open: Mutex<HashMap<String, Arc<Door>>>,
}

/// Where the requests of one session and its task meet.
struct Door {
    state: Mutex<State>,
    /// Tells the poll that waits that there is something.
    news: Notify,
}

struct State {
    /// Packets for the client.
    waiting: VecDeque<String>,
    bytes: usize,
    /// Packets of the client; `None` once the session is over.
    packets: Option<mpsc::Sender<Incoming>>,
    is_polled: bool,
    /// Whether a WebSocket is about to take over: polls end with a NOOP.
    is_probed: bool,
}

/// Why a request gets no packets.
enum Refused {
    Unknown,
    /// There is a poll already, which ends the session.
    Second,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Doors {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app, open: Mutex::new(HashMap::new()) }
    }

    fn find(&self, sid: &str) -> Option<Arc<Door>> {
        lock(&self.open).get(sid).cloned()
    }

    /// Ends a session; the poll that waits takes `last` along.
    fn close(&self, sid: &str, last: &str) {
        if let Some(door) = lock(&self.open).remove(sid) {
            door.close(last);
        }
    }

    /// A client comes: it gets a session, whose packets wait for it from now on.
    pub(super) fn open(self: &Arc<Self>, question: &Question) -> Response {
        let Some(visitor) = Visitor::of(question, &self.app) else {
            return problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many connections");
        };
        let limits = &question.settings.limits;
        let sid = self.app.random_name();
        let (sender, packets) = mpsc::channel(INPUTS);
        let door = Arc::new(Door::new(sender));
        lock(&self.open).insert(sid.clone(), door.clone());
        let opening = handshake(&sid, &["websocket"], limits);
        let heartbeat = Heartbeat::new(limits.heartbeat);
        let polling = Polling { doors: self.clone(), sid, door, packets, heartbeat };
        tokio::spawn(Session::new(self.app.clone(), polling.into(), visitor).run());
        answer(opening)
    }

    /// `GET`: what waits, as soon as something does.
    pub(super) async fn poll(&self, sid: &str, question: &Question) -> Response {
        let Some(door) = self.find(sid) else { return unknown() };
        match door.poll(question.settings.limits.frame).await {
            Ok(packets) => answer(packets),
            Err(Refused::Unknown) => unknown(),
            Err(Refused::Second) => {
                self.app.count_refused();
                self.close(sid, "1");
                StatusCode::BAD_REQUEST.into_response()
            }
        }
    }

    /// `POST`: packets of the client.
    pub(super) async fn post(&self, sid: &str, question: &Question, body: Body) -> Response {
        let packets = self.find(sid).and_then(|door| door.packets());
        let Some(packets) = packets else { return unknown() };
        // Of the two errors this is the one that says nothing about its cause.
        let Ok(body) = to_bytes(body, question.settings.limits.frame).await else {
            return self.refuse(sid, StatusCode::PAYLOAD_TOO_LARGE);
        };
        let Ok(body) = std::str::from_utf8(&body) else { return self.refuse(sid, StatusCode::BAD_REQUEST) };
        for packet in body.split(SEPARATOR) {
            let incoming = match packet.as_bytes().first() {
                Some(b'4') => Incoming::Packet(Text::Plain(packet[1..].to_owned())),
                Some(b'b') => Incoming::Binary,
                Some(b'2' | b'3') => Incoming::Alive,
                Some(b'1') => {
                    self.close(sid, "6");
                    break;
                }
                Some(_) | None => return self.refuse(sid, StatusCode::BAD_REQUEST),
            };
            if packets.send(incoming).await.is_err() {
                return unknown();
            }
        }
        answer("ok".to_owned())
    }

    fn refuse(&self, sid: &str, status: StatusCode) -> Response {
        self.app.count_refused();
        self.close(sid, "1");
        status.into_response()
    }

    /// Whether a WebSocket may take over.
    pub(super) fn may_upgrade(&self, sid: &str) -> bool {
        self.find(sid).is_some()
    }

    /// A WebSocket wants to take over: it asks, and says when it does. Until then, or should it not, the client polls.
    pub(super) async fn upgrade(&self, sid: &str, mut socket: Box<WebSocket>) {
        let Some(door) = self.find(sid) else { return };
        let probe = timeout(UPGRADE, socket.recv()).await;
        if !is(probe, "2probe") || !door.probe(true) {
            return;
        }
        let answered = socket.send(Message::Text("3probe".into())).await;
        let takes_over = answered.is_ok() && is(timeout(UPGRADE, socket.recv()).await, "5");
        match door.packets().filter(|_| takes_over) {
            // No request is admitted any more; what those before it brought comes first.
            Some(packets) => {
                lock(&self.open).remove(sid);
                let _ = packets.send(Incoming::Upgraded(socket)).await;
            }
            None => drop(door.probe(false)),
        }
    }
}

/// Whether a text came, and this one.
fn is<E, F>(message: Result<Option<Result<Message, E>>, F>, expected: &str) -> bool {
    matches!(message, Ok(Some(Ok(Message::Text(text)))) if text.as_str() == expected)
}

fn answer(packets: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=UTF-8")], packets).into_response()
}

/// The errors of Engine.IO.
pub(super) fn bad(code: u8, message: &str) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(json!({ "code": code, "message": message }))).into_response()
}

fn unknown() -> Response {
    bad(1, "Session ID unknown")
}

impl Door {
    fn new(packets: mpsc::Sender<Incoming>) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            bytes: 0,
            packets: Some(packets),
            is_polled: false,
            is_probed: false,
        };
        Self { state: Mutex::new(state), news: Notify::new() }
    }

    fn packets(&self) -> Option<mpsc::Sender<Incoming>> {
        lock(&self.state).packets.clone()
    }

    /// Whether there was room.
    fn put(&self, packet: String) -> bool {
        let mut state = lock(&self.state);
        let bytes = state.bytes + packet.len();
        if state.waiting.len() >= SOCKET_FRAMES || (bytes > WAITING && state.bytes > 0) {
            return false;
        }
        state.bytes = bytes;
        state.waiting.push_back(packet);
        self.news.notify_one();
        true
    }

    /// Whether that is new, and the session there.
    fn probe(&self, is_probed: bool) -> bool {
        let mut state = lock(&self.state);
        let is_new = std::mem::replace(&mut state.is_probed, is_probed) != is_probed;
        self.news.notify_one();
        is_new && state.packets.is_some()
    }

    fn close(&self, last: &str) {
        let mut state = lock(&self.state);
        state.packets = None;
        state.waiting.push_back(last.to_owned());
        self.news.notify_one();
    }

    async fn poll(&self, most: usize) -> Result<String, Refused> {
        if std::mem::replace(&mut lock(&self.state).is_polled, true) {
            return Err(Refused::Second);
        }
        let _polled = Polled(self);
        loop {
            if let Some(answer) = lock(&self.state).take(most) {
                return answer;
            }
            self.news.notified().await;
        }
    }
}

/// A poll that waits, until it no longer does.
struct Polled<'a>(&'a Door);

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_polled = false;
    }
}

impl State {
    /// What a poll is answered with, if it need not wait: as much as fits into `most` bytes, or one packet.
    fn take(&mut self, most: usize) -> Option<Result<String, Refused>> {
        if self.is_probed && self.packets.is_some() {
            return Some(Ok("6".to_owned()));
        }
        let Some(mut body) = self.waiting.pop_front() else {
            return self.packets.is_none().then_some(Err(Refused::Unknown));
        };
        self.bytes = self.bytes.saturating_sub(body.len());
        while let Some(packet) = self.waiting.pop_front_if(|next| body.len() + 1 + next.len() <= most) {
            self.bytes = self.bytes.saturating_sub(packet.len());
            body.push(SEPARATOR);
            body.push_str(&packet);
        }
        Some(Ok(body))
    }
}

/// A connection that polls.
pub(super) struct Polling {
    doors: Arc<Doors>,
    sid: String,
    door: Arc<Door>,
    packets: mpsc::Receiver<Incoming>,
    heartbeat: Heartbeat,
}

impl Polling {
    /// What comes next; `None` when the connection is over. May be dropped at any time.
    pub(super) async fn receive(&mut self) -> Option<Incoming> {
        loop {
            let incoming = tokio::select! {
                incoming = self.packets.recv() => incoming?,
                beat = self.heartbeat.next() => match beat {
                    Beat::Ask if self.door.put("2".to_owned()) => continue,
                    Beat::Ask | Beat::Dead => return None,
                },
            };
            match incoming {
                Incoming::Alive => self.heartbeat.is_alive(),
                incoming => return Some(incoming),
            }
        }
    }

    /// Whether all of them found room.
    pub(super) fn send(&self, packets: Vec<String>) -> bool {
        packets.into_iter().all(|packet| self.door.put(format!("4{packet}")))
    }

    pub(super) fn close(&self) {
        self.doors.close(&self.sid, "1");
    }

    /// What no poll has taken: a WebSocket takes over.
    pub(super) fn give_up(&self) -> Vec<String> {
        let mut state = lock(&self.door.state);
        state.packets = None;
        self.door.news.notify_one();
        state.waiting.drain(..).collect()
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.doors.close(&self.sid, "1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> (Door, mpsc::Receiver<Incoming>) {
        let (sender, packets) = mpsc::channel(1);
        (Door::new(sender), packets)
    }

    #[tokio::test]
    async fn what_waits_for_a_poll_is_bounded_in_packets_and_bytes_and_so_is_what_it_takes() {
        let (door, _packets) = door();
        assert!(door.put("x".repeat(WAITING + 1)), "one packet always finds room");
        assert!(!door.put("x".to_owned()));
        assert_eq!(door.poll(9).await.ok().map(|body| body.len()), Some(WAITING + 1));
        for _ in 0..SOCKET_FRAMES {
            assert!(door.put("4x".to_owned()));
        }
        assert!(!door.put("4x".to_owned()));
        assert_eq!(door.poll(5).await.ok().as_deref(), Some("4x\u{1e}4x"));
        assert_eq!(lock(&door.state).bytes, 2 * (SOCKET_FRAMES - 2));
    }

    #[tokio::test]
    async fn a_poll_that_was_given_up_leaves_what_waits_to_the_next() {
        let (door, _packets) = door();
        assert!(timeout(Duration::from_millis(1), door.poll(9)).await.is_err());
        door.put("4x".to_owned());
        assert_eq!(door.poll(9).await.ok().as_deref(), Some("4x"));
    }
}
