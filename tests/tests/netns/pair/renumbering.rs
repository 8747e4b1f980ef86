//! A host whose own address changes under a running daemon: adverts came from it.

use std::time::SystemTime;

use anyhow::Result;
use tests::lab::{Contest, Family};

use super::{election, says_nothing, tandems};

/// Takes its address away from the first host. What else it has on the interface stays.
fn take_address_from_first(contest: &Contest) -> Result<()> {
    let twin = contest.twin(0);
    twin.sysctl("net.ipv4.conf.front.promote_secondaries", "1")?;
    twin.ip(&format!("address delete {}/24 dev front", twin.address(Family::V4)))?;
    Ok(())
}

#[test]
fn a_master_that_gets_another_address_stays_the_master() -> Result<()> {
    let contest = tandems(election())?;
    contest.twin(0).ip("address add 10.1.0.9/24 dev front")?;
    take_address_from_first(&contest)?;
    contest.only_master(0)?;
    contest.has_addresses(0, true)
}

#[test]
fn a_master_that_loses_its_only_address_gives_the_group_up() -> Result<()> {
    let contest = tandems(election())?;
    let at = SystemTime::now();
    take_address_from_first(&contest)?;
    contest.advert_since(at, 1)?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)?;
    says_nothing(&contest, 0)
}
