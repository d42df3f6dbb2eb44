//! The service manager: readiness, reload, stop, watchdog (sd_notify(3)).
//!
//! Outside systemd every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells the service manager that the server serves.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells the service manager that the configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    // Without a clock the reload is announced all the same: Type=notify does not need it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Tells the service manager that the server is going down.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the service manager that all is well.
pub fn watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// How long the service manager waits for [`watchdog`] before it restarts the service.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!(error = %e, "service manager not reached");
    }
}
