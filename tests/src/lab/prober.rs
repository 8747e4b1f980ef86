//! `tandem probe mysql`, on the host of a database.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    Host, HttpAnswer, Lab, Namespace, Process, Tandem, http_get, plan::Family, wait::until,
};

/// A prober that runs as `nobody`. Dropping it kills it.
#[derive(Debug)]
pub struct Prober {
    process: Process,
    asker: Namespace,
    at: SocketAddr,
}

impl Prober {
    /// Starts it on a host with these arguments besides its port, a password in its environment, and a
    /// file that forces a failure in the lab's directory. It is asked from the balancer.
    pub fn start(lab: &Lab, host: &Host, port: u16, arguments: &[&str]) -> Result<Self> {
        let process = host
            .command(Tandem::copy_for_everybody(lab)?)
            .args(["probe", "mysql", "--listen", &port.to_string()])
            .arg("--fail-file")
            .arg(Self::fail_file(lab))
            .args(arguments)
            .env("TANDEM_PROBE_PASSWORD", "lab")
            .user("nobody")?
            .spawn()?;
        let (asker, at) = (lab.balancer().clone(), host.at(Family::V4, port));
        let prober = Self { process, asker, at };
        until("an answer of the prober", Duration::from_secs(10), || prober.ask())
            .map_err(|error| prober.process.explain(&error))?;
        Ok(prober)
    }

    /// The file that forces a failure.
    pub fn fail_file(lab: &Lab) -> PathBuf {
        lab.dir().join("proxyoff")
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it by HTTP.
    pub fn ask(&self) -> Result<HttpAnswer> {
        http_get(&self.asker, self.at, "/")
    }

    /// Waits until it answers with this status and a body that has this in it.
    pub fn wait_until(&self, status: u16, text: &str) -> Result<()> {
        until("another answer of the prober", Duration::from_secs(20), || {
            let answer = self.ask()?;
            ensure!(answer.status == status && answer.body.contains(text), "it is {answer:?}");
            Ok(())
        })
        .with_context(|| format!("expected {status}, {text:?}"))
        .map_err(|error| self.process.explain(&error))
    }
}
