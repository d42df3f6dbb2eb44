//! Drives the workers through one or many measurements and reads the meters around them.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::binding::Binding;
use super::cycles::Cycles;
use super::flood::Flood;
use super::load::{Load, Ports, Spec};
use super::meter::{Growth, Meter, Reading, Usage};
use super::plan::{Pace, Plan, pace, tick};
use super::relay::Relay;
use super::search::{Search, Verdict};
use super::session::Failure;
use super::still::{Direct, Idle};
use super::tally::Outcome;
use super::{Args, Error, Mode};

/// Time for the workers to get going together.
const LEAD: Duration = Duration::from_millis(20);
/// First rate of a search, packets a second each way.
const FIRST_RATE: f64 = 10_000.0;
/// A try that sent less than this part of what was asked says nothing about the server. What is
/// reported is what was sent, not what was asked for.
const OFFERED: f64 = 0.9;

/// Everything known about one measurement.
pub(super) struct Measurement {
    pub(super) pace: Pace,
    pub(super) outcome: Outcome,
    pub(super) usage: Usage,
    /// What has come since before the first allocation, and until a flood was over.
    pub(super) grown: Growth,
    pub(super) drops: Drops,
}

/// Datagrams dropped because a receive buffer was full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drops {
    /// Of the generator: the server is not to blame.
    pub(super) own: u64,
    /// Of the server's relay sockets and its listener, when it runs on this machine.
    pub(super) server: u64,
}

/// The result of a whole run.
pub(super) struct Findings {
    /// The measurement; of a search, the one at the highest rate that was carried.
    pub(super) last: Measurement,
    /// Whether a search ended because the generator could not go faster.
    pub(super) limited: Option<bool>,
    /// Tries of a search: rate each way and loss.
    pub(super) tries: Vec<(f64, f64)>,
}

/// Runs what was asked for.
pub(super) fn conduct(args: &Args, plan: &Plan, meter: Meter, bar: &ProgressBar) -> Result<Findings, Error> {
    match plan.mode {
        Mode::Relay => with::<Relay>(args, plan, meter, bar),
        Mode::Direct => with::<Direct>(args, plan, meter, bar),
        Mode::Idle => with::<Idle>(args, plan, meter, bar),
        Mode::Cycles => with::<Cycles>(args, plan, meter, bar),
        Mode::Binding => with::<Binding>(args, plan, meter, bar),
        Mode::Flood => with::<Flood>(args, plan, meter, bar),
    }
}

/// A progress bar on standard error, which shows nothing when that is no terminal.
pub(super) fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {percent} %");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn with<L: Load>(args: &Args, plan: &Plan, meter: Meter, bar: &ProgressBar) -> Result<Findings, Error> {
    let before = meter.read();
    thread::scope(|scope| {
        bar.set_message("preparing");
        let crew = Ensemble::gather::<L>(scope, plan)?;
        let conductor = Conductor { crew, plan, meter, bar, before, run: 0 };
        if args.find_max { conductor.find_max(args) } else { conductor.once(args) }
    })
}

struct Conductor<'a> {
    crew: Ensemble,
    plan: &'a Plan,
    meter: Meter,
    bar: &'a ProgressBar,
    before: Reading,
    run: u32,
}

impl Conductor<'_> {
    fn once(mut self, args: &Args) -> Result<Findings, Error> {
        self.bar.set_message("measuring");
        let last = self.measure(pace(args), args.warmup, args.duration)?;
        Ok(Findings { last, limited: None, tries: Vec::new() })
    }

    fn find_max(mut self, args: &Args) -> Result<Findings, Error> {
        let mut search = Search::new(FIRST_RATE);
        let (mut best, mut tries) = (None, Vec::new());
        while let Some(rate) = search.next() {
            self.bar.set_message(format!("{rate:.0} packets/s each way"));
            let pace = Pace::Rate { per_second: rate, tick: tick(args) };
            let measurement = self.measure(pace, args.warmup.min(args.duration), args.duration)?;
            let verdict = self.judge(&measurement, rate, args);
            tries.push((rate, measurement.outcome.loss()));
            if verdict == Verdict::Carried {
                best = Some(measurement);
            }
            search.tried(verdict);
        }
        let limited = Some(search.limited);
        let Some(last) = best else {
            return Err(Error::Server(format!(
                "no rate was carried with a loss of at most {} %: the lowest tried was {:.0} packets/s each way",
                args.loss * 100.0,
                tries.iter().map(|(rate, _)| *rate).fold(FIRST_RATE, f64::min)
            )));
        };
        debug_assert!(search.best() > 0.0);
        Ok(Findings { last, limited, tries })
    }

    fn judge(&self, measurement: &Measurement, rate: f64, args: &Args) -> Verdict {
        let ways = match self.plan.relay_to_relay {
            true => 1.0,
            false => self.plan.ways().iter().map(|&way| f64::from(u8::from(way))).sum(),
        };
        let outcome = &measurement.outcome;
        if outcome.loss() > args.loss {
            Verdict::Lost
        } else if (outcome.sent() as f64) < rate * ways * args.duration.as_secs_f64() * OFFERED {
            Verdict::Unreachable
        } else {
            Verdict::Carried
        }
    }

    fn measure(&mut self, pace: Pace, warmup: Duration, duration: Duration) -> Result<Measurement, Error> {
        self.run += 1;
        let start = Instant::now() + LEAD;
        let measure = start + warmup;
        let spec = Spec {
            run: self.run,
            pace: pace.share(self.plan.workers),
            start,
            measure,
            end: measure + duration,
        };
        let ports_before = self.meter.read();
        self.crew.tell(&spec);
        self.wait_until(&spec, spec.measure);
        let begin = self.meter.read();
        self.wait_until(&spec, spec.end);
        let end = self.meter.read();
        let outcome = self.crew.collect()?;
        let after = self.meter.read();
        Ok(Measurement {
            pace,
            outcome,
            usage: end.since(&begin),
            grown: if self.plan.mode == Mode::Flood { &after } else { &end }.growth_since(&self.before),
            drops: self.crew.drops(self.plan, &ports_before, &after),
        })
    }

    /// Sleeps and moves the bar.
    fn wait_until(&self, spec: &Spec, until: Instant) {
        let whole = spec.end.saturating_duration_since(spec.start);
        self.bar.set_length(whole.as_millis() as u64);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let gone = Instant::now().saturating_duration_since(spec.start);
            self.bar.set_position(gone.as_millis() as u64);
            thread::sleep(left.min(Duration::from_millis(250)));
        }
    }
}

/// The worker threads. Dropping it lets them give back their allocations and end.
struct Ensemble {
    specs: Vec<Sender<Spec>>,
    outcomes: Receiver<Result<Outcome, Failure>>,
    ports: Ports,
}

impl Ensemble {
    fn gather<'scope, L: Load>(scope: &'scope Scope<'scope, '_>, plan: &'scope Plan) -> Result<Self, Error> {
        let (ready_to, ready) = channel();
        let (outcome_to, outcomes) = channel();
        let mut specs = Vec::new();
        for worker in 0..plan.workers {
            let (spec_to, told) = channel();
            let (ready_to, outcome_to) = (ready_to.clone(), outcome_to.clone());
            let body = move || work::<L>(plan, worker, &ready_to, &told, &outcome_to);
            thread::Builder::new()
                .name(format!("bench-{worker}"))
                .spawn_scoped(scope, body)
                .map_err(|error| Error::Local(format!("cannot start a thread: {error}")))?;
            specs.push(spec_to);
        }
        let mut ports = Ports::default();
        for worker in ready.iter().take(specs.len()) {
            let more = worker.map_err(|failure| Error::Server(failure.to_string()))?;
            ports.own.extend(more.own);
            ports.relays.extend(more.relays);
        }
        Ok(Self { specs, outcomes, ports })
    }

    fn tell(&self, spec: &Spec) {
        for worker in &self.specs {
            // A worker that is gone is noticed when its outcome is missing.
            let _ = worker.send(*spec);
        }
    }

    fn collect(&self) -> Result<Outcome, Error> {
        let mut sum = Outcome::new();
        for _ in &self.specs {
            let outcome = self.outcomes.recv().map_err(|_| Error::Local("a worker thread ended".into()))?;
            sum.merge(outcome.map_err(|failure| Error::Server(failure.to_string()))?);
        }
        Ok(sum)
    }

    fn drops(&self, plan: &Plan, before: &Reading, after: &Reading) -> Drops {
        let own: HashSet<u16> = self.ports.own.iter().copied().collect();
        let mut server: HashSet<u16> = self.ports.relays.iter().copied().collect();
        if plan.mode != Mode::Direct {
            server.insert(plan.server.port());
        }
        Drops { own: after.drops_since(before, &own), server: after.drops_since(before, &server) }
    }
}

/// The life of one worker thread.
fn work<L: Load>(
    plan: &Plan,
    worker: u32,
    ready: &Sender<Result<Ports, Failure>>,
    told: &Receiver<Spec>,
    outcomes: &Sender<Result<Outcome, Failure>>,
) {
    let mut load = match L::prepare(plan, worker) {
        Ok(load) => load,
        Err(failure) => return drop(ready.send(Err(failure))),
    };
    // The conductor is only gone when another worker failed.
    let _ = ready.send(Ok(load.ports()));
    for spec in told {
        if outcomes.send(load.run(&spec)).is_err() {
            break;
        }
    }
    load.finish(plan);
}
