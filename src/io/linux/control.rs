//! Control messages: what the kernel says about a datagram beside its bytes, and what is asked of it
//! for one. Reading is safe code over the bytes the kernel has filled.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::sys::in_addr;

/// Room for the control messages of one datagram. The most that comes is an ICMP error over IPv6 with
/// the address and the header fields of the packet that brought it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; Self::LEN]);

impl Control {
    pub(super) const LEN: usize = 256;

    pub(super) const fn zeroed() -> Self {
        Self([0; Self::LEN])
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr().cast()
    }

    /// Appends a control message behind the first `used` bytes; returns the bytes used then.
    fn append<T: Copy>(&mut self, used: usize, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
        // SAFETY: CMSG_SPACE and CMSG_LEN compute with their argument only.
        let (space, len) = unsafe {
            (libc::CMSG_SPACE(size_of::<T>() as u32) as usize, libc::CMSG_LEN(size_of::<T>() as u32) as usize)
        };
        assert!(used + space <= Self::LEN, "control messages fit");
        // SAFETY: the assertion keeps header and value within the array; `used` is a sum of
        // CMSG_SPACEs, so the header is aligned as the array is; the value is written unaligned.
        unsafe {
            let header = self.0.as_mut_ptr().add(used).cast::<libc::cmsghdr>();
            header.write(libc::cmsghdr { cmsg_len: len, cmsg_level: level, cmsg_type: kind });
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        used + space
    }

    /// Says which local address a datagram shall leave from.
    pub(super) fn set_source(&mut self, source: IpAddr) -> usize {
        match source {
            IpAddr::V4(ip) => {
                let spec = in_addr(ip);
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: spec,
                    ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
                };
                self.append(0, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
            }
            IpAddr::V6(ip) => {
                let addr = libc::in6_addr { s6_addr: ip.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: addr, ipi6_ifindex: 0 };
                self.append(0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
            }
        }
    }

    /// Says which DSCP and ECN a datagram shall carry.
    pub(super) fn set_tos(&mut self, used: usize, to: SocketAddr, tos: u8) -> usize {
        let tos = libc::c_int::from(tos);
        match to {
            SocketAddr::V4(_) => self.append(used, libc::IPPROTO_IP, libc::IP_TOS, tos),
            SocketAddr::V6(_) => self.append(used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, tos),
        }
    }

    /// Says the payload is a run of datagrams of `segment` bytes.
    pub(super) fn set_segment(&mut self, used: usize, segment: usize) -> usize {
        self.append(used, libc::SOL_UDP, libc::UDP_SEGMENT, segment as u16)
    }

    /// What the kernel said in the first `len` bytes.
    pub(super) fn told(&self, len: usize) -> Told {
        told(&self.0[..len.min(Self::LEN)])
    }
}

/// What the kernel said about a received datagram or error beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The local address it came to.
    pub(super) to: Option<IpAddr>,
    /// Bytes of each datagram of a run.
    pub(super) stride: Option<usize>,
    /// DSCP and ECN.
    pub(super) tos: u8,
    /// Datagrams dropped so far because the receive buffer was full; told once there were any.
    pub(super) dropped: Option<u32>,
    /// Why a datagram sent before did not arrive.
    pub(super) error: Option<ExtendedError>,
}

/// What counts of `struct sock_extended_err`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExtendedError {
    pub(super) origin: u8,
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) info: u32,
}

fn told(bytes: &[u8]) -> Told {
    let mut told = Told::default();
    for (level, kind, data) in messages(bytes) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // ifindex, spec_dst, addr
                told.to = field(data, 4).map(|octets: [u8; 4]| Ipv4Addr::from(octets).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                told.to = field(data, 0).map(|octets: [u8; 16]| Ipv6Addr::from(octets).into());
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => told.tos = data.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                told.tos = field(data, 0).map_or(0, |bytes| libc::c_int::from_ne_bytes(bytes) as u8);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let stride = field(data, 0).map(libc::c_int::from_ne_bytes);
                told.stride = stride.and_then(|stride| usize::try_from(stride).ok());
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => told.dropped = field(data, 0).map(u32::from_ne_bytes),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                told.error = extended_error(data);
            }
            _ => {}
        }
    }
    told
}

fn extended_error(data: &[u8]) -> Option<ExtendedError> {
    let [origin, kind, code, _] = field(data, 4)?;
    Some(ExtendedError { origin, kind, code, info: u32::from_ne_bytes(field(data, 8)?) })
}

/// `N` bytes of `data` from `at` on.
fn field<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// Level, kind and value of each control message.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    const WORD: usize = size_of::<usize>();
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(field(rest, 0)?);
        let level = libc::c_int::from_ne_bytes(field(rest, WORD)?);
        let kind = libc::c_int::from_ne_bytes(field(rest, WORD + size_of::<libc::c_int>())?);
        let data = rest.get(size_of::<libc::cmsghdr>()..len)?;
        rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        Some((level, kind, data))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A control message as the kernel writes it.
    fn message(level: libc::c_int, kind: libc::c_int, data: &[u8]) -> Vec<u8> {
        let mut bytes = (size_of::<libc::cmsghdr>() + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn everything_asked_for_is_read() {
        let error = [&111_i32.to_ne_bytes()[..], &[2, 3, 4, 0], &1300_u32.to_ne_bytes(), &[0; 20]].concat();
        let pktinfo = [&7_i32.to_ne_bytes()[..], &[192, 0, 2, 1], &[192, 0, 2, 255]].concat();
        let bytes = [
            message(libc::IPPROTO_IP, libc::IP_PKTINFO, &pktinfo),
            message(libc::IPPROTO_IP, libc::IP_TOS, &[0xB8]),
            message(libc::SOL_UDP, libc::UDP_GRO, &1200_i32.to_ne_bytes()),
            message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9_u32.to_ne_bytes()),
            message(libc::IPPROTO_IP, libc::IP_RECVERR, &error),
        ]
        .concat();
        let error = ExtendedError { origin: 2, kind: 3, code: 4, info: 1300 };
        let expected = Told {
            to: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
            stride: Some(1200),
            tos: 0xB8,
            dropped: Some(9),
            error: Some(error),
        };
        assert_eq!(told(&bytes), expected);
        assert_eq!(told(&[]), Told::default());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut control = Control::zeroed();
        let source = "2001:db8::7".parse().unwrap();
        let used = control.set_source(source);
        let used = control.set_tos(used, "[::1]:1".parse().unwrap(), 0xFD);
        let told = control.told(used);
        assert_eq!((told.to, told.tos), (Some(source), 0xFD));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = told(&bytes);
        }

        #[test]
        fn a_message_cut_anywhere_says_nothing_wrong(
            tos in any::<u8>(), info in any::<u32>(), cut in 0_usize..64
        ) {
            let error = [&90_i32.to_ne_bytes()[..], &[3, 2, 0, 0], &info.to_ne_bytes(), &[0; 4]].concat();
            let whole = [
                message(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &i32::from(tos).to_ne_bytes()),
                message(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &error),
            ]
            .concat();
            let told = told(&whole[..cut.min(whole.len())]);
            prop_assert!(told.tos == tos || told.tos == 0 && cut < 20);
            let expected = ExtendedError { origin: 3, kind: 2, code: 0, info };
            prop_assert!(told.error.is_none_or(|error| error == expected));
        }
    }
}
