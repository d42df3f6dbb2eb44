//! Allocation churn: each client allocates, permits, binds a channel and deletes, then begins again
//! from a new port and without a nonce, as a new call would.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::stun::ChannelNumber;

use super::crew::{Client, Crew, socket_failure};
use super::link::{Link, READ_BUFFER};
use super::load::{Load, Ports, SETTLE, Schedule, Spec, UPKEEP};
use super::packet::{Received, received};
use super::plan::{Pace, Plan};
use super::session::{Due, Failure, Progress, Step, TransactionIds};
use super::tally::Outcome;

/// A few failures are a figure, this many in a row are a server that does not work.
const MAX_FAILURES_IN_A_ROW: u32 = 20;

/// Ports that clients use, clear of the range most servers relay from.
const PORTS: Range<u16> = 10_000..49_152;

/// The churn of one worker.
pub(super) struct Cycles {
    plan: Plan,
    /// Those that stay.
    standing: Crew,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    places: Vec<Option<Cycle>>,
    vacant: Vec<usize>,
    failed_in_a_row: u32,
    port: u16,
}

struct Cycle {
    client: Client,
    begun: Instant,
}

impl Load for Cycles {
    fn prepare(plan: &Plan, worker: u32) -> Result<Self, Failure> {
        let count = plan.allocations_of(worker) as usize;
        let mut standing = Crew::open(plan, plan.standing_of(worker))?;
        standing.each(plan, |_| Some(Step::Allocate))?;
        let mut cycles = Self {
            plan: plan.clone(),
            standing,
            poll: Poll::new().map_err(|error| socket_failure(plan, &error))?,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ_BUFFER],
            places: (0..count).map(|_| None).collect(),
            vacant: (0..count).rev().collect(),
            failed_in_a_row: 0,
            port: first_port(worker, plan.workers),
        };
        cycles.probe()?;
        Ok(cycles)
    }

    fn run(&mut self, spec: &Spec) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        let mut schedule = match spec.pace {
            Pace::Rate { per_second, tick } => Some(Schedule::new(spec.start, per_second, tick)),
            Pace::Window(_) => None,
        };
        let mut upkeep = Instant::now();
        loop {
            let now = Instant::now();
            let over = now >= spec.end;
            if over && (self.is_quiet() || now >= spec.end + SETTLE) {
                return Ok(outcome);
            }
            let mut wait = UPKEEP.max(spec.start.saturating_duration_since(now));
            if now >= spec.start && !over {
                self.begin_due(schedule.as_mut(), now)?;
                wait = schedule.map_or(UPKEEP, |schedule| schedule.wait(now));
            }
            self.poll(wait, spec, &mut outcome)?;
            if upkeep.elapsed() >= UPKEEP {
                upkeep = Instant::now();
                self.retransmit(&mut outcome)?;
            }
        }
    }

    fn ports(&self) -> Ports {
        Ports::default()
    }

    fn finish(mut self, plan: &Plan) {
        // Only politeness, as for any allocation.
        let _ = self.standing.each(plan, |_| Some(Step::Delete));
    }
}

impl Cycles {
    /// One cycle before measuring, so that wrong credentials are told at once.
    fn probe(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let mut outcome = Outcome::new();
        let spec = Spec { run: 0, pace: Pace::Window(1), start: now, measure: now, end: now };
        self.begin(now)?;
        while !self.is_quiet() {
            self.poll(UPKEEP, &spec, &mut outcome)?;
            self.retransmit(&mut outcome)?;
        }
        outcome.first_failure.map_or(Ok(()), Err)
    }

    fn is_quiet(&self) -> bool {
        self.vacant.len() == self.places.len()
    }

    fn begin_due(&mut self, mut schedule: Option<&mut Schedule>, now: Instant) -> Result<(), Failure> {
        let due = schedule.as_mut().map_or(u64::MAX, |schedule| schedule.due(now));
        for _ in 0..due.min(self.vacant.len() as u64) {
            self.begin(now)?;
            if let Some(schedule) = schedule.as_mut() {
                schedule.sent(1);
            }
        }
        Ok(())
    }

    fn begin(&mut self, now: Instant) -> Result<(), Failure> {
        let Some(place) = self.vacant.pop() else { return Ok(()) };
        let link = self.next_link().map_err(|error| socket_failure(&self.plan, &error))?;
        let mut client = Client::on(link, &self.plan);
        let fail = |error: io::Error| socket_failure(&self.plan, &error);
        client.link.register(self.poll.registry(), Token(place)).map_err(fail)?;
        client.start(Step::Allocate, now).map_err(fail)?;
        self.places[place] = Some(Cycle { client, begun: now });
        Ok(())
    }

    /// A link from the next port. Ports are used in turn, because servers that remember a deleted
    /// allocation for a while refuse the same port with 437.
    fn next_link(&mut self) -> io::Result<Link> {
        for _ in 0..PORTS.len() {
            let port = self.port;
            self.port = if port + 1 < PORTS.end { port + 1 } else { PORTS.start };
            match Link::connect_from(port, self.plan.server, self.plan.transport) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn poll(&mut self, wait: Duration, spec: &Spec, outcome: &mut Outcome) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(|error| socket_failure(&self.plan, &error))?,
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for place in ready {
            self.advance(place, spec, outcome)?;
        }
        Ok(())
    }

    /// Reads what came for one client and takes the next step.
    fn advance(&mut self, place: usize, spec: &Spec, outcome: &mut Outcome) -> Result<(), Failure> {
        let Some(cycle) = &mut self.places[place] else { return Ok(()) };
        let now = Instant::now();
        let mut progress = Progress::Ignored;
        let Client { link, session, .. } = &mut cycle.client;
        let read = link.receive(&mut self.buffer, |packet| {
            if let Received::Answer(answer) = received(packet) {
                progress = session.handle(&answer, now);
            }
        });
        let peer = SocketAddr::new(self.plan.peer_ip, 9);
        let next = match (read, progress) {
            (Err(error), _) => return self.failed(place, socket_failure(&self.plan, &error), outcome),
            (_, Progress::Failed(failure)) => return self.failed(place, failure, outcome),
            (_, Progress::Ignored) => return Ok(()),
            (_, Progress::Again) => None,
            (_, Progress::Done(Step::Allocate)) => Some(Step::Permission(peer)),
            (_, Progress::Done(Step::Permission(_))) => Some(Step::Channel(peer, lowest_channel())),
            (_, Progress::Done(Step::Channel(..))) => Some(Step::Delete),
            (_, Progress::Done(Step::Delete | Step::Refresh)) => {
                self.completed(place, now, spec, outcome);
                return Ok(());
            }
        };
        let sent = match next {
            Some(step) => cycle.client.start(step, now),
            None => link.send(session.request()),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) => self.failed(place, socket_failure(&self.plan, &error), outcome),
        }
    }

    fn completed(&mut self, place: usize, now: Instant, spec: &Spec, outcome: &mut Outcome) {
        self.failed_in_a_row = 0;
        let Some(cycle) = self.leave(place) else { return };
        if (spec.measure..spec.end).contains(&now) {
            let way = &mut outcome.ways[0];
            way.sent += 1;
            way.received += 1;
            way.latency.record(now.saturating_duration_since(cycle.begun).as_nanos() as u64);
        }
    }

    fn failed(&mut self, place: usize, failure: Failure, outcome: &mut Outcome) -> Result<(), Failure> {
        self.leave(place);
        self.failed_in_a_row += 1;
        if self.failed_in_a_row >= MAX_FAILURES_IN_A_ROW {
            return Err(failure);
        }
        outcome.fail(failure);
        Ok(())
    }

    fn leave(&mut self, place: usize) -> Option<Cycle> {
        self.vacant.push(place);
        self.places[place].take()
    }

    fn retransmit(&mut self, outcome: &mut Outcome) -> Result<(), Failure> {
        let now = Instant::now();
        for place in 0..self.places.len() {
            let Some(cycle) = &mut self.places[place] else { continue };
            let result = match cycle.client.session.handle_timeout(now) {
                Due::Nothing => continue,
                Due::Resend => cycle.client.link.send(cycle.client.session.request()),
                Due::GiveUp(failure) => {
                    self.failed(place, failure, outcome)?;
                    continue;
                }
            };
            if let Err(error) = result {
                self.failed(place, socket_failure(&self.plan, &error), outcome)?;
            }
        }
        Ok(())
    }
}

/// Somewhere in the worker's part of the range, so that a run right after another one has other ports.
fn first_port(worker: u32, workers: u32) -> u16 {
    let part = PORTS.len() as u32 / workers;
    let offset = u32::from(TransactionIds::new().next().0[0]) * part / 256;
    PORTS.start + (worker * part + offset) as u16
}

fn lowest_channel() -> ChannelNumber {
    ChannelNumber::from_wire(0x4000).expect("the lowest channel number")
}
