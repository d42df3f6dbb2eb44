//! Files of coturn on the command line. That coturn's own client is served by them is shown by `tests/coturn/run`.

use turnkey::Config;

use crate::harness::{Client, Home, Process, set_mode};

const FILE: &str = "\
# what guides paste
use-auth-secret
static-auth-secret=0123456789abcdef0123
realm=turn.example.org
user-quota=12
denied-peer-ip=10.0.0.0-10.255.255.255
fingerprnt
allow-loopback-peers
";

fn home(file: &str) -> Home {
    let home = Home::new();
    home.write("turnserver.conf", file);
    home
}

#[test]
fn import_writes_a_configuration_and_accounts_for_every_line() {
    let ended = home(FILE).run(&["config", "import", "turnserver.conf"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for (line, told) in [
        (2, "use-auth-secret: default here: "),
        (3, "static-auth-secret: is credentials.secrets"),
        (4, "realm: is relay.realm"),
        (5, "user-quota: is quota.user"),
        (6, "denied-peer-ip: is peers.deny"),
        (7, "fingerprnt: not understood, did you mean fingerprint?"),
        (8, "allow-loopback-peers: is peers.allow"),
        (8, "allow-loopback-peers: DANGER: "),
    ] {
        let told = format!("turnserver.conf:{line}: {told}");
        assert!(ended.stderr.lines().any(|line| line.starts_with(&told)), "{told} in:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("0123456789abcdef"), "no secret among the notes");
    let config = Config::from_toml(&ended.stdout).expect("valid");
    assert_eq!((config.relay.realm.as_str(), config.quota.user), ("turn.example.org", 12));
    assert_eq!(config.credentials.secrets, ["0123456789abcdef0123"]);
    assert!(ended.stdout.contains("# turnserver.conf:4\nrealm = \"turn.example.org\"\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("#   turnserver.conf:7: fingerprnt: not understood"), "{}", ended.stdout);
}

#[test]
fn import_fails_where_somebody_would_be_let_in() {
    for (file, told) in [
        ("realm=a\ndenied-peer-ip=10.0.0.x", "turnserver.conf:2: denied-peer-ip: expected an address"),
        ("CA-file=ca.pem", "turnserver.conf:1: CA-file: cannot be kept: "),
        ("min-port=80", "turnserver.conf:1: relay.ports: "),
        ("\nlistening-ip=here", "turnserver.conf:2: listening-ip: expected an address"),
    ] {
        let home = home(file);
        let ended = home.run(&["config", "import", "turnserver.conf"]);
        assert!(ended.error().starts_with(told), "{}", ended.error());
        assert_eq!(ended.stdout, "", "nothing to take for a translation");
        assert!(home.run(&["serve", "--config", "turnserver.conf"]).error().starts_with(told));
    }
    assert_eq!(
        Home::new().run(&["config", "import", "turnserver.conf"]).error(),
        "turnserver.conf: cannot be read: no such file"
    );
}

#[test]
fn import_warns_of_secrets_that_everybody_can_read() {
    let home = home(FILE);
    let told = |home: &Home| home.run(&["config", "import", "turnserver.conf"]).stderr;
    assert!(!told(&home).contains("can read the secrets"));
    set_mode(&home.path().join("turnserver.conf"), 0o644);
    assert!(
        told(&home)
            .contains("DANGER: everybody on this host can read the secrets in turnserver.conf (mode 0644)")
    );
}

#[test]
fn check_and_print_take_a_file_of_coturn() {
    let home = home(FILE);
    let ended = home.run(&["config", "check", "--config", "turnserver.conf"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stdout.contains("note: turnserver.conf:8: allow-loopback-peers: DANGER: "),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("turnserver.conf:4"), "what is as it was is no note");
    let ended = home.run(&["config", "print", "--config", "turnserver.conf"]);
    assert!(
        ended.stdout.contains("realm = \"turn.example.org\"   # turnserver.conf:4\n"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("0123456789abcdef"));
}

#[test]
fn serve_runs_a_file_of_coturn_and_logs_what_is_different() {
    // The hashed key of coturn's own example: ninefingers, north.gov, youhavetoberealistic.
    let home = home(
        "lt-cred-mech\nuser=ninefingers:0xbc807ee29df3c9ffa736523fb2c4e8ee\nuser=gorst:hero\nrealm=north.gov\n\
         listening-ip=127.0.0.1\nserver-relay\nno-cli\n",
    );
    let mut command = home.command(&["serve", "--config", "turnserver.conf"]);
    command.env("TURNKEY_RELAY__LISTEN", "udp://127.0.0.1:0");
    let mut process = Process::start(command);
    let is_warned = |what: &str| process.log.iter().any(|line| line.contains("WARN") && line.contains(what));
    assert!(is_warned("turnserver.conf:6: server-relay: DANGER: "), "{:?}", process.log);
    assert!(is_warned("turnserver.conf:6: server-relay: dropped: "), "{:?}", process.log);
    assert!(!is_warned("no-cli"), "{:?}", process.log);
    let mut client = Client::new(process.address("udp"));
    assert!(client.allocate("ninefingers", "youhavetoberealistic").is_ok());
    assert!(Client::new(process.address("udp")).allocate("gorst", "hero").is_ok());
    assert_eq!(Client::new(process.address("udp")).allocate("ninefingers", "hero"), Err(401));
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn the_table_of_options_is_printed() {
    let ended = Home::new().run(&["config", "import", "--options"]);
    assert!(ended.stdout.starts_with("| # | option of coturn | here |\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("| 1 | `listening-port` | `relay.listen`. |\n"), "{}", ended.stdout);
}
