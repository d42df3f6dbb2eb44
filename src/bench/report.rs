//! What a run found, as a table for people and as JSON for scripts.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::conductor::{Findings, Measurement};
use super::histogram::Histogram;
use super::plan::{Pace, Plan};
use super::tally::{Way, loss};
use super::{Args, Mode};

/// The report of a run. Rates are per second, times in microseconds, loss as a fraction.
#[derive(Serialize)]
pub(super) struct Report {
    mode: String,
    server: String,
    transport: String,
    allocations: u32,
    workers: u32,
    size: Option<usize>,
    seconds: f64,
    /// Asked for, each way; absent when saturating.
    target_rate: Option<f64>,
    sent: u64,
    received: u64,
    loss: f64,
    /// Received, all directions together.
    rate: f64,
    payload_mbit_s: Option<f64>,
    up: Option<Direction>,
    down: Option<Direction>,
    server_cpu_seconds: Option<f64>,
    server_cpu_us_each: Option<f64>,
    each_per_server_cpu_second: Option<f64>,
    machine_cpu_us_each: Option<f64>,
    server_resident_bytes: Option<u64>,
    server_grown_bytes: Option<i64>,
    server_bytes_per_allocation: Option<i64>,
    server_sockets_opened: Option<i64>,
    /// Of one socket of this machine without what it queues.
    kernel_bytes_per_socket: Option<i64>,
    dropped_at_generator: u64,
    dropped_at_server_sockets: u64,
    failures: u64,
    first_failure: Option<String>,
    limited_by_generator: Option<bool>,
    tries: Vec<Try>,
    #[serde(skip)]
    what: &'static str,
}

#[derive(Serialize)]
struct Direction {
    sent: u64,
    received: u64,
    loss: f64,
    reordered: u64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

#[derive(Serialize)]
struct Try {
    rate: f64,
    loss: f64,
}

impl Report {
    /// Puts the figures of a run together.
    pub(super) fn new(args: &Args, plan: &Plan, findings: &Findings) -> Self {
        let Measurement { pace, outcome, usage, grown, drops } = &findings.last;
        let seconds = usage.elapsed.as_secs_f64();
        let traffic = matches!(plan.mode, Mode::Relay | Mode::Direct);
        let received = outcome.received();
        // Of a flood it matters what a packet costs, not whether there was an answer.
        let count = if plan.mode == Mode::Flood { outcome.sent() } else { received };
        let each = |cpu: Option<Duration>| {
            cpu.filter(|_| count > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / count as f64)
        };
        let rate = count as f64 / seconds;
        let per_second = each(usage.server).filter(|us| *us > 0.0).map(|us| 1e6 / us);
        Self {
            mode: name(&args.mode),
            server: plan.server.to_string(),
            transport: name(&plan.transport),
            allocations: plan.allocations,
            workers: plan.workers,
            size: traffic.then_some(plan.size),
            seconds,
            target_rate: match pace {
                Pace::Rate { per_second, .. } => Some(*per_second),
                Pace::Window(_) => None,
            },
            sent: outcome.sent(),
            received,
            loss: outcome.loss(),
            rate,
            payload_mbit_s: traffic.then_some(rate * plan.size as f64 * 8.0 / 1e6),
            up: Direction::new(&outcome.ways[0]),
            down: Direction::new(&outcome.ways[1]),
            server_cpu_seconds: usage.server.map(|cpu| cpu.as_secs_f64()),
            server_cpu_us_each: each(usage.server),
            each_per_server_cpu_second: per_second,
            machine_cpu_us_each: each(usage.machine),
            server_resident_bytes: usage.resident,
            server_grown_bytes: grown.resident,
            server_bytes_per_allocation: grown
                .resident
                .filter(|_| plan.mode == Mode::Idle)
                .map(|bytes| bytes / i64::from(plan.allocations)),
            server_sockets_opened: grown.sockets,
            kernel_bytes_per_socket: grown.bytes_each.filter(|_| plan.mode == Mode::Idle),
            dropped_at_generator: drops.own,
            dropped_at_server_sockets: drops.server,
            failures: outcome.failures,
            first_failure: outcome.first_failure.as_ref().map(ToString::to_string),
            limited_by_generator: findings.limited,
            tries: findings.tries.iter().map(|&(rate, loss)| Try { rate, loss }).collect(),
            what: match plan.mode {
                Mode::Relay | Mode::Direct | Mode::Idle | Mode::Flood => "packet",
                Mode::Cycles => "cycle",
                Mode::Binding => "answer",
            },
        }
    }

    /// One JSON document on one line.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// A short table.
    pub(super) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} against {} over {}, {} allocations, {} worker{}",
            self.mode,
            self.server,
            self.transport,
            self.allocations,
            self.workers,
            if self.workers == 1 { "" } else { "s" }
        )?;
        if self.mode != "idle" {
            self.write_traffic(out)?;
        }
        self.write_cost(out)?;
        if let Some(failure) = &self.first_failure {
            writeln!(out, "failures   {}, the first: {failure}", self.failures)?;
        }
        Ok(())
    }

    fn write_traffic(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "rate       {:.0} {}s/s", self.rate, self.what)?;
        if let Some(mbit) = self.payload_mbit_s {
            write!(out, ", {mbit:.1} Mbit/s of payload")?;
        }
        if let Some(target) = self.target_rate {
            write!(out, " (asked for {target:.0}/s{})", if self.size.is_some() { " each way" } else { "" })?;
        }
        writeln!(out, " over {:.1} s", self.seconds)?;
        if self.limited_by_generator == Some(true) {
            writeln!(out, "           the generator was the limit: give it more cores with --workers")?;
        }
        writeln!(out, "loss       {:.4} % ({} of {})", self.loss * 100.0, self.missing(), self.sent)?;
        if self.dropped_at_generator + self.dropped_at_server_sockets > 0 {
            writeln!(
                out,
                "overflows  {} in the generator's sockets, {} in the server's",
                self.dropped_at_generator, self.dropped_at_server_sockets
            )?;
        }
        for (label, way) in [("up", &self.up), ("down", &self.down)] {
            let Some(way) = way else { continue };
            let label = if self.size.is_some() { label } else { "latency" };
            writeln!(
                out,
                "{label:<10} {} sent, {} lost, {} out of order; µs: mean {:.0}, p50 {:.0}, p99 {:.0}, max {:.0}",
                way.sent,
                way.sent.saturating_sub(way.received),
                way.reordered,
                way.mean_us,
                way.p50_us,
                way.p99_us,
                way.max_us
            )?;
        }
        Ok(())
    }

    fn write_cost(&self, out: &mut dyn Write) -> io::Result<()> {
        if let (Some(us), Some(cpu)) = (self.server_cpu_us_each, self.server_cpu_seconds) {
            write!(
                out,
                "server     {us:.2} µs CPU per {}, {:.0} % of a core",
                self.what,
                cpu / self.seconds * 100.0
            )?;
            match self.each_per_server_cpu_second {
                Some(count) => writeln!(out, ", {count:.0} {}s per CPU second", self.what)?,
                None => writeln!(out)?,
            }
        }
        if let Some(us) = self.machine_cpu_us_each {
            writeln!(out, "machine    {us:.2} µs CPU per {}, generator and all else included", self.what)?;
        }
        if let Some(bytes) = self.server_resident_bytes {
            write!(out, "memory     {:.1} MiB resident", bytes as f64 / f64::from(1 << 20))?;
            match self.server_bytes_per_allocation {
                Some(each) => writeln!(out, ", {each} bytes per allocation")?,
                None => writeln!(out, ", {} more than before", kib(self.server_grown_bytes.unwrap_or(0)))?,
            }
        }
        if let (Some(each), Some(count)) = (self.kernel_bytes_per_socket, self.server_sockets_opened) {
            writeln!(out, "kernel     {each} bytes per socket, {count} sockets opened by the server")?;
        }
        Ok(())
    }

    fn missing(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

impl Direction {
    fn new(way: &Way) -> Option<Self> {
        let us = |duration: Duration| duration.as_secs_f64() * 1e6;
        let at = |share: f64, latency: &Histogram| us(latency.quantile(share));
        (way.sent > 0).then(|| Self {
            sent: way.sent,
            received: way.received,
            loss: loss(way.sent, way.received),
            reordered: way.reordered,
            mean_us: us(way.latency.mean()),
            p50_us: at(0.5, &way.latency),
            p90_us: at(0.9, &way.latency),
            p99_us: at(0.99, &way.latency),
            p999_us: at(0.999, &way.latency),
            max_us: us(way.latency.max()),
        })
    }
}

fn kib(bytes: i64) -> String {
    format!("{:.0} KiB", bytes as f64 / 1024.0)
}

fn name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
