//! Peer lists: coturn's `A` and `A-B`, and CIDR, as networks.

use std::net::IpAddr;

use crate::turn::Network;

/// The fewest networks that make up this address, range or network.
pub(super) fn parse(text: &str) -> Result<Vec<String>, String> {
    let address = |text: &str| {
        let wrong =
            || format!("expected an address, FIRST-LAST or a network such as 192.0.2.0/24, found \"{text}\"");
        text.trim().parse::<IpAddr>().map_err(|_| wrong())
    };
    if text.contains('/') {
        let network = text.parse::<Network>().map_err(|e| format!("\"{text}\": {e}"))?;
        return Ok(vec![format!("{}/{}", network.base(), network.prefix())]);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (address(first)?, address(last)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            let as_address =
                |bits: u128| IpAddr::from(u32::try_from(bits).expect("between two of 32 bits").to_be_bytes());
            Ok(cover(u32::from(first).into(), u32::from(last).into(), 32, as_address))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Ok(cover(first.into(), last.into(), 128, |bits| IpAddr::from(bits.to_be_bytes())))
        }
        _ => Err(format!("expected FIRST-LAST of one family, the lower one first, found \"{text}\"")),
    }
}

/// Networks that are exactly `first..=last`: at each step the largest that starts there and ends in time.
fn cover(first: u128, last: u128, width: u32, address: impl Fn(u128) -> IpAddr) -> Vec<String> {
    let mut networks = Vec::new();
    let mut next = Some(first);
    while let Some(start) = next.filter(|start| *start <= last) {
        // Both bounds are below the width, so the shift is.
        let aligned = start.trailing_zeros().min(width);
        let fitting = (last - start).checked_add(1).map_or(width, |size| size.ilog2().min(width));
        let bits = aligned.min(fitting);
        networks.push(format!("{}/{}", address(start), width - bits));
        next = 1_u128.checked_shl(bits).and_then(|size| start.checked_add(size));
    }
    networks
}
