//! Engine.IO's heartbeat: the server asks, and a client that does not answer is gone.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// When the next ping is due, or the pong to the last one.
pub(super) struct Heartbeat {
    interval: Duration,
    patience: Duration,
    due: Pin<Box<Sleep>>,
    is_asked: bool,
}

/// What is due.
pub(super) enum Beat {
    /// A ping.
    Ask,
    /// The last one stayed unanswered.
    Dead,
}

impl Heartbeat {
    /// Asks so often, and waits so long for the answer.
    pub(super) fn new((interval, patience): (Duration, Duration)) -> Self {
        Self { interval, patience, due: Box::pin(sleep(interval)), is_asked: false }
    }

    /// May be dropped at any time.
    pub(super) async fn next(&mut self) -> Beat {
        self.due.as_mut().await;
        if self.is_asked {
            return Beat::Dead;
        }
        self.is_asked = true;
        self.due.as_mut().reset(Instant::now() + self.patience);
        Beat::Ask
    }

    /// The client has answered.
    pub(super) fn is_alive(&mut self) {
        if std::mem::take(&mut self.is_asked) {
            self.due.as_mut().reset(Instant::now() + self.interval);
        }
    }
}
