//! Keeps packages from starting or enabling their services: a machine that had no database
//! before the setup shall have none running after it, nor after its next boot.
//!
//! Debian asks `/usr/sbin/policy-rc.d` before it starts a service (Debian Policy 9.3.3.1). While
//! packages are installed, one that says no stands there; afterwards everything is as it was.

use std::{
    fs, io, mem,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const POLICY: &str = "/usr/sbin/policy-rc.d";
const ASIDE: &str = "/usr/sbin/policy-rc.d.before-tandem-setup";
/// 101 means that the action is forbidden.
const FORBID: &str = "#!/bin/sh\n# Put here by Tandem's setup, and taken away by it.\nexit 101\n";
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// While this exists, no package starts its service, and a signal ends the installation but not
/// this process before it has tidied up.
#[must_use = "services may start again as soon as this is dropped"]
pub(super) struct Quiet {
    services: Vec<&'static str>,
    handlers: Vec<(Signal, SigAction)>,
}

impl Quiet {
    /// Forbids starting services. `services` are those about to be installed.
    pub(super) fn begin(services: &[&'static str]) -> Result<Self> {
        if !services.is_empty() {
            println!(
                "  (meanwhile {POLICY} forbids starting services; {} will not start at boot either)",
                services.join(", ")
            );
        }
        let quiet = Self { services: services.to_vec(), handlers: catch_signals()? };
        forbid().with_context(|| format!("cannot write {POLICY}"))?;
        Ok(quiet)
    }

    /// Keeps the new services from starting at boot, and permits starting services again.
    pub(super) fn end(mut self) -> Result<()> {
        for service in mem::take(&mut self.services) {
            if !disable(service) {
                bail!(
                    "cannot keep {service} from starting at boot: `update-rc.d {service} disable` fails"
                );
            }
        }
        drop(self);
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Some may be there although the installation failed; the next one would not look again.
        for service in &self.services {
            disable(service);
        }
        if let Err(error) = permit() {
            eprintln!("warning: cannot put {POLICY} back as it was: {error}");
        }
        for (signal, action) in &self.handlers {
            // SAFETY: the action was in force before.
            let _ = unsafe { sigaction(*signal, action) };
        }
    }
}

/// Whether it will not start at boot; false if there is no such service.
fn disable(service: &str) -> bool {
    let status = Command::new("update-rc.d")
        .args([service, "disable"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn forbid() -> io::Result<()> {
    // What a setup that was killed left is not what was there before.
    let ours = fs::read(POLICY).is_ok_and(|text| text == FORBID.as_bytes());
    if Path::new(POLICY).exists() && !ours {
        fs::rename(POLICY, ASIDE)?;
    }
    fs::write(POLICY, FORBID)?;
    fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
}

fn permit() -> io::Result<()> {
    if Path::new(ASIDE).exists() { fs::rename(ASIDE, POLICY) } else { fs::remove_file(POLICY) }
}

fn catch_signals() -> Result<Vec<(Signal, SigAction)>> {
    extern "C" fn remember(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action =
        SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
    SIGNALS
        .into_iter()
        .map(|signal| {
            // SAFETY: storing into an atomic is allowed in a signal handler.
            let previous = unsafe { sigaction(signal, &action) }?;
            Ok((signal, previous))
        })
        .collect()
}
