//! Attaching the program to interfaces.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use aya::programs::{
    ProgramError, Xdp,
    links::{FdLink, PinnedLink},
    xdp::{XdpLink, XdpMode as AyaMode},
};
use nix::{errno::Errno, net::if_::if_nametoindex};
use thiserror::Error;
use tracing::warn;

use super::pins::Pins;
use crate::config::XdpMode;

/// How long an interface may still be busy with a program whose pin was removed: the kernel detaches
/// it when it comes to it.
const UNTIL_FREE: Duration = Duration::from_millis(500);

/// An attachment in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface's number.
    pub ifindex: u32,
    /// Where in the receive path the program runs.
    pub mode: Mode,
}

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's generic path, after the packet was given a socket buffer.
    Generic,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Native, Self::Generic];

    const fn aya(self) -> AyaMode {
        match self {
            Self::Native => AyaMode::Driver,
            Self::Generic => AyaMode::Skb,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Attaches `program` to the interface, atomically replacing an earlier daemon's program there.
pub(super) fn attach(
    program: &mut Xdp,
    pins: &Pins,
    interface: &str,
    wanted: XdpMode,
) -> Result<Attached> {
    let ifindex = index(interface)?;
    for mode in Mode::ALL {
        let pin = pins.links().join(format!("{ifindex}_{mode}"));
        if !pin.exists() {
            continue;
        }
        if suits(mode, wanted) && adopt(program, &pin).is_ok() {
            return Ok(Attached { ifindex, mode });
        }
        // Another mode is wanted, or the interface that had this number is gone.
        fs::remove_file(&pin).with_context(|| format!("cannot unpin {}", pin.display()))?;
    }
    let mode = match wanted {
        XdpMode::Native => {
            attach_as(program, pins, interface, ifindex, Mode::Native)?;
            Mode::Native
        }
        XdpMode::Generic => {
            attach_as(program, pins, interface, ifindex, Mode::Generic)?;
            Mode::Generic
        }
        XdpMode::Auto => match attach_as(program, pins, interface, ifindex, Mode::Native) {
            Ok(()) => Mode::Native,
            Err(error) if is_busy(&error) => return Err(error),
            Err(error) => {
                attach_as(program, pins, interface, ifindex, Mode::Generic)?;
                if let Some(Refusal::NoDriver { at, .. }) = error.downcast_ref() {
                    // Nothing need be done about that, so there is nothing to advise.
                    warn!("{interface}: its driver has no native XDP{at}: {SLOWER}");
                } else {
                    warn!("{error:#}: {SLOWER}");
                }
                Mode::Generic
            }
        },
    };
    Ok(Attached { ifindex, mode })
}

/// The interface's number, or an error that names those that could have been meant.
pub(super) fn index(interface: &str) -> Result<u32> {
    if_nametoindex(interface).map_err(|_| missing(interface))
}

/// Detaches the program from every interface that is not in `keep`.
pub(super) fn detach_others(pins: &Pins, keep: &BTreeSet<u32>) -> Result<()> {
    for entry in fs::read_dir(pins.links())?.flatten() {
        let name = entry.file_name();
        let ifindex = name.to_string_lossy().split('_').next().and_then(|n| n.parse().ok());
        if ifindex.is_none_or(|ifindex| !keep.contains(&ifindex)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

const fn suits(mode: Mode, wanted: XdpMode) -> bool {
    matches!(
        (mode, wanted),
        (_, XdpMode::Auto) | (Mode::Native, XdpMode::Native) | (Mode::Generic, XdpMode::Generic)
    )
}

fn adopt(program: &mut Xdp, pin: &Path) -> Result<()> {
    let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    let id = program.attach_to_link(link)?;
    // Closing our handle detaches nothing: the pin holds the link.
    drop(program.take_link(id)?);
    Ok(())
}

fn attach_as(
    program: &mut Xdp,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    mode: Mode,
) -> Result<()> {
    let deadline = Instant::now() + UNTIL_FREE;
    let id = loop {
        match program.attach_to_if_index(ifindex, mode.aya()) {
            Ok(id) => break id,
            Err(error) => {
                let error = explain(error, interface, mode);
                if !is_busy(&error) || Instant::now() >= deadline {
                    return Err(error);
                }
                thread::sleep(UNTIL_FREE / 20);
            }
        }
    };
    let link: FdLink = program
        .take_link(id)?
        .try_into()
        .map_err(|_| anyhow!("{interface}: the kernel has no BPF links for XDP (Linux 5.9)"))?;
    let pin = pins.links().join(format!("{ifindex}_{mode}"));
    link.pin(&pin).with_context(|| format!("cannot pin {}", pin.display()))?;
    Ok(())
}

fn explain(error: ProgramError, interface: &str, mode: Mode) -> anyhow::Error {
    let errno = match &error {
        ProgramError::SyscallError(syscall) => syscall.io_error.raw_os_error(),
        _ => None,
    };
    let name = interface.to_owned();
    let jumbo = mtu(interface).filter(|mtu| *mtu > USUAL_MTU);
    match errno.map(Errno::from_raw) {
        Some(Errno::EBUSY | Errno::EEXIST) => Refusal::Busy { interface: name }.into(),
        Some(Errno::EOPNOTSUPP) => {
            let at = jumbo.map(|mtu| format!(", or none at an MTU of {mtu}")).unwrap_or_default();
            Refusal::NoDriver { interface: name, mode, at }.into()
        }
        Some(Errno::ENODEV | Errno::ENXIO) => missing(interface),
        _ => {
            let (at, frames, lower) = jumbo.map_or_else(Default::default, |mtu| {
                (
                    format!(" with its MTU of {mtu}"),
                    "a driver that takes no frames of several buffers, ",
                    format!("`ip link set {interface} mtu {USUAL_MTU}`, "),
                )
            });
            anyhow!(error).context(format!(
                "{interface}: {mode} XDP is refused{at}; {frames}large receive offload, receive \
                 checksum merging and too few queues are the usual reasons ({lower}`ethtool -K \
                 {interface} lro off`, or set xdp_mode = \"generic\")"
            ))
        }
    }
}

/// An MTU that no driver refuses a program for. From where on they do, if they do, differs: a frame
/// and what belongs to it have to fit a page or, with some cards, half of one.
const USUAL_MTU: u32 = 1500;

/// The interface's MTU in bytes, if it can be read.
fn mtu(interface: &str) -> Option<u32> {
    let mtu = fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?;
    mtu.trim().parse().ok()
}

/// Why the kernel does not attach the program.
#[derive(Debug, Error)]
enum Refusal {
    #[error(
        "{interface} already runs an XDP program: see `ip link show {interface}`; remove it with \
         `ip link set {interface} xdp off`, or if it is Tandem's with `tandem detach`"
    )]
    Busy { interface: String },
    #[error(
        "{interface}: its driver has no {mode} XDP{at}: set xdp_mode = \"auto\" or \"generic\""
    )]
    NoDriver { interface: String, mode: Mode, at: String },
}

/// What `auto` does about an interface without native XDP.
const SLOWER: &str = "running in the slower generic mode there";

fn is_busy(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Refusal::Busy { .. }))
}

fn missing(interface: &str) -> anyhow::Error {
    let names: Vec<String> = nix::net::if_::if_nameindex()
        .map(|list| list.iter().map(|i| i.name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    anyhow!(
        "interface {interface} does not exist; this host has {} (set [global] interfaces)",
        names.join(", ")
    )
}
