//! The daemon's side: has somebody stand in for it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{GO, Plan, READY, TAKEN};
use crate::{config::Config, election::Election};

/// How long each answer may take. Meanwhile the daemon's own elections go on.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program that runs: its file may be another by now.
const OURSELVES: &str = "/proc/self/exe";

/// The process that stands in. When this is dropped, with the daemon at the latest, it begins to wait
/// for the next daemon.
#[derive(Debug)]
pub struct Successor {
    _socket: UnixStream,
}

/// Starts a process that goes on with the groups that this host is master of, and waits until it does.
/// What it has not taken over then, this host is no longer master of, or the election still has.
///
/// # Errors
///
/// If it cannot be started, or does not get that far. Then it is gone again, and the groups that it has
/// claimed, if any, are served by nobody.
pub fn hand_over(config: &Config, bpffs: &Path, election: &Election) -> Result<Successor> {
    let plan = Plan::new(config, bpffs, election.masteries()?);
    let (ours, theirs) = UnixStream::pair().context("cannot open a pair of sockets")?;
    ours.set_read_timeout(Some(PATIENCE))?;
    ours.set_write_timeout(Some(PATIENCE))?;
    let mut child = Command::new(OURSELVES)
        .arg("stand-in")
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start it")?;
    instruct(&plan, ours).inspect_err(|_| end(&mut child))
}

fn instruct(plan: &Plan, mut socket: UnixStream) -> Result<Successor> {
    socket.write_all(&plan.encode()?).context("cannot tell it what to do")?;
    let mut answers = BufReader::new(socket.try_clone()?);
    hear(&mut answers, READY)?;
    socket.write_all(GO.as_bytes()).context("cannot tell it to begin")?;
    hear(&mut answers, TAKEN)?;
    Ok(Successor { _socket: socket })
}

fn hear(answers: &mut BufReader<UnixStream>, wanted: &str) -> Result<()> {
    let mut word = String::new();
    answers.read_line(&mut word).context("it does not answer")?;
    ensure!(word == wanted, "it has ended: why is in the log");
    Ok(())
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}
