//! SIGHUP: secrets, users, peer rules and the log level take effect; a bad file changes nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use turnkey::credential::{Credential, Secrets, mint};

use crate::harness::{Client, Home, LOOPBACK, Process, until};

const OLD: &str = "the-old-secret-0123";
const NEW: &str = "the-new-secret-0123";

fn credential(secret: &str) -> Credential {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    mint(&Secrets::new([secret]), now, Duration::from_secs(600), "alice").expect("minted")
}

fn config(rest: &str) -> String {
    format!("{LOOPBACK}{rest}")
}

/// Rewrites the file, sends SIGHUP, and waits for the log line that says what came of it.
fn reload(home: &Home, process: &mut Process, text: &str, line: &str) -> String {
    home.write("turnkey.toml", text);
    process.signal(Signal::HUP);
    process.wait_for(line)
}

const TAKEN: &str = "configuration read again";

/// What an Allocate with this user name and password comes to, once it is no longer `before`.
fn allocate(process: &Process, user: &str, password: &str) -> Result<(), u16> {
    Client::new(process.address("udp")).allocate(user, password).map(drop)
}

#[test]
fn secrets_and_users_are_replaced() {
    let home = Home::new();
    let (old, new) = (credential(OLD), credential(NEW));
    let mut process = home.serve(&config(&format!("[credentials]\nsecrets = [\"{OLD}\"]\n")));
    assert_eq!(allocate(&process, &old.username, &old.password), Ok(()));
    assert_eq!(allocate(&process, &new.username, &new.password), Err(401));
    assert_eq!(allocate(&process, "bob", "builder"), Err(401));
    let both = format!("[credentials]\nsecrets = [\"{NEW}\", \"{OLD}\"]\nusers = {{ bob = \"builder\" }}\n");
    reload(&home, &mut process, &config(&both), TAKEN);
    until(&Ok(()), || allocate(&process, &new.username, &new.password));
    until(&Ok(()), || allocate(&process, "bob", "builder"));
    assert_eq!(allocate(&process, &old.username, &old.password), Ok(()), "an older secret still verifies");
    reload(&home, &mut process, &config(&format!("[credentials]\nsecrets = [\"{NEW}\"]\n")), TAKEN);
    until(&Err(401), || allocate(&process, &old.username, &old.password));
    until(&Err(401), || allocate(&process, "bob", "builder"));
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn peer_rules_are_replaced() {
    let home = Home::new();
    let secret = format!("[credentials]\nsecrets = [\"{OLD}\"]\n");
    let mut process = home.serve(&config(&secret));
    let Credential { username, password, .. } = credential(OLD);
    let peer = "10.1.2.3:9".parse().expect("an address");
    let mut permit = || {
        let mut client = Client::new(process.address("udp"));
        client.allocate(&username, &password).expect("allocated");
        client.permit(peer, &username, &password)
    };
    assert_eq!(permit(), Err(403));
    home.write("turnkey.toml", &config(&format!("{secret}[peers]\nallow = [\"10.1.0.0/16\"]\n")));
    process.signal(Signal::HUP);
    until(&Ok(()), &mut permit);
    process.wait_for(TAKEN);
}

#[test]
fn log_level_is_replaced() {
    let home = Home::new();
    let mut process = home.serve(LOOPBACK);
    let other = LOOPBACK.replace("workers = 2", "workers = 3");
    // The line about what needs a restart is a warning, the one about success is not.
    let line = reload(
        &home,
        &mut process,
        &format!("{other}[log]\nlevel = \"warn\"\n"),
        "takes effect after a restart",
    );
    assert!(line.contains("relay.workers"), "{line}");
    reload(&home, &mut process, &format!("{LOOPBACK}[log]\nlevel = \"info\"\n"), TAKEN);
    assert_eq!(process.log.iter().filter(|line| line.contains(TAKEN)).count(), 1, "{:?}", process.log);
}

#[test]
fn a_bad_file_keeps_the_old_configuration() {
    let home = Home::new();
    let secret = format!("[credentials]\nsecrets = [\"{OLD}\"]\n");
    let mut process = home.serve(&config(&secret));
    let bad = config("[credentials]\nsecrets = [\"another-secret-0123\"]\nttl = \"soon\"\n");
    let line = reload(&home, &mut process, &bad, "configuration not taken");
    assert!(line.contains("turnkey.toml:11: credentials.ttl: expected a duration"), "{line}");
    let missing = config("[credentials]\nsecrets_file = \"none\"\n");
    let line = reload(&home, &mut process, &missing, "configuration not taken");
    assert!(line.contains("credentials.secrets_file: none cannot be read"), "{line}");
    let Credential { username, password, .. } = credential(OLD);
    assert_eq!(allocate(&process, &username, &password), Ok(()));
    assert_eq!(process.terminate(), Some(0));
}
