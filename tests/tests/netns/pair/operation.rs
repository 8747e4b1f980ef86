//! What operators do with a pair, and what they see of it.

use std::{
    fs,
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::{GroupStatus, group::Role};
use tests::lab::{Ask, Contest, Election, Settings, Tandem};

use super::{PERIOD, PRIORITIES, election, goes_on, operate, says_nothing, tandems};

#[test]
fn status_and_metrics_tell_who_is_master_since_when_and_why() -> Result<()> {
    let mut contest = tandems(election())?;
    let at = SystemTime::now();
    contest.twin(0).back.pull()?;
    contest.advert_since(at, 1)?;
    contest.twin(0).back.plug()?;
    contest.settle();
    let first = group(contest.tandem(0))?;
    let second = group(contest.tandem(1))?;
    assert_eq!((first.role, second.role), (Role::Backup, Role::Master));
    assert_eq!((first.priority, second.priority), (101, 100));
    assert_eq!(first.master.map(|ip| ip.to_string()).as_deref(), Some("10.1.0.3"));
    ensure!(first.since_seconds < 5 && second.since_seconds < 5, "{first:?}, {second:?}");
    ensure!(first.lease_ms.is_none(), "{first:?}");
    let lease = second.lease_ms.context("a master without a lease")?;
    ensure!((1..=300).contains(&lease), "a lease of {lease} ms");
    let roles = |of: &GroupStatus| of.transitions.iter().map(|one| one.to).collect::<Vec<_>>();
    assert_eq!(roles(&first), [Role::Backup, Role::Fault, Role::Master, Role::Backup]);
    assert_eq!(roles(&second), [Role::Master, Role::Backup]);
    ensure!(first.transitions[1].why.contains("interface back"), "{first:?}");
    ensure!(second.why.contains("10.1.0.2 gave the group up"), "{second:?}");

    let table = operate(contest.tandem(1), &["status"])?;
    for words in ["pair", "MASTER", "this host", "10.1.0.2 gave the group up", "VRRPv3 51 on front"]
    {
        ensure!(table.contains(words), "no {words:?} in\n{table}");
    }

    let role = |name| format!("tandem_group_role{{group=\"pair\",role=\"{name}\"}} 1\n");
    let metrics = [0, 1].map(|host| contest.tandem(host).scrape_metrics());
    let [first_metrics, second_metrics] = metrics;
    let (first_metrics, second_metrics) = (first_metrics?, second_metrics?);
    for (metrics, line) in [
        (&first_metrics, role("BACKUP")),
        (&second_metrics, role("MASTER")),
        (&first_metrics, "tandem_group_priority{group=\"pair\"} 101\n".to_owned()),
        (&first_metrics, taken("FAULT", 1)),
        (&first_metrics, taken("BACKUP", 2)),
        (&second_metrics, taken("MASTER", 1)),
        (&first_metrics, "discarded_total{group=\"pair\",reason=\"auth\"} 0\n".to_owned()),
    ] {
        ensure!(metrics.contains(&line), "no {line:?} in\n{metrics}");
    }
    // Each has heard the other and, in turn, been heard.
    for metrics in [&first_metrics, &second_metrics] {
        for name in ["sent", "received"] {
            let start = format!("tandem_group_adverts_{name}_total{{group=\"pair\"}} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
            let value: u64 = value.with_context(|| format!("no {start}in\n{metrics}"))?.parse()?;
            ensure!(value > 0, "{start}0");
        }
    }
    Ok(())
}

#[test]
fn a_failover_on_purpose_hands_over_at_once_and_is_not_undone() -> Result<()> {
    // Even a host that preempts does not take back what its operator has it hand over.
    let mut contest = tandems(Election { preempt: true, ..election() })?;
    let knocks = contest.knocks(PERIOD)?;
    let (at, start) = (SystemTime::now(), Instant::now());
    operate(contest.tandem(0), &["failover", "pair"])?;
    contest.advert_since(at, 1)?;
    goes_on(&knocks, start, election().skew(PRIORITIES[1]))?;
    contest.only_master(1)?;
    contest.has_addresses(0, false)?;
    let group = group(contest.tandem(0))?;
    ensure!(group.transitions[0].why.contains("operator"), "{group:?}");

    let refused =
        operate(contest.tandem(0), &["failover", "pair"]).expect_err("it has handed over");
    ensure!(format!("{refused:#}").contains("ask the master"), "{refused:#}");

    let at = SystemTime::now();
    contest.member(1).elector().kill();
    contest.advert_since(at, 0)?;
    contest.has_addresses(0, true)
}

#[test]
fn a_daemon_that_is_started_again_after_a_kill_begins_as_a_backup() -> Result<()> {
    let mut contest = tandems(election())?;
    let at = SystemTime::now();
    contest.member(0).elector().kill();
    contest.advert_since(at, 1)?;
    contest.has_addresses(0, true)?;
    contest.start_again(0)?;
    // What the one before it left behind is taken off.
    contest.has_addresses(0, false)?;
    contest.only_master(1)?;
    says_nothing(&contest, 0)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()?;

    // The same alone: nobody else holds the group meanwhile.
    contest.member(1).elector().kill();
    contest.advert_since(SystemTime::now(), 0)?;
    contest.member(0).elector().kill();
    let at = SystemTime::now();
    contest.member(0).start_again()?;
    contest.advert_since(at, 0)?;
    contest.has_addresses(0, true)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
}

#[test]
fn a_group_without_addresses_is_elected_after_a_warning() -> Result<()> {
    let contest = Contest::new(election(), 0)?;
    let text = "\
[[group]]
name = \"bare\"
interface = \"front\"
virtual_router_id = 60
advert_int = \"100ms\"
family = \"ipv4\"
";
    let tandem = Tandem::start_on(contest.twin(0), &Settings::of_pair(text))?;
    contest.advert_since(SystemTime::UNIX_EPOCH, 0)?;
    assert_eq!(group(&tandem)?.role, Role::Master);
    let log = fs::read_to_string(tandem.process().log())?;
    ensure!(
        log.contains("WARN") && log.contains("this group has no address"),
        "no warning in\n{log}"
    );
    Ok(())
}

fn group(tandem: &Tandem) -> Result<GroupStatus> {
    let mut status = tandem.status()?;
    ensure!(status.groups.len() == 1, "not one group: {:?}", status.groups);
    Ok(status.groups.remove(0))
}

fn taken(role: &str, times: u64) -> String {
    format!("tandem_group_transitions_total{{group=\"pair\",role=\"{role}\"}} {times}\n")
}
