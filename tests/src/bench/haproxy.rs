//! HAProxy on the lab's balancer, beside the product and before the same backends.

use std::fs;

use anyhow::Result;

use crate::lab::{Family, Host, Lab, Process};

/// Starts it with a service at a port of the virtual address, whose backends are asked at the same port.
/// The service has these `settings` besides, one a line, and each of its servers those of `server`.
pub(super) fn start(lab: &Lab, port: u16, settings: &[&str], server: &str) -> Result<Process> {
    let file = lab.dir().join("haproxy.cfg");
    fs::write(&file, configuration(lab, port, settings, server))?;
    lab.balancer().command("haproxy").arg("-db").arg("-f").arg(&file).spawn()
}

fn configuration(lab: &Lab, port: u16, settings: &[&str], server: &str) -> String {
    let line =
        |host: &Host| format!("server {} {} {server}", host.name(), host.at(Family::V4, port));
    let servers: Vec<String> = lab.backends().iter().map(line).collect();
    format!(
        "\
global
  nbthread 1
listen web
  mode tcp
  bind {}:{port}
  timeout client 1m
  timeout server 1m
  {}
  {}
",
        lab.vip4(),
        settings.join("\n  "),
        servers.join("\n  ")
    )
}
