//! coturn's `turnserver.conf` as a configuration of ours.
//!
//! Owns how such a file is read (`syntax`), what each option of coturn becomes (`options`, the table; `translate`
//! and `place`, where several make one key), and the account of it: every line is translated, turnkey's own way, dropped for a
//! reason, or not understood. A file that turnkey could only serve by letting in whom the file keeps out is refused.
//! What the resulting keys mean is the rest of `config`'s.

mod draft;
mod networks;
mod options;
mod place;
mod render;
mod syntax;
mod translate;

use std::path::Path;

use toml::Table;

use super::source::{self, Error, Place, Sources};
use super::values;
use draft::Draft;
use syntax::{Entries, Line};

pub use draft::{Fate, Note};

/// A `turnserver.conf`, translated.
pub struct Import {
    table: Table,
    sources: Sources,
    notes: Vec<Note>,
}

impl Import {
    /// Translates a file.
    ///
    /// # Errors
    /// It cannot be read, or not translated without letting in whom it keeps out.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let import = Self::read(path, &super::read_text(path)?)?;
        let (table, sources) = (import.table.clone(), import.sources.clone());
        let (file, sources) = source::finish(&path.display().to_string(), table, sources, [])?;
        values::validate(&file, sources, None)?;
        Ok(import)
    }

    /// Translates the text of the file at `path`, from where relative paths in it count.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, Error> {
        let name = path.display().to_string();
        let mut draft = Draft::new(&name);
        let mut entries = Entries(Vec::new());
        for (line, what) in syntax::lines(text) {
            match what {
                Line::Entry(entry) => entries.0.push(entry),
                Line::Unknown(option) => draft.unknown(line, option, nearest(option)),
                Line::Malformed(option, expected) => {
                    return Err(Error::new(Some(Place::Line(name.clone(), line)), option.name, expected));
                }
            }
        }
        let base = std::path::absolute(path.parent().unwrap_or(Path::new(""))).unwrap_or_default();
        translate::translate(&mut draft, &entries, &base)?;
        warn_of_readers(&mut draft, &entries, path);
        let notes = draft.notes(&entries);
        Ok(Self { table: draft.table, sources: draft.sources, notes })
    }

    pub(super) fn into_parts(self) -> (Table, Sources, Vec<Note>) {
        (self.table, self.sources, self.notes)
    }

    /// What becomes of each option of coturn, as a Markdown table.
    #[must_use]
    pub fn options() -> String {
        options::markdown()
    }

    /// What became of every line, in the order of the file, then what concerns it as a whole.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The whole configuration as commented TOML, secrets included.
    #[must_use]
    pub fn to_toml(&self) -> String {
        render::render(self)
    }
}

/// Whether this is a `turnserver.conf`: by its name, and by the first line that says anything.
pub(super) fn is_coturn(path: &Path, text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let has_option = syntax::lines(text).next().is_some_and(|(_, line)| !matches!(line, Line::Unknown(_)));
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => false,
        Some("conf") => !first.is_some_and(|line| line.starts_with('[')),
        _ => has_option,
    }
}

fn nearest(name: &str) -> Option<String> {
    let names = options::OPTIONS.iter().map(|option| option.name);
    source::nearest(name, names).map(str::to_owned)
}

fn warn_of_readers(draft: &mut Draft<'_>, entries: &Entries, path: &Path) {
    let mode = std::fs::metadata(path).ok().and_then(|metadata| super::secret::lax_mode(&metadata));
    let has_secret = entries.0.iter().any(|entry| entry.option.is_secret);
    if let Some(mode) = mode.filter(|_| has_secret) {
        let path = path.display();
        let what = format!(
            "everybody on this host can read the secrets in {path} (mode {mode:04o}): chmod 640 {path}"
        );
        draft.remark_all(Fate::Danger(what));
    }
}

#[cfg(test)]
mod tests;
