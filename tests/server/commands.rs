//! `credentials`, `token`, `config print` and `config check`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use turnkey::config::{Config, Options};
use turnkey::credential::{Secrets, mint};

use crate::harness::{Home, LOOPBACK, Process, get, mode};

#[test]
fn generated_secrets_are_kept_and_private() {
    let home = Home::new();
    let first = home.run(&["credentials", "--user", "alice"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert_eq!(mode(&home.state()), 0o700);
    assert_eq!(mode(&home.state().join("secret")), 0o600);
    let secret = std::fs::read_to_string(home.state().join("secret")).expect("kept");
    assert_eq!(secret.trim().len(), 64);
    home.run(&["credentials", "--user", "alice"]);
    assert_eq!(std::fs::read_to_string(home.state().join("secret")).expect("kept"), secret, "kept for ever");
    assert_eq!(std::fs::read_dir(home.state()).expect("a directory").count(), 1, "nothing temporary is left");
}

#[test]
fn credentials_come_from_the_newest_secret() {
    let home = Home::new();
    home.write("turnkey.toml", "[credentials]\nsecrets = [\"newest-secret-0123\", \"older-secret-01234\"]\n");
    let ended = home.run(&["credentials", "-c", "turnkey.toml", "--user", "alice", "--ttl", "10m", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let username = json["username"].as_str().expect("a string");
    let (expiry, id) = username.split_once(':').expect("expiry:id");
    assert_eq!((id, json["ttl"].as_u64()), ("alice", Some(600)));
    let expiry: u64 = expiry.parse().expect("a number");
    assert_eq!(json["expires_at"].as_u64(), Some(expiry));
    let again = mint(
        &Secrets::new(["newest-secret-0123"]),
        expiry - 600,
        std::time::Duration::from_secs(600),
        "alice",
    );
    assert!(
        again.is_ok_and(|c| c.username == username && Some(c.password.as_str()) == json["password"].as_str())
    );
}

#[test]
fn credentials_refuse_what_the_server_would_refuse() {
    let home = Home::new();
    let error = home.run(&["credentials", "--user", "alice", "--ttl", "7d"]).error().to_owned();
    assert!(error.contains("credentials.max_ttl"), "{error}");
    let error = home.run(&["credentials", "--user", "a:b"]).error().to_owned();
    assert!(error.starts_with("--user: "), "{error}");
}

#[test]
fn token_needs_a_key() {
    let home = Home::new();
    let error = home.run(&["token", "--user", "alice", "--room", "r"]).error().to_owned();
    assert!(error.starts_with("signaling.jwt_secret: no token key"), "{error}");
    home.write("turnkey.toml", "[signaling]\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n");
    let ended =
        home.run(&["token", "-c", "turnkey.toml", "--user", "alice", "--room", "r", "--role", "host"]);
    assert_eq!(ended.stdout.trim().split('.').count(), 3, "{}", ended.stderr);
}

#[test]
fn tokens_have_the_grants_that_are_asked_for_and_tickets_a_name_of_their_own() {
    let home = Home::new();
    home.write("turnkey.toml", "[signaling]\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n");
    let claims = |more: &[&str]| -> serde_json::Value {
        let token =
            home.run(&[&["token", "-c", "turnkey.toml", "--user", "ann", "--room", "r"], more].concat());
        let claims = token.stdout.split('.').nth(1).expect("claims").to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON")
    };
    let plain = claims(&[]);
    assert!(["grants", "once", "jti"].iter().all(|claim| plain.get(claim).is_none()), "{plain}");
    let granted = claims(&["--grants", "join,moderate"]);
    assert_eq!(granted["grants"], serde_json::json!(["join", "moderate"]));
    let [first, second] = [claims(&["--once"]), claims(&["--once"])];
    assert_eq!(first["once"], true);
    assert_ne!(first["jti"], second["jti"], "each is used up by itself");
    let unknown = home.run(&["token", "--user", "ann", "--room", "r", "--grants", "everything"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("join, signal, chat, moderate"), "{}", unknown.stderr);
}

#[test]
fn s4_22_s4_27_c12_servers_of_the_environment_are_shown_without_the_password_and_handed_out_after_our_own() {
    let home = Home::new();
    let environment = [
        ("STUN_SERVER", "stun:stun.example.org:19302"),
        ("TURN_SERVER", "turn.example.org:3478, turns:turn.example.org:5349?transport=tcp"),
        ("TURN_USERNAME", "seed"),
        ("TURN_PASSWORD", "hush-hush"),
    ];
    let with = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = home.command(arguments);
        command.envs(variables.iter().copied());
        command
    };
    let printed = crate::harness::Ended::of(with(&["config", "print"], &environment)).stdout;
    assert!(printed.contains("stun_server = \"stun:stun.example.org:19302\"   # STUN_SERVER"), "{printed}");
    assert!(printed.contains("# TURN_PASSWORD") && !printed.contains("hush-hush"), "{printed}");
    let error = crate::harness::Ended::of(with(&["config", "check"], &environment[1..3]));
    assert!(error.error().starts_with("http.turn_password: is needed"), "{}", error.stderr);
    let error = crate::harness::Ended::of(with(&["config", "check"], &[("STUN_SERVER", "stun://h")]));
    assert!(error.error().starts_with("STUN_SERVER: http.stun_server: expected URLs"), "{}", error.stderr);

    home.write("turnkey.toml", &format!("{LOOPBACK}[peers]\n"));
    let process = Process::start(with(&["serve", "-c", "turnkey.toml"], &environment));
    let ice: serde_json::Value =
        serde_json::from_str(&get(process.address("http"), "/v1/ice").body).expect("JSON");
    let servers = ice["iceServers"].as_array().expect("a list");
    let further = serde_json::json!([
        { "urls": ["stun:stun.example.org:19302"] },
        {
            "urls": ["turn:turn.example.org:3478", "turns:turn.example.org:5349?transport=tcp"],
            "username": "seed", "credential": "hush-hush",
        },
    ]);
    assert_eq!(servers[servers.len() - 2..], further.as_array().expect("a list")[..]);
    assert!(servers[0]["urls"][0].as_str().is_some_and(|url| url.starts_with("stun:127.0.0.1:")), "{ice}");
    assert!(process.log.iter().all(|line| !line.contains("hush-hush")));
}

#[test]
fn config_print_reads_back_and_shows_no_secret() {
    let home = Home::new();
    let text = "[relay]\nrealm = \"example.org\"\n[credentials]\nsecrets = [\"very-secret-secret\"]\n\
                users = { alice = \"alices-password\" }\napi_keys = [\"an-api-key\"]\n\
                [signaling]\njwt_secret = \"token-secret\"\n";
    home.write("turnkey.toml", text);
    let mut command = home.command(&["config", "print", "-c", "turnkey.toml"]);
    command.env("TURNKEY_QUOTA__USER", "7");
    let printed = crate::harness::Ended::of(command).stdout;
    for secret in ["very-secret", "alices-password", "an-api-key", "token-secret"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    for line in
        ["realm = \"example.org\"   # turnkey.toml:2", "user = 7   # TURNKEY_QUOTA__USER", "ttl = \"1h\"\n"]
    {
        assert!(printed.contains(line), "{printed}");
    }
    home.write("again.toml", &printed);
    let again = home.run(&["config", "print", "-c", "again.toml"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let values = |text: &str| -> toml::Table { text.parse().expect("TOML") };
    assert_eq!(values(&again.stdout), values(&printed));
}

#[test]
fn config_check_tells_what_a_start_would() {
    let home = Home::new();
    assert_eq!(home.run(&["config", "check"]).code, Some(0));
    home.write("turnkey.toml", "[credentials]\nsecrets = [\"short\"]\n");
    let ended = home.run(&["config", "check", "-c", "turnkey.toml"]);
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("5 bytes"), "{}", ended.stdout);
    home.write("turnkey.toml", "\n[http]\nlisten = [\"0.0.0.0:8080\"]\n");
    let error = home.run(&["config", "check", "-c", "turnkey.toml"]).error().to_owned();
    assert!(error.starts_with("turnkey.toml:3: http.listen[0]: "), "{error}");
}

#[test]
fn without_a_command_it_serves() {
    let home = Home::new();
    let mut command = home.command(&[]);
    for (key, value) in [
        ("TURNKEY_RELAY__LISTEN", "udp://127.0.0.1:0"),
        ("TURNKEY_HTTP__LISTEN", "127.0.0.1:0"),
        ("TURNKEY_ADMIN__LISTEN", "127.0.0.1:0"),
    ] {
        command.env(key, value);
    }
    let mut process = Process::start(command);
    let page = format!("http://{}/", process.address("http"));
    assert_eq!(process.terminate(), Some(0));
    assert!(process.stdout.contains(&page), "the page to open is printed: {}", process.stdout);
}

#[test]
fn systemd_credentials_stand_for_keys_that_are_not_set() {
    let home = Home::new();
    let directory = home.path().join("credentials");
    std::fs::create_dir(&directory).expect("created");
    home.write("credentials/turnkey.secrets", "from-systemd-0123456\n");
    home.write("credentials/turnkey.jwt_secret", "from-systemd-0123456-from-systemd\n");
    let variables = vec![("CREDENTIALS_DIRECTORY".to_owned(), directory.display().to_string())];
    let config = Config::load(&Options { variables, ..Options::default() }).expect("valid");
    assert_eq!(config.credentials.secrets_file, Some(directory.join("turnkey.secrets")));
    let mut command = home.command(&["credentials", "--user", "a"]);
    command.env("CREDENTIALS_DIRECTORY", &directory);
    assert_eq!(crate::harness::Ended::of(command).code, Some(0));
    assert!(!home.state().exists(), "nothing was generated");
}
