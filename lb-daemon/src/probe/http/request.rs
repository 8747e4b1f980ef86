//! The request of an HTTP check.

use std::{fmt::Write as _, net::SocketAddr};

use crate::config::{HttpCheck, HttpVersion};

/// The whole request, head and body, as it is sent.
pub(super) fn text(check: &HttpCheck, target: SocketAddr) -> String {
    let HttpCheck { method, uri, version, headers, body, .. } = check;
    let mut text = format!("{method} {uri} HTTP/{}\r\n", version.number());
    if let Some(host) = host(check, target) {
        let _ = write!(text, "Host: {host}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text + "Connection: close\r\n\r\n" + body
}

/// The value of the `Host` header, which HTTP/1.0 can do without.
fn host(check: &HttpCheck, target: SocketAddr) -> Option<String> {
    let default = || {
        // Without the zone of a link-local address, which means nothing to the server.
        let address = SocketAddr::new(target.ip(), target.port()).to_string();
        (check.version == HttpVersion::V11).then_some(address)
    };
    check.host.clone().or_else(default)
}
