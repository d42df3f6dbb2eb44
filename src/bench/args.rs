//! The command line of `turnkey bench`.

use std::time::Duration;

/// Load generator against any TURN server: rates, loss, latency, allocation churn, server CPU.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// TURN server to load; the port is 3478 unless given.
    #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.0.1:3478")]
    pub server: String,

    /// What to do: relay traffic, make and delete allocations, ask for bindings, hold idle
    /// allocations, flood the server with what must not cost it anything, or send the relay traffic
    /// straight to the peer without any server.
    #[arg(long, value_enum, default_value = "relay")]
    pub mode: Mode,

    /// User name, with --password.
    #[arg(long, requires = "password", conflicts_with = "secret")]
    pub user: Option<String>,

    /// Password of --user.
    #[arg(long, requires = "user")]
    pub password: Option<String>,

    /// Shared secret of the server, to make time-limited credentials with.
    #[arg(long)]
    pub secret: Option<String>,

    /// Realm to expect; without it, the one the server names.
    #[arg(long)]
    pub realm: Option<String>,

    /// Allocations at a time (relay, idle), clients at a time (cycles, binding), ports at a time (flood).
    #[arg(short = 'n', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub allocations: u32,

    /// Packets a second in each direction over all allocations (relay), cycles, requests or packets a
    /// second (cycles, binding, flood) [default: 1000].
    #[arg(long, conflicts_with_all = ["saturate", "find_max"])]
    pub rate: Option<u32>,

    /// As fast as the server answers: at most --window packets or requests are on their way.
    #[arg(long, conflicts_with = "find_max")]
    pub saturate: bool,

    /// Find the highest rate with a loss of at most --loss.
    #[arg(long)]
    pub find_max: bool,

    /// Loss that --find-max tolerates, as 0.1% or 0.001.
    #[arg(long, default_value = "0.1%", value_parser = fraction)]
    pub loss: f64,

    /// Packets that senders hand to the kernel as one (UDP_SEGMENT); receivers then take runs as one
    /// (UDP_GRO), so that the generator is not the limit.
    #[arg(long, value_name = "PACKETS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64),
          conflicts_with_all = ["indications", "find_max"])]
    pub gso: u16,

    /// UDP payload bytes of each relayed packet, at least 24.
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u16).range(24..=8192))]
    pub size: u16,

    /// up: client to peer; down: peer to client.
    #[arg(long, value_enum, default_value = "both")]
    pub direction: Direction,

    /// Allocations that stand while others come and go (cycles).
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub standing: u32,

    /// What a flood consists of.
    #[arg(long, value_enum, default_value = "binding")]
    pub flood: Flood,

    /// Transport between clients and server.
    #[arg(long, value_enum, default_value = "udp")]
    pub transport: Transport,

    /// Send with Send indications instead of channels.
    #[arg(long)]
    pub indications: bool,

    /// Relay between pairs of allocations of the same server instead of to our own sockets.
    #[arg(long, conflicts_with_all = ["peers", "peer_address"])]
    pub relay_to_relay: bool,

    /// Our own sockets that are the peers [default: one an allocation, at most 16 a worker].
    #[arg(long)]
    pub peers: Option<u32>,

    /// Address of our peer sockets [default: the address we reach the server from].
    #[arg(long, value_name = "IP")]
    pub peer_address: Option<std::net::IpAddr>,

    /// Seconds to measure; with --find-max, seconds of each try.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub duration: Duration,

    /// Seconds of traffic before measuring.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub warmup: Duration,

    /// Milliseconds between bursts of paced traffic; 0 spreads packets evenly and keeps a core busy
    /// [default: 1, with --find-max 0].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub tick: Option<u16>,

    /// Packets or requests on their way at a time with --saturate, over all allocations.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub window: u32,

    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// Process of the server on this machine, to measure its CPU time and memory.
    #[arg(long)]
    pub pid: Option<u32>,

    /// Print one JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What the generator does.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Relays packets through allocations.
    Relay,
    /// Allocate, permission, channel, delete, over and over.
    Cycles,
    /// Binding requests.
    Binding,
    /// Holds allocations without traffic and weighs the server.
    Idle,
    /// Packets of strangers, each from a port of its own; weighs the server before and after.
    Flood,
    /// The traffic of `relay` without a server: what this machine and generator can do.
    Direct,
}

/// What strangers send.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Binding requests.
    Binding,
    /// Allocate requests without credentials.
    Allocate,
    /// Datagrams that are neither STUN nor ChannelData.
    Garbage,
    /// TCP connections on which nothing follows.
    HalfOpen,
}

/// Which way packets flow.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to peer.
    Up,
    /// Peer to client.
    Down,
    /// Each way at the given rate.
    Both,
}

/// Transport between clients and server.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Framed messages in a stream (RFC 8656 §2.1).
    Tcp,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=86_400.0).contains(&s) => Ok(Duration::from_secs_f64(s)),
        Ok(_) => Err("must be between 0 and 86400 seconds".into()),
        Err(_) => Err("is not a number of seconds".into()),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |percent| (percent, 0.01));
    match number.trim().parse::<f64>() {
        Ok(n) if (0.0..1.0).contains(&(n * scale)) => Ok(n * scale),
        Ok(_) => Err("must be at least 0 and less than 100 %".into()),
        Err(_) => Err("is neither a fraction such as 0.001 nor a percentage such as 0.1%".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_a_fraction_or_a_percentage() {
        assert_eq!(fraction("0.001"), Ok(0.001));
        assert_eq!(fraction("0.1%"), Ok(0.001));
        assert_eq!(fraction("5 %"), Ok(0.05));
        for wrong in ["", "%", "-1%", "1", "100%", "x"] {
            assert!(fraction(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "-1", "1s", "NaN", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
