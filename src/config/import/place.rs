//! Listeners, addresses and ports: what of a `turnserver.conf` says where the relay is.

use std::net::{IpAddr, SocketAddr};

use toml::{Table, Value};

use super::draft::{Draft, Fate};
use super::syntax::{self, Entries, Entry};
use crate::config::source::Error;

/// List items, each with the line it comes from where there is one.
pub(super) type Items<'e> = Vec<(String, Option<&'e Entry>)>;

pub(super) fn listeners(draft: &mut Draft<'_>, e: &Entries) -> Result<(), Error> {
    let ips = listening_ips(draft, e)?;
    let mut listen = Items::new();
    for (scheme, port) in transports(e) {
        listen.extend(ips.iter().map(|(ip, entry)| (format!("{scheme}://{ip}:{port}"), *entry)));
    }
    for (address, entry) in e.texts("aux-server") {
        listen.extend(["udp", "tcp"].map(|scheme| (format!("{scheme}://{address}"), Some(entry))));
    }
    if let Some((port, entry)) = e.number("tcp-proxy-port") {
        listen.extend(ips.iter().map(|(ip, _)| (format!("tcp://{ip}:{port}"), Some(entry))));
        draft.set("relay.proxy_from", strings(&["127.0.0.0/8", "::1/128"]), [entry]);
        let where_it_is = "unless the proxy is on this host, add its address to relay.proxy_from";
        draft.remark(entry, Fate::Warning(where_it_is.into()));
    }
    let asked = listener_lines(e);
    if !asked.is_empty() {
        draft.set_list("relay.listen", listen, asked);
    }
    Ok(())
}

fn listening_ips<'e>(draft: &Draft<'_>, e: &'e Entries) -> Result<Items<'e>, Error> {
    let ips = e.texts("listening-ip").map(|(text, entry)| {
        let ip: IpAddr = text.parse().map_err(|_| draft.fail(entry, not_an_address(text)))?;
        Ok((host(ip), Some(entry)))
    });
    let ips: Items<'e> = ips.collect::<Result<_, _>>()?;
    let all = || ["0.0.0.0", "[::]"].map(|ip| (ip.to_owned(), None)).to_vec();
    Ok(if ips.is_empty() { all() } else { ips })
}

/// Which transports are served, at which port.
fn transports(e: &Entries) -> impl Iterator<Item = (&'static str, u64)> {
    let plain = e.number("listening-port").map_or(3478, |(port, _)| port);
    let secure = e.number("tls-listening-port").map_or(5349, |(port, _)| port);
    let all = [
        ("udp", plain, e.on("no-udp").is_none()),
        ("tcp", plain, e.on("no-tcp").is_none()),
        ("tls", secure, e.text("cert").is_some() && e.on("no-tls").is_none()),
        ("dtls", secure, e.text("cert").is_some() && dtls(e).is_some()),
    ];
    all.into_iter().filter(|(_, _, is_on)| *is_on).map(|(scheme, port, _)| (scheme, port))
}

/// The line that asks for DTLS: `dtls` and `no-dtls` are one switch, and the last line counts.
fn dtls(e: &Entries) -> Option<&Entry> {
    let switch = e.0.iter().rev().find(|entry| matches!(entry.option.name, "dtls" | "no-dtls"));
    switch.filter(|entry| entry.value == syntax::Value::Flag(entry.option.name == "dtls"))
}

/// The lines that say something about listeners, besides those of the items themselves.
fn listener_lines(e: &Entries) -> Vec<&Entry> {
    let ports = ["listening-port"].into_iter().filter_map(|name| e.number(name).map(|(_, entry)| entry));
    let flags = ["no-udp", "no-tcp"].into_iter().filter_map(|name| e.on(name));
    let items =
        ["listening-ip", "aux-server"].into_iter().filter_map(|name| e.text(name).map(|(_, entry)| entry));
    let mut lines: Vec<_> = ports.chain(flags).chain(items).collect();
    lines.extend(e.number("tcp-proxy-port").map(|(_, entry)| entry));
    if let Some((_, cert)) = e.text("cert") {
        let secure = e.number("tls-listening-port").map(|(_, entry)| entry);
        lines.extend([Some(cert), e.on("no-tls"), secure, dtls(e)].into_iter().flatten());
    }
    lines
}

/// `external-ip` and `relay-ip`: what the world sees, and what sockets are bound to.
pub(super) fn addresses(draft: &mut Draft<'_>, e: &Entries) -> Result<(), Error> {
    let address =
        |text: &str, entry| text.parse::<IpAddr>().map_err(|_| draft.fail(entry, not_an_address(text)));
    let mut relays = Vec::new();
    let own = if e.text("relay-ip").is_some() { "relay-ip" } else { "listening-ip" };
    for (text, entry) in e.texts(own) {
        relays.push((address(text, entry)?, entry));
    }
    // A client gets the address it came to; a single one is found without being named.
    let is_concrete = relays.iter().all(|(ip, _)| !ip.is_unspecified());
    if own == "listening-ip" && !(is_concrete && has_several(&relays)) {
        relays.clear();
    }
    let mut public = Items::new();
    for (text, entry) in e.texts("external-ip") {
        let (outside, inside) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let outside = address(outside.trim(), entry)?;
        let inside = inside.map(|text| address(text.trim(), entry)).transpose()?;
        let bound = relays.iter().find(|(ip, _)| ip.is_ipv4() == outside.is_ipv4());
        let item = match inside.or(bound.map(|(ip, _)| *ip)) {
            Some(inside) => format!("{outside}/{inside}"),
            None => outside.to_string(),
        };
        public.push((item, Some(entry)));
    }
    // Relay addresses that no external one stands for are seen as they are.
    let stands_for = |ip: IpAddr| {
        let of_family = |text: &str| text.split('/').next().is_some_and(|text| is_family(text, ip));
        public.iter().any(|(item, _)| of_family(item))
    };
    let (hidden, seen): (Vec<_>, Vec<_>) = relays.into_iter().partition(|(ip, _)| stands_for(*ip));
    public.extend(seen.into_iter().map(|(ip, entry)| (ip.to_string(), Some(entry))));
    if !public.is_empty() {
        draft.set_list("relay.public_address", public, hidden.into_iter().map(|(_, entry)| entry));
    }
    Ok(())
}

/// Whether there are two of one family.
fn has_several(ips: &[(IpAddr, &Entry)]) -> bool {
    let v4 = ips.iter().filter(|(ip, _)| ip.is_ipv4()).count();
    v4 > 1 || ips.len() - v4 > 1
}

fn is_family(text: &str, ip: IpAddr) -> bool {
    text.parse::<IpAddr>().is_ok_and(|other| other.is_ipv4() == ip.is_ipv4())
}

pub(super) fn ports(draft: &mut Draft<'_>, e: &Entries) {
    let (first, last) = (e.number("min-port"), e.number("max-port"));
    let range = [first, last].into_iter().flatten().map(|(_, entry)| entry);
    let shared = [e.on("multiplex-peer"), e.number("multiplex-peer-port").map(|(_, entry)| entry)];
    let shared = shared.into_iter().flatten();
    if e.on("multiplex-peer").is_some() {
        let port = e.number("multiplex-peer-port").map_or(3480, |(port, _)| port);
        draft.set("relay.ports", format!("shared:{port}"), shared);
        range.for_each(|entry| draft.drop(entry, "all allocations share the port of multiplex-peer"));
        return;
    }
    if first.is_some() || last.is_some() {
        let (from, to) = port_range(e);
        draft.set("relay.ports", format!("{from}-{to}"), range);
    }
}

pub(super) fn port_range(e: &Entries) -> (u64, u64) {
    let port = |name, default| e.number(name).map_or(default, |(port, _)| port);
    (port("min-port", 49152), port("max-port", 65535))
}

/// RFC 5780 needs a second address of the same family; coturn takes the next of its listening addresses.
pub(super) fn behaviour_discovery(draft: &mut Draft<'_>, e: &Entries) {
    let Some(entry) = e.on("rfc5780") else { return };
    let ips: Vec<IpAddr> = e.texts("listening-ip").filter_map(|(text, _)| text.parse().ok()).collect();
    let second =
        ips.iter().enumerate().find(|(i, ip)| ips[..*i].iter().any(|first| first.is_ipv4() == ip.is_ipv4()));
    let Some((_, second)) = second else {
        return draft.drop(entry, "needs two addresses of one family in listening-ip, as in coturn");
    };
    // Behind 1:1 NAT an external-ip line says how the world sees it.
    let is_seen_as =
        |text: &&str| text.split_once('/').is_some_and(|(_, inside)| inside.parse() == Ok(*second));
    let seen_as = e.texts("external-ip").map(|(text, _)| text).find(is_seen_as);
    let address = seen_as.map_or_else(|| second.to_string(), str::to_owned);
    let plain = e.number("listening-port").map_or(3478, |(port, _)| port);
    let given = e.number("alt-listening-port").filter(|(port, _)| *port != 0);
    let port = given.map_or(plain + 1, |(port, _)| port);
    let alternate =
        Table::from_iter([("address".to_owned(), Value::String(address)), ("port".to_owned(), whole(port))]);
    draft.set("relay.alternate", alternate, [entry].into_iter().chain(given.map(|(_, entry)| entry)));
}

/// `alternate-server`: coturn sends everybody there, turnkey whom it cannot serve; one address a family.
pub(super) fn redirect(draft: &mut Draft<'_>, e: &Entries) -> Result<(), Error> {
    let (mut to, mut lines): (Vec<SocketAddr>, Vec<&Entry>) = (Vec::new(), Vec::new());
    for (text, entry) in e.texts("alternate-server") {
        let with_port = text.parse::<SocketAddr>().ok();
        let bare = text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| (ip, 3478).into());
        let Some(address) = with_port.or(bare.ok()) else {
            return Err(draft.fail(entry, not_an_address(text)));
        };
        if to.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            draft.drop(entry, "relay.redirect takes one address a family");
            continue;
        }
        to.push(address);
        lines.push(entry);
    }
    let Some(first) = lines.first() else { return Ok(()) };
    let when = "coturn redirects every client, turnkey only while it drains or is full";
    draft.remark(first, Fate::Warning(when.into()));
    let to = to.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    draft.set("relay.redirect", Table::from_iter([("to".to_owned(), Value::String(to))]), lines);
    Ok(())
}

pub(super) fn not_an_address(text: &str) -> String {
    format!("expected an address such as 192.0.2.1 or 2001:db8::1, found \"{text}\"")
}

/// An address as it stands before a port.
pub(super) fn host(ip: IpAddr) -> String {
    crate::config::address::literal(ip)
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

pub(super) fn whole(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
