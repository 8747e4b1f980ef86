//! The effective configuration as TOML: what inheritance and defaults have come to.

use std::{
    fmt::{Display, Write},
    num::NonZeroU32,
};

use super::{
    check_to_toml, duration, group_to_toml,
    model::{
        Admin, AgentCheck, Backend, Balance, Config, Global, Log, LogFormat, Observe, Role,
        Service, Timeouts, XdpMode,
    },
};

impl Config {
    /// The configuration with all defaults filled in, as a file that means the same without
    /// `[defaults]` and `[service.server]`.
    pub fn to_toml(&self) -> String {
        let mut out = Writer::default();
        global(&mut out, &self.global);
        admin(&mut out, &self.admin);
        log(&mut out, &self.log);
        if let Some(each) = &self.sync {
            group_to_toml::sync(&mut out, each);
        }
        for each in &self.scripts {
            group_to_toml::script(&mut out, each);
        }
        for each in &self.processes {
            group_to_toml::process(&mut out, each);
        }
        for each in &self.groups {
            group_to_toml::group(&mut out, each);
        }
        for each in &self.services {
            service(&mut out, each);
        }
        out.0
    }
}

fn global(out: &mut Writer, global: &Global) {
    out.header("[global]");
    out.line("node", quote(&global.node));
    out.line("interfaces", list(global.interfaces.iter().map(quote)));
    let xdp_mode = match global.xdp_mode {
        XdpMode::Auto => "auto",
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
    };
    out.line("xdp_mode", quote(xdp_mode));
    out.line("maxconn", global.maxconn);
    out.line("max_half_open", global.max_half_open);
    let ports = &global.source_ports;
    out.line("source_ports", quote(format!("{}-{}", ports.start(), ports.end())));
    out.line("bpffs", quote(global.bpffs.display()));
    out.line("resolve_interval", quote(duration::format(global.resolve_interval)));
}

fn admin(out: &mut Writer, admin: &Admin) {
    out.header("[admin]");
    out.line("socket", quote(admin.socket.display()));
    if let Some(metrics) = admin.metrics {
        out.line("metrics", quote(metrics));
    }
    out.line("state_file", quote(admin.state_file.display()));
}

fn log(out: &mut Writer, log: &Log) {
    out.header("[log]");
    out.line("level", quote(&log.level));
    let format = match log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    out.line("format", quote(format));
}

fn service(out: &mut Writer, service: &Service) {
    out.header("[[service]]");
    out.line("name", quote(&service.name));
    out.line("bind", list(service.bind.iter().map(quote)));
    out.line("mode", quote("tcp"));
    let balance = match service.balance {
        Balance::RoundRobin => "roundrobin",
        Balance::LeastConn => "leastconn",
        Balance::Source => "source",
        Balance::Hash => "hash",
    };
    out.line("balance", quote(balance));
    out.line("allbackups", service.allbackups);
    out.line("synchronous", service.synchronous);
    out.line("source", list(service.source.iter().map(quote)));
    out.line("maxconn", limit(service.maxconn));
    out.line("timeout", timeouts(&service.timeout));
    for each in &service.backends {
        backend(out, each);
    }
}

fn timeouts(timeouts: &Timeouts) -> String {
    let keys = [
        ("connect", timeouts.connect),
        ("queue", timeouts.queue),
        ("client", timeouts.client),
        ("server", timeouts.server),
        ("client_fin", timeouts.client_fin),
        ("server_fin", timeouts.server_fin),
    ];
    let keys = keys.map(|(key, timeout)| format!("{key} = {}", quote(duration::format(timeout))));
    format!("{{ {} }}", keys.join(", "))
}

fn backend(out: &mut Writer, backend: &Backend) {
    out.header("[[service.backend]]");
    out.line("name", quote(&backend.name));
    out.line(
        "address",
        match &backend.host {
            None => quote(backend.address),
            Some(host) => quote(format!("{host}:{}", backend.address.port())),
        },
    );
    out.line("weight", backend.weight);
    out.line("maxconn", limit(backend.limits.maxconn));
    out.line("maxqueue", limit(backend.limits.maxqueue));
    let role = match backend.role {
        Role::Active => "active",
        Role::Backup => "backup",
    };
    out.line("role", quote(role));
    out.line("on_marked_down", quote(backend.on_marked_down.name()));
    let slowstart = backend.slowstart.unwrap_or_default();
    out.line("slowstart", quote(duration::format(slowstart)));
    if let Some(each) = backend.observe {
        observe(out, each);
    }
    match &backend.check {
        Some(each) => check_to_toml::check(out, each),
        None => out.line("check", "{ enabled = false }"),
    }
    if let Some(each) = &backend.agent {
        agent(out, each);
    }
}

fn observe(out: &mut Writer, observe: Observe) {
    out.line("observe", quote("layer4"));
    out.line("error_limit", observe.error_limit);
    out.line("on_error", quote(observe.on_error.name()));
}

/// Zero for no limit.
fn limit(limit: Option<NonZeroU32>) -> u32 {
    limit.map_or(0, NonZeroU32::get)
}

fn agent(out: &mut Writer, agent: &AgentCheck) {
    out.header("[service.backend.agent]");
    if !agent.target.ip().is_unspecified() {
        out.line("address", quote(agent.target.ip()));
    }
    out.line("port", agent.target.port());
    out.line("send", quote(&agent.send));
    out.line("inter", quote(duration::format(agent.inter)));
}

/// On one line; backslashes stay readable where TOML allows it.
pub(super) fn quote(text: impl Display) -> String {
    let text = text.to_string();
    if text.contains(['\\', '"']) && !text.contains(|c: char| c == '\'' || c.is_control()) {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A file in the making.
#[derive(Default)]
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn header(&mut self, header: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}{header}");
    }

    pub(super) fn line(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }
}
