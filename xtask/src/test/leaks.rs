//! Whether tests with root leave the machine as they found it.
//!
//! Processes: this process adopts every orphan among its descendants, so that whatever the tests
//! leave running becomes a child of it, however it was started. Namespaces, mounts and pins:
//! those with a name of ours that were not there before.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, geteuid},
};

use super::tally::Tally;

/// How long a process may take to end after the tests did.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs tests that need root, and counts what they leave behind as failures.
pub(super) fn watched(tests: impl FnOnce() -> Tally) -> Tally {
    let mut tally = Tally::default();
    if !geteuid().is_root() {
        tally.fail("not run: needs root, for network namespaces and XDP".to_owned());
        return tally;
    }
    if let Err(error) = prctl::set_child_subreaper(true) {
        tally.fail(format!("not run: cannot watch for leaked processes: {error}"));
        return tally;
    }
    let before = traces();
    tally = tests();
    for leak in left_processes().into_iter().chain(traces().difference(&before).cloned()) {
        tally.fail(format!("left behind: {leak}"));
    }
    tally
}

/// Everything with a name of ours that outlives a process.
fn traces() -> BTreeSet<String> {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(Path::new(directory)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect()
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    names("/run/netns")
        .into_iter()
        .map(|path| format!("network namespace {path}"))
        .chain(names("/sys/fs/bpf").into_iter().map(|path| format!("pin {path}")))
        .chain(mounts.map(|path| format!("mount {path}")))
        .filter(|trace| trace.contains("tandem"))
        .collect()
}

/// Ends the processes that the tests left, and returns them by name and number.
fn left_processes() -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        reap();
        if children().is_empty() {
            return Vec::new();
        }
        thread::sleep(Duration::from_millis(50));
    }
    let mut left = Vec::new();
    // Those of a child that is ended become children in turn.
    loop {
        reap();
        let children = children();
        if children.is_empty() {
            return left;
        }
        for (pid, name) in children {
            left.push(format!("process {pid} ({name})"));
            // It may have ended by itself just now.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// Takes note of children that have ended.
fn reap() {
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
}

/// The children of this process, with their names.
fn children() -> Vec<(Pid, String)> {
    let me = process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (pid, name, parent) = parse_stat(&stat)?;
            (parent == me).then(|| (Pid::from_raw(pid), name.to_owned()))
        })
        .collect()
}

/// Number, name and parent in `/proc/PID/stat`. The name may have spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(i32, &str, u32)> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let parent = rest.split(' ').nth(1)?;
    Some((pid.parse().ok()?, name, parent.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read() {
        let stat = "4711 (a) (b c) S 42 4711 4711 0 -1 4194560";
        assert_eq!(parse_stat(stat), Some((4711, "a) (b c", 42)));
        assert_eq!(parse_stat(""), None);
    }
}
