//! A timer that a poll listens to.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::sys;

/// A timerfd, registered edge-triggered: it tells each time it rings and is never read.
#[derive(Debug)]
pub(in crate::io) struct Timer {
    fd: OwnedFd,
}

impl Timer {
    pub(in crate::io) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = sys::timer()?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd })
    }

    /// Rings once, `wait` from now, and not when it was to ring before.
    pub(in crate::io) fn set(&self, wait: Duration) -> io::Result<()> {
        sys::set_timer(self.fd.as_raw_fd(), wait)
    }
}
