//! How many bytes strangers get: a token bucket for each source prefix (/24, /56), so that the
//! server is no use as a reflector. The table has a fixed size; prefixes that fall into one bucket
//! share it, and which do is a secret of the process.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::SeedableRandomState;

const BUCKETS: usize = 4096;

#[derive(Clone, Copy)]
struct Bucket {
    /// Bytes that may still be sent.
    tokens: u32,
    /// When it was filled last.
    filled: Duration,
}

/// Token buckets of the unauthenticated replies.
pub(super) struct Limiter {
    /// Bytes a second and burst; 0 for no limit.
    rate: u32,
    buckets: Box<[Bucket; BUCKETS]>,
    hasher: SeedableRandomState,
}

impl Limiter {
    pub(super) fn new(rate: u32, hasher: SeedableRandomState) -> Self {
        let full = Bucket { tokens: rate, filled: Duration::ZERO };
        Self { rate, buckets: Box::new([full; BUCKETS]), hasher }
    }

    pub(super) fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    /// Takes `bytes` from the bucket of the client's prefix; false when it holds too few. Loopback
    /// cannot be spoofed from outside and is not counted.
    pub(super) fn may_send(&mut self, client: SocketAddr, bytes: usize, now: Duration) -> bool {
        if self.rate == 0 || client.ip().is_loopback() {
            return true;
        }
        let prefix = match client.ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
            IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 1 << 63,
        };
        let index = self.hasher.hash_one(prefix) as usize % BUCKETS;
        let bucket = &mut self.buckets[index];
        let gained = now.saturating_sub(bucket.filled).as_micros() * u128::from(self.rate) / 1_000_000;
        if gained > 0 {
            bucket.tokens =
                u32::try_from(gained).unwrap_or(u32::MAX).saturating_add(bucket.tokens).min(self.rate);
            bucket.filled = now;
        }
        match u32::try_from(bytes).ok().and_then(|bytes| bucket.tokens.checked_sub(bytes)) {
            Some(left) => {
                bucket.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use foldhash::SharedSeed;

    use super::*;

    fn limiter(rate: u32) -> Limiter {
        Limiter::new(rate, SeedableRandomState::with_seed(7, SharedSeed::global_fixed()))
    }

    fn client(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_prefix_gets_its_rate_and_no_more() {
        let mut limiter = limiter(1000);
        let mut sent = |ip: &str, at: u64| limiter.may_send(client(ip), 100, Duration::from_millis(at));
        let first: Vec<bool> = (0..11).map(|_| sent("198.51.100.1:5", 0)).collect();
        assert_eq!(first.iter().filter(|ok| **ok).count(), 10);
        assert!(!sent("198.51.100.200:9", 50), "the same /24");
        assert!(sent("198.51.101.1:5", 50), "another /24");
        assert!(sent("198.51.100.1:5", 100), "a tenth of a second later there are 100 bytes");
        assert!(!sent("198.51.100.1:5", 100));
    }

    #[test]
    fn ipv6_counts_by_56_bits() {
        let mut limiter = limiter(100);
        let mut sent = |ip: &str| limiter.may_send(client(ip), 100, Duration::ZERO);
        assert!(sent("[2001:db8:0:100::1]:5") && !sent("[2001:db8:0:1ff::1]:5"));
        assert!(sent("[2001:db8:0:200::1]:5"));
    }

    #[test]
    fn zero_means_no_limit_and_loopback_is_free() {
        assert!(limiter(0).may_send(client("192.0.2.1:1"), 1 << 20, Duration::ZERO));
        assert!(limiter(1).may_send(client("127.0.0.1:1"), 1 << 20, Duration::ZERO));
    }
}
