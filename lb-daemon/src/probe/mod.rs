//! Probes: asks a backend once how it is, and says what came of it in HAProxy's words.
//!
//! A probe is one TCP connection, whatever it asks, and it always ends by its deadline. The
//! connection is closed by RST, as HAProxy closes its checks: neither side is left with a socket in
//! `TIME_WAIT`, of which two checks a second would keep more than a hundred.

mod connection;
mod finding;
mod http;
mod mysql;
mod script;
#[cfg(test)]
mod tests;

use std::time::Instant;

use connection::{Connection, Deadline};
use finding::Finding;

use crate::{
    config::CheckKind,
    core::{Outcome, ProbeId, ProbeRequest, Reason},
};

/// Runs one probe to its end, which comes within its timeout.
///
/// Nothing a backend does makes this fail: that is what the [`Outcome`] is for.
pub async fn run(request: ProbeRequest) -> (ProbeId, Outcome) {
    let started = Instant::now();
    let Finding { reason, detail } = ask(&request).await.unwrap_or_else(|failure| failure);
    (request.id, Outcome { reason, detail, took: started.elapsed() })
}

/// Ok if the check passed, an error if it failed.
async fn ask(request: &ProbeRequest) -> Result<Finding, Finding> {
    let target = request.target;
    let connection = Connection::open(target, Deadline::after(request.timeout)).await?;
    match &request.kind {
        CheckKind::Connect => Ok(Finding::new(Reason::L4Ok, format!("connected to {target}"))),
        CheckKind::Tcp(steps) => script::play(connection, steps).await,
        CheckKind::Http(check) => http::exchange(connection, check, target).await,
        CheckKind::Mysql(check) => mysql::ask(connection, check).await,
    }
}
