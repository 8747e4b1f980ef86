//! One host fails, and the other takes over.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::lab::{Contest, Election, Leg, Twin};

use super::{
    MS, PERIOD, PRIORITIES, election, forwards_nothing_after, goes_on, says_nothing, tandems,
};

#[test]
fn a_killed_master_is_succeeded_and_says_nothing_more() -> Result<()> {
    let mut contest = tandems(election())?;
    let knocks = contest.knocks(PERIOD)?;
    let (at, start) = (SystemTime::now(), Instant::now());
    contest.member(0).elector().kill();
    let taken = contest.advert_since(at, 1)?;
    goes_on(&knocks, start, election().down_after(PRIORITIES[1]))?;
    // The client goes on asking the first host until it hears of the second.
    forwards_nothing_after(&contest, 0, at + taken)?;
    contest.has_addresses(1, true)?;
    // Nobody takes them off there: only the lease, which has ended, keeps that host silent.
    contest.has_addresses(0, true)?;
    says_nothing(&contest, 0)
}

#[test]
fn a_master_without_its_clients_side_is_succeeded() -> Result<()> {
    lost_leg(|twin| &twin.front)
}

#[test]
fn a_master_without_its_servers_side_is_succeeded() -> Result<()> {
    lost_leg(|twin| &twin.back)
}

fn lost_leg(leg: fn(&Twin) -> &Leg) -> Result<()> {
    let contest = tandems(election())?;
    let knocks = contest.knocks(PERIOD)?;
    let (at, start) = (SystemTime::now(), Instant::now());
    leg(contest.twin(0)).pull()?;
    contest.advert_since(at, 1)?;
    goes_on(&knocks, start, election().down_after(PRIORITIES[1]))?;
    contest.has_addresses(1, true)?;
    contest.has_addresses(0, false)?;

    let start = Instant::now();
    leg(contest.twin(0)).plug()?;
    contest.settle();
    contest.only_master(1)?;
    // Nobody takes over, so there is no such gap as a moment ago.
    goes_on(&knocks, start, election().advert_int)
}

#[test]
fn a_master_whose_interface_is_set_down_is_succeeded() -> Result<()> {
    let contest = tandems(election())?;
    let at = SystemTime::now();
    contest.twin(0).back.near.down()?;
    contest.advert_since(at, 1)?;
    contest.has_addresses(1, true)?;
    contest.only_master(1)
}

#[test]
fn a_master_without_power_is_succeeded() -> Result<()> {
    let contest = tandems(election())?;
    let knocks = contest.knocks(PERIOD)?;
    let start = Instant::now();
    contest.twin(0).power_off()?;
    goes_on(&knocks, start, election().down_after(PRIORITIES[1]))
}

#[test]
fn a_master_that_stops_hands_over_at_once() -> Result<()> {
    let mut contest = tandems(election())?;
    let knocks = contest.knocks(PERIOD)?;
    let (at, start) = (SystemTime::now(), Instant::now());
    contest.member(0).elector().signal(Signal::SIGINT)?;
    contest.advert_since(at, 1)?;
    goes_on(&knocks, start, election().skew(PRIORITIES[1]))?;
    contest.member(0).elector().wait(10_000 * MS)?;
    contest.has_addresses(1, true)?;
    contest.has_addresses(0, false)
}

#[test]
fn a_host_that_returns_takes_back_what_it_held_only_if_it_preempts() -> Result<()> {
    let mut contest = tandems(election())?;
    succeed(&mut contest)?;
    contest.start_again(0)?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)?;
    drop(contest);

    let preempts = Election { preempt: true, ..election() };
    let mut contest = tandems(preempts)?;
    succeed(&mut contest)?;
    let knocks = contest.knocks(PERIOD)?;
    let (at, start) = (SystemTime::now(), Instant::now());
    contest.start_again(0)?;
    contest.advert_since(at, 0)?;
    contest.settle();
    contest.only_master(0)?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, false)?;
    goes_on(&knocks, start, Duration::ZERO)
}

/// Has the second host succeed the first.
fn succeed(contest: &mut Contest) -> Result<()> {
    let at = SystemTime::now();
    contest.member(0).elector().kill();
    contest.advert_since(at, 1).map(drop)
}
