//! From text and environment variables to a `File`, remembering where each value came from.
//!
//! Owns what an error about a configuration needs: the place (file and line, variable or flag), the key,
//! and for an unknown key the nearest known one. Gives no meaning to values beyond their TOML type.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use toml::{Table, Value};

use super::file::File;

/// What is wrong with a configuration, in one line: where, which key, what, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    place: Option<Place>,
    key: String,
    problem: String,
}

impl Error {
    /// The key concerned, as `section.key`; empty if the text is no TOML at all.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn new(place: Option<Place>, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place, key: key.into(), problem: problem.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Error {}

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A line of a file, counted from one.
    Line(String, usize),
    /// A file as a whole.
    File(String),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{file}:{line}"),
            Self::File(file) => f.write_str(file),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Where each key was set; keys left at their default are absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(BTreeMap<String, Place>);

/// Where a value comes from is no part of what a configuration says.
impl PartialEq for Sources {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Sources {
    /// Where `key` was set: its own place, or that of the list or table it stands in.
    pub(crate) fn place(&self, key: &str) -> Option<&Place> {
        let mut key = key;
        loop {
            if let Some(place) = self.0.get(key) {
                return Some(place);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    /// Where `key` itself was set, not only its section.
    pub(crate) fn own_place(&self, key: &str) -> Option<&Place> {
        self.0.get(key)
    }

    pub(crate) fn set(&mut self, key: &str, place: Place) {
        self.0.retain(|k, _| !k.starts_with(&format!("{key}[")) && !k.starts_with(&format!("{key}.")));
        self.0.insert(key.to_owned(), place);
    }

    /// An error about `key`, naming the place it was set at.
    pub(crate) fn error(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::new(self.place(key).cloned(), key, problem)
    }
}

/// Reads a configuration text named `name` and lays `variables` over it.
pub(crate) fn read(
    name: &str,
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(File, Sources), Error> {
    let (table, sources) = parse(name, text)?;
    finish(name, table, sources, variables)
}

/// The same from a table that was read already.
pub(super) fn finish(
    name: &str,
    mut table: Table,
    mut sources: Sources,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(File, Sources), Error> {
    let known = Table::try_from(File::default()).expect("the default configuration is a TOML table");
    check_keys(&known, &table, &sources)?;
    overlay(&known, &mut table, variables, &mut sources)?;
    check_types(&known, &table, &sources)?;
    let file = File::deserialize(table)
        .map_err(|e| Error::new(Some(Place::File(name.into())), "", e.message().to_owned()))?;
    Ok((file, sources))
}

/// A text as TOML, and the line of each of its keys.
pub(super) fn parse(name: &str, text: &str) -> Result<(Table, Sources), Error> {
    let fail = |e: &toml::de::Error| {
        let line = line_of(text, e.span().map_or(0, |span| span.start));
        Error::new(Some(Place::Line(name.into(), line)), "", first_line(e.message()))
    };
    let spanned = toml::de::DeTable::parse(text).map_err(|e| fail(&e))?;
    let table: Table = toml::from_str(text).map_err(|e| fail(&e))?;
    let mut sources = Sources::default();
    let mut lines = Lines { name, text, sources: &mut sources };
    for (key, value) in spanned.get_ref() {
        lines.note(key.get_ref(), key.span().start, value.get_ref());
    }
    Ok((table, sources))
}

/// Collects the line of each key and list item.
struct Lines<'a> {
    name: &'a str,
    text: &'a str,
    sources: &'a mut Sources,
}

impl Lines<'_> {
    fn note(&mut self, path: &str, start: usize, value: &toml::de::DeValue<'_>) {
        let place = Place::Line(self.name.to_owned(), line_of(self.text, start));
        self.sources.0.insert(path.to_owned(), place);
        match value {
            toml::de::DeValue::Table(table) => {
                for (key, value) in table {
                    self.note(&format!("{path}.{}", key.get_ref()), key.span().start, value.get_ref());
                }
            }
            toml::de::DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.note(&format!("{path}[{i}]"), item.span().start, item.get_ref());
                }
            }
            _ => {}
        }
    }
}

fn check_keys(known: &Table, table: &Table, sources: &Sources) -> Result<(), Error> {
    for (name, value) in table {
        match (known.get(name), value) {
            (Some(Value::Table(keys)), Value::Table(section)) => {
                if let Some(key) = section.keys().find(|key| !keys.contains_key(*key)) {
                    let path = format!("{name}.{key}");
                    return Err(sources.error(&path, unknown("key", nearest_key(known, name, key))));
                }
            }
            (Some(Value::Table(_)), _) => {
                return Err(sources.error(name, format!("is a section; write [{name}] above its keys")));
            }
            (Some(_), _) => {}
            (None, Value::Table(_)) => {
                let near = nearest(name, known.keys().map(String::as_str)).map(|s| format!("[{s}]"));
                return Err(sources.error(name, unknown("section", near)));
            }
            (None, _) => return Err(sources.error(name, unknown("key", nearest_key(known, "", name)))),
        }
    }
    Ok(())
}

fn unknown(what: &str, near: Option<String>) -> String {
    match near {
        Some(near) => format!("unknown {what}, did you mean {near}?"),
        None => format!("unknown {what}; `turnkey config print` shows all keys"),
    }
}

/// The most similar key of the same section, or the same key of another section.
fn nearest_key(known: &Table, section: &str, key: &str) -> Option<String> {
    let own = known.get(section).and_then(Value::as_table);
    if let Some(near) = own.and_then(|keys| nearest(key, keys.keys().map(String::as_str))) {
        return Some(format!("{section}.{near}"));
    }
    if known.get(key).is_some_and(|value| !value.is_table()) {
        return Some(format!("{key}, which stands above all sections"));
    }
    let elsewhere = known.iter().filter_map(|(name, keys)| Some((name, keys.as_table()?)));
    elsewhere
        .filter_map(|(name, keys)| Some((name, nearest(key, keys.keys().map(String::as_str))?)))
        .min_by_key(|(_, near)| strsim::damerau_levenshtein(key, near))
        .map(|(name, near)| format!("{name}.{near}"))
}

/// The candidate that was most likely meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len().max(word.len()) / 3))
        .map(|(_, candidate)| candidate)
}

const PREFIX: &str = "TURNKEY_";

fn overlay(
    known: &Table,
    table: &mut Table,
    variables: impl IntoIterator<Item = (String, String)>,
    sources: &mut Sources,
) -> Result<(), Error> {
    for (name, text) in variables {
        let Some((section, key)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
            continue;
        };
        let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        let path = format!("{section}.{key}");
        let place = Place::Variable(name.clone());
        let Some(default) = known.get(&section).and_then(|keys| keys.get(&key)) else {
            let near = nearest_key(known, &section, &key).map(|near| variable_name(&near));
            return Err(Error::new(Some(place), path, unknown("key", near)));
        };
        let value = value_of(&text, default)
            .map_err(|expected| Error::new(Some(place.clone()), &path, format!("expected {expected}")))?;
        let slot = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        slot.as_table_mut().expect("sections were checked to be tables").insert(key, value);
        sources.set(&path, place);
    }
    Ok(())
}

fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// A variable's text as a value of the same type as the key's default.
fn value_of(text: &str, default: &Value) -> Result<Value, String> {
    let literal = || toml::from_str::<Table>(&format!("v = {text}")).ok()?.remove("v");
    let same_type = |value: &Value| value.same_type(default);
    match default {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Array(_) if text.trim_start().starts_with('[') => {
            literal().filter(same_type).ok_or_else(|| expected(default))
        }
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => literal().filter(same_type).ok_or_else(|| expected(default)),
    }
}

fn check_types(known: &Table, table: &Table, sources: &Sources) -> Result<(), Error> {
    for (name, value) in table {
        let default = &known[name];
        let (Value::Table(keys), Value::Table(section)) = (default, value) else {
            check_type(name, default, value, sources)?;
            continue;
        };
        for (key, value) in section {
            check_type(&format!("{name}.{key}"), &keys[key], value, sources)?;
            check_range(name, key, value, sources)?;
        }
    }
    Ok(())
}

fn check_type(path: &str, default: &Value, value: &Value, sources: &Sources) -> Result<(), Error> {
    let wrong = |path: &str, expected: &str| {
        Err(sources.error(path, format!("expected {expected}, found {}", value.type_str())))
    };
    let items = |items: &[Value]| items.iter().position(|item| !item.is_str());
    match (default, value) {
        (Value::String(_), Value::Array(list)) if path == "relay.public_address" => match items(list) {
            Some(i) => Err(sources.error(&format!("{path}[{i}]"), "expected a string")),
            None => Ok(()),
        },
        (Value::Array(_), Value::Array(list)) => match items(list) {
            Some(i) => Err(sources.error(&format!("{path}[{i}]"), "expected a string")),
            None => Ok(()),
        },
        (Value::Table(_), Value::Table(entries))
            if matches!(path, "credentials.users" | "credentials.user_keys") =>
        {
            match entries.iter().find(|(_, password)| !password.is_str()) {
                Some((name, _)) => Err(sources.error(&format!("{path}.{name}"), "expected a string")),
                None => Ok(()),
            }
        }
        _ if value.same_type(default) => Ok(()),
        _ => wrong(path, &expected(default)),
    }
}

/// Numbers that do not fit their field: the one thing the TOML types do not tell.
fn check_range(section: &str, key: &str, value: &Value, sources: &Sources) -> Result<(), Error> {
    if !value.is_integer() {
        return Ok(());
    }
    let one = Table::from_iter([(key.to_owned(), value.clone())]);
    let one = Table::from_iter([(section.to_owned(), Value::Table(one))]);
    match File::deserialize(one) {
        Ok(_) => Ok(()),
        Err(e) => Err(sources.error(&format!("{section}.{key}"), first_line(e.message()))),
    }
}

fn expected(default: &Value) -> String {
    match default {
        Value::String(s) if s.is_empty() => "a string".into(),
        Value::Array(list) if list.is_empty() => "a list of strings, [\"…\", \"…\"]".into(),
        Value::Array(list) => format!("a list of strings such as [{}]", list[0]),
        Value::Table(_) => "a table, { name = \"…\" }".into(),
        Value::Boolean(_) => "true or false".into(),
        Value::Integer(_) => format!("a number such as {default}"),
        other => format!("a {} such as {other}", other.type_str()),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}
