//! Hooks: runs the commands that are to know when a group's role changes.
//!
//! Each group has a queue of its own: its commands run in the order they were asked for, one at a
//! time, and hold up nobody but each other, for as long as each one's timeout at most. If a group's
//! role changes faster than they run, those of the oldest changes are left out: what matters is what
//! the role is now.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::broadcast::{self, error::RecvError},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{core::HookRequest, spawn};

/// Changes of a group's role whose commands may wait: a power of two.
const WAITING: usize = 16;

/// How long the commands of all groups have to come to their end when the daemon stops: less than
/// service managers wait for it.
pub const LAST: Duration = Duration::from_secs(60);

/// The queues of all groups.
#[derive(Debug, Default)]
pub struct Hooks {
    queues: HashMap<String, broadcast::Sender<HookRequest>>,
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
            let (queue, requests) = broadcast::channel(WAITING);
            self.runners.spawn(run_all(request.group.clone(), requests));
            queue
        });
        // A queue is served for as long as it is here.
        let _ = queue.send(request);
    }

    /// Waits until all commands that were asked for have come to their end, but no longer than
    /// `limit`: what runs then is killed, and what waits is not run.
    pub async fn finish(mut self, limit: Duration) {
        self.queues.clear();
        let all = async { while self.runners.join_next().await.is_some() {} };
        if timeout(limit, all).await.is_err() {
            let left = self.runners.len();
            warn!("hooks of {left} groups did not end within {limit:?}, and are killed");
            self.runners.shutdown().await;
        }
    }
}

async fn run_all(name: String, mut requests: broadcast::Receiver<HookRequest>) {
    loop {
        let HookRequest { group, commands, user, timeout } = match requests.recv().await {
            Ok(request) => request,
            Err(RecvError::Lagged(count)) => {
                warn!(
                    "hooks of group {name} are slower than its changes of role: those of {count} \
                     changes were left out"
                );
                continue;
            }
            Err(RecvError::Closed) => return,
        };
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
