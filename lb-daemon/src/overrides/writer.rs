//! The thread that writes the file.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvError, RecvTimeoutError},
    time::{Duration, Instant, SystemTime},
};

use tracing::{error, info};

use super::{file, progress::Progress};
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
    /// How often something was to be kept.
    received: u64,
    /// How long to wait before the next attempt.
    pause: Duration,
    progress: Progress,
}

impl Writer {
    pub(super) fn new(path: PathBuf, progress: Progress) -> Self {
        let [pause, _] = PAUSES;
        Self { path, unwritten: None, received: 0, pause, progress }
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
                    Job::Keep(overrides) => {
                        self.unwritten = Some(overrides);
                        self.received += 1;
                    }
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
    fn next(&mut self, queue: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        if self.unwritten.is_none() {
            return queue.recv().map_err(|RecvError| RecvTimeoutError::Disconnected);
        }
        let next = queue.recv_timeout(self.pause);
        if matches!(next, Err(RecvTimeoutError::Timeout)) {
            let [_, longest] = PAUSES;
            self.pause = (self.pause * 2).min(longest);
        }
        next
    }

    /// Writes what is not written yet, if there is something.
    fn write(&mut self) -> Result<(), String> {
        let Some(overrides) = &self.unwritten else { return Ok(()) };
        let outcome = file::write(&self.path, overrides, Instant::now(), SystemTime::now());
        let outcome = outcome.map_err(|failure| format!("{failure:#}"));
        if outcome.is_ok() {
            self.unwritten = None;
            [self.pause, _] = PAUSES;
        }
        self.tell(&outcome);
        outcome
    }

    /// Tells whether all is kept, and why not, in the log only if that is news.
    fn tell(&self, outcome: &Result<(), String>) {
        match outcome {
            Ok(()) => {
                if self.progress.written(self.received) {
                    info!("what operators said of backends is kept in {}", self.path.display());
                }
            }
            Err(why) => {
                if self.progress.failed(why) {
                    error!("what operators say of backends does not outlive this daemon: {why}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn each_pause_is_twice_as_long_as_the_one_before_it_and_a_success_ends_that() {
        let progress = Progress::default();
        let mut writer = Writer::new("/dev/null/overrides.json".into(), progress);
        writer.unwritten = Some(Vec::new());
        writer.write().unwrap_err();
        assert_eq!(writer.pause, Duration::from_secs(1), "nobody has waited yet");

        let (_jobs, queue) = mpsc::channel();
        assert!(matches!(writer.next(&queue), Err(RecvTimeoutError::Timeout)));
        writer.write().unwrap_err();
        assert_eq!(writer.pause, Duration::from_secs(2));

        writer.path = std::env::temp_dir().join(format!("tandem-pauses-{}", std::process::id()));
        writer.write().unwrap();
        assert_eq!(writer.pause, Duration::from_secs(1));
        std::fs::remove_file(&writer.path).unwrap();
    }
}
