//! Answers rest on the journal: none leaves before what it rests on is written, however far behind the writer is.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use turnkey::http::{Batch, Journal, Outside, Progress, Settings};
use turnkey::signal::{Change, Limits, Table};

use crate::server::{Server, open};

const MESSAGES: usize = 2000;

/// Writes what comes for as long as it may, like a database that is slow and then is not.
async fn write(
    mut batches: mpsc::Receiver<Batch>,
    progress: watch::Sender<Progress>,
    mut may: watch::Receiver<bool>,
) {
    loop {
        let may_write = *may.borrow_and_update();
        tokio::select! {
            biased;
            changed = may.changed() => if changed.is_err() { return },
            batch = batches.recv(), if may_write => {
                let Some(batch) = batch else { return };
                assert!(!batch.is_all, "the journal lacks nothing");
                progress.send_modify(|progress| progress.written = batch.ticket);
            }
        }
    }
}

/// A journal with room for `count` batches, and its writer's ends.
fn journal(count: usize) -> (Journal, mpsc::Receiver<Batch>, watch::Sender<Progress>) {
    let (batches, receiver) = mpsc::channel(count);
    let progress = watch::Sender::new(Progress { written: 0, is_well: true, outages: 0 });
    (Journal { batches, progress: progress.subscribe(), rows: Vec::new(), salt: 1 }, receiver, progress)
}

#[tokio::test]
async fn a_journal_that_falls_behind_holds_up_who_speaks_and_nothing_is_answered_unwritten() {
    let (journal, receiver, progress) = journal(8);
    let may = watch::Sender::new(true);
    let writer = tokio::spawn(write(receiver, progress, may.subscribe()));
    let many = 1_000_000;
    let limits =
        Limits { frame_rate: many, frame_burst: many, message_ids: 2 * MESSAGES, ..Limits::default() };
    let outside = Outside { journal: Some(journal), ..Outside::default() };
    let server = Server::with(Settings { limits, ..open() }, outside).await;
    let (mut ann, _) = server.native("/v1/ws", r#"{"t":"hello"}"#).await;
    ann.join("r").await;

    may.send_replace(false);
    for n in 0..MESSAGES {
        ann.send(&format!(r#"{{"t":"custom","id":"{n}","d":{n}}}"#)).await;
    }
    let early = timeout(Duration::from_millis(500), ann.next()).await;
    assert!(early.is_err(), "answered before it was written: {early:?}");
    may.send_replace(true);
    for n in 0..MESSAGES {
        assert_eq!(ann.until("ok").await["ref"], n.to_string());
    }
    assert!(!writer.is_finished());
}

/// Whether the journal is told to forget frames of a session, within this time.
async fn forgets_frames(
    batches: &mut mpsc::Receiver<Batch>,
    progress: &watch::Sender<Progress>,
    within: Duration,
) -> bool {
    let forgetting = async {
        while let Some(Batch { changes, ticket, .. }) = batches.recv().await {
            progress.send_modify(|progress| progress.written = ticket);
            if changes.iter().any(|change| matches!(change, Change::Drop { table: Table::Frame, .. })) {
                break;
            }
        }
    };
    timeout(within, forgetting).await.is_ok()
}

#[tokio::test]
async fn what_the_socket_of_a_socketio_client_has_leaves_the_journal_and_only_that_socket_can_say_so() {
    let (journal, mut batches, progress) = journal(64);
    let outside = Outside { journal: Some(journal), ..Outside::default() };
    let server = Server::with(open(), outside).await;
    let mut bob = server.ws("/socket.io/?EIO=4&transport=websocket").await;
    bob.send("40").await;
    let mut eve = server.ws("/socket.io/?EIO=4&transport=websocket").await;
    for conn in 1_u64..5 {
        eve.send_pong([conn.to_be_bytes(), 1_u64.to_be_bytes()].concat()).await;
    }
    let is_forgotten = forgets_frames(&mut batches, &progress, Duration::from_secs(2)).await;
    assert!(!is_forgotten, "its client has read nothing, and another one answered");
    // Who reads answers pings.
    let reader = tokio::spawn(async move { bob.end().await });
    assert!(forgets_frames(&mut batches, &progress, Duration::from_secs(20)).await);
    reader.abort();
}
