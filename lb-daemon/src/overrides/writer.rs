//! The thread that writes the file.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvError, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime},
};

use tracing::{error, info};

use super::file;
use crate::core::Override;

/// How long to wait before the disk is tried again, and how long at most: twice as long each time.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// To be called with whether all is kept; why not, for people.
type Confirm = Box<dyn FnOnce(Result<(), String>) + Send>;

pub(super) enum Job {
    Keep(Vec<Override>),
    Confirm(Confirm),
}

/// What knows what is not written yet.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    /// What is to be in the file, and is not; none if nothing is missing there.
    unwritten: Option<Vec<Override>>,
    /// How long to wait before the next attempt.
    pause: Duration,
    /// Why the last attempt failed, for all who want to know.
    not_kept: Arc<Mutex<Option<String>>>,
}

impl Writer {
    pub(super) fn new(path: PathBuf, not_kept: Arc<Mutex<Option<String>>>) -> Self {
        let [pause, _] = PAUSES;
        Self { path, unwritten: None, pause, not_kept }
    }

    /// Writes what is to be kept, the latest only if more is waiting, and confirms after that, until
    /// nobody can send more.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        loop {
            let first = match self.next(queue) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut waiting = Vec::new();
            for job in first.into_iter().chain(queue.try_iter()) {
                match job {
                    Job::Keep(overrides) => self.unwritten = Some(overrides),
                    Job::Confirm(done) => waiting.push(done),
                }
            }
            let outcome = self.write();
            for done in waiting {
                done(outcome.clone());
            }
        }
        // Whatever was wrong may have been put right meanwhile.
        let _ = self.write();
    }

    /// The next job, or a timeout when the disk is to be tried again.
    fn next(&self, queue: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        if self.unwritten.is_some() {
            queue.recv_timeout(self.pause)
        } else {
            queue.recv().map_err(|RecvError| RecvTimeoutError::Disconnected)
        }
    }

    /// Writes what is not written yet, if there is something.
    fn write(&mut self) -> Result<(), String> {
        let Some(overrides) = &self.unwritten else { return Ok(()) };
        let outcome = file::write(&self.path, overrides, Instant::now(), SystemTime::now());
        let outcome = outcome.map_err(|failure| format!("{failure:#}"));
        let [shortest, longest] = PAUSES;
        if outcome.is_ok() {
            self.unwritten = None;
            self.pause = shortest;
        } else {
            self.pause = (self.pause * 2).min(longest);
        }
        self.tell(outcome.as_ref().err());
        outcome
    }

    /// Tells why not all is kept, in the log only if that is news.
    fn tell(&self, why: Option<&String>) {
        let mut not_kept = self.not_kept.lock().unwrap_or_else(PoisonError::into_inner);
        if not_kept.as_ref() == why {
            return;
        }
        if let Some(why) = why {
            error!("what operators say of backends does not outlive this daemon: {why}");
        } else {
            info!("what operators said of backends is kept in {}", self.path.display());
        }
        *not_kept = why.cloned();
    }
}
