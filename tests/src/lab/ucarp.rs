//! A real ucarp.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_daemon::{config::Carp, core::group::Role};

use super::{Namespace, Process, wait::until};

/// A ucarp on a host, for one address. Dropping it kills it, and the address stays.
///
/// When it becomes master it puts the address onto the interface, with a prefix of 32 bits; when it
/// gives up or [ends](Ucarp::stop), it takes it off.
#[derive(Debug)]
pub struct Ucarp {
    process: Process,
    /// Bytes of the log that are of earlier ones.
    earlier: usize,
}

impl Ucarp {
    /// Starts it on an interface that has the address `source`, and waits until it has begun.
    pub fn start(
        host: &Namespace,
        interface: &str,
        source: Ipv4Addr,
        carp: &Carp,
        address: Ipv4Addr,
        preempt: bool,
    ) -> Result<Self> {
        let log = host.dir().join(format!("{}-ucarp.log", host.name()));
        let earlier = fs::metadata(log).map_or(0, |data| data.len());
        let process = host
            .command("ucarp")
            .arg(format!("--interface={interface}"))
            .arg(format!("--srcip={source}"))
            .arg(format!("--vhid={}", carp.vhid))
            .arg(format!("--pass={}", carp.pass))
            .arg(format!("--addr={address}"))
            .arg(format!("--advbase={}", carp.advbase))
            .arg(format!("--advskew={}", carp.advskew))
            .arg(format!("--upscript={}", script(host, "add")?.display()))
            .arg(format!("--downscript={}", script(host, "delete")?.display()))
            .args(["--neutral", "--shutdown"])
            .args(preempt.then_some("--preempt"))
            .spawn()?;
        let ucarp = Self { process, earlier: usize::try_from(earlier)? };
        let what = format!("the start of ucarp on {}", host.name());
        until(&what, Duration::from_secs(10), || ucarp.role())
            .map(drop)
            .map_err(|error| ucarp.process.explain(&error))?;
        Ok(ucarp)
    }

    /// The role that it took last, as its log tells.
    pub fn role(&self) -> Result<Role> {
        let bytes = fs::read(self.process.log())?;
        let log = String::from_utf8_lossy(bytes.get(self.earlier..).unwrap_or_default());
        let mut entries = log.lines().filter_map(|line| line.split_once("Switching to state: "));
        let (_, name) = entries.next_back().context("ucarp has no role")?;
        let roles = [Role::Init, Role::Backup, Role::Master];
        let role = roles.into_iter().find(|role| role.name() == name.trim());
        role.with_context(|| format!("ucarp is in no state we know: {name}"))
    }

    /// Waits until it has a role.
    pub fn wait_for(&self, role: Role, timeout: Duration) -> Result<()> {
        until(&format!("ucarp as {role}"), timeout, || {
            let now = self.role()?;
            ensure!(now == role, "it is {now}");
            Ok(())
        })
        .map_err(|error| self.process.explain(&error))
    }

    /// Its process, to be killed, or frozen by `SIGSTOP`.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks it to end, which takes the address off; CARP has no word for its peers.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(10)).map(drop)
    }
}

/// A script for ucarp, which calls it with interface and address.
fn script(host: &Namespace, verb: &str) -> Result<PathBuf> {
    let path = host.dir().join(format!("ucarp-{verb}"));
    fs::write(&path, format!("#!/bin/sh\nexec ip address {verb} \"$2/32\" dev \"$1\"\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
