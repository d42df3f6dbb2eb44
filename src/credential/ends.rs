//! Names that end by themselves: what was used up or taken back, until it would have ended anyway.

use std::collections::{BTreeMap, BTreeSet};

/// Names with the Unix seconds at which they end. Bounded by whoever adds to it; those that end first go first.
#[derive(Debug, Default)]
pub struct Ends {
    until: BTreeMap<Box<str>, u64>,
    by_end: BTreeSet<(u64, Box<str>)>,
}

impl Ends {
    /// When the name ends, if it is here.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<u64> {
        self.until.get(name).copied()
    }

    /// Whether another name finds room without one being given up.
    #[must_use]
    pub fn has_room(&self, bound: usize, now: u64) -> bool {
        self.until.len() < bound || self.by_end.first().is_some_and(|(until, _)| *until <= now)
    }

    /// Takes a name in, whose end only moves back, and those out that are over or, beyond the bound, nearest to it;
    /// these are returned.
    pub fn insert(&mut self, name: Box<str>, until: u64, bound: usize, now: u64) -> Vec<Box<str>> {
        let until = self.of(&name).map_or(until, |known| until.max(known));
        let mut gone = Vec::new();
        while let Some((first, _)) = self.by_end.first()
            && (*first <= now || self.until.len() >= bound)
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

    /// All names with their ends.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.until.iter().map(|(name, until)| (&**name, *until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_end_no_sooner() {
        let mut ends = Ends::default();
        assert!(ends.insert("a".into(), 20, 2, 10).is_empty());
        assert!(ends.insert("b".into(), 30, 2, 10).is_empty());
        assert!(!ends.has_room(2, 19) && ends.has_room(2, 20));
        assert_eq!(ends.insert("c".into(), 40, 2, 11), ["a".into()], "the one nearest to its end");
        assert_eq!(ends.insert("b".into(), 50, 3, 12), Vec::<Box<str>>::new(), "longer than before");
        ends.insert("b".into(), 13, 3, 12);
        assert_eq!((ends.of("a"), ends.of("b")), (None, Some(50)), "it ends no sooner");
        assert_eq!((ends.iter().count(), ends.by_end.len()), (2, 2));
    }
}
