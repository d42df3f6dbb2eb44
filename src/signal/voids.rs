//! What is valid no longer although its time has not come: tickets that were used, users who were sent out of a
//! room, relay credentials of who left. Bounded; each entry goes when it would have ended anyway. The relay's have a
//! bound of their own: anybody can make many of them, and no ticket is forgotten for one.

use super::Now;
use crate::credential::Ends;

/// What the names of relay credentials begin with.
pub(crate) const RELAY: &str = "relay:";

/// Entries by name.
#[derive(Debug, Default)]
pub(crate) struct Voids {
    relay: Ends,
    others: Ends,
}

impl Voids {
    /// Whether it is valid no longer.
    pub(crate) fn contains(&self, name: &str, now: Now) -> bool {
        let table = if name.starts_with(RELAY) { &self.relay } else { &self.others };
        table.of(name).is_some_and(|until| until > now.unix)
    }

    /// Whether another ticket finds room without one being given up.
    pub(crate) fn has_room(&self, bound: usize, now: Now) -> bool {
        self.others.has_room(bound, now.unix)
    }

    /// Takes an entry in, as [`Ends::insert`] does.
    pub(crate) fn insert(&mut self, name: Box<str>, until: u64, bound: usize, now: Now) -> Vec<Box<str>> {
        let table = if name.starts_with(RELAY) { &mut self.relay } else { &mut self.others };
        table.insert(name, until, bound, now.unix)
    }

    /// All entries with their ends.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.relay.iter().chain(self.others.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_end_by_themselves_and_the_relays_have_a_bound_of_their_own() {
        let at = |unix| Now { mono: Duration::ZERO, unix };
        let mut voids = Voids::default();
        assert!(voids.insert("a".into(), 20, 1, at(10)).is_empty());
        assert!(voids.contains("a", at(19)) && !voids.contains("a", at(20)));
        assert_eq!(voids.insert("relay:a".into(), 90, 1, at(12)), Vec::<Box<str>>::new(), "another table");
        assert_eq!(voids.insert("relay:b".into(), 80, 1, at(12)), ["relay:a".into()]);
        assert!(voids.contains("relay:b", at(15)) && voids.contains("a", at(15)));
        assert_eq!(voids.iter().count(), 2);
    }
}
