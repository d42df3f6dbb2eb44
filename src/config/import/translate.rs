//! From coturn's options to our keys: one function for each group of keys.

use std::net::IpAddr;
use std::path::Path;

use toml::Table;

use super::draft::{Draft, Fate};
use super::networks;
use super::options::Becomes;
use super::place::{self, Items, host, not_an_address, port_range, whole};
use super::syntax::{self, Entries, Entry};
use crate::config::source::Error;

/// Translates what the table of options leaves to us. Relative paths count from `base`.
pub(super) fn translate(draft: &mut Draft<'_>, e: &Entries, base: &Path) -> Result<(), Error> {
    refuse(draft, e)?;
    place::listeners(draft, e)?;
    place::addresses(draft, e)?;
    place::ports(draft, e);
    relay(draft, e)?;
    credentials(draft, e)?;
    peers(draft, e)?;
    quotas(draft, e);
    certificate(draft, e, base);
    admin(draft, e)?;
    log(draft, e);
    differences(draft, e);
    Ok(())
}

/// What cannot be left out without serving somebody the file keeps out.
fn refuse(draft: &Draft<'_>, e: &Entries) -> Result<(), Error> {
    for entry in e.0.iter().filter(|entry| entry.value != syntax::Value::Flag(false)) {
        match entry.option.becomes {
            Becomes::Refused(_) if entry.option.name == "no-udp-relay" && stun_only(e).is_some() => {}
            Becomes::Refused(why) => return Err(draft.fail(entry, format!("cannot be kept: {why}"))),
            Becomes::Key(_) | Becomes::Builtin(_) | Becomes::Dropped(_) => {}
        }
    }
    match e.text("rest-api-separator") {
        Some((separator, entry)) if !separator.starts_with(':') => {
            let problem = "cannot be kept: time-limited user names are EXPIRY:NAME here, with a colon";
            Err(draft.fail(entry, problem))
        }
        _ => Ok(()),
    }
}

/// The lines because of which nothing is relayed.
fn stun_only(e: &Entries) -> Option<Vec<&Entry>> {
    match (e.on("stun-only"), e.on("no-udp-relay"), e.on("no-tcp-relay")) {
        (Some(entry), _, _) => Some(vec![entry]),
        (None, Some(udp), Some(tcp)) => Some(vec![udp, tcp]),
        _ => None,
    }
}

fn relay(draft: &mut Draft<'_>, e: &Entries) -> Result<(), Error> {
    let threads = e.number("relay-threads").or_else(|| e.number("cpus"));
    if let Some((threads, entry)) = threads {
        draft.set("relay.workers", whole(threads.clamp(1, 256)), [entry]);
    }
    if let Some((bytes, entry)) = e.number("sock-buf-size") {
        draft.set("relay.socket_buffer", whole(bytes.clamp(1 << 14, 1 << 30)), [entry]);
    }
    if let Some((seconds, entry)) = e.number("max-allocate-lifetime") {
        if seconds < 600 {
            let least = "RFC 8656 §7.2 grants at least ten minutes; relay.max_lifetime is that";
            draft.remark(entry, Fate::Warning(least.into()));
        }
        draft.set("relay.max_lifetime", format!("{}s", seconds.max(600)), [entry]);
    }
    if let Some(entry) = e.on("mobility") {
        draft.set("relay.mobility", true, [entry]);
    }
    // Accepted without a word by coturn before 4.17, and used by its clients.
    let legacy_channels = e.last("rfc5766-channel-numbers");
    let is_refused = legacy_channels.is_some_and(|entry| entry.value == syntax::Value::Flag(false));
    draft.set("relay.legacy_channels", !is_refused, legacy_channels);
    if let Some(entry) = e.last("no-tcp-relay") {
        draft.set("relay.tcp", entry.value == syntax::Value::Flag(false), [entry]);
    }
    place::behaviour_discovery(draft, e);
    place::redirect(draft, e)
}

fn credentials(draft: &mut Draft<'_>, e: &Entries) -> Result<(), Error> {
    match e.text("realm") {
        Some((realm, entry)) if realm != "(None)" => draft.set("relay.realm", realm, [entry]),
        _ => {
            if let Some(entry) = e.last("realm") {
                draft.drop(entry, "an empty realm: many clients refuse it; relay.realm stays \"turnkey\"");
            }
        }
    }
    if stun_only(e).is_some() {
        for entry in e.all("user").chain(e.all("static-auth-secret")) {
            draft.drop(entry, "nothing is relayed, so nobody needs a credential");
        }
        return Ok(());
    }
    let secrets: Items<'_> =
        e.texts("static-auth-secret").map(|(text, entry)| (text.to_owned(), Some(entry))).collect();
    let is_time_limited = e.on("use-auth-secret").or(e.last("static-auth-secret"));
    if let Some(switch) = is_time_limited {
        if secrets.is_empty() {
            let missing = "its secret is in the user database (turnadmin -S shows it): write it into credentials.secrets";
            draft.remark(switch, Fate::Warning(missing.into()));
        } else {
            draft.set_list("credentials.secrets", secrets, []);
            draft.set("credentials.max_ttl", "7d", []);
        }
        for entry in e.all("user") {
            draft.drop(
                entry,
                "coturn ignores users beside use-auth-secret; turnkey serves both, see credentials.users",
            );
        }
        return Ok(());
    }
    users(draft, e)
}

/// `user=NAME:PASSWORD`, or `NAME:0xKEY` with the MD5 of `NAME:REALM:PASSWORD`.
fn users(draft: &mut Draft<'_>, e: &Entries) -> Result<(), Error> {
    let (mut passwords, mut keys) = ((Table::new(), Vec::new()), (Table::new(), Vec::new()));
    for (text, entry) in e.texts("user") {
        let (name, password) =
            text.split_once(':').map(|(name, rest)| (name, rest.trim_start())).unwrap_or_default();
        if name.is_empty() || password.is_empty() {
            return Err(draft.fail(entry, "expected NAME:PASSWORD or NAME:0xKEY"));
        }
        let Some(key) = password.strip_prefix("0x") else {
            passwords.0.insert(name.to_owned(), password.into());
            passwords.1.push(entry);
            continue;
        };
        if key.len() != 32 || !key.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(
                draft.fail(entry, "expected 32 hexadecimal digits behind 0x, as turnadmin -k prints them")
            );
        }
        if e.text("realm").is_none() {
            return Err(
                draft.fail(entry, "the key was made for one realm, and the file names none: add realm=…")
            );
        }
        keys.0.insert(name.to_owned(), key.to_ascii_lowercase().into());
        keys.1.push(entry);
    }
    for (path, (table, entries)) in [("credentials.users", passwords), ("credentials.user_keys", keys)] {
        if !table.is_empty() {
            draft.set(path, table, entries);
        }
    }
    Ok(())
}

fn peers(draft: &mut Draft<'_>, e: &Entries) -> Result<(), Error> {
    let mut allow = Items::new();
    if let Some(entry) = e.on("allow-loopback-peers") {
        allow.extend(["127.0.0.0/8", "::1/128"].map(|network| (network.to_owned(), Some(entry))));
    }
    let mut deny = Items::new();
    for (list, option) in [(&mut allow, "allowed-peer-ip"), (&mut deny, "denied-peer-ip")] {
        for (text, entry) in e.texts(option) {
            let found = networks::parse(text).map_err(|problem| draft.fail(entry, problem))?;
            list.extend(found.into_iter().map(|network| (network, Some(entry))));
        }
    }
    for (path, list) in [("peers.allow", allow), ("peers.deny", deny)] {
        if !list.is_empty() {
            draft.set_list(path, list, []);
        }
    }
    Ok(())
}

fn quotas(draft: &mut Draft<'_>, e: &Entries) {
    let limits = [
        ("user-quota", "quota.user"),
        ("max-bps", "quota.allocation_bytes_per_second"),
        ("bps-capacity", "quota.total_bytes_per_second"),
    ];
    for (option, key) in limits {
        if let Some((number, entry)) = e.number(option) {
            draft.set(key, whole(number), [entry]);
        }
    }
    let Some((total, entry)) = e.number("total-quota") else { return };
    let (from, to) = port_range(e);
    let ports = (to + 1).saturating_sub(from);
    if total > ports && e.on("multiplex-peer").is_none() {
        draft.remark(
            entry,
            Fate::Warning(format!("each allocation takes one of {ports} ports: quota.total is that")),
        );
    }
    let most = if e.on("multiplex-peer").is_some() { total } else { total.min(ports) };
    draft.set("quota.total", whole(most), [entry]);
}

fn certificate(draft: &mut Draft<'_>, e: &Entries, base: &Path) {
    let path = |text: &str| base.join(text).display().to_string();
    let Some((cert, entry)) = e.text("cert") else {
        if let Some((_, entry)) = e.text("pkey") {
            draft.drop(entry, "there is no cert beside it");
        }
        return;
    };
    draft.set("tls.cert", path(cert), [entry]);
    // coturn's own default name.
    let (key, from) = e.text("pkey").unwrap_or(("turn_server_pkey.pem", entry));
    draft.set("tls.key", path(key), [from]);
}

/// coturn shows metrics to everybody; turnkey to this host, unless the file names an address.
fn admin(draft: &mut Draft<'_>, e: &Entries) -> Result<(), Error> {
    let Some(on) = e.on("prometheus").or_else(|| e.on("prometheus-tls")) else {
        draft.set("admin.listen", "", []);
        return Ok(());
    };
    let port = e.number("prometheus-port");
    let address = e.text("prometheus-address");
    let ip = match address {
        Some((text, entry)) => text.parse().map_err(|_| draft.fail(entry, not_an_address(text)))?,
        None => IpAddr::from([127, 0, 0, 1]),
    };
    let listen = format!("{}:{}", host(ip), port.map_or(9641, |(port, _)| port));
    let lines = [Some(on), port.map(|(_, entry)| entry), address.map(|(_, entry)| entry)];
    draft.set("admin.listen", listen, lines.into_iter().flatten());
    match address {
        None => draft
            .remark(on, Fate::Warning("coturn shows metrics to everybody; here only to this host".into())),
        Some((_, entry)) if !ip.is_loopback() => {
            draft.remark(entry, Fate::Danger("whoever reaches this address reads the metrics".into()));
        }
        Some(_) => {}
    }
    if let Some((path, entry)) = e.text("prometheus-path")
        && path != "/metrics"
    {
        draft.drop(entry, "metrics are at /metrics");
    }
    Ok(())
}

fn log(draft: &mut Draft<'_>, e: &Entries) {
    if let Some(entry) = e.on("Verbose").or_else(|| e.on("verbose")) {
        return draft.set("log.level", "debug", [entry]);
    }
    let Some((level, entry)) = e.text("log-min-level") else { return };
    match level.to_ascii_lowercase().as_str() {
        "warning" => draft.set("log.level", "warn", [entry]),
        level @ ("debug" | "info" | "error") => draft.set("log.level", level, [entry]),
        _ => draft.drop(entry, "expected debug, info, warning or error"),
    }
}

/// Where the file is silent, and silence means something else here.
fn differences(draft: &mut Draft<'_>, e: &Entries) {
    let stun_only = stun_only(e);
    draft.set("http.listen", Vec::<String>::new(), stun_only.clone().unwrap_or_default());
    if stun_only.is_some() {
        let how = "nobody gets a credential, so nothing is relayed; Binding is answered";
        return draft.remark_all(Fate::Builtin(how.into()));
    }
    for (name, entry) in [("cli", e.on("cli")), ("web-admin", e.on("web-admin"))] {
        if let Some(entry) = entry.filter(|_| name == "web-admin" || e.text("cli-password").is_none()) {
            draft.remark(
                entry,
                Fate::Danger(
                    "in coturn, without a password for it, everybody on this host is its administrator"
                        .into(),
                ),
            );
        }
    }
    let has_login =
        ["user", "static-auth-secret", "use-auth-secret"].into_iter().any(|name| e.last(name).is_some());
    if !has_login {
        let what = "the file has no user and no secret: coturn serves everybody then, turnkey only who has a credential \
                    (turnkey credentials --user NAME makes one)";
        draft.remark_all(Fate::Warning(what.into()));
    }
    if e.text("static-auth-secret").is_some() {
        let how = "credentials that end in more than 7 days are refused, see credentials.max_ttl";
        draft.remark_all(Fate::Builtin(how.into()));
    }
    draft.remark_all(Fate::Builtin(
        "peers on loopback, private, link-local and other special networks are forbidden unless peers.allow names them".into(),
    ));
    draft.remark_all(Fate::Builtin(
        "web page, API and signaling are off; http.listen = [\"127.0.0.1:8080\"] is the usual".into(),
    ));
}
