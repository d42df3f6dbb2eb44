//! What waits for one socket: from the hub, which never waits, to the socket's task. Bounded in frames and
//! bytes; takes no memory while nothing waits, as nearly always.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::extract::ws::Utf8Bytes;

/// Frames that wait for one socket, whatever their size.
pub(super) const SOCKET_FRAMES: usize = 1024;

/// What the hub tells a socket.
#[derive(Debug)]
pub(super) enum Command {
    Text(Utf8Bytes),
    Ping(u64),
    Close(u16, String),
}

/// The hub's end of one socket. Once it is dropped, the socket takes what waits and ends.
pub(super) struct Link(Arc<Shared>);

/// The socket's end.
pub(super) struct Outgoing(Arc<Shared>);

type Shared = Mutex<State>;

#[derive(Default)]
struct State {
    commands: VecDeque<Command>,
    /// Bytes of texts that are not written yet, those that were taken included.
    bytes: usize,
    is_over: bool,
    reader: Option<Waker>,
}

/// The two ends of one socket.
pub(super) fn link() -> (Link, Outgoing) {
    let shared = Arc::new(Shared::default());
    (Link(shared.clone()), Outgoing(shared))
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Whether the text found room.
    pub(super) fn push(&self, text: &str, bound: usize) -> bool {
        let mut state = lock(&self.0);
        if state.bytes > 0 && state.bytes + text.len() > bound {
            return false;
        }
        state.bytes += text.len();
        self.put(state, Command::Text(text.into()))
    }

    /// Whether the command found room.
    pub(super) fn command(&self, command: Command) -> bool {
        self.put(lock(&self.0), command)
    }

    fn put(&self, mut state: MutexGuard<'_, State>, command: Command) -> bool {
        if state.commands.len() >= SOCKET_FRAMES {
            return false;
        }
        state.commands.push_back(command);
        wake(&state);
        true
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.is_over = true;
        wake(&state);
    }
}

fn wake(state: &State) {
    if let Some(reader) = &state.reader {
        reader.wake_by_ref();
    }
}

impl Outgoing {
    /// All that waits, as soon as something does; `None` once the hub is done with the socket.
    pub(super) async fn next(&self) -> Option<VecDeque<Command>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Self::next`], for whoever waits for several things.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<VecDeque<Command>>> {
        let mut state = lock(&self.0);
        if !state.commands.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut state.commands)));
        }
        if state.is_over {
            return Poll::Ready(None);
        }
        if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
            state.reader = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Texts of this size have been written.
    pub(super) fn wrote(&self, bytes: usize) {
        lock(&self.0).bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_a_socket_is_bounded_in_frames_and_bytes() {
        let (link, outgoing) = link();
        assert!(link.push("0123456789", 4), "one text always finds room");
        assert!(!link.push("x", 4));
        assert_eq!(outgoing.next().await.map(|all| all.len()), Some(1));
        assert!(!link.push("x", 4), "taken, but not written");
        outgoing.wrote(10);
        for _ in 0..SOCKET_FRAMES {
            assert!(link.push("x", usize::MAX));
        }
        assert!(!link.push("x", usize::MAX));
        assert!(!link.command(Command::Ping(1)));
    }

    #[tokio::test]
    async fn a_socket_takes_what_waits_before_it_hears_that_the_hub_is_done() {
        let (link, outgoing) = link();
        let reader = tokio::spawn(async move {
            let mut texts = Vec::new();
            while let Some(commands) = outgoing.next().await {
                texts.extend(commands.into_iter().map(|command| format!("{command:?}")));
            }
            texts
        });
        tokio::task::yield_now().await;
        link.push("a", 9);
        link.command(Command::Close(1000, "bye".into()));
        drop(link);
        let texts = reader.await.expect("it ends");
        assert_eq!(texts.len(), 2, "{texts:?}");
    }
}
