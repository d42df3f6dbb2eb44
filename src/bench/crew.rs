//! The TURN clients of one worker: opening their links, walking them through their requests, and
//! keeping their allocations alive.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::Transport;
use super::link::{Link, READ_BUFFER, Sent};
use super::load::UPKEEP;
use super::packet::{Received, received};
use super::plan::Plan;
use super::session::{Due, Failure, Progress, Session, Step};

/// Requests awaiting an answer at a time while a crew is being set up.
const SETUP_WINDOW: usize = 64;
/// Ports that are given up in all because the server still holds an earlier allocation for them.
const MAX_MOVES: u32 = 1000;
/// Permissions live 5 minutes and allocations 10: renewed well before.
const RENEW_AFTER: Duration = Duration::from_secs(200);

/// A client: its link to the server and its protocol state.
pub(super) struct Client {
    pub(super) link: Link,
    pub(super) session: Session,
    renewed: Instant,
    renewal: Vec<Step>,
}

impl Client {
    /// A client on any port.
    pub(super) fn open(plan: &Plan) -> io::Result<Self> {
        Ok(Self::on(Link::connect(plan.server, plan.transport)?, plan))
    }

    /// A client on this link.
    pub(super) fn on(link: Link, plan: &Plan) -> Self {
        let stream = plan.transport == Transport::Tcp;
        let session = Session::new(plan.account.clone(), stream, plan.peer_ip.is_ipv6());
        Self { link, session, renewed: Instant::now(), renewal: Vec::new() }
    }

    /// The relayed address; clients are only asked after Allocate succeeded.
    pub(super) fn relayed(&self) -> SocketAddr {
        self.session.relayed().expect("asked after Allocate succeeded")
    }

    /// Starts a step and sends its request.
    pub(super) fn start(&mut self, step: Step, now: Instant) -> io::Result<Sent> {
        self.session.start(step, now);
        self.link.send(self.session.request())
    }

    /// Retransmits, gives up, or renews what would expire.
    pub(super) fn upkeep(&mut self, now: Instant, binding: Step) -> io::Result<Option<Failure>> {
        match self.session.handle_timeout(now) {
            Due::Resend => drop(self.link.send(self.session.request())?),
            Due::GiveUp(failure) => return Ok(Some(failure)),
            Due::Nothing => {}
        }
        if self.session.is_pending() {
            return Ok(None);
        }
        if now.saturating_duration_since(self.renewed) > RENEW_AFTER {
            self.renewed = now;
            self.renewal = vec![Step::Refresh, binding];
        }
        if let Some(step) = self.renewal.pop() {
            self.start(step, now)?;
        }
        Ok(None)
    }
}

/// A socket's error in words.
pub(super) fn socket_failure(plan: &Plan, error: &io::Error) -> Failure {
    let (server, transport) = (plan.server, format!("{:?}", plan.transport).to_uppercase());
    Failure::Socket(match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens on {server} {transport}: is the server running, is the port right?")
        }
        io::ErrorKind::ConnectionReset => format!("the server closed the connection: {error}"),
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => {
            format!("too many open sockets ({error}): raise `ulimit -n` or lower --allocations")
        }
        _ => format!("{server} {transport}: {error}"),
    })
}

/// All clients of a worker, and what wakes it up.
pub(super) struct Crew {
    pub(super) poll: Poll,
    pub(super) events: Events,
    pub(super) clients: Vec<Client>,
    pub(super) buffer: Vec<u8>,
}

impl Crew {
    /// Opens `count` clients; client `n` has token `n`.
    pub(super) fn open(plan: &Plan, count: u32) -> Result<Self, Failure> {
        let fail = |error: io::Error| socket_failure(plan, &error);
        let poll = Poll::new().map_err(fail)?;
        let mut clients = Vec::with_capacity(count as usize);
        for token in 0..count as usize {
            let mut client = Client::open(plan).map_err(fail)?;
            client.link.register(poll.registry(), Token(token)).map_err(fail)?;
            clients.push(client);
        }
        let buffer = vec![0; READ_BUFFER];
        Ok(Self { poll, events: Events::with_capacity(1024), clients, buffer })
    }

    /// Walks all clients that `step` names one for through that step, a bounded number at a time.
    pub(super) fn each(&mut self, plan: &Plan, step: impl Fn(usize) -> Option<Step>) -> Result<(), Failure> {
        let fail = |error: io::Error| socket_failure(plan, &error);
        let (mut next, mut open, mut moves) = (0, 0, 0);
        let mut looked = Instant::now();
        while open > 0 || next < self.clients.len() {
            let now = Instant::now();
            while open < SETUP_WINDOW && next < self.clients.len() {
                if let Some(step) = step(next) {
                    self.clients[next].start(step, now).map_err(fail)?;
                    open += 1;
                }
                next += 1;
            }
            if open == 0 {
                return Ok(());
            }
            self.poll.poll(&mut self.events, Some(UPKEEP)).map_err(fail)?;
            let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for index in ready.into_iter().filter(|&index| index < next) {
                match self.finished(index).map_err(fail)? {
                    Ok(done) => open -= done,
                    // RFC 8656 §7.2: another client had this port a moment ago, so take another one.
                    Err(Failure::Refused(Step::Allocate, 437, _)) if moves < MAX_MOVES => {
                        moves += 1;
                        self.move_client(plan, index).map_err(fail)?;
                    }
                    Err(failure) => return Err(failure),
                }
            }
            if looked.elapsed() >= UPKEEP {
                looked = Instant::now();
                self.retransmit(next).map_err(fail)??;
            }
        }
        Ok(())
    }

    /// Reads what a client received; how many steps that finished.
    fn finished(&mut self, index: usize) -> io::Result<Result<usize, Failure>> {
        let Client { link, session, .. } = &mut self.clients[index];
        let now = Instant::now();
        let (mut done, mut again, mut failed) = (0, false, None);
        link.receive(&mut self.buffer, |packet| {
            let Received::Answer(answer) = received(packet) else { return };
            match session.handle(&answer, now) {
                Progress::Ignored => {}
                Progress::Again => again = true,
                Progress::Done(_) => done += 1,
                Progress::Failed(failure) => failed = Some(failure),
            }
        })?;
        if again {
            link.send(session.request())?;
        }
        Ok(failed.map_or(Ok(done), Err))
    }

    /// Lets a client allocate from another port.
    fn move_client(&mut self, plan: &Plan, index: usize) -> io::Result<()> {
        self.clients[index] = Client::open(plan)?;
        let client = &mut self.clients[index];
        client.link.register(self.poll.registry(), Token(index))?;
        client.start(Step::Allocate, Instant::now()).map(drop)
    }

    fn retransmit(&mut self, started: usize) -> io::Result<Result<(), Failure>> {
        let now = Instant::now();
        for client in &mut self.clients[..started] {
            match client.session.handle_timeout(now) {
                Due::Nothing => {}
                Due::Resend => drop(client.link.send(client.session.request())?),
                Due::GiveUp(failure) => return Ok(Err(failure)),
            }
        }
        Ok(Ok(()))
    }
}
