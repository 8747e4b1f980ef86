//! A process that a lab keeps running in the background.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Error, Result, anyhow};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait::until;

/// A background process. Dropping it kills it, and all its children, and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn new(name: String, child: Child, log: PathBuf) -> Self {
        Self { name, child, log }
    }

    /// Its number, in our own PID namespace.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal, if it is still running.
    ///
    /// The process is the init of its PID namespace: it gets what it handles, `SIGKILL` and
    /// `SIGSTOP`; the kernel ignores the rest.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Not reaped yet, so the number cannot belong to somebody else.
        if self.is_running() {
            let pid = Pid::from_raw(self.child.id().cast_signed());
            kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// Asks it to end by `SIGTERM` and waits.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout)
    }

    /// Kills it by `SIGKILL` and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        until(&format!("the end of {}", self.name), timeout, || {
            self.child.try_wait()?.context("it is still running")
        })
    }

    /// An error with the end of the log added, for people.
    pub(super) fn explain(&self, error: &Error) -> Error {
        let log = self.log_tail(40);
        anyhow!("{error:#}\nThe end of the log of {}:\n{log}\n", self.name)
    }

    /// The file with what it has printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines it has printed.
    pub fn log_tail(&self, lines: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let skip = text.lines().count().saturating_sub(lines);
        text.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
