//! The host's end of the machine's serial line: shows and counts what comes.

use std::{
    io::{self, Read, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::{prctl, signal::Signal};

use super::{END, FAILED, PASSED};
use crate::{
    elapsed::Elapsed,
    test::{harness::Report, tally::Tally},
};

/// Runs the machine until it is switched off, but no longer than `patience`.
pub(super) fn watch(qemu: &mut Command, patience: Duration) -> Result<Tally> {
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        // However this process ends, the machine does not outlive it.
        qemu.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    let mut machine = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .with_context(|| format!("cannot start {}", qemu.get_program().display()))?;
    let output = machine.0.stdout.take().context("standard output is a pipe")?;
    let output = chunks(output);
    let deadline = Instant::now() + patience;

    let mut console = Console::default();
    while let Ok(chunk) = output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        io::stdout().write_all(&chunk)?;
        io::stdout().flush()?;
        console.feed(&chunk);
    }
    let hangs = Instant::now() >= deadline;
    drop(machine);
    let reason =
        if hangs { format!("hung after {}", Elapsed(patience)) } else { "died".to_owned() };
    Ok(console.finish(&reason))
}

/// Ends the machine when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is printed, as it comes, without the carriage returns of a serial line.
fn chunks(mut output: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            let chunk = buffer[..length].iter().copied().filter(|byte| *byte != b'\r').collect();
            if sender.send(chunk).is_err() {
                break;
            }
        }
    });
    receiver
}

/// What the guest has said so far.
#[derive(Default)]
struct Console {
    report: Report,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Failures that were counted before the current step.
    failed_before: usize,
    ended: bool,
}

impl Console {
    fn feed(&mut self, bytes: &[u8]) {
        self.report.feed(bytes);
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.line_ended(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(byte);
            }
        }
    }

    fn line_ended(&mut self, line: &str) {
        let tally = self.report.tally();
        if line.starts_with(PASSED) {
            tally.pass(1);
        } else if let Some(reason) = line.strip_prefix(FAILED) {
            // Failed tests are counted by name; their program's failure is no other one.
            if tally.failed() == self.failed_before {
                tally.fail(reason.to_owned());
            }
        } else if line == END {
            self.ended = true;
        } else {
            return;
        }
        self.failed_before = tally.failed();
    }

    fn finish(mut self, reason: &str) -> Tally {
        if !self.ended {
            self.report.tally().fail(format!("the machine {reason} before all steps were done"));
        }
        std::mem::take(self.report.tally())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Tally {
        let mut console = Console::default();
        for chunk in output.as_bytes().chunks(5) {
            console.feed(chunk);
        }
        console.finish("died")
    }

    #[test]
    fn steps_and_tests_are_counted() {
        let tally = read(&format!(
            "{PASSED}verification\ntest a ... ok\ntest result: ok. 1 passed; 0 failed\n\
             {PASSED}packets\n{END}\n"
        ));
        assert_eq!(tally.counts(), "3 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn a_failed_test_is_not_counted_again_as_a_failed_step() {
        let tally = read(&format!(
            "test a ... FAILED\ntest result: FAILED. 0 passed; 1 failed\n\
             {FAILED}packets: exit status: 101\n{FAILED}others: signal: 11\n{END}\n"
        ));
        assert_eq!(tally.failures(), ["a", "others: signal: 11"]);
    }

    #[test]
    fn a_machine_that_dies_is_a_failure() {
        let tally = read(&format!("{PASSED}verification\nKernel panic"));
        assert_eq!(tally.failures(), ["the machine died before all steps were done"]);
    }
}
