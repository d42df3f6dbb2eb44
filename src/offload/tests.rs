//! The program against what user space does with the same packets, by `BPF_PROG_TEST_RUN`: no interface has to
//! carry anything. Each test runs in a network namespace of its own and needs what the program needs.
#![expect(clippy::print_stderr, reason = "tests say what they skip")]

mod against_user_space;
mod frame;
mod named;
mod namespace;
mod rig;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::running::OBJECT;
use super::{Mode, Offload, OffloadError};
use namespace::{ip, is_inside, isolated};
use rig::{Kind, Rig, build_namespace};

/// All that is asked of a program, of both kinds.
fn suite(object: &[u8], cases: u32) {
    for kind in [Kind::Tc, Kind::Xdp] {
        named::all(|| Rig::new(object, kind));
        against_user_space::holds(Rig::new(object, kind), cases);
    }
}

#[test]
fn the_program_does_what_user_space_does() {
    isolated("the_program_does_what_user_space_does", || {
        build_namespace();
        suite(OBJECT, 2000);
    });
}

#[test]
fn the_source_builds_a_program_that_does_the_same() {
    isolated("the_source_builds_a_program_that_does_the_same", || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf/build");
        let object = tempfile::NamedTempFile::new().expect("a temporary file");
        let built = Command::new(script).arg(object.path()).output().expect("a shell");
        let said = String::from_utf8_lossy(&built.stderr);
        if built.status.code() == Some(2) && std::env::var("CI").as_deref() != Ok("true") {
            eprintln!("skipped: {said}");
            return;
        }
        assert!(built.status.success(), "{said}");
        build_namespace();
        suite(&std::fs::read(object.path()).expect("it was built"), 500);
    });
}

#[test]
fn the_object_names_no_directory() {
    let text = String::from_utf8_lossy(OBJECT);
    let sources: Vec<&str> = text.split('\0').filter(|name| name.ends_with("turn.bpf.c")).collect();
    assert_eq!(sources, ["./turn.bpf.c"], "bpf/build makes it the same wherever it is built");
}

fn start(mode: Mode, interfaces: &[&str]) -> Result<(Offload, String), OffloadError> {
    let interfaces: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
    Offload::start(mode, &interfaces, Instant::now(), 16)
}

fn refusal(mode: Mode, interfaces: &[&str]) -> String {
    start(mode, interfaces).err().expect("it cannot").to_string()
}

fn attached(interface: &str) -> bool {
    let shown = Command::new("ip").args(["-d", "link", "show", "dev", interface]).output().expect("iproute2");
    String::from_utf8_lossy(&shown.stdout).contains("xdp")
}

#[test]
fn it_says_what_it_chose_and_why_not_more() {
    isolated("it_says_what_it_chose_and_why_not_more", || {
        ip("link set lo up; link add near type veth peer name far; link set near up; link set far up");
        let (_, chosen) = start(Mode::Auto, &["near", "far"]).expect("tcx is there");
        assert_eq!(chosen, "tc at near, far; not IPv6: the sysctl net.ipv6.conf.lo.forwarding is 0");
        let (running, chosen) = start(Mode::Xdp, &["near"]).expect("generic XDP is there");
        assert!(chosen.starts_with("xdp at near (generic, a virtual interface)"), "{chosen}");
        assert!(attached("near"));
        drop(running);
        assert!(!attached("near"));
        assert_eq!(refusal(Mode::Tc, &["lo"]), "lo is not Ethernet, packets there cannot be offloaded");
        assert_eq!(
            refusal(Mode::Auto, &["nil"]),
            "tc: there is no interface nil; xdp: there is no interface nil"
        );
        assert_eq!(refusal(Mode::Auto, &[]), OffloadError::NoInterface.to_string());
    });
}

#[test]
fn it_names_the_capabilities_that_are_missing() {
    const NAME: &str = "it_names_the_capabilities_that_are_missing";
    if is_inside() {
        let said = refusal(Mode::Auto, &["lo"]);
        let wanted = "relaying in the kernel needs CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF";
        assert!(said.starts_with(wanted), "{said}");
        return;
    }
    if super::system::missing_capabilities().is_empty() {
        namespace::run(Command::new("setpriv").args(["--bounding-set=-all", "--inh-caps=-all", "--"]), NAME);
    } else {
        namespace::run(&mut Command::new("env"), NAME);
    }
}
