//! The program's maps: loaded and found by name.

use std::os::fd::AsFd;
use std::time::Instant;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::{Ebpf, EbpfLoader};

use super::error::OffloadError;
use super::outcome::OUTCOMES;
use super::{row, system};
use crate::io::linux::{Words, monotonic_at};
use crate::turn::Usage;

/// Words of `struct ways`, and where each direction's count stands in it.
const WAYS: usize = 12;
const COUNTS: [usize; 2] = [0, 6];

/// The tables that lead to rows, and what the program has counted.
pub(super) struct Tables {
    pub(super) by_client: HashMap<MapData, [u8; 40], u64>,
    pub(super) by_peer: HashMap<MapData, [u8; 36], u64>,
    pub(super) exits: HashMap<MapData, u32, u8>,
    traffic: PerCpuArray<MapData, [u64; WAYS]>,
    outcomes: PerCpuArray<MapData, u64>,
}

/// All of it: programs not yet in the kernel, maps that are.
pub(super) struct Loaded {
    pub(super) programs: Ebpf,
    pub(super) tables: Tables,
    pub(super) flows: Words,
    pub(super) control: Words,
    pub(super) meters: Words,
}

impl Loaded {
    /// Creates the maps for so many rows. Times count from `origin`.
    pub(super) fn new(object: &[u8], origin: Instant, capacity: u32) -> Result<Self, OffloadError> {
        let refused = |error: aya::EbpfError| OffloadError::Load(first_line(&error));
        let [ttl, hop_limit] = system::hop_limits();
        let origin = monotonic_at(origin);
        let pairs = capacity.saturating_mul(2).saturating_add(1);
        let mut loader = EbpfLoader::new();
        for table in ["by_client", "by_peer", "flows", "traffic"] {
            loader.map_max_entries(table, capacity);
        }
        loader.map_max_entries("meters", pairs.saturating_mul(2));
        loader.override_global("origin", &origin, true);
        loader.override_global("ttl", &ttl, true).override_global("hop_limit", &hop_limit, true);
        let mut programs = loader.load(object).map_err(refused)?;
        Ok(Self {
            flows: words(&programs, "flows", capacity as usize * row::WORDS)?,
            control: words(&programs, "control", 4)?,
            meters: words(&programs, "meters", pairs as usize * 2)?,
            tables: Tables {
                by_client: table(&mut programs, "by_client")?,
                by_peer: table(&mut programs, "by_peer")?,
                exits: table(&mut programs, "exits")?,
                traffic: table(&mut programs, "traffic")?,
                outcomes: table(&mut programs, "outcomes")?,
            },
            programs,
        })
    }
}

impl Tables {
    /// Packets and payload of a slot, to the peer and to the client, since it was cleared.
    pub(super) fn usage(&self, slot: u32) -> Usage {
        let values = self.traffic.get(&slot, 0);
        let mut usage = Usage::default();
        for ways in values.iter().flat_map(|values| values.iter()) {
            for (at, count) in COUNTS.into_iter().zip([&mut usage.to_peer, &mut usage.to_client]) {
                count.packets += ways[at];
                count.bytes += ways[at + 1];
            }
        }
        usage
    }

    /// Forgets what a slot has carried and where its packets leave.
    pub(super) fn clear(&mut self, slot: u32) -> Result<(), MapError> {
        self.set(slot, [0; WAYS])
    }

    fn set(&mut self, slot: u32, ways: [u64; WAYS]) -> Result<(), MapError> {
        let processors = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        self.traffic.set(slot, PerCpuValues::try_from(vec![ways; processors])?, 0)
    }

    /// How often each outcome has been.
    pub(super) fn outcomes(&self) -> [u64; OUTCOMES] {
        std::array::from_fn(|outcome| {
            let values = self.outcomes.get(&(outcome as u32), 0);
            values.iter().flat_map(|values| values.iter()).sum()
        })
    }
}

#[cfg(test)]
impl Tables {
    pub(super) fn set_lookups(&mut self, slot: u32, lookups: u8) {
        let mut ways = [0; WAYS];
        for at in COUNTS {
            let hop = [0, 0, 0, 0, 0, 0, 0, lookups];
            ways[at + 3] = u64::from_ne_bytes(hop);
        }
        self.set(slot, ways).expect("a slot");
    }
}

fn words(programs: &Ebpf, name: &str, count: usize) -> Result<Words, OffloadError> {
    let Some(Map::Array(map)) = programs.map(name) else { return Err(missing(name)) };
    Words::map(map.fd().as_fd(), count).map_err(|error| OffloadError::Load(format!("{name}: {error}")))
}

fn table<T: TryFrom<Map>>(programs: &mut Ebpf, name: &str) -> Result<T, OffloadError> {
    programs.take_map(name).and_then(|map| T::try_from(map).ok()).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> OffloadError {
    OffloadError::Load(format!("it has no map {name}"))
}

/// An error without what the verifier has to say beyond its first line, and with its cause.
pub(super) fn first_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string().lines().next().unwrap_or_default().to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_line = cause.to_string().lines().next().unwrap_or_default().to_owned();
        if !text.contains(&cause_line) {
            text = format!("{text}: {cause_line}");
        }
        source = cause.source();
    }
    text
}
