//! A real systemd.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Command, Namespace, Process, cgroup::Cgroup, program::anew, wait::until};

/// A systemd that is the first process of a host: it has a root, control groups, processes and a journal
/// of its own, and runs no units but those that it is given. Dropping it kills it, and all that it
/// runs.
#[derive(Debug)]
pub struct Systemd {
    // First, so that nobody is left in the control group when that goes.
    process: Process,
    _cgroup: Cgroup,
    host: Namespace,
    root: PathBuf,
}

/// Those of its own that it needs, or that units are told to come after.
const UNITS: [&str; 8] = [
    "basic.target",
    "network-online.target",
    "network.target",
    "shutdown.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
];
const SYSTEM_UNITS: &str = "/usr/lib/systemd/system";
/// What is started at first.
const TARGET: &str = "\
[Unit]
Description=A host of the lab
Requires=basic.target systemd-journald.service
After=basic.target systemd-journald.service
";
/// It leaves the machine's log and audit alone.
const JOURNAL: &str = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\n";
const DIRECTORIES: [&str; 12] = [
    "dev",
    "etc/systemd",
    "home",
    "old",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "units",
    "usr/bin",
    "var/lib",
];
const PROGRAMS: [&str; 4] = ["journalctl", "kill", "ln", "systemctl"];
const PATIENCE: Duration = Duration::from_secs(30);

impl Systemd {
    /// Why this machine cannot have one on a host of the lab, if it cannot.
    pub fn obstacle(host: &Namespace) -> Option<String> {
        Cgroup::new("probe", host.dir()).err().map(|error| format!("{error:#}"))
    }

    /// Starts it on a host, and waits until it answers.
    pub fn boot(host: &Namespace) -> Result<Self> {
        let root = host.dir().join(format!("{}-root", host.name()));
        furnish(&root)?;
        let cgroup = Cgroup::new(host.name(), host.dir())?;
        let process = host
            .command("unshare")
            .args(["--mount", "sh", "-c", include_str!("systemd.sh"), "systemd.sh"])
            .arg(&root)
            .arg(cgroup.name())
            .args(PROGRAMS)
            .spawn()?;
        let mut systemd = Self { process, _cgroup: cgroup, host: host.clone(), root };
        systemd.wait_until_it_answers()?;
        Ok(systemd)
    }

    /// The directory that is its root, but for what is mounted in it: `dev`, `proc`, `run`, `sys`, `tmp`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The first process.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Gives it a unit, or another version of one.
    pub fn install(&self, name: &str, unit: &str) -> Result<()> {
        fs::write(self.root.join("units").join(name), unit)?;
        self.systemctl(&["daemon-reload"])
    }

    /// Installs the product's program, built anew, with maps of the same layout as ever. If an earlier one
    /// runs, it goes on.
    pub fn install_product(&self) -> Result<()> {
        anew(&self.root.join("usr/bin/tandem")).map(drop)
    }

    /// Runs `systemctl` with these arguments; fails, with the end of the journal, if that fails.
    pub fn systemctl(&self, arguments: &[&str]) -> Result<()> {
        let done = self.command("systemctl").args(arguments).run();
        done.map(drop).map_err(|error| self.explain(&error))
    }

    /// A property of a unit's, such as `MainPID`.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let show = self.command("systemctl").args(["show", unit, "--value", "--property", name]);
        let said = show.run()?;
        Ok(said.trim().to_owned())
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let target = self.process.pid().to_string();
        let enter = self.host.command("nsenter").plain();
        enter.args(["--target", &target, "--mount", "--pid", "--root", "--", program])
    }

    /// An error with the end of the journal added, for people.
    pub fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        let journal = self.command("journalctl").args(["--no-pager", "--lines=40"]).run();
        let journal = journal.unwrap_or_else(|error| format!("cannot be read: {error:#}"));
        anyhow!("{error:#}\nThe end of the journal of {}:\n{journal}\n", self.host.name())
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        until("a running systemd", PATIENCE, || {
            if !self.process.is_running() {
                return Ok(Err(self.process.explain(&anyhow!("systemd has ended"))));
            }
            let state = self.property("lab.target", "ActiveState")?;
            ensure!(state == "active", "lab.target is {state}");
            Ok(Ok(()))
        })
        .map_err(|error| self.process.explain(&error))?
    }
}

/// Makes a root, with what does not come from the machine.
fn furnish(root: &Path) -> Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    for file in ["etc/group", "etc/passwd"] {
        fs::copy(Path::new("/").join(file), root.join(file))?;
    }
    fs::write(root.join("etc/machine-id"), "")?;
    symlink("../run", root.join("var/run"))?;
    fs::write(root.join("etc/systemd/journald.conf"), JOURNAL)?;
    fs::write(root.join("units/lab.target"), TARGET)?;
    for unit in UNITS {
        let from = Path::new(SYSTEM_UNITS).join(unit);
        fs::copy(&from, root.join("units").join(unit)).with_context(|| {
            format!("no {}; `cargo xtask setup` installs what the lab needs", from.display())
        })?;
    }
    Ok(())
}
