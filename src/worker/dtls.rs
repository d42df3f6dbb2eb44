//! What a worker does with DTLS: demand cookies, begin handshakes, decrypt, encrypt, close.
//!
//! A stranger's hello costs one HMAC and is forgotten. One with its cookie waits for its turn, so that however
//! many come, media wait for a few handshakes and no more. Decrypted messages lie where their records lay in the
//! receive buffer and go the way of any other; what the core sends to a session is encrypted into memory
//! of its own and leaves through the listener.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::desk::Place;
use super::run::Worker;
use super::sessions::{Association, Room, Sessions};
use super::sources::Sources;
use crate::dtls::{
    COOKIE_LEN, Cookies, Event, Hello, Identity, MAX_OVERHEAD, MAX_PLAINTEXT, Session, VERIFY_REQUEST_LEN,
};
use crate::io::{Counters, Datagrams, Fields, RecvBatch, Route, SLOT_LEN, SendBatch, SocketRef, Sockets};
use crate::turn::{ClientPath, FiveTuple, IpFields};

/// Handshakes begun in one turn of the loop. One costs as much as some hundred relayed packets.
const HANDSHAKES_A_TURN: usize = 4;

/// Hellos with their cookie that wait for their turn.
const WAITING: usize = 256;

/// Largest datagram a session has for its client.
const MAX_RECORD: usize = MAX_PLAINTEXT + MAX_OVERHEAD;

/// Datagrams a session may have at once: the flight of a handshake.
const MAX_FLIGHT: usize = 10;

/// What the DTLS part of a worker starts with.
pub(super) struct SecureKit {
    /// Names from here on are DTLS listeners, up to those of relay sockets.
    pub(super) first_listener: u32,
    pub(super) cookies: Cookies,
    pub(super) identity: Option<Identity>,
    /// Sessions of all workers, and how many there may be.
    pub(super) places: Arc<AtomicUsize>,
    pub(super) bound: usize,
    /// Connections and sessions of each source.
    pub(super) sources: Arc<Sources>,
    pub(super) origin: Instant,
}

/// A hello whose cookie was right.
struct Admission {
    five_tuple: FiveTuple,
    listener: SocketRef,
    cookie: [u8; COOKIE_LEN],
    datagram: Box<[u8]>,
}

/// The DTLS part of a worker.
pub(super) struct Secure {
    kit: SecureKit,
    pub(super) sessions: Sessions,
    waiting: VecDeque<Admission>,
    /// A message to be encrypted, or a datagram that found no room where its cause was received.
    scratch: Box<[u8]>,
    out: Outbox,
}

impl Secure {
    pub(super) fn new(kit: SecureKit) -> Self {
        Self {
            kit,
            sessions: Sessions::default(),
            waiting: VecDeque::new(),
            scratch: vec![0; SLOT_LEN].into_boxed_slice(),
            out: Outbox { batch: SendBatch::new(), memory: RecvBatch::new(), space: 0..0 },
        }
    }

    /// Whether a listener speaks DTLS.
    pub(super) fn is_listener(&self, name: SocketRef) -> bool {
        name.0 >= self.kit.first_listener
    }

    /// Handshakes that begin from now on show this one.
    pub(super) fn set_identity(&mut self, identity: Identity) {
        self.kit.identity = Some(identity);
    }

    /// When something is to be done without a datagram.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.waiting.is_empty() { self.sessions.due() } else { Some(Duration::ZERO) }
    }
}

/// Datagrams of sessions and listeners on their way out, in memory of their own.
struct Outbox {
    batch: SendBatch,
    memory: RecvBatch,
    /// The rest of the slot in use.
    space: Range<usize>,
}

impl Outbox {
    /// Whether it must be sent before another flight is pushed.
    fn is_full(&self) -> bool {
        self.batch.remaining() < MAX_FLIGHT || self.memory.vacant() < MAX_FLIGHT
    }

    /// Memory for a datagram of at most [`MAX_RECORD`] bytes. The outbox must not be full.
    fn room(&mut self) -> Option<&mut [u8]> {
        if self.space.len() < MAX_RECORD {
            let (start, slot) = self.memory.claim()?;
            self.space = start..start + slot.len();
        }
        Some(self.memory.bytes_mut(self.space.start..self.space.start + MAX_RECORD))
    }

    /// Adds the first `len` bytes of the memory that [`Outbox::room`] gave.
    fn push(&mut self, route: Route, fields: Fields, len: usize) {
        let start = self.space.start;
        self.space.start += len;
        self.batch.push(route, fields, &[], start..start + len, 0);
    }

    /// Adds a copy of a datagram.
    fn push_copy(&mut self, route: Route, datagram: &[u8]) {
        if let Some(room) = self.room().and_then(|room| room.get_mut(..datagram.len())) {
            room.copy_from_slice(datagram);
            self.push(route, Fields::default(), datagram.len());
        }
    }

    fn send<D: Datagrams>(&mut self, io: &mut D, sockets: &Sockets, counters: &mut Counters) {
        if !self.batch.is_empty() {
            io.send(sockets, &self.batch, &self.memory, counters);
            self.batch.clear();
        }
        self.memory.recycle();
        self.space = 0..0;
    }
}

impl<D: Datagrams> Worker<D> {
    // In.

    /// A datagram that came to a DTLS listener.
    pub(super) fn handle_record(
        &mut self,
        listener: SocketRef,
        five_tuple: FiveTuple,
        ip: IpFields,
        datagram: Range<usize>,
    ) {
        let found = self.secure.sessions.find(&five_tuple);
        let bytes = self.received.bytes(datagram.clone());
        if let Some(hello) = Hello::parse(bytes) {
            // The hello of a handshake that goes on is sent again when its answer was lost.
            let association = found.and_then(|name| self.secure.sessions.get_mut(name));
            if !association.is_some_and(|a| a.session.began_with(&hello) && !hello.cookie.is_empty()) {
                return self.handle_hello(listener, five_tuple, datagram);
            }
        }
        let Some(name) = found else {
            self.counters.dtls.drops += 1;
            return;
        };
        let Some(association) = self.secure.sessions.get_mut(name) else { return };
        if association.session.handle(bytes, self.secure.kit.origin + self.now.mono).is_err() {
            return self.fail_session(name);
        }
        self.poll_session(name, ip, datagram);
    }

    /// A hello that belongs to no session. One that exists on the 5-tuple lives on until the cookie has
    /// proven who asks (RFC 6347 §4.2.8).
    fn handle_hello(&mut self, listener: SocketRef, five_tuple: FiveTuple, datagram: Range<usize>) {
        let bytes = self.received.bytes(datagram);
        let Some(hello) = Hello::parse(bytes) else { return };
        let FiveTuple { client, server, .. } = five_tuple;
        let cookies = &self.secure.kit.cookies;
        if let Some(cookie) = cookies.verify(&hello, client, server, self.now.mono) {
            if self.secure.waiting.len() == WAITING {
                self.counters.dtls.refused += 1;
                return;
            }
            let datagram = bytes.into();
            self.secure.waiting.push_back(Admission { five_tuple, listener, cookie, datagram });
        } else if self.core.may_answer(self.now, &five_tuple, VERIFY_REQUEST_LEN) {
            let cookie = cookies.issue(&hello, client, server, self.now.mono);
            let request = hello.verify_request(&cookie);
            self.counters.dtls.verifications += 1;
            let route = self.route_through(listener, &five_tuple);
            self.send_sealed_if_full();
            self.secure.out.push_copy(route, &request);
        } else {
            self.counters.dtls.drops += 1;
        }
    }

    /// Begins some of the handshakes that wait, and looks after those that go on.
    pub(super) fn attend_handshakes(&mut self) {
        for _ in 0..HANDSHAKES_A_TURN {
            let Some(admission) = self.secure.waiting.pop_front() else { break };
            self.admit(&admission);
        }
        for name in self.secure.sessions.take_due(self.now.mono) {
            let Some(association) = self.secure.sessions.get_mut(name) else { continue };
            if association.session.handle_timeout(self.secure.kit.origin + self.now.mono).is_err() {
                self.fail_session(name);
            } else {
                self.poll_session(name, IpFields::default(), 0..0);
            }
        }
    }

    fn admit(&mut self, admission: &Admission) {
        let Admission { five_tuple, listener, cookie, ref datagram } = *admission;
        let Some(hello) = Hello::parse(datagram) else { return };
        let before = self.secure.sessions.find(&five_tuple);
        let known = before.and_then(|name| self.secure.sessions.get_mut(name));
        if known.is_some_and(|association| association.session.began_with(&hello)) {
            return;
        }
        let Some(place) = self.make_room(five_tuple.client.ip()) else {
            self.counters.dtls.refused += 1;
            return;
        };
        let Some(identity) = &self.secure.kit.identity else { return };
        let now = self.secure.kit.origin + self.now.mono;
        let Ok(session) = Session::accept(identity, datagram, &hello, cookie, now) else {
            self.counters.dtls.failures += 1;
            let route = self.route_through(listener, &five_tuple);
            self.send_sealed_if_full();
            self.secure.out.push_copy(route, &hello.refusal());
            return;
        };
        if let Some(name) = before {
            self.close_session(name);
        }
        let sessions = &mut self.secure.sessions;
        if let Some(name) = sessions.insert(session, five_tuple, listener, place, self.now.mono) {
            self.poll_session(name, IpFields::default(), 0..0);
        }
    }

    /// A place for another session, if the bounds leave one.
    fn make_room(&mut self, client: IpAddr) -> Option<Place> {
        let source = self.secure.kit.sources.enter(client)?;
        match self.secure.sessions.room(self.now.mono) {
            Room::Free => {}
            Room::InPlaceOf(oldest) => {
                self.counters.dtls.refused += 1;
                self.close_session(oldest);
            }
            Room::Full => return None,
        }
        let SecureKit { places, bound, .. } = &self.secure.kit;
        Place::take(&self.hands[usize::from(self.worker.0)].desk, places, *bound, source)
    }

    /// Does what a session wants; `memory` of the receive buffer is where the cause of it was, which came with `ip`.
    fn poll_session(&mut self, name: SocketRef, ip: IpFields, mut memory: Range<usize>) {
        self.send_sealed_if_full();
        loop {
            let Secure { kit, sessions, scratch, out, .. } = &mut self.secure;
            let Some(association) = sessions.get_mut(name) else { return };
            let place = self.received.bytes_mut(memory.clone());
            let (event, bytes) = match association.session.poll(place) {
                Event::TooSmall(_) => (association.session.poll(scratch), &**scratch),
                event => (event, &*place),
            };
            match event {
                Event::Datagram(len) => {
                    let Association { listener, path, .. } = *association;
                    let from = self.sockets.get(listener).and_then(|s| s.source(path.five_tuple.server));
                    let route = Route { socket: listener, to: path.five_tuple.client, from };
                    out.push_copy(route, &bytes[..len]);
                }
                Event::Data(len) if len <= memory.len() => {
                    association.last = self.now.mono;
                    let path = association.path;
                    let message = memory.start..memory.start + len;
                    memory.start += len;
                    self.handle_client(path, ip, message, len);
                }
                // It came before the handshake was complete and was kept: its client sends it again.
                Event::Data(_) | Event::TooSmall(_) => self.counters.dtls.drops += 1,
                Event::Connected => {
                    self.counters.dtls.handshakes += 1;
                    sessions.connected(name);
                }
                Event::Closed => {
                    self.close_session(name);
                    return;
                }
                Event::Wait(at) => {
                    sessions.schedule(name, at.saturating_duration_since(kit.origin));
                    return;
                }
            }
        }
    }

    // Out.

    /// Encrypts what has been collected for sessions.
    pub(super) fn seal(&mut self) {
        let Self { secure, outgoing, received, sockets, io, counters, .. } = self;
        for flow in outgoing.flows().iter().filter(|flow| flow.route.socket.is_session()) {
            for packet in outgoing.packets(flow) {
                if secure.out.is_full() {
                    secure.out.send(io, sockets, counters);
                }
                let Some(association) = secure.sessions.get_mut(flow.route.socket) else {
                    counters.gone += 1;
                    continue;
                };
                let mut len = 0;
                for part in packet.parts(outgoing, received) {
                    secure.scratch[len..len + part.len()].copy_from_slice(part);
                    len += part.len();
                }
                let sealed = secure.out.room();
                let sealed = sealed.and_then(|room| association.session.seal(&secure.scratch[..len], room));
                let Some(len) = sealed else {
                    counters.dtls.drops += 1;
                    continue;
                };
                let FiveTuple { client, server, .. } = association.path.five_tuple;
                let from = sockets.get(association.listener).and_then(|socket| socket.source(server));
                let route = Route { socket: association.listener, to: client, from };
                secure.out.push(route, packet.fields(), len);
            }
        }
    }

    /// Sends what sessions and DTLS listeners have for their clients.
    pub(super) fn send_sealed(&mut self) {
        self.secure.out.send(&mut self.io, &self.sockets, &mut self.counters);
    }

    fn send_sealed_if_full(&mut self) {
        if self.secure.out.is_full() {
            self.send_sealed();
        }
    }

    fn route_through(&self, listener: SocketRef, five_tuple: &FiveTuple) -> Route {
        let from = self.sockets.get(listener).and_then(|socket| socket.source(five_tuple.server));
        Route { socket: listener, to: five_tuple.client, from }
    }

    // The end.

    fn fail_session(&mut self, name: SocketRef) {
        self.counters.dtls.failures += 1;
        self.close_session(name);
    }

    /// Closes a session, and with it the client's allocation, as it is with connections. The client is
    /// told if it can be.
    fn close_session(&mut self, name: SocketRef) {
        // What waits to be encrypted belongs to the session that ends.
        if self.outgoing.flows().iter().any(|flow| flow.route.socket == name) {
            self.send();
        }
        let Some(Association { session, path, listener, .. }) = self.secure.sessions.remove(name) else {
            return;
        };
        let route = self.route_through(listener, &path.five_tuple);
        self.send_sealed_if_full();
        if let Some(len) = self.secure.out.room().and_then(|room| session.close(room)) {
            self.secure.out.push(route, Fields::default(), len);
        }
        self.core.handle_client_closed(self.now, path);
        self.drain();
    }

    /// Closes the sessions that have said nothing for long and hold no allocation.
    pub(super) fn close_idle_sessions(&mut self) {
        let since = self.now.mono.saturating_sub(self.tcp_idle);
        let silent = self.secure.sessions.iter().filter(|association| association.last < since);
        let paths = silent.map(|association| association.path);
        let idle: Vec<ClientPath> =
            paths.filter(|path| !self.core.has_allocation(&path.five_tuple)).collect();
        for path in idle {
            self.counters.dtls.idle += 1;
            self.close_session(SocketRef(path.link.0));
        }
    }

    /// Says goodbye to every client.
    pub(super) fn close_sessions(&mut self) {
        let names: Vec<_> = self.secure.sessions.iter().map(|association| association.path.link).collect();
        for name in names {
            self.close_session(SocketRef(name.0));
        }
        self.send_sealed();
    }
}
