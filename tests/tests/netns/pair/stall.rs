//! A master that is held up, and does not know.

use std::{thread, time::SystemTime};

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::lab::Ask;

use super::{PRIORITIES, election, says_nothing, tandems};

#[test]
fn a_stalled_master_serves_nobody_and_does_not_fight_when_it_goes_on() -> Result<()> {
    let mut contest = tandems(election())?;
    let at = SystemTime::now();
    contest.member(0).elector().signal(Signal::SIGSTOP)?;
    contest.advert_since(at, 1)?;
    says_nothing(&contest, 0)?;

    contest.member(0).elector().signal(Signal::SIGCONT)?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)?;
    contest.has_addresses(1, true)?;
    says_nothing(&contest, 0)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
}

#[test]
fn a_master_that_stalls_for_less_than_an_interval_stays_the_master() -> Result<()> {
    let mut contest = tandems(election())?;
    for _ in 0..5 {
        contest.member(0).elector().signal(Signal::SIGSTOP)?;
        thread::sleep(election().advert_int / 2);
        contest.member(0).elector().signal(Signal::SIGCONT)?;
        thread::sleep(election().down_after(PRIORITIES[1]));
    }
    contest.only_master(0)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
}
