//! Whatever an HTTP server says, the check of it comes to an end, and what it tells of it is safe for a
//! terminal.
//!
//! `cargo fuzz run http_check`, as the target `adverts`.
#![no_main]

use std::{io::Cursor, net::SocketAddr, sync::LazyLock, time::Duration};

use lb_daemon::{
    config::{self, CheckKind, HttpCheck},
    probe::over,
};
use libfuzzer_sys::fuzz_target;
use tokio::{io, runtime};

/// One that looks at all that an answer has, one that wants something not to be there, and one without
/// a body.
const CHECKS: &str = r#"
[global]
node = "lb1"
interfaces = ["eth0"]
[[service]]
name = "web"
bind = "10.2.2.5:80"
[[service.backend]]
name = "w1"
address = "10.6.6.1:80"
check = { httpchk = { method = "GET", status = "200-299", expect_string = "ready" } }
[[service.backend]]
name = "w2"
address = "10.6.6.2:80"
check = { httpchk = { method = "GET", expect_not_string = "down" } }
[[service.backend]]
name = "w3"
address = "10.6.6.3:80"
check = { httpchk = { method = "HEAD" } }
"#;

static KINDS: LazyLock<Vec<HttpCheck>> = LazyLock::new(|| {
    let config = config::parse(CHECKS, "checks").unwrap_or_else(|error| panic!("{error}")).config;
    let checks = config.services[0].backends.iter().filter_map(|backend| backend.check.as_ref());
    let kinds = checks.map(|check| match &check.kind {
        CheckKind::Http(http) => http.clone(),
        other => unreachable!("{other:?}"),
    });
    kinds.collect()
});

static RUNTIME: LazyLock<runtime::Runtime> = LazyLock::new(|| {
    runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
});

/// Of an answer: without it, hardly anything gets as far as a header.
const BEGINNING: &[u8] = b"HTTP/1.1 200 OK\r\n";

const TARGET: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 6, 6, 1)), 80);

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, said)) = bytes.split_first() else { return };
    let check = &KINDS[usize::from(choice & 3) % KINDS.len()];
    let said = if choice & 4 == 0 { [BEGINNING, said].concat() } else { said.to_vec() };
    let server = io::join(Cursor::new(said), io::sink());
    let outcome = RUNTIME.block_on(over::http(server, check, TARGET, Duration::from_secs(60)));
    assert!(!outcome.detail.contains(char::is_control), "{:?}", outcome.detail);
});
