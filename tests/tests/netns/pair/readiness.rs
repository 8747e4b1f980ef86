//! A preferred host comes back: when it takes the group from the one that has its connections.

use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use tests::lab::{
    Contest, Election, SessionServer, Sessions, Tandem,
    member::{self, SYNC_KEY},
    survival::{PATIENCE, SESSIONS},
};

use super::{MS, PRIORITIES, election, operate, survival::LOAD};

#[test]
fn a_host_that_comes_back_waits_for_the_others_connections_and_says_so() -> Result<()> {
    let (mut contest, _server) = without_the_first("60s")?;
    // Nobody tells it of these before the cable is there again.
    let to = (contest.vip().ip(), SESSIONS).into();
    let sessions = Sessions::open(contest.pair().client(), to, &LOAD)?;
    contest.start_again(0)?;
    contest.only_master(1)?;
    let wait = wait(contest.tandem(0))?.context("it does not wait")?;
    ensure!((1..=60).contains(&wait), "it says that it waits for {wait} s");
    let status = operate(contest.tandem(0), &["status"])?;
    ensure!(status.contains("more for the peer's connections"), "{status}");

    let at = SystemTime::now();
    contest.pair().rejoin()?;
    contest.advert_since(at, 0).context("the cable is there")?;
    contest.settle();
    contest.only_master(0)?;
    ensure!(self::wait(contest.tandem(0))?.is_none(), "it still waits");
    sessions.verify(PATIENCE)?.none_lost()
}

#[test]
fn a_host_that_comes_back_waits_no_longer_than_it_may() -> Result<()> {
    let (mut contest, _server) = without_the_first("5s")?;
    let at = SystemTime::now();
    contest.start_again(0)?;
    let after = contest.advert_since(at, 0).context("the wait is over")?;
    ensure!(after >= 5_000 * MS, "it took over {after:?} after it was started");
    contest.settle();
    contest.only_master(0)
}

/// Two hosts that share their connections, the first of which is preferred. It was killed, the second
/// has taken over, and the cable between them is cut.
fn without_the_first(preempt_wait: &str) -> Result<(Contest, SessionServer)> {
    let election = Election { preempt: true, ..election() };
    let mut contest = Contest::for_sessions(election, 1, SESSIONS)?;
    let server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        let sync = member::sync(contest.pair(), host, SYNC_KEY);
        let lines = format!("{sync}preempt_wait = \"{preempt_wait}\"\n");
        contest.enter_with(host, priority, &lines)?;
    }
    contest.wait_until_in_sync()?;
    let at = SystemTime::now();
    contest.member(0).crash();
    contest.advert_since(at, 1)?;
    contest.pair().part()?;
    Ok((contest, server))
}

/// For how many seconds a host says that it waits at most, if it waits.
fn wait(tandem: &Tandem) -> Result<Option<u64>> {
    let status = tandem.status_json()?;
    let view = &status["sync"]["conversation"];
    ensure!(view.is_object(), "there is no conversation in {status}");
    Ok(view["not_ready"]["at_most_seconds"].as_u64())
}
