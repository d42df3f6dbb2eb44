//! Relaying in the kernel: at which interfaces, and whether it is an error where it cannot be.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::settings::Place;
use crate::config::{self, Config};
use crate::offload::{Mode, Offload};
use crate::turn::Transport;

/// Flows that the kernel relays at a time. The others take the usual way, and are counted.
const FLOWS: u32 = 16_384;

/// Starts it, if it is asked for, and says what was chosen.
pub(super) fn start(config: &Config, place: &Place) -> Result<Option<Arc<Offload>>, config::Error> {
    let Some(wanted) = &config.relay.offload else { return Ok(None) };
    let interfaces = match wanted.interfaces.is_empty() {
        true => interfaces(place),
        false => wanted.interfaces.clone(),
    };
    match Offload::start(wanted.mode, &interfaces, Instant::now(), FLOWS) {
        Ok((offload, chosen)) => {
            tracing::info!(%chosen, "offload");
            Ok(Some(Arc::new(offload)))
        }
        Err(error) if wanted.mode == Mode::Auto => {
            tracing::info!(chosen = "none", why = %error, "offload");
            Ok(None)
        }
        Err(error) => Err(config.error("relay.offload", error.to_string())),
    }
}

/// Those with an address of the relay, or of a listener that has one of its own.
fn interfaces(place: &Place) -> Vec<String> {
    let relays: Vec<IpAddr> = place.located().now.relay.iter().map(|address| address.local).collect();
    let listeners = place.relay.iter().filter(|listener| listener.transport == Transport::Udp);
    let ours: BTreeSet<IpAddr> = relays.into_iter().chain(listeners.map(|l| l.address.ip())).collect();
    let carries =
        |interface: &if_addrs::Interface| !interface.is_loopback() && ours.contains(&interface.ip());
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let names: BTreeSet<String> = all.into_iter().filter(carries).map(|interface| interface.name).collect();
    names.into_iter().collect()
}
