//! What this system allows: capabilities, interfaces, route look-ups, and the header fields of what it
//! sends.

use std::fs;
use std::path::Path;

use super::error::OffloadError;

const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const SYS_ADMIN: u32 = 21;
const ETHERNET: &str = "1";
const FORWARDING: &str = "/proc/sys/net/ipv4/conf/lo/forwarding";

/// Which of the capabilities that are needed this process lacks.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u32| held >> bit & 1 == 1;
    // CAP_SYS_ADMIN is what two of them were before they had names.
    let lacks = |bit: u32| !(has(bit) || bit > 31 && has(SYS_ADMIN));
    NEEDED.into_iter().filter(|(bit, _)| lacks(*bit)).map(|(_, name)| name).collect()
}

/// Its index, if it is one that Ethernet frames arrive at.
pub(super) fn index_of(interface: &str) -> Result<u32, OffloadError> {
    let known = Path::new("/sys/class/net").join(interface);
    let read = |what: &str| fs::read_to_string(known.join(what)).unwrap_or_default().trim().to_owned();
    if interface.contains('/') || !known.exists() {
        return Err(OffloadError::Interface(format!("there is no interface {interface}")));
    }
    if read("type") != ETHERNET {
        return Err(OffloadError::Interface(format!(
            "{interface} is not Ethernet, packets there cannot be offloaded"
        )));
    }
    read("ifindex").parse().map_err(|_| OffloadError::Interface(format!("{interface} has no index")))
}

/// Whether a device stands behind the interface, so that a driver of its own sends what XDP hands it.
/// Virtual ones often drop that silently.
pub(super) fn is_device(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).join("device").exists()
}

/// Whether routes of IPv4 and of IPv6 can be looked up. The program asks as the loopback interface would,
/// for the routes of this host's own sockets, and the kernel answers interfaces that forward. The loopback
/// has nothing to forward, so this is turned on here; for IPv6 it is not, since that would forget the
/// default routes of router advertisements.
pub(super) fn lookups() -> [bool; 2] {
    let is_on = |path: &str| fs::read_to_string(path).is_ok_and(|value| value.trim() != "0");
    if !is_on(FORWARDING) {
        // Whether it worked is read below.
        let _ = fs::write(FORWARDING, "1");
    }
    [is_on(FORWARDING), is_on("/proc/sys/net/ipv6/conf/lo/forwarding")]
}

/// TTL and hop limit of what this host's sockets send.
pub(super) fn hop_limits() -> [u8; 2] {
    let read =
        |path: &str| fs::read_to_string(path).ok().and_then(|value| value.trim().parse().ok()).unwrap_or(64);
    [read("/proc/sys/net/ipv4/ip_default_ttl"), read("/proc/sys/net/ipv6/conf/default/hop_limit")]
}
