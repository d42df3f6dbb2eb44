//! Floods: what strangers send, each packet from a port of its own. A server answers or does not; what counts is
//! what it costs, and that its memory is afterwards what it was before.

use std::collections::VecDeque;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::stun::{AttributeType, Class, MessageWriter, Method};

use super::crew::socket_failure;
use super::link::{Link, READ_BUFFER};
use super::load::{BURST, Load, Ports, Schedule, Spec};
use super::plan::{Pace, Plan};
use super::session::{Failure, TransactionIds};
use super::tally::Outcome;
use super::{Flood as Kind, Transport};

/// Time for the server to notice that all are gone, and to give memory back.
const AFTERMATH: Duration = Duration::from_millis(1500);

/// The strangers of one worker.
pub(super) struct Flood {
    plan: Plan,
    ids: TransactionIds,
    buffer: Vec<u8>,
    /// Those that were there last, oldest first; as many as the plan has allocations.
    strangers: VecDeque<Link>,
    most: usize,
}

impl Load for Flood {
    fn prepare(plan: &Plan, worker: u32) -> Result<Self, Failure> {
        let most = plan.allocations_of(worker) as usize;
        Ok(Self {
            plan: plan.clone(),
            ids: TransactionIds::new(),
            buffer: vec![0; READ_BUFFER],
            strangers: VecDeque::with_capacity(most),
            most,
        })
    }

    fn run(&mut self, spec: &Spec) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        let mut schedule = match spec.pace {
            Pace::Rate { per_second, tick } => Some(Schedule::new(spec.start, per_second, tick)),
            Pace::Window(_) => None,
        };
        sleep(spec.start.saturating_duration_since(Instant::now()));
        loop {
            let now = Instant::now();
            if now >= spec.end {
                break;
            }
            let due = schedule.as_mut().map_or(BURST, |schedule| schedule.due(now)).min(BURST);
            for _ in 0..due {
                self.stranger(spec, &mut outcome).map_err(|error| socket_failure(&self.plan, &error))?;
            }
            if let Some(schedule) = &mut schedule {
                schedule.sent(due);
                sleep(if due < BURST { schedule.wait(now) } else { Duration::ZERO });
            }
        }
        while !self.strangers.is_empty() {
            self.leave(spec, &mut outcome);
        }
        sleep(AFTERMATH);
        Ok(outcome)
    }

    fn ports(&self) -> Ports {
        Ports::default()
    }

    fn finish(self, _plan: &Plan) {}
}

impl Flood {
    /// A new one comes, says one thing, and takes the place of the oldest.
    fn stranger(&mut self, spec: &Spec, outcome: &mut Outcome) -> io::Result<()> {
        if self.strangers.len() == self.most {
            self.leave(spec, outcome);
        }
        let stream = self.plan.flood == Kind::HalfOpen;
        let transport = if stream { Transport::Tcp } else { Transport::Udp };
        let mut link = Link::connect(self.plan.server, transport)?;
        let mut packet = [0; 64];
        let len = self.write(&mut packet);
        if len > 0 {
            // A full buffer is as good as a loss on the way.
            link.send(&packet[..len])?;
        }
        self.strangers.push_back(link);
        outcome.ways[0].sent += u64::from((spec.measure..spec.end).contains(&Instant::now()));
        Ok(())
    }

    /// What a stranger says; nothing on a stream.
    fn write(&mut self, packet: &mut [u8; 64]) -> usize {
        let transaction = self.ids.next();
        let request = |packet, method| MessageWriter::new(packet, Class::Request, method, transaction);
        let written = match self.plan.flood {
            Kind::Binding => request(packet, Method::BINDING).finish(),
            Kind::Allocate => request(packet, Method::ALLOCATE)
                .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
                .finish(),
            Kind::Garbage => {
                packet.fill(0xFF);
                packet[4..16].copy_from_slice(&transaction.0);
                Ok(packet.len())
            }
            Kind::HalfOpen => Ok(0),
        };
        written.expect("64 bytes hold a header and an attribute")
    }

    /// The oldest goes; an answer that has come is counted.
    fn leave(&mut self, spec: &Spec, outcome: &mut Outcome) {
        let Some(mut link) = self.strangers.pop_front() else { return };
        let mut answers = 0;
        let read = link.receive(&mut self.buffer, |_| answers += 1);
        // A server may hang up on strangers; one that is not there is told.
        if let Err(error) = read
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            outcome.fail(socket_failure(&self.plan, &error));
        }
        if (spec.measure..spec.end).contains(&Instant::now()) {
            outcome.ways[0].received += answers.min(1);
        }
    }
}
