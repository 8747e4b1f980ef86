//! The time of day is set while the daemons run.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Ask, Contest, Settings, Surroundings, Tandem, WallClock};

use super::{PRIORITIES, election};

/// Ten years.
const SECONDS: i64 = 10 * 365 * 86_400;

#[test]
fn a_clock_that_is_set_moves_nothing() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    let clock = WallClock::new(contest.pair().dir())?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        let settings = contest.settings(host, priority, "");
        let surroundings =
            Surroundings { environment: clock.environment(), ..Surroundings::default() };
        let settings = Settings { surroundings, ..settings };
        let tandem = Tandem::start_on(contest.twin(host), &settings)?;
        contest.enter_as(host, Box::new(tandem))?;
    }
    let year = |contest: &mut Contest| -> Result<i32> {
        contest.tandem(0).reload()?;
        let log = fs::read_to_string(contest.tandem(0).process().log())?;
        let line = log.lines().rev().find(|line| line.contains("configuration reloaded"));
        let found = line.and_then(|line| line.get(..4)?.parse().ok());
        found.context("no such line in the log")
    };
    let now = year(&mut contest)?;
    for (ahead, by) in [(SECONDS, 9..=10), (-SECONDS, -10..=-9), (0, 0..=0)] {
        clock.set(ahead)?;
        contest.only_master(0)?;
        // Its log tells that the daemon has seen it.
        let then = year(&mut contest)?;
        ensure!(by.contains(&(then - now)), "{then} after {now}");
    }
    for host in 0..2 {
        let group = &contest.tandem(host).status()?.groups[0];
        assert_eq!(group.transitions.len(), 2 - host, "{group:?}");
    }
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
}
