//! Two loads made of the parts of [`Relay`]: allocations that only exist, and the traffic without a
//! server, which shows what this machine and this generator can do at all.

use std::io;

use super::crew::socket_failure;
use super::load::{Load, Ports, Spec};
use super::plan::Plan;
use super::relay::Relay;
use super::session::Failure;
use super::tally::Outcome;

/// Allocations with a channel each and no traffic.
pub(super) struct Idle(Relay);

impl Load for Idle {
    fn prepare(plan: &Plan, worker: u32) -> Result<Self, Failure> {
        Relay::prepare(plan, worker).map(Self)
    }

    fn run(&mut self, spec: &Spec) -> Result<Outcome, Failure> {
        self.0.hold(spec)
    }

    fn ports(&self) -> Ports {
        self.0.ports()
    }

    fn finish(self, plan: &Plan) {
        self.0.finish(plan);
    }
}

/// Client and peer sockets that send to each other directly.
pub(super) struct Direct(Relay);

impl Load for Direct {
    fn prepare(plan: &Plan, worker: u32) -> Result<Self, Failure> {
        let mut sockets = Relay::open(plan, plan.allocations_of(worker))?;
        sockets.without_server(plan).map_err(|error: io::Error| socket_failure(plan, &error))?;
        Ok(Self(sockets))
    }

    fn run(&mut self, spec: &Spec) -> Result<Outcome, Failure> {
        self.0.run(spec)
    }

    fn ports(&self) -> Ports {
        Ports { relays: Vec::new(), ..self.0.ports() }
    }

    fn finish(self, _plan: &Plan) {}
}
