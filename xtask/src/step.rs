//! Long steps: what a child process prints goes to a log, a person sees that time passes.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::elapsed::Elapsed;

/// Lines of the log that are shown when a step fails.
const TAIL: usize = 25;

/// Runs `command` with its output in the file `log`, showing `title` and the time it takes.
///
/// Fails with the end of the log if the command does.
pub(crate) fn run(title: &str, log: &Path, command: &mut Command) -> Result<()> {
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stderr(file.try_clone()?)
        .stdout(file)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;

    let started = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = child.wait();
        // The receiver is gone only if this process is ending.
        let _ = sender.send(());
        status
    });
    let mut ticker = Ticker::new(title, started);
    while receiver.recv_timeout(ticker.interval) == Err(RecvTimeoutError::Timeout) {
        ticker.tick();
    }
    let status: ExitStatus = waiter.join().expect("waiting does not panic")?;
    ticker.finish(status.success());
    if !status.success() {
        let text = fs::read(log).unwrap_or_default();
        bail!(
            "{title} failed ({status}); the end of {}:\n{}",
            log.display(),
            tail(&String::from_utf8_lossy(&text), TAIL)
        );
    }
    Ok(())
}

/// Shows that time passes: on a terminal by rewriting a line every second, else by a line every
/// quarter of a minute.
struct Ticker<'a> {
    title: &'a str,
    started: Instant,
    terminal: bool,
    interval: Duration,
}

impl<'a> Ticker<'a> {
    fn new(title: &'a str, started: Instant) -> Self {
        let terminal = io::stdout().is_terminal();
        let interval = Duration::from_secs(if terminal { 1 } else { 15 });
        let ticker = Self { title, started, terminal, interval };
        if terminal {
            rewrite(&format!("{title} ..."));
        } else {
            println!("  {title} ...");
        }
        ticker
    }

    fn tick(&mut self) {
        let line = format!("{} ... {}", self.title, Elapsed(self.started.elapsed()));
        if self.terminal {
            rewrite(&line);
        } else {
            println!("  {line}");
        }
    }

    fn finish(&self, success: bool) {
        let outcome = if success { "done" } else { "failed" };
        let line = format!("{}: {outcome} after {}", self.title, Elapsed(self.started.elapsed()));
        if self.terminal {
            rewrite(&line);
            println!();
        } else {
            println!("  {line}");
        }
    }
}

fn rewrite(line: &str) {
    print!("\r\x1b[K  {line}");
    // A terminal that went away is no reason to end the step.
    let _ = io::stdout().flush();
}

/// The last `lines` lines of `text`.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all = text.lines().collect::<Vec<_>>();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
    }

    #[test]
    fn a_failed_step_shows_the_end_of_its_log() {
        let log = env::temp_dir().join(format!("tandem-step-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo the reason >&2; exit 3"]);
        let error = run("a step", &log, &mut command).unwrap_err().to_string();
        fs::remove_file(&log).unwrap();
        assert!(error.contains("a step failed (exit status: 3)"), "{error}");
        assert!(error.ends_with("first\nthe reason"), "{error}");
    }
}
