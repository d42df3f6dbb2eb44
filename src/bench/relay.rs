//! Relayed traffic: allocations with a channel or permission each, and our own sockets as their peers.
//!
//! Client `n` has two flows: `2n` from client to peer and `2n + 1` back. Relay to relay, clients
//! `n` and `n ^ 1` are each other's peers and there are only flows of the first kind.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Interest, Token};

use crate::stun::ChannelNumber;

use super::Transport;
use super::crew::{Client, Crew, socket_failure};
use super::link::{Link, READ_BUDGET, READ_BUFFER, Sent, bind_udp, outcome, use_runs};
use super::load::{BURST, Load, Ports, SETTLE, STALL, Schedule, Spec, UPKEEP};
use super::packet::{Received, Stamp, Template, received};
use super::plan::{Pace, Plan};
use super::session::{Failure, Progress, Step, TransactionIds};
use super::tally::{Outcome, Tracker};

/// The traffic of one worker.
pub(super) struct Relay {
    plan: Shape,
    crew: Crew,
    peers: Vec<UdpSocket>,
    peer_addresses: Vec<SocketAddr>,
    /// Where each client's packets come from, as its peer sees it.
    sources: Vec<SocketAddr>,
    templates: Vec<Template>,
    down: Template,
    /// Bytes after which the next packet of what a client, or a peer, reads begins.
    strides: [usize; 2],
    sequences: Vec<u64>,
    /// Tokens with something left to read, and which these are.
    ready: Vec<usize>,
    is_ready: Vec<bool>,
    epoch: Instant,
}

/// The parts of the plan that the loop needs.
struct Shape {
    server: SocketAddr,
    indications: bool,
    ways: [bool; 2],
    relay_to_relay: bool,
    /// Packets that leave as one.
    run: usize,
}

/// A direction while it is being driven.
struct Lane {
    way: usize,
    pace: Driver,
    /// The client whose turn it is.
    turn: usize,
    moved: Instant,
    waiting: u64,
}

enum Driver {
    Schedule(Schedule),
    Window(u64),
}

impl Load for Relay {
    fn prepare(plan: &Plan, worker: u32) -> Result<Self, Failure> {
        let count = plan.allocations_of(worker);
        let mut relay = Self::open(plan, count)?;
        match relay.allocate(plan) {
            Ok(()) => Ok(relay),
            Err(failure) => {
                relay.finish(plan);
                Err(failure)
            }
        }
    }

    fn run(&mut self, spec: &Spec) -> Result<Outcome, Failure> {
        let mut tracker = self.tracker(spec);
        self.traffic(spec, &mut tracker).map_err(|error| self.failure(&error))?;
        Ok(tracker.finish())
    }

    fn ports(&self) -> Ports {
        let links = self.crew.clients.iter().filter_map(|client| client.link.local_addr().ok());
        let peers = self.peers.iter().filter_map(|peer| peer.local_addr().ok());
        Ports {
            own: links.chain(peers).map(|address| address.port()).collect(),
            relays: self.sources.iter().map(SocketAddr::port).collect(),
        }
    }

    fn finish(mut self, plan: &Plan) {
        let live: Vec<bool> =
            self.crew.clients.iter().map(|client| client.session.relayed().is_some()).collect();
        // Only politeness: the server lets what is left expire.
        let _ = self.crew.each(plan, |n| live[n].then_some(Step::Delete));
    }
}

impl Relay {
    /// Clients and peers without allocations.
    pub(super) fn open(plan: &Plan, count: u32) -> Result<Self, Failure> {
        let fail = |error: io::Error| socket_failure(plan, &error);
        let crew = Crew::open(plan, count)?;
        let mut peers = Vec::new();
        let peer_sockets = if plan.relay_to_relay { 0 } else { plan.peers.min(count) };
        for index in 0..peer_sockets {
            let mut socket = bind_udp(SocketAddr::new(plan.peer_ip, 0)).map_err(|error| {
                let ip = plan.peer_ip;
                Failure::Socket(format!(
                    "no peer socket on {ip}: {error}; see --peer-address and `ulimit -n`"
                ))
            })?;
            let token = Token((count + index) as usize);
            crew.poll.registry().register(&mut socket, token, Interest::READABLE).map_err(fail)?;
            peers.push(socket);
        }
        let addresses: Vec<SocketAddr> =
            peers.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>().map_err(fail)?;
        let peer_addresses =
            (0..count as usize).filter_map(|n| addresses.get(n % addresses.len().max(1)).copied());
        Ok(Self {
            plan: Shape {
                server: plan.server,
                indications: plan.indications,
                ways: plan.ways(),
                relay_to_relay: plan.relay_to_relay,
                run: plan.run,
            },
            peer_addresses: peer_addresses.collect(),
            crew,
            peers,
            sources: Vec::new(),
            templates: Vec::new(),
            down: Template::bare(plan.size).repeated(plan.run),
            strides: [READ_BUFFER; 2],
            sequences: vec![0; 2 * count as usize],
            ready: Vec::new(),
            is_ready: vec![false; (count + peer_sockets) as usize],
            epoch: Instant::now(),
        })
    }

    fn allocate(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.crew.each(plan, |_| Some(Step::Allocate))?;
        self.sources = self.crew.clients.iter().map(Client::relayed).collect();
        if self.plan.relay_to_relay {
            self.peer_addresses = (0..self.sources.len()).map(|n| self.sources[n ^ 1]).collect();
        }
        let steps: Vec<Step> = (0..self.sources.len()).map(|n| self.binding(n)).collect();
        self.crew.each(plan, |n| Some(steps[n]))?;
        self.write_templates(plan);
        self.use_runs().map_err(|error| socket_failure(plan, &error))
    }

    /// Turns clients and peers into plain sockets that talk to each other without a server.
    pub(super) fn without_server(&mut self, plan: &Plan) -> io::Result<()> {
        for (client, peer) in self.crew.clients.iter_mut().zip(&self.peer_addresses) {
            if let Link::Udp(socket) = &client.link {
                socket.connect(*peer)?;
                self.sources.push(socket.local_addr()?);
            }
            self.templates.push(Template::bare(plan.size).repeated(plan.run));
        }
        self.use_runs()
    }

    /// From here on packets leave and arrive in runs, where that was asked for.
    fn use_runs(&mut self) -> io::Result<()> {
        if self.plan.run == 1 {
            return Ok(());
        }
        let client = self.templates.first().map_or(READ_BUFFER, Template::packet_len);
        self.strides = [client, self.down.packet_len()];
        for client in &self.crew.clients {
            if let Link::Udp(socket) = &client.link {
                use_runs(socket, self.strides[0])?;
            }
        }
        self.peers.iter().try_for_each(|peer| use_runs(peer, self.strides[1]))
    }

    /// Keeps the allocations alive without any traffic.
    pub(super) fn hold(&mut self, spec: &Spec) -> Result<Outcome, Failure> {
        let mut tracker = self.tracker(spec);
        while Instant::now() < spec.end {
            self.receive(UPKEEP, &mut tracker)
                .and_then(|()| self.upkeep(Instant::now(), &mut tracker))
                .map_err(|error| self.failure(&error))?;
        }
        Ok(tracker.finish())
    }

    /// The request that lets client `n` and its peer talk.
    fn binding(&self, n: usize) -> Step {
        let peer = self.peer_addresses[n];
        if self.plan.indications {
            return Step::Permission(peer);
        }
        Step::Channel(peer, first_channel())
    }

    fn write_templates(&mut self, plan: &Plan) {
        let stream = plan.transport == Transport::Tcp;
        let mut ids = TransactionIds::new();
        for peer in &self.peer_addresses {
            let template = match plan.indications {
                true => Template::indication(*peer, plan.size, &mut ids),
                false => Template::channel(first_channel(), plan.size, stream),
            };
            self.templates.push(template.repeated(plan.run));
        }
    }

    fn tracker(&self, spec: &Spec) -> Tracker {
        let ns = |at: Instant| at.saturating_duration_since(self.epoch).as_nanos() as u64;
        let mut tracker = Tracker::new(spec.run, self.sequences.len(), ns(spec.measure)..ns(spec.end));
        (0..2).for_each(|way| tracker.write_off(way, |flow| self.sequences[flow]));
        tracker
    }

    fn failure(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::Socket(format!(
                "the server at {} went away while traffic was flowing ({error})",
                self.plan.server
            )),
            _ => Failure::Socket(format!("while traffic was flowing: {error}")),
        }
    }

    fn traffic(&mut self, spec: &Spec, tracker: &mut Tracker) -> io::Result<()> {
        let mut lanes = self.lanes(spec);
        let mut upkeep = Instant::now();
        loop {
            let now = Instant::now();
            if now >= spec.end {
                break;
            }
            let mut wait = spec.start.saturating_duration_since(now);
            if wait.is_zero() {
                wait = UPKEEP;
                for lane in &mut lanes {
                    wait = wait.min(self.drive(lane, spec.run, tracker, now)?);
                }
            }
            self.receive(wait, tracker)?;
            if now.saturating_duration_since(upkeep) >= UPKEEP {
                upkeep = now;
                self.upkeep(now, tracker)?;
            }
        }
        self.settle(spec.end, tracker)
    }

    fn lanes(&self, spec: &Spec) -> Vec<Lane> {
        let ways: &[usize] = match (self.plan.relay_to_relay, self.plan.ways) {
            (true, _) | (_, [true, false]) => &[0],
            (_, [false, true]) => &[1],
            _ => &[0, 1],
        };
        let driver = |way: usize| match spec.pace {
            Pace::Rate { per_second, tick } => {
                Driver::Schedule(Schedule::new(spec.start, per_second, tick).shifted(way as f64 / 2.0))
            }
            Pace::Window(window) => Driver::Window(u64::from(window)),
        };
        let lane = |&way| Lane { way, pace: driver(way), turn: 0, moved: spec.start, waiting: 0 };
        ways.iter().map(lane).collect()
    }

    /// Sends what is due in one direction. Returns how long nothing more will be due.
    fn drive(
        &mut self,
        lane: &mut Lane,
        number: u32,
        tracker: &mut Tracker,
        now: Instant,
    ) -> io::Result<Duration> {
        let (in_flight, run) = (tracker.in_flight(lane.way), self.plan.run as u64);
        let due = match &mut lane.pace {
            Driver::Schedule(schedule) => schedule.due(now),
            Driver::Window(window) => window.saturating_sub(in_flight),
        };
        // A window that opens packet by packet still lets whole runs out.
        let due = if matches!(lane.pace, Driver::Window(_)) { due / run * run } else { due };
        if matches!(lane.pace, Driver::Window(_)) {
            self.unstall(lane, due, in_flight, tracker, now);
        }
        let mut left = due.min(BURST.max(run));
        while left > 0 {
            let (client, count) = (lane.turn, left.min(run));
            if self.send(2 * client + lane.way, count, number, tracker)? == Sent::Full {
                break;
            }
            left -= count;
            lane.turn = (client + 1) % self.crew.clients.len();
            if let Driver::Schedule(schedule) = &mut lane.pace {
                schedule.sent(count);
            }
        }
        Ok(match &lane.pace {
            _ if due > BURST => Duration::ZERO,
            Driver::Schedule(schedule) => schedule.wait(now),
            Driver::Window(_) => UPKEEP,
        })
    }

    /// A window that stays full although time passes has lost its packets.
    fn unstall(&self, lane: &mut Lane, due: u64, in_flight: u64, tracker: &mut Tracker, now: Instant) {
        if due > 0 || in_flight != lane.waiting {
            lane.moved = now;
        }
        lane.waiting = in_flight;
        if now.saturating_duration_since(lane.moved) > STALL {
            tracker.write_off(lane.way, |flow| self.sequences[flow]);
            lane.moved = now;
        }
    }

    /// Sends `count` packets of one flow.
    fn send(&mut self, flow: usize, count: u64, run: u32, tracker: &mut Tracker) -> io::Result<Sent> {
        let sent_ns = self.epoch.elapsed().as_nanos() as u64;
        let stamp = Stamp { run, flow: flow as u32, sequence: self.sequences[flow], sent_ns };
        let client = flow / 2;
        let sent = if flow.is_multiple_of(2) {
            self.crew.clients[client].link.send(self.templates[client].stamped(stamp, count as usize))?
        } else {
            let peer = &self.peers[client % self.peers.len()];
            outcome(peer.send_to(self.down.stamped(stamp, count as usize), self.sources[client]))?
        };
        if sent == Sent::Yes {
            self.sequences[flow] += count;
            tracker.sent(&stamp, count);
        }
        Ok(sent)
    }

    /// Waits for packets, at most `wait`, and reads them.
    fn receive(&mut self, wait: Duration, tracker: &mut Tracker) -> io::Result<()> {
        let wait = if self.ready.is_empty() { wait } else { Duration::ZERO };
        match self.crew.poll.poll(&mut self.crew.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        // An edge is told once: what is not read to the end stays on the list.
        for token in self.crew.events.iter().map(|event| event.token().0) {
            if !std::mem::replace(&mut self.is_ready[token], true) {
                self.ready.push(token);
            }
        }
        let mut kept = 0;
        for at in 0..self.ready.len() {
            let token = self.ready[at];
            let drained = if token < self.crew.clients.len() {
                self.read_client(token, tracker)?
            } else {
                self.read_peer(token - self.crew.clients.len(), tracker)?
            };
            self.is_ready[token] = !drained;
            if !drained {
                self.ready[kept] = token;
                kept += 1;
            }
        }
        self.ready.truncate(kept);
        Ok(())
    }

    fn read_client(&mut self, index: usize, tracker: &mut Tracker) -> io::Result<bool> {
        let Client { link, session, .. } = &mut self.crew.clients[index];
        let (epoch, stride) = (self.epoch, self.strides[0]);
        let mut again = false;
        let mut take = |packet: &[u8]| match received(packet) {
            Received::Payload(payload) => tracker.received(payload, epoch.elapsed().as_nanos() as u64),
            Received::Answer(answer) => match session.handle(&answer, Instant::now()) {
                Progress::Again => again = true,
                Progress::Failed(failure) => tracker.fail(failure),
                Progress::Ignored | Progress::Done(_) => {}
            },
            // Without a server the client gets what the peer sent, as it is.
            Received::Other => tracker.received(packet, epoch.elapsed().as_nanos() as u64),
        };
        let drained = link.receive(&mut self.crew.buffer, |run| run.chunks(stride).for_each(&mut take))?;
        if again {
            link.send(session.request())?;
        }
        Ok(drained)
    }

    fn read_peer(&mut self, index: usize, tracker: &mut Tracker) -> io::Result<bool> {
        for _ in 0..READ_BUDGET {
            match self.peers[index].recv(&mut self.crew.buffer) {
                Ok(len) => {
                    let now = self.epoch.elapsed().as_nanos() as u64;
                    let packets = self.crew.buffer[..len].chunks(self.strides[1]);
                    packets.for_each(|packet| tracker.received(packet, now));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn upkeep(&mut self, now: Instant, tracker: &mut Tracker) -> io::Result<()> {
        if self.crew.clients.first().is_none_or(|client| client.session.relayed().is_none()) {
            return Ok(());
        }
        for n in 0..self.crew.clients.len() {
            let binding = self.binding(n);
            if let Some(failure) = self.crew.clients[n].upkeep(now, binding)? {
                tracker.fail(failure);
            }
        }
        Ok(())
    }

    /// Waits for the last packets.
    fn settle(&mut self, end: Instant, tracker: &mut Tracker) -> io::Result<()> {
        while !tracker.is_settled() && end.elapsed() < SETTLE {
            self.receive(Duration::from_millis(10), tracker)?;
        }
        Ok(())
    }
}

fn first_channel() -> ChannelNumber {
    ChannelNumber::from_wire(0x4000).expect("the lowest channel number")
}
