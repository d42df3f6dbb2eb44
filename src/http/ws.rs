//! WebSockets: the upgrade, and the loop between one socket and the hub.
//!
//! A refusal is an upgrade and a close code: browsers can read that, but not the answer to a failed
//! upgrade.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::SinkExt as _;
use tokio::time::timeout;

use super::access::{COOKIE_NAME, Denied, Question};
use super::app::{App, Input, unix};
use super::ice::problem;
use super::outgoing::{Command, Outgoing, link};
use super::settings::Settings;
use crate::signal::dialect::native::SUBPROTOCOL;
use crate::signal::dialect::peerjs::LOBBY;
use crate::signal::{Connect, Dialect, close};

/// How long a socket may take for what waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a closed socket may take to answer the close.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes written before they are flushed.
const BATCH: usize = 64 * 1024;

/// Bytes read at once, which each socket has a buffer for: a signaling socket is idle nearly always, and a few
/// candidates fit.
pub(super) const READ_BUFFER: usize = 1024;

/// Bytes written at once.
pub(super) const WRITE_BUFFER: usize = 4096;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// `GET /v1/ws`.
pub(super) async fn native(question: Question, State(app): State<Arc<App>>, upgrade: Upgrade) -> Response {
    open(app, &question, upgrade, Dialect::Native, None)
}

/// `GET /ws/signaling/{room}`.
pub(super) async fn broadcast(
    question: Question,
    State(app): State<Arc<App>>,
    Path(room): Path<String>,
    upgrade: Upgrade,
) -> Response {
    open(app, &question, upgrade, Dialect::Broadcast, Some(room))
}

/// `GET /ws/webrtc/{call_id}`.
pub(super) async fn call(
    question: Question,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    upgrade: Upgrade,
) -> Response {
    open(app, &question, upgrade, Dialect::Call, Some(id))
}

/// `GET /peerjs`: its room is the client's key.
pub(super) async fn peerjs(question: Question, State(app): State<Arc<App>>, upgrade: Upgrade) -> Response {
    let room = question.query.find("key").unwrap_or(LOBBY).to_owned();
    open(app, &question, upgrade, Dialect::PeerJs, Some(room))
}

fn open(
    app: Arc<App>,
    question: &Question,
    upgrade: Upgrade,
    dialect: Dialect,
    room: Option<String>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return problem(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "this path speaks WebSocket");
    };
    let (settings, asker) = (&question.settings, question.asker());
    let upgrade = prepare(upgrade, settings);
    let is_peerjs = dialect == Dialect::PeerJs;
    let known = if is_peerjs { asker.peerjs(settings, unix()) } else { asker.signaling(settings, unix()) };
    let identity = match known {
        Ok(identity) => identity,
        Err(denied) => {
            app.count_refused();
            let (code, reason) = (close_code(&denied), denied.words().1);
            return upgrade.on_upgrade(move |socket| refuse(socket, code, reason));
        }
    };
    let mut key = asker.client_key(settings, identity.as_ref(), &app.hasher);
    if is_peerjs {
        key.declared = asker.query.find("id").map(Into::into);
        key.cookie = asker.query.find("token").map(Into::into);
    }
    let wants_cookie = dialect == Dialect::Broadcast && key.cookie.is_none() && key.is_browser;
    if wants_cookie {
        key.issued = Some(app.random_name().into());
    }
    let cookie = key.issued.as_deref().and_then(|value| set_cookie(value, settings.secure));
    let wants_events = asker.query.find("events") == Some("1");
    let connect = Box::new(Connect { dialect, ip: asker.ip(settings), identity, key, room, wants_events });
    let mut response = upgrade.on_upgrade(async move |socket| {
        // A task of its own: that of the upgrade is larger than the socket needs from here on.
        tokio::spawn(run(app, Box::new(socket), connect));
    });
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// Sizes of the socket, and a subprotocol where the client asked for one: a browser gives up on a
/// server that chooses none.
fn prepare(upgrade: WebSocketUpgrade, settings: &Settings) -> WebSocketUpgrade {
    // Larger frames are read up to this size so that they can be answered with a code.
    let readable = settings.limits.frame.saturating_mul(4);
    let mut upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(readable)
        .max_frame_size(readable);
    let requested: Vec<HeaderValue> = upgrade.requested_protocols().cloned().collect();
    let chosen = requested.iter().find(|p| p.as_bytes() == SUBPROTOCOL.as_bytes()).or(requested.first());
    if let Some(protocol) = chosen {
        upgrade.set_selected_protocol(protocol.clone());
    }
    upgrade
}

fn close_code(denied: &Denied) -> u16 {
    if denied.is_authentication() { close::UNAUTHENTICATED } else { close::FORBIDDEN }
}

/// The cookie that tells this browser from another one behind the same address.
fn set_cookie(value: &str, secure: bool) -> Option<HeaderValue> {
    let site = if secure { "SameSite=None; Secure; Partitioned" } else { "SameSite=Lax" };
    HeaderValue::try_from(format!("{COOKIE_NAME}={value}; Path=/ws/; HttpOnly; {site}")).ok()
}

async fn refuse(mut socket: WebSocket, code: u16, reason: String) {
    say_goodbye(&mut socket, code, reason).await;
}

/// Carries frames between one socket and the hub until either is done. Lives as long as the socket, of which there
/// are many: what is large and rare has its memory only while it goes on.
async fn run(app: Arc<App>, mut socket: Box<WebSocket>, connect: Box<Connect>) {
    let _opened = app.opened();
    let id = app.next_conn();
    let (link, outgoing) = link();
    app.tell(Input::Connect { id, connect, link }).await;
    let mut is_readable = true;
    loop {
        tokio::select! {
            commands = outgoing.next() => {
                let Some(commands) = commands else { break };
                match Box::pin(write(&mut socket, commands, &outgoing)).await {
                    Written::All => {}
                    Written::Close(code, reason) => {
                        Box::pin(say_goodbye(&mut socket, code, reason)).await;
                        break;
                    }
                    Written::Not => break,
                }
            }
            message = socket.recv(), if is_readable => {
                let Some(input) = input(id, message) else { break };
                // Nothing can be read after a message that was not read to its end.
                is_readable = !matches!(input, Some(Input::Oversized { .. }));
                if let Some(input) = input {
                    app.tell(input).await;
                }
            }
        }
    }
    app.tell(Input::Disconnect { id }).await;
}

/// What a message means to the hub; the outer `None` ends the socket.
fn input(id: crate::signal::ConnId, message: Option<Result<Message, axum::Error>>) -> Option<Option<Input>> {
    match message? {
        Ok(Message::Text(text)) => Some(Some(Input::Frame { id, text })),
        Ok(Message::Binary(bytes)) => Some(Some(Input::Binary { id, size: bytes.len() })),
        Ok(Message::Pong(payload)) => {
            let seq = <[u8; 8]>::try_from(&payload[..]).map_or(0, u64::from_be_bytes);
            Some(Some(Input::Pong { id, seq }))
        }
        Ok(Message::Ping(_)) => Some(None),
        Ok(Message::Close(_)) => None,
        Err(error) if error.to_string().contains("too long") => Some(Some(Input::Oversized { id })),
        Err(_) => None,
    }
}

/// What became of what was to be written.
enum Written {
    All,
    /// Up to a close.
    Close(u16, String),
    /// The socket is gone, or too slow.
    Not,
}

async fn write(socket: &mut WebSocket, mut commands: VecDeque<Command>, outgoing: &Outgoing) -> Written {
    while !commands.is_empty() {
        match in_time(write_batch(socket, &mut commands, outgoing)).await {
            Some(Ok(None)) => {}
            Some(Ok(Some((code, reason)))) => return Written::Close(code, reason),
            Some(Err(_)) | None => return Written::Not,
        }
    }
    Written::All
}

/// Waits for what is written, for as long as a socket may take. It nearly always finds room at once, and then needs
/// neither timer nor memory.
pub(super) async fn in_time<T>(writing: impl Future<Output = T>) -> Option<T> {
    let mut writing = pin!(writing);
    if let Poll::Ready(written) = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
        return Some(written);
    }
    Box::pin(timeout(WRITE_TIMEOUT, writing)).await.ok()
}

/// Writes as much as is flushed at once; a close is handed back.
async fn write_batch(
    socket: &mut WebSocket,
    commands: &mut VecDeque<Command>,
    outgoing: &Outgoing,
) -> Result<Option<(u16, String)>, axum::Error> {
    let mut written = 0;
    let mut close = None;
    while written < BATCH
        && close.is_none()
        && let Some(command) = commands.pop_front()
    {
        match command {
            Command::Text(text) => {
                written += text.len();
                socket.feed(Message::Text(text)).await?;
            }
            Command::Ping(seq) => socket.feed(Message::Ping(seq.to_be_bytes().to_vec().into())).await?,
            Command::Close(code, reason) => close = Some((code, reason)),
        }
    }
    socket.flush().await?;
    // What was written counts as waiting until it is flushed.
    outgoing.wrote(written);
    Ok(close)
}

/// Closes with a code, and reads until the peer has answered so that the code is not lost to a
/// reset.
async fn say_goodbye(socket: &mut WebSocket, code: u16, reason: String) {
    let frame = CloseFrame { code, reason: reason.into() };
    let farewell = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, farewell).await;
}
