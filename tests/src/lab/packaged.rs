//! The product as it is packaged: run by systemd.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_daemon::core::Status;

use super::{Namespace, Process, Settings, Systemd, member::Member, wait::until};

/// A host with the product's unit, under a [`Systemd`]. Dropping it kills everything.
#[derive(Debug)]
pub struct Packaged {
    systemd: Systemd,
}

const UNIT: &str = "tandem.service";

impl Packaged {
    /// Installs the product on a host, with these settings, and starts it by `systemctl start`.
    pub fn start(host: &Namespace, settings: &Settings) -> Result<Self> {
        let systemd = Systemd::boot(host)?;
        systemd.install(UNIT, include_str!("../../../packaging/tandem.service"))?;
        let packaged = Self { systemd };
        packaged.build_anew()?;
        packaged.configure(settings)?;
        packaged.systemctl("start")?;
        Ok(packaged)
    }

    /// Installs a program that was built anew, with maps of the same layout. The one that runs goes on.
    pub fn build_anew(&self) -> Result<()> {
        self.systemd.install_product()
    }

    /// Puts settings into the file of the configuration. They are in force after a reload.
    pub fn configure(&self, settings: &Settings) -> Result<()> {
        let directory = self.systemd.root().join("etc/tandem");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("tandem.toml"), settings.render(""))
            .context("cannot write the settings")
    }

    /// Runs `systemctl` with this verb, and options if there are any, for the unit.
    pub fn systemctl(&self, verb: &str) -> Result<()> {
        let arguments: Vec<_> = verb.split(' ').chain([UNIT]).collect();
        self.systemd.systemctl(&arguments)
    }

    /// A property of the unit's, such as `MainPID`.
    pub fn property(&self, name: &str) -> Result<String> {
        self.systemd.property(UNIT, name)
    }

    /// What `tandem status --json` says.
    pub fn status(&self) -> Result<Status> {
        let answer = self.systemd.command("tandem").args(["status", "--json"]).run()?;
        serde_json::from_str(&answer)
            .with_context(|| format!("the status is not what it should be: {answer}"))
    }

    /// Waits until the status is as wanted and hands it back; fails with the last status and the end of
    /// the journal.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let ask = || {
            let status = self.status()?;
            ensure!(wanted(&status), "the last status was {}", serde_json::to_string(&status)?);
            Ok(status)
        };
        until(what, timeout, ask).map_err(|error| self.systemd.explain(&error))
    }
}

impl Member for Packaged {
    /// The first process of the host: all others end with it.
    fn elector(&mut self) -> &mut Process {
        self.systemd.process_mut()
    }

    fn retire(&mut self) -> Result<()> {
        self.systemctl("stop --no-block")
    }

    fn start_again(&mut self) -> Result<()> {
        self.systemctl("start")
    }

    fn packaged(&self) -> Option<&Packaged> {
        Some(self)
    }
}
