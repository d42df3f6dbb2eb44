//! Engine.IO by `engineioxide`: polling, and the upgrade from it to a WebSocket.

use std::fmt;
use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use engineioxide::config::EngineIoConfig;
use engineioxide::handler::EngineIoHandler;
use engineioxide::service::EngineIoService;
use engineioxide::{DisconnectReason, Socket, Str};
use tokio::sync::mpsc;
use tracing::info;

use super::super::outgoing::SOCKET_FRAMES;
use super::super::ws::READ_BUFFER;
use super::{App, Carrier, Incoming, Question, Session, Text, Visitor};

/// Packets that may wait for the hub. A client that sends faster loses its socket, not its session.
const INPUTS: usize = 512;

/// The service behind `/socket.io/`.
pub(in crate::http) type Engine = EngineIoService<Handler>;

/// What goes on between one Engine.IO session and its task.
#[derive(Default)]
pub(in crate::http) struct Mailbox(OnceLock<mpsc::Sender<Option<Str>>>);

/// Engine.IO's view of this server.
pub(in crate::http) struct Handler(Arc<App>);

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// The service of `/socket.io/`.
pub(in crate::http) fn service(app: &Arc<App>) -> Engine {
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

pub(super) async fn serve(engine: Engine, request: Request) -> Response {
    match hyper::service::Service::call(&engine, request).await {
        Ok(response) => response.map(Body::new).into_response(),
        Err(never) => match never {},
    }
}

impl EngineIoHandler for Handler {
    type Data = Mailbox;

    fn on_connect(self: Arc<Self>, socket: Arc<Socket<Mailbox>>) {
        let question = Question::of(&socket.req_parts, &self.0).ok();
        let Some(visitor) = question.and_then(|question| Visitor::of(&question, &self.0)) else {
            return socket.close(DisconnectReason::TransportError);
        };
        let (sender, packets) = mpsc::channel(INPUTS);
        let _ = socket.data.0.set(sender);
        tokio::spawn(Session::new(self.0.clone(), Polled { socket, packets }, visitor).run());
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

/// A connection of `engineioxide`.
struct Polled {
    socket: Arc<Socket<Mailbox>>,
    packets: mpsc::Receiver<Option<Str>>,
}

impl Carrier for Polled {
    async fn receive(&mut self) -> Option<Incoming> {
        let packet = tokio::select! {
            packet = self.packets.recv() => packet,
            () = self.socket.closed() => None,
        };
        packet.map(|packet| packet.map_or(Incoming::Binary, |text| Incoming::Packet(Text::Plain(text))))
    }

    async fn send(&mut self, packets: Vec<String>) -> bool {
        packets.into_iter().all(|packet| self.socket.emit(packet).is_ok())
    }

    async fn close(&mut self) {
        self.socket.close(DisconnectReason::ClosingServer);
    }
}
