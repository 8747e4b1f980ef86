//! Runs `cargo test` and counts what its harness reports.

use std::{
    io::{self, Read, Write as _},
    process::{Command, Stdio},
};

use super::tally::Tally;
use crate::workspace;

/// Runs `cargo test` for the targets that `selection` selects. Its output is shown as it comes.
pub(super) fn run(selection: &[&str], harness_options: &[&str]) -> Tally {
    let mut command = workspace::cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(selection);
    command.arg("--").args(harness_options);
    execute(&mut command).unwrap_or_else(|error| {
        let mut tally = Tally::default();
        tally.fail(format!("cargo test: {error}"));
        tally
    })
}

fn execute(command: &mut Command) -> io::Result<Tally> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().expect("standard output is a pipe");
    let mut report = Report::default();
    let mut buffer = [0; 4096];
    loop {
        // In chunks rather than lines: the name of a test is shown while it runs.
        let length = stdout.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        io::stdout().write_all(&buffer[..length])?;
        io::stdout().flush()?;
        report.feed(&buffer[..length]);
    }
    Ok(report.finish(child.wait()?.success()))
}

/// What the harness has reported so far.
#[derive(Default)]
pub(super) struct Report {
    tally: Tally,
    /// Bytes of a line that has not ended yet.
    line: Vec<u8>,
    /// Failed tests whose summary is still to come.
    failed: Vec<String>,
    /// Tests that said they were skipped, which the summary to come calls passed.
    skipped: usize,
}

impl Report {
    /// Takes more of the output.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.line_ended(String::from_utf8_lossy(&line).trim_end());
            } else {
                self.line.push(byte);
            }
        }
    }

    fn line_ended(&mut self, line: &str) {
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.summary(summary);
        } else if let Some((name, outcome)) = test_line(line) {
            if outcome == "FAILED" || outcome.ends_with(" FAILED") {
                self.failed.push(name.to_owned());
            } else if let Some(reason) = outcome.strip_prefix("ignored") {
                let reason = reason.strip_prefix(", ").unwrap_or("no reason given");
                self.tally.skip(format!("{name}: {reason}"));
            } else if let Some(reason) = outcome.strip_prefix("skipped, ") {
                self.tally.skip(format!("{name}: {reason}"));
                self.skipped += 1;
            }
        }
    }

    /// `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn summary(&mut self, summary: &str) {
        let skipped = std::mem::take(&mut self.skipped);
        self.tally.pass(count(summary, "passed").saturating_sub(skipped));
        // The line of a failed test can be spoilt by what its children print.
        let mut names = std::mem::take(&mut self.failed).into_iter();
        for _ in 0..count(summary, "failed") {
            self.tally.fail(names.next().unwrap_or_else(|| "a test; see above".to_owned()));
        }
    }

    /// What is counted so far.
    pub(super) fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// The counts, once the output has ended.
    fn finish(mut self, success: bool) -> Tally {
        if !success && self.tally.failed() == 0 {
            let what = "cargo test failed although no test did (it does not compile, or died)";
            self.tally.fail(what.to_owned());
        }
        self.tally
    }
}

/// The name and outcome in a line `test NAME ... OUTCOME`.
fn test_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

/// The number before `what` in the harness's summary.
fn count(summary: &str, what: &str) -> usize {
    let parts = summary.split([';', '.']).map(str::trim);
    parts.filter_map(|part| part.strip_suffix(what)?.trim().parse::<usize>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test a::fine ... ok
test a::broken ... FAILED
test a::slow ... ignored, takes an hour
test a::odd ... ignored

failures:
test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 2 tests
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 10.53s
";

    fn read(output: &str, success: bool) -> Tally {
        let mut report = Report::default();
        for chunk in output.as_bytes().chunks(7) {
            report.feed(chunk);
        }
        report.finish(success)
    }

    #[test]
    fn outcomes_of_all_binaries_are_counted() {
        let tally = read(OUTPUT, false);
        assert_eq!(tally.counts(), "3 passed, 1 failed, 2 skipped");
        assert_eq!(tally.failures(), ["a::broken"]);
        assert_eq!(tally.skipped(), ["a::slow: takes an hour", "a::odd: no reason given"]);
    }

    #[test]
    fn a_test_that_says_it_is_skipped_has_not_passed() {
        let output = "test a ... ok\ntest b ... skipped, no such kernel\nok\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n";
        let tally = read(&output.repeat(2), true);
        assert_eq!(tally.counts(), "2 passed, 0 failed, 2 skipped");
        assert_eq!(tally.skipped(), ["b: no such kernel"; 2]);
    }

    #[test]
    fn a_failure_whose_line_is_spoilt_still_counts() {
        let output =
            "test a ... noise\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured";
        let tally = read(&format!("{output}; 0 filtered out; finished in 0.01s\n"), false);
        assert_eq!(tally.counts(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn what_does_not_compile_is_a_failure() {
        assert_eq!(read("", false).counts(), "0 passed, 1 failed, 0 skipped");
        assert!(read("", true).is_empty());
    }
}
