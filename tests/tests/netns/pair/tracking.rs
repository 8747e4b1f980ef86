//! What a host tracks fails, and the other one takes over.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::{GroupStatus, Status, group::Role};
use tests::lab::{Contest, Election, Process, Settings, Surroundings, Tandem, veth};

use super::{MS, PRIORITIES, carp_with, election};

#[test]
fn a_script_that_fails_is_a_fault_or_a_handicap() -> Result<()> {
    for (weight, role, priority) in [(0, Role::Fault, 101), (-2, Role::Backup, 99)] {
        let mut contest = Contest::new(preempting(), 1)?;
        let broken = contest.pair().dir().join("broken");
        let lines = format!(
            "\
track_script = [{{ name = \"alive\", weight = {weight} }}]
[[script]]
name = \"alive\"
script = [\"test\", \"!\", \"-e\", \"{}\"]
interval = \"100ms\"
",
            broken.display()
        );
        enter(&mut contest, &lines)?;
        gives_way_and_takes_back(
            &mut contest,
            (role, priority),
            || Ok(fs::write(&broken, "")?),
            || Ok(fs::remove_file(&broken)?),
        )
        .with_context(|| format!("with weight {weight}"))?;
    }
    Ok(())
}

#[test]
fn a_process_that_ends_is_a_fault() -> Result<()> {
    let mut contest = Contest::new(preempting(), 1)?;
    // Other labs on this machine have the same processes in their view.
    let name = format!("kept-{}", std::process::id());
    let program = contest.pair().dir().join(&name);
    fs::copy("/usr/bin/sleep", &program)?;
    let host = (**contest.twin(0)).clone();
    let start = || host.command(&program).arg("1000").plain().spawn();
    let process = std::cell::RefCell::new(start()?);
    let lines =
        format!("track_process = [\"kept\"]\n[[process]]\nname = \"kept\"\nprocess = \"{name}\"\n");
    let settings = contest.settings(0, PRIORITIES[0], &lines);
    let surroundings = Surroundings { sees_processes: true, ..Surroundings::default() };
    let tandem = Tandem::start_on(contest.twin(0), &Settings { surroundings, ..settings })?;
    contest.enter_as(0, Box::new(tandem))?;
    contest.enter_with(1, PRIORITIES[1], "")?;
    contest.only_master(0)?;
    gives_way_and_takes_back(
        &mut contest,
        (Role::Fault, 101),
        || {
            Process::kill(&mut process.borrow_mut());
            Ok(())
        },
        || {
            *process.borrow_mut() = start()?;
            Ok(())
        },
    )
}

#[test]
fn a_service_without_a_live_backend_gives_way() -> Result<()> {
    let mut contest = Contest::new(preempting(), 1)?;
    enter(&mut contest, "track_service = [\"web\"]\n")?;
    let host = (**contest.twin(0)).clone();
    // Only this host's way to the backend is broken.
    let route = |what: &str| host.ip(&format!("route {what} blackhole 10.2.0.11/32")).map(drop);
    gives_way_and_takes_back(&mut contest, (Role::Fault, 101), || route("add"), || route("delete"))
}

#[test]
fn an_interface_with_a_weight_is_a_handicap() -> Result<()> {
    let mut contest = Contest::new(preempting(), 1)?;
    let (_side, port) = veth((&**contest.twin(0), "side"), (contest.pair().switch(), "lb1-side"))?;
    enter(&mut contest, "track_interface = [{ name = \"side\", weight = -11 }]\n")?;
    gives_way_and_takes_back(&mut contest, (Role::Backup, 90), || port.down(), || port.up())
}

#[test]
fn an_interface_with_a_weight_demotes_a_host_of_carp() -> Result<()> {
    let mut contest = Contest::new(Election::new(2, 1_000 * MS), 0)?;
    let (_side, port) = veth((&**contest.twin(0), "side"), (contest.pair().switch(), "lb1-side"))?;
    let lines = "track_interface = [{ name = \"side\", weight = -150 }]\n";
    for (host, advskew, lines) in [(0, 10, lines), (1, 100, "")] {
        let tandem = carp_with(&contest, host, advskew, lines)?;
        contest.enter_as(host, Box::new(tandem))?;
    }
    contest.only_master(0)?;
    for (is_demoted, role, advskew) in [(true, Role::Backup, 160), (false, Role::Master, 10)] {
        let at = SystemTime::now();
        if is_demoted {
            port.down()?;
        } else {
            port.up()?;
        }
        contest.advert_since(at, usize::from(is_demoted))?;
        contest.settle();
        contest.only_master(usize::from(is_demoted))?;
        let status = contest.tandem(0).status()?;
        let group = &status.groups[0];
        assert_eq!((group.role, group.effective_priority), (role, 255 - advskew), "{group:?}");
        assert_eq!(tells_why(&status), is_demoted);
    }
    Ok(())
}

#[test]
fn a_host_that_preempts_waits_before_it_does() -> Result<()> {
    let delay = 1_500 * MS;
    let mut contest = Contest::new(preempting(), 1)?;
    enter(&mut contest, &format!("preempt_delay = \"{}ms\"\n", delay.as_millis()))?;
    let at = SystemTime::now();
    contest.member(0).elector().kill();
    contest.advert_since(at, 1)?;
    let at = SystemTime::now();
    contest.start_again(0)?;
    contest.only_master(1)?;
    let after = contest.advert_since(at, 0)?;
    ensure!(after >= delay, "it took over after {after:?}");
    contest.settle();
    contest.only_master(0)
}

fn preempting() -> Election {
    Election { preempt: true, ..election() }
}

/// Has both hosts take part, the first one with these lines.
fn enter(contest: &mut Contest, lines: &str) -> Result<()> {
    contest.enter_with(0, PRIORITIES[0], lines)?;
    contest.enter_with(1, PRIORITIES[1], "")?;
    contest.only_master(0)
}

/// What the first host tracks fails: its role and its priority are these then, and the second
/// serves. It is mended, and the first takes back.
fn gives_way_and_takes_back(
    contest: &mut Contest,
    (role, priority): (Role, u8),
    fail: impl FnOnce() -> Result<()>,
    mend: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let at = SystemTime::now();
    fail()?;
    contest.advert_since(at, 1)?;
    contest.settle();
    contest.only_master(1)?;
    contest.has_addresses(0, false)?;
    contest.has_addresses(1, true)?;
    let is_so = |group: &GroupStatus| (group.role, group.effective_priority) == (role, priority);
    let status = contest
        .tandem(0)
        .wait_until("the other is master", PATIENCE, |status| is_so(&status.groups[0]))?;
    ensure!(tells_why(&status), "no reason in {:?}", status.groups[0]);

    let at = SystemTime::now();
    mend()?;
    contest.advert_since(at, 0)?;
    contest.settle();
    contest.only_master(0)?;
    let group = &contest.tandem(0).status()?.groups[0];
    assert_eq!((group.role, group.effective_priority), (Role::Master, 101));
    Ok(())
}

/// Whether exactly one thing that is tracked failed, and its failure is told.
fn tells_why(status: &Status) -> bool {
    let failures = status.groups[0].tracked.iter().filter_map(|one| one.failure.as_ref());
    failures.count() == 1
}

const PATIENCE: Duration = Duration::from_secs(5);
