//! Hooks: runs the commands that are to know when a group's role changes.
//!
//! Each group has a queue of its own: its commands run in the order they were asked for, one at a
//! time, and hold up nobody but each other, for as long as each one's timeout at most.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, warn};

use crate::{core::HookRequest, spawn};

/// The queues of all groups.
#[derive(Debug, Default)]
pub struct Hooks {
    queues: HashMap<String, mpsc::UnboundedSender<HookRequest>>,
    runners: JoinSet<()>,
}

impl Hooks {
    /// No queues yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs commands after those of the same group that were asked for before. Does not wait.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn run(&mut self, request: HookRequest) {
        let queue = self.queues.entry(request.group.clone()).or_insert_with(|| {
            let (queue, requests) = mpsc::unbounded_channel();
            self.runners.spawn(run_all(requests));
            queue
        });
        // A queue is served for as long as it is here.
        let _ = queue.send(request);
    }

    /// Waits until all commands that were asked for have come to their end.
    pub async fn finish(mut self) {
        self.queues.clear();
        while self.runners.join_next().await.is_some() {}
    }
}

async fn run_all(mut requests: mpsc::UnboundedReceiver<HookRequest>) {
    while let Some(HookRequest { group, commands, user, timeout }) = requests.recv().await {
        for command in commands {
            match spawn::run(&command, &user, timeout).await {
                Ok(output) => debug!(%group, ?command, %output, "a hook ended"),
                Err(failure) => {
                    warn!("hook `{}` of group {group} failed: {failure}", command.join(" "));
                }
            }
        }
    }
}
