//! A group of journal changes as few statements: what is overtaken within the group is left out, rows of one kind of
//! statement go together.

use std::collections::BTreeMap;

use super::{Marks, Statement, escaped, number, statement};
use crate::signal::{Change, Record, Row, Table};

/// Rows of one INSERT, and ranges of one DELETE.
pub(super) const ROWS: usize = 50;

type Key = (Table, Box<str>, u64);

/// Changes that are written together.
pub(super) struct Group {
    puts: BTreeMap<Key, Box<str>>,
    drops: Vec<(Table, Box<str>, u64, u64)>,
    records: Vec<Record>,
}

impl Group {
    pub(super) fn new(changes: Vec<Change>) -> Self {
        let mut group = Self { puts: BTreeMap::new(), drops: Vec::new(), records: Vec::new() };
        for change in changes {
            match change {
                Change::Put(Row { table, owner, number, value }) => {
                    group.puts.insert((table, owner, number), value);
                }
                Change::Drop { table, owner, from, to } => group.drop(table, owner, from, to),
                Change::Record(record) => group.records.push(record),
            }
        }
        group
    }

    fn drop(&mut self, table: Table, owner: Box<str>, from: u64, to: u64) {
        let range = (table, owner.clone(), from)..=(table, owner.clone(), to);
        let overtaken: Vec<Key> = self.puts.range(range).map(|(key, _)| key.clone()).collect();
        for key in overtaken {
            self.puts.remove(&key);
        }
        self.drops.push((table, owner, from, to));
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// What goes is said first: what is put after it in the group stays.
    pub(super) fn statements(&self, node: &str, marks: Marks) -> Vec<Statement> {
        let drops = self.drops.chunks(ROWS).map(|ranges| delete(node, marks, ranges));
        let puts: Vec<_> = self.puts.iter().map(|(key, value)| (key, &**value)).collect();
        drops.chain(puts.chunks(ROWS).map(|rows| insert(node, marks, rows))).collect()
    }
}

fn delete(node: &str, marks: Marks, ranges: &[(Table, Box<str>, u64, u64)]) -> Statement {
    // Each range by the index.
    let range = "(node = ? AND kind = ? AND owner = ? AND number BETWEEN ? AND ?)";
    let sql = format!("DELETE FROM journal WHERE {}", vec![range; ranges.len()].join(" OR "));
    ranges.iter().fold(statement(marks.set(sql)), |query, (table, owner, from, to)| {
        let query = query.bind(node.to_owned()).bind(table.as_str()).bind(escaped(owner));
        query.bind(number(*from)).bind(number(*to))
    })
}

fn insert(node: &str, marks: Marks, rows: &[(&Key, &str)]) -> Statement {
    let sql = format!(
        "INSERT INTO journal (node, kind, owner, number, value) VALUES {} \
         ON CONFLICT (node, kind, owner, number) DO UPDATE SET value = excluded.value",
        vec!["(?, ?, ?, ?, ?)"; rows.len()].join(", ")
    );
    rows.iter().fold(statement(marks.set(sql)), |query, ((table, owner, at), value)| {
        let query = query.bind(node.to_owned()).bind(table.as_str()).bind(escaped(owner));
        query.bind(number(*at)).bind(value.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(owner: &str, number: u64, value: &str) -> Change {
        Change::Put(Row { table: Table::Frame, owner: owner.into(), number, value: value.into() })
    }

    fn drop(owner: &str, from: u64, to: u64) -> Change {
        Change::Drop { table: Table::Frame, owner: owner.into(), from, to }
    }

    #[test]
    fn what_is_overtaken_is_not_written() {
        let changes = vec![
            put("a", 1, "x"),
            put("a", 2, "x"),
            put("b", 1, "x"),
            drop("a", 0, 1),
            put("a", 2, "y"),
            drop("b", 0, 9),
            put("b", 1, "again"),
        ];
        let group = Group::new(changes);
        let left: Vec<_> =
            group.puts.iter().map(|((_, owner, at), value)| (&**owner, *at, &**value)).collect();
        assert_eq!(left, [("a", 2, "y"), ("b", 1, "again")]);
        assert_eq!(group.statements("n", Marks::Question).len(), 2, "one DELETE and one INSERT");
        let many = (0..120).map(|n| put("a", n, "x")).collect();
        assert_eq!(Group::new(many).statements("n", Marks::Question).len(), 3, "fifty rows each");
    }
}
