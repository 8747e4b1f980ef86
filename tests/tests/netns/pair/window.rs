//! The youngest connections, of a service whose clients wait until both hosts know of them.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::lab::{
    Contest, Openings, SessionServer, Tandem,
    member::{self, SYNC_KEY, System},
    survival::{PATIENCE, SESSIONS},
    wait::until,
};

use super::{MS, PRIORITIES, election};

/// Two hosts, the first of which is the master, and a server of sessions.
fn synchronous() -> Result<(Contest, SessionServer)> {
    let mut contest = Contest::for_sessions(election(), 1, SESSIONS)?;
    let server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        contest.enter(host, System::Synchronous, priority)?;
    }
    wait_until_held(&mut contest)?;
    Ok((contest, server))
}

fn wait_until_held(contest: &mut Contest) -> Result<()> {
    contest.wait_until_in_sync()?;
    let master = contest.tandem(0);
    until("clients that wait", PATIENCE, || {
        ensure!(Answers::of(master)?.is_holding, "they do not");
        Ok(())
    })
}

/// What became of the backends' answers, by the master's account.
struct Answers {
    is_holding: bool,
    acknowledged: u64,
    unacknowledged: u64,
}

impl Answers {
    fn of(tandem: &Tandem) -> Result<Self> {
        let status = tandem.status_json()?;
        let view = &status["sync"]["conversation"];
        let total = |name: &str| view["totals"][name].as_u64().context("no such total");
        Ok(Self {
            is_holding: view["is_holding"] == true,
            acknowledged: total("held")?,
            unacknowledged: total("unacknowledged")?,
        })
    }
}

/// How long a client's connect takes, one after the other.
fn connects(contest: &Contest, count: usize) -> Result<Vec<Duration>> {
    let to: SocketAddr = (contest.vip().ip(), SESSIONS).into();
    contest.pair().client().enter(|| {
        let connect = |_| {
            let begin = Instant::now();
            let stream = TcpStream::connect(to)?;
            let took = begin.elapsed();
            drop(stream);
            Ok(took)
        };
        (0..count).map(connect).collect()
    })
}

#[test]
fn a_connection_that_its_client_takes_for_established_survives_however_young() -> Result<()> {
    let (mut contest, _server) = synchronous()?;
    let to = (contest.vip().ip(), SESSIONS).into();
    let openings = Openings::start(contest.pair().client(), to, 2 * MS)?;
    thread::sleep(1_000 * MS);
    let answers = Answers::of(contest.tandem(0))?;
    assert!(answers.acknowledged > 0, "nobody has waited");
    let at = SystemTime::now();
    let crash = Instant::now();
    contest.member(0).crash();
    contest.advert_since(at, 1)?;
    let (count, survived) = openings.survivors(crash, Duration::ZERO..500 * MS, PATIENCE)?;
    assert_eq!(survived, count, "{} were not waited for before", answers.unacknowledged);
    Ok(())
}

#[test]
fn a_peer_that_hangs_is_waited_for_no_longer_than_a_moment() -> Result<()> {
    let (mut contest, _server) = synchronous()?;
    let before = Answers::of(contest.tandem(0))?;
    contest.member(1).elector().signal(Signal::SIGSTOP)?;
    let first = connects(&contest, 1)?[0];
    assert!(first >= 100 * MS, "told after {first:?}, though the peer cannot have known");
    // Nobody waits any more: each for as long would take many times that.
    connects(&contest, 100)?;
    let hung = Answers::of(contest.tandem(0))?;
    assert!(!hung.is_holding, "it is waited for again and again");
    assert!(hung.unacknowledged > before.unacknowledged, "nobody has counted it");
    assert!(hung.unacknowledged < before.unacknowledged + 50, "many have waited");
    contest.member(1).elector().signal(Signal::SIGCONT)?;
    wait_until_held(&mut contest)?;
    connects(&contest, 5)?;
    let after = Answers::of(contest.tandem(0))?;
    assert!(after.acknowledged >= hung.acknowledged + 5, "{} waited", after.acknowledged);
    let metrics = contest.tandem(0).scrape_metrics()?;
    assert!(metrics.contains("tandem_sync_answers_total{end=\"acknowledged\"}"), "{metrics}");
    Ok(())
}

/// Where a driver takes no frames from XDP, the generic mode is what there is.
#[test]
fn clients_wait_in_generic_mode_as_well() -> Result<()> {
    let mut contest = Contest::for_sessions(election(), 1, SESSIONS)?;
    let _server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        let sync = member::sync(contest.pair(), host, SYNC_KEY);
        let lines = format!("{sync}\n[defaults]\nsynchronous = true\n");
        let settings = contest.settings(host, priority, &lines);
        let settings = settings.global("xdp_mode = \"generic\"");
        let tandem = Tandem::start_on(contest.twin(host), &settings)?;
        contest.enter_as(host, Box::new(tandem))?;
    }
    wait_until_held(&mut contest)?;
    connects(&contest, 20)?;
    let answers = Answers::of(contest.tandem(0))?;
    let waited = answers.acknowledged + answers.unacknowledged;
    assert!(waited >= 20 && answers.acknowledged > 0, "{waited} waited");
    Ok(())
}
