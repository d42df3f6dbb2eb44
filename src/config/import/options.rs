//! Every option of coturn, and what becomes of it: the table that the import, its tests and
//! `docs/migrating-from-coturn.md` share.
//!
//! Numbers group the options as that page does. How values combine into keys is in `translate`.

use Becomes::{Builtin, Dropped, Key, Refused};
use Form::{Flag, Number, Port, Switch, Text};

/// An option of coturn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    /// Which group of options it belongs to.
    pub(super) row: u8,
    /// As it is written in the file.
    pub(super) name: &'static str,
    /// What its value looks like.
    pub(super) form: Form,
    /// What it is here.
    pub(super) becomes: Becomes,
    /// Why whoever sets it should think again.
    pub(super) danger: Option<&'static str>,
    /// Whether its value must not be shown.
    pub(super) is_secret: bool,
}

/// What the value of an option looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Yes or no; nothing means yes.
    Flag,
    /// Yes by being there: coturn does not look at the value.
    Switch,
    /// A number; coturn has a default where it is missing.
    Number,
    /// A port.
    Port,
    /// Any text.
    Text,
}

/// What an option is here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Becomes {
    /// One or several keys of ours.
    Key(&'static str),
    /// What turnkey does by itself.
    Builtin(&'static str),
    /// Nothing, because of this.
    Dropped(&'static str),
    /// Nothing, and to go on without it would serve whom the file keeps out.
    Refused(&'static str),
}

/// The option of this name.
pub(super) fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// All options and what becomes of each, as the rows of a Markdown table.
pub(super) fn markdown() -> String {
    let mut text = String::from("| # | option of coturn | here |\n| --- | --- | --- |\n");
    for option in OPTIONS {
        let here = match option.becomes {
            Key(keys) => format!("`{}`", keys.replace(", ", "`, `")),
            Builtin(how) => format!("default here: {how}"),
            Dropped(why) => format!("dropped: {why}"),
            Refused(why) => format!("refused: {why}"),
        };
        let danger = option.danger.map(|what| format!(" **Danger:** {what}.")).unwrap_or_default();
        text += &format!("| {} | `{}` | {here}.{danger} |\n", option.row, option.name);
    }
    text
}

const fn o(row: u8, name: &'static str, form: Form, becomes: Becomes) -> Opt {
    Opt { row, name, form, becomes, danger: None, is_secret: false }
}

const fn danger(danger: &'static str, option: Opt) -> Opt {
    Opt { danger: Some(danger), ..option }
}

const fn secret(option: Opt) -> Opt {
    Opt { is_secret: true, ..option }
}

const NO_DATABASE: &str =
    "there is no user database: write its users into credentials.users, its secrets into credentials.secrets";
const NO_CLI: &str = "there is no telnet console; metrics and state are at admin.listen";
const NO_WEB_ADMIN: &str = "there is no web administration; metrics and state are at admin.listen";
const TLS_TUNING: &str = "TLS 1.2 and 1.3 with the safe cipher suites of rustls need no tuning";
const LOGGING: &str = "the log goes to standard error, from where systemd's journal takes it";
const OBSOLETE: &str = "was taken out of coturn too";
const DEVICE: &str = "sockets are not bound to a device: name that device's address instead";
const METRICS_TLS: &str = "metrics are plain HTTP: put a proxy in front if they leave this host";

#[rustfmt::skip]
pub(super) const OPTIONS: &[Opt] = &[
    o(1, "listening-port", Port, Key("relay.listen")),
    o(2, "tls-listening-port", Port, Key("relay.listen")),
    o(3, "alt-listening-port", Port, Key("relay.alternate")),
    o(4, "alt-tls-listening-port", Port, Dropped("NAT behaviour discovery (RFC 5780) is for UDP")),
    o(5, "listening-ip", Text, Key("relay.listen")),
    o(6, "listening-device", Text, Dropped(DEVICE)),
    o(6, "relay-device", Text, Dropped(DEVICE)),
    o(7, "relay-ip", Text, Key("relay.public_address")),
    o(8, "external-ip", Text, Key("relay.public_address")),
    o(9, "min-port", Port, Key("relay.ports")),
    o(9, "max-port", Port, Key("relay.ports")),
    o(10, "relay-threads", Number, Key("relay.workers")),
    o(11, "cpus", Number, Key("relay.workers")),
    o(12, "sock-buf-size", Number, Key("relay.socket_buffer")),
    danger("coturn believes the PROXY header of whoever connects; here only those in relay.proxy_from are believed",
        o(13, "tcp-proxy-port", Port, Key("relay.listen, relay.proxy_from"))),
    o(14, "aux-server", Text, Key("relay.listen")),
    o(15, "no-udp", Flag, Key("relay.listen")),
    o(15, "no-tcp", Flag, Key("relay.listen")),
    o(15, "no-tls", Flag, Builtin("TLS is off without a certificate; with one, no tls:// in relay.listen")),
    o(16, "dtls", Flag, Key("relay.listen")),
    o(16, "no-dtls", Flag, Builtin("off unless dtls is set, as in coturn since 4.17")),
    o(17, "no-udp-relay", Flag, Refused("UDP is always relayed; with no-tcp-relay too it is the same as stun-only")),
    o(17, "no-tcp-relay", Flag, Key("relay.tcp")),
    o(18, "realm", Text, Key("relay.realm")),
    o(19, "server-name", Text, Dropped("names the server of RFC 7635 tokens: see [credentials.third_party]")),
    o(20, "lt-cred-mech", Flag, Builtin("clients always need a credential")),
    danger("an open relay: anybody may send through it. turnkey has no such mode and asks for credentials",
        o(21, "no-auth", Flag, Dropped("clients always need a credential"))),
    secret(o(22, "user", Text, Key("credentials.users, credentials.user_keys"))),
    o(23, "use-auth-secret", Switch, Builtin("time-limited credentials are always on")),
    secret(o(24, "static-auth-secret", Text, Key("credentials.secrets"))),
    o(25, "rest-api-separator", Text, Builtin("\":\" separates the parts of time-limited user names; any other separator is refused")),
    o(26, "userdb", Text, Dropped(NO_DATABASE)),
    o(26, "db", Text, Dropped(NO_DATABASE)),
    secret(o(27, "psql-userdb", Text, Dropped(NO_DATABASE))),
    secret(o(27, "sql-userdb", Text, Dropped(NO_DATABASE))),
    secret(o(27, "mysql-userdb", Text, Dropped(NO_DATABASE))),
    secret(o(27, "mongo-userdb", Text, Dropped(NO_DATABASE))),
    secret(o(27, "redis-userdb", Text, Dropped(NO_DATABASE))),
    secret(o(28, "redis-statsdb", Text, Dropped("statistics are Prometheus metrics at admin.listen"))),
    o(29, "secret-key-file", Text, Dropped(NO_DATABASE)),
    o(30, "oauth", Flag, Dropped("RFC 7635 needs its keys in the file: see [credentials.third_party]")),
    o(31, "secure-stun", Flag, Dropped("Binding is answered without a credential, briefly and at a limited rate")),
    o(32, "stun-only", Flag, Key("http.listen, credentials")),
    o(32, "no-stun", Flag, Dropped("Binding is always answered; clients need it to keep their path open")),
    o(33, "stale-nonce", Number, Builtin("a nonce lives an hour, so that no 438 comes in the middle of most calls")),
    o(34, "stateless-nonce", Flag, Builtin("nonces are always stateless")),
    secret(o(35, "stateless-nonce-secret", Text, Dropped("nonce keys are random in each process"))),
    o(36, "unauthorized-ratelimit", Flag, Builtin("relay.unauthenticated_rate limits all such replies")),
    o(36, "unauthorized-ratelimit-rps", Number, Builtin("relay.unauthenticated_rate limits them in bytes for each source prefix")),
    o(37, "user-quota", Number, Key("quota.user")),
    o(37, "total-quota", Number, Key("quota.total")),
    o(38, "max-bps", Number, Key("quota.allocation_bytes_per_second")),
    o(38, "bps-capacity", Number, Key("quota.total_bytes_per_second")),
    o(39, "max-allocate-lifetime", Number, Key("relay.max_lifetime")),
    o(40, "max-allocate-timeout", Number, Builtin("nothing is kept for clients that have not authenticated")),
    o(41, "channel-lifetime", Number, Builtin("10 minutes, as RFC 8656 §12 says")),
    o(41, "permission-lifetime", Number, Builtin("5 minutes, as RFC 8656 §9 says")),
    o(42, "allowed-peer-ip", Text, Key("peers.allow")),
    o(42, "denied-peer-ip", Text, Key("peers.deny")),
    danger("whoever has a credential reaches every service that trusts this host's loopback addresses",
        o(43, "allow-loopback-peers", Flag, Key("peers.allow"))),
    o(44, "no-multicast-peers", Flag, Builtin("multicast peers are forbidden")),
    o(45, "no-dynamic-ip-list", Switch, Builtin("there is no database to ask")),
    o(45, "no-dynamic-realms", Switch, Builtin("there is no database to ask")),
    o(45, "no-auth-pings", Switch, Builtin("there is no database to ask")),
    o(46, "check-origin-consistency", Flag, Dropped("one server has one realm; the ORIGIN attribute is not looked at")),
    o(47, "cert", Text, Key("tls.cert")),
    o(47, "pkey", Text, Key("tls.key")),
    secret(o(47, "pkey-pwd", Text, Dropped("keys are read without a password: decrypt it with openssl pkey -in KEY -out NEWKEY"))),
    o(48, "cipher-list", Text, Dropped(TLS_TUNING)),
    o(48, "ec-curve-name", Text, Dropped(TLS_TUNING)),
    o(48, "dh-file", Text, Dropped(TLS_TUNING)),
    o(48, "dh566", Flag, Dropped(TLS_TUNING)),
    o(48, "dh1066", Flag, Dropped(TLS_TUNING)),
    o(49, "CA-file", Text, Refused("clients are not asked for certificates: take the line out if credentials are enough")),
    danger("TLS 1.0 is broken; turnkey does not speak it", o(50, "tlsv1", Flag, Dropped("TLS 1.2 and 1.3 only"))),
    danger("TLS 1.1 is broken; turnkey does not speak it", o(50, "tlsv1_1", Flag, Dropped("TLS 1.2 and 1.3 only"))),
    o(50, "no-tlsv1_2", Flag, Dropped("TLS 1.2 stays on, with the safe cipher suites of rustls")),
    o(50, "no-tlsv1", Flag, Builtin("TLS 1.2 and 1.3 only")),
    o(50, "no-tlsv1_1", Flag, Builtin("TLS 1.2 and 1.3 only")),
    o(50, "no-sslv2", Flag, Builtin("TLS 1.2 and 1.3 only")),
    o(50, "no-sslv3", Flag, Builtin("TLS 1.2 and 1.3 only")),
    o(51, "raw-public-keys", Flag, Dropped("certificates only; browsers use no raw public keys")),
    o(52, "fingerprint", Flag, Builtin("FINGERPRINT is in the reply when it is in the request")),
    o(53, "software-attribute", Flag, Dropped("SOFTWARE is never sent: it helps attackers and makes replies long")),
    o(53, "no-software-attribute", Flag, Builtin("SOFTWARE is never sent")),
    o(54, "include-reason-string", Flag, Dropped("reasons are short, so that replies are; the log says more")),
    o(55, "stun-backward-compatibility", Flag, Dropped("only XOR-MAPPED-ADDRESS is sent; all clients since RFC 5389 read it")),
    o(55, "rfc3489-compatibility", Flag, Dropped("STUN without the magic cookie (before 2008) is not answered")),
    o(55, "no-stun-backward-compatibility", Flag, Builtin("only XOR-MAPPED-ADDRESS is sent")),
    o(56, "rfc5780", Switch, Key("relay.alternate")),
    o(56, "no-rfc5780", Switch, Builtin("off unless relay.alternate is set")),
    o(56, "response-origin-only-with-rfc5780", Switch, Builtin("RESPONSE-ORIGIN is sent with RFC 5780 only")),
    o(57, "rfc5766-channel-numbers", Flag, Key("relay.legacy_channels")),
    o(58, "allocation-default-address-family", Text, Builtin("IPv4 where the client asks for no family (RFC 8656 §7.2)")),
    o(58, "keep-address-family", Flag, Dropped("IPv4 where the client asks for no family, as RFC 8656 §7.2 says")),
    o(59, "mobility", Flag, Key("relay.mobility")),
    danger("whoever finds a relay port sends to its client; turnkey relays from permitted peers only",
        o(60, "server-relay", Flag, Dropped("permissions are always checked"))),
    o(61, "alternate-server", Text, Key("relay.redirect")),
    o(61, "tls-alternate-server", Text, Dropped("relay.redirect names one server for all transports")),
    o(61, "udp-alternate-server", Text, Dropped("relay.redirect names one server for all transports")),
    o(61, "tcp-alternate-server", Text, Dropped("relay.redirect names one server for all transports")),
    o(61, "udp-self-balance", Flag, Builtin("the kernel spreads clients over the workers")),
    o(62, "log-file", Text, Dropped(LOGGING)),
    o(62, "syslog", Flag, Dropped(LOGGING)),
    o(62, "syslog-facility", Text, Dropped(LOGGING)),
    o(62, "simple-log", Flag, Dropped(LOGGING)),
    o(62, "no-stdout-log", Flag, Dropped(LOGGING)),
    o(62, "log-min-level", Text, Key("log.level")),
    o(62, "new-log-timestamp", Flag, Builtin("time stamps are ISO 8601")),
    o(62, "new-log-timestamp-format", Text, Dropped("time stamps are ISO 8601")),
    o(62, "log-binding", Flag, Dropped("Binding requests are counted in the metrics, not logged")),
    o(62, "verbose", Flag, Key("log.level")),
    o(62, "Verbose", Flag, Key("log.level")),
    o(63, "pidfile", Text, Dropped("it stays in the foreground and tells systemd when it is ready")),
    o(64, "proc-user", Text, Dropped("it keeps the user it is started as: start it as that user, see systemd/turnkey.service")),
    o(64, "proc-group", Text, Dropped("it keeps the group it is started with, see systemd/turnkey.service")),
    o(65, "daemon", Flag, Dropped("it stays in the foreground, where systemd wants it")),
    o(66, "cli", Flag, Dropped(NO_CLI)),
    o(66, "cli-ip", Text, Dropped(NO_CLI)),
    o(66, "cli-port", Port, Dropped(NO_CLI)),
    secret(o(66, "cli-password", Text, Dropped(NO_CLI))),
    o(66, "cli-max-output-sessions", Number, Dropped(NO_CLI)),
    o(66, "no-cli", Flag, Builtin("there is no telnet console")),
    o(67, "web-admin", Flag, Dropped(NO_WEB_ADMIN)),
    o(67, "web-admin-ip", Text, Dropped(NO_WEB_ADMIN)),
    o(67, "web-admin-port", Port, Dropped(NO_WEB_ADMIN)),
    danger("coturn shows its administration to everybody; turnkey has none",
        o(67, "web-admin-listen-on-workers", Flag, Dropped(NO_WEB_ADMIN))),
    o(68, "prometheus", Switch, Key("admin.listen")),
    o(68, "prometheus-port", Port, Key("admin.listen")),
    o(68, "prometheus-address", Text, Key("admin.listen")),
    o(68, "prometheus-path", Text, Builtin("metrics are at /metrics; another path is dropped")),
    o(68, "prometheus-username-labels", Switch, Dropped("one series for each user would have no bound")),
    o(68, "prometheus-tls", Flag, Dropped(METRICS_TLS)),
    o(68, "prometheus-cert", Text, Dropped(METRICS_TLS)),
    o(68, "prometheus-key", Text, Dropped(METRICS_TLS)),
    o(69, "acme-redirect", Text, Dropped("relay ports speak no HTTP: let the ACME client use port 80 or DNS")),
    o(70, "respond-http-unsupported", Flag, Dropped("what is not STUN gets no answer")),
    o(71, "drop-invalid-packets", Flag, Builtin("what is not valid STUN gets no answer")),
    o(71, "drop-invalid-packets-log", Flag, Dropped("dropped packets are counted in the metrics, by reason")),
    o(72, "udp-recvmmsg", Flag, Builtin("datagrams are read and written in batches")),
    o(72, "udp-recvmmsg-log", Flag, Dropped("datagrams are counted in the metrics")),
    o(72, "udp-sendmmsg-log", Flag, Dropped("datagrams are counted in the metrics")),
    o(72, "udp-gso", Flag, Builtin("used where the kernel has it")),
    o(72, "multiplex-peer", Switch, Key("relay.ports")),
    o(72, "multiplex-peer-port", Port, Key("relay.ports")),
    o(72, "multiplex-peer-max-peers", Number, Builtin("an allocation has as many peers as permissions")),
    o(73, "drain-min-allocations", Number, Dropped("a drain waits for all calls, at most relay.drain_timeout")),
    o(74, "ne", Number, Dropped("picks coturn's network engine")),
    o(74, "no-loopback-peers", Flag, Builtin("loopback peers are forbidden")),
    o(74, "udp-relay-servers-number", Number, Dropped(OBSOLETE)),
    o(74, "secret-ts-exp-time", Number, Dropped(OBSOLETE)),
    o(74, "prod", Flag, Builtin("SOFTWARE is never sent")),
];
