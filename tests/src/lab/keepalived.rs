//! A real keepalived.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_daemon::core::group::Role;

use super::{Namespace, Process, wait::until};

/// A keepalived that only speaks VRRP, on a host. Dropping it kills it, without a last word to its
/// peers, and its addresses stay.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    /// Bytes of the log that are of earlier ones.
    earlier: usize,
}

impl Keepalived {
    /// Starts it with a configuration, and waits until it has begun.
    pub fn start(host: &Namespace, configuration: &str) -> Result<Self> {
        let file = |end: &str| host.dir().join(format!("{}-keepalived.{end}", host.name()));
        fs::write(file("conf"), configuration)?;
        let earlier = fs::metadata(file("log")).map_or(0, |data| data.len());
        for left in [file("pid"), file("vrrp-pid")] {
            // One that was killed leaves the number 1, which the next has in its own namespace and
            // takes for an instance that runs.
            let _ = fs::remove_file(left);
        }
        let process = host
            .command("keepalived")
            .args(["--vrrp", "--dont-fork", "--log-console", "--log-detail", "--no-syslog"])
            .arg("--use-file")
            .arg(file("conf"))
            .arg("--pid")
            .arg(file("pid"))
            .arg("--vrrp_pid")
            .arg(file("vrrp-pid"))
            .spawn()?;
        let keepalived = Self { process, earlier: usize::try_from(earlier)? };
        let what = format!("the start of keepalived on {}", host.name());
        until(&what, Duration::from_secs(10), || {
            ensure!(keepalived.log()?.contains("Entering "), "no state in its log");
            Ok(())
        })
        .map_err(|error| keepalived.process.explain(&error))?;
        Ok(keepalived)
    }

    /// The role that one of its instances took last, as its log tells.
    pub fn role(&self, instance: &str) -> Result<Role> {
        let log = self.log()?;
        let start = format!("({instance}) Entering ");
        let mut entries = log.lines().filter_map(|line| line.split_once(&start));
        let (_, entry) = entries.next_back().with_context(|| format!("{instance} has no role"))?;
        let roles = [Role::Init, Role::Backup, Role::Master, Role::Fault];
        let role = roles.into_iter().find(|role| entry.starts_with(role.name()));
        role.with_context(|| format!("{instance} is in no state we know: {entry}"))
    }

    /// Waits until one of its instances has a role.
    pub fn wait_for(&self, instance: &str, role: Role, timeout: Duration) -> Result<()> {
        until(&format!("{instance} of keepalived as {role}"), timeout, || {
            let now = self.role(instance)?;
            ensure!(now == role, "it is {now}");
            Ok(())
        })
        .map_err(|error| self.process.explain(&error))
    }

    /// Everything it has logged.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(self.process.log())?;
        let own = bytes.get(self.earlier..).unwrap_or_default();
        Ok(String::from_utf8_lossy(own).into_owned())
    }

    /// Its process, to be killed, or frozen by `SIGSTOP`. It is two processes that die as one, but
    /// only the first is stopped.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks it to end: it gives its addresses up and says so to its peers.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(10)).map(drop)
    }
}
