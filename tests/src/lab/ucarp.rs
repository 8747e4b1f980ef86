//! A real ucarp, the peer for CARP.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt};

use anyhow::{Result, ensure};

use super::{Namespace, Process};

/// A ucarp on a host. Dropping it kills it, without its script for that being run.
#[derive(Debug)]
pub struct Ucarp {
    host: Namespace,
    arguments: Vec<String>,
    process: Process,
}

/// What a ucarp is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UcarpSettings<'a> {
    /// Interface of the adverts and of the address.
    pub interface: &'a str,
    /// The host's own address, the source of its adverts.
    pub source: Ipv4Addr,
    /// Virtual host identifier.
    pub vhid: u8,
    /// Password.
    pub pass: &'a str,
    /// The shared address, which is put on with a prefix of 32 bits.
    pub address: Ipv4Addr,
    /// Seconds between adverts.
    pub advbase: u8,
    /// 256ths of a second on top.
    pub advskew: u8,
    /// Whether it takes over from a worse master.
    pub preempt: bool,
}

impl Ucarp {
    /// Starts it.
    pub fn start(host: &Namespace, settings: UcarpSettings<'_>) -> Result<Self> {
        let UcarpSettings { interface, source, vhid, pass, address, .. } = settings;
        let script = |name: &str, verb: &str| -> Result<_> {
            let path = host.dir().join(format!("{}-ucarp-{name}", host.name()));
            let line = format!("#!/bin/sh\nip address {verb} {address}/32 dev {interface}\n");
            fs::write(&path, line)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            Ok(path)
        };
        let mut arguments = vec![
            format!("--interface={interface}"),
            format!("--srcip={source}"),
            format!("--vhid={vhid}"),
            format!("--pass={pass}"),
            format!("--addr={address}"),
            format!("--advbase={}", settings.advbase),
            format!("--advskew={}", settings.advskew),
            format!("--upscript={}", script("up", "replace")?.display()),
            format!("--downscript={}", script("down", "delete")?.display()),
            // Otherwise the host has the address still after its end.
            "--shutdown".to_owned(),
        ];
        if settings.preempt {
            arguments.push("--preempt".to_owned());
        }
        let process = host.command("ucarp").args(&arguments).spawn()?;
        Ok(Self { host: host.clone(), arguments, process })
    }

    /// Starts it again with the same settings, after it has ended.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(!self.process.is_running(), "ucarp is still running");
        self.process = self.host.command("ucarp").args(&self.arguments).spawn()?;
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
