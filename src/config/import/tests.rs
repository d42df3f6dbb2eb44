//! Every option of coturn with an example, and what an operator is told.

use std::path::Path;

use proptest::prelude::*;

use super::options::{OPTIONS, find};
use super::*;
use crate::config::Config;

/// What an example must become.
enum Want {
    /// This key of ours, with this value in TOML.
    Key(&'static str, &'static str),
    Builtin,
    Dropped,
    Refused,
}
use Want::{Builtin, Dropped, Key, Refused};

/// One example for each option, the option on the first line.
#[rustfmt::skip]
const EXAMPLES: &[(&str, Want)] = &[
    ("listening-port=3500", Key("relay.listen", r#"["udp://0.0.0.0:3500", "udp://[::]:3500", "tcp://0.0.0.0:3500", "tcp://[::]:3500"]"#)),
    ("tls-listening-port=443\ncert=c.pem\nlistening-ip=192.0.2.1", Key("relay.listen", r#"["udp://192.0.2.1:3478", "tcp://192.0.2.1:3478", "tls://192.0.2.1:443"]"#)),
    ("alt-listening-port=3500\nrfc5780\nlistening-ip=192.0.2.1\nlistening-ip=192.0.2.2", Key("relay.alternate", r#"{ address = "192.0.2.2", port = 3500 }"#)),
    ("alt-tls-listening-port=5350", Dropped),
    ("listening-ip=2001:db8::1\nno-tcp", Key("relay.listen", r#"["udp://[2001:db8::1]:3478"]"#)),
    ("listening-device=eth0", Dropped),
    ("relay-device=eth0", Dropped),
    ("relay-ip=192.0.2.1", Key("relay.public_address", r#"["192.0.2.1"]"#)),
    ("external-ip=203.0.113.9\nrelay-ip=10.0.0.5", Key("relay.public_address", r#"["203.0.113.9/10.0.0.5"]"#)),
    ("min-port=50000", Key("relay.ports", r#""50000-65535""#)),
    ("max-port=50000", Key("relay.ports", r#""49152-50000""#)),
    ("relay-threads=4", Key("relay.workers", "4")),
    ("cpus=2", Key("relay.workers", "2")),
    ("sock-buf-size=1048576", Key("relay.socket_buffer", "1048576")),
    ("tcp-proxy-port=5555\nlistening-ip=192.0.2.1", Key("relay.listen", r#"["udp://192.0.2.1:3478", "tcp://192.0.2.1:3478", "tcp://192.0.2.1:5555"]"#)),
    ("aux-server=[2001:db8::4]:33478\nlistening-ip=192.0.2.1\nno-tcp", Key("relay.listen", r#"["udp://192.0.2.1:3478", "udp://[2001:db8::4]:33478", "tcp://[2001:db8::4]:33478"]"#)),
    ("no-udp\nlistening-ip=192.0.2.1", Key("relay.listen", r#"["tcp://192.0.2.1:3478"]"#)),
    ("no-tcp\nlistening-ip=192.0.2.1", Key("relay.listen", r#"["udp://192.0.2.1:3478"]"#)),
    ("no-tls\ncert=c.pem\nlistening-ip=192.0.2.1", Key("relay.listen", r#"["udp://192.0.2.1:3478", "tcp://192.0.2.1:3478"]"#)),
    ("dtls\ncert=c.pem\nlistening-ip=192.0.2.1\nno-tcp\nno-tls", Key("relay.listen", r#"["udp://192.0.2.1:3478", "dtls://192.0.2.1:5349"]"#)),
    ("no-dtls\ncert=c.pem", Builtin),
    ("no-udp-relay", Refused),
    ("no-tcp-relay=off", Key("relay.tcp", "true")),
    ("realm=north.gov", Key("relay.realm", r#""north.gov""#)),
    ("server-name=blackdow.carleon.gov", Dropped),
    ("lt-cred-mech", Builtin),
    ("no-auth", Dropped),
    ("user=gorst:hero", Key("credentials.users", r#"{ gorst = "hero" }"#)),
    ("use-auth-secret", Builtin),
    ("static-auth-secret=logen", Key("credentials.secrets", r#"["logen"]"#)),
    ("rest-api-separator=:", Builtin),
    ("userdb=/var/db/turndb", Dropped),
    ("db=/var/db/turndb", Dropped),
    ("psql-userdb=\"host=h dbname=d\"", Dropped),
    ("sql-userdb=\"host=h dbname=d\"", Dropped),
    ("mysql-userdb=\"host=h dbname=d\"", Dropped),
    ("mongo-userdb=\"mongodb://h\"", Dropped),
    ("redis-userdb=\"ip=192.0.2.1\"", Dropped),
    ("redis-statsdb=\"ip=192.0.2.1\"", Dropped),
    ("secret-key-file=/path/", Dropped),
    ("oauth", Dropped),
    ("secure-stun", Dropped),
    ("stun-only", Key("http.listen", "[]")),
    ("no-stun", Dropped),
    ("stale-nonce=600", Builtin),
    ("stateless-nonce", Builtin),
    ("stateless-nonce-secret=x", Dropped),
    ("unauthorized-ratelimit", Builtin),
    ("unauthorized-ratelimit-rps=20", Builtin),
    ("user-quota=12", Key("quota.user", "12")),
    ("total-quota=1200", Key("quota.total", "1200")),
    ("max-bps=3000000", Key("quota.allocation_bytes_per_second", "3000000")),
    ("bps-capacity=9000000", Key("quota.total_bytes_per_second", "9000000")),
    ("max-allocate-lifetime=1800", Key("relay.max_lifetime", r#""1800s""#)),
    ("max-allocate-timeout=60", Builtin),
    ("channel-lifetime=600", Builtin),
    ("permission-lifetime=300", Builtin),
    ("allowed-peer-ip=10.0.0.1", Key("peers.allow", r#"["10.0.0.1/32"]"#)),
    ("denied-peer-ip=10.0.0.0-10.255.255.255", Key("peers.deny", r#"["10.0.0.0/8"]"#)),
    ("allow-loopback-peers", Key("peers.allow", r#"["127.0.0.0/8", "::1/128"]"#)),
    ("no-multicast-peers", Builtin),
    ("no-dynamic-ip-list", Builtin),
    ("no-dynamic-realms", Builtin),
    ("no-auth-pings", Builtin),
    ("check-origin-consistency", Dropped),
    ("cert=/etc/c.pem", Key("tls.cert", r#""/etc/c.pem""#)),
    ("pkey=key.pem\ncert=c.pem", Key("tls.key", r#""/conf/key.pem""#)),
    ("pkey-pwd=x", Dropped),
    ("cipher-list=\"ALL:!eNULL\"", Dropped),
    ("ec-curve-name=prime256v1", Dropped),
    ("dh-file=dh.pem", Dropped),
    ("dh566", Dropped),
    ("dh1066", Dropped),
    ("CA-file=ca.pem", Refused),
    ("tlsv1", Dropped),
    ("tlsv1_1", Dropped),
    ("no-tlsv1_2", Dropped),
    ("no-tlsv1", Builtin),
    ("no-tlsv1_1", Builtin),
    ("no-sslv2", Builtin),
    ("no-sslv3", Builtin),
    ("raw-public-keys", Dropped),
    ("fingerprint", Builtin),
    ("software-attribute", Dropped),
    ("no-software-attribute", Builtin),
    ("include-reason-string", Dropped),
    ("stun-backward-compatibility", Dropped),
    ("rfc3489-compatibility", Dropped),
    ("no-stun-backward-compatibility", Builtin),
    ("rfc5780\nlistening-ip=192.0.2.1\nlistening-ip=192.0.2.2", Key("relay.alternate", r#"{ address = "192.0.2.2", port = 3479 }"#)),
    ("no-rfc5780", Builtin),
    ("response-origin-only-with-rfc5780", Builtin),
    ("rfc5766-channel-numbers", Key("relay.legacy_channels", "true")),
    ("allocation-default-address-family=\"ipv4\"", Builtin),
    ("keep-address-family", Dropped),
    ("mobility", Key("relay.mobility", "true")),
    ("server-relay", Dropped),
    ("alternate-server=192.0.2.7", Key("relay.redirect", r#"{ to = "192.0.2.7:3478" }"#)),
    ("tls-alternate-server=192.0.2.7", Dropped),
    ("udp-alternate-server=192.0.2.7", Dropped),
    ("tcp-alternate-server=192.0.2.7", Dropped),
    ("udp-self-balance", Builtin),
    ("log-file=/var/tmp/turn.log", Dropped),
    ("syslog", Dropped),
    ("syslog-facility=\"LOG_LOCAL1\"", Dropped),
    ("simple-log", Dropped),
    ("no-stdout-log", Dropped),
    ("log-min-level=warning", Key("log.level", r#""warn""#)),
    ("new-log-timestamp", Builtin),
    ("new-log-timestamp-format \"%FT%T%z\"", Dropped),
    ("log-binding", Dropped),
    ("verbose", Key("log.level", r#""debug""#)),
    ("Verbose", Key("log.level", r#""debug""#)),
    ("pidfile=\"/var/run/turnserver.pid\"", Dropped),
    ("proc-user=turnserver", Dropped),
    ("proc-group=turnserver", Dropped),
    ("daemon", Dropped),
    ("cli", Dropped),
    ("cli-ip=127.0.0.1", Dropped),
    ("cli-port=5766", Dropped),
    ("cli-password=qwerty", Dropped),
    ("cli-max-output-sessions=256", Dropped),
    ("no-cli", Builtin),
    ("web-admin", Dropped),
    ("web-admin-ip=127.0.0.1", Dropped),
    ("web-admin-port=8080", Dropped),
    ("web-admin-listen-on-workers", Dropped),
    ("prometheus", Key("admin.listen", r#""127.0.0.1:9641""#)),
    ("prometheus-port=9700\nprometheus", Key("admin.listen", r#""127.0.0.1:9700""#)),
    ("prometheus-address=::\nprometheus", Key("admin.listen", r#""[::]:9641""#)),
    ("prometheus-path=/metrics\nprometheus", Builtin),
    ("prometheus-username-labels", Dropped),
    ("prometheus-tls", Key("admin.listen", r#""127.0.0.1:9641""#)),
    ("prometheus-cert=c.pem", Dropped),
    ("prometheus-key=k.pem", Dropped),
    ("acme-redirect=http://192.0.2.1/.well-known/acme-challenge/", Dropped),
    ("respond-http-unsupported", Dropped),
    ("drop-invalid-packets", Builtin),
    ("drop-invalid-packets-log", Dropped),
    ("udp-recvmmsg", Builtin),
    ("udp-recvmmsg-log", Dropped),
    ("udp-sendmmsg-log", Dropped),
    ("udp-gso", Builtin),
    ("multiplex-peer", Key("relay.ports", r#""shared:3480""#)),
    ("multiplex-peer-port=4000\nmultiplex-peer", Key("relay.ports", r#""shared:4000""#)),
    ("multiplex-peer-max-peers=16", Builtin),
    ("drain-min-allocations=5", Dropped),
    ("ne=1", Dropped),
    ("no-loopback-peers", Builtin),
    ("udp-relay-servers-number=2", Dropped),
    ("secret-ts-exp-time=1", Dropped),
    ("prod", Builtin),
];

fn imported(text: &str) -> Import {
    Import::read(Path::new("/conf/turnserver.conf"), text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn error(text: &str) -> String {
    Import::read(Path::new("/conf/turnserver.conf"), text).map(drop).expect_err(text).to_string()
}

/// What became of a line, without what is said about it besides.
fn fate(import: &Import, line: usize) -> &Fate {
    let of_line = |note: &&Note| note.option.as_ref().is_some_and(|(at, _)| *at == line);
    let is_fate = |fate: &&Fate| !matches!(fate, Fate::Warning(_) | Fate::Danger(_));
    let mut fates = import.notes.iter().filter(of_line).map(|note| &note.fate).filter(is_fate);
    let fate = fates.next().unwrap_or_else(|| panic!("line {line} is not accounted for"));
    assert_eq!(fates.next(), None, "line {line} is accounted for once");
    fate
}

fn value(import: &Import, path: &str) -> Option<toml::Value> {
    let (section, key) = path.split_once('.').expect("section.key");
    import.table.get(section)?.get(key).cloned()
}

/// The notes as an operator reads them.
fn account(text: &str) -> String {
    imported(text).notes.iter().map(|note| format!("{note}\n")).collect()
}

#[test]
fn every_row_of_the_reference_has_options_and_every_option_an_example() {
    for row in 1..=73 {
        assert!(OPTIONS.iter().any(|option| option.row == row), "row {row}");
    }
    assert!(OPTIONS.is_sorted_by_key(|option| option.row), "in the order of the reference");
    let examples: Vec<_> = EXAMPLES.iter().map(|(text, _)| name_of(text)).collect();
    let mut names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
    for name in &names {
        assert_eq!(examples.iter().filter(|example| *example == name).count(), 1, "examples of {name}");
    }
    assert_eq!(examples.len(), names.len(), "no example of anything else");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), OPTIONS.len(), "each option stands once");
}

fn name_of(text: &str) -> &str {
    text.split(['=', '\n', ' ']).next().unwrap_or_default()
}

#[test]
fn every_option_becomes_what_its_example_says() {
    for (text, want) in EXAMPLES {
        if let Refused = want {
            let message = error(text);
            assert!(
                message.starts_with("/conf/turnserver.conf:1: ") && message.contains("cannot be kept"),
                "{message}"
            );
            continue;
        }
        let import = imported(text);
        let is_right = match (want, fate(&import, 1)) {
            (Key(path, wanted), Fate::Key(keys)) => {
                let wanted = format!("v = {wanted}").parse::<Table>().expect("TOML").remove("v");
                assert_eq!(value(&import, path), wanted, "{text}");
                keys.split(", ").any(|key| key == *path)
            }
            (Builtin, Fate::Builtin(_)) | (Dropped, Fate::Dropped(_)) => true,
            _ => false,
        };
        assert!(is_right, "{text}: {:?}", fate(&import, 1));
    }
}

#[test]
fn every_example_is_a_valid_configuration_as_a_table_and_as_a_file() {
    for (text, _) in EXAMPLES.iter().filter(|(_, want)| !matches!(want, Refused)) {
        let import = imported(text);
        let direct = source::finish("t", import.table.clone(), import.sources.clone(), [])
            .and_then(|(file, sources)| values::validate(&file, sources, None));
        let direct = direct.unwrap_or_else(|e| panic!("{text}: {e}"));
        let written = Config::from_toml(&import.to_toml()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(direct == written, "{text}: the file says the same");
    }
}

#[test]
fn every_line_is_accounted_for_once() {
    let lines: Vec<&str> = EXAMPLES
        .iter()
        .filter(|(_, want)| !matches!(want, Refused))
        .map(|(text, _)| text.lines().next().expect("a line"))
        .chain(["fingerprnt", "no-udp=0", "listening-port=3478", "xyzzy-xyzzy-xyzzy"])
        .collect();
    let import = imported(&lines.join("\n"));
    for line in 1..=lines.len() {
        fate(&import, line);
    }
}

#[test]
fn a_file_is_read_as_coturn_reads_it() {
    let text =
        "\u{feff}  # comment\n\n  realm = \"north.gov\" \r\n\tmin-port\t50000\nuser=a: b c \nmobility=off\n";
    let import = imported(text);
    assert_eq!(value(&import, "relay.realm"), Some("north.gov".into()));
    assert_eq!(value(&import, "relay.ports"), Some("50000-65535".into()));
    assert_eq!(
        value(&import, "credentials.users"),
        Some(Table::from_iter([("a".into(), "b c".into())]).into())
    );
    assert_eq!(value(&import, "relay.mobility"), None);
    for (text, is_on) in [("", true), ("=1", true), ("=On", true), ("=yes", true), ("=T", true)]
        .into_iter()
        .chain([("=0", false), ("=off", false), ("=No", false), ("=false", false), ("=f", false)])
    {
        let import = imported(&format!("mobility{text}\nrfc5766-channel-numbers{text}"));
        assert_eq!(value(&import, "relay.legacy_channels"), Some(is_on.into()), "{text}");
    }
    assert!(
        error("fingerprint=maybe").starts_with("/conf/turnserver.conf:1: fingerprint: expected yes or no")
    );
    assert!(error("\nmin-port=many").starts_with("/conf/turnserver.conf:2: min-port: expected a port"));
    assert!(error("max-port=70000").contains("expected a port"));
    assert!(error("user-quota=x").contains("expected a number"));
}

#[test]
fn the_last_line_of_an_option_counts_and_lists_grow() {
    let import = imported("realm=a\nrealm=b\nstatic-auth-secret=new\nstatic-auth-secret=old\n");
    assert_eq!(value(&import, "relay.realm"), Some("b".into()));
    assert_eq!(value(&import, "credentials.secrets"), Some(vec!["new", "old"].into()));
    assert_eq!(fate(&import, 1), &Fate::Dropped("line 2 says it again".into()));
}

#[test]
fn unknown_options_are_named_with_the_nearest() {
    assert!(
        account("lisening-port=1")
            .contains(":1: lisening-port: not understood, did you mean listening-port?")
    );
    assert!(account("xyzzy-xyzzy").contains(":1: xyzzy-xyzzy: not understood: no option of coturn"));
}

#[test]
fn dangerous_settings_are_marked() {
    let alone = [
        "no-auth",
        "allow-loopback-peers",
        "server-relay",
        "cli",
        "web-admin",
        "web-admin-listen-on-workers",
        "tlsv1",
        "tlsv1_1",
        "tcp-proxy-port=5555",
        "prometheus\nprometheus-address=0.0.0.0",
    ];
    for text in alone {
        assert!(account(text).contains("DANGER: "), "{text}");
    }
    for text in ["no-auth=0", "allow-loopback-peers=off", "cli\ncli-password=x", "prometheus"] {
        assert!(!account(text).contains("DANGER: "), "{text}");
    }
    assert!(account("cert=c.pem").contains("no user and no secret: coturn serves everybody"));
    assert!(!account("user=a:b").contains("no user and no secret"));
}

#[test]
fn no_secret_is_in_what_is_said() {
    let text = "static-auth-secret=s3cret\nuser=a:s3cret\ncli-password=s3cret\npkey-pwd=s3cret\n\
                redis-userdb=\"password=s3cret\"\nstateless-nonce-secret=s3cret\nxyzzy=s3cret\n";
    assert!(!account(text).contains("s3cret"), "{}", account(text));
    assert!(!error("user=a:0xs3cret").contains("s3cret"));
    assert!(find("user").is_some_and(|option| option.is_secret));
}

#[test]
fn what_keeps_somebody_out_is_kept_or_refused() {
    for text in ["denied-peer-ip=10.0.0.x", "denied-peer-ip=10.0.0.9-10.0.0.1", "denied-peer-ip=10.0.0.1/8"] {
        assert!(error(text).starts_with("/conf/turnserver.conf:1: denied-peer-ip: "), "{text}");
    }
    assert!(error("allowed-peer-ip=10.0.0.1-::1").contains("of one family"));
    assert!(
        error("use-auth-secret\nrest-api-separator=|").contains(":2: rest-api-separator: cannot be kept")
    );
    let import = imported("no-udp-relay\nno-tcp-relay\nuser=a:b");
    assert_eq!(value(&import, "http.listen"), Some(Vec::<String>::new().into()));
    assert_eq!(value(&import, "credentials.users"), None, "nothing is relayed");
}

#[test]
fn users_are_for_the_mechanism_that_is_on() {
    let import = imported("use-auth-secret\nstatic-auth-secret=s\nuser=a:b");
    assert_eq!(value(&import, "credentials.users"), None, "coturn ignores them too");
    assert!(matches!(fate(&import, 3), Fate::Dropped(why) if why.contains("coturn ignores users")));
    let key = "0xBC807EE29DF3C9FFA736523FB2C4E8EE";
    let import = imported(&format!("user=ninefingers:{key}\nuser=gorst:hero\nrealm=north.gov"));
    assert_eq!(
        value(&import, "credentials.users"),
        Some(Table::from_iter([("gorst".into(), "hero".into())]).into())
    );
    let keys = Table::from_iter([("ninefingers".into(), "bc807ee29df3c9ffa736523fb2c4e8ee".into())]);
    assert_eq!(value(&import, "credentials.user_keys"), Some(keys.into()));
    assert!(error(&format!("user=a:{key}")).contains("add realm="), "a key is for one realm");
    assert!(error("realm=r\nuser=a:0x12").contains("32 hexadecimal digits"));
    assert!(error("user=a").contains("NAME:PASSWORD"));
}

#[test]
fn quotas_fit_the_ports_there_are() {
    let import = imported("total-quota=1200\nmin-port=50000\nmax-port=50099");
    assert_eq!(value(&import, "quota.total"), Some(100.into()));
    assert!(account("total-quota=1200\nmin-port=50000\nmax-port=50099").contains("one of 100 ports"));
}

#[test]
fn ranges_become_the_fewest_networks() {
    let cover = |text: &str| networks::parse(text).expect(text).join(" ");
    assert_eq!(cover("0.0.0.0-255.255.255.255"), "0.0.0.0/0");
    assert_eq!(cover("172.16.0.0-172.31.255.255"), "172.16.0.0/12");
    assert_eq!(cover("83.166.64.0-83.166.95.255"), "83.166.64.0/19");
    assert_eq!(cover("10.0.0.1-10.0.0.6"), "10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32");
    assert_eq!(cover("255.255.255.254-255.255.255.255"), "255.255.255.254/31");
    assert_eq!(cover("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "::/0");
    assert_eq!(cover("fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "fc00::/7");
    assert_eq!(cover("::1"), "::1/128");
    assert_eq!(cover("10.0.0.0/8"), "10.0.0.0/8");
    assert!(networks::parse("0.0.0.1-255.255.255.254").is_ok_and(|networks| networks.len() == 62));
}

#[test]
fn files_of_coturn_are_told_from_ours() {
    let is_ours = |path: &str, text: &str| !is_coturn(Path::new(path), text);
    assert!(!is_ours("/etc/turnserver.conf", "# nothing\n"));
    assert!(!is_ours("/etc/turnserver.conf", "unknown-option\nrealm=x"));
    assert!(!is_ours("/etc/coturn", "# comment\nlistening-port=3478\n"));
    assert!(is_ours("/etc/turnkey.toml", "realm = 1"));
    assert!(is_ours("/etc/turnkey.conf", "# ours\n[relay]\nrealm = \"x\"\n"));
    assert!(is_ours("/etc/turnkey", "state_dir = \"/x\"\n[relay]\n"));
}

proptest! {
    /// A file of any lines is refused with a line that it has, or translated with each line accounted for once, into
    /// TOML that says the same.
    #[test]
    fn any_file_is_refused_or_accounted_for(
        lines in prop::collection::vec((0..OPTIONS.len() + 2, value_of_any_kind()), 0..12),
    ) {
        let name = |i: usize| OPTIONS.get(i).map_or("no-such-option", |option| option.name);
        let lines: Vec<_> = lines.iter().map(|(i, value)| format!("{}={value}", name(*i))).collect();
        let text = lines.join("\n");
        match Import::read(Path::new("/conf/turnserver.conf"), &text) {
            Ok(import) => {
                (1..=lines.len()).for_each(|line| {
                    fate(&import, line);
                });
                let direct = source::finish("t", import.table.clone(), import.sources.clone(), [])
                    .and_then(|(file, sources)| values::validate(&file, sources, None));
                match (direct, Config::from_toml(&import.to_toml())) {
                    (Ok(direct), Ok(written)) => prop_assert!(direct == written),
                    (Err(_), Err(_)) => {}
                    _ => prop_assert!(false, "one is valid, the other is not"),
                }
            }
            Err(e) => {
                let e = e.to_string();
                let line = e.strip_prefix("/conf/turnserver.conf:").and_then(|rest| rest.split(':').next());
                let line: usize = line.and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{e}"));
                prop_assert!((1..=lines.len()).contains(&line));
            }
        }
    }
}

fn value_of_any_kind() -> impl Strategy<Value = String> {
    const FIXED: &[&str] = &[
        "",
        "0",
        "1",
        "off",
        "70000",
        "192.0.2.1",
        "::1",
        "10.0.0.0-10.0.0.9",
        "::-::ffff",
        "a:b",
        "a:0x1",
        "\"x",
    ];
    prop_oneof![prop::sample::select(FIXED).prop_map(str::to_owned), "[ -~]{0,12}", "[0-9]{1,20}"]
}

#[test]
fn the_page_for_those_who_move_has_this_table() {
    let page = include_str!("../../../docs/migrating-from-coturn.md");
    let table = Import::options();
    assert!(
        page.contains(&table),
        "paste what `turnkey config import --options` prints into the page:\n{table}"
    );
}
