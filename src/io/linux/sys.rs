//! The structures of the socket calls, and the calls themselves behind safe names where that is
//! possible.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;

/// A socket address as the kernel reads and writes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    pub(super) const LEN: libc::socklen_t = size_of::<Self>() as libc::socklen_t;

    pub(super) const fn zeroed() -> Self {
        // SAFETY: all three variants are plain integers and arrays of them; zero is a value of each.
        unsafe { std::mem::zeroed() }
    }

    /// Stores an address and returns how many bytes of it count.
    pub(super) fn set(&mut self, address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(a) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: a.port().to_be(),
                    sin_addr: in_addr(*a.ip()),
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(a) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: a.port().to_be(),
                    sin6_flowinfo: a.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                    sin6_scope_id: a.scope_id(),
                };
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }

    /// Reads an address the kernel has written.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        // SAFETY: every variant begins with the family, and all bytes are initialised.
        match i32::from(unsafe { self.family }) {
            libc::AF_INET => {
                // SAFETY: any bytes are a valid sockaddr_in.
                let a = unsafe { self.v4 };
                Some(SocketAddrV4::new(ip4(a.sin_addr), u16::from_be(a.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: any bytes are a valid sockaddr_in6.
                let a = unsafe { self.v6 };
                let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) }
}

fn ip4(addr: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(addr.s_addr.to_ne_bytes())
}

/// Room for the control messages of one datagram: the local address, header fields and a segment size.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; Self::LEN]);

impl Control {
    pub(super) const LEN: usize = 192;

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
        match to {
            SocketAddr::V4(_) => self.append(used, libc::IPPROTO_IP, libc::IP_TOS, libc::c_int::from(tos)),
            SocketAddr::V6(_) => {
                self.append(used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::c_int::from(tos))
            }
        }
    }

    /// Says the payload is a run of datagrams of `segment` bytes.
    pub(super) fn set_segment(&mut self, used: usize, segment: usize) -> usize {
        self.append(used, libc::SOL_UDP, libc::UDP_SEGMENT, segment as u16)
    }
}

/// What the kernel said about a received datagram beside its bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) to: Option<IpAddr>,
    pub(super) stride: Option<usize>,
    pub(super) tos: u8,
}

/// Reads the control messages of a received datagram.
pub(super) fn told(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: `header` describes a control buffer of ours that the kernel has filled, and the macros
    // walk within `msg_controllen`; values are read unaligned with the type their level and kind have.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    told.to = Some(ip4(info.ipi_spec_dst).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    told.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => told.tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    told.tos = data.cast::<libc::c_int>().read_unaligned() as u8;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    told.stride = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    told
}

pub(super) const fn empty_message() -> libc::mmsghdr {
    // SAFETY: a header of null pointers and zero lengths is valid; nothing is read through it.
    unsafe { std::mem::zeroed() }
}

pub(super) fn set_option(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// SO_MEMINFO's drop counter; 0 where the kernel does not know it.
pub(super) fn dropped(fd: RawFd) -> u32 {
    let mut info = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the pointer and length describe `info`, and the kernel writes at most `len` bytes.
    unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut len);
    }
    info[libc::SK_MEMINFO_DROPS as usize]
}

pub(super) fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a live rlimit of ours.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                return raised.rlim_cur;
            }
        }
    }
    limit.rlim_cur
}

/// # Safety
/// Every header's name, iovecs and control must point to live memory of the lengths they give, which
/// nothing else uses during the call.
pub(super) unsafe fn recvmmsg(fd: RawFd, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    // SAFETY: passed on to the caller; the slice bounds the headers.
    let n = unsafe {
        libc::recvmmsg(
            fd,
            messages.as_mut_ptr(),
            messages.len() as u32,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// # Safety
/// As for [`recvmmsg`].
pub(super) unsafe fn recvmsg(fd: RawFd, message: &mut libc::mmsghdr) -> io::Result<usize> {
    // SAFETY: passed on to the caller.
    let n = unsafe { libc::recvmsg(fd, &raw mut message.msg_hdr, libc::MSG_DONTWAIT) };
    let len = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    message.msg_len = len as u32;
    Ok(1)
}

/// # Safety
/// Every header's name, iovecs and control must point to live memory of the lengths they give.
pub(super) unsafe fn sendmmsg(fd: RawFd, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    // SAFETY: passed on to the caller; the slice bounds the headers.
    let n = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), messages.len() as u32, libc::MSG_DONTWAIT) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// # Safety
/// As for [`sendmmsg`].
pub(super) unsafe fn sendmsg(fd: RawFd, message: &libc::msghdr) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    let n = unsafe { libc::sendmsg(fd, message, libc::MSG_DONTWAIT) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
