//! Whether tests with root leave the machine as they found it.
//!
//! Processes: this process adopts every orphan among its descendants, so that whatever the tests
//! leave running becomes a child of it, however it was started. Namespaces, mounts, pins and
//! control groups: those with a name of ours that were not there before.

use std::{collections::BTreeSet, fs, path::Path};

use nix::unistd::geteuid;

use super::tally::Tally;
use crate::processes;

/// Runs tests that need root, and counts what they leave behind as failures.
pub(super) fn watched(tests: impl FnOnce() -> Tally) -> Tally {
    let mut tally = Tally::default();
    if !geteuid().is_root() {
        tally.fail("not run: needs root, for network namespaces and XDP".to_owned());
        return tally;
    }
    if let Err(error) = processes::adopt_orphans() {
        tally.fail(format!("not run: cannot watch for leaked processes: {error}"));
        return tally;
    }
    let before = traces();
    tally = tests();
    for leak in processes::end_all().into_iter().chain(traces().difference(&before).cloned()) {
        tally.fail(format!("left behind: {leak}"));
    }
    tally
}

/// Where control groups of version 2 are, alone or beside others.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

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
        .chain(CGROUPS.into_iter().flat_map(names).map(|path| format!("control group {path}")))
        .chain(mounts.map(|path| format!("mount {path}")))
        .filter(|trace| trace.contains("tandem"))
        .collect()
}
