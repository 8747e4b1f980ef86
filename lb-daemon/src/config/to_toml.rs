//! The effective configuration as TOML: what inheritance and defaults have come to.

use std::fmt::{Display, Write};

use super::{
    duration, group_to_toml,
    model::{
        Admin, Backend, Balance, Check, CheckKind, Config, Expect, Global, HttpCheck, Log,
        LogFormat, Role, Service, TcpStep, Timeouts, XdpMode,
    },
    mysql_model::{MysqlCheck, MysqlExpect, MysqlQuestion},
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
}

fn admin(out: &mut Writer, admin: &Admin) {
    out.header("[admin]");
    out.line("socket", quote(admin.socket.display()));
    if let Some(metrics) = admin.metrics {
        out.line("metrics", quote(metrics));
    }
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
    out.line("source", list(service.source.iter().map(quote)));
    out.line("timeout", timeouts(&service.timeout));
    for each in &service.backends {
        backend(out, each);
    }
}

fn timeouts(timeouts: &Timeouts) -> String {
    let keys = [
        ("connect", timeouts.connect),
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
    out.line("address", quote(backend.address));
    out.line("weight", backend.weight);
    let role = match backend.role {
        Role::Active => "active",
        Role::Backup => "backup",
    };
    out.line("role", quote(role));
    out.line("on_marked_down", quote(backend.on_marked_down.name()));
    match &backend.check {
        Some(each) => check(out, each),
        None => out.line("check", "{ enabled = false }"),
    }
}

fn check(out: &mut Writer, check: &Check) {
    out.header("[service.backend.check]");
    out.line("enabled", true);
    out.line("address", quote(check.target.ip()));
    out.line("port", check.target.port());
    for (key, period) in [
        ("inter", check.inter),
        ("fastinter", check.fastinter),
        ("downinter", check.downinter),
        ("timeout", check.timeout),
    ] {
        out.line(key, quote(duration::format(period)));
    }
    out.line("rise", check.rise);
    out.line("fall", check.fall);
    match &check.kind {
        CheckKind::Connect => out.line("tcp_check", "[]"),
        CheckKind::Tcp(steps) => {
            out.line(
                "tcp_check",
                list(steps.iter().map(|step| format!("{{ {} }}", tcp_step(step)))),
            );
        }
        CheckKind::Http(check) => out.line("httpchk", http_check(check)),
        CheckKind::Mysql(check) => out.line("mysql_check", mysql_check(check)),
    }
}

fn tcp_step(step: &TcpStep) -> String {
    match step {
        TcpStep::Send(bytes) => text_or_hex("send", "send_hex", bytes),
        TcpStep::Expect(Expect::String(bytes)) => text_or_hex("expect_string", "expect_hex", bytes),
        TcpStep::Expect(Expect::Regex(regex)) => format!("expect_regex = {}", quote(regex)),
    }
}

fn text_or_hex(text_key: &str, hex_key: &str, bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return format!("{text_key} = {}", quote(text));
    }
    let mut digits = String::new();
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}");
    }
    format!("{hex_key} = {}", quote(digits))
}

fn http_check(check: &HttpCheck) -> String {
    let host =
        check.host.as_ref().map_or_else(String::new, |host| format!(", host = {}", quote(host)));
    let status = list(check.status.iter().map(|range| {
        if range.first == range.last {
            quote(range.first)
        } else {
            quote(format!("{}-{}", range.first, range.last))
        }
    }));
    let (method, uri) = (quote(&check.method), quote(&check.uri));
    format!("{{ method = {method}, uri = {uri}{host}, status = {status} }}")
}

fn mysql_check(check: &MysqlCheck) -> String {
    let mut keys = Vec::new();
    if let Some(login) = &check.login {
        keys.push(format!("user = {}", quote(&login.user)));
        match &login.password_file {
            Some(file) => keys.push(format!("password_file = {}", quote(file.display()))),
            None if login.password.reveal().is_empty() => {}
            None => keys.push(format!("password = {}", quote(login.password.reveal()))),
        }
    }
    match &check.question {
        None => {}
        Some(MysqlQuestion::Galera { available_when_donor, not_when_read_only }) => {
            keys.push("query = \"galera\"".into());
            keys.push(format!("available_when_donor = {available_when_donor}"));
            keys.push(format!("not_when_read_only = {not_when_read_only}"));
        }
        Some(MysqlQuestion::Writable) => keys.push("query = \"writable\"".into()),
        Some(MysqlQuestion::Replica { max_lag }) => {
            keys.push("query = \"replica\"".into());
            keys.extend(max_lag.map(|lag| format!("max_lag = {}", quote(duration::format(lag)))));
        }
        Some(MysqlQuestion::Sql { query, expect }) => {
            keys.push(format!("query = {}", quote(query)));
            keys.extend(expect.as_ref().map(|expect| match expect {
                MysqlExpect::Text(text) => format!("expect = {}", quote(text)),
                MysqlExpect::Regex(regex) => format!("expect_regex = {}", quote(regex)),
            }));
        }
    }
    if keys.is_empty() { "{}".into() } else { format!("{{ {} }}", keys.join(", ")) }
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
