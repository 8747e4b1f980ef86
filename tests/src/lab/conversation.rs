//! A process that is told lines, and answers by lines.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use super::{Process, wait::stretched};

/// A process in the background, and both ends of what is said. Dropping it kills it.
#[derive(Debug)]
pub struct Conversation {
    process: Process,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Conversation {
    pub(super) fn new(process: Process, input: ChildStdin, output: ChildStdout) -> Self {
        let (sender, lines) = mpsc::channel();
        // It ends with the process, or with us.
        thread::spawn(move || {
            let lines = BufReader::new(output).lines();
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, input, lines }
    }

    /// Tells it a line.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let told = writeln!(self.input, "{line}").and_then(|()| self.input.flush());
        told.context("it does not listen any more")
    }

    /// The next line that it says.
    pub fn line(&self, within: Duration) -> Result<String> {
        self.lines.recv_timeout(stretched(within)).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("it said nothing within {within:?}"),
            RecvTimeoutError::Disconnected => anyhow!("it has ended"),
        })
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
