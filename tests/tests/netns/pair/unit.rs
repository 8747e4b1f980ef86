//! The packaged unit, run by a real systemd as it stands.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use lb_daemon::core::group::Role;
use tests::lab::{
    Contest, Family, Held, Packaged, Service, Settings, Systemd,
    member::{self, PORT, SYNC_KEY},
    skip,
};

use super::{
    MS, PRIORITIES, election,
    restart::{ENOUGH, all_work, carries_on, enter, spoke_on},
    says_nothing,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The first host has the unit, and is the master. The other one is told of its connections. None where
/// this machine lets nobody have a systemd of one's own.
fn pair() -> Result<Option<Contest>> {
    let mut contest = Contest::new(election(), 1)?;
    if let Some(obstacle) = Systemd::obstacle(contest.twin(0)) {
        skip(&obstacle)?;
        return Ok(None);
    }
    let packaged = Packaged::start(contest.twin(0), &settings(&contest))?;
    contest.enter_as(0, Box::new(packaged))?;
    let sync = member::sync(contest.pair(), 1, SYNC_KEY);
    enter(&mut contest, 1, ENOUGH, &sync)?;
    contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    Ok(Some(contest))
}

/// What the first host is told.
fn settings(contest: &Contest) -> Settings {
    let sync = member::sync(contest.pair(), 0, SYNC_KEY);
    // Small tables: what takes time is to look at every place of them.
    let settings = contest.settings(0, PRIORITIES[0], &sync);
    settings.global("maxconn = 20000")
}

/// The same, and a service at the next port.
fn with_another_service(contest: &Contest) -> Settings {
    let (pair, mut settings) = (contest.pair(), settings(contest));
    let service = Service::new("more", (pair.vip(Family::V4), PORT + 1))
        .set(&format!("source = [\"{}\"]", pair.source(Family::V4)))
        .backends(pair.servers(), Family::V4, PORT);
    settings.services += &service.to_string();
    settings
}

fn hold(contest: &Contest) -> Result<Held> {
    let held = Held::open(contest.pair().client(), contest.vip(), 50, 5_000 * MS);
    held.tally().all_answered()?;
    Ok(held)
}

/// Fails unless the unit is active, by a process that is not the one `before`; which one it is.
fn runs_anew(packaged: &Packaged, before: &str) -> Result<String> {
    let [state, now] = ["ActiveState", "MainPID"].map(|name| packaged.property(name));
    let (state, now) = (state?, now?);
    ensure!(state == "active" && now != before, "{state}, process {now}, before {before}");
    Ok(now)
}

/// Waits until the daemon is the backup of another host.
fn waits_beside_a_master(packaged: &Packaged) -> Result<()> {
    packaged.wait_until("a backup", PATIENCE, |status| {
        status.groups.iter().all(|group| group.role == Role::Backup && group.master.is_some())
    })?;
    Ok(())
}

/// Fails unless the first host was the only master since the capture began, and is it still.
fn stays_master(contest: &Contest) -> Result<()> {
    spoke_on(contest)?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, false)
}

#[test]
fn a_restart_of_the_unit_and_an_upgrade_cost_no_connection_and_not_the_role() -> Result<()> {
    let Some(contest) = pair()? else { return Ok(()) };
    let packaged = contest.packaged(0);
    let mut held = vec![hold(&contest)?];
    let mut process = packaged.property("MainPID")?;
    contest.capture().forget();
    for is_upgrade in [false, true] {
        if is_upgrade {
            packaged.build_anew()?;
        }
        packaged.systemctl("restart")?;
        process = runs_anew(packaged, &process)?;
        packaged.wait_until("a master from the start", PATIENCE, carries_on)?;
        all_work(&mut held)?;
        held.push(hold(&contest)?);
    }
    contest.settle();
    stays_master(&contest)?;
    let crashes = packaged.property("NRestarts")?;
    ensure!(crashes == "0", "systemd had to start it again {crashes} times");
    Ok(())
}

#[test]
fn a_reload_of_the_unit_takes_a_good_file_and_keeps_what_it_has_for_a_bad_one() -> Result<()> {
    let Some(contest) = pair()? else { return Ok(()) };
    let packaged = contest.packaged(0);
    let mut held = [hold(&contest)?];
    let process = packaged.property("MainPID")?;
    contest.capture().forget();

    packaged.configure(&with_another_service(&contest))?;
    packaged.systemctl("reload")?;
    packaged.wait_until("another service", PATIENCE, |status| status.services.len() == 2)?;
    packaged.configure(&Settings::of_pair("nonsense = 1"))?;
    packaged.systemctl("reload")?;
    let refused = packaged
        .wait_until("a refused file", PATIENCE, |status| status.config.last_error.is_some())?;
    let why = refused.config.last_error.unwrap_or_default();
    ensure!(why.contains("nonsense"), "{why}");
    ensure!(refused.services.len() == 2, "{:?}", refused.services);
    all_work(&mut held)?;
    contest.settle();
    stays_master(&contest)?;
    let now = packaged.property("MainPID")?;
    ensure!(now == process, "process {now}, before {process}");
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_is_started_again_by_systemd_and_its_connections_stay() -> Result<()> {
    let Some(mut contest) = pair()? else { return Ok(()) };
    let mut held = [hold(&contest)?];
    contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    let process = contest.packaged(0).property("MainPID")?;
    let at = SystemTime::now();
    contest.packaged(0).systemctl("kill --kill-who=main --signal=KILL")?;
    // The unit's pause alone is longer than this lease.
    contest.advert_since(at, 1)?;
    all_work(&mut held)?;
    waits_beside_a_master(contest.packaged(0))?;
    runs_anew(contest.packaged(0), &process)?;
    let crashes = contest.packaged(0).property("NRestarts")?;
    ensure!(crashes == "1", "systemd has started it again {crashes} times");
    contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    contest.only_master(1)?;
    all_work(&mut held)
}

#[test]
fn to_stop_the_unit_hands_over_and_leaves_nothing_behind() -> Result<()> {
    let Some(mut contest) = pair()? else { return Ok(()) };
    let mut held = [hold(&contest)?];
    contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    let at = SystemTime::now();
    contest.packaged(0).systemctl("stop")?;
    contest.advert_since(at, 1)?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)?;
    contest.has_addresses(1, true)?;
    says_nothing(&contest, 0)?;
    all_work(&mut held)?;
    let packaged = contest.packaged(0);
    for (name, wanted) in [("ActiveState", "inactive"), ("Result", "success"), ("MainPID", "0")] {
        let value = packaged.property(name)?;
        ensure!(value == wanted, "{name} is {value}");
    }
    let links = contest.twin(0).ip("link show")?;
    ensure!(!links.contains("prog/xdp"), "{links}");
    // A start that comes to nothing is one that fails.
    let nowhere = Settings { interfaces: vec!["nowhere".to_owned()], ..settings(&contest) };
    packaged.configure(&nowhere)?;
    ensure!(packaged.systemctl("start").is_err(), "it has started without an interface");
    packaged.configure(&settings(&contest))?;
    // When it starts again, it is told what it has missed, and lets the other host be.
    packaged.systemctl("start")?;
    waits_beside_a_master(packaged)?;
    contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    contest.only_master(1)?;
    all_work(&mut held)
}
