//! The program at work: its rows, its clock, and what it has counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aya::maps::MapError;
use aya::programs::links::FdLink;
use aya::{Ebpf, include_bytes_aligned};

use super::error::{InstallError, OffloadError};
use super::maps::{Loaded, Tables};
use super::outcome::Counters;
use super::row::{Encoded, WORDS};
use super::{Mode, attach, system};
use crate::io::linux::Words;
use crate::turn::{FlowId, OffloadRow, SharedWords, Usage, nanos};

/// The program, built by bpf/build.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/turn.bpf.o");

/// Packets are relayed in the kernel while this is alive and [`beat`](Self::beat) is called.
pub struct Offload {
    origin: Instant,
    capacity: u32,
    flows: Words,
    pub(super) control: Words,
    meters: Arc<Words>,
    state: Mutex<State>,
    /// What keeps the program loaded and attached.
    #[cfg_attr(not(test), expect(dead_code, reason = "only kept"))]
    pub(super) programs: Ebpf,
    _links: Vec<FdLink>,
}

struct State {
    tables: Tables,
    /// The rows that are in the kernel, by slot.
    installed: Vec<Option<Encoded>>,
    refused: u64,
}

impl Offload {
    /// Loads the program for so many rows and attaches it to Ethernet interfaces. Also says in a line what
    /// was chosen, and what keeps it from more. Times of rows count from `origin`.
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub fn start(
        mode: Mode,
        interfaces: &[String],
        origin: Instant,
        capacity: u32,
    ) -> Result<(Self, String), OffloadError> {
        let missing = system::missing_capabilities();
        if !missing.is_empty() {
            return Err(OffloadError::Capabilities(missing));
        }
        if interfaces.is_empty() {
            return Err(OffloadError::NoInterface);
        }
        let lookups = system::lookups();
        if lookups == [false; 2] {
            return Err(OffloadError::Forwarding);
        }
        let start = |mode| Self::attached(mode, interfaces, origin, capacity);
        let (offload, chosen) = match mode {
            Mode::Tc | Mode::Xdp => start(mode)?,
            Mode::Auto => match start(Mode::Tc) {
                Ok(started) => started,
                Err(tc) => match start(Mode::Xdp) {
                    Ok((offload, chosen)) => (offload, format!("{chosen}; no tc: {tc}")),
                    Err(xdp) => return Err(OffloadError::Neither(Box::new(tc), Box::new(xdp))),
                },
            },
        };
        let without = match lookups {
            [true, true] => "",
            [false, _] => "; not IPv4: the sysctl net.ipv4.conf.lo.forwarding is 0",
            [_, false] => "; not IPv6: the sysctl net.ipv6.conf.lo.forwarding is 0",
        };
        Ok((offload, format!("{chosen}{without}")))
    }

    fn attached(
        mode: Mode,
        interfaces: &[String],
        origin: Instant,
        capacity: u32,
    ) -> Result<(Self, String), OffloadError> {
        let mut loaded = Loaded::new(OBJECT, origin, capacity)?;
        let (links, chosen) = match mode {
            Mode::Xdp => attach::xdp(&mut loaded.programs, &mut loaded.tables, interfaces)?,
            Mode::Tc | Mode::Auto => attach::tc(&mut loaded.programs, interfaces)?,
        };
        Ok((Self::new(loaded, links, origin, capacity), chosen))
    }

    pub(super) fn new(loaded: Loaded, links: Vec<FdLink>, origin: Instant, capacity: u32) -> Self {
        let installed = vec![None; capacity as usize];
        Self {
            origin,
            capacity,
            flows: loaded.flows,
            control: loaded.control,
            meters: Arc::new(loaded.meters),
            state: Mutex::new(State { tables: loaded.tables, installed, refused: 0 }),
            programs: loaded.programs,
            _links: links,
        }
    }

    /// Where times of rows count from.
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// How many rows there may be, with slots from zero.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The words of the meters, two a pair: to peers, to clients. Zero at the start.
    pub fn meters(&self) -> SharedWords {
        self.meters.clone()
    }

    /// Bytes a second of an allocation, a user and all together, in each direction; 0 for no limit.
    pub fn set_rates(&self, rates: [u64; 3]) {
        for (word, rate) in self.control[1..].iter().zip(rates) {
            word.store(rate, Ordering::Relaxed);
        }
    }

    /// Says that user space is alive. Without it nothing is relayed in the kernel after a second.
    pub fn beat(&self) {
        self.control[0].store(nanos(self.origin.elapsed()), Ordering::Relaxed);
    }

    /// Installs a row, or moves the expiry of the one that is installed under this name.
    ///
    /// # Errors
    /// Why it is not in the kernel. That is counted, and its packets pass up.
    pub fn install(&self, row: &OffloadRow) -> Result<(), InstallError> {
        let mut state = self.state();
        let done = self.try_install(&mut state, row);
        state.refused += u64::from(done.is_err());
        done
    }

    /// Ends a row at once and returns what it has carried. A name that is not installed has carried nothing.
    pub fn remove(&self, flow: FlowId) -> Usage {
        let mut state = self.state();
        let State { tables, installed, .. } = &mut *state;
        let Some(place) = installed.get_mut(flow.slot as usize) else { return Usage::default() };
        let Some(ended) = place.take_if(|row| row.is_of(flow)) else { return Usage::default() };
        self.words_of(flow.slot)[0].store(0, Ordering::Release);
        // Keys that stay behind lead to a row that has expired.
        let _ = tables.by_client.remove(&ended.by_client);
        let _ = tables.by_peer.remove(&ended.by_peer);
        tables.usage(flow.slot)
    }

    /// What a row has carried since it was installed; payload only.
    pub fn usage(&self, flow: FlowId) -> Usage {
        let state = self.state();
        match state.installed.get(flow.slot as usize) {
            Some(Some(row)) if row.is_of(flow) => state.tables.usage(flow.slot),
            _ => Usage::default(),
        }
    }

    /// What became of all packets since the start.
    pub fn counters(&self) -> Counters {
        let state = self.state();
        Counters::new(&state.tables.outcomes(), state.refused)
    }

    fn try_install(&self, state: &mut State, row: &OffloadRow) -> Result<(), InstallError> {
        let encoded = Encoded::new(row)?;
        let State { tables, installed, .. } = state;
        let place = installed.get_mut(row.flow.slot as usize).ok_or(InstallError::Full)?;
        let words = self.words_of(row.flow.slot);
        if let Some(installed) = place {
            if installed.words[1..] != encoded.words[1..] {
                return Err(InstallError::Taken);
            }
            words[0].store(encoded.words[0], Ordering::Relaxed);
            return Ok(());
        }
        tables.clear(row.flow.slot).map_err(|error| reason(&error))?;
        // The row first, then the keys that lead to it; it lives when its expiry stands there.
        for (word, value) in words.iter().zip(encoded.words).skip(1) {
            word.store(value, Ordering::Relaxed);
        }
        words[0].store(encoded.words[0], Ordering::Release);
        insert(tables, &encoded).inspect_err(|_| words[0].store(0, Ordering::Release))?;
        *place = Some(encoded);
        Ok(())
    }

    fn words_of(&self, slot: u32) -> &[AtomicU64] {
        let first = slot as usize * WORDS;
        &self.flows[first..first + WORDS]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Offload {
    /// Forgets the next hops of a slot, after so many look-ups.
    pub(super) fn set_lookups(&self, slot: u32, lookups: u8) {
        self.state().tables.set_lookups(slot, lookups);
    }
}

/// Both keys, or none.
fn insert(tables: &mut Tables, row: &Encoded) -> Result<(), InstallError> {
    const ONLY_NEW: u64 = 1; // BPF_NOEXIST
    tables.by_peer.insert(row.by_peer, row.value, ONLY_NEW).map_err(|error| reason(&error))?;
    tables.by_client.insert(row.by_client, row.value, ONLY_NEW).map_err(|error| {
        let _ = tables.by_peer.remove(&row.by_peer);
        reason(&error)
    })
}

fn reason(error: &MapError) -> InstallError {
    let is_taken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AlreadyExists;
    match error {
        MapError::SyscallError(call) if is_taken(&call.io_error) => InstallError::Taken,
        _ => InstallError::Refused,
    }
}
