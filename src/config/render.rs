//! A configuration back as TOML: what `turnkey config print` shows.

use toml::{Table, Value};

use super::file::File;
use super::source::Sources;

/// The file as TOML, with the origin of each value that was set somewhere.
pub(super) fn render(file: &File, sources: &Sources) -> String {
    let table = Table::try_from(file).expect("a configuration is a TOML table");
    let mut text = String::new();
    let (sections, keys): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    render_keys(&mut text, "", keys.into_iter(), sources);
    for (name, section) in sections {
        text += &format!("\n[{name}]\n");
        render_keys(&mut text, name, section.as_table().into_iter().flatten(), sources);
    }
    text
}

fn render_keys<'a>(
    text: &mut String,
    section: &str,
    keys: impl Iterator<Item = (&'a String, &'a Value)>,
    sources: &Sources,
) {
    for (key, value) in keys {
        let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        let origin = sources.own_place(&path).map(|place| format!("   # {place}"));
        *text += &format!("{key} = {value}{}\n", origin.unwrap_or_default());
    }
}
