//! The files of `turn-config/`: complete, and right to the last key.

use std::path::PathBuf;

use toml::{Table, Value};
use turnkey::Config;

fn profiles() -> Vec<(PathBuf, String)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("turn-config");
    let files =
        std::fs::read_dir(directory).expect("turn-config/").map(|entry| entry.expect("an entry").path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(files.len() >= 4, "{files:?}");
    files.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).expect("text"))).collect()
}

fn default_file() -> String {
    let (_, text) =
        profiles().into_iter().find(|(path, _)| path.ends_with("turnkey.toml")).expect("turnkey.toml");
    text
}

#[test]
fn the_default_file_says_what_the_program_does() {
    assert!(Config::from_toml(&default_file()).expect("valid") == Config::default());
}

#[test]
fn the_default_file_has_every_key() {
    let known: Table = Config::default().to_toml().parse().expect("TOML");
    let shown: Table = default_file().parse().expect("TOML");
    let keys = |table: &Table| -> Vec<String> {
        let of = |(name, value): (&String, &Value)| match value {
            Value::Table(section) => section.keys().map(|key| format!("{name}.{key}")).collect(),
            _ => vec![name.clone()],
        };
        table.iter().flat_map(of).collect()
    };
    assert_eq!(keys(&shown), keys(&known));
}

#[test]
fn every_profile_is_valid() {
    for (path, text) in profiles() {
        if let Err(e) = Config::from_toml(&text) {
            panic!("{}: {e}", path.display());
        }
    }
}

#[test]
fn a_wrong_key_in_any_table_of_any_profile_is_found() {
    for (path, text) in profiles() {
        let lines: Vec<_> = text.lines().collect();
        let headers = lines.iter().enumerate().filter(|(_, line)| line.starts_with('[')).map(|(i, _)| i + 1);
        for at in std::iter::once(0).chain(headers) {
            let mut lines = lines.clone();
            lines.insert(at, "bogus_key = 1");
            let error = Config::from_toml(&lines.join("\n")).map(drop).expect_err("refused").to_string();
            let place = format!("configuration:{}: ", at + 1);
            assert!(
                error.starts_with(&place) && error.contains("bogus_key: unknown key"),
                "{}: {error}",
                path.display()
            );
        }
    }
}
