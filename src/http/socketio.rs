//! Socket.IO over Engine.IO: `engineioxide` carries texts over polling or WebSocket, in order; this file
//! connects namespaces and hands packets to the hub without them. `/`, `/consultation` and `/socket.io`
//! are the same namespace by three names, any other is refused aloud.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use engineioxide::config::EngineIoConfig;
use engineioxide::handler::EngineIoHandler;
use engineioxide::service::EngineIoService;
use engineioxide::{DisconnectReason, Socket, Str};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::info;

use super::access::Question;
use super::app::{App, Command, Input, Link, SOCKET_FRAMES, unix};
use super::ws::READ_BUFFER;
use crate::signal::dialect::socketio::{Vocabulary, connect_error};
use crate::signal::{Code, ConnId, Connect, Dialect, Refusal, close};

/// The names of the one namespace.
const NAMESPACES: [&str; 3] = ["/", "/consultation", "/socket.io"];

/// Packets that may wait for the hub. A client that sends faster loses its socket, not its session.
const INPUTS: usize = 512;

/// Engine.IO sessions a minute of one client, for each of its sockets: some end before they are one.
const TRIES: u32 = 4;

/// Most attachments of one packet. They are refused together, with one answer.
const ATTACHMENTS: usize = 16;

/// What goes on between one Engine.IO session and its task.
#[derive(Default)]
pub(super) struct Mailbox(OnceLock<mpsc::Sender<Option<Str>>>);

/// Engine.IO's view of this server.
pub(super) struct Handler(Arc<App>);

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// The service of `/socket.io/`.
pub(super) fn service(app: &Arc<App>) -> EngineIoService<Handler> {
    let limits = app.settings().limits.clone();
    // What people who run seed 002 look for.
    info!("[WebRTC] ✅ WebRTC handlers registered on root namespace");
    let config = EngineIoConfig::builder()
        .req_path("/socket.io")
        .max_payload(limits.frame as u64)
        .ws_max_message_size(limits.frame)
        .ws_max_frame_size(limits.frame)
        .ws_read_buffer_size(READ_BUFFER)
        .max_buffer_size(SOCKET_FRAMES)
        .ping_interval(limits.heartbeat.0)
        .ping_timeout(limits.heartbeat.1)
        .build();
    EngineIoService::with_config(Arc::new(Handler(app.clone())), config)
}

impl EngineIoHandler for Handler {
    type Data = Mailbox;

    fn on_connect(self: Arc<Self>, socket: Arc<Socket<Mailbox>>) {
        let Ok(question) = Question::of(&socket.req_parts, &self.0) else {
            return socket.close(DisconnectReason::TransportError);
        };
        let ip = question.asker().ip(&question.settings);
        let per_minute = question.settings.limits.connects_per_minute.saturating_mul(TRIES);
        if self.0.take_opening(ip, per_minute).is_err() {
            self.0.count_refused();
            return socket.close(DisconnectReason::TransportError);
        }
        let (sender, packets) = mpsc::channel(INPUTS);
        let _ = socket.data.0.set(sender);
        tokio::spawn(Session::new(self.0.clone(), socket, question).run(packets));
    }

    fn on_disconnect(&self, _: Arc<Socket<Mailbox>>, reason: DisconnectReason) {
        if matches!(reason, DisconnectReason::PacketParsingError | DisconnectReason::MultipleHttpPollingError)
        {
            self.0.count_refused();
        }
    }

    fn on_message(self: &Arc<Self>, text: Str, socket: Arc<Socket<Mailbox>>) {
        deliver(&socket, Some(text));
    }

    fn on_binary(self: &Arc<Self>, _: Bytes, socket: Arc<Socket<Mailbox>>) {
        deliver(&socket, None);
    }
}

fn deliver(socket: &Socket<Mailbox>, packet: Option<Str>) {
    if socket.data.0.get().is_some_and(|sender| sender.try_send(packet).is_err()) {
        socket.close(DisconnectReason::TransportError);
    }
}

/// One Engine.IO session, and the namespaces that are connected over it.
struct Session {
    app: Arc<App>,
    socket: Arc<Socket<Mailbox>>,
    question: Question,
    names: Vec<Namespace>,
    /// Attachments to come that belong to a packet which is refused as a whole.
    attachments: usize,
}

/// A namespace that was connected, and still is unless its writer has finished.
struct Namespace {
    name: &'static str,
    id: ConnId,
    writer: JoinHandle<()>,
}

impl Session {
    fn new(app: Arc<App>, socket: Arc<Socket<Mailbox>>, question: Question) -> Self {
        Self { app, socket, question, names: Vec::new(), attachments: 0 }
    }

    async fn run(mut self, mut packets: mpsc::Receiver<Option<Str>>) {
        let _opened = self.app.opened();
        // With polling a client needs another round trip for its first packet.
        let patience = 2 * self.question.settings.limits.hello;
        loop {
            let packet = tokio::select! {
                packet = packets.recv() => packet,
                () = self.socket.closed() => None,
                () = tokio::time::sleep(patience), if self.names.is_empty() => {
                    self.socket.close(DisconnectReason::TransportClose);
                    None
                }
            };
            match packet {
                None => break,
                Some(None) => self.binary().await,
                Some(Some(text)) => self.packet(&text).await,
            }
        }
        for Namespace { id, .. } in self.names {
            self.app.tell(Input::Disconnect { id }).await;
        }
    }

    /// A writer ends when the hub closes its namespace, or when it finds the connection closed, of which the hub
    /// has to hear.
    async fn forget_finished(&mut self) {
        while let Some(at) = self.names.iter().position(|namespace| namespace.writer.is_finished()) {
            let Namespace { id, .. } = self.names.swap_remove(at);
            self.app.tell(Input::Disconnect { id }).await;
        }
    }

    async fn binary(&mut self) {
        if self.attachments > 0 {
            self.attachments -= 1;
        } else if let Some(Namespace { id, .. }) = self.names.first() {
            self.app.tell(Input::Binary { id: *id, size: 1 }).await;
        }
    }

    async fn packet(&mut self, text: &str) {
        let Some(Packet { kind, attachments, name, rest }) = Packet::read(text) else {
            return self.socket.close(DisconnectReason::PacketParsingError);
        };
        self.attachments = attachments;
        self.forget_finished().await;
        let known = self.names.iter().find(|known| known.name == name).map(|known| known.id);
        match (kind, known) {
            ('0', None) => self.connect(name, rest).await,
            (_, Some(id)) => {
                self.app.tell(Input::Frame { id, text: format!("{kind}{rest}").into() }).await;
                if kind == '1' {
                    self.names.retain(|namespace| namespace.id != id);
                }
            }
            (_, None) => {}
        }
    }

    async fn connect(&mut self, name: &str, auth: &str) {
        let Some(known) = NAMESPACES.into_iter().find(|known| *known == name) else {
            let refusal = Refusal::new(Code::Forbidden, "Invalid namespace");
            return self.refuse(name, &refusal);
        };
        let settings = self.app.settings();
        let asker = self.question.asker();
        let identity = match asker.signaling(&settings, unix()) {
            Ok(identity) => identity,
            Err(denied) => {
                let code = if denied.is_authentication() { Code::Unauthenticated } else { Code::Forbidden };
                return self.refuse(known, &Refusal::new(code, denied.words().1));
            }
        };
        let connect = Connect {
            dialect: Dialect::SocketIo(Vocabulary::Invite),
            ip: asker.ip(&settings),
            key: asker.client_key(&settings, identity.as_ref(), &self.app.hasher),
            identity,
            room: None,
            wants_events: true,
        };
        let id = self.app.next_conn();
        let (commands, queue) = mpsc::channel(SOCKET_FRAMES);
        let waiting = Arc::new(AtomicUsize::new(0));
        let link = Link { commands, waiting: waiting.clone() };
        let writer = Writer { app: self.app.clone(), socket: self.socket.clone(), name: known, id, waiting };
        self.names.push(Namespace { name: known, id, writer: tokio::spawn(writer.run(queue)) });
        self.app.tell(Input::Connect { id, connect: Box::new(connect), link }).await;
        self.app.tell(Input::Frame { id, text: format!("0{auth}").into() }).await;
    }

    fn refuse(&self, name: &str, refusal: &Refusal) {
        self.app.count_refused();
        let _ = self.socket.emit(named(&connect_error(refusal), name));
    }
}

/// Writes what the hub has for one namespace.
struct Writer {
    app: Arc<App>,
    socket: Arc<Socket<Mailbox>>,
    name: &'static str,
    id: ConnId,
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Command>) {
        let mut is_connected = false;
        while let Some(command) = queue.recv().await {
            match command {
                Command::Text(text) => {
                    is_connected |= text.starts_with('0');
                    self.waiting.fetch_sub(text.len(), Ordering::Relaxed);
                    if self.socket.emit(named(&text, self.name)).is_err() {
                        // A slow consumer; its session waits for it to come back.
                        return self.socket.close(DisconnectReason::TransportError);
                    }
                }
                // Whether the client lives is Engine.IO's to find out.
                Command::Ping(seq) => drop(self.app.tell(Input::Pong { id: self.id, seq }).await),
                Command::Close(code, _) => return self.end(code, is_connected),
            }
        }
    }

    /// The stock client comes back by itself when its transport ends, not when it is disconnected. A CONNECT that was
    /// long under way replaces a connection that its client goes on with: that one has to come back.
    fn end(self, code: u16, is_connected: bool) {
        let comes_back = matches!(code, close::DRAINING | close::GONE | close::REPLACED);
        // A client that has disconnected expects no answer.
        if is_connected && !comes_back && code != close::NORMAL {
            let _ = self.socket.emit(named("1", self.name));
        }
        if comes_back || code == close::TOO_LARGE {
            self.socket.close(DisconnectReason::ClosingServer);
        }
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
