//! A preferred host that takes the group back from keepalived or ucarp, or they from it, and a
//! network between them that is divided for a while.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Contest, Election, Family, member::System, wait::until};

use super::{
    MS,
    interop::{at_once, beside_keepalived, beside_ucarp},
};

/// All of these at once: in the times of version 2 and of CARP each would take half a minute.
#[test]
fn the_preferred_host_takes_back_from_another_system_and_wins_after_a_partition() -> Result<()> {
    let versions = || {
        let of = |version, interval| with_keepalived(&Election::new(version, interval));
        at_once(|| of(2, 1_000 * MS), || of(3, 100 * MS))
    };
    at_once(versions, with_ucarp)
}

fn with_keepalived(election: &Election) -> Result<()> {
    let election = Election { preempt: true, ..election.clone() };
    let story = |first: System| -> Result<()> {
        let mut contest = beside_keepalived(&election, first)?;
        taken_back(&mut contest)?;
        parted_and_united(&contest)?;
        (0..2).try_for_each(|host| contest.has_addresses(host, host == 0))
    };
    let version = election.version;
    let story =
        |first: System| story(first).with_context(|| format!("{first:?} first, version {version}"));
    at_once(|| story(System::Tandem), || story(System::Keepalived))
}

fn with_ucarp() -> Result<()> {
    let story = |ucarp: usize| -> Result<()> {
        let mut contest = beside_ucarp(ucarp, true)?;
        taken_back(&mut contest)?;
        // By now ucarp has sent more than Tandem does while they are parted. It goes back to Tandem's
        // counter when it hears that again.
        contest.only_master(0)?;
        parted_and_united(&contest)?;
        let status = contest.tandem(1 - ucarp).status()?;
        let discarded = &status.groups[0].adverts.discarded;
        ensure!(discarded.get("replay").is_none_or(|&count| count == 0), "{discarded:?}");
        Ok(())
    };
    let story = |ucarp: usize| story(ucarp).with_context(|| format!("ucarp on host {ucarp}"));
    at_once(|| story(0), || story(1))
}

/// The second host succeeds the first, which takes the address back on its return.
fn taken_back(contest: &mut Contest) -> Result<()> {
    let at = SystemTime::now();
    contest.member(0).elector().kill();
    contest.advert_since(at, 1)?;

    let at = SystemTime::now();
    contest.start_again(0)?;
    contest.advert_since(at, 0)?;
    contest.settle();
    only_holder(contest)
}

/// Both are masters for as long as they do not hear each other, and then the first host alone.
fn parted_and_united(contest: &Contest) -> Result<()> {
    let at = SystemTime::now();
    contest.pair().divide()?;
    contest.advert_since(at, 1)?;
    contest.advert_since(SystemTime::now(), 0)?;
    contest.pair().unite()?;
    contest.settle();
    contest.only_master(0)?;
    only_holder(contest)
}

/// Fails unless the first host has the address on the client's side, and the second has not.
fn only_holder(contest: &Contest) -> Result<()> {
    let vip = contest.pair().vip(Family::V4);
    (0..2).try_for_each(|host| has(contest, host, vip, host == 0))
}

fn has(contest: &Contest, host: usize, address: IpAddr, wanted: bool) -> Result<()> {
    let twin = contest.twin(host);
    let what = format!("{address} {} on {}", if wanted { "is" } else { "is not" }, twin.name());
    until(&what, Duration::from_secs(1), || {
        let shown = twin.ip(&format!("address show dev front to {address}"))?;
        ensure!(shown.is_empty() != wanted, "{shown:?}");
        Ok(())
    })
}
