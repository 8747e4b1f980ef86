//! Health checks of the effective configuration as TOML.

use std::fmt::Write as _;

use super::{
    check_model::{
        Check, CheckKind, ExternalCheck, HttpCheck, HttpSubject, HttpVersion, Pattern, StatusRange,
        TcpAction, TcpConnect, TcpStep,
    },
    duration, mysql_to_toml,
    tls_model::Tls,
    to_toml::{Writer, list, quote},
};

/// A check, below the backend that it belongs to.
pub(super) fn check(out: &mut Writer, check: &Check) {
    out.header("[service.backend.check]");
    out.line("enabled", true);
    if !check.target.ip().is_unspecified() {
        out.line("address", quote(check.target.ip()));
    }
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
    if let Some(source) = check.source {
        out.line("source", quote(source));
    }
    if let Some(each) = &check.tls {
        tls(out, check.ssl, each);
    }
    match &check.kind {
        CheckKind::Connect => out.line("tcp_check", "[]"),
        CheckKind::Tcp(steps) => out.line("tcp_check", list(steps.iter().map(tcp_step))),
        CheckKind::Http(check) => out.line("httpchk", http_check(check)),
        CheckKind::Mysql(check) => out.line("mysql_check", mysql_to_toml::check(check)),
        CheckKind::External(check) => out.line("external_check", external_check(check)),
    }
}

fn tls(out: &mut Writer, ssl: bool, tls: &Tls) {
    out.line("ssl", ssl);
    out.line("verify", quote(if tls.trust.is_some() { "required" } else { "none" }));
    if let Some(trust) = &tls.trust {
        out.line("ca_file", quote(trust.file.display()));
    }
    if let Some(sni) = &tls.sni {
        out.line("sni", quote(sni));
    }
    if !tls.alpn.is_empty() {
        out.line("alpn", list(tls.alpn.iter().map(quote)));
    }
}

/// Keys and values of a table on one line.
#[derive(Default)]
pub(super) struct Inline(Vec<String>);

impl Inline {
    pub(super) fn key(&mut self, key: &str, value: &str) {
        self.0.push(format!("{key} = {value}"));
    }

    pub(super) fn close(self) -> String {
        if self.0.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", self.0.join(", ")) }
    }
}

fn tcp_step(step: &TcpStep) -> String {
    let mut out = Inline::default();
    match &step.action {
        TcpAction::Connect(connect) => out.key("connect", &tcp_connect(connect)),
        TcpAction::Send(bytes) => text_or_hex(&mut out, ["send", "send_hex"], bytes),
        TcpAction::Expect(expect) => {
            match (&expect.pattern, expect.negated) {
                (Pattern::String(bytes), false) => {
                    text_or_hex(&mut out, ["expect_string", "expect_hex"], bytes);
                }
                (Pattern::String(bytes), true) => {
                    text_or_hex(&mut out, ["expect_not_string", "expect_not_hex"], bytes);
                }
                (Pattern::Regex(regex), false) => out.key("expect_regex", &quote(regex)),
                (Pattern::Regex(regex), true) => out.key("expect_not_regex", &quote(regex)),
            }
            if let Some(bytes) = expect.min_recv {
                out.key("min_recv", &bytes.to_string());
            }
        }
    }
    if let Some(comment) = &step.comment {
        out.key("comment", &quote(comment));
    }
    out.close()
}

fn tcp_connect(connect: &TcpConnect) -> String {
    let mut out = Inline::default();
    if let Some(address) = connect.address {
        out.key("address", &quote(address));
    }
    if let Some(port) = connect.port {
        out.key("port", &port.to_string());
    }
    if let Some(ssl) = connect.ssl {
        out.key("ssl", &ssl.to_string());
    }
    out.close()
}

fn text_or_hex(out: &mut Inline, [text_key, hex_key]: [&str; 2], bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return out.key(text_key, &quote(text));
    }
    let mut digits = String::new();
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}");
    }
    out.key(hex_key, &quote(digits));
}

fn http_check(check: &HttpCheck) -> String {
    let mut out = Inline::default();
    out.key("method", &quote(&check.method));
    out.key("uri", &quote(&check.uri));
    if check.version != HttpVersion::V11 {
        out.key("version", &quote(check.version.number()));
    }
    if let Some(host) = &check.host {
        out.key("host", &quote(host));
    }
    if !check.headers.is_empty() {
        let lines = check.headers.iter().map(|(name, value)| quote(format!("{name}: {value}")));
        out.key("headers", &list(lines));
    }
    if !check.body.is_empty() {
        out.key("body", &quote(&check.body));
    }
    for expect in &check.expects {
        let (negated, key, value) = match &expect.subject {
            HttpSubject::Status(ranges) => {
                ("not_status", "status", list(ranges.iter().copied().map(status)))
            }
            HttpSubject::StatusText(pattern) => {
                ("not_status_regex", "status_regex", quote_pattern(pattern))
            }
            HttpSubject::Body(pattern @ Pattern::String(_)) => {
                ("expect_not_string", "expect_string", quote_pattern(pattern))
            }
            HttpSubject::Body(pattern @ Pattern::Regex(_)) => {
                ("expect_not_regex", "expect_regex", quote_pattern(pattern))
            }
        };
        out.key(if expect.negated { negated } else { key }, &value);
    }
    out.close()
}

fn status(range: StatusRange) -> String {
    let StatusRange { first, last } = range;
    if first == last { quote(first) } else { quote(format!("{first}-{last}")) }
}

/// A pattern that came from a text.
fn quote_pattern(pattern: &Pattern) -> String {
    match pattern {
        Pattern::String(bytes) => quote(String::from_utf8_lossy(bytes)),
        Pattern::Regex(regex) => quote(regex),
    }
}

fn external_check(check: &ExternalCheck) -> String {
    let mut out = Inline::default();
    out.key("command", &list(check.command.iter().map(quote)));
    if let Some(path) = &check.path {
        out.key("path", &quote(path));
    }
    out.key("user", &quote(&check.user));
    out.close()
}
