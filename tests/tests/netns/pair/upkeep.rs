//! Addresses that others touch, and those that an earlier daemon has left behind.

use std::{
    fs,
    net::IpAddr,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use tests::lab::{Ask, Contest, Family, Leg, Settings, Tandem, member::System, wait::until};

use super::{MS, election, tandems};

#[test]
fn an_address_that_somebody_takes_off_is_put_back_and_announced() -> Result<()> {
    let mut contest = tandems(election())?;
    for family in Family::BOTH {
        for (nth, address) in
            [contest.pair().vip(family), contest.pair().source(family)].into_iter().enumerate()
        {
            put_back(&contest, address, nth)?;
        }
    }
    contest.only_master(0)?;
    contest.has_addresses(1, false)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()?;

    ensure!(contest.tandem(0).status()?.groups[0].put_back == 4);
    let log = fs::read_to_string(contest.member(0).elector().log())?;
    let told = log.matches("by somebody else, and is put back").count();
    ensure!(told == 4, "{told} lines tell of it:\n{log}");
    Ok(())
}

/// Takes an address off the master's interface on that side, and fails unless it is there again
/// within a second and the neighbours are told.
fn put_back(contest: &Contest, address: IpAddr, side: usize) -> Result<()> {
    let at = SystemTime::now();
    let leg: &Leg = contest.twin(0).legs()[side];
    contest.twin(0).ip(&format!("address delete {address} dev {}", leg.near.name()))?;
    contest.capture().wait_for("an announcement", 1000 * MS, |frame| {
        let claims = frame.claims() == Some(address) && &*frame.port == leg.port.name();
        (claims && frame.at > at).then_some(())
    })?;
    contest.has_addresses(0, true)
}

#[test]
fn an_address_that_could_be_put_only_late_is_announced_then() -> Result<()> {
    let mut contest = Contest::new(election(), 0)?;
    contest.twin(0).sysctl("net.ipv6.conf.front.disable_ipv6", "1")?;
    contest.enter(0, System::Tandem, 101)?;
    let (vip, port) = (contest.pair().vip(Family::V6), contest.twin(0).front.port.name());
    let shown = contest.twin(0).ip("-6 address show dev front")?;
    ensure!(!shown.contains(&vip.to_string()), "{shown}");

    let at = SystemTime::now();
    contest.twin(0).sysctl("net.ipv6.conf.front.disable_ipv6", "0")?;
    contest.capture().wait_for("an announcement", 1000 * MS, |frame| {
        let claims = frame.claims() == Some(vip) && &*frame.port == port;
        (claims && frame.at > at).then_some(())
    })?;
    contest.has_addresses(0, true)?;
    ensure!(contest.tandem(0).status()?.groups[0].put_back == 0);
    let log = fs::read_to_string(contest.member(0).elector().log())?;
    let tells = |what: &str| log.matches(&format!("{vip}/128 {what}")).count();
    ensure!(
        (tells("on front, trying on"), tells("of group pair is on front now")) == (1, 1),
        "{log}"
    );
    Ok(())
}

#[test]
fn the_addresses_of_a_group_that_was_removed_while_the_daemon_was_dead_are_taken_off() -> Result<()>
{
    let mut contest = tandems(election())?;
    contest.member(0).elector().kill();
    contest.has_addresses(0, true)?;
    // One that somebody else has put there stays.
    contest.twin(0).ip("address add 10.1.0.222/32 dev front")?;
    let other = "\
[[group]]
name = \"other\"
interface = \"front\"
virtual_router_id = 61
virtual_ipaddress = [\"10.1.0.201/32\"]
";
    let _tandem = Tandem::start_on(contest.twin(0), &Settings::of_pair(other))?;
    contest.has_addresses(0, false)?;
    let shown = contest.twin(0).ip("address show dev front")?;
    ensure!(shown.contains("10.1.0.222/32"), "{shown}");
    Ok(())
}

#[test]
fn an_address_that_is_given_up_is_not_put_back() -> Result<()> {
    let mut contest = tandems(election())?;
    super::operate(contest.tandem(0), &["failover", "pair"])?;
    until("a handover", Duration::from_secs(5), || contest.has_addresses(1, true))?;
    thread::sleep(1500 * MS);
    contest.has_addresses(0, false)
}
