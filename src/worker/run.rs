//! The loop: wait, receive a batch, ask the core, send a batch.

use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::clock::Clock;
use super::connections::Connections;
use super::desk::{Command, Desk, Hand, Snapshot};
use super::dtls::{Secure, SecureKit};
use super::moving::Questions;
use super::offload::Mirrored;
use super::one_port::OnePort;
use super::pace::Pace;
use super::relayed::Relayed;
use super::reserved::Reserved;
use super::ring::Ends;
use crate::io::portable::Portable;
use crate::io::{
    Alarm, Counters, Datagrams, Received, RecvBatch, Route, SLOTS, STAGE_LEN, SendBatch, SocketRef, Sockets,
    UdpSocket,
};
use crate::turn::{
    self, ClientPath, FiveTuple, IpFields, LinkId, Now, RelayId, Run, Transport, Verdict, WorkerId,
};

/// The token of the waker; sockets have their names as tokens.
pub(super) const WAKER: Token = Token(usize::MAX);

/// The token of the alarm, which only ends a wait.
const ALARM: Token = Token(usize::MAX - 1);

/// Datagrams taken from a listener in one turn before others have theirs.
const LISTENER_SHARE: usize = SLOTS;

/// Datagrams taken from a relay socket in one turn.
const RELAY_SHARE: usize = 32;

/// The loop turns at least this often, so that a stall can be told from silence.
const SECOND: Duration = Duration::from_secs(1);

/// Sockets whose packets are looked forward to at once.
const AHEAD: usize = 16;

/// Readiness taken from the poll at once.
const EVENTS: usize = 1024;

const _: () = assert!(turn::MAX_REPLY == STAGE_LEN, "the core writes into the stages of a send batch");

/// What a worker thread starts with.
pub(super) struct Kit {
    pub(super) settings: Arc<turn::Settings>,
    pub(super) shared: Arc<turn::Shared>,
    /// Which one it is of `hands`.
    pub(super) worker: WorkerId,
    /// All workers of the pool.
    pub(super) hands: Arc<[Hand]>,
    pub(super) seed: [u8; 32],
    pub(super) listeners: Vec<UdpSocket>,
    /// The relay port of all allocations at each relay address, where they share one.
    pub(super) relays: Option<Vec<UdpSocket>>,
    pub(super) rings: Ends,
    pub(super) poll: Poll,
    pub(super) inbox: Receiver<Command>,
    pub(super) reserved: Arc<Reserved>,
    pub(super) origin: Instant,
    pub(super) relay_buf: usize,
    pub(super) tcp_idle: Duration,
    pub(super) secure: SecureKit,
    pub(super) mirrored: Option<Mirrored>,
    /// Told when the worker reads its sockets, or why it cannot.
    pub(super) ready: SyncSender<io::Result<()>>,
}

impl Kit {
    /// The body of the thread.
    pub(super) fn work(self, linux: bool) {
        #[cfg(target_os = "linux")]
        if linux {
            return self.work_with(crate::io::linux::Linux::new());
        }
        debug_assert!(!linux, "checked at start");
        self.work_with(Portable::new());
    }

    fn work_with<D: Datagrams>(self, io: D) {
        let ready = self.ready.clone();
        match Worker::new(self, io) {
            Ok(mut worker) => {
                worker.publish();
                let _ = ready.send(Ok(()));
                drop(ready);
                worker.run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    }
}

/// One relay core with everything it needs.
pub(super) struct Worker<D> {
    pub(super) core: turn::Server,
    pub(super) io: D,
    pub(super) poll: Poll,
    alarm: Alarm,
    /// Listeners first, then relay sockets by their `RelayId`.
    pub(super) sockets: Sockets,
    pub(super) listeners: u32,
    /// In place of relay sockets of their own.
    pub(super) one_port: Option<OnePort>,
    /// To and from the other workers.
    pub(super) rings: Ends,
    pub(super) connections: Connections,
    pub(super) relayed: Relayed,
    pub(super) secure: Secure,
    pub(super) questions: Questions,
    pub(super) mirrored: Option<Mirrored>,
    pub(super) received: RecvBatch,
    pub(super) outgoing: SendBatch,
    /// Sockets that were left with something to read.
    pub(super) unfinished: Vec<SocketRef>,
    /// Connections to be closed because not even replies get through.
    pub(super) stuck: Vec<SocketRef>,
    pub(super) counters: Counters,
    /// Relay sockets that have ICMP errors to tell.
    pub(super) erring: Vec<SocketRef>,
    clock: Clock,
    pub(super) now: Now,
    next_second: Duration,
    pace: Pace,
    inbox: Receiver<Command>,
    pub(super) worker: WorkerId,
    pub(super) hands: Arc<[Hand]>,
    pub(super) reserved: Arc<Reserved>,
    pub(super) relay_buf: usize,
    pub(super) tcp_idle: Duration,
}

impl<D: Datagrams> Worker<D> {
    fn new(kit: Kit, mut io: D) -> io::Result<Self> {
        let mut sockets = Sockets::default();
        let listeners = kit.listeners.len() as u32;
        let one_port = kit.relays.as_deref().map(|relays| OnePort::new(listeners, relays));
        let first_sockets = kit.listeners.into_iter().chain(kit.relays.into_iter().flatten());
        for (name, mut socket) in (0..).zip(first_sockets) {
            io.prepare(&mut socket);
            kit.poll.registry().register(socket.source_mut(), Token(name as usize), Interest::READABLE)?;
            sockets.insert(SocketRef(name), socket);
        }
        let clock = Clock::new(kit.origin);
        let now = clock.now();
        Ok(Self {
            core: turn::Server::new((*kit.settings).clone(), kit.shared, kit.worker, kit.seed),
            io,
            alarm: Alarm::new(kit.poll.registry(), ALARM),
            poll: kit.poll,
            sockets,
            listeners,
            one_port,
            rings: kit.rings,
            connections: Connections::default(),
            relayed: Relayed::default(),
            secure: Secure::new(kit.secure),
            questions: Questions::default(),
            mirrored: kit.mirrored,
            received: RecvBatch::new(),
            outgoing: SendBatch::new(),
            unfinished: Vec::new(),
            stuck: Vec::new(),
            counters: Counters::default(),
            erring: Vec::new(),
            clock,
            now,
            next_second: now.mono + SECOND,
            pace: Pace::new(now.mono),
            inbox: kit.inbox,
            worker: kit.worker,
            hands: kit.hands,
            reserved: kit.reserved,
            relay_buf: kit.relay_buf,
            tcp_idle: kit.tcp_idle,
        })
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut ready = Vec::with_capacity(EVENTS);
        loop {
            let timeout = self.alarm.timeout(self.now.mono, self.patience());
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "waiting for sockets failed");
                return;
            }
            self.desk().beats.fetch_add(1, Ordering::Relaxed);
            self.now = self.clock.now();
            let woken = self.note(&events, &mut ready);
            self.report_errors();
            let served = ready.len();
            for names in ready.chunks(AHEAD) {
                self.look_ahead(names);
                names.iter().for_each(|name| self.serve(*name));
            }
            ready.clear();
            self.serve_rings();
            self.attend_handshakes();
            self.wake_others();
            self.flush();
            self.keep_time();
            if woken && !self.obey() {
                return;
            }
            self.rest(served);
        }
    }

    /// Lets packets gather, where so many come that it is worth it and none waits already.
    fn rest(&mut self, served: usize) {
        if let Some(rest) = self.pace.after(self.now.mono, served)
            && !self.patience().is_zero()
        {
            std::thread::sleep(rest);
        }
    }

    fn desk(&self) -> &Desk {
        &self.hands[usize::from(self.worker.0)].desk
    }

    /// How long the poll may wait.
    fn patience(&self) -> Duration {
        if self.rings.is_unfinished || !self.unfinished.is_empty() || !self.erring.is_empty() {
            return Duration::ZERO;
        }
        let timeouts = [self.core.poll_timeout(), self.secure.due(), self.relayed.resume_at()];
        let due = timeouts.into_iter().flatten().fold(self.next_second, Duration::min);
        let at_most = self.mirrored.as_ref().map_or(SECOND, Mirrored::patience);
        due.saturating_sub(self.now.mono).min(at_most)
    }

    /// Lists what is to be served: what was left unfinished and what has become ready. Returns whether
    /// a command waits.
    fn note(&mut self, events: &Events, ready: &mut Vec<SocketRef>) -> bool {
        let mut woken = false;
        let some_left = !self.unfinished.is_empty();
        ready.append(&mut self.unfinished);
        for event in events {
            let name = match event.token() {
                ALARM => continue,
                WAKER => {
                    woken = true;
                    continue;
                }
                Token(name) => SocketRef(name as u32),
            };
            if name.is_stream()
                && (event.is_read_closed() || event.is_error())
                && let Some(connection) = self.connections.get_mut(name)
            {
                connection.read_closed = true;
            }
            if !name.is_stream() && event.is_error() {
                self.erring.push(name);
            }
            ready.push(name);
        }
        if some_left {
            ready.sort_unstable();
            ready.dedup();
        }
        woken
    }

    /// Lets what the packets of these sockets need come nearer, all of it at once.
    fn look_ahead(&self, names: &[SocketRef]) {
        let relays = names.iter().filter(|name| name.is_socket() && name.0 >= self.listeners);
        for name in relays.clone() {
            black_box(self.sockets.get(*name).is_some());
        }
        self.core.expect_peers(relays.map(|name| self.relay_of(*name)));
    }

    /// The same for what clients have sent to a listener, from one place in the list on.
    fn look_ahead_at_clients(&self, listener: SocketRef, from: usize) {
        let Some(socket) = self.sockets.get(listener) else { return };
        let next = &self.received.list()[from..];
        // A single one gains nothing, and records name nobody.
        if next.len() > 1 && !self.secure.is_listener(listener) {
            self.core.expect_clients(next.iter().take(AHEAD).map(|received| five_tuple(socket, received)));
        }
    }

    fn serve(&mut self, name: SocketRef) {
        if name.is_stream() {
            self.serve_stream(name);
        } else if name.is_peer() {
            self.serve_peer(name);
        } else if self.relayed.has_listener(name) {
            self.accept_peers(name);
        } else {
            self.serve_socket(name);
        }
    }

    // Datagrams.

    fn serve_socket(&mut self, name: SocketRef) {
        let is_listener = name.0 < self.listeners;
        let serves_all = is_listener || self.one_port.is_some();
        let share = if serves_all { LISTENER_SHARE } else { RELAY_SHARE };
        if self.received.vacant() < share.min(SLOTS / 2) {
            self.flush();
        }
        let Some(socket) = self.sockets.get(name) else { return };
        if !self.io.recv(socket, &mut self.received, share, &mut self.counters) {
            self.unfinished.push(name);
        }
        if is_listener {
            self.handle_clients(name);
            // They leave through sockets that nothing else of this turn leaves through: they need not wait for it.
            self.flush();
        } else if !self.handle_shared_relay(name) {
            self.handle_peers(name);
        }
    }

    fn handle_clients(&mut self, listener: SocketRef) {
        for index in 0..self.received.list().len() {
            if index.is_multiple_of(AHEAD) {
                self.look_ahead_at_clients(listener, index);
            }
            let received = self.received.list()[index];
            let Some(socket) = self.sockets.get(listener) else { return };
            let five_tuple = five_tuple(socket, &received);
            let ip = IpFields { tos: received.tos };
            if self.secure.is_listener(listener) {
                let five_tuple = FiveTuple { transport: Transport::Dtls, ..five_tuple };
                received
                    .datagrams()
                    .for_each(|datagram| self.handle_record(listener, five_tuple, ip, datagram));
                continue;
            }
            let path = ClientPath { five_tuple, link: LinkId(listener.0) };
            let mut rest = received.range();
            loop {
                let count = self.handle_client(path, ip, rest.clone(), received.stride as usize);
                if !received.skip(count, &mut rest) {
                    break;
                }
            }
        }
    }

    fn handle_peers(&mut self, name: SocketRef) {
        let relay = self.relay_of(name);
        for index in 0..self.received.list().len() {
            let received = self.received.list()[index];
            let ip = IpFields { tos: received.tos };
            let (mut rest, stride) = (received.range(), received.stride as usize);
            loop {
                if self.outgoing.is_full() {
                    self.send();
                }
                let run = Run::new(self.received.bytes(rest.clone()), stride);
                let verdict = self.core.handle_peer(self.now, relay, received.from, ip, run);
                let count = self.carry_out_run(verdict, rest.start, stride);
                self.drain();
                if !received.skip(count, &mut rest) {
                    break;
                }
            }
        }
    }

    /// Messages of a client, at `messages` in the receive buffer, each of `stride` bytes but the last; how many have been
    /// handled.
    pub(super) fn handle_client(
        &mut self,
        path: ClientPath,
        ip: IpFields,
        messages: Range<usize>,
        stride: usize,
    ) -> usize {
        if self.outgoing.is_full() {
            self.send();
        }
        let run = Run::new(self.received.bytes(messages.clone()), stride);
        let verdict = self.core.handle_client(self.now, path, ip, run, self.outgoing.stage());
        if let Verdict::Elsewhere(holder) = verdict {
            self.ask(holder, path, run.first().to_vec());
            return 1;
        }
        let count = self.carry_out_run(verdict, messages.start, stride);
        self.drain();
        count
    }

    pub(super) fn route_to(&self, path: &ClientPath) -> Route {
        let FiveTuple { client, server, .. } = path.five_tuple;
        let socket = SocketRef(path.link.0);
        let from = self.sockets.get(socket).and_then(|socket| socket.source(server));
        Route { socket, to: client, from }
    }

    pub(super) fn name_of(&self, relay: RelayId) -> SocketRef {
        match &self.one_port {
            Some(one_port) => one_port.name_of(relay),
            None => SocketRef(self.listeners + relay.0),
        }
    }

    pub(super) fn relay_of(&self, name: SocketRef) -> RelayId {
        RelayId(name.0 - self.listeners)
    }

    // Leaving.

    /// Sends what has been collected and makes the receive buffer vacant. Not called between an input
    /// of the core and the outputs it causes.
    pub(super) fn flush(&mut self) {
        self.send();
        self.received.recycle();
        while let Some(name) = self.stuck.pop() {
            self.counters.streams_stuck += u64::from(self.close_stream(name));
        }
    }

    pub(super) fn send(&mut self) {
        if !self.outgoing.is_empty() {
            self.io.send(&self.sockets, &self.outgoing, &self.received, &mut self.counters);
            if self.outgoing.has_links() {
                self.send_to_streams();
                self.seal();
            }
            self.outgoing.clear();
        }
        self.send_sealed();
    }

    // Time and commands.

    fn keep_time(&mut self) {
        self.attend_offload();
        if self.core.has_many_events() {
            self.publish_events();
        }
        if self.core.poll_timeout().is_some_and(|due| due <= self.now.mono) {
            self.core.handle_timeout(self.now);
            self.drain();
        }
        self.unfinished.append(&mut self.relayed.resumed(self.now.mono));
        if self.now.mono >= self.next_second {
            self.next_second = self.now.mono + SECOND;
            self.clock.read_calendar();
            self.close_idle();
            self.unfinished.append(&mut self.relayed.blocked);
            self.close_idle_sessions();
            self.count_flows();
            self.publish();
        }
    }

    /// Carries out the commands that wait; `false` if one was to stop.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Adopt(newcomer) => self.adopt(newcomer),
                Command::Ask(question) => self.answer(&question),
                Command::Answer(path, bytes) => self.pass_answer(path, &bytes),
                Command::Bring(mover) => self.take_in(*mover),
                Command::Reconfigure(settings) => self.core.reconfigure((*settings).clone()),
                Command::Identify(identity) => self.secure.set_identity(identity),
                Command::Revoke => self.core.handle_revoked(self.now),
                Command::SetMode(mode) => self.core.set_mode(mode),
                Command::Publish(done) => {
                    self.publish();
                    // Whoever asked may have lost patience.
                    let _ = done.try_send(());
                }
                Command::Stall(duration) => std::thread::sleep(duration),
                Command::Stop => {
                    self.core.handle_stop(self.clock.now());
                    self.drain();
                    self.close_sessions();
                    self.uninstall_all();
                    self.publish_events();
                    return false;
                }
            }
            self.drain();
        }
        self.flush();
        true
    }

    fn publish_events(&mut self) {
        let events = self.core.take_events(self.clock.now());
        if !events.is_empty() {
            self.desk().note_events(events);
        }
    }

    fn publish(&mut self) {
        let (sessions, half_open) = self.secure.sessions.counts();
        (self.counters.dtls.sessions, self.counters.dtls.half_open) = (sessions as u64, half_open as u64);
        let shared = self.one_port.as_ref().map_or(0, OnePort::sockets);
        for name in 0..self.listeners + shared {
            if let Some(socket) = self.sockets.get(SocketRef(name)) {
                self.counters.recv_overflows += self.io.overflows(socket);
            }
        }
        let failures = self.core.take_auth_failures();
        self.desk().note_failures(failures);
        self.publish_events();
        self.desk().publish(Snapshot {
            stats: self.core.stats(),
            counters: self.counters,
            capabilities: self.io.capabilities(),
        });
    }
}

/// Of a client that has sent something to a listener.
fn five_tuple(listener: &UdpSocket, received: &Received) -> FiveTuple {
    FiveTuple { client: received.from, server: listener.destination(received.to), transport: Transport::Udp }
}
