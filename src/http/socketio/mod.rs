//! Socket.IO: connects namespaces and hands packets to the hub without them. `/`, `/consultation` and `/socket.io`
//! are the same namespace by three names, any other is refused aloud.
//!
//! What carries packets is Engine.IO: `polling`, the upgrade from it, and `websocket`. All keep the order.

mod heartbeat;
mod polling;
mod websocket;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::{Utf8Bytes, WebSocket};
use axum::extract::{FromRequestParts as _, Request};
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use super::access::{Denied, Question};
use super::app::{App, Input, unix};
use super::outgoing::{Command, Outgoing, link};
use crate::signal::dialect::socketio::{Vocabulary, connect_error};
use crate::signal::{ClientKey, Code, ConnId, Connect, Dialect, Identity, Limits, Line, Refusal, close};
use polling::{Doors, Polling, bad};
use websocket::{Asked, Direct, text};

/// The names of the one namespace.
const NAMESPACES: [&str; 3] = ["/", "/consultation", "/socket.io"];

/// Engine.IO sessions a minute of one client, for each of its sockets: some end before they are one.
const TRIES: u32 = 4;

/// Most attachments of one packet. They are refused together, with one answer.
const ATTACHMENTS: usize = 16;

/// Engine.IO sessions that poll.
pub(super) fn doors(app: &Arc<App>) -> Arc<Doors> {
    // What people who run seed 002 look for.
    info!("[WebRTC] ✅ WebRTC handlers registered on root namespace");
    Arc::new(Doors::new(app.clone()))
}

/// A request to `/socket.io/`.
pub(super) async fn serve(app: Arc<App>, doors: Arc<Doors>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let question = match Question::from_request_parts(&mut parts, &app).await {
        Ok(question) => question,
        Err(status) => return status.into_response(),
    };
    let [version, transport, sid] = ["EIO", "transport", "sid"].map(|key| question.query.find(key));
    if version != Some("4") {
        return bad(5, "Unsupported protocol version");
    }
    match (&parts.method, transport, sid) {
        (&Method::GET, Some("websocket"), None) => websocket::open(app, &question, &mut parts).await,
        (&Method::GET, Some("websocket"), Some(sid)) => {
            websocket::upgrade(doors, sid.to_owned(), &question, &mut parts).await
        }
        (&Method::GET, Some("polling"), None) => doors.open(&question),
        (&Method::GET, Some("polling"), Some(sid)) => doors.poll(sid, &question).await,
        (&Method::POST, Some("polling"), Some(sid)) => doors.post(sid, &question, body).await,
        (_, Some("polling" | "websocket"), None) => bad(2, "Bad handshake method"),
        (_, Some("polling" | "websocket"), Some(_)) => bad(3, "Bad request"),
        (_, Some(_) | None, _) => bad(0, "Transport unknown"),
    }
}

/// The packet that opens a connection.
fn handshake(sid: &str, upgrades: &[&str], limits: &Limits) -> String {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let opening = json!({
        "sid": sid,
        "upgrades": upgrades,
        "pingInterval": milliseconds(limits.heartbeat.0),
        "pingTimeout": milliseconds(limits.heartbeat.1),
        "maxPayload": limits.frame,
    });
    format!("0{opening}")
}

/// Who is at the other end of an Engine.IO connection, by its first request.
struct Visitor {
    ip: IpAddr,
    key: ClientKey,
    identity: Result<Option<Identity>, Denied>,
    /// How long there may be no namespace. With polling a client needs another round trip for its first packet.
    patience: Duration,
}

impl Visitor {
    /// `None` where its address has come too often.
    fn of(question: &Question, app: &App) -> Option<Self> {
        let (asker, settings) = (question.asker(), &question.settings);
        let ip = asker.ip(settings);
        let per_minute = settings.limits.connects_per_minute.saturating_mul(TRIES);
        if app.take_opening(ip, per_minute).is_err() {
            app.count_refused();
            return None;
        }
        let identity = asker.signaling(settings, unix());
        let known = identity.as_ref().ok().and_then(Option::as_ref);
        let key = asker.client_key(settings, known, &app.hasher);
        Some(Self { ip, key, identity, patience: 2 * settings.limits.hello })
    }
}

/// What comes in over a connection.
enum Incoming {
    Packet(Text),
    /// An attachment.
    Binary,
    /// An answer to the heartbeat.
    Alive,
    /// The socket has what it was asked for.
    Received(Asked),
    /// The WebSocket that takes over.
    Upgraded(Box<WebSocket>),
    /// No packet of Engine.IO.
    Invalid,
}

/// A packet, in the memory it came in.
enum Text {
    Plain(String),
    /// Behind the type of an Engine.IO packet.
    Framed(Utf8Bytes),
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Framed(text) => &text[1..],
        }
    }
}

/// One Engine.IO connection.
enum Carrier {
    Polling(Box<Polling>),
    Direct(Direct),
}

impl From<Polling> for Carrier {
    fn from(polling: Polling) -> Self {
        Self::Polling(Box::new(polling))
    }
}

impl From<Direct> for Carrier {
    fn from(direct: Direct) -> Self {
        Self::Direct(direct)
    }
}

impl Carrier {
    /// What comes next; `None` when the connection is over. May be dropped at any time.
    async fn receive(&mut self) -> Option<Incoming> {
        match self {
            Self::Polling(polling) => polling.receive().await,
            Self::Direct(direct) => direct.receive().await,
        }
    }

    /// Sends packets, and asks a WebSocket whether it has them; whether they could be sent.
    async fn send(&mut self, packets: Vec<String>, asked: Option<Asked>) -> bool {
        match self {
            Self::Polling(polling) => polling.send(packets),
            Self::Direct(direct) => direct.send(packets, asked).await,
        }
    }

    /// Goes on over a WebSocket, with what waited for a poll first; whether it could be written.
    async fn upgrade(&mut self, socket: Box<WebSocket>, heartbeat: (Duration, Duration)) -> bool {
        let Self::Polling(polling) = self else { return false };
        let waiting = polling.give_up();
        let mut direct = Direct::new(socket, heartbeat);
        let is_written = direct.write(waiting.into_iter().map(text)).await;
        *self = Self::Direct(direct);
        is_written
    }

    /// Ends the connection.
    async fn close(&mut self) {
        match self {
            Self::Polling(polling) => polling.close(),
            Self::Direct(direct) => direct.close().await,
        }
    }
}

/// The namespaces that are connected over one Engine.IO connection.
struct Session {
    app: Arc<App>,
    carrier: Carrier,
    visitor: Visitor,
    names: Vec<Namespace>,
    /// While there is no namespace: when it is over, whatever else comes in.
    ends_at: Instant,
    /// Attachments to come that belong to a packet which is refused as a whole.
    attachments: usize,
}

/// A namespace that is connected.
struct Namespace {
    name: &'static str,
    id: ConnId,
    outgoing: Outgoing,
    /// Whether the client has heard so.
    is_told: bool,
}

/// What happens next.
enum Event {
    In(Option<Incoming>),
    /// What the hub has for the namespace at this place; `None` once it is done with it.
    Out(usize, Option<VecDeque<Command>>),
}

/// Whether the connection goes on.
type GoesOn = bool;

impl Session {
    fn new(app: Arc<App>, carrier: Carrier, visitor: Visitor) -> Self {
        let ends_at = Instant::now() + visitor.patience;
        Self { app, carrier, visitor, names: Vec::new(), ends_at, attachments: 0 }
    }

    async fn run(mut self) {
        let _opened = self.app.opened();
        loop {
            let goes_on = match self.event().await {
                Event::In(None) => break,
                Event::In(Some(Incoming::Binary)) => self.binary().await,
                Event::In(Some(Incoming::Invalid)) => self.invalid(),
                Event::In(Some(Incoming::Alive)) => true,
                Event::In(Some(Incoming::Received(asked))) => self.received(asked).await,
                Event::In(Some(Incoming::Upgraded(socket))) => {
                    let heartbeat = self.app.settings().limits.heartbeat;
                    Box::pin(self.carrier.upgrade(socket, heartbeat)).await
                }
                Event::In(Some(Incoming::Packet(text))) => self.packet(text.as_str()).await,
                Event::Out(at, commands) => Box::pin(self.write(at, commands)).await,
            };
            if !goes_on {
                Box::pin(self.carrier.close()).await;
                break;
            }
        }
        for Namespace { id, .. } in self.names {
            self.app.tell(Input::Disconnect { id }).await;
        }
    }

    async fn event(&mut self) -> Event {
        if self.names.is_empty() {
            let receiving = Box::pin(timeout_at(self.ends_at, self.carrier.receive()));
            let Ok(incoming) = receiving.await else {
                Box::pin(self.carrier.close()).await;
                return Event::In(None);
            };
            return Event::In(incoming);
        }
        let names = &self.names;
        let outgoing = poll_fn(|context| {
            for (at, namespace) in names.iter().enumerate() {
                if let Poll::Ready(commands) = namespace.outgoing.poll_next(context) {
                    return Poll::Ready((at, commands));
                }
            }
            Poll::Pending
        });
        tokio::select! {
            incoming = self.carrier.receive() => Event::In(incoming),
            (at, commands) = outgoing => Event::Out(at, commands),
        }
    }

    fn invalid(&self) -> GoesOn {
        self.app.count_refused();
        false
    }

    async fn binary(&mut self) -> GoesOn {
        if self.attachments > 0 {
            self.attachments -= 1;
        } else if let Some(Namespace { id, .. }) = self.names.first() {
            self.app.tell(Input::Binary { id: *id, size: 1 }).await;
        }
        true
    }

    async fn received(&mut self, Asked { id, seq }: Asked) -> GoesOn {
        if self.names.iter().any(|known| known.id == id) {
            self.app.tell(Input::Pong { id, seq }).await;
        }
        true
    }

    async fn packet(&mut self, text: &str) -> GoesOn {
        let Some(Packet { kind, attachments, name, rest }) = Packet::read(text) else {
            return self.invalid();
        };
        self.attachments = attachments;
        let known = self.names.iter().find(|known| known.name == name).map(|known| known.id);
        match (kind, known) {
            ('0', None) => return Box::pin(self.connect(name, rest)).await,
            (_, Some(id)) => {
                self.app.tell(Input::Frame { id, text: format!("{kind}{rest}").into() }).await;
                if kind == '1' {
                    self.names.retain(|namespace| namespace.id != id);
                    self.ends_at = Instant::now() + self.visitor.patience;
                }
            }
            (_, None) => {}
        }
        true
    }

    async fn connect(&mut self, name: &str, auth: &str) -> GoesOn {
        let Some(name) = NAMESPACES.into_iter().find(|known| *known == name) else {
            return self.refuse(name, &Refusal::new(Code::Forbidden, "Invalid namespace")).await;
        };
        let identity = match &self.visitor.identity {
            Ok(identity) => identity.clone(),
            Err(denied) => {
                let code = if denied.is_authentication() { Code::Unauthenticated } else { Code::Forbidden };
                debug!("{}", Line::NotAuthenticated);
                let refusal = Refusal::new(code, denied.words().1);
                return self.refuse(name, &refusal).await;
            }
        };
        let connect = Box::new(Connect {
            dialect: Dialect::SocketIo(Vocabulary::Invite),
            ip: self.visitor.ip,
            key: self.visitor.key.clone(),
            identity,
            room: None,
            wants_events: true,
        });
        let id = self.app.next_conn();
        let (link, outgoing) = link();
        self.names.push(Namespace { name, id, outgoing, is_told: false });
        self.app.tell(Input::Connect { id, connect, link }).await;
        self.app.tell(Input::Frame { id, text: format!("0{auth}").into() }).await;
        true
    }

    async fn refuse(&mut self, name: &str, refusal: &Refusal) -> GoesOn {
        self.app.count_refused();
        self.carrier.send(vec![named(&connect_error(refusal), name)], None).await
    }

    /// Writes what the hub has for one namespace.
    async fn write(&mut self, at: usize, commands: Option<VecDeque<Command>>) -> GoesOn {
        // A slow consumer; its session waits for it to come back.
        let Some(commands) = commands else { return false };
        let Some(namespace) = self.names.get_mut(at) else { return true };
        let (mut packets, mut bytes) = (Vec::with_capacity(commands.len()), 0);
        let (mut asked, mut end) = (None, None);
        for command in commands {
            match command {
                Command::Text(text) => {
                    bytes += text.len();
                    namespace.is_told |= text.starts_with('0');
                    packets.push(named(&text, namespace.name));
                }
                // Whether the client lives is Engine.IO's to find out; what it has, only a WebSocket can say.
                Command::Ping(seq) => {
                    asked = Some(Asked { id: namespace.id, seq });
                    self.app.tell(Input::Pong { id: namespace.id, seq: 0 }).await;
                }
                Command::Close(code, _) => end = Some(code),
            }
        }
        // The stock client comes back by itself when its transport ends, not when it is disconnected. A CONNECT that
        // was long under way replaces a connection that its client goes on with: that one has to come back.
        let comes_back = matches!(end, Some(close::DRAINING | close::GONE | close::REPLACED));
        // A client that has disconnected expects no answer.
        if end.is_some_and(|code| code != close::NORMAL) && !comes_back && namespace.is_told {
            packets.push(named("1", namespace.name));
        }
        let is_sent = self.carrier.send(packets, asked).await;
        namespace.outgoing.wrote(bytes);
        if end.is_some() {
            self.names.swap_remove(at);
            self.ends_at = Instant::now() + self.visitor.patience;
        }
        is_sent && !comes_back && end != Some(close::TOO_LARGE)
    }
}

/// The parts of a packet: `2/consultation,7["offer",{}]`, `51-/consultation,7["offer",{"_placeholder":true,"num":0}]`.
#[derive(Debug, PartialEq, Eq)]
struct Packet<'a> {
    kind: char,
    attachments: usize,
    name: &'a str,
    rest: &'a str,
}

impl<'a> Packet<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let kind = text.chars().next().filter(|kind| ('0'..='6').contains(kind))?;
        let (attachments, rest) = match kind {
            '5' | '6' => {
                let (count, rest) = text[1..].split_once('-')?;
                (count.parse().ok().filter(|count| *count <= ATTACHMENTS)?, rest)
            }
            _ => (0, &text[1..]),
        };
        if !rest.starts_with('/') {
            return Some(Self { kind, attachments, name: "/", rest });
        }
        let (name, rest) = rest.split_once(',').unwrap_or((rest, ""));
        let name = name.split_once('?').map_or(name, |(name, _)| name);
        Some(Self { kind, attachments, name, rest })
    }
}

/// The packet in a namespace.
fn named(packet: &str, name: &str) -> String {
    match name {
        "/" => packet.to_owned(),
        name => format!("{}{name},{}", &packet[..1], &packet[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_02_packets_lose_and_get_their_namespace() {
        let packet = |kind, attachments, name, rest| Some(Packet { kind, attachments, name, rest });
        assert_eq!(Packet::read(r#"2["a",1]"#), packet('2', 0, "/", r#"["a",1]"#));
        assert_eq!(Packet::read(r#"2/consultation,7["a"]"#), packet('2', 0, "/consultation", r#"7["a"]"#));
        assert_eq!(Packet::read("0/socket.io"), packet('0', 0, "/socket.io", ""));
        assert_eq!(Packet::read("0/x?token=1,{}"), packet('0', 0, "/x", "{}"));
        assert_eq!(Packet::read(r#"52-7["a"]"#), packet('5', 2, "/", r#"7["a"]"#));
        assert_eq!(Packet::read(r#"51-/consultation,["a"]"#), packet('5', 1, "/consultation", r#"["a"]"#));
        for text in ["", "x", "7", r#"5["a"]"#, r#"5-["a"]"#, r#"517-["a"]"#] {
            assert_eq!(Packet::read(text), None, "{text}");
        }
        assert_eq!(named(r#"2["a"]"#, "/consultation"), r#"2/consultation,["a"]"#);
        assert_eq!(named("1", "/"), "1");
    }
}
