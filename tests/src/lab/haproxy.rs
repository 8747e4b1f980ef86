//! A real HAProxy, what relays for keepalived's address.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};

use super::{Namespace, Process, wait::until};

/// An HAProxy in mode tcp on a host. Dropping it kills it.
#[derive(Debug)]
pub struct Haproxy {
    process: Process,
}

impl Haproxy {
    /// Starts it with one service and waits until it listens, which it does whether the host has
    /// the address or not.
    pub fn start(host: &Namespace, bind: SocketAddr, servers: &[SocketAddr]) -> Result<Self> {
        host.sysctl("net.ipv4.ip_nonlocal_bind", "1")?;
        host.sysctl("net.ipv6.ip_nonlocal_bind", "1")?;
        let home = host.dir().join(format!("{}-haproxy", host.name()));
        let servers = (1..).zip(servers).map(|(nth, at)| format!("  server s{nth} {at}\n"));
        let configuration = format!(
            "global\n  nbthread 1\n  maxconn 8000\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
             listen service\n  bind {bind}\n{}",
            servers.collect::<String>()
        );
        fs::write(&home, configuration)?;
        let process = host.command("haproxy").arg("-db").arg("-f").arg(&home).spawn()?;
        let haproxy = Self { process };
        let listens = || {
            let port = format!(":{:04X} ", bind.port());
            let table = if bind.is_ipv4() { "tcp" } else { "tcp6" };
            let table = host.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
            // State 0A is listening.
            let is = |line: &&str| line.contains(&port) && line.contains(" 0A ");
            table?.lines().find(is).map(drop).context("it does not listen")
        };
        until("the start of HAProxy", Duration::from_secs(10), listens)
            .map_err(|error| haproxy.process.explain(&error))?;
        Ok(haproxy)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
