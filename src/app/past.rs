//! Answers what is asked about calls that are over, from the books.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::http::Lookup;
use crate::store::Archive;

/// Questions that wait.
const QUESTIONS: usize = 16;

/// How long the database may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where questions go. Ends with whoever asks them.
pub(super) fn start(archive: Archive) -> mpsc::Sender<Lookup> {
    let (sender, questions) = mpsc::channel(QUESTIONS);
    tokio::spawn(answer(archive, questions));
    sender
}

async fn answer(mut archive: Archive, mut questions: mpsc::Receiver<Lookup>) {
    while let Some(Lookup { room, answer }) = questions.recv().await {
        match timeout(PATIENCE, archive.timeline(&room)).await {
            Ok(Ok(found)) => drop(answer.send(found)),
            Ok(Err(error)) => tracing::debug!(%error, "the database does not say what it has of a call"),
            Err(_) => {
                tracing::debug!("the database does not answer");
                // Nor would those be answered who wait behind it.
                while questions.try_recv().is_ok() {}
            }
        }
    }
}
