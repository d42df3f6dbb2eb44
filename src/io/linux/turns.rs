//! How long a thread may stay on its core at a time.

use std::io;
use std::mem::size_of;
use std::time::Duration;

/// Threads that it starts later take turns of the usual length.
const RESET_ON_FORK: u64 = 1;

/// Asks that the calling thread take turns of this length (EEVDF, since Linux 6.12; before that nothing changes).
/// Its share of the processor stays what it is, but when it has something to do it need not wait until whoever is at
/// it has had a turn of the usual length, which is milliseconds.
///
/// # Errors
/// What the kernel says.
pub fn take_short_turns(length: Duration) -> io::Result<()> {
    let mut attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes into a structure of that size; 0 is the calling thread.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, attributes.size, 0) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.sched_flags |= RESET_ON_FORK;
    attributes.sched_runtime = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `size` bytes of a structure of that size; 0 is the calling thread.
    let written = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if written == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
