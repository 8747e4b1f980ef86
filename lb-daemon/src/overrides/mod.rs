//! What operators said of backends at run time, kept in a file for the daemons to come.
//!
//! A thread of its own writes the file: the daemon's loop does not wait for a disk. Whoever wants to
//! know whether what was said is kept asks for a confirmation, and gets it when it is. What the disk
//! does not take is tried again, less and less often, until it does.

mod file;
mod progress;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use tracing::{error, warn};

use self::{
    progress::Progress,
    writer::{Job, Writer},
};
use crate::core::Override;

/// How long a disk may take at the end. One that hangs shall not keep the daemon from ending.
const LAST: Duration = Duration::from_secs(3);

/// The file, and the thread that writes it. Dropping it waits until all is written, but not for long.
#[derive(Debug)]
pub struct Overrides {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    progress: Progress,
    /// Says nothing, and is closed when the thread ends.
    ended: mpsc::Receiver<()>,
}

impl Overrides {
    /// The file at `path`, and what an earlier daemon kept in it. A file that makes no sense is set
    /// aside and told of in the log, and so is one that cannot be read: a load balancer serves
    /// without it.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn open(path: PathBuf) -> Result<(Self, Vec<Override>)> {
        let kept = match file::read(&path, Instant::now(), SystemTime::now()) {
            Ok(kept) => kept,
            Err(unusable) => {
                warn!("what operators said of backends before is lost: {unusable}");
                Vec::new()
            }
        };
        let (jobs, queue) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let progress = Progress::default();
        let writer = Writer::new(path.clone(), progress.clone());
        let run = move || {
            let _end: mpsc::Sender<()> = end;
            writer.run(&queue);
        };
        thread::Builder::new()
            .name("overrides".to_owned())
            .spawn(run)
            .context("cannot start the thread that keeps overrides")?;
        Ok((Self { path, jobs: Some(jobs), progress, ended }, kept))
    }

    /// Keeps these, and no others.
    pub fn keep(&self, overrides: Vec<Override>) {
        self.progress.asked();
        self.send(Job::Keep(overrides));
    }

    /// Calls `done` when all that was to be kept is on the disk, or cannot be put there now.
    pub fn confirm(&self, done: impl FnOnce(Result<(), String>) + Send + 'static) {
        self.send(Job::Confirm(Box::new(done)));
    }

    /// Why the disk has not all that was to be kept, if it has not: a disk that hangs says nothing.
    pub fn not_kept(&self) -> Option<String> {
        let unanswered = || format!("{} is still being written", self.path.display());
        let failure = self.progress.failure();
        failure.or_else(|| (!self.progress.is_complete()).then(unanswered))
    }

    /// Where they are kept.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn send(&self, job: Job) {
        // The thread ends only with this.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }
}

impl Drop for Overrides {
    fn drop(&mut self) {
        self.jobs = None;
        if self.ended.recv_timeout(LAST) == Err(RecvTimeoutError::Timeout) {
            let path = self.path.display();
            error!("{path} is not written within {LAST:?}: what operators said last may be lost");
        }
    }
}
