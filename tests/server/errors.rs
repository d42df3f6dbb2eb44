//! Every way a start can fail is one line that says where, which key, and what to do.

use std::net::{TcpListener, UdpSocket};

use crate::harness::{Home, LOOPBACK, set_mode};

/// The error line of `serve` on this configuration.
#[track_caller]
fn refused(home: &Home, config: &str) -> String {
    home.write("turnkey.toml", config);
    home.run(&["serve", "--config", "turnkey.toml"]).error().to_owned()
}

#[track_caller]
fn assert_starts(error: &str, place: &str) {
    assert!(error.starts_with(place), "{error}");
}

#[test]
fn taken_ports_are_named() {
    let home = Home::new();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = udp.local_addr().expect("an address");
    let error = refused(&home, &LOOPBACK.replace("udp://127.0.0.1:0", &format!("udp://{address}")));
    assert_starts(&error, "turnkey.toml:3: relay.listen[0]: ");
    assert!(error.contains(&format!("{}/udp is in use", address.port())), "{error}");

    let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = tcp.local_addr().expect("an address");
    let cases = [
        (
            LOOPBACK.replace("tcp://127.0.0.1:0", &format!("tcp://{address}")),
            "turnkey.toml:3: relay.listen[1]: ",
        ),
        (
            LOOPBACK.replace("[\"127.0.0.1:0\"]", &format!("[\"{address}\"]")),
            "turnkey.toml:6: http.listen[0]: ",
        ),
        (
            LOOPBACK.replace("= \"127.0.0.1:0\"", &format!("= \"{address}\"")),
            "turnkey.toml:8: admin.listen: ",
        ),
    ];
    for (config, place) in cases {
        let error = refused(&home, &config);
        assert_starts(&error, place);
        assert!(error.contains(&format!("{}/tcp is in use", address.port())), "{error}");
    }
}

#[test]
fn a_second_server_does_not_share_the_port_of_the_first() {
    // Workers share a port among themselves by SO_REUSEPORT, which must not let another program in.
    let home = Home::new();
    let config = "[relay]\nlisten = [\"udp://127.0.0.1:0\"]\n[http]\nlisten = []\n[admin]\nlisten = \"\"\n";
    let first = home.serve(config);
    let address = first.address("udp");
    let error = refused(&Home::new(), &config.replace("udp://127.0.0.1:0", &format!("udp://{address}")));
    assert!(error.contains(&format!("{}/udp is in use", address.port())), "{error}");
}

#[test]
fn unknown_key_names_file_line_and_nearest_key() {
    let error = refused(&Home::new(), "[relay]\nrealm = \"x\"\npublic_adress = \"auto\"\n");
    assert_eq!(error, "turnkey.toml:3: relay.public_adress: unknown key, did you mean relay.public_address?");
}

#[test]
fn bad_value_names_file_line_and_what_is_allowed() {
    let error = refused(&Home::new(), "[relay]\nmax_lifetime = \"soon\"\n");
    assert_eq!(
        error,
        "turnkey.toml:2: relay.max_lifetime: expected a duration such as \"90s\", \"15m\", \"1h30m\" or \"7d\", \
         found \"soon\""
    );
}

#[test]
fn small_port_range_says_what_is_needed() {
    let error = refused(&Home::new(), "[relay]\nports = \"50000-50003\"\n");
    assert_eq!(
        error,
        "turnkey.toml:2: relay.ports: has 4 ports, each allocation takes one: a relay needs at least 8"
    );
}

#[test]
fn addresses_of_other_hosts_are_named() {
    let home = Home::new();
    let cases = [
        ("[relay]\nlisten = [\"udp://198.51.100.7:0\"]\n", "turnkey.toml:2: relay.listen[0]: "),
        (
            "[http]\nlisten = [\"198.51.100.7:0\"]\n[signaling]\njwt_generate = true\n",
            "turnkey.toml:2: http.listen[0]: ",
        ),
        ("[admin]\nlisten = \"198.51.100.7:0\"\n", "turnkey.toml:2: admin.listen: "),
        (
            "[relay]\npublic_address = \"203.0.113.1/198.51.100.7\"\n",
            "turnkey.toml:2: relay.public_address: ",
        ),
    ];
    for (config, place) in cases {
        let error = refused(&home, config);
        assert_starts(&error, place);
        assert!(error.contains("198.51.100.7 is not an address of this host; it has 127.0.0.1"), "{error}");
    }
}

#[test]
fn public_http_without_token_key_says_what_to_set() {
    let error = refused(&Home::new(), "[http]\nlisten = [\"0.0.0.0:0\"]\n");
    assert_starts(&error, "turnkey.toml:2: http.listen[0]: 0.0.0.0:0 can be reached by others");
    for key in ["signaling.jwt_secret", "signaling.jwt_secret_file", "signaling.jwt_generate"] {
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn secret_files_must_be_readable_and_private() {
    let home = Home::new();
    let config = "[credentials]\nsecrets_file = \"secrets\"\n";
    let place = "turnkey.toml:2: credentials.secrets_file: ";
    let error = refused(&home, config);
    assert_eq!(error, format!("{place}secrets cannot be read: no such file"));

    let file = home.write("secrets", "0123456789abcdef\n");
    set_mode(&file, 0o644);
    let error = refused(&home, config);
    assert_eq!(error, format!("{place}secrets can be read by everyone (mode 0644): chmod 600 secrets"));

    home.write("secrets", "\n");
    assert_eq!(refused(&home, config), format!("{place}secrets is empty; write one secret a line"));

    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("created");
    set_mode(&file, 0o700);
    assert_eq!(refused(&home, config), format!("{place}secrets cannot be read: is a directory"));

    let error = refused(&home, "[signaling]\njwt_secret_file = \"none\"\n");
    assert_eq!(error, "turnkey.toml:2: signaling.jwt_secret_file: none cannot be read: no such file");
}

#[test]
fn certificates_are_checked() {
    let home = Home::new();
    let config = "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    home.write("key.pem", "");
    assert_starts(&refused(&home, config), "turnkey.toml:2: tls.cert: cert.pem: ");
    home.write("cert.pem", "not PEM\n");
    let error = refused(&home, config);
    assert_eq!(error, "turnkey.toml:2: tls.cert: cert.pem: no certificate in it (PEM is expected)");
    set_mode(&home.path().join("key.pem"), 0o644);
    assert_starts(&refused(&home, config), "turnkey.toml:3: tls.key: key.pem can be read by everyone");
}

#[test]
fn the_file_itself() {
    let home = Home::new();
    assert_eq!(home.run(&["--config", "none.toml"]).error(), "none.toml: cannot be read: no such file");
    assert_starts(&refused(&home, "[relay\n"), "turnkey.toml:1: ");
    assert_starts(&refused(&home, "[relay]\nrealm = \"a\"\nrealm = \"b\"\n"), "turnkey.toml:3: ");
}

#[test]
fn variables_are_named() {
    let home = Home::new();
    let mut command = home.command(&["config", "check"]);
    command.env("TURNKEY_RELAY__PROTS", "50000-50999");
    assert_eq!(
        crate::harness::Ended::of(command).error(),
        "TURNKEY_RELAY__PROTS: relay.prots: unknown key, did you mean TURNKEY_RELAY__PORTS?"
    );
}

#[test]
fn state_directory_that_cannot_be_written() {
    let home = Home::new();
    home.write("blocked", "a file where a directory is needed");
    let error = refused(&home, "state_dir = \"blocked/state\"\n");
    assert_starts(&error, "turnkey.toml:1: state_dir: blocked/state cannot be written: ");
}
