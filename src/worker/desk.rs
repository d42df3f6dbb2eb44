//! What passes between a worker and the rest of the program: commands in, counters out.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::Waker;

use super::Arrival;
use super::moving::{Mover, Question};
use super::sources::Entry;
use crate::dtls::Identity;
use crate::io::stream::Writer;
use crate::io::{Capabilities, Counters};
use crate::turn::{AuthReport, ClientPath, Event, Mode, Settings, Stats};

/// Events of a worker that wait for somebody to ask.
const EVENTS: usize = 16_384;

/// What a worker is told.
pub(super) enum Command {
    /// Take over a connection.
    Adopt(Newcomer),
    /// A client of another worker wants an allocation of this one.
    Ask(Box<Question>),
    /// What to tell a client that another worker was asked about.
    Answer(ClientPath, Vec<u8>),
    /// Take over an allocation.
    Bring(Box<Mover>),
    /// New settings.
    Reconfigure(Arc<Settings>),
    /// DTLS handshakes show this certificate from now on.
    Identify(Identity),
    /// End the allocations of credentials that were taken back.
    Revoke,
    /// Start or end a drain.
    SetMode(Mode),
    /// Publish the counters now and say so.
    Publish(SyncSender<()>),
    /// Do nothing for a while.
    Stall(Duration),
    /// Close everything and end.
    Stop,
}

/// A worker as the rest of the program sees it.
pub(super) struct Hand {
    pub(super) commands: SyncSender<Command>,
    pub(super) waker: Waker,
    pub(super) desk: Arc<Desk>,
}

impl Hand {
    /// Gives a command; `false` if the worker has ended or its channel is full.
    pub(super) fn tell(&self, command: Command) -> bool {
        let told = self.commands.try_send(command).is_ok();
        told && self.waker.wake().is_ok()
    }

    /// Hands a connection over from another worker; it is closed if this one has ended or is too busy.
    pub(super) fn pass(&self, mut newcomer: Newcomer) -> bool {
        newcomer.place.move_to(&self.desk);
        self.tell(Command::Adopt(newcomer))
    }
}

/// A connection on its way to a worker. Dropped on the way, it gives its place back.
pub(super) struct Newcomer {
    pub(super) arrival: Arrival,
    /// What still waits to be written.
    pub(super) writer: Writer,
    /// How often it has come from another worker, each time for the message that `first` begins with.
    pub(super) moves: u8,
    pub(super) place: Place,
}

/// One of the places for connections; free again when dropped.
pub(super) struct Place {
    worker: Arc<Desk>,
    all: Arc<AtomicUsize>,
    _source: Entry,
}

impl Place {
    /// Takes a place at `worker` for a connection of `source` if fewer than `bound` are taken in `all`.
    pub(super) fn take(
        worker: &Arc<Desk>,
        all: &Arc<AtomicUsize>,
        bound: usize,
        source: Entry,
    ) -> Option<Self> {
        if all.fetch_add(1, Ordering::Relaxed) >= bound {
            all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some(Self { worker: Arc::clone(worker), all: Arc::clone(all), _source: source })
    }

    /// Makes it a place at another worker.
    pub(super) fn move_to(&mut self, worker: &Arc<Desk>) {
        worker.connections.fetch_add(1, Ordering::Relaxed);
        self.worker.connections.fetch_sub(1, Ordering::Relaxed);
        self.worker = Arc::clone(worker);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.connections.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a worker has published about itself.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    pub(super) stats: Stats,
    pub(super) counters: Counters,
    pub(super) capabilities: Capabilities,
}

/// What a worker shows to others.
#[derive(Default)]
pub(super) struct Desk {
    /// Turns of the loop.
    pub(super) beats: AtomicU64,
    /// Connections the worker has or is about to get.
    pub(super) connections: AtomicUsize,
    /// Written once a second or on demand, never on the data path.
    snapshot: Mutex<Snapshot>,
    /// Failed logins nobody has asked for yet, at most one report a step.
    failures: Mutex<Vec<AuthReport>>,
    /// Events nobody has asked for yet; bounded.
    events: Mutex<Vec<Event>>,
    /// Events that found no room here.
    pub(super) dropped_events: AtomicU64,
}

impl Desk {
    pub(super) fn publish(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    pub(super) fn note_failures(&self, reports: Vec<AuthReport>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        reports.into_iter().for_each(|report| merge(&mut failures, report));
    }

    pub(super) fn take_failures(&self) -> Vec<AuthReport> {
        std::mem::take(&mut self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what fits; the rest is counted.
    pub(super) fn note_events(&self, mut new: Vec<Event>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let room = EVENTS - events.len();
        self.dropped_events.fetch_add(new.len().saturating_sub(room) as u64, Ordering::Relaxed);
        new.truncate(room);
        events.append(&mut new);
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds a report to those of other steps.
pub(super) fn merge(reports: &mut Vec<AuthReport>, report: AuthReport) {
    match reports.iter_mut().find(|known| known.failure.index() == report.failure.index()) {
        Some(known) => known.merge(report),
        None => reports.push(report),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Happening;

    #[test]
    fn events_that_nobody_asks_for_are_bounded_and_counted() {
        let desk = Desk::default();
        let event =
            Event { user: "a".into(), session: "b".into(), at: Duration::ZERO, what: Happening::FirstByte };
        desk.note_events(vec![event.clone(); EVENTS - 1]);
        desk.note_events(vec![event; 3]);
        assert_eq!(desk.dropped_events.load(Ordering::Relaxed), 2);
        assert_eq!((desk.take_events().len(), desk.take_events().len()), (EVENTS, 0));
    }
}
