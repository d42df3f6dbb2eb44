//! The task that writes signaling's journal and the books into the database. What waits is written together, so a
//! busy server makes few transactions. While the database does not answer, what comes is let go but for the books;
//! signaling tells everything else anew once it is back.

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::http::{Batch, Journal, Progress};
use crate::signal::Change;
use crate::store::{Store, StoreError};

/// Batches that wait for the database.
const BATCHES: usize = 1024;

/// Batches of one transaction.
const GROUP: usize = 256;

/// Records that are kept for a database that does not answer.
const RECORDS: usize = 10_000;

/// How long the database may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked for what may be forgotten, and how soon again while there is more of it.
const FORGET: Duration = Duration::from_secs(24 * 3600);
const FORGET_ON: Duration = Duration::from_secs(1);

/// How often a database that does not answer is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The writer of the journal, ready to run.
pub(super) struct Keeper {
    store: Store,
    batches: mpsc::Receiver<Batch>,
    progress: watch::Sender<Progress>,
    /// Records that are not written, or may not be.
    records: Vec<Change>,
    /// How long the books have what is over; for ever where it is zero.
    keep: Duration,
}

/// What the rest of the program keeps of it.
pub(super) struct Books {
    progress: watch::Receiver<Progress>,
}

impl Books {
    /// Whether the database takes what it is given.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_well = self.progress.borrow().is_well;
        if is_well { Ok(()) } else { Err("the database does not answer".into()) }
    }
}

/// Reads the journal, and makes what writes it. `salt` see [`Journal`]; what is over is forgotten after `keep`.
pub(super) async fn open(
    mut store: Store,
    salt: u64,
    keep: Duration,
) -> Result<(Journal, Keeper, Books), StoreError> {
    let rows = store.load().await?;
    let (sender, batches) = mpsc::channel(BATCHES);
    let progress = watch::Sender::new(Progress { written: 0, is_well: true, outages: 0 });
    let journal = Journal { batches: sender, progress: progress.subscribe(), rows, salt };
    let books = Books { progress: progress.subscribe() };
    Ok((journal, Keeper { store, batches, progress, records: Vec::new(), keep }, books))
}

impl Keeper {
    /// Writes until signaling has ended, on a thread of its own: what is written together takes milliseconds to put
    /// into statements, and no message waits for that.
    ///
    /// # Errors
    /// That there is no thread.
    pub(super) fn start(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("turnkey-journal".to_owned());
        thread.spawn(move || runtime.block_on(self.run())).map(drop)
    }

    async fn run(mut self) {
        let mut group = Vec::with_capacity(GROUP);
        // The journal lacks something until it has been told everything.
        let mut lacks = false;
        let mut forget_at = Instant::now();
        loop {
            let received = tokio::select! {
                biased;
                received = self.batches.recv_many(&mut group, GROUP) => received,
                () = sleep_until(forget_at), if !self.keep.is_zero() => {
                    forget_at = Instant::now() + self.forget().await;
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            if let Some(first) = group.iter().rposition(|batch| batch.is_all) {
                self.keep_records(group.drain(..first));
                lacks = false;
            }
            if lacks {
                self.keep_records(group.drain(..));
            }
            if let Err(error) = self.write(std::mem::take(&mut group)).await {
                self.recover(&error).await;
                lacks = true;
            }
        }
    }

    /// Forgets some of what has been over for long enough, while nothing waits; returns when to go on.
    async fn forget(&mut self) -> Duration {
        let before = super::unix_now().saturating_sub(self.keep.as_secs());
        match timeout(PATIENCE, self.store.forget(before)).await {
            Ok(Ok(true)) => FORGET_ON,
            Ok(Ok(false)) => FORGET,
            // Whether the database is well is seen by what is written.
            Ok(Err(error)) => {
                tracing::debug!(%error, "nothing is forgotten");
                FORGET
            }
            // A database that is busy has more time a little later.
            Err(_) => FORGET_ON,
        }
    }

    async fn write(&mut self, group: Vec<Batch>) -> Result<(), StoreError> {
        let late = |_| StoreError::File(io::ErrorKind::TimedOut.into());
        if let Some(ticket) = group.last().map(|batch| batch.ticket) {
            let anew = group.first().is_some_and(|batch| batch.is_all);
            let mut changes = std::mem::take(&mut self.records);
            changes.extend(group.into_iter().flat_map(|batch| batch.changes));
            // Written again they change nothing, should it only seem that they were not.
            self.records =
                changes.iter().filter(|change| change.is_said_once()).take(RECORDS).cloned().collect();
            timeout(PATIENCE, self.store.write(changes, anew)).await.map_err(late)??;
            self.records.clear();
            self.progress.send_modify(|progress| progress.written = ticket);
        }
        Ok(())
    }

    /// Of what is let go, what nobody could tell again.
    fn keep_records(&mut self, batches: impl IntoIterator<Item = Batch>) {
        let records = batches.into_iter().flat_map(|batch| batch.changes).filter(Change::is_said_once);
        let room = RECORDS.saturating_sub(self.records.len());
        self.records.extend(records.take(room));
    }

    /// Says that nothing is written, and tries until it could be again. What comes meanwhile is let go: signaling
    /// does not wait for it.
    async fn recover(&mut self, error: &StoreError) {
        tracing::error!(%error, "the database does not answer; calls go on, but a restart would lose them");
        self.progress.send_modify(|progress| {
            progress.is_well = false;
            progress.outages += 1;
        });
        loop {
            tokio::time::sleep(RETRY).await;
            while let Ok(batch) = self.batches.try_recv() {
                self.keep_records([batch]);
            }
            if self.batches.is_closed() {
                return;
            }
            match timeout(PATIENCE, self.store.reconnect()).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::debug!(%error, "the database does not answer yet"),
                Err(_) => tracing::debug!("the database does not answer yet"),
            }
        }
        tracing::info!("the database answers again");
        self.progress.send_modify(|progress| progress.is_well = true);
    }
}
