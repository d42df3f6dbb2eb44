//! Binding requests (RFC 8489 §12): every client keeps asking from its own port.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::stun::{Class, Message, MessageWriter, Method, TransactionId};

use super::crew::socket_failure;
use super::link::{Link, READ_BUFFER, Sent};
use super::load::{BURST, Load, Ports, Schedule, Spec, UPKEEP};
use super::packet::{Received, received};
use super::plan::{Pace, Plan};
use super::session::{Failure, TransactionIds};
use super::tally::Outcome;

/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_millis(500);

/// The questions of one worker.
pub(super) struct Binding {
    plan: Plan,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    askers: Vec<Asker>,
    turn: usize,
    waiting: u64,
    looked: Instant,
}

struct Asker {
    link: Link,
    ids: TransactionIds,
    asked: VecDeque<(TransactionId, Instant)>,
}

impl Load for Binding {
    fn prepare(plan: &Plan, worker: u32) -> Result<Self, Failure> {
        let fail = |error: io::Error| socket_failure(plan, &error);
        let poll = Poll::new().map_err(fail)?;
        let mut askers = Vec::new();
        for token in 0..plan.allocations_of(worker) as usize {
            let mut link = Link::connect(plan.server, plan.transport).map_err(fail)?;
            link.register(poll.registry(), Token(token)).map_err(fail)?;
            askers.push(Asker { link, ids: TransactionIds::new(), asked: VecDeque::new() });
        }
        let mut binding = Self {
            plan: plan.clone(),
            poll,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ_BUFFER],
            askers,
            turn: 0,
            waiting: 0,
            looked: Instant::now(),
        };
        binding.probe()?;
        Ok(binding)
    }

    fn run(&mut self, spec: &Spec) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        let mut schedule = match spec.pace {
            Pace::Rate { per_second, tick } => Some(Schedule::new(spec.start, per_second, tick)),
            Pace::Window(_) => None,
        };
        let window = match spec.pace {
            Pace::Window(window) => u64::from(window),
            Pace::Rate { .. } => u64::MAX,
        };
        loop {
            let now = Instant::now();
            let over = now >= spec.end;
            self.expire(now);
            if over && self.waiting == 0 {
                return Ok(outcome);
            }
            let mut wait = UPKEEP;
            if now >= spec.start && !over {
                let due = schedule.as_mut().map_or(u64::MAX, |schedule| schedule.due(now));
                let due = due.min(window.saturating_sub(self.waiting));
                self.ask(due.min(BURST), schedule.as_mut(), spec, &mut outcome)?;
                let rest = schedule.map_or(UPKEEP, |schedule| schedule.wait(now));
                wait = if due > BURST { Duration::ZERO } else { rest };
            }
            self.listen(wait, spec, &mut outcome)?;
        }
    }

    fn ports(&self) -> Ports {
        let own = self.askers.iter().filter_map(|asker| asker.link.local_addr().ok());
        Ports { own: own.map(|address| address.port()).collect(), relays: Vec::new() }
    }

    fn finish(self, _plan: &Plan) {}
}

impl Binding {
    /// One question before measuring, so that a server that is not there is told at once.
    fn probe(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let end = now + Duration::from_secs(3600);
        let spec = Spec { run: 0, pace: Pace::Window(1), start: now, measure: now, end };
        let mut outcome = Outcome::new();
        for _ in 0..6 {
            let asked = Instant::now();
            self.ask(1, None, &spec, &mut outcome)?;
            while asked.elapsed() < PATIENCE && outcome.received() == 0 {
                self.listen(UPKEEP, &spec, &mut outcome)?;
                self.expire(Instant::now());
            }
            if outcome.received() > 0 {
                return Ok(());
            }
        }
        Err(Failure::NoAnswer("Binding"))
    }

    /// Gives up on questions that have waited long enough; looks at all of them every [`UPKEEP`].
    fn expire(&mut self, now: Instant) {
        if now.saturating_duration_since(self.looked) < UPKEEP {
            return;
        }
        self.looked = now;
        for asker in &mut self.askers {
            while asker.asked.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) > PATIENCE) {
                asker.asked.pop_front();
                self.waiting -= 1;
            }
        }
    }

    fn ask(
        &mut self,
        count: u64,
        mut schedule: Option<&mut Schedule>,
        spec: &Spec,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        for _ in 0..count {
            let asker = &mut self.askers[self.turn];
            let transaction = asker.ids.next();
            let mut request = [0; 20];
            let len = MessageWriter::new(&mut request, Class::Request, Method::BINDING, transaction)
                .finish()
                .expect("a Binding request is a header");
            let now = Instant::now();
            match asker.link.send(&request[..len]) {
                Ok(Sent::Yes) => {}
                Ok(Sent::Full) => break,
                Err(error) => return Err(socket_failure(&self.plan, &error)),
            }
            asker.asked.push_back((transaction, now));
            self.waiting += 1;
            self.turn = (self.turn + 1) % self.askers.len();
            outcome.ways[0].sent += u64::from((spec.measure..spec.end).contains(&now));
            if let Some(schedule) = schedule.as_mut() {
                schedule.sent(1);
            }
        }
        Ok(())
    }

    fn listen(&mut self, wait: Duration, spec: &Spec, outcome: &mut Outcome) -> Result<(), Failure> {
        let fail = |error: io::Error| socket_failure(&self.plan, &error);
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(fail)?,
        }
        for event in &self.events {
            let Asker { link, asked, .. } = &mut self.askers[event.token().0];
            while !link
                .receive(&mut self.buffer, |packet| {
                    self.waiting -= u64::from(settle(asked, packet, spec, outcome));
                })
                .map_err(fail)?
            {}
        }
        Ok(())
    }
}

/// Finds the question of an answer and counts it; false when nobody asked.
fn settle(
    asked: &mut VecDeque<(TransactionId, Instant)>,
    packet: &[u8],
    spec: &Spec,
    outcome: &mut Outcome,
) -> bool {
    let Received::Answer(answer) = received(packet) else { return false };
    let Some((_, sent)) = position(asked, &answer).and_then(|at| asked.remove(at)) else { return false };
    if (spec.measure..spec.end).contains(&sent) {
        outcome.ways[0].received += 1;
        outcome.ways[0].latency.record(sent.elapsed().as_nanos() as u64);
    }
    true
}

fn position(asked: &VecDeque<(TransactionId, Instant)>, answer: &Message<'_>) -> Option<usize> {
    let success = answer.class() == Class::Success;
    asked.iter().position(|(transaction, _)| success && *transaction == answer.transaction())
}
