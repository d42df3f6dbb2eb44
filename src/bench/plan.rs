//! A run as it was asked for, checked and resolved: what the workers share.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::link::any_like;
use super::{Args, Direction, Error, Flood, Mode, Transport};

/// Packets a second when neither --rate, --saturate nor --find-max is given.
const DEFAULT_RATE: u32 = 1000;
/// Peer sockets of a worker unless --peers says otherwise.
const DEFAULT_PEERS: u32 = 16;
const DEFAULT_PORT: u16 = 3478;
/// Payload of the largest UDP datagram that both families carry.
const MAX_DATAGRAM: usize = 65_487;

/// Everything that stays the same over all measurements of a run.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) server: SocketAddr,
    pub(super) peer_ip: IpAddr,
    pub(super) account: Arc<Account>,
    pub(super) transport: Transport,
    pub(super) direction: Direction,
    pub(super) indications: bool,
    pub(super) relay_to_relay: bool,
    /// Packets that leave as one.
    pub(super) run: usize,
    pub(super) flood: Flood,
    pub(super) standing: u32,
    pub(super) size: usize,
    pub(super) allocations: u32,
    pub(super) peers: u32,
    pub(super) workers: u32,
}

/// How fast one measurement goes, over all workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// Packets a second in each direction, in bursts `tick` apart; zero spreads them evenly.
    Rate { per_second: f64, tick: Duration },
    /// At most so many on their way in each direction.
    Window(u32),
}

impl Pace {
    /// The part of it that one of `workers` takes on; parts of a window are never zero.
    pub(super) fn share(self, workers: u32) -> Self {
        match self {
            Self::Rate { per_second, tick } => {
                Self::Rate { per_second: per_second / f64::from(workers), tick }
            }
            Self::Window(window) => Self::Window((window / workers).max(1)),
        }
    }
}

impl Plan {
    /// Checks and resolves the command line.
    pub(super) fn from_args(args: &Args) -> Result<Self, Error> {
        let server = resolve(&args.server)?;
        let peer_ip = match args.peer_address {
            Some(ip) => ip,
            None => address_towards(server)?,
        };
        let workers = u32::from(args.workers).min(args.allocations);
        let account = Account::from_args(args)?;
        let needs_account = matches!(args.mode, Mode::Relay | Mode::Cycles | Mode::Idle);
        if needs_account && account.is_anonymous() {
            return Err(Error::Usage(
                "give credentials: --secret with the server's shared secret, or --user and --password".into(),
            ));
        }
        if args.relay_to_relay && !args.allocations.is_multiple_of(2 * workers) {
            return Err(Error::Usage(
                "--relay-to-relay makes pairs: --allocations must be a multiple of twice --workers".into(),
            ));
        }
        if args.find_max && !matches!(args.mode, Mode::Relay | Mode::Direct) {
            return Err(Error::Usage("--find-max is for --mode relay and direct".into()));
        }
        if args.mode == Mode::Direct && args.transport == Transport::Tcp {
            return Err(Error::Usage("--mode direct is for --transport udp".into()));
        }
        if args.standing > 0 && args.mode != Mode::Cycles {
            return Err(Error::Usage("--standing is for --mode cycles".into()));
        }
        check_runs(args, workers)?;
        if args.duration.is_zero() {
            return Err(Error::Usage("--duration must be above 0".into()));
        }
        Ok(Self {
            mode: args.mode,
            server,
            peer_ip,
            account: Arc::new(account),
            transport: args.transport,
            direction: args.direction,
            indications: args.indications,
            relay_to_relay: args.relay_to_relay,
            run: usize::from(args.gso),
            flood: args.flood,
            standing: args.standing,
            size: usize::from(args.size),
            allocations: args.allocations,
            peers: args.peers.unwrap_or(DEFAULT_PEERS).max(1),
            workers,
        })
    }

    /// How many allocations worker number `worker` holds; pairs stay together.
    pub(super) fn allocations_of(&self, worker: u32) -> u32 {
        self.part(self.allocations, worker)
    }

    /// How many of the allocations that stay worker number `worker` holds.
    pub(super) fn standing_of(&self, worker: u32) -> u32 {
        self.part(self.standing, worker)
    }

    fn part(&self, whole: u32, worker: u32) -> u32 {
        whole / self.workers + u32::from(worker < whole % self.workers)
    }

    /// Directions in which packets are sent: up, down. Relay to relay both are "up".
    pub(super) fn ways(&self) -> [bool; 2] {
        match self.direction {
            Direction::Up => [true, false],
            Direction::Down => [false, true],
            Direction::Both => [true, true],
        }
    }
}

/// Whether what is asked to leave as one can.
fn check_runs(args: &Args, workers: u32) -> Result<(), Error> {
    let refused = |why: String| Err(Error::Usage(format!("--gso {}: {why}", args.gso)));
    let most = MAX_DATAGRAM / (usize::from(args.size) + 4);
    match args.gso {
        1 => Ok(()),
        _ if args.transport == Transport::Tcp => {
            refused("a stream has no runs; leave out --transport tcp".into())
        }
        run if usize::from(run) > most => refused(format!("at most {most} packets of --size {}", args.size)),
        run if args.saturate && u32::from(run) * workers > args.window => {
            refused("--window must be at least that for each of --workers".into())
        }
        _ => Ok(()),
    }
}

/// The pace asked for; with --find-max the search decides the rate.
pub(super) fn pace(args: &Args) -> Pace {
    if args.saturate {
        return Pace::Window(args.window);
    }
    let per_second = f64::from(args.rate.unwrap_or(DEFAULT_RATE));
    Pace::Rate { per_second, tick: tick(args) }
}

/// Bursts a millisecond apart unless asked otherwise; a search spreads packets evenly, because bursts
/// would measure the server's buffers instead of its speed.
pub(super) fn tick(args: &Args) -> Duration {
    Duration::from_millis(u64::from(args.tick.unwrap_or(u16::from(!args.find_max))))
}

fn resolve(server: &str) -> Result<SocketAddr, Error> {
    let bare_ip = server.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if let Ok(ip) = bare_ip {
        return Ok(SocketAddr::new(ip, DEFAULT_PORT));
    }
    let with_port = if server.contains(':') { server.to_owned() } else { format!("{server}:{DEFAULT_PORT}") };
    let unknown = |why: String| {
        Error::Usage(format!(
            "--server {server}: {why}; give a host name or an address, with :PORT if not 3478"
        ))
    };
    let mut addresses = with_port.to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    addresses.next().ok_or_else(|| unknown("the name has no address".into()))
}

/// Our address on the way to the server.
fn address_towards(server: SocketAddr) -> Result<IpAddr, Error> {
    let local = || {
        let socket = UdpSocket::bind(any_like(server))?;
        socket.connect(server)?;
        socket.local_addr()
    };
    let local = local().map_err(|error| Error::Local(format!("no way to {server}: {error}")))?;
    Ok(local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_name_or_an_address_with_or_without_port() {
        let found = |text| resolve(text).map(|address| address.to_string()).ok();
        assert_eq!(found("127.0.0.1").as_deref(), Some("127.0.0.1:3478"));
        assert_eq!(found("127.0.0.1:9").as_deref(), Some("127.0.0.1:9"));
        assert_eq!(found("::1").as_deref(), Some("[::1]:3478"));
        assert_eq!(found("[::1]").as_deref(), Some("[::1]:3478"));
        assert_eq!(found("[::1]:9").as_deref(), Some("[::1]:9"));
        assert_eq!(found("127.0.0.1:x"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn shares_of_a_window_are_never_zero() {
        assert_eq!(Pace::Window(3).share(8), Pace::Window(1));
        assert_eq!(Pace::Window(64).share(2), Pace::Window(32));
    }
}
