//! An imported configuration as a file for people: the commented default file with the imported values in it.

use toml::{Table, Value};

use super::{Fate, Import};

/// Every key with its default, explained.
const DEFAULTS: &str = include_str!("../../../turn-config/turnkey.toml");

/// The default file, where each imported value stands in the place of the default, below the lines it comes from;
/// above it, what became of the others.
pub(super) fn render(import: &Import) -> String {
    let mut text = header(import);
    let mut section = String::new();
    // The header of the default file is about that file.
    let body = DEFAULTS.split_once("\n\n").map_or(DEFAULTS, |(_, body)| body);
    for line in body.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        match line.split_once(" = ").and_then(|(key, _)| Some((key, value(import, &section, key)?))) {
            Some((key, value)) => {
                let path = format!("{section}.{key}");
                if let Some(place) = import.sources.own_place(&path) {
                    text += &format!("# {place}\n");
                }
                text += &format!("{key} = {value}\n");
            }
            None => text += &format!("{line}\n"),
        }
    }
    text
}

fn value<'a>(import: &'a Import, section: &str, key: &str) -> Option<&'a Value> {
    import.table.get(section).and_then(Value::as_table).and_then(|keys: &Table| keys.get(key))
}

fn header(import: &Import) -> String {
    let mut text =
        String::from("# turnkey, from a turnserver.conf of coturn. What became of its lines:\n#\n");
    for note in import.notes().iter().filter(|note| !matches!(note.fate, Fate::Key(_))) {
        text += &format!("#   {note}\n");
    }
    text + "#\n# A comment with a line of that file stands above each key it sets; all other keys are turnkey's defaults.\n\n"
}
