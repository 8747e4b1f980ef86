//! A real keepalived, the peer for VRRP.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{Namespace, Process, wait::until};

/// A keepalived on a host, its part for VRRP alone. Dropping it kills it.
#[derive(Debug)]
pub struct Keepalived {
    host: Namespace,
    home: PathBuf,
    process: Process,
}

impl Keepalived {
    /// Starts it with this configuration and waits until it takes part.
    pub fn start(host: &Namespace, configuration: &str) -> Result<Self> {
        let home = host.dir().join(format!("{}-keepalived", host.name()));
        fs::create_dir_all(&home)?;
        fs::write(home.join(CONFIGURATION), configuration)?;
        let process = launch(host, &home)?;
        Ok(Self { host: host.clone(), home, process })
    }

    /// Starts it again with the same configuration, after it has ended.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(!self.process.is_running(), "keepalived is still running");
        self.process = launch(&self.host, &self.home)?;
        Ok(())
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to be stopped, frozen or killed.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

const CONFIGURATION: &str = "keepalived.conf";

fn launch(host: &Namespace, home: &Path) -> Result<Process> {
    let pids = ["pid", "vrrp.pid"].map(|name| home.join(name));
    for pid in &pids {
        // What one that was killed has left would keep the next from starting.
        let _ = fs::remove_file(pid);
    }
    let [pid, vrrp] = &pids;
    let command = host.command("keepalived").args(["--vrrp", "--dont-fork", "--log-console"]);
    let command = command.arg("--log-detail").arg("--use-file").arg(home.join(CONFIGURATION));
    let process = command.arg("--pid").arg(pid).arg("--vrrp_pid").arg(vrrp).spawn()?;
    until("the start of keepalived", Duration::from_secs(10), || fs::metadata(vrrp).map(drop))
        .map_err(|error| process.explain(&error))?;
    Ok(process)
}
