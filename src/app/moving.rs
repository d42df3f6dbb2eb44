//! A server whose address changes: host names are resolved, and `relay.detect_from` asked, again and again.
//!
//! New allocations get the new address; running ones keep theirs, and stay reachable inside by it.

use std::sync::Arc;

use super::Running;
use crate::config::address::Addresses;

impl Running {
    /// Follows the relay's addresses until the server stops. Ends at once where none can change.
    pub(super) async fn follow_addresses(self: Arc<Self>) {
        let every = {
            let current = self.current();
            Addresses::may_change(&current.config).then_some(current.config.relay.resolve_every)
        };
        let Some(every) = every else { return };
        let mut stop = self.stop.subscribe();
        let mut was_found = true;
        while !*stop.borrow() {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                _ = stop.changed() => return,
            }
            let running = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || running.look_again());
            match look.await.expect("looking for addresses does not panic") {
                Ok(()) => was_found = true,
                Err(problem) if was_found => {
                    tracing::warn!(%problem, "relay addresses cannot be found again, they stay as they are");
                    was_found = false;
                }
                Err(_) => {}
            }
        }
    }

    fn look_again(&self) -> Result<(), crate::config::Error> {
        let config = self.current().config.clone();
        let before = self.place.located().now.clone();
        let found = Addresses::find_after(&config, &before)?;
        let told = |addresses: &Addresses| {
            addresses.relay.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let (old, new) = (told(&before), told(&found));
        let current = self.current();
        if self.place.locate(found) {
            tracing::info!(%old, %new, "relay address changed: new allocations get the new one");
            self.reconfigure(&current);
        }
        Ok(())
    }
}
