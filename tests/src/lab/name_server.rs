//! A real name server: dnsmasq.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{Family, Host, Namespace, Process, wait::until};

/// A dnsmasq on a host. It knows the names that it was told, and says of all others below `.invalid` that
/// they do not exist. Dropping it kills it.
#[derive(Debug)]
pub struct NameServer {
    host: Host,
    configuration: PathBuf,
    names: PathBuf,
    /// None while it is dead.
    process: Option<Process>,
}

impl NameServer {
    /// Starts it, without a name that it knows, and waits until it answers.
    pub fn start(host: &Host) -> Result<Self> {
        let [configuration, names] = ["conf", "names"]
            .map(|what| host.dir().join(format!("{}-dnsmasq.{what}", host.name())));
        let text = format!(
            "\
keep-in-foreground
log-facility=-
user=root
pid-file
no-resolv
no-hosts
local=/invalid/
addn-hosts={}
",
            names.display()
        );
        fs::write(&configuration, text)?;
        let mut server = Self { host: host.clone(), configuration, names, process: None };
        server.say(&[])?;
        Ok(server)
    }

    /// Has it know these names and no others, from about now on. If it was killed or silent, it is there
    /// again.
    pub fn say(&mut self, names: &[(&str, IpAddr)]) -> Result<()> {
        let lines = names.iter().map(|(name, address)| format!("{address} {name}\n"));
        fs::write(&self.names, lines.collect::<String>())
            .context("cannot write the names of a name server")?;
        match &mut self.process {
            Some(process) => {
                process.signal(Signal::SIGCONT)?;
                process.signal(Signal::SIGHUP)
            }
            None => self.launch(),
        }
    }

    /// Stops it in its tracks: who asks hears nothing.
    pub fn fall_silent(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), |process| process.signal(Signal::SIGSTOP))
    }

    /// Kills it: who asks is told that nobody listens.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Has a host ask this server for names, and no other. Its programs give up after a second.
    pub fn serve(&self, client: &Namespace) -> Result<()> {
        let text = format!("nameserver {}\noptions timeout:1 attempts:1\n", self.address().ip());
        client.cover("/etc/resolv.conf", &text).map(drop)
    }

    fn launch(&mut self) -> Result<()> {
        let file = format!("--conf-file={}", self.configuration.display());
        let process = self.host.command("dnsmasq").arg(file).spawn()?;
        // It opens its ports all at once.
        let listens = || self.host.connect(self.address(), Duration::from_secs(1));
        until("the start of dnsmasq", Duration::from_secs(10), listens)
            .map_err(|error| process.explain(&error))?;
        self.process = Some(process);
        Ok(())
    }

    fn address(&self) -> SocketAddr {
        self.host.at(Family::V4, 53)
    }
}
