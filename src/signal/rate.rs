//! Token buckets, and a bounded table of them keyed by client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// A token bucket: `burst` at once, `per` refills one whole burst.
#[derive(Clone, Debug)]
pub struct Bucket {
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(burst: u32, now: Duration) -> Self {
        Self { level: f64::from(burst), at: now }
    }

    /// Takes one token out of a bucket of `burst` that fills at `rate` tokens a second.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, now: Duration, rate: f64, burst: u32) -> Result<(), Duration> {
        self.take_many(now, 1, rate, burst)
    }

    /// Takes `count` tokens, or none.
    ///
    /// # Errors
    /// How long until there are so many.
    pub fn take_many(&mut self, now: Duration, count: u32, rate: f64, burst: u32) -> Result<(), Duration> {
        self.fill(now, rate, burst);
        let count = f64::from(count);
        if self.level >= count {
            self.level -= count;
            return Ok(());
        }
        let missing = (count - self.level) / rate.max(1e-6);
        Err(Duration::from_secs_f64(missing.min(3600.0)))
    }

    fn fill(&mut self, now: Duration, rate: f64, burst: u32) {
        let gone = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + gone * rate).min(f64::from(burst));
        self.at = now;
    }

    fn is_full(&mut self, now: Duration, rate: f64, burst: u32) -> bool {
        self.fill(now, rate, burst);
        self.level >= f64::from(burst)
    }
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address.
#[must_use]
pub fn client_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (!0u128 << 64))),
    }
}

/// Events a minute of each client. Holds at most `bound` clients; beyond that, unknown ones are
/// refused until others have been quiet long enough.
#[derive(Debug)]
pub struct PerClient {
    buckets: HashMap<IpAddr, Bucket>,
    bound: usize,
}

impl PerClient {
    /// An empty table.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { buckets: HashMap::new(), bound }
    }

    /// Counts one event of `ip` against `per_minute`.
    ///
    /// # Errors
    /// How long until the next one is accepted.
    pub fn take(&mut self, now: Duration, ip: IpAddr, per_minute: u32) -> Result<(), Duration> {
        let rate = f64::from(per_minute) / 60.0;
        let key = client_key(ip);
        if !self.buckets.contains_key(&key) && self.buckets.len() >= self.bound {
            self.buckets.retain(|_, b| !b.is_full(now, rate, per_minute));
            if self.buckets.len() >= self.bound {
                return Err(Duration::from_secs(60));
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::full(per_minute, now)).take(now, rate, per_minute)
    }

    /// Whether another event of `ip` would be accepted; counts nothing.
    ///
    /// # Errors
    /// How long until one is accepted.
    pub fn check(&self, now: Duration, ip: IpAddr, per_minute: u32) -> Result<(), Duration> {
        match self.buckets.get(&client_key(ip)) {
            Some(bucket) => bucket.clone().take(now, f64::from(per_minute) / 60.0, per_minute),
            None => Ok(()),
        }
    }

    /// Clients in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no client is in the table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let mut bucket = Bucket::full(3, Duration::ZERO);
        for _ in 0..3 {
            assert!(bucket.take(Duration::ZERO, 1.0, 3).is_ok());
        }
        assert_eq!(bucket.take(Duration::ZERO, 1.0, 3), Err(Duration::from_secs(1)));
        assert!(bucket.take(Duration::from_secs(1), 1.0, 3).is_ok());
    }

    #[test]
    fn ipv6_clients_are_counted_by_their_64() {
        let a: IpAddr = "2001:db8:1:2::1".parse().expect("address");
        let b: IpAddr = "2001:db8:1:2:ffff::9".parse().expect("address");
        assert_eq!(client_key(a), client_key(b));
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().expect("address");
        assert_eq!(client_key(mapped), "192.0.2.1".parse::<IpAddr>().expect("address"));
    }

    #[test]
    fn the_table_of_clients_is_bounded() {
        let mut table = PerClient::new(2);
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        assert!(table.take(Duration::ZERO, ip(1), 10).is_ok());
        assert!(table.take(Duration::ZERO, ip(2), 10).is_ok());
        assert!(table.take(Duration::ZERO, ip(3), 10).is_err());
        assert!(table.take(Duration::from_secs(60), ip(3), 10).is_ok(), "quiet clients make room");
        assert!(table.len() <= 2);
    }
}
