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
    let line = exchange(&request).await.map_err(|Finding { reason, detail }| Outcome {
        reason,
        detail,
        took: started.elapsed(),
    });
    (request.id, line)
}

/// The text, safe for a terminal and a log.
fn plain(line: &[u8]) -> String {
    let is_safe = |c: char| !c.is_control() || c == '\t';
    let text = String::from_utf8_lossy(line);
    text.chars().map(|c| if is_safe(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

async fn exchange(request: &AgentRequest) -> Result<String, Finding> {
    let deadline = Deadline::after(request.timeout);
    let mut connection = Connection::open(Way::plain(request.target, deadline)).await?;
    if !request.send.is_empty() {
        match connection.send(request.send.as_bytes()).await {
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
