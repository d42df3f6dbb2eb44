//! The configuration as people write it: what is read, and what is refused with which words.

use super::*;

fn error(text: &str) -> String {
    match Config::from_toml(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => e.to_string(),
    }
}

fn load_with(variables: &[(&str, &str)]) -> Result<Config, Error> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::load(&Options { variables, ..Options::default() })
}

#[test]
fn unknown_key_names_line_and_nearest_key() {
    assert_eq!(
        error("[relay]\nrealm = \"a\"\nprots = \"1-2\"\n"),
        "configuration:3: relay.prots: unknown key, did you mean relay.ports?"
    );
    assert_eq!(
        error("[http]\nrealm = \"a\"\n"),
        "configuration:2: http.realm: unknown key, did you mean relay.realm?"
    );
    assert_eq!(error("[rely]\n"), "configuration:1: rely: unknown section, did you mean [relay]?");
    assert!(error("[relay]\nxyzzyxyzzyxyzzy = 1\n").ends_with("`turnkey config print` shows all keys"));
    assert!(error("relay = 1\n").contains("is a section"));
}

#[test]
fn wrong_type_names_line_and_what_is_allowed() {
    assert_eq!(
        error("[relay]\n\nlisten = [\n  \"udp://127.0.0.1:0\",\n  7,\n]\n"),
        "configuration:5: relay.listen[1]: expected a string"
    );
    assert_eq!(
        error("[quota]\nuser = \"many\"\n"),
        "configuration:2: quota.user: expected a number such as 0, found string"
    );
    assert!(error("[quota]\nuser = -1\n").starts_with("configuration:2: quota.user: "));
    assert!(error("[relay]\nworkers = 70000\n").starts_with("configuration:2: relay.workers: "));
    assert!(error("[relay\n").starts_with("configuration:1: "));
    assert!(error("[relay]\nports = \n").starts_with("configuration:2: "));
}

#[test]
fn bad_values_are_refused_with_their_line() {
    let cases = [
        ("relay", "listen = []", "relay.listen"),
        ("relay", "listen = [\"0.0.0.0:3478\"]", "relay.listen[0]"),
        ("relay", "listen = [\"udp://localhost:3478\"]", "relay.listen[0]"),
        ("relay", "listen = [\"tls://0.0.0.0:5349\"]", "tls:// needs a certificate"),
        ("relay", "listen = [\"https+turns://0.0.0.0:443\"]", "http.listen"),
        ("relay", "proxy_from = [\"10.0.0.1/8\"]", "bits behind the prefix"),
        ("relay", "listen = [\"dtls://0.0.0.0:5349\"]", "dtls:// needs a certificate"),
        ("relay", "ports = \"50000\"", "relay.ports"),
        ("relay", "ports = \"60000-50000\"", "relay.ports"),
        ("relay", "ports = \"50000-50001\"", "needs at least 8"),
        ("relay", "ports = \"80-50001\"", "below 1024"),
        ("relay", "public_address = \"not a host\"", "relay.public_address"),
        ("relay", "public_address = [\"192.0.2.1\", \"192.0.2.1\"]", "listed twice"),
        ("relay", "public_address = [\"192.0.2.1/127.0.0.1\", \"192.0.2.2/127.0.0.1\"]", "listed twice"),
        ("relay", "ports = \"shared:80\"", "below 1024"),
        ("relay", "ports = \"shared\"\ntcp = true", "needs a range"),
        ("relay", "ports = \"shared-1\"", "shared:PORT"),
        ("relay", "ports = \"shared:\"", "shared:PORT"),
        ("relay", "detect_from = \"turn:192.0.2.1\"", "stun:HOST"),
        ("relay", "public_address = \"192.0.2.1\"\ndetect_from = \"stun:192.0.2.1\"", "remove one of them"),
        ("relay", "resolve_every = \"0s\"", "at least 1s"),
        ("relay", "public_address = \"192.0.2.1/::1\"", "PUBLIC/LOCAL"),
        ("relay", "public_address = \"0.0.0.0\"", "no address"),
        ("relay", "public_address = [\"auto\", \"192.0.2.1\"]", "relay.public_address"),
        ("relay", "realm = \"\"", "relay.realm"),
        ("relay", "workers = 300", "at most 256"),
        ("relay", "backend = \"fast\"", "\"auto\" or \"linux\" or \"portable\""),
        ("relay", "offload = \"on\"", "\"off\" or \"auto\" or \"tc\" or \"xdp\""),
        ("relay", "offload = \"tc\"\nports = \"shared\"", "needs a range"),
        ("relay", "offload_interfaces = [\"eth0\"]", "of no use"),
        ("relay", "alternate = { address = \"192.0.2.1\" }", "expected { address"),
        ("relay", "alternate = { address = \"192.0.2.1\", port = 0 }", "expected { address"),
        ("relay", "alternate = { address = \"192.0.2.1\", port = 3479, more = 1 }", "expected { address"),
        ("relay", "alternate = { address = \"localhost\", port = 3479 }", "expected an address"),
        ("relay", "alternate = { address = \"192.0.2.1\", port = 3479 }", "not udp://0.0.0.0:3478"),
        (
            "relay",
            "listen = [\"udp://192.0.2.2:3478\"]\nalternate = { address = \"192.0.2.1\", port = 3478 }",
            "other than those of",
        ),
        (
            "relay",
            "listen = [\"tcp://192.0.2.2:3478\"]\nalternate = { address = \"192.0.2.1\", port = 3479 }",
            "needs a udp:// listener",
        ),
        ("relay", "max_lifetime = \"5m\"", "at least 10m"),
        ("relay", "drain_timeout = \"soon\"", "expected a duration"),
        ("relay", "socket_buffer = 1", "between"),
        ("relay", "tcp_connections = 0", "at least 1"),
        ("credentials", "ttl = \"2d\"", "longer than credentials.max_ttl"),
        ("credentials", "ttl = \"0s\"", "zero"),
        ("credentials", "users = { \"a:b\" = \"c\" }", "credentials.users.a:b"),
        ("credentials", "users = { a = \"\" }", "empty password"),
        ("credentials", "users = { a = 1 }", "credentials.users.a"),
        ("credentials", "user_keys = { a = \"0x12\" }", "32 hexadecimal digits"),
        ("credentials", "user_keys = { a = \"+bc807ee29df3c9ffa736523fb2c4e8e\" }", "32 hexadecimal digits"),
        (
            "credentials",
            "users = { a = \"b\" }\nuser_keys = { a = \"\" }",
            "a password in credentials.users too",
        ),
        ("credentials", "secrets = [\"\"]", "credentials.secrets[0]"),
        ("credentials", "users = { \"a\\u0007b\" = \"c\" }", "control characters"),
        ("credentials", "users = { a = \"b\\tc\" }", "RFC 8265"),
        (
            "credentials",
            "third_party = { name = \"a\" }",
            "third_party.name: unknown field, expected server or keys",
        ),
        ("credentials", "third_party = { keys = { k = \"x\" } }", "third_party.server"),
        ("credentials", "third_party = { server = \"a\" }", "third_party.keys"),
        (
            "credentials",
            "third_party = { server = \"a\", keys = { k = \"?\" } }",
            "third_party.keys.k: must be base64",
        ),
        ("credentials", "third_party = { server = \"a\", keys = { k = \"AAAA\" } }", "16 bytes"),
        ("relay", "redirect = { to = \"example.org\" }", "relay.redirect.to"),
        ("relay", "redirect = { domain = \"example.org\" }", "relay.redirect.to"),
        ("relay", "redirect = { to = \"192.0.2.1:1,192.0.2.2:1\" }", "one address a family"),
        ("relay", "redirect = { to = 1 }", "relay.redirect.to: expected a string"),
        ("peers", "allow = [\"10.0.0.1/8\"]", "bits behind the prefix"),
        ("peers", "deny = [\"fe80::/200\"]", "peers.deny[0]"),
        ("tls", "cert = \"a.pem\"", "tls.key"),
        ("tls", "key = \"a.pem\"", "tls.cert"),
        ("http", "listen = [\"https://127.0.0.1:0\"]", "needs a certificate"),
        ("http", "listen = [\"https+turns://127.0.0.1:0\"]", "https+turns:// needs a certificate"),
        ("http", "listen = [\"ftp://127.0.0.1:0\"]", "https:// or https+turns://"),
        ("http", "listen = [\"8080\"]", "http.listen[0]"),
        ("http", "origins = [\"app.example.org\"]", "http.origins[0]"),
        ("signaling", "access = \"closed\"", "\"open\" or \"token\""),
        ("signaling", "jwks_url = \"ftp://example.org\"", "expected https://"),
        ("signaling", "jwt_generate = true\njwt_secret = \"x\"", "only one of them"),
        ("store", "url = \"mysql://x\"", "expected \"sqlite\""),
        ("cluster", "redis = \"redis://x\"", "not in this version"),
        ("admin", "listen = \"9641\"", "admin.listen"),
        ("log", "level = \"inof\"", "log.level"),
        ("log", "format = \"xml\"", "\"text\" or \"json\""),
    ];
    for (section, line, want) in cases {
        let message = error(&format!("[{section}]\n{line}\n"));
        assert!(message.starts_with("configuration:"), "{line}: {message}");
        assert!(message.contains(&format!(": {section}.")), "{line}: {message}");
        assert!(message.contains(want), "{line}: {message}");
        assert!(!message.contains('\n'), "{line}: {message}");
    }
}

#[test]
fn quota_needs_as_many_ports() {
    let message = error("[quota]\ntotal = 200\n[relay]\nports = \"50000-50099\"\n");
    assert_eq!(
        message,
        "configuration:4: relay.ports: has 100 ports, each allocation takes one: quota.total needs at least 200"
    );
}

#[test]
fn variables_override_keys() {
    let config = load_with(&[
        ("TURNKEY_RELAY__LISTEN", "udp://127.0.0.1:0, tcp://127.0.0.1:0"),
        ("TURNKEY_RELAY__LEGACY_CHANNELS", "true"),
        ("TURNKEY_QUOTA__USER", "7"),
        ("TURNKEY_QUOTA__USER_BYTES_PER_SECOND", "125000"),
        ("TURNKEY_QUOTA__CONNECTIONS_PER_SOURCE", "64"),
        ("TURNKEY_CREDENTIALS__SECRETS", "[\"with, comma\"]"),
        ("TURNKEY_CREDENTIALS__USERS", "{ alice = \"pw\" }"),
        ("TURNKEY_RELAY__PUBLIC_ADDRESS", "192.0.2.1, 2001:db8::1"),
        ("TURNKEY_CONFIG", "not an override"),
        ("OTHER__KEY", "not ours"),
    ])
    .expect("valid");
    assert_eq!(config.relay.listen.len(), 2);
    assert!(config.relay.legacy_channels);
    assert_eq!(config.quota.user, 7);
    assert_eq!(config.quota.bandwidth, Bandwidth { user: 125_000, ..Bandwidth::default() });
    assert_eq!(config.quota.connections_per_source, 64);
    assert_eq!(config.credentials.secrets, ["with, comma"]);
    assert_eq!(config.credentials.users["alice"], "pw");
    assert_eq!(config.relay.public.len(), 2);
}

#[test]
fn errors_about_variables_name_them() {
    let error = |name, value| load_with(&[(name, value)]).map(drop).expect_err("refused").to_string();
    assert_eq!(
        error("TURNKEY_RELAY__PROTS", "1-2"),
        "TURNKEY_RELAY__PROTS: relay.prots: unknown key, did you mean TURNKEY_RELAY__PORTS?"
    );
    assert!(
        error("TURNKEY_QUOTA__USER", "x").starts_with("TURNKEY_QUOTA__USER: quota.user: expected a number")
    );
    assert!(
        error("TURNKEY_RELAY__PORTS", "x").starts_with("TURNKEY_RELAY__PORTS: relay.ports: expected a range")
    );
    assert!(
        error("TURNKEY_RELAY__LISTEN", "[1")
            .starts_with("TURNKEY_RELAY__LISTEN: relay.listen: expected a list")
    );
}

#[test]
fn durations() {
    assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86400)));
    assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
    for bad in ["", "1", "h", "-1s", "1.5h", "99999999999999999999s", "1000000d"] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_printed_reads_back() {
    let text = "[credentials]\nsecrets = [\"s3cret-s3cret-s3cret\"]\nusers = { \"a b\" = \"pass-w0rd\" }\n\
                [signaling]\njwt_secret = \"t0ken\"\n[relay]\nrealm = \"x\\ty\"\n"
        .replace("\\ty", "y");
    let config = Config::from_toml(&text).expect("valid");
    let printed = config.to_toml();
    for secret in ["s3cret", "pass-w0rd", "t0ken"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(printed.contains("realm = \"xy\"   # configuration:7"), "{printed}");
    let again = Config::from_toml(&printed).expect("what is printed is valid");
    assert!(
        again.relay == config.relay
            && again.http == config.http
            && again.credentials.users.contains_key("a b")
    );
    assert!(Config::from_toml(&Config::default().to_toml()).expect("valid") == Config::default());
}

#[test]
fn public_flag_turns_everything_on() {
    let options = Options { public: Some("turn.example.org".into()), ..Options::default() };
    let config = Config::load(&options).expect("valid");
    assert!(config.http.listen.iter().all(|l| l.https && l.address.port() == PUBLIC_PORT));
    assert_eq!(config.relay.public, [PublicAddress::Name("turn.example.org".into())]);
    assert!(config.tls == Tls::SelfSigned && config.signaling.access == Access::Token);
    assert!(config.signaling.jwt == JwtSource::Generate);
}

#[test]
fn public_flag_keeps_configured_listeners() {
    let variables = vec![("TURNKEY_HTTP__LISTEN".to_owned(), "127.0.0.1:0".to_owned())];
    let options = Options { public: Some("192.0.2.1".into()), variables, ..Options::default() };
    let config = Config::load(&options).expect("valid");
    assert_eq!(
        config.http.listen,
        [HttpListener { https: true, turns: false, address: "127.0.0.1:0".parse().expect("address") }]
    );
}

#[test]
fn design_2_2_a_certificate_adds_tls_and_dtls_listeners_unless_listeners_are_named() {
    let transports = |text: &str| {
        let config = Config::from_toml(text).expect("valid");
        assert!(!config.names_dtls());
        let is_secure = |transport| matches!(transport, Transport::Tls | Transport::Dtls);
        let secure = config.relay.listen.iter().filter(|listener| is_secure(listener.transport));
        secure.map(|l| format!("{}://{}", l.transport.scheme(), l.address)).collect::<Vec<_>>()
    };
    let files = "[tls]\ncert = \"c.pem\"\nkey = \"k.pem\"\n";
    let added = ["tls://0.0.0.0:5349", "tls://[::]:5349", "dtls://0.0.0.0:5349", "dtls://[::]:5349"];
    assert_eq!(transports(files), added);
    let named = format!("[relay]\nlisten = [\"udp://0.0.0.0:3478\"]\n{files}");
    for text in ["", "[tls]\nself_signed = true\n", &named] {
        assert_eq!(transports(text), Vec::<String>::new(), "{text}");
    }
    let dtls = "[relay]\nlisten = [\"dtls://0.0.0.0:3478\"]\n[tls]\nself_signed = true\n";
    assert!(Config::from_toml(dtls).expect("valid").names_dtls());
}

#[test]
fn a_port_shared_with_https_is_listener_enough() {
    let text =
        "[relay]\nlisten = []\n[tls]\nself_signed = true\n[http]\nlisten = [\"https+turns://127.0.0.1:0\"]\n";
    let config = Config::from_toml(text).expect("valid");
    assert!(config.relay.listen.is_empty() && config.http.listen[0].turns && config.http.listen[0].https);
    let only_https = text.replace("https+turns", "https");
    let message = Config::from_toml(&only_https).map(drop).expect_err("refused").to_string();
    assert!(message.contains("relay.listen: needs at least one address"), "{message}");
}

#[test]
fn public_listener_needs_a_token_key() {
    let public = Config::from_toml("[http]\nlisten = [\"0.0.0.0:0\"]\n").expect("valid by itself");
    let message = secret::Keys::load(&public).map(drop).expect_err("refused").to_string();
    assert!(
        message.starts_with("configuration:2: http.listen[0]: 0.0.0.0:0 can be reached by others"),
        "{message}"
    );
    assert!(message.contains("set signaling.jwt_secret"), "{message}");
}

mod addresses {
    use super::super::address::{Addresses, RelayAddress};
    use super::*;

    fn find(relay: &str) -> Result<Addresses, Error> {
        Addresses::find(&Config::from_toml(&format!("[relay]\n{relay}\n")).expect("valid"))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn loopback_listeners_relay_on_loopback() {
        let found = find("listen = [\"udp://127.0.0.1:0\"]").expect("found");
        assert_eq!(found.relay, [RelayAddress { local: ip("127.0.0.1"), public: ip("127.0.0.1") }]);
        assert!(found.notes.iter().any(|note| note.contains("loopback")));
    }

    #[test]
    fn one_to_one_nat_binds_to_a_local_address() {
        let found =
            find("listen = [\"udp://127.0.0.1:0\"]\npublic_address = \"203.0.113.9\"").expect("found");
        assert_eq!(found.relay, [RelayAddress { local: ip("127.0.0.1"), public: ip("203.0.113.9") }]);
        assert!(found.notes.iter().any(|note| note.contains("1:1 NAT")));
        let found = find("public_address = \"203.0.113.9/127.0.0.1\"").expect("found");
        assert_eq!(found.relay[0].local, ip("127.0.0.1"));
    }

    #[test]
    fn several_addresses_each_have_a_local_one_of_their_own() {
        let listen = "listen = [\"udp://127.0.0.1:0\"]";
        let list = "[\"203.0.113.9/127.0.0.1\", \"203.0.113.10/127.0.0.2\", \"127.0.0.3\"]";
        let found = find(&format!("{listen}\npublic_address = {list}")).expect("found");
        let told: Vec<_> = found.relay.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["203.0.113.9/127.0.0.1", "203.0.113.10/127.0.0.2", "127.0.0.3"]);
        let list = "[\"203.0.113.9\", \"203.0.113.10\"]";
        let message = find(&format!("{listen}\npublic_address = {list}")).expect_err("one local").to_string();
        assert!(
            message.contains("both be relayed from 127.0.0.1") && message.contains("PUBLIC/LOCAL"),
            "{message}"
        );
    }

    #[test]
    fn foreign_addresses_are_refused() {
        let message = find("listen = [\"udp://203.0.113.9:0\"]").expect_err("not here").to_string();
        assert!(
            message
                .starts_with("configuration:2: relay.listen[0]: 203.0.113.9 is not an address of this host")
        );
        let message =
            find("public_address = \"203.0.113.9/203.0.113.10\"").expect_err("not here").to_string();
        assert!(message.contains("203.0.113.10 is not an address of this host"), "{message}");
    }

    #[test]
    fn host_names_are_resolved() {
        let found = find("listen = [\"udp://127.0.0.1:0\"]\npublic_address = \"localhost\"").expect("found");
        assert!(found.relay.contains(&RelayAddress { local: ip("127.0.0.1"), public: ip("127.0.0.1") }));
        assert_eq!(found.name.as_deref(), Some("localhost"));
        let message = find("public_address = \"no-such-host.invalid\"").expect_err("unknown").to_string();
        assert!(message.contains("does not resolve"), "{message}");
    }

    #[test]
    fn urls_name_what_clients_can_reach() {
        let listener = |transport, address: &str| RelayListener {
            transport,
            address: address.parse().expect("address"),
        };
        let found = Addresses {
            relay: vec![
                RelayAddress { local: ip("10.0.0.5"), public: ip("203.0.113.9") },
                RelayAddress { local: ip("2001:db8::5"), public: ip("2001:db8::5") },
            ],
            ..Addresses::default()
        };
        let listeners = [
            listener(Transport::Udp, "0.0.0.0:3478"),
            listener(Transport::Tcp, "0.0.0.0:3478"),
            listener(Transport::Udp, "[::]:3478"),
            listener(Transport::Udp, "127.0.0.1:3479"),
        ];
        assert_eq!(
            found.ice_urls(&listeners),
            [
                "stun:203.0.113.9:3478",
                "turn:203.0.113.9:3478?transport=udp",
                "turn:[2001:db8::5]:3478?transport=udp",
                "turn:127.0.0.1:3479?transport=udp",
                "turn:203.0.113.9:3478?transport=tcp",
            ]
        );
        let named = Addresses { name: Some("turn.example.org".into()), ..found };
        assert_eq!(
            named.ice_urls(&listeners[..3]),
            [
                "stun:turn.example.org:3478",
                "turn:turn.example.org:3478?transport=udp",
                "turn:turn.example.org:3478?transport=tcp",
            ]
        );
    }
}

#[test]
fn a_redirect_and_an_authorisation_server_are_read_and_the_keys_of_it_not_printed() {
    let key = "AAECAwQFBgcICQoLDA0ODw==";
    let config = Config::from_toml(&format!(
        "[relay]\nredirect = {{ to = \"192.0.2.1:3478, [2001:db8::1]:3478\", domain = \"b.example.org\" }}\n\
         [credentials]\nthird_party = {{ server = \"turn.example.org\", keys = {{ kid1 = \"{key}\" }} }}\n"
    ))
    .unwrap_or_else(|e| panic!("{e}"));
    let redirect = config.relay.redirect.as_ref().expect("set");
    assert_eq!((redirect.to.len(), &*redirect.domain), (2, "b.example.org"));
    let party = config.credentials.third_party.as_ref().expect("set");
    assert_eq!((&*party.server, party.keys["kid1"].len()), ("turn.example.org", 16));
    let printed = config.to_toml();
    assert!(printed.contains("kid1") && !printed.contains(key), "{printed}");
    assert!(
        Config::default().relay.redirect.is_none() && Config::default().credentials.third_party.is_none()
    );
}
