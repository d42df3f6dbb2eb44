//! Where the program is attached. Every link is a descriptor of this process and ends with it.

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};

use super::error::OffloadError;
use super::maps::{Tables, first_line};
use super::system;

/// Attaches the traffic control program behind others that are there, so that what they drop stays dropped.
pub(super) fn tc(programs: &mut Ebpf, interfaces: &[String]) -> Result<(Vec<FdLink>, String), OffloadError> {
    let program: &mut SchedClassifier = program(programs, "turn_tc")?;
    program.load().map_err(|error| OffloadError::Load(refusal(&error)))?;
    let mut links = Vec::new();
    for interface in interfaces {
        system::index_of(interface)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let link = program
            .attach_with_options(interface, TcAttachType::Ingress, order)
            .and_then(|id| program.take_link(id))
            .map_err(|error| {
                OffloadError::Attach(
                    interface.clone(),
                    format!("{} (tcx needs Linux 6.6)", first_line(&error)),
                )
            })?;
        links.push(pinned::<SchedClassifierLink>(link, interface)?);
    }
    Ok((links, format!("tc at {}", interfaces.join(", "))))
}

/// Attaches the XDP program in the driver where there is a device whose driver takes it, else in front of the
/// network stack.
pub(super) fn xdp(
    programs: &mut Ebpf,
    tables: &mut Tables,
    interfaces: &[String],
) -> Result<(Vec<FdLink>, String), OffloadError> {
    let program: &mut Xdp = program(programs, "turn_xdp")?;
    program.load().map_err(|error| OffloadError::Load(refusal(&error)))?;
    let (mut links, mut names) = (Vec::new(), Vec::new());
    for interface in interfaces {
        let index = system::index_of(interface)?;
        let (link, how) = xdp_at(program, interface)?;
        links.push(pinned::<XdpLink>(link, interface)?);
        names.push(format!("{interface} ({how})"));
        let added = tables.exits.insert(index, 1, 0);
        added.map_err(|error| OffloadError::Attach(interface.clone(), first_line(&error)))?;
    }
    Ok((links, format!("xdp at {}", names.join(", "))))
}

fn xdp_at(program: &mut Xdp, interface: &str) -> Result<(XdpLink, String), OffloadError> {
    let mut attach = |mode| program.attach(interface, mode).and_then(|id| program.take_link(id));
    let why = if system::is_device(interface) {
        match attach(XdpMode::Driver) {
            Ok(link) => return Ok((link, "native".to_owned())),
            Err(error) => format!("generic, the driver refuses: {}", first_line(&error)),
        }
    } else {
        "generic, a virtual interface".to_owned()
    };
    match attach(XdpMode::Skb) {
        Ok(link) => Ok((link, why)),
        Err(error) => Err(OffloadError::Attach(interface.to_owned(), first_line(&error))),
    }
}

/// The descriptor that an attachment lives by. Older kernels know attachments that outlive their process, which
/// must not be.
fn pinned<L>(link: L, interface: &str) -> Result<FdLink, OffloadError>
where
    FdLink: TryFrom<L>,
{
    let outlives = || OffloadError::Attach(interface.to_owned(), "this kernel has no links".to_owned());
    FdLink::try_from(link).map_err(|_| outlives())
}

fn program<'a, P>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut P, OffloadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let missing = || OffloadError::Load(format!("it has no program {name}"));
    programs.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)
}

/// What the kernel said; what the verifier said of it only at its end, where the reason stands.
fn refusal(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let reason = log.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed"));
            format!("{io_error} ({})", reason.unwrap_or("the verifier says nothing"))
        }
        _ => first_line(error),
    }
}
