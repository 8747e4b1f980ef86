//! Commands that are run when the role changes.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::lab::{Contest, Election, wait::until};

use super::{PRIORITIES, election};

#[test]
fn hooks_run_in_order_as_nobody_and_again_after_a_healed_conflict() -> Result<()> {
    let mut contest = Contest::new(Election { preempt: true, ..election() }, 1)?;
    let logs = [0, 1].map(|host| contest.pair().dir().join(format!("hooks-{host}")));
    for (host, log) in logs.iter().enumerate() {
        let script = script(log)?;
        contest.enter_with(host, PRIORITIES[host], &keys(&script))?;
    }
    let mut first = expect(101, &["backup", "master"]);
    let mut second = expect(100, &["backup"]);
    said(&logs[0], &first)?;
    said(&logs[1], &second)?;

    let at = SystemTime::now();
    contest.pair().divide()?;
    contest.advert_since(at, 1)?;
    contest.pair().unite()?;
    // The winner learns that there was a conflict, and so do those who hear from it.
    first += &expect(101, &["master"]);
    second += &expect(100, &["master", "backup"]);
    said(&logs[0], &first)?;
    said(&logs[1], &second)?;

    let at = SystemTime::now();
    contest.twin(0).back.pull()?;
    contest.advert_since(at, 1)?;
    let at = SystemTime::now();
    contest.twin(0).back.plug()?;
    contest.advert_since(at, 0)?;
    first += &expect(101, &["fault", "backup", "master"]);
    second += &expect(100, &["master", "backup"]);
    said(&logs[0], &first)?;
    said(&logs[1], &second)?;

    for (host, expected) in
        [(0, first + &expect(101, &["stop"])), (1, second + &expect(100, &["master", "stop"]))]
    {
        contest.member(host).elector().signal(Signal::SIGINT)?;
        contest.member(host).elector().wait(PATIENCE)?;
        said(&logs[host], &expected)?;
        if host == 0 {
            contest.settle();
        }
    }
    Ok(())
}

/// A script that writes down who runs it, and with which arguments.
fn script(log: &Path) -> Result<PathBuf> {
    fs::write(log, "")?;
    fs::set_permissions(log, Permissions::from_mode(0o666))?;
    let script = log.with_extension("sh");
    // What is asked for first is slow, but what comes after waits for it.
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = backup ] && sleep 0.3\necho \"$(id -un) $*\" >> {}\n",
        log.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    Ok(script)
}

fn keys(script: &Path) -> String {
    let script = script.display();
    let own = ["master", "backup", "fault", "stop"]
        .map(|state| format!("notify_{state} = [\"{script}\", \"{state}\"]\n"));
    format!("{}notify = \"{script}\"\n", own.concat())
}

/// What a host of this priority writes down when it takes these roles.
fn expect(priority: u8, states: &[&str]) -> String {
    let lines = states.iter().map(|state| {
        let name = state.to_uppercase();
        format!("nobody {state}\nnobody INSTANCE pair {name} {priority}\n")
    });
    lines.collect()
}

fn said(log: &Path, expected: &str) -> Result<()> {
    until("the hooks", PATIENCE, || {
        let said = fs::read_to_string(log)?;
        ensure!(said == expected, "they said\n{said}instead of\n{expected}");
        Ok(())
    })
}

const PATIENCE: Duration = Duration::from_secs(10);
