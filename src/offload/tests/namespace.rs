//! A network namespace for a test: the test runs itself again inside one.

use std::env;
use std::process::{Command, Stdio};

const INSIDE: &str = "TURNKEY_TEST_INSIDE";

/// Runs `body` in a namespace of its own, in another process. Where that needs rights this process has not,
/// says so and runs nothing; in continuous integration that is a failure.
pub(super) fn isolated(test: &str, body: fn()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let missing = super::super::system::missing_capabilities();
    if !missing.is_empty() {
        assert!(env::var("CI").as_deref() != Ok("true"), "missing {missing:?}");
        eprintln!("skipped {test}: it needs {}", missing.join(", "));
        return;
    }
    // /sys shows the interfaces of the namespace it was mounted in.
    const WITH_SYS: &str = r#"mount -t sysfs none /sys && exec "$0" "$@""#;
    run(Command::new("unshare").args(["--net", "--mount", "--", "sh", "-c", WITH_SYS]), test);
}

/// Runs the test again, by way of a command that takes another at its end.
pub(super) fn run(through: &mut Command, test: &str) {
    let test = format!("offload::tests::{test}");
    let this = env::current_exe().expect("a test has a path");
    let again =
        through.arg(this).args(["--exact", "--nocapture", &test]).env(INSIDE, "1").stdin(Stdio::null());
    let output = again.output().expect("util-linux is there");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

pub(super) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// One or several `ip` commands, separated by semicolons.
pub(super) fn ip(commands: &str) {
    for command in commands.split(';') {
        let status = Command::new("ip").args(command.split_whitespace()).status().expect("iproute2 is there");
        assert!(status.success(), "ip {command}");
    }
}
