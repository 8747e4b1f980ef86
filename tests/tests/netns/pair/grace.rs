//! What a new master does about connections that it was told nothing of.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use tests::lab::{
    Contest,
    member::{self, SYNC_KEY},
    survival::PATIENCE,
};

use super::{MS, PRIORITIES, election};

/// How long it says nothing about them.
const GRACE: Duration = Duration::from_secs(2);

#[test]
fn who_is_unknown_to_a_new_master_is_reset_after_the_grace_and_not_before() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    // The hosts never hear of each other's connections.
    contest.pair().part()?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        let sync = member::sync(contest.pair(), host, SYNC_KEY);
        let lines = format!("{sync}grace = \"{}s\"\n", GRACE.as_secs());
        contest.enter_with(host, priority, &lines)?;
    }
    let mut stream = contest.pair().client().connect(contest.vip(), 5_000 * MS)?;
    stream.set_read_timeout(Some(3 * PATIENCE))?;
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting)?;
    ensure!(&greeting == b"s1\n", "{greeting:?}");

    let at = SystemTime::now();
    contest.member(0).crash();
    let takeover = at + contest.advert_since(at, 1)?;
    // TCP sends it again and again until somebody answers.
    stream.write_all(b"hello")?;
    let answer = stream.read(&mut [0; 16]);
    let after = takeover.elapsed()?;
    ensure!(
        answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "it was answered by {answer:?} after {after:?}"
    );
    ensure!(after >= GRACE, "it was reset {after:?} after the takeover");
    Ok(())
}
