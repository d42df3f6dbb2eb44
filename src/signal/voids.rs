//! What is valid no longer although its time has not come: tickets that were used, users who were sent out of a
//! room, relay credentials of who left. Bounded; each entry goes when it would have ended anyway. The relay's have a
//! bound of their own: anybody can make many of them, and no ticket is forgotten for one.

use std::collections::{BTreeMap, BTreeSet};

use super::Now;

/// What the names of relay credentials begin with.
pub(crate) const RELAY: &str = "relay:";

/// Entries by name.
#[derive(Debug, Default)]
pub(crate) struct Voids {
    relay: Table,
    others: Table,
}

#[derive(Debug, Default)]
struct Table {
    until: BTreeMap<Box<str>, u64>,
    by_end: BTreeSet<(u64, Box<str>)>,
}

impl Voids {
    /// Whether it is valid no longer.
    pub(crate) fn contains(&self, name: &str, now: Now) -> bool {
        let table = if name.starts_with(RELAY) { &self.relay } else { &self.others };
        table.until.get(name).is_some_and(|until| *until > now.unix)
    }

    /// Whether another ticket finds room without one being given up.
    pub(crate) fn has_room(&self, bound: usize, now: Now) -> bool {
        let Table { until, by_end } = &self.others;
        until.len() < bound || by_end.first().is_some_and(|(until, _)| *until <= now.unix)
    }

    /// Takes an entry in, whose end only moves back, and those of its table out that are over or, beyond the bound,
    /// nearest to it; these are returned.
    pub(crate) fn insert(&mut self, name: Box<str>, until: u64, bound: usize, now: Now) -> Vec<Box<str>> {
        let table = if name.starts_with(RELAY) { &mut self.relay } else { &mut self.others };
        table.insert(name, until, bound, now)
    }

    /// All entries with their ends.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.relay.until.iter().chain(&self.others.until).map(|(name, until)| (&**name, *until))
    }
}

impl Table {
    fn insert(&mut self, name: Box<str>, until: u64, bound: usize, now: Now) -> Vec<Box<str>> {
        let until = self.until.get(&name).map_or(until, |known| until.max(*known));
        let mut gone = Vec::new();
        while let Some((first, _)) = self.by_end.first()
            && (*first <= now.unix || self.until.len() >= bound)
        {
            let Some((_, name)) = self.by_end.pop_first() else { break };
            self.until.remove(&name);
            gone.push(name);
        }
        if let Some(old) = self.until.insert(name.clone(), until) {
            self.by_end.remove(&(old, name.clone()));
        }
        gone.retain(|old| *old != name);
        self.by_end.insert((until, name));
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_end_by_themselves_and_are_bounded() {
        let at = |unix| Now { mono: Duration::ZERO, unix };
        let mut voids = Voids::default();
        assert!(voids.insert("a".into(), 20, 2, at(10)).is_empty());
        assert!(voids.insert("b".into(), 30, 2, at(10)).is_empty());
        assert!(voids.contains("a", at(19)) && !voids.contains("a", at(20)));
        assert!(!voids.has_room(2, at(19)) && voids.has_room(2, at(20)));
        assert_eq!(voids.insert("c".into(), 40, 2, at(11)), ["a".into()], "the one nearest to its end");
        assert_eq!(voids.insert("b".into(), 50, 3, at(12)), Vec::<Box<str>>::new(), "longer than before");
        assert!(voids.contains("b", at(45)));
        voids.insert("b".into(), 13, 3, at(12));
        assert!(voids.contains("b", at(45)), "it ends no sooner");
        assert_eq!((voids.iter().count(), voids.others.by_end.len()), (2, 2));
        assert_eq!(voids.insert("relay:a".into(), 90, 1, at(12)), Vec::<Box<str>>::new(), "another table");
        assert_eq!(voids.insert("relay:b".into(), 80, 1, at(12)), ["relay:a".into()]);
        assert!(voids.contains("relay:b", at(45)) && voids.contains("b", at(45)));
    }
}
