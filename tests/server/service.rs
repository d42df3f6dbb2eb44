//! The systemd unit: valid, locked up, and started once by a real systemd with all its filters.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Home;

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/turnkey.service")
}

#[expect(clippy::print_stdout, reason = "a run shows what it did not test")]
fn skipped(why: &str) {
    println!("skipped: {why}");
}

fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("it starts");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn unit_is_valid() {
    if !has("systemd-analyze") {
        return;
    }
    verify(&Home::new());
}

/// Nothing is said against the unit, with what else is in its home.
fn verify(home: &Home) {
    // The program is not installed where the unit says.
    let text = std::fs::read_to_string(unit())
        .expect("the unit")
        .replace("/usr/local/bin/turnkey", env!("CARGO_BIN_EXE_turnkey"));
    let copy = home.write("turnkey.service", &text);
    let (ok, output) = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(copy));
    assert!(ok && output.trim().is_empty(), "{output}");
}

/// The drop-in for relaying in the kernel, with the unit it belongs to.
#[test]
fn drop_in_for_offload_is_valid() {
    if !has("systemd-analyze") {
        return;
    }
    let home = Home::new();
    let folder = home.path().join("turnkey.service.d");
    std::fs::create_dir(&folder).expect("a folder");
    let drop_in = unit().with_file_name("offload.conf");
    std::fs::copy(drop_in, folder.join("offload.conf")).expect("the drop-in");
    verify(&home);
}

#[test]
fn unit_is_locked_up() {
    if !has("systemd-analyze") {
        return;
    }
    // The threshold is in tenths.
    let arguments = ["security", "--offline=true", "--threshold=15", "--no-pager"];
    let (ok, output) = run(Command::new("systemd-analyze").args(arguments).arg(unit()));
    assert!(ok, "exposure is above 1.5:\n{output}");
}

/// Boots systemd as the first process of namespaces of its own, with nothing to start but this unit.
#[test]
fn unit_starts_with_its_filters() {
    let systemd = Path::new("/lib/systemd/systemd");
    if !systemd.exists() || !has("unshare") || !has("ip") {
        skipped("systemd, unshare or ip is missing");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skipped("only root can boot a systemd of its own");
        return;
    }
    let home = Home::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/boot.sh");
    let mut command = Command::new("sh");
    command.arg(script).arg(env!("CARGO_BIN_EXE_turnkey")).arg(unit()).arg(home.path());
    let (ok, output) = run(&mut command);
    let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap_or_default();
    let (report, log) = (read("report"), read("log"));
    if report.contains("no-cgroups") {
        skipped(&format!("this machine lets nobody mount cgroups: {output}"));
        return;
    }
    let context = format!("{output}\n{report}\n{log}");
    assert!(ok, "{context}");
    let line =
        |start: &str| report.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(
        line("Uid:").split_whitespace().nth(1).is_some_and(|uid| uid != "0"),
        "a user of its own: {context}"
    );
    assert_eq!(line("CapEff:"), "CapEff:\t0000000000000400", "nothing but ports below 1024: {context}");
    assert_eq!(line("Seccomp:"), "Seccomp:\t2", "{context}");
    assert_eq!(line("NoNewPrivs:"), "NoNewPrivs:\t1", "{context}");
    // Without CAP_SYS_RESOURCE, as in many containers, systemd comes as close as it may.
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let files = line("Max open files");
    let files = files.split_whitespace().nth(3).and_then(|number| number.parse().ok());
    assert!(files == Some(1 << 20) || files == own, "{context}");
    for done in [
        "livez=ok",
        "port-443=ok",
        "reloaded=ok",
        "credential=used",
        "restarts=0",
        "result=success",
        "status=0",
    ] {
        assert!(report.contains(done), "{done}: {context}");
    }
    for trouble in [" WARN", " ERROR"] {
        assert!(!log.contains(trouble), "{context}");
    }
}
