//! The structures of the socket calls, and the calls themselves behind safe names where that is
//! possible.

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::control::{Control, Told};

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

pub(super) fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) }
}

fn ip4(addr: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(addr.s_addr.to_ne_bytes())
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

/// Whether packets may only leave in one piece (DONT-FRAGMENT, RFC 8656 §14). Otherwise IPv4 leaves
/// without DF, and this host fragments IPv6.
///
/// PROBE rather than DO: the kernel then does not refuse what it believes too large for the path, and the
/// client hears from the path itself, with the port it sent to. OMIT rather than DONT: that would keep
/// back the ICMP answers that arrive once DF is off again.
pub(super) fn keep_whole(fd: RawFd, is_ipv4: bool, on: bool) -> io::Result<()> {
    match (is_ipv4, on) {
        (true, true) => set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        (true, false) => set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
            .or_else(|_| set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)),
        (false, true) => {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        }
        (false, false) => {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT)
        }
    }
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

/// CPU time of a process, its ended threads included; `None` if there is no such process.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    // 0 would be this one.
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid != 0)?;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut clock = 0;
    // SAFETY: both calls write to live variables of ours.
    let is_read = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    is_read.then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

/// A timer on the monotonic clock that nobody waits for in `read`.
pub(super) fn timer() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer; a descriptor that is not negative is new and nobody else's.
    unsafe {
        match libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Sets a timer to `wait` from now; zero would stop it and counts as a nanosecond.
pub(super) fn set_timer(fd: RawFd, wait: Duration) -> io::Result<()> {
    let wait = wait.max(Duration::from_nanos(1));
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let time = libc::itimerspec {
        it_interval: never,
        it_value: libc::timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        },
    };
    // SAFETY: the first pointer is to a live itimerspec, and no old value is asked for.
    let result = unsafe { libc::timerfd_settime(fd, 0, &raw const time, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(in crate::io) fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

// The calls of the data path: as the C library has them, but none at which a thread may be cancelled, which costs it more than
// its way into the kernel.

/// # Safety
/// Every header's name, iovecs and control must point to live memory of the lengths they give, which
/// nothing else uses during the call.
pub(super) unsafe fn recvmmsg(fd: RawFd, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    // SAFETY: passed on to the caller; the slice bounds the headers.
    let n = unsafe {
        libc::syscall(
            libc::SYS_recvmmsg,
            fd,
            messages.as_mut_ptr(),
            messages.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut::<libc::timespec>(),
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

/// Takes a message from the error queue: the destination of the datagram it is about, and its control
/// messages. The datagram itself is not asked for.
pub(super) fn recv_error(fd: RawFd) -> io::Result<(Name, Told)> {
    let mut name = Name::zeroed();
    let mut control = Control::zeroed();
    let mut message = empty_message();
    let header = &mut message.msg_hdr;
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = Name::LEN;
    header.msg_control = control.as_mut_ptr();
    header.msg_controllen = Control::LEN;
    // SAFETY: the header points to `name` and `control`, which outlive the call, and has no iovecs.
    let n = unsafe { libc::recvmsg(fd, header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok((name, control.told(header.msg_controllen))) }
}

/// # Safety
/// Every header's name, iovecs and control must point to live memory of the lengths they give.
pub(super) unsafe fn sendmmsg(fd: RawFd, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    // SAFETY: passed on to the caller; the slice bounds the headers.
    let n = unsafe {
        libc::syscall(
            libc::SYS_sendmmsg,
            fd,
            messages.as_mut_ptr(),
            messages.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// # Safety
/// As for [`sendmmsg`].
pub(super) unsafe fn sendmsg(fd: RawFd, message: &libc::msghdr) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    let n = unsafe { libc::syscall(libc::SYS_sendmsg, fd, std::ptr::from_ref(message), libc::MSG_DONTWAIT) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
