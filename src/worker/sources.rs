//! How many connections each source has, so that one cannot take all places.
//!
//! A source is an IPv4 address or an IPv6 /64. Loopback, where a proxy of this host comes from, is not
//! counted. The table holds sources with open connections only, so it is bounded by the places there are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections by source.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Connections a source may have; 0 for no limit.
    limit: AtomicU32,
    open: Mutex<HashMap<IpAddr, u32>>,
}

impl Sources {
    pub(super) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { limit: limit.into(), open: Mutex::default() })
    }

    /// Another limit; connections beyond it stay.
    pub(super) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts one more connection of the source of `client`; `None` if that is one too many.
    pub(super) fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Entry> {
        if client.is_loopback() {
            return Some(Entry { sources: Arc::clone(self), source: None });
        }
        let source = source_of(client);
        let limit = self.limit.load(Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&source).copied().unwrap_or(0);
        if limit != 0 && count >= limit {
            return None;
        }
        open.insert(source, count + 1);
        Some(Entry { sources: Arc::clone(self), source: Some(source) })
    }
}

fn source_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

/// One connection of a source; no longer counted when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    sources: Arc<Sources>,
    source: Option<IpAddr>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(source) = self.source else { return };
        let mut open = self.sources.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_its_limit_and_others_have_theirs() {
        let sources = Sources::new(2);
        let enter = |text: &str| sources.enter(ip(text));
        let held = [enter("192.0.2.1"), enter("192.0.2.1")].map(Option::unwrap);
        assert!(enter("192.0.2.1").is_none());
        let other = enter("192.0.2.2").unwrap();
        drop(held);
        assert!(enter("192.0.2.1").is_some());
        drop(other);
        assert!(sources.open.lock().unwrap().is_empty(), "no entry stays behind");
    }

    #[test]
    fn ipv6_counts_by_64_bits() {
        let sources = Sources::new(1);
        let _held = sources.enter(ip("2001:db8::1")).unwrap();
        assert!(sources.enter(ip("2001:db8::ffff:0:0:2")).is_none());
        assert!(sources.enter(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn zero_means_no_limit_and_loopback_is_free() {
        let sources = Sources::new(0);
        let held: Vec<_> = (0..100).map(|_| sources.enter(ip("192.0.2.1")).unwrap()).collect();
        sources.set_limit(1);
        assert!(sources.enter(ip("192.0.2.1")).is_none(), "those of before count");
        drop(held);
        assert!(sources.enter(ip("192.0.2.1")).is_some());
        let _local: Vec<_> =
            ["127.0.0.1", "::1", "127.0.0.1"].map(|text| sources.enter(ip(text)).unwrap()).into();
        assert!(sources.open.lock().unwrap().is_empty());
    }
}
