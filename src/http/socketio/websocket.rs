//! Engine.IO v4 over a WebSocket that was one from the start: `0` opens, `2` and `3` are ping and pong, `4` is a
//! packet. One task and one timer a connection, and no request is kept.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::extract::ws::{Message, WebSocket};
use axum::extract::{FromRequestParts as _, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::SinkExt as _;
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::super::access::Query;
use super::super::ice::problem;
use super::super::ws::{CLOSE_TIMEOUT, READ_BUFFER, WRITE_BUFFER, WRITE_TIMEOUT};
use super::{App, Carrier, Incoming, Question, Session, Text, Visitor};

/// Whether a request opens such a connection: no session that polls is named.
pub(super) fn is_for(request: &Request) -> bool {
    let query = Query::of(request.uri());
    request.method() == axum::http::Method::GET
        && request.headers().contains_key(axum::http::header::SEC_WEBSOCKET_KEY)
        && query.find("EIO") == Some("4")
        && query.find("transport") == Some("websocket")
        && query.find("sid").is_none()
}

pub(super) async fn open(app: Arc<App>, question: &Question, parts: &mut Parts) -> Response {
    let Some(visitor) = Visitor::of(question, &app) else {
        return problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many connections");
    };
    let limits = &question.settings.limits;
    let upgrade = match WebSocketUpgrade::from_request_parts(parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(limits.frame)
        .max_frame_size(limits.frame);
    let heartbeat = limits.heartbeat;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let opening = json!({
        "sid": app.random_name(),
        "upgrades": [],
        "pingInterval": milliseconds(heartbeat.0),
        "pingTimeout": milliseconds(heartbeat.1),
        "maxPayload": limits.frame,
    });
    let opening = format!("0{opening}");
    upgrade.on_upgrade(async move |socket| {
        let mut carrier = Direct::new(Box::new(socket), heartbeat);
        if carrier.write([opening]).await {
            // A task of its own: that of the upgrade is larger than the connection needs from here on.
            tokio::spawn(Session::new(app, carrier, visitor).run());
        }
    })
}

/// A WebSocket that speaks Engine.IO.
struct Direct {
    socket: Box<WebSocket>,
    heartbeat: (Duration, Duration),
    /// When the next ping is due, or the pong to the last one.
    due: Pin<Box<Sleep>>,
    is_asked: bool,
}

impl Direct {
    fn new(socket: Box<WebSocket>, heartbeat: (Duration, Duration)) -> Self {
        Self { socket, heartbeat, due: Box::pin(sleep(heartbeat.0)), is_asked: false }
    }

    fn expect_within(&mut self, time: Duration) {
        self.due.as_mut().reset(Instant::now() + time);
    }

    async fn write(&mut self, frames: impl IntoIterator<Item = String>) -> bool {
        let writing = async {
            for frame in frames {
                self.socket.feed(Message::Text(frame.into())).await?;
            }
            self.socket.flush().await
        };
        matches!(timeout(WRITE_TIMEOUT, writing).await, Ok(Ok(())))
    }

    /// The client has answered a ping.
    fn is_alive(&mut self) {
        if std::mem::take(&mut self.is_asked) {
            self.expect_within(self.heartbeat.0);
        }
    }
}

impl Carrier for Direct {
    async fn receive(&mut self) -> Option<Incoming> {
        loop {
            let message = tokio::select! {
                message = self.socket.recv() => message?.ok()?,
                () = self.due.as_mut() => {
                    if self.is_asked {
                        return None;
                    }
                    self.is_asked = true;
                    self.expect_within(self.heartbeat.1);
                    if !Box::pin(self.write(["2".to_owned()])).await {
                        return None;
                    }
                    continue;
                }
            };
            match message {
                Message::Text(text) => match text.as_bytes().first() {
                    Some(b'4') => return Some(Incoming::Packet(Text::Framed(text))),
                    Some(b'2' | b'3') => self.is_alive(),
                    Some(b'1') => return None,
                    Some(_) | None => return Some(Incoming::Invalid),
                },
                Message::Binary(_) => return Some(Incoming::Binary),
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return None,
            }
        }
    }

    async fn send(&mut self, packets: Vec<String>) -> bool {
        self.write(packets.into_iter().map(|packet| format!("4{packet}"))).await
    }

    /// Reads until the client has answered, so that what was sent is not lost to a reset.
    async fn close(&mut self) {
        let farewell = async {
            if self.write(["1".to_owned()]).await && self.socket.send(Message::Close(None)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}
