//! Sessions that are open when a host fails, and when it comes back.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, ensure};
use tests::lab::{
    Contest, Election, Family, Fault, Load, MariaDb, Openings, Outcome, Service, SessionServer,
    Sessions, Survival,
    member::{self, SYNC_KEY, System},
    survival::{PATIENCE, SESSIONS},
};

use super::{MS, PRIORITIES, SLACK, election};

/// Two hundred, of every kind.
pub(super) const LOAD: Load =
    Load { active: 140, idle: 30, pushed: 20, bulk: 10, period: Duration::from_millis(200) };

/// A pair whose hosts tell each other of their connections, and sessions through it.
pub(super) fn replicating() -> Result<Survival> {
    Survival::new(System::Replicating, &election(), LOAD)
}

#[test]
fn no_session_is_lost_when_the_master_is_killed_and_comes_back() -> Result<()> {
    survives(Fault::Kill, election().down_after(PRIORITIES[1]))
}

#[test]
fn no_session_is_lost_when_the_masters_cable_is_pulled_and_plugged_in_again() -> Result<()> {
    survives(Fault::Link, election().down_after(PRIORITIES[1]))
}

#[test]
fn no_session_is_lost_when_the_master_is_stopped_and_comes_back() -> Result<()> {
    survives(Fault::Stop, election().skew(PRIORITIES[1]))
}

fn survives(fault: Fault, takeover: Duration) -> Result<()> {
    let mut survival = replicating()?;
    let outcome = survival.strike(fault)?;
    outcome.none_lost()?;
    stalled_for(&outcome, takeover)?;
    let outcome = survival.heal(fault)?;
    outcome.none_lost()?;
    // Who takes over from a working master leaves no time in which nobody serves.
    stalled_for(&outcome, election().advert_int)
}

#[test]
fn no_session_is_lost_when_the_master_loses_its_power() -> Result<()> {
    let mut survival = replicating()?;
    let outcome = survival.strike(Fault::PowerOff)?;
    outcome.none_lost()?;
    stalled_for(&outcome, election().down_after(PRIORITIES[1]))
}

#[test]
fn sessions_outlive_one_host_after_the_other() -> Result<()> {
    let mut survival = replicating()?;
    for _ in 0..3 {
        survival.strike(Fault::Kill)?.none_lost()?;
        survival.heal(Fault::Kill)?.none_lost()?;
    }
    Ok(())
}

#[test]
fn no_session_of_ipv6_is_lost_when_the_master_is_killed_and_comes_back() -> Result<()> {
    let election = Election { preempt: true, ..election() };
    let mut contest = Contest::for_sessions(election, 1, SESSIONS)?;
    let servers = contest.pair().servers();
    let _server = SessionServer::start(&servers[0], SESSIONS)?;
    let to: SocketAddr = (contest.pair().vip(Family::V6), SESSIONS).into();
    let service = Service::new("sessions-of-ipv6", to)
        .set(&format!("source = [\"{}\"]", contest.pair().source(Family::V6)))
        .backends(servers, Family::V6, SESSIONS);
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        let sync = member::sync(contest.pair(), host, SYNC_KEY);
        contest.enter_with(host, priority, &format!("{sync}{service}"))?;
    }
    contest.wait_until_in_sync()?;
    let sessions = Sessions::open(contest.pair().client(), to, &LOAD)?;
    thread::sleep(1_000 * MS);

    let at = SystemTime::now();
    contest.member(0).crash();
    contest.advert_since(at, 1)?;
    sessions.verify(PATIENCE)?.none_lost()?;

    let at = SystemTime::now();
    contest.start_again(0)?;
    contest.advert_since(at, 0)?;
    contest.settle();
    sessions.verify(PATIENCE)?.none_lost()
}

/// What the others are measured by: they can fail.
#[test]
fn sessions_are_lost_with_their_host_if_it_tells_nobody_of_them() -> Result<()> {
    let mut survival = Survival::new(System::Tandem, &election(), LOAD)?;
    let outcome = survival.strike(Fault::Kill)?;
    assert_eq!((outcome.lost(), outcome.corrupted), (LOAD.total(), 0), "{:?}", outcome.lost);
    Ok(())
}

#[test]
fn connections_that_were_just_opened_survive() -> Result<()> {
    let mut contest = Contest::for_sessions(election(), 1, SESSIONS)?;
    let _server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for (host, priority) in [101, 100].into_iter().enumerate() {
        contest.enter(host, System::Replicating, priority)?;
    }
    contest.wait_until_in_sync()?;
    let to = (contest.vip().ip(), SESSIONS).into();
    let openings = Openings::start(contest.pair().client(), to, 2 * MS)?;
    thread::sleep(1_000 * MS);
    let at = SystemTime::now();
    let crash = Instant::now();
    contest.member(0).crash();
    contest.advert_since(at, 1)?;
    // The last of them is older than a report takes to be with the peer.
    let (count, survived) = openings.survivors(crash, 50 * MS..500 * MS, PATIENCE)?;
    assert_eq!(survived, count);
    Ok(())
}

#[test]
fn a_transaction_of_mysql_goes_on_when_the_master_is_killed() -> Result<()> {
    const PORT: u16 = 3306;

    let election = Election { preempt: true, ..election() };
    let mut contest = Contest::for_sessions(election, 1, PORT)?;
    let server = &contest.pair().servers()[0];
    let _database = MariaDb::start(server, PORT)?;
    contest.enter(0, System::Replicating, 101)?;
    contest.enter(1, System::Replicating, 100)?;
    contest.wait_until_in_sync()?;
    let to = (contest.vip().ip(), PORT).into();
    let mut session = MariaDb::session(contest.pair().client(), to)?;
    let id = session.id()?;
    session.ask("CREATE TABLE kept (n INT) ENGINE=InnoDB")?;
    session.ask("CREATE TEMPORARY TABLE own (n INT); SET @counter = 40")?;
    session.ask("BEGIN; INSERT INTO kept VALUES (1); INSERT INTO own VALUES (1)")?;
    thread::sleep(1_000 * MS);

    let at = SystemTime::now();
    contest.member(0).crash();
    contest.advert_since(at, 1)?;
    assert_eq!(session.id()?, id);
    session.ask("INSERT INTO kept VALUES (2); SET @counter = @counter + 1")?;
    // Nobody else sees it before it is committed.
    assert_eq!(MariaDb::query(contest.pair().client(), to, "SELECT COUNT(*) FROM kept")?, "0\n");

    let at = SystemTime::now();
    contest.start_again(0)?;
    contest.advert_since(at, 0)?;
    contest.settle();
    session.ask("INSERT INTO own VALUES (2); SET @counter = @counter + 1; COMMIT")?;
    assert_eq!(session.ask("SELECT SUM(n), @counter FROM own")?, "3\t42\n");
    assert_eq!(session.id()?, id);
    assert_eq!(MariaDb::query(contest.pair().client(), to, "SELECT SUM(n) FROM kept")?, "3\n");
    Ok(())
}

/// Fails unless most active sessions waited for no longer than this for an echo, and what TCP and a
/// busy machine add.
fn stalled_for(outcome: &Outcome, most: Duration) -> Result<()> {
    let (median, longest) = (outcome.median_stall(), outcome.longest_stall());
    println!("an active session waited for {median:?} at the median, {longest:?} at most");
    ensure!(median.is_some_and(|stall| stall <= most + SLACK), "the median stall is {median:?}");
    Ok(())
}
