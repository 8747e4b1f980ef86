//! The agent check: asks a server's agent, and takes its line.

use std::time::Instant;

use super::{
    connection::{Connection, Deadline, Way},
    finding::{Finding, Trouble},
};
use crate::core::{AgentRequest, Outcome, ProbeId};

const SUBJECT: &str = "agent";

/// Asks an agent once: its line without the end, or why there is none. What the line means is for
/// the core to say.
pub async fn ask(request: AgentRequest) -> (ProbeId, Result<String, Outcome>) {
    let started = Instant::now();
    let line = open_and_exchange(&request).await;
    (request.id, line.map_err(|failure| failure.after(started)))
}

async fn open_and_exchange(request: &AgentRequest) -> Result<String, Finding> {
    let way = Way::plain(request.target, Deadline::after(request.timeout));
    exchange(Connection::open(way).await?, &request.send).await
}

/// The text, safe for a terminal and a log.
fn plain(line: &[u8]) -> String {
    let is_safe = |c: char| !c.is_control() || c == '\t';
    let text = String::from_utf8_lossy(line);
    text.chars().map(|c| if is_safe(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Sends the question, if there is one, and waits for the line.
pub(super) async fn exchange(mut connection: Connection, send: &str) -> Result<String, Finding> {
    if !send.is_empty() {
        match connection.send(send.as_bytes()).await {
            // Many agents answer without reading, and have closed by now.
            Ok(()) | Err(Trouble::Broken(_)) => {}
            Err(trouble) => return Err(Finding::not_sent(SUBJECT, &trouble)),
        }
    }
    loop {
        let received = connection.received();
        if let Some(end) = received.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            return Ok(plain(&received[..end]));
        }
        if let Err(no_more) = connection.receive().await {
            let received = connection.received();
            return Err(Finding::no_answer(SUBJECT, "a line", received, &no_more));
        }
    }
}
