//! What operators said of backends at run time, kept in a file for the daemons to come.
//!
//! A thread of its own writes the file: the daemon's loop does not wait for a disk. Whoever wants to
//! know whether what was said is kept asks for a confirmation, and gets it when it is.

mod file;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use tracing::{error, warn};

use crate::core::Override;

/// The file, and the thread that writes it. Dropping it waits until all is written.
#[derive(Debug)]
pub struct Overrides {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// To be called with whether all is kept; why not, for people.
type Confirm = Box<dyn FnOnce(Result<(), String>) + Send>;

enum Job {
    Keep(Vec<Override>),
    Confirm(Confirm),
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
        let written = path.clone();
        let thread = thread::Builder::new()
            .name("overrides".to_owned())
            .spawn(move || write(&written, &queue))
            .context("cannot start the thread that keeps overrides")?;
        Ok((Self { path, jobs: Some(jobs), thread: Some(thread) }, kept))
    }

    /// Keeps these, and no others.
    pub fn keep(&self, overrides: Vec<Override>) {
        self.send(Job::Keep(overrides));
    }

    /// Calls `done` when all that was to be kept is on the disk, or cannot be put there.
    pub fn confirm(&self, done: impl FnOnce(Result<(), String>) + Send + 'static) {
        self.send(Job::Confirm(Box::new(done)));
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
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes what is to be kept, the latest only if more is waiting, and confirms after that.
fn write(path: &std::path::Path, queue: &mpsc::Receiver<Job>) {
    let mut outcome = Ok(());
    while let Ok(first) = queue.recv() {
        let mut latest = None;
        let mut waiting = Vec::new();
        for job in std::iter::once(first).chain(queue.try_iter()) {
            match job {
                Job::Keep(overrides) => latest = Some(overrides),
                Job::Confirm(done) => waiting.push(done),
            }
        }
        if let Some(overrides) = latest {
            outcome = file::write(path, &overrides, Instant::now(), SystemTime::now())
                .map_err(|failure| format!("{failure:#}"));
            if let Err(why) = &outcome {
                error!("what operators say of backends does not outlive this daemon: {why}");
            }
        }
        for done in waiting {
            done(outcome.clone());
        }
    }
}
