//! Probes: asks a backend once how it is, and says what came of it in HAProxy's words.
//!
//! A probe is one TCP connection at a time, or one command, and it always ends by its deadline. The
//! connection is closed by RST, as HAProxy closes its checks: neither side is left with a socket in
//! `TIME_WAIT`, of which two checks a second would keep more than a hundred.

mod agent;
mod connection;
mod external;
mod finding;
mod http;
mod mysql;
pub mod over;
mod script;
#[cfg(test)]
mod tests;
mod tls;

use std::time::Instant;

pub use agent::ask as ask_agent;
use connection::{Connection, Way};
use finding::Finding;

use crate::{
    config::CheckKind,
    core::{Outcome, ProbeId, ProbeRequest},
};

/// Runs one probe to its end, which comes within its timeout.
///
/// Nothing a backend does makes this fail: that is what the [`Outcome`] is for.
pub async fn run(request: ProbeRequest) -> (ProbeId, Outcome) {
    let started = Instant::now();
    let finding = ask(&request).await.unwrap_or_else(|failure| failure);
    (request.id, finding.after(started))
}

/// Ok if the check passed, an error if it failed.
async fn ask(request: &ProbeRequest) -> Result<Finding, Finding> {
    let check = &*request.check;
    let way = Way::of(check);
    match &check.kind {
        CheckKind::Connect => {
            Connection::open(way).await?;
            Ok(way.found_open())
        }
        CheckKind::Tcp(steps) => script::play(check, steps, way).await,
        CheckKind::Http(http) => {
            http::exchange(Connection::open(way).await?, http, check.target).await
        }
        CheckKind::Mysql(conversation) => {
            mysql::ask(Connection::open(way).await?, conversation).await
        }
        CheckKind::External(command) => external::run(command, check, &request.subject).await,
    }
}
