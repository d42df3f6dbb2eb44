//! Lines of a `turnserver.conf`, read as coturn reads them.
//!
//! `name`, `name=value` or `name value`; a line that begins with `#` is a comment, any other `#` belongs to the
//! value; a value that begins with a double quote loses its quotes. What a value means is not decided here.

use super::options::{self, Form, Opt};

/// A line that sets an option.
#[derive(Debug)]
pub(super) struct Entry {
    /// Counted from one.
    pub(super) line: usize,
    pub(super) option: &'static Opt,
    pub(super) value: Value,
}

/// The value of an option, of the form its option asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Flag(bool),
    /// `None`: coturn's default.
    Number(Option<u64>),
    Text(String),
}

/// What stands on a line.
pub(super) enum Line<'a> {
    Entry(Entry),
    /// The name of no option.
    Unknown(&'a str),
    /// An option whose value cannot be read, and what is allowed.
    Malformed(&'static Opt, String),
}

/// All lines but comments and empty ones, with their numbers.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    let numbered =
        text.trim_start_matches('\u{feff}').lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    numbered
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| (number, read(number, line)))
}

/// The name and the text behind it.
fn split(line: &str) -> (&str, &str) {
    let is_separator = |c: char| matches!(c, ' ' | '=' | '\t');
    let (name, value) = line.split_at(line.find(is_separator).unwrap_or(line.len()));
    let value = value.trim_start_matches(is_separator);
    match value.strip_prefix('"') {
        Some(quoted) => (name, quoted.strip_suffix('"').unwrap_or(quoted)),
        None => (name, value),
    }
}

fn read(number: usize, line: &str) -> Line<'_> {
    let (name, text) = split(line);
    let Some(option) = options::find(name) else { return Line::Unknown(name) };
    match value(option.form, text) {
        Ok(value) => Line::Entry(Entry { line: number, option, value }),
        Err(expected) => Line::Malformed(option, expected),
    }
}

fn value(form: Form, text: &str) -> Result<Value, String> {
    match form {
        Form::Flag => flag(text).map(Value::Flag),
        Form::Switch => Ok(Value::Flag(true)),
        Form::Number if text.is_empty() => Ok(Value::Number(None)),
        Form::Number => number(text).map(|number| Value::Number(Some(number))),
        Form::Port => number(text)
            .ok()
            .filter(|port| u16::try_from(*port).is_ok())
            .map(|port| Value::Number(Some(port)))
            .ok_or_else(|| "expected a port, 0 to 65535".into()),
        Form::Text if text.contains('\u{fffd}') => Err("has characters that are not UTF-8".into()),
        Form::Text => Ok(Value::Text(text.to_owned())),
    }
}

/// coturn looks at the first character, and at the whole word only where that leaves a doubt.
fn flag(text: &str) -> Result<bool, String> {
    match text.chars().next() {
        None | Some('y' | 'Y' | 't' | 'T' | '1'..='9') => Ok(true),
        Some('0' | 'n' | 'N' | 'f' | 'F') => Ok(false),
        Some(_) if ["on", "ON", "On"].contains(&text) => Ok(true),
        Some(_) if ["off", "OFF", "Off"].contains(&text) => Ok(false),
        Some(_) => Err("expected yes or no: 1, on, yes, true; 0, off, no, false".into()),
    }
}

/// As C's `atoi` reads it: the digits it begins with.
fn number(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().map_err(|_| "expected a number".into())
}

/// Why a value may not say what was meant, though coturn takes it as it stands.
pub(super) fn oddity(entry: &Entry) -> Option<&'static str> {
    let Value::Text(text) = &entry.value else { return None };
    match text {
        _ if text.contains(" #") || text.contains("\t#") => {
            Some("a # that does not begin the line belongs to the value, as in coturn")
        }
        _ if text.ends_with(';') => Some("the semicolon belongs to the value, as in coturn"),
        _ if text.starts_with('\'') => Some("single quotes belong to the value, as in coturn"),
        _ => None,
    }
}

/// All entries of a file, in its order.
pub(super) struct Entries(pub(super) Vec<Entry>);

impl Entries {
    /// Every line that sets this option.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &Entry> {
        debug_assert!(options::find(name).is_some(), "{name} is an option");
        self.0.iter().filter(move |entry| entry.option.name == name)
    }

    /// The line that counts where an option has one value: the last.
    pub(super) fn last(&self, name: &'static str) -> Option<&Entry> {
        self.all(name).last()
    }

    /// The last line that sets this flag, if it says yes.
    pub(super) fn on(&self, name: &'static str) -> Option<&Entry> {
        self.last(name).filter(|entry| entry.value == Value::Flag(true))
    }

    /// The last line that gives this number or port.
    pub(super) fn number(&self, name: &'static str) -> Option<(u64, &Entry)> {
        self.last(name).and_then(|entry| match entry.value {
            Value::Number(Some(number)) => Some((number, entry)),
            _ => None,
        })
    }

    /// The last line that gives this text, if it is not empty.
    pub(super) fn text(&self, name: &'static str) -> Option<(&str, &Entry)> {
        self.last(name).and_then(|entry| Some((entry.text()?, entry)))
    }

    /// Every text of an option that may stand several times.
    pub(super) fn texts(&self, name: &'static str) -> impl Iterator<Item = (&str, &Entry)> {
        self.all(name).filter_map(|entry| Some((entry.text()?, entry)))
    }
}

impl Entry {
    fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}
