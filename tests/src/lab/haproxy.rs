//! A real HAProxy, what relays for keepalived's address.

use std::{fmt::Write as _, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Namespace, Process, wait::until};

/// An HAProxy in mode tcp on a host. Dropping it kills it.
///
/// It is several processes, among which the kernel divides the connections: with its two sockets for
/// each, one alone would need more open files than some machines allow.
#[derive(Debug)]
pub struct Haproxy {
    host: Namespace,
    configuration: PathBuf,
    ports: Vec<SocketAddr>,
    processes: Vec<Process>,
}

/// Processes.
const PROCESSES: usize = 2;

impl Haproxy {
    /// Starts it with a service at each of these addresses, and waits until it listens, which it does
    /// whether the host has the address or not.
    pub fn start(host: &Namespace, services: &[(SocketAddr, Vec<SocketAddr>)]) -> Result<Self> {
        host.sysctl("net.ipv4.ip_nonlocal_bind", "1")?;
        host.sysctl("net.ipv6.ip_nonlocal_bind", "1")?;
        let mut text = "\
global
  nbthread 1
  maxconn 8000
defaults
  mode tcp
  timeout connect 5s
  timeout client 5m
  timeout server 5m
"
        .to_owned();
        for (bind, servers) in services {
            write!(text, "listen port-{}\n  bind {bind}\n", bind.port())?;
            for (nth, server) in (1..).zip(servers) {
                writeln!(text, "  server s{nth} {server}")?;
            }
        }
        let configuration = host.dir().join(format!("{}-haproxy", host.name()));
        fs::write(&configuration, text)?;
        let ports = services.iter().map(|(bind, _)| *bind).collect();
        let mut haproxy = Self { host: host.clone(), configuration, ports, processes: vec![] };
        haproxy.start_again()?;
        Ok(haproxy)
    }

    /// Whether all of it runs.
    pub fn is_running(&mut self) -> bool {
        self.processes.iter_mut().all(Process::is_running)
    }

    /// Kills it by `SIGKILL`.
    pub fn kill(&mut self) {
        // All of them before one is waited for.
        for process in &mut self.processes {
            let _ = process.signal(Signal::SIGKILL);
        }
        self.processes.iter_mut().for_each(Process::kill);
    }

    /// Kills what is left of it, and starts it anew.
    pub fn start_again(&mut self) -> Result<()> {
        self.kill();
        self.processes.clear();
        for _ in 0..PROCESSES {
            let command = self.host.command("haproxy").arg("-db").arg("-f");
            self.processes.push(command.arg(&self.configuration).spawn()?);
        }
        for at in self.ports.clone() {
            until("the start of HAProxy", Duration::from_secs(10), || self.listens(at))
                .map_err(|error| self.processes[0].explain(&error))?;
        }
        Ok(())
    }

    /// Fails unless all processes listen there.
    fn listens(&self, at: SocketAddr) -> Result<()> {
        let port = format!(":{:04X} ", at.port());
        let table = if at.is_ipv4() { "tcp" } else { "tcp6" };
        let path = format!("/proc/thread-self/net/{table}");
        let table = self.host.enter(|| fs::read_to_string(path))?;
        // State 0A is listening.
        let is = |line: &&str| line.contains(&port) && line.contains(" 0A ");
        let listening = table.lines().filter(is).nth(PROCESSES - 1);
        listening.map(drop).context("it does not listen")
    }
}
