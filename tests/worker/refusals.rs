//! A kernel, or a sandbox, that refuses what the Linux backend would like: calls go on all the same.

#![expect(unsafe_code, reason = "only a seccomp filter makes the kernel really refuse")]

use turnkey::io::SendFailure;
use turnkey::worker::Backend;

use crate::client::{Client, Data};
use crate::rig::{echo, pool, until};

const CHANNEL: u16 = 0x4001;

/// Makes the kernel answer `code` to system call `number` in this thread and those it starts, if
/// argument 2 is `value` where that is asked for.
fn refuse(number: libc::c_long, value: Option<i32>, code: i32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |k, jf| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, jf, k);
    let answer = |k| step(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let mut filter = vec![load(0), equal(number as u32, if value.is_some() { 3 } else { 1 })];
    if let Some(value) = value {
        filter.extend([load(16 + 8 * 2), equal(value as u32, 1)]);
    }
    filter.extend([answer(libc::SECCOMP_RET_ERRNO | code as u32), answer(libc::SECCOMP_RET_ALLOW)]);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls get plain numbers and a pointer to a live program; they concern this thread.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// A burst both ways on a worker that was started under the refusals.
fn relay_under(expected: &str, refusals: &[(libc::c_long, Option<i32>, i32)]) {
    for (number, value, code) in refusals {
        refuse(*number, *value, *code);
    }
    let pool = pool(Backend::Linux);
    let mut client = Client::udp(pool.udp_addresses()[0]);
    client.allocate(1);
    client.bind(CHANNEL, echo("127.0.0.1"));
    for round in 0..3 {
        for n in 0..40 {
            client.send_channel(CHANNEL, &[n + round; 500]);
        }
        for n in 0..40 {
            assert_eq!(client.recv(), Data::Channel(CHANNEL, vec![n + round; 500]));
        }
    }
    assert_eq!(pool.stats().to_client_packets, 120);
    assert_eq!(pool.io_stats().send_failures, [0; SendFailure::ALL.len()]);
    // Published once a second or when counters are read.
    assert_eq!(pool.describe(), format!("linux ({expected}), 1 worker"));
}

#[test]
fn without_recvmmsg() {
    relay_under("sendmmsg, gro, gso, pktinfo", &[(libc::SYS_recvmmsg, None, libc::ENOSYS)]);
}

#[test]
fn without_udp_gro() {
    let gro = (libc::SYS_setsockopt, Some(libc::UDP_GRO), libc::ENOPROTOOPT);
    relay_under("recvmmsg, sendmmsg, gso, pktinfo", &[gro]);
}

#[test]
fn without_udp_segment() {
    let segment = (libc::SYS_setsockopt, Some(libc::UDP_SEGMENT), libc::ENOPROTOOPT);
    relay_under("recvmmsg, sendmmsg, gro, pktinfo", &[segment]);
}

#[test]
fn without_any_of_them() {
    let refusals = [
        (libc::SYS_recvmmsg, None, libc::ENOSYS),
        (libc::SYS_sendmmsg, None, libc::ENOSYS),
        (libc::SYS_setsockopt, Some(libc::UDP_GRO), libc::ENOPROTOOPT),
        (libc::SYS_setsockopt, Some(libc::UDP_SEGMENT), libc::ENOPROTOOPT),
        (libc::SYS_setsockopt, Some(libc::IP_PKTINFO), libc::ENOPROTOOPT),
    ];
    for (number, value, code) in refusals {
        refuse(number, value, code);
    }
    let pool = pool(Backend::Linux);
    let echo = echo("127.0.0.1");
    let mut clients: Vec<Client> = (0..4).map(|_| Client::udp(pool.udp_addresses()[0])).collect();
    for client in &mut clients {
        client.allocate(1);
        client.bind(CHANNEL, echo);
    }
    // It takes several packets in one turn to learn that sendmmsg is refused.
    until("every refusal is noticed", || {
        pool.stall(0, std::time::Duration::from_millis(50));
        for client in &mut clients {
            client.send_channel(CHANNEL, b"first");
            client.send_channel(CHANNEL, b"second");
        }
        for client in &mut clients {
            assert_eq!(client.recv(), Data::Channel(CHANNEL, b"first".to_vec()));
            assert_eq!(client.recv(), Data::Channel(CHANNEL, b"second".to_vec()));
        }
        assert_eq!(pool.io_stats().send_failures, [0; SendFailure::ALL.len()]);
        pool.describe() == "linux (one datagram a call), 1 worker"
    });
}
