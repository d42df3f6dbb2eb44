//! What a run costs: CPU time and memory of the server's process and of the whole machine, and where
//! datagrams were dropped for want of room. From Linux and its /proc; elsewhere there is simply no figure.

use std::collections::HashSet;
use std::fs::read_to_string;
use std::time::{Duration, Instant};

use super::Error;
// To the nanosecond: the clock ticks in /proc are too coarse for a server that is mostly idle.
#[cfg(target_os = "linux")]
use crate::io::linux::cpu_time as process_time;

/// Length of a clock tick in /proc: USER_HZ is 100 on every Linux that people run.
const TICK: Duration = Duration::from_millis(10);

/// A reading of all meters at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    at: Instant,
    process: Option<Duration>,
    machine: Option<Duration>,
    resident: Option<u64>,
    sockets: Option<u64>,
    machine_sockets: Option<u64>,
    kernel: Option<u64>,
    drops: Vec<(u16, u64)>,
}

/// What happened between two readings.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    /// Time between the two.
    pub(super) elapsed: Duration,
    /// CPU time of all threads of the server.
    pub(super) server: Option<Duration>,
    /// CPU time of everything on this machine.
    pub(super) machine: Option<Duration>,
    /// Resident bytes of the server at the second reading.
    pub(super) resident: Option<u64>,
}

/// What has been added between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// Resident bytes of the server.
    pub(super) resident: Option<i64>,
    /// Sockets of the server.
    pub(super) sockets: Option<i64>,
    /// Kernel memory for one socket of any process, without what it queues. Only root may read it.
    pub(super) bytes_each: Option<i64>,
}

/// Reads the meters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    pid: Option<u32>,
}

impl Meter {
    /// A meter for this process and the machine.
    pub(super) fn new(pid: Option<u32>) -> Result<Self, Error> {
        if let Some(pid) = pid
            && process_time(pid).is_none()
        {
            return Err(Error::Usage(format!("--pid {pid}: there is no such process on this machine")));
        }
        Ok(Self { pid })
    }

    /// The meters now.
    pub(super) fn read(self) -> Reading {
        Reading {
            at: Instant::now(),
            process: self.pid.and_then(process_time),
            machine: machine_time(),
            resident: self.pid.and_then(resident),
            sockets: self.pid.and_then(sockets),
            machine_sockets: machine_sockets(),
            kernel: socket_memory(),
            drops: udp_drops(),
        }
    }
}

impl Reading {
    /// What happened since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Usage {
        let cpu = |now: Option<Duration>, then: Option<Duration>| now?.checked_sub(then?);
        Usage {
            elapsed: self.at.saturating_duration_since(earlier.at),
            server: cpu(self.process, earlier.process),
            machine: cpu(self.machine, earlier.machine),
            resident: self.resident,
        }
    }

    /// What has been added since `earlier`.
    pub(super) fn growth_since(&self, earlier: &Self) -> Growth {
        let grown = |now: Option<u64>, then: Option<u64>| Some(now?.cast_signed() - then?.cast_signed());
        let all = grown(self.machine_sockets, earlier.machine_sockets).filter(|count| *count > 0);
        Growth {
            resident: grown(self.resident, earlier.resident),
            sockets: grown(self.sockets, earlier.sockets),
            bytes_each: all.and_then(|all| Some(grown(self.kernel, earlier.kernel)? / all)),
        }
    }

    /// Datagrams that did not fit into the receive buffers of sockets on these local ports since
    /// `earlier`; only sockets of this machine and network namespace are seen.
    pub(super) fn drops_since(&self, earlier: &Self, ports: &HashSet<u16>) -> u64 {
        let sum = |reading: &Self| {
            reading.drops.iter().filter(|(port, _)| ports.contains(port)).map(|(_, n)| n).sum::<u64>()
        };
        sum(self).saturating_sub(sum(earlier))
    }
}

/// Elsewhere nobody knows.
#[cfg(not(target_os = "linux"))]
fn process_time(_pid: u32) -> Option<Duration> {
    None
}

/// Time that any core was busy: user, nice, system, irq, softirq.
fn machine_time() -> Option<Duration> {
    busy_of_stat(&read_to_string("/proc/stat").ok()?)
}

fn busy_of_stat(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&column| ticks.get(column)).sum();
    Some(Duration::from_millis(busy * TICK.as_millis() as u64))
}

fn resident(pid: u32) -> Option<u64> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the kernel keeps for a socket, as its caches are called in slabinfo(5): itself, its file and its place in
/// an epoll.
const SOCKET_CACHES: [&str; 8] =
    ["UDP", "UDPv6", "TCP", "TCPv6", "sock_inode_cache", "filp", "eventpoll_epi", "eventpoll_pwq"];

/// Bytes in the caches of sockets, of all processes.
fn socket_memory() -> Option<u64> {
    Some(bytes_of_caches(&read_to_string("/proc/slabinfo").ok()?))
}

fn bytes_of_caches(slabinfo: &str) -> u64 {
    let bytes = slabinfo.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        fields.next().filter(|name| SOCKET_CACHES.contains(name))?;
        let objects: u64 = fields.next()?.parse().ok()?;
        Some(objects * fields.nth(1)?.parse::<u64>().ok()?)
    });
    bytes.sum()
}

/// Sockets of all processes.
fn machine_sockets() -> Option<u64> {
    let summary = read_to_string("/proc/net/sockstat").ok()?;
    summary.lines().find_map(|line| line.strip_prefix("sockets: used "))?.trim().parse().ok()
}

/// Open sockets of a process.
fn sockets(pid: u32) -> Option<u64> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let names = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    Some(names.filter(|name| name.to_string_lossy().starts_with("socket:")).count() as u64)
}

/// Local port and drop count of every UDP socket that has dropped something.
fn udp_drops() -> Vec<(u16, u64)> {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| read_to_string(path).ok())
        .flat_map(|table| table.lines().skip(1).filter_map(drops_of_line).collect::<Vec<_>>())
        .filter(|(_, drops)| *drops > 0)
        .collect()
}

fn drops_of_line(line: &str) -> Option<(u16, u64)> {
    let local = line.split_ascii_whitespace().nth(1)?;
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some((port, line.split_ascii_whitespace().last()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_time_is_not_busy() {
        let stat = "cpu  100 10 50 9999 777 3 7 5 0 0\ncpu0 1 2 3\n";
        assert_eq!(busy_of_stat(stat), Some(Duration::from_millis(1700)));
    }

    #[test]
    fn drops_are_the_last_column_and_the_port_is_hexadecimal() {
        let line = "  61: 0100007F:0D96 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 \
                    5128 2 00000000f4aa8b01 12";
        assert_eq!(drops_of_line(line), Some((3478, 12)));
    }

    #[test]
    fn the_caches_of_sockets_are_found_among_others() {
        let table = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
                     UDP 10 20 1344 12 4 : tunables\nUDP-Lite 9 9 1344 1 1\nfilp 3 30 192 1 1\n";
        assert_eq!(bytes_of_caches(table), 10 * 1344 + 3 * 192);
    }

    #[test]
    fn sockets_are_told_from_other_files() {
        let before = sockets(std::process::id());
        let held: Vec<_> = (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0")).collect();
        // Other tests of this process open and close theirs meanwhile, but not all of these.
        assert!(before.is_some() && sockets(std::process::id()) >= Some(held.len() as u64));
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let meter = Meter::new(Some(std::process::id())).expect("we run");
        let first = meter.read();
        let usage = meter.read().since(&first);
        assert!(usage.server.is_some() && usage.machine.is_some());
        assert!(usage.resident.is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Meter::new(Some(u32::MAX)).expect_err("no such process");
        assert!(error.to_string().contains("no such process"));
    }
}
