//! The configuration that grows while a `turnserver.conf` is translated: values of our keys, the line each
//! comes from, and what became of every line.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use super::options::Becomes;
use super::syntax::{self, Entries, Entry};
use crate::config::source::{Error, Place, Sources};

/// What became of a line, or of what the file leaves to coturn's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub file: String,
    /// The line, counted from one, and the option without its value; `None`: the file as a whole.
    pub option: Option<(usize, String)>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It sets these keys.
    Key(String),
    /// turnkey does so by itself, as this says.
    Builtin(String),
    /// Nothing, for this reason.
    Dropped(String),
    /// coturn has no such option; the nearest one.
    Unknown(Option<String>),
    /// Worth a second look.
    Warning(String),
    /// Dangerous, as this says.
    Danger(String),
}

impl Note {
    /// Whether the server does something else than the file says, or something dangerous.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        !matches!(self.fate, Fate::Key(_) | Fate::Builtin(_))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.option {
            Some((line, option)) => write!(f, "{}:{line}: {option}: ", self.file)?,
            None => write!(f, "{}: ", self.file)?,
        }
        match &self.fate {
            Fate::Key(keys) => write!(f, "is {keys}"),
            Fate::Builtin(how) => write!(f, "default here: {how}"),
            Fate::Dropped(why) => write!(f, "dropped: {why}"),
            Fate::Unknown(Some(near)) => write!(f, "not understood, did you mean {near}?"),
            Fate::Unknown(None) => f.write_str("not understood: no option of coturn"),
            Fate::Warning(what) => write!(f, "note: {what}"),
            Fate::Danger(what) => write!(f, "DANGER: {what}"),
        }
    }
}

/// See the module.
pub(super) struct Draft<'a> {
    /// The name of the file that is translated.
    name: &'a str,
    pub(super) table: Table,
    pub(super) sources: Sources,
    /// Keys each line contributed to, or what else became of it.
    fates: BTreeMap<usize, Fate>,
    /// What concerns no single line, or is said about a line beside its fate.
    remarks: Vec<Note>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self {
            name,
            table: Table::new(),
            sources: Sources::default(),
            fates: BTreeMap::new(),
            remarks: Vec::new(),
        }
    }

    /// Sets `section.key`, which these lines ask for.
    pub(super) fn set<'e>(
        &mut self,
        path: &str,
        value: impl Into<Value>,
        from: impl IntoIterator<Item = &'e Entry>,
    ) {
        let (section, key) = path.split_once('.').expect("keys stand in sections");
        let mut first = None;
        for entry in from {
            first = first.or(Some(entry.line));
            self.credit(entry, path);
        }
        let place = match first {
            Some(line) => Place::Line(self.name.to_owned(), line),
            None => Place::File(self.name.to_owned()),
        };
        self.sources.set(path, place);
        let slot = self.table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        slot.as_table_mut().expect("sections are tables").insert(key.to_owned(), value.into());
    }

    /// Sets a list; `from` are the lines that ask for it, and items may have a line of their own.
    pub(super) fn set_list<'e>(
        &mut self,
        path: &str,
        items: Vec<(String, Option<&'e Entry>)>,
        from: impl IntoIterator<Item = &'e Entry>,
    ) {
        let (texts, entries): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        let own = entries.iter().copied().flatten();
        self.set(path, texts, from.into_iter().chain(own));
        for (i, entry) in entries.iter().enumerate() {
            if let Some(entry) = entry {
                self.sources.set(&format!("{path}[{i}]"), Place::Line(self.name.to_owned(), entry.line));
            }
        }
    }

    fn credit(&mut self, entry: &Entry, path: &str) {
        let fate = self.fates.entry(entry.line).or_insert_with(|| Fate::Key(String::new()));
        match fate {
            Fate::Key(keys) if keys.is_empty() => path.clone_into(keys),
            Fate::Key(keys) if keys.split(", ").any(|key| key == path) => {}
            Fate::Key(keys) => *keys += &format!(", {path}"),
            other => *other = Fate::Key(path.to_owned()),
        }
    }

    /// The line has no effect, for this reason.
    pub(super) fn drop(&mut self, entry: &Entry, why: impl Into<String>) {
        self.fates.insert(entry.line, Fate::Dropped(why.into()));
    }

    /// Says something about a line beside what became of it.
    pub(super) fn remark(&mut self, entry: &Entry, fate: Fate) {
        let note = self.note(Some((entry.line, entry.option.name)), fate);
        self.remarks.push(note);
    }

    /// Says something about the file.
    pub(super) fn remark_all(&mut self, fate: Fate) {
        let note = self.note(None, fate);
        self.remarks.push(note);
    }

    /// A line that is not understood.
    pub(super) fn unknown(&mut self, line: usize, name: &str, near: Option<String>) {
        let note = self.note(Some((line, name)), Fate::Unknown(near));
        self.remarks.push(note);
    }

    fn note(&self, option: Option<(usize, &str)>, fate: Fate) -> Note {
        Note { file: self.name.to_owned(), option: option.map(|(line, name)| (line, name.to_owned())), fate }
    }

    /// The file cannot be translated because of this line.
    pub(super) fn fail(&self, entry: &Entry, problem: impl Into<String>) -> Error {
        Error::new(Some(Place::Line(self.name.to_owned(), entry.line)), entry.option.name, problem)
    }

    /// What became of every line, in the order of the file.
    pub(super) fn notes(&mut self, entries: &Entries) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.remarks);
        for entry in &entries.0 {
            let fate = self.fates.remove(&entry.line).unwrap_or_else(|| unused(entries, entry));
            let is_on = entry.value != syntax::Value::Flag(false);
            let danger = entry.option.danger.filter(|_| is_on).map(|what| Fate::Danger(what.into()));
            let oddity = syntax::oddity(entry).map(|what| Fate::Warning(what.into()));
            for fate in std::iter::once(fate).chain(oddity).chain(danger) {
                notes.push(self.note(Some((entry.line, entry.option.name)), fate));
            }
        }
        // What concerns the whole file comes last.
        notes.sort_by_key(|note| note.option.as_ref().map_or(usize::MAX, |(line, _)| *line));
        notes
    }
}

/// What becomes of a line that set no key.
fn unused(entries: &Entries, entry: &Entry) -> Fate {
    let last = entries.last(entry.option.name).map_or(entry.line, |last| last.line);
    match (entry.option.becomes, &entry.value) {
        (Becomes::Builtin(how), _) => Fate::Builtin(how.into()),
        (_, syntax::Value::Flag(false)) => Fate::Builtin("off, as without this line".into()),
        (Becomes::Dropped(why) | Becomes::Refused(why), _) => Fate::Dropped(why.into()),
        (Becomes::Key(_), _) if last > entry.line => Fate::Dropped(format!("line {last} says it again")),
        (Becomes::Key(_), syntax::Value::Number(None)) => Fate::Builtin("no value: the default".into()),
        (Becomes::Key(_), _) => Fate::Dropped("has no effect beside the other lines".into()),
    }
}
