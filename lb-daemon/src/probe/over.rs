//! Probes over a connection that somebody else has made: a test that says what a backend would.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    agent,
    connection::{Connection, Deadline, Stream},
    http,
};
use crate::{config::HttpCheck, core::Outcome};

/// The outcome of an HTTP check of `target`.
pub async fn http(
    stream: impl Stream + 'static,
    check: &HttpCheck,
    target: SocketAddr,
    timeout: Duration,
) -> Outcome {
    let started = Instant::now();
    let connection = Connection::over(stream, Deadline::after(timeout));
    let found = http::exchange(connection, check, target).await;
    found.unwrap_or_else(|failure| failure).after(started)
}

/// The line of an agent.
///
/// # Errors
///
/// Why there is none.
pub async fn agent(
    stream: impl Stream + 'static,
    send: &str,
    timeout: Duration,
) -> Result<String, Outcome> {
    let started = Instant::now();
    let connection = Connection::over(stream, Deadline::after(timeout));
    agent::exchange(connection, send).await.map_err(|failure| failure.after(started))
}
