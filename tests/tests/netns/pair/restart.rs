//! A daemon is restarted, and nobody notices.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, ensure};
use lb_daemon::core::{Status, group::Role};
use tests::lab::{
    Close, Contest, Election, Held, Settings, Surroundings, Tandem,
    member::{self, KeepalivedMember, SYNC_KEY, System},
    wait::until,
};

use super::{
    MS, PERIOD, PRIORITIES, SLACK, carp_settings, election, goes_on, operate, says_nothing,
};

/// A host that somebody may stand in for, for so many seconds.
pub(super) fn enter(contest: &mut Contest, host: usize, seconds: u64, lines: &str) -> Result<()> {
    let settings = contest.settings(host, PRIORITIES[host], lines);
    // Small tables: what takes time is to look at every place of them.
    let settings = settings.global("maxconn = 20000");
    let tandem = Tandem::start_on(contest.twin(host), &lasting(settings, seconds))?;
    contest.enter_as(host, Box::new(tandem))
}

/// Two of them, the first of which is the master.
fn pair() -> Result<Contest> {
    let mut contest = Contest::new(election(), 0)?;
    for host in 0..2 {
        enter(&mut contest, host, ENOUGH, "")?;
    }
    Ok(contest)
}

fn lasting(settings: Settings, seconds: u64) -> Settings {
    let environment = vec![("TANDEM_STAND_IN_SECONDS", PathBuf::from(seconds.to_string()))];
    let surroundings = Surroundings { environment, sees_processes: true };
    Settings { surroundings, ..settings }
}

/// How long the next daemon may take in those tests in which it comes.
pub(super) const ENOUGH: u64 = 20;

/// Fails unless the first host was the only master since the capture began, and no advert was so late
/// that one was missing.
pub(super) fn spoke_on(contest: &Contest) -> Result<()> {
    let (silence, count) = contest.longest_silence(0)?;
    eprintln!("longest time between two of {count} adverts: {silence:?}");
    ensure!(silence < 3 * contest.election().advert_int, "silent for {silence:?}");
    Ok(())
}

/// Fails unless the daemon on the first host says that it went on as the master.
pub(super) fn carried_on(contest: &mut Contest) -> Result<()> {
    contest.tandem(0).wait_until("a master from the start", 10_000 * MS, carries_on)?;
    Ok(())
}

/// Whether a daemon says that it went on as the master from its start.
pub(super) fn carries_on(status: &Status) -> bool {
    let wanted = "carries on from the daemon before";
    status.groups.iter().all(|group| {
        let first = group.transitions.last();
        group.role == Role::Master
            && first.is_some_and(|one| (one.to, one.why.as_str()) == (Role::Master, wanted))
    })
}

#[test]
fn a_restart_costs_no_connection_and_the_peer_does_not_notice() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    for host in 0..2 {
        let sync = member::sync(contest.pair(), host, SYNC_KEY);
        enter(&mut contest, host, ENOUGH, &sync)?;
    }
    contest.wait_until_in_sync()?;
    let open = |contest: &Contest, count| {
        let held = Held::open(contest.pair().client(), contest.vip(), count, 5_000 * MS);
        held.tally().all_answered()?;
        anyhow::Ok(held)
    };
    let mut held = vec![open(&contest, 50)?];
    let knocks = contest.knocks(PERIOD)?;
    contest.capture().forget();
    for round in 0..3 {
        let start = Instant::now();
        let status = contest.tandem(0).suspend()?;
        ensure!(status.success(), "the daemon ended with {status}");
        // Of these no daemon hears when they are opened.
        held.push(open(&contest, 10)?);
        contest.tandem(0).start_again()?;
        carried_on(&mut contest)?;
        let took = start.elapsed();
        goes_on(&knocks, start, Duration::ZERO)?;
        let gap = knocks.longest_gap(start)?;
        eprintln!("restart {round} took {took:?}; longest gap of new connections: {gap:?}");
        all_work(&mut held)?;
    }
    contest.settle();
    spoke_on(&contest)?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, false)?;
    // Nobody is left who would speak when the daemon is gone for good, ...
    contest.wait_until_in_sync()?;
    let at = SystemTime::now();
    contest.tandem(0).stop()?;
    contest.advert_since(at, 1)?;
    contest.only_master(1)?;
    says_nothing(&contest, 0)?;
    // ... and the other one was told of all connections.
    all_work(&mut held)?;
    held.into_iter().try_for_each(|held| held.close(Close::Reset))?;
    Ok(())
}

pub(super) fn all_work(held: &mut [Held]) -> Result<()> {
    let (work, all) = held
        .iter_mut()
        .fold((0, 0), |(work, all), one| (work + one.still_work(1000), all + one.len()));
    ensure!(work == all, "of {all} connections {work} are left");
    Ok(())
}

#[test]
fn keepalived_does_not_notice_a_restart() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    enter(&mut contest, 0, ENOUGH, "")?;
    let election = contest.election().clone();
    let peer = KeepalivedMember::start(contest.pair(), 1, &election, PRIORITIES[1])?;
    contest.enter_as(1, Box::new(peer))?;
    contest.capture().forget();
    for _ in 0..2 {
        contest.tandem(0).restart()?;
        carried_on(&mut contest)?;
    }
    contest.settle();
    spoke_on(&contest)?;
    contest.has_addresses(1, false)
}

#[test]
fn a_restart_under_carp_goes_unnoticed_too() -> Result<()> {
    let mut contest = Contest::new(Election::new(2, 1_000 * MS), 0)?;
    for (host, advskew) in [(0, 1), (1, 100)] {
        let settings = carp_settings(&contest, advskew, "preempt = false\n");
        let tandem = Tandem::start_on(contest.twin(host), &lasting(settings, ENOUGH))?;
        contest.enter_as(host, Box::new(tandem))?;
    }
    contest.capture().forget();
    contest.tandem(0).restart()?;
    carried_on(&mut contest)?;
    thread::sleep(5_000 * MS);
    spoke_on(&contest)?;
    let status = contest.tandem(1).status()?;
    ensure!(status.groups[0].adverts.discarded.values().sum::<u64>() == 0, "{status:?}");
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_and_started_within_its_lease_goes_on() -> Result<()> {
    // Between four and almost six seconds are left of the lease.
    let mut contest = Contest::new(Election::new(3, 2_000 * MS), 1)?;
    for host in 0..2 {
        enter(&mut contest, host, ENOUGH, "")?;
    }
    let knocks = contest.knocks(PERIOD)?;
    contest.capture().forget();
    let start = Instant::now();
    contest.tandem(0).kill9();
    contest.tandem(0).start_again()?;
    carried_on(&mut contest)?;
    goes_on(&knocks, start, Duration::ZERO)?;
    thread::sleep(5_000 * MS);
    spoke_on(&contest)?;
    contest.has_addresses(0, true)
}

#[test]
fn a_daemon_that_comes_too_late_begins_as_a_backup() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    for host in 0..2 {
        enter(&mut contest, host, ENOUGH, "")?;
    }
    let at = SystemTime::now();
    contest.tandem(0).kill9();
    contest.advert_since(at, 1)?;
    contest.start_again(0)?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)
}

#[test]
fn who_stands_in_for_a_daemon_that_does_not_come_back_gives_up() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    for host in 0..2 {
        enter(&mut contest, host, 2, "")?;
    }
    let knocks = contest.knocks(PERIOD)?;
    let (at, start) = (SystemTime::now(), Instant::now());
    contest.tandem(0).suspend()?;
    let after = contest.advert_since(at, 1)?;
    ensure!(after >= 2_000 * MS, "it gave up after {after:?}");
    ensure!(after <= 2_500 * MS + SLACK, "it gave up after {after:?}");
    // With a farewell, not by silence.
    goes_on(&knocks, start, election().skew(PRIORITIES[1]))?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)?;
    contest.has_addresses(1, true)?;
    until("a host without XDP", 5_000 * MS, || {
        let links = contest.twin(0).ip("link show")?;
        ensure!(!links.contains("prog/xdp"), "{links}");
        Ok(())
    })?;
    says_nothing(&contest, 0)
}

#[test]
fn a_stop_hands_over_at_once() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    for host in 0..2 {
        enter(&mut contest, host, ENOUGH, "")?;
    }
    let knocks = contest.knocks(PERIOD)?;
    let start = Instant::now();
    contest.tandem(0).stop()?;
    goes_on(&knocks, start, election().skew(PRIORITIES[1]))?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)
}

#[test]
fn who_stands_in_gives_way_to_a_better_host() -> Result<()> {
    let mut contest = Contest::new(Election { preempt: true, ..election() }, 1)?;
    enter(&mut contest, 0, 5, "")?;
    contest.tandem(0).suspend()?;
    let at = SystemTime::now();
    contest.enter(1, System::Tandem, 200)?;
    contest.advert_since(at, 1)?;
    contest.settle();
    contest.only_master(1)?;
    contest.has_addresses(0, false)?;
    contest.has_addresses(1, true)?;
    says_nothing(&contest, 0)?;
    // The daemon that comes back finds nothing to go on with.
    contest.start_again(0)?;
    contest.only_master(1)
}

#[test]
fn who_stands_in_goes_on_until_all_that_is_tracked_is_known() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    let lines = "\
track_script = [\"slow\"]
[[script]]
name = \"slow\"
script = [\"sleep\", \"1.5\"]
interval = \"3s\"
timeout = \"3s\"
";
    enter(&mut contest, 0, 1, lines)?;
    contest.enter(1, System::Tandem, PRIORITIES[1])?;
    contest.only_master(0)?;
    contest.capture().forget();
    let start = Instant::now();
    contest.tandem(0).restart()?;
    carried_on(&mut contest)?;
    ensure!(start.elapsed() >= 1_500 * MS, "the script was not waited for");
    contest.settle();
    spoke_on(&contest)
}

#[test]
fn who_stands_in_gives_up_a_group_that_the_next_daemon_does_not_have() -> Result<()> {
    let mut contest = pair()?;
    contest.tandem(0).suspend()?;
    contest.tandem(0).configure(&lasting(Settings::of_pair(""), ENOUGH))?;
    let at = SystemTime::now();
    contest.tandem(0).start_again()?;
    contest.advert_since(at, 1)?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)
}

#[test]
fn detaching_ends_who_stands_in() -> Result<()> {
    let mut contest = pair()?;
    contest.tandem(0).suspend()?;
    contest.only_master(0)?;
    let at = SystemTime::now();
    contest.tandem(0).verb(&["detach"]).run()?;
    contest.advert_since(at, 1)?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)
}

#[test]
fn who_stands_in_ends_when_the_next_daemon_has_other_maps_and_does_not_ask_for_its_own()
-> Result<()> {
    let mut contest = pair()?;
    contest.tandem(0).suspend()?;
    let rename = "cd /sys/fs/bpf/tandem && mv * 0123456789abcdef && rm */exporter";
    contest.twin(0).command("sh").args(["-c", rename]).run()?;
    let at = SystemTime::now();
    contest.tandem(0).start_again()?;
    contest.advert_since(at, 1)?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)
}

#[test]
fn a_restart_runs_no_hooks() -> Result<()> {
    let mut contest = Contest::new(election(), 0)?;
    let log = contest.pair().dir().join("hooks");
    std::fs::write(&log, "")?;
    let hook = format!(
        "notify_user = \"root\"\nnotify = [\"/bin/sh\", \"-c\", \"echo $3 >> {}\", \"hook\"]\n",
        log.display()
    );
    enter(&mut contest, 0, ENOUGH, &hook)?;
    let said = |wanted: &str| {
        until("the hooks", 10_000 * MS, || {
            let said = std::fs::read_to_string(&log)?;
            ensure!(said == wanted, "they said {said:?}");
            Ok(())
        })
    };
    said("BACKUP\nMASTER\n")?;
    contest.tandem(0).restart()?;
    carried_on(&mut contest)?;
    operate(contest.tandem(0), &["failover", "pair"])?;
    said("BACKUP\nMASTER\nBACKUP\n")
}
