//! A master that the kernel lets send no adverts.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use lb_daemon::core::group::Role;
use tests::lab::{Ask, Contest};

use super::{PERIOD, election, forwards_nothing_after, says_nothing, tandems};

/// Has the first host's kernel refuse to send adverts, or no longer.
fn set_firewall(contest: &Contest, refuses: bool) -> Result<()> {
    let rules = if refuses {
        "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; \
         add rule inet mute out meta l4proto 112 drop"
    } else {
        "delete table inet mute"
    };
    contest.twin(0).command("nft").arg(rules).plain().run().map(drop)
}

#[test]
fn a_master_that_cannot_advertise_serves_no_longer_than_its_peer_waits() -> Result<()> {
    let contest = tandems(election())?;
    let knocks = contest.knocks(PERIOD)?;
    let at = SystemTime::now();
    set_firewall(&contest, true)?;
    let taken = contest.advert_since(at, 1)?;
    knocks.wait_for(20, PATIENCE)?;
    // The client goes on asking the first host until it hears of the second.
    forwards_nothing_after(&contest, 0, at + taken)?;
    contest.has_addresses(0, false)?;
    contest.has_addresses(1, true)?;
    says_nothing(&contest, 0)
}

#[test]
fn a_host_that_cannot_advertise_takes_nothing_over_until_it_can() -> Result<()> {
    let mut contest = tandems(election())?;
    let at = SystemTime::now();
    set_firewall(&contest, true)?;
    contest.advert_since(at, 1)?;
    contest.member(1).elector().kill();
    let what = "it has tried to take over";
    let status = contest.tandem(0).wait_until(what, PATIENCE, |status| {
        status.groups[0].why.starts_with("cannot advertise: ")
    })?;
    let group = &status.groups[0];
    let problem = group.problem.as_deref().unwrap_or_default();
    ensure!(group.role == Role::Backup && group.lease_ms.is_none(), "{group:?}");
    ensure!(problem.starts_with("adverts cannot be sent: Operation not permitted"), "{problem}");
    contest.has_addresses(0, false)?;
    says_nothing(&contest, 0)?;

    let at = SystemTime::now();
    set_firewall(&contest, false)?;
    contest.advert_since(at, 0)?;
    contest.has_addresses(0, true)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()?;
    let group = &contest.tandem(0).status()?.groups[0];
    ensure!(group.problem.is_none(), "{group:?}");
    let log = std::fs::read_to_string(contest.member(0).elector().log())?;
    for (line, times) in [("adverts of group pair cannot be sent", 1), ("are sent again", 1)] {
        let count = log.matches(line).count();
        ensure!(count == times, "{count} lines say «{line}»:\n{log}");
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(10);
