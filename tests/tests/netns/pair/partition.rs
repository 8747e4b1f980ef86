//! Hosts that do not hear each other for a while.

use std::time::SystemTime;

use anyhow::Result;
use tests::lab::{Ask, Contest, Family};

use super::{MS, election, tandems};

#[test]
fn a_master_that_was_cut_off_wins_and_is_found_again() -> Result<()> {
    cut_off_and_back(0)
}

#[test]
fn a_backup_that_was_cut_off_gives_way() -> Result<()> {
    cut_off_and_back(1)
}

/// Whoever is cut off, both are master meanwhile, and then the one with the higher priority.
fn cut_off_and_back(host: usize) -> Result<()> {
    let contest = tandems(election())?;
    let at = SystemTime::now();
    contest.twin(host).cut_off()?;
    contest.advert_since(at, 1)?;
    let healed = SystemTime::now();
    contest.twin(host).reconnect()?;
    one_again(&contest, healed)
}

#[test]
fn hosts_that_were_kept_apart_agree_again() -> Result<()> {
    let contest = tandems(election())?;
    let at = SystemTime::now();
    contest.pair().divide()?;
    contest.advert_since(at, 1)?;
    let healed = SystemTime::now();
    contest.pair().unite()?;
    one_again(&contest, healed)
}

/// Fails unless the first host alone is the master after a conflict that healed at this time, and
/// has announced its addresses again, and the client finds it.
fn one_again(contest: &Contest, healed: SystemTime) -> Result<()> {
    contest.settle();
    for family in Family::BOTH {
        let (vip, port) = (contest.pair().vip(family), contest.twin(0).front.port.name());
        contest.capture().wait_for("an announcement", 2_000 * MS, |frame| {
            let claims = frame.claims() == Some(vip) && &*frame.port == port;
            (claims && frame.at > healed).then_some(())
        })?;
    }
    contest.only_master(0)?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, false)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
}
