//! Tracking: finds out how the scripts and processes are that decide who holds a group.

mod processes;
#[cfg(test)]
mod tests;

pub use processes::ProcessWatcher;

use crate::{
    core::{RunId, RunOutcome, RunRequest},
    spawn,
};

/// Runs a script once, to its end, which comes within its timeout and a moment.
pub async fn run_script(request: RunRequest) -> (RunId, RunOutcome) {
    let script = request.script;
    let outcome = match spawn::run(&script.command, &script.user, script.timeout).await {
        Ok(detail) => RunOutcome { passed: true, detail },
        Err(failure) => RunOutcome { passed: false, detail: failure.to_string() },
    };
    (request.id, outcome)
}
