//! What the hub put out waits here until the journal has what it rests on: nothing is acknowledged that a crash
//! could lose. Where the database fails, signaling goes on in memory and tells the journal everything anew later.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::app::ConsultationAnswer;
use crate::signal::{Call, Change, Hub, Now, Output, Refusal, Row};

/// Records that are kept for a database that does not answer.
const RECORDS: usize = 10_000;

/// How often all of it is told anew at most.
const ANEW: Duration = Duration::from_secs(1);

/// Places for batches that are kept free for what time brings about, when sockets have to wait.
const SPARE: usize = 16;

/// Changes of one turn of the hub.
#[derive(Debug)]
pub struct Batch {
    /// What has changed.
    pub changes: Vec<Change>,
    /// Its place in the order.
    pub ticket: u64,
    /// Whether it is everything there is, for a journal that lacks something.
    pub is_all: bool,
}

/// How far the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last ticket that was written.
    pub written: u64,
    /// Whether the database takes what it is given.
    pub is_well: bool,
    /// How often it did not.
    pub outages: u32,
}

/// The journal's end in signaling.
pub struct Journal {
    /// Where changes go; bounded.
    pub batches: mpsc::Sender<Batch>,
    /// How far they are.
    pub progress: watch::Receiver<Progress>,
    /// What the hub is restored from.
    pub rows: Vec<Row>,
    /// Tells raw clients of this server apart, the same after a restart.
    pub salt: u64,
}

/// What is done to the world once the journal has its reason.
pub(super) enum Effect {
    Output(Output),
    Answer(oneshot::Sender<Result<Vec<Call>, Refusal>>, Result<Vec<Call>, Refusal>),
    Admit(oneshot::Sender<ConsultationAnswer>, Box<ConsultationAnswer>),
    Done(oneshot::Sender<()>),
}

/// Effects in their order, and the tickets they wait for.
pub(super) struct Held {
    journal: Option<Journal>,
    waiting: VecDeque<(u64, Vec<Effect>)>,
    ticket: u64,
    /// The last ticket that effects wait for.
    awaited: u64,
    /// The outages that are known of.
    outages: u32,
    /// When the journal was found to lack something.
    lacks_since: Option<Duration>,
    /// Records it lacks.
    records: Vec<Change>,
}

impl Held {
    pub(super) fn new(journal: Option<Journal>) -> Self {
        Self {
            journal,
            waiting: VecDeque::new(),
            ticket: 0,
            awaited: 0,
            outages: 0,
            lacks_since: None,
            records: Vec::new(),
        }
    }

    /// What tells that the journal has come further, if there is one.
    pub(super) fn watch(&self) -> Option<watch::Receiver<Progress>> {
        self.journal.as_ref().map(|journal| journal.progress.clone())
    }

    /// Whether nothing waits, nor would what is put next and changes nothing.
    pub(super) fn is_clear(&self) -> bool {
        self.waiting.is_empty() && self.awaited <= self.written()
    }

    /// Whether the journal keeps up, so that more may come in. One that does not answer holds up nobody.
    pub(super) fn has_room(&self) -> bool {
        let Some(journal) = &self.journal else { return true };
        let (free, most) = (journal.batches.capacity(), journal.batches.max_capacity());
        let answers = || journal.progress.borrow().is_well && !journal.batches.is_closed();
        free > SPARE.min(most / 2) || self.lacks_since.is_some() || !answers()
    }

    /// Takes what one turn of the hub changed and what it leads to.
    pub(super) fn put(&mut self, hub: &mut Hub, effects: Vec<Effect>, now: Now) {
        let has_room = self.has_room();
        let Some(journal) = &self.journal else { return self.wait(0, effects) };
        let (batches, progress) = (journal.batches.clone(), *journal.progress.borrow());
        if std::mem::replace(&mut self.outages, progress.outages) != progress.outages {
            self.lacks_since.get_or_insert(now.mono);
        }
        let mut changes = hub.take_changes();
        let is_awaited = !changes.is_empty();
        if has_room {
            changes.extend(hub.take_later(now));
        }
        let is_all = self.lacks_since.is_some();
        if !progress.is_well || self.lacks_since.is_some_and(|since| now.mono - since < ANEW) {
            self.lacks_since.get_or_insert(now.mono);
            self.keep_records(changes);
            return self.wait(0, effects);
        }
        if is_all {
            self.keep_records(changes);
            changes = std::mem::take(&mut self.records);
            changes.extend(hub.snapshot());
        }
        if changes.is_empty() {
            return self.wait(self.awaited, effects);
        }
        let batch = Batch { changes, ticket: self.ticket + 1, is_all };
        match batches.try_send(batch) {
            Ok(()) => {
                self.ticket += 1;
                self.lacks_since = None;
                if is_awaited || is_all {
                    self.awaited = self.ticket;
                }
                self.wait(self.awaited, effects);
            }
            Err(mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch)) => {
                self.lacks_since = Some(now.mono);
                self.keep_records(batch.changes);
                self.wait(0, effects);
            }
        }
    }

    fn keep_records(&mut self, changes: Vec<Change>) {
        let records = changes.into_iter().filter(Change::is_said_once);
        self.records.extend(records.take(RECORDS - self.records.len()));
    }

    fn wait(&mut self, ticket: u64, effects: Vec<Effect>) {
        if !effects.is_empty() {
            self.waiting.push_back((ticket, effects));
        }
    }

    /// The next effects whose reason is written, or lost.
    pub(super) fn next(&mut self) -> Option<Vec<Effect>> {
        let written = self.written();
        self.waiting.pop_front_if(|(ticket, _)| *ticket <= written).map(|(_, effects)| effects)
    }

    /// The last ticket that nobody waits for.
    fn written(&self) -> u64 {
        match &self.journal {
            Some(journal) if self.lacks_since.is_none() => {
                let progress = *journal.progress.borrow();
                if progress.is_well { progress.written } else { u64::MAX }
            }
            Some(_) | None => u64::MAX,
        }
    }
}
