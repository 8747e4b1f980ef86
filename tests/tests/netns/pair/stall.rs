//! A host that is held up, and does not know.

use std::{
    thread,
    time::{Instant, SystemTime},
};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::lab::{Ask, Contest, Election, Frame};

use super::{
    MS, PERIOD, PRIORITIES, election, forwards_nothing_after, goes_on, says_nothing, tandems,
};

#[test]
fn a_stalled_master_serves_nobody_and_does_not_fight_when_it_goes_on() -> Result<()> {
    let mut contest = tandems(election())?;
    let knocks = contest.knocks(PERIOD)?;
    let (at, start) = (SystemTime::now(), Instant::now());
    contest.member(0).elector().signal(Signal::SIGSTOP)?;
    let taken = contest.advert_since(at, 1)?;
    goes_on(&knocks, start, election().down_after(PRIORITIES[1]))?;
    forwards_nothing_after(&contest, 0, at + taken)?;
    drop(knocks);
    says_nothing(&contest, 0)?;

    let resumed = SystemTime::now();
    contest.member(0).elector().signal(Signal::SIGCONT)?;
    contest.settle();
    never_advertises_after(&contest, 0, resumed)?;
    contest.has_addresses(0, false)?;
    contest.only_master(1)?;
    contest.has_addresses(1, true)?;
    says_nothing(&contest, 0)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
}

#[test]
fn a_stalled_backup_takes_nothing_over_when_it_goes_on() -> Result<()> {
    // Time enough to stop it before it misses an advert.
    let mut contest = tandems(Election::new(3, 300 * MS))?;
    let start = SystemTime::now();
    // Else the adverts of that time are there to be read, and tell of the master.
    contest.pair().divide()?;
    contest.member(1).elector().signal(Signal::SIGSTOP)?;
    thread::sleep(2 * contest.election().down_after(PRIORITIES[1]));
    contest.pair().unite()?;
    contest.member(1).elector().signal(Signal::SIGCONT)?;
    contest.settle();
    never_advertises_after(&contest, 1, start)?;
    contest.only_master(0)?;
    contest.has_addresses(1, false)
}

/// Fails if a host has said anything about who is the master after this time, be it once.
fn never_advertises_after(contest: &Contest, host: usize, at: SystemTime) -> Result<()> {
    let port = contest.twin(host).front.port.name();
    let frames = contest.capture().frames();
    let later = frames.iter().filter(|frame| &*frame.port == port && frame.at > at);
    let adverts: Vec<_> = later.filter_map(Frame::advert).collect();
    ensure!(adverts.is_empty(), "{} has sent {adverts:?}", contest.twin(host).name());
    Ok(())
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
