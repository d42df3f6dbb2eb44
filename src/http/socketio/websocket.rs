//! Engine.IO v4 over a WebSocket: `0` opens, `2` and `3` are ping and pong, `4` is a packet. One task and one timer a
//! connection, and no request is kept.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use axum::extract::{FromRequestParts as _, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::SinkExt as _;
use tokio::time::timeout;

use super::super::ice::problem;
use super::super::ws::{CLOSE_TIMEOUT, READ_BUFFER, WRITE_BUFFER, in_time};
use super::heartbeat::{Beat, Heartbeat};
use super::polling::{Doors, bad};
use super::{App, Incoming, Question, Session, Text, Visitor, handshake};
use crate::signal::{ConnId, Limits};

pub(super) async fn open(app: Arc<App>, question: &Question, parts: &mut Parts) -> Response {
    let Some(visitor) = Visitor::of(question, &app) else {
        return problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many connections");
    };
    let limits = &question.settings.limits;
    let upgrade = match prepare(parts, limits).await {
        Ok(upgrade) => upgrade,
        Err(refused) => return refused,
    };
    let heartbeat = limits.heartbeat;
    let opening = handshake(&app.random_name(), &[], limits);
    upgrade.on_upgrade(async move |socket| {
        let mut direct = Direct::new(Box::new(socket), heartbeat);
        if direct.write([text(opening)]).await {
            // A task of its own: that of the upgrade is larger than the connection needs from here on.
            tokio::spawn(Session::new(app, direct.into(), visitor).run());
        }
    })
}

/// A WebSocket that is to take the place of polling.
pub(super) async fn upgrade(
    doors: Arc<Doors>,
    sid: String,
    question: &Question,
    parts: &mut Parts,
) -> Response {
    if !doors.may_upgrade(&sid) {
        return bad(1, "Session ID unknown");
    }
    match prepare(parts, &question.settings.limits).await {
        Ok(upgrade) => upgrade.on_upgrade(async move |socket| doors.upgrade(&sid, Box::new(socket)).await),
        Err(refused) => refused,
    }
}

async fn prepare(parts: &mut Parts, limits: &Limits) -> Result<WebSocketUpgrade, Response> {
    let upgrade =
        WebSocketUpgrade::from_request_parts(parts, &()).await.map_err(|_| bad(3, "Bad request"))?;
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(limits.frame)
        .max_frame_size(limits.frame))
}

/// A WebSocket that speaks Engine.IO.
pub(super) struct Direct {
    socket: Box<WebSocket>,
    heartbeat: Heartbeat,
}

impl Direct {
    pub(super) fn new(socket: Box<WebSocket>, heartbeat: (Duration, Duration)) -> Self {
        Self { socket, heartbeat: Heartbeat::new(heartbeat) }
    }

    /// Writes frames as they are; whether they could be.
    pub(super) async fn write(&mut self, frames: impl IntoIterator<Item = Message>) -> bool {
        let writing = async {
            for frame in frames {
                self.socket.feed(frame).await?;
            }
            self.socket.flush().await
        };
        matches!(in_time(writing).await, Some(Ok(())))
    }

    /// What comes next; `None` when the connection is over. May be dropped at any time.
    pub(super) async fn receive(&mut self) -> Option<Incoming> {
        loop {
            let message = tokio::select! {
                message = self.socket.recv() => message?.ok()?,
                beat = self.heartbeat.next() => match beat {
                    Beat::Ask if Box::pin(self.write([text("2")])).await => continue,
                    Beat::Ask | Beat::Dead => return None,
                },
            };
            match message {
                Message::Text(text) => match text.as_bytes().first() {
                    Some(b'4') => return Some(Incoming::Packet(Text::Framed(text))),
                    Some(b'2' | b'3') => self.heartbeat.is_alive(),
                    Some(b'1') => return None,
                    Some(_) | None => return Some(Incoming::Invalid),
                },
                Message::Binary(_) => return Some(Incoming::Binary),
                Message::Pong(payload) => {
                    if let Some(asked) = Asked::read(&payload) {
                        return Some(Incoming::Received(asked));
                    }
                }
                Message::Ping(_) => {}
                Message::Close(_) => return None,
            }
        }
    }

    /// Sends packets, and asks the socket whether it has them.
    pub(super) async fn send(&mut self, packets: Vec<String>, asked: Option<Asked>) -> bool {
        let packets = packets.into_iter().map(|packet| text(format!("4{packet}")));
        self.write(packets.chain(asked.map(Asked::ping))).await
    }

    /// Reads until the client has answered, so that what was sent is not lost to a reset.
    pub(super) async fn close(&mut self) {
        let farewell = async {
            if self.write([text("1")]).await && self.socket.send(Message::Close(None)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

/// A frame of Engine.IO.
pub(super) fn text(frame: impl Into<Utf8Bytes>) -> Message {
    Message::Text(frame.into())
}

/// What a ping asks for, and its pong says: that the socket has what was sent in a namespace up to a number.
pub(super) struct Asked {
    pub(super) id: ConnId,
    pub(super) seq: u64,
}

impl Asked {
    fn ping(self) -> Message {
        Message::Ping([self.id.0.to_be_bytes(), self.seq.to_be_bytes()].concat().into())
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (id, seq) = payload.split_first_chunk()?;
        Some(Self { id: ConnId(u64::from_be_bytes(*id)), seq: u64::from_be_bytes(seq.try_into().ok()?) })
    }
}
