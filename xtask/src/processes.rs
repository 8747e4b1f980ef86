//! The processes that a chore starts, and those they start: none outlives the chore.

use std::{
    fs, process, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// From now on, what loses its parent becomes a child of this process instead of getting lost.
pub(crate) fn adopt_orphans() -> nix::Result<()> {
    prctl::set_child_subreaper(true)
}

/// Ends all children that do not end by themselves soon, and their children in turn. Returns them by
/// name and number.
pub(crate) fn end_all() -> Vec<String> {
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
