//! The rules of the house as tests: which module imports which, what the pure modules may name, and
//! how long a file may be. ARCHITECTURE.md has the picture.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module of the crate and what of the crate it may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("stun", &[]),
    ("credential", &["stun"]),
    ("dtls", &[]),
    ("turn", &["stun", "credential"]),
    ("signal", &["credential"]),
    ("proxy", &[]),
    ("fuzzing", &["stun", "credential", "dtls", "turn", "signal", "proxy"]),
    ("io", &[]),
    ("offload", &["io", "turn", "stun"]),
    ("worker", &["io", "dtls", "turn", "stun", "credential", "offload"]),
    ("http", &["signal", "credential"]),
    ("admin", &["credential", "turn", "worker", "io", "http", "signal", "app", "offload"]),
    ("store", &["signal"]),
    ("telemetry", &["config"]),
    ("systemd", &[]),
    ("config", &["credential", "stun", "turn", "http", "signal", "worker", "offload"]),
    (
        "app",
        &[
            "config",
            "worker",
            "http",
            "admin",
            "dtls",
            "turn",
            "credential",
            "systemd",
            "telemetry",
            "io",
            "signal",
            "proxy",
            "offload",
            "store",
        ],
    ),
    ("bench", &["stun", "credential", "io"]),
    ("check", &["config", "credential"]),
    ("cli", &["app", "config", "bench", "check", "credential", "http", "telemetry", "systemd"]),
];

/// Modules that decide and touch nothing.
const PURE: &[&str] = &["stun", "credential", "dtls", "turn", "signal", "proxy"];

/// What no pure module names: sockets, runtimes, files, clocks, threads, the global random source.
const IMPURE: &[&str] = &[
    "tokio",
    "axum",
    "mio::",
    "libc::",
    "socket2",
    "redis",
    "sqlx",
    "aya::",
    "tracing::",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime",
    "rand::rng(",
    "thread_rng",
    "getrandom",
    "OsRng",
    "println!",
    "eprintln!",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, into);
        } else if path.extension().is_some_and(|found| found == ending) {
            into.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    files(&root().join("src"), "rs", &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.strip_prefix(root()).unwrap().into(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The top-level module a file belongs to; `None` for the crate's own roots.
fn module_of(path: &Path) -> Option<String> {
    let first = path.components().nth(1)?.as_os_str().to_str()?.trim_end_matches(".rs").to_owned();
    (first != "lib" && first != "main").then_some(first)
}

/// The code without comments and without its test modules, which may reach further.
fn code(text: &str) -> String {
    let until_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    until_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Names after `crate::`, also those in braces.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().to_owned(),
            None => rest.to_owned(),
        };
        let heads = if rest.starts_with('{') { names.split(',').collect() } else { vec![names.as_str()] };
        for head in heads {
            let name: String = head.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.insert(name);
        }
    }
    found
}

#[test]
fn modules_import_only_what_the_picture_shows() {
    let known: BTreeSet<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(module) = module_of(&path) else { continue };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module {module} has no row in MAY_IMPORT", path.display()));
            continue;
        };
        for import in imports(&code(&text)) {
            if known.contains(import.as_str()) && import != module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {module} must not import {import}", path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn pure_modules_touch_nothing() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if module_of(&path).is_some_and(|module| PURE.contains(&module.as_str()))
            && !path.ends_with("tests.rs")
        {
            let code = code(&text);
            let named = IMPURE.iter().filter(|name| code.contains(**name));
            wrong.extend(named.map(|name| format!("{}: names {name}", path.display())));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn unsafe_code_stands_in_one_place_and_is_explained() {
    for (path, text) in sources() {
        let blocks = code(&text).matches("unsafe {").count();
        let is_home = path.starts_with("src/io/linux") || path.ends_with("src/io/linux.rs");
        assert!(blocks == 0 || is_home, "{}: unsafe outside src/io/linux", path.display());
        assert!(text.matches("SAFETY:").count() >= blocks, "{}: a block without SAFETY:", path.display());
    }
}

#[test]
fn no_file_is_longer_than_800_lines_and_each_says_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.lines().count() <= 800, "{} is too long", path.display());
        let is_tests = path.ends_with("tests.rs");
        assert!(is_tests || text.starts_with("//!"), "{} does not begin with what it is for", path.display());
    }
}

#[test]
fn nothing_unfinished_is_left() {
    let marks = [
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
        "to".to_owned() + "do!",
        "#[ig".to_owned() + "nore",
    ];
    let mut paths = Vec::new();
    for (folder, ending) in
        [("src", "rs"), ("tests", "rs"), ("examples", "rs"), ("web", "js"), ("web", "html")]
    {
        files(&root().join(folder), ending, &mut paths);
    }
    for path in paths.iter().filter(|path| !path.components().any(|part| part.as_os_str() == "node_modules"))
    {
        let text = fs::read_to_string(path).unwrap();
        for mark in &marks {
            assert!(!text.contains(mark.as_str()), "{}: {mark}", path.display());
        }
    }
}

#[test]
fn every_rfc_section_that_code_or_tests_name_stands_in_the_coverage() {
    let coverage = fs::read_to_string(root().join("docs/rfc-coverage.md")).unwrap();
    let mut missing = BTreeSet::new();
    let mut paths = Vec::new();
    files(&root().join("src"), "rs", &mut paths);
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for rest in text.split("RFC ").skip(1) {
            let Some((number, rest)) = rest.split_once(" §") else { continue };
            let section: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let section = section.trim_end_matches('.');
            if number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()) && !section.is_empty() {
                let heading = coverage.split("\n## ").find(|part| part.starts_with(&format!("RFC {number}")));
                let row = format!("| {section} |");
                if !heading.is_some_and(|part| part.contains(&row)) {
                    missing.insert(format!("RFC {number} §{section}"));
                }
            }
        }
    }
    assert_eq!(missing, BTreeSet::new());
}

/// How many promises each of the five front-ends makes: S0-01 to S0-18, S1-01 to S1-14, and so on.
const PROMISES: [usize; 5] = [18, 14, 16, 31, 33];

/// How many conflicts between them are settled: C1 to C15.
const SETTLED: usize = 15;

/// The names of all tests, in Rust and JavaScript, with underscores between their words and around them.
fn names_of_tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (ending, beginning) in [("rs", "fn "), ("js", "test(")] {
        let mut paths = Vec::new();
        files(&root().join("tests"), ending, &mut paths);
        for path in paths.iter().filter(|path| path.iter().all(|part| part != "node_modules")) {
            let text = fs::read_to_string(path).unwrap();
            let lines = text.lines().filter_map(|line| line.split_once(beginning));
            let name = |rest: &str| rest.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            names.extend(lines.map(|(_, rest)| format!("_{}_", name(rest).trim_matches('_'))));
        }
    }
    names
}

#[test]
fn every_promise_of_the_front_ends_and_every_conflict_stands_in_the_name_of_a_test() {
    let names = names_of_tests();
    let mut ids: Vec<String> = (1..=SETTLED).map(|n| format!("c{n}")).collect();
    for (seed, count) in PROMISES.into_iter().enumerate() {
        ids.extend((1..=count).map(|number| format!("s{seed}_{number:02}")));
    }
    ids.retain(|id| !names.iter().any(|name| name.contains(&format!("_{id}_"))));
    assert_eq!(ids, Vec::<String>::new(), "no test is named after these");
}
