//! The external check: a command says how a backend is, by its exit status.

use std::net::SocketAddr;

use super::finding::Finding;
use crate::{
    config::{Check, ExternalCheck},
    core::{Reason, Subject},
    spawn::{self, Failure},
};

/// Runs the command with HAProxy's arguments and environment; the check passes if it exits with 0.
pub(super) async fn run(
    external: &ExternalCheck,
    check: &Check,
    subject: &Subject,
) -> Result<Finding, Finding> {
    let proxy = parts(subject.bind);
    let server = parts(subject.address);
    let arguments = proxy.iter().chain(&server).cloned();
    let command: Vec<String> = external.command.iter().cloned().chain(arguments).collect();
    let mut environment = environment(subject, proxy, server);
    environment.extend(external.path.clone().map(|path| ("PATH", path)));

    match spawn::run_with(&command, &external.user, check.timeout, &environment).await {
        Ok(said) if said.is_empty() => Ok(Finding::new(Reason::ProcessOk, "exit status 0".into())),
        Ok(said) => Ok(Finding::new(Reason::ProcessOk, said)),
        Err(failure @ Failure::TimedOut { .. }) => {
            Err(Finding::new(Reason::ProcessTimeout, failure.to_string()))
        }
        Err(failure) => Err(Finding::new(Reason::ProcessError, failure.to_string())),
    }
}

/// What HAProxy tells its commands.
fn environment(
    subject: &Subject,
    [proxy_address, proxy_port]: [String; 2],
    [server_address, server_port]: [String; 2],
) -> Vec<(&'static str, String)> {
    vec![
        ("HAPROXY_PROXY_NAME", subject.service.clone()),
        ("HAPROXY_PROXY_ID", subject.service_id.to_string()),
        ("HAPROXY_PROXY_ADDR", proxy_address),
        ("HAPROXY_PROXY_PORT", proxy_port),
        ("HAPROXY_SERVER_NAME", subject.backend.clone()),
        ("HAPROXY_SERVER_ID", subject.backend_id.to_string()),
        ("HAPROXY_SERVER_ADDR", server_address),
        ("HAPROXY_SERVER_PORT", server_port),
        ("HAPROXY_SERVER_MAXCONN", subject.maxconn.to_string()),
        // Who counts connections is not asked for every check; nobody is known to look here.
        ("HAPROXY_SERVER_CURCONN", String::new()),
    ]
}

fn parts(address: SocketAddr) -> [String; 2] {
    [address.ip().to_string(), address.port().to_string()]
}
