//! Groups: when the election begins, what it is told, whose hooks are run, what an operator sees.

use std::collections::BTreeMap;

use super::{
    group::{Command, Numbered, Role, Standing, Transition},
    *,
};
use crate::config::{
    Announce, Carp, Family, Group, GroupAddress, Hooks, Process, Protocol, Script, Track, Tracked,
    Vrrp, VrrpVersion,
};

pub(super) fn vrrp(priority: u8) -> Protocol {
    Protocol::Vrrp(Vrrp {
        version: VrrpVersion::V2,
        virtual_router_id: 51,
        priority,
        advert_int: Duration::from_secs(1),
        family: Family::V4,
        source: None,
        unicast_peers: Vec::new(),
        auth_pass: None,
        auth_pass_file: None,
        pseudo_header: true,
        vmac: None,
    })
}

pub(super) fn carp() -> Protocol {
    Protocol::Carp(Carp { vhid: 7, pass: String::new(), pass_file: None, advbase: 1, advskew: 100 })
}

pub(super) fn address(ip: &str, interface: &str) -> GroupAddress {
    let interface = interface.to_owned();
    GroupAddress { ip: super::ip(ip), prefix: 24, interface, advertised: true }
}

/// A group on `eth0` that tracks nothing else and runs nothing.
pub(super) fn group(name: &str) -> Group {
    Group {
        name: name.to_owned(),
        interface: "eth0".to_owned(),
        protocol: vrrp(100),
        addresses: vec![address("10.2.2.4", "eth0")],
        preempt: true,
        preempt_delay: Duration::ZERO,
        track: Track::default(),
        hooks: Hooks {
            notify_master: None,
            notify_backup: None,
            notify_fault: None,
            notify_stop: None,
            notify: None,
            user: "nobody".to_owned(),
            timeout: Duration::from_secs(3),
        },
        announce: Announce {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::ZERO,
            refresh_repeat: 1,
        },
    }
}

/// Kinds, names and weights of what is tracked.
pub(super) fn track(all: &[(Kind, &str, i16)]) -> Track {
    let of = |wanted| {
        let all = all.iter().filter(|(kind, ..)| *kind == wanted);
        all.map(|(_, name, weight)| Tracked { name: (*name).to_owned(), weight: *weight }).collect()
    };
    Track {
        interfaces: of(Kind::Interface),
        scripts: of(Kind::Script),
        processes: of(Kind::Process),
        services: of(Kind::Service),
    }
}

fn script(name: &str, rise: u32, fall: u32) -> Arc<Script> {
    Arc::new(Script {
        name: name.to_owned(),
        command: vec!["/usr/bin/check".to_owned(), name.to_owned()],
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(3),
        rise,
        fall,
        user: "nobody".to_owned(),
    })
}

fn process(name: &str, quorum: u32, delay: Duration) -> Arc<Process> {
    Arc::new(Process { name: name.to_owned(), process: format!("{name}d"), quorum, delay })
}

/// A configuration with one service, `db`, and these.
pub(super) fn with(
    groups: &[Group],
    scripts: &[Arc<Script>],
    processes: &[Arc<Process>],
) -> Arc<Config> {
    let mut config = two().as_ref().clone();
    config.groups = groups.iter().cloned().map(Arc::new).collect();
    config.scripts = scripts.to_vec();
    config.processes = processes.to_vec();
    Arc::new(config)
}

/// A group, `gw`, that tracks these.
fn tracking(all: &[(Kind, &str, i16)]) -> Group {
    Group { track: track(all), ..group("gw") }
}

impl Bench {
    /// All of these interfaces, and no others.
    pub(super) fn links(&mut self, links: &[(&str, bool)]) {
        let links = links.iter().zip(2..);
        let links =
            links.map(|((name, up), ifindex)| ((*name).to_owned(), Link { ifindex, up: *up }));
        self.event(Event::Links(links.collect()));
    }

    /// Ends the run that is under way, or the next.
    fn ran(&mut self, passed: bool) {
        while self.runs.is_empty() {
            self.tick();
        }
        let run = self.runs.remove(0).id;
        let detail = if passed { "fine" } else { "exit status 1" }.to_owned();
        self.event(Event::Ran { run, outcome: RunOutcome { passed, detail } });
    }

    fn counted(&mut self, name: &str, count: u32) {
        self.event(Event::Processes([(name.to_owned(), count)].into()));
    }

    fn role(&mut self, name: &str, from: Role, to: Role) {
        let why = "because".to_owned();
        let transition = Transition { from, to, priority: 101, why, carries_on: false };
        self.event(Event::Group { name: name.to_owned(), transition });
    }

    /// What the election was told by the last event of the standing of `gw`.
    pub(super) fn standing(&self) -> Option<&Standing> {
        let mut told = self.commands.iter().filter_map(|command| match command {
            Command::Standing { group, standing } if group == "gw" => Some(standing),
            _ => None,
        });
        let standing = told.next();
        assert!(told.next().is_none(), "told twice: {:?}", self.commands);
        standing
    }

    /// The same: adjustment and faults.
    fn told(&self) -> Option<(i32, Vec<&str>)> {
        let told = self.standing()?;
        Some((told.adjustment, told.faults.iter().map(String::as_str).collect()))
    }

    fn group(&self) -> GroupStatus {
        self.status().groups.remove(0)
    }
}

#[test]
fn without_groups_nobody_hears_of_elections() {
    let mut bench = Bench::start(&two());
    bench.links(&[("eth0", true)]);
    assert!(bench.commands.is_empty() && bench.watched.is_none() && bench.runs.is_empty());
    assert_eq!(
        bench.core.failover("gw").unwrap_err().to_string(),
        "no groups are configured: there is nothing to hand over"
    );
}

/// The groups, numbered in the order of the file, as they are at first.
fn configure(config: &Config) -> Command {
    let groups = (1..).zip(&config.groups);
    let numbered =
        |(number, config): (u16, &Arc<Group>)| Numbered { number, config: config.clone() };
    Command::Configure(groups.map(numbered).collect())
}

/// The numbers that the election was told, by name.
fn told_numbers(bench: &Bench) -> BTreeMap<&str, u16> {
    let [Command::Configure(groups)] = bench.commands.as_slice() else {
        panic!("{:?}", bench.commands)
    };
    groups.iter().map(|one| (one.config.name.as_str(), one.number)).collect()
}

#[test]
fn groups_that_an_earlier_daemon_served_keep_their_numbers() {
    let (old, gone) = (group::identity(&group("gw")), group::identity(&group("gone")));
    let groups = [(old, 3), (gone, 1)].into();
    let inventory = Inventory { groups, ..Inventory::default() };
    let config = with(&[group("new"), group("gw"), group("newer")], &[], &[]);
    let mut bench = Bench::restart(&inventory, &config);
    // Number one is nobody's yet: a process may still serve that group, and is to be told.
    assert_eq!(told_numbers(&bench), [("new", 2), ("gw", 3), ("newer", 4)].into());
    bench.reload(&with(&[group("gone"), group("gw")], &[], &[]));
    assert_eq!(told_numbers(&bench), [("gone", 1), ("gw", 3)].into());
}

#[test]
fn numbers_of_groups_that_are_gone_are_given_away_rather_than_none() {
    let gone = (1..=63).map(|number| (u64::from(number), number)).collect();
    let inventory = Inventory { groups: gone, ..Inventory::default() };
    let bench = Bench::restart(&inventory, &with(&[group("a"), group("b")], &[], &[]));
    assert_eq!(told_numbers(&bench), [("a", 1), ("b", 2)].into());
}

#[test]
fn the_election_is_configured_at_once_and_begins_when_the_links_are_known() {
    let config = with(&[group("gw")], &[], &[]);
    let mut bench = Bench::start(&config);
    assert_eq!(bench.commands, [configure(&config)]);
    assert_eq!(bench.group().why, "waits to know how interface eth0 is");
    bench.links(&[("eth0", true), ("lo", true)]);
    let standing = Standing { adjustment: 0, faults: Vec::new(), ready: true };
    assert_eq!(bench.commands, [Command::Standing { group: "gw".to_owned(), standing }]);
    bench.event(Event::Tick);
    assert!(bench.commands.is_empty(), "nothing new is not worth saying");
}

#[test]
fn an_interface_that_goes_down_or_away_is_a_fault_until_it_is_back() {
    let mut bench = Bench::start(&with(&[group("gw")], &[], &[]));
    bench.links(&[("eth0", true)]);
    bench.links(&[("eth0", false)]);
    assert_eq!(bench.told(), Some((0, vec!["interface eth0: down"])));
    assert_eq!(bench.said(), "Warn: interface eth0 has failed: down\n");
    bench.links(&[("eth1", true)]);
    assert_eq!(bench.told(), Some((0, vec!["interface eth0: there is none of that name"])));
    assert_eq!(bench.said(), "", "it is still the same trouble");
    bench.links(&[("eth1", true), ("eth0", true)]);
    assert_eq!(bench.told(), Some((0, vec![])));
    assert_eq!(bench.said(), "Info: interface eth0 is well\n");
    bench.links(&[("eth1", false), ("eth0", true)]);
    assert!(bench.commands.is_empty() && bench.said().is_empty(), "nobody tracks eth1");
}

#[test]
fn the_election_waits_for_the_first_run_of_a_script_however_it_ends() {
    for passed in [true, false] {
        let group = tracking(&[(Kind::Script, "chk", 0)]);
        let mut bench = Bench::start(&with(&[group], &[script("chk", 2, 3)], &[]));
        bench.links(&[("eth0", true)]);
        assert!(bench.commands.is_empty(), "the script is under way");
        assert_eq!(bench.group().why, "waits to know how script chk is");
        bench.ran(passed);
        let faults = if passed { vec![] } else { vec!["script chk: exit status 1"] };
        assert_eq!(bench.told(), Some((0, faults)), "one result is enough");
    }
}

#[test]
fn a_script_rises_and_falls() {
    let group = tracking(&[(Kind::Script, "chk", -20)]);
    let mut bench = Bench::start(&with(&[group], &[script("chk", 2, 3)], &[]));
    bench.links(&[("eth0", true)]);
    let told = [
        (true, Some(0)),
        (false, None),
        (false, None),
        (true, None),
        (false, None),
        (false, None),
        (false, Some(-20)),
        (true, None),
        (false, None),
        (true, None),
        (true, Some(0)),
    ];
    for (at, (passed, adjustment)) in told.into_iter().enumerate() {
        bench.ran(passed);
        let expected = adjustment.map(|adjustment| (adjustment, vec![]));
        assert_eq!(bench.told(), expected, "result {at}");
    }
}

#[test]
fn first_runs_are_spread_over_a_second_and_the_rest_over_the_interval() {
    let scripts = [script("a", 1, 1), script("b", 1, 1), script("idle", 1, 1)];
    let group = tracking(&[(Kind::Script, "a", 1), (Kind::Script, "b", 1)]);
    let mut bench = Bench::start(&with(&[group], &scripts, &[]));
    let start = bench.now;
    let mut starts = Vec::new();
    while starts.len() < 4 {
        for request in std::mem::take(&mut bench.runs) {
            starts.push((request.script.name.clone(), (bench.now - start).as_millis()));
            let outcome = RunOutcome { passed: true, detail: String::new() };
            bench.event(Event::Ran { run: request.id, outcome });
        }
        if starts.len() < 4 {
            bench.tick();
        }
    }
    let expected = [("a", 0), ("b", 500), ("a", 10_000), ("b", 10_500)];
    assert_eq!(starts, expected.map(|(name, ms)| (name.to_owned(), ms)), "idle is not tracked");
}

#[test]
fn a_script_has_never_two_runs_under_way() {
    let group = tracking(&[(Kind::Script, "chk", 0)]);
    let mut bench = Bench::start(&with(&[group], &[script("chk", 1, 1)], &[]));
    let first = bench.runs.pop().expect("it is run at once");
    bench.wait(Duration::from_secs(100));
    bench.event(Event::Tick);
    assert!(bench.runs.is_empty());
    let outcome = RunOutcome { passed: true, detail: String::new() };
    bench.event(Event::Ran { run: first.id, outcome: outcome.clone() });
    let [second] = bench.runs.as_slice() else { panic!("the next is overdue") };
    assert_ne!(second.id, first.id);
    bench.event(Event::Ran { run: first.id, outcome });
    assert_eq!(bench.runs.len(), 1, "an answer to a run of nobody changes nothing");
}

#[test]
fn why_a_script_failed_stays_what_it_was_when_it_fell() {
    let group = tracking(&[(Kind::Script, "chk", 0)]);
    let mut bench = Bench::start(&with(&[group], &[script("chk", 2, 2)], &[]));
    bench.links(&[("eth0", true)]);
    for detail in ["at noon", "at one", "at two"] {
        while bench.runs.is_empty() {
            bench.tick();
        }
        let run = bench.runs.remove(0).id;
        let outcome = RunOutcome { passed: false, detail: detail.to_owned() };
        bench.event(Event::Ran { run, outcome });
        let told = bench.told();
        match detail {
            "at noon" => assert_eq!(told, Some((0, vec!["script chk: at noon"]))),
            _ => assert_eq!(told, None, "the election would be told at every run"),
        }
    }
}

#[test]
fn a_process_counts_at_once_at_first_and_after_its_delay_from_then_on() {
    let second = Duration::from_secs(1);
    let group = tracking(&[(Kind::Process, "haproxy", 0)]);
    let mut bench = Bench::start(&with(&[group], &[], &[process("haproxy", 1, 2 * second)]));
    assert_eq!(bench.watched, Some(["haproxyd".to_owned()].into()));
    bench.links(&[("eth0", true)]);
    assert!(bench.commands.is_empty(), "not counted yet");
    bench.counted("haproxyd", 1);
    assert_eq!(bench.told(), Some((0, vec![])));

    bench.counted("haproxyd", 0);
    assert_eq!(bench.told(), None);
    bench.wait(second);
    bench.counted("haproxyd", 3);
    bench.wait(2 * second);
    bench.event(Event::Tick);
    assert_eq!(bench.told(), None, "it was away for a second");

    bench.counted("haproxyd", 0);
    let gone = bench.now;
    while bench.told().is_none() {
        bench.tick();
    }
    assert_eq!(bench.now, gone + 2 * second);
    assert_eq!(bench.told(), Some((0, vec!["process haproxy: no haproxyd is running"])));
    assert_eq!(bench.said(), "Warn: process haproxy has failed: no haproxyd is running\n");

    bench.counted("haproxyd", 1);
    let back = bench.now;
    while bench.told().is_none() {
        bench.tick();
    }
    assert_eq!((bench.told(), bench.now), (Some((0, vec![])), back + 2 * second));
}

#[test]
fn a_process_must_be_there_as_often_as_its_quorum_says() {
    let group = tracking(&[(Kind::Process, "nginx", -30)]);
    let mut bench = Bench::start(&with(&[group], &[], &[process("nginx", 3, Duration::ZERO)]));
    bench.links(&[("eth0", true)]);
    let told = [(2, Some(-30)), (3, Some(0)), (9, None), (0, Some(-30)), (1, None), (4, Some(0))];
    for (count, adjustment) in told {
        bench.counted("nginxd", count);
        assert_eq!(bench.told().map(|(adjustment, _)| adjustment), adjustment, "{count}");
    }
}

#[test]
fn a_process_with_another_name_or_quorum_is_not_waited_for() {
    let group = |name| tracking(&[(Kind::Process, name, 0)]);
    let mut bench = Bench::start(&with(&[group("p")], &[], &[process("p", 1, Duration::ZERO)]));
    bench.links(&[("eth0", true)]);
    bench.counted("pd", 2);
    assert_eq!(bench.told(), Some((0, vec![])));
    let mut other = process("q", 1, Duration::ZERO).as_ref().clone();
    other.process = "pd".to_owned();
    bench.reload(&with(&[group("q")], &[], &[Arc::new(other.clone())]));
    assert_eq!(bench.group().tracked[1].condition, Condition::Well, "it was counted before");
    other.quorum = 3;
    bench.reload(&with(&[group("q")], &[], &[Arc::new(other)]));
    assert_eq!(bench.told(), Some((0, vec!["process q: fewer than 3 pd are running"])));
    bench.counted("other", 9);
    assert_eq!(bench.told(), None, "an answer about others, on its way when it was asked");
}

#[test]
fn a_service_must_have_an_eligible_backend() {
    let group = tracking(&[(Kind::Service, "db", 0)]);
    let mut bench = Bench::start(&with(&[group], &[], &[]));
    bench.links(&[("eth0", true)]);
    assert_eq!(bench.told(), None, "the backends may become reachable yet");
    bench.reach_all();
    assert_eq!(bench.told(), None, "told with the first of them, this is the second");
    assert_eq!(bench.group().faults, [""; 0]);
    bench.fail("db1");
    bench.fail("db2");
    assert_eq!(bench.told(), Some((0, vec!["service db: no backend is eligible"])));
    assert!(!bench.said().contains("has failed"), "it has a notice of its own: {}", bench.said());
    bench.pass("db2");
    bench.pass("db2");
    assert_eq!(bench.group().faults, [""; 0]);
}

#[test]
fn a_service_that_does_not_come_up_holds_the_election_up_for_a_second_at_most() {
    let group = tracking(&[(Kind::Service, "db", 0)]);
    let mut bench = Bench::start(&with(&[group], &[], &[]));
    let start = bench.now;
    bench.links(&[("eth0", true)]);
    while bench.told().is_none() {
        bench.tick();
    }
    assert_eq!(bench.told(), Some((0, vec!["service db: no backend is eligible"])));
    assert_eq!(bench.now, start + SETTLE);
}

#[test]
fn one_thing_moves_all_groups_that_track_it() {
    let a = Group { name: "a".to_owned(), ..tracking(&[(Kind::Script, "chk", 0)]) };
    let b = Group { name: "b".to_owned(), ..tracking(&[(Kind::Script, "chk", -9)]) };
    let c = Group { name: "c".to_owned(), ..tracking(&[]) };
    let mut bench = Bench::start(&with(&[a, b, c], &[script("chk", 1, 1)], &[]));
    bench.links(&[("eth0", true)]);
    bench.ran(true);
    bench.ran(false);
    let told = bench.commands.iter().map(|command| match command {
        Command::Standing { group, standing } => {
            (group.as_str(), standing.adjustment, standing.faults.len())
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), [("a", 0, 1), ("b", -9, 0)]);
}

#[test]
fn a_script_that_a_reload_adds_moves_nothing_before_it_has_run() {
    let mut bench = Bench::start(&with(&[group("gw")], &[], &[]));
    bench.links(&[("eth0", true)]);
    let config = with(&[tracking(&[(Kind::Script, "chk", 0)])], &[script("chk", 1, 1)], &[]);
    bench.reload(&config);
    assert_eq!(bench.commands, [configure(&config)]);
    bench.links(&[("eth0", false)]);
    assert_eq!(bench.told(), Some((0, vec!["interface eth0: down"])), "what is known counts");
    bench.ran(false);
    let both = vec!["interface eth0: down", "script chk: exit status 1"];
    assert_eq!(bench.told(), Some((0, both)));
}

#[test]
fn a_reload_that_changes_no_group_does_not_disturb_the_election() {
    let config = with(
        &[tracking(&[(Kind::Script, "chk", -5), (Kind::Process, "p", -7)])],
        &[script("chk", 1, 1)],
        &[process("p", 1, Duration::ZERO)],
    );
    let mut bench = Bench::start(&config);
    bench.links(&[("eth0", true)]);
    bench.ran(false);
    bench.counted("pd", 0);
    assert_eq!(bench.told(), Some((-12, vec![])));
    bench.reload(&Arc::new(config.as_ref().clone()));
    assert!(bench.commands.is_empty(), "{:?}", bench.commands);
    let tracked = bench.group().tracked;
    assert_eq!(tracked[1].condition, Condition::Failed, "{tracked:?}");
}

#[test]
fn a_script_with_another_command_is_what_it_was_until_its_first_result() {
    let group = || tracking(&[(Kind::Script, "chk", -5)]);
    let mut bench = Bench::start(&with(&[group()], &[script("chk", 3, 3)], &[]));
    bench.links(&[("eth0", true)]);
    bench.ran(false);
    assert_eq!(bench.told(), Some((-5, vec![])));
    while bench.runs.is_empty() {
        bench.tick();
    }
    let outdated = bench.runs.remove(0).id;

    let mut other = script("chk", 3, 3).as_ref().clone();
    other.command = vec!["/usr/bin/other".to_owned()];
    bench.reload(&with(&[group()], &[Arc::new(other)], &[]));
    assert_eq!(bench.told(), None);
    let outcome = RunOutcome { passed: true, detail: String::new() };
    bench.event(Event::Ran { run: outdated, outcome });
    assert_eq!(bench.told(), None, "that was the old command");
    assert_eq!(bench.runs[0].script.command, ["/usr/bin/other"], "it is next, at once");
    bench.ran(true);
    assert_eq!(bench.told(), Some((0, vec![])), "the first result decides alone");
}

/// Hooks that name themselves.
fn hooked() -> Group {
    let command = |name: &str| Some(vec![format!("/hooks/{name}"), "own".to_owned()]);
    let mut group = group("gw");
    group.hooks.notify_master = command("master");
    group.hooks.notify_backup = command("backup");
    group.hooks.notify_fault = command("fault");
    group.hooks.notify_stop = command("stop");
    group.hooks.notify = command("any");
    group
}

#[test]
fn each_role_has_its_hook_and_then_the_one_of_all_with_keepalived_s_arguments() {
    let mut bench = Bench::start(&with(&[hooked()], &[], &[]));
    for (from, to, own, state) in [
        (Role::Init, Role::Backup, "/hooks/backup own", "BACKUP"),
        (Role::Backup, Role::Master, "/hooks/master own", "MASTER"),
        // A conflict that has healed.
        (Role::Master, Role::Master, "/hooks/master own", "MASTER"),
        (Role::Master, Role::Fault, "/hooks/fault own", "FAULT"),
        (Role::Fault, Role::Init, "/hooks/stop own", "STOP"),
    ] {
        bench.role("gw", from, to);
        let [request] = bench.hooks.as_slice() else { panic!("one request: {:?}", bench.hooks) };
        let commands: Vec<String> = request.commands.iter().map(|c| c.join(" ")).collect();
        assert_eq!(commands, [own.to_owned(), format!("/hooks/any own INSTANCE gw {state} 101")]);
        assert_eq!((request.group.as_str(), request.user.as_str()), ("gw", "nobody"));
        assert_eq!(request.timeout, Duration::from_secs(3));
    }
}

#[test]
fn a_master_that_carries_on_runs_no_hooks_but_says_so() {
    let mut bench = Bench::start(&with(&[hooked()], &[], &[]));
    let why = "carries on".to_owned();
    let (from, to) = (Role::Init, Role::Master);
    let transition = Transition { from, to, priority: 101, why, carries_on: true };
    bench.event(Event::Group { name: "gw".to_owned(), transition });
    assert!(bench.hooks.is_empty(), "{:?}", bench.hooks);
    assert_eq!(bench.said(), "Info: group gw is MASTER, was INIT; priority 101: carries on\n");
    assert_eq!(bench.group().role, Role::Master);
    bench.role("gw", Role::Master, Role::Backup);
    assert_eq!(bench.hooks.len(), 1);
}

#[test]
fn a_role_without_hooks_asks_for_nothing() {
    let mut group = group("gw");
    group.hooks.notify_fault = Some(vec!["/hooks/fault".to_owned()]);
    let mut bench = Bench::start(&with(&[group], &[], &[]));
    bench.role("gw", Role::Init, Role::Backup);
    assert!(bench.hooks.is_empty());
    assert_eq!(bench.said(), "Info: group gw is BACKUP, was INIT; priority 101: because\n");
    bench.role("gw", Role::Backup, Role::Fault);
    assert_eq!(bench.hooks.len(), 1);
    assert_eq!(bench.said(), "Warn: group gw is FAULT, was BACKUP; priority 101: because\n");
    bench.role("nobody's", Role::Init, Role::Backup);
    assert!(bench.hooks.is_empty() && bench.said().is_empty());
}

#[test]
fn a_group_that_a_reload_removes_has_its_last_hook_run() {
    let mut bench = Bench::start(&with(&[hooked()], &[], &[]));
    bench.role("gw", Role::Init, Role::Master);
    bench.reload(&two());
    assert_eq!(bench.commands, [Command::Configure(Vec::new())]);
    assert!(bench.status().groups.is_empty());
    bench.role("gw", Role::Master, Role::Init);
    assert_eq!(bench.hooks[0].commands[0], ["/hooks/stop", "own"]);
    bench.role("gw", Role::Init, Role::Backup);
    assert!(bench.hooks.is_empty(), "it is gone");
}

#[test]
fn only_the_master_can_hand_over() {
    let mut bench = Bench::start(&with(&[group("gw"), group("web")], &[], &[]));
    let refused = |bench: &Bench, name: &str| bench.core.failover(name).unwrap_err().to_string();
    assert_eq!(refused(&bench, "wbe"), "there is no group wbe; there are: gw, web");
    assert_eq!(
        refused(&bench, "gw"),
        "this host is INIT of group gw, so it has nothing to hand over: ask the master"
    );
    bench.role("gw", Role::Init, Role::Master);
    let Ok(Effect::Election(command)) = bench.core.failover("gw") else { panic!("refused") };
    assert_eq!(command, Command::Failover { group: "gw".to_owned() });
    assert!(bench.core.failover("web").is_err(), "that is another group");
    bench.role("gw", Role::Master, Role::Backup);
    assert!(refused(&bench, "gw").contains("is BACKUP of group gw"));
}

#[test]
fn the_status_joins_what_is_tracked_with_what_the_election_says() {
    let mut gw = tracking(&[(Kind::Script, "chk", 10)]);
    gw.addresses.push(address("10.3.3.4", "eth1"));
    let web = Group { name: "web".to_owned(), protocol: carp(), ..group("gw") };
    let mut bench = Bench::start(&with(&[gw, web], &[script("chk", 1, 1)], &[]));
    bench.links(&[("eth0", true), ("eth1", false)]);
    bench.ran(true);
    bench.role("gw", Role::Init, Role::Backup);
    bench.wait(Duration::from_secs(5));
    bench.role("gw", Role::Backup, Role::Fault);
    bench.wait(Duration::from_secs(7));

    let [gw, web] = bench.status().groups.try_into().unwrap();
    assert_eq!(gw.addresses, ["10.2.2.4/24", "10.3.3.4/24 dev eth1"]);
    assert_eq!((gw.protocol.as_str(), gw.id, gw.priority), ("VRRPv2", 51, 100));
    assert_eq!((gw.role, gw.since_seconds, gw.why.as_str()), (Role::Fault, 7, "because"));
    assert_eq!(gw.faults, ["interface eth1: down"]);
    assert_eq!(gw.taken, [("BACKUP".to_owned(), 1), ("FAULT".to_owned(), 1)].into());
    let ages: Vec<_> = gw.transitions.iter().map(|t| (t.to, t.age_seconds)).collect();
    assert_eq!(ages, [(Role::Fault, 7), (Role::Backup, 12)]);
    let tracked: Vec<_> =
        gw.tracked.iter().map(|t| (t.name.as_str(), t.weight, t.condition)).collect();
    assert_eq!(
        tracked,
        [
            ("eth0", 0, Condition::Well),
            ("eth1", 0, Condition::Failed),
            ("chk", 10, Condition::Well)
        ]
    );
    assert_eq!((web.protocol.as_str(), web.id, web.priority), ("CARP", 7, 155));
    assert_eq!((web.role, web.lease_ms, web.master), (Role::Init, None, None));

    let then = bench.now;
    bench.wait(Duration::from_secs(2));
    let election = Election {
        role: Role::Master,
        since: then,
        priority: 110,
        master: None,
        lease: Some(bench.now + Duration::from_millis(2_500)),
        why: String::new(),
        problem: Some("an advert of 10.2.2.3 is odd".to_owned()),
        adverts: AdvertCounts { sent: 3, received: 4, discarded: [("ttl".to_owned(), 5)].into() },
    };
    let mut elections = Elections { groups: [("gw".to_owned(), election.clone())].into() };
    let status = |bench: &Bench, elections: &Elections| {
        bench.core.status(&Counters::default(), elections, bench.now).groups.remove(0)
    };
    let gw = status(&bench, &elections);
    assert_eq!((gw.role, gw.since_seconds, gw.effective_priority), (Role::Master, 2, 110));
    assert_eq!((gw.lease_ms, &gw.adverts), (Some(2_500), &election.adverts));
    assert_eq!(gw.problem, election.problem);
    // A lease that has run out is none.
    elections.groups.get_mut("gw").unwrap().lease = Some(then);
    assert_eq!(status(&bench, &elections).lease_ms, None);
}

#[test]
fn a_claim_to_an_address_is_told_counted_and_shown_for_a_while() {
    let mut bench = Bench::start(&with(&[group("gw")], &[], &[]));
    let claimed = Claimed {
        address: ip("10.2.2.4"),
        mac: Mac([2, 0, 0, 0, 0, 0x99]),
        interface: "eth0".to_owned(),
    };
    let claim = |name: &str| Event::Claimed { name: name.to_owned(), claimed: claimed.clone() };
    let effects = bench.core.handle(claim("gw"), bench.now);
    let [Effect::Notify(notice)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(
        notice.to_string(),
        "address 10.2.2.4 of group gw is on another host too: 02:00:00:00:00:99 on eth0 claims it"
    );
    assert_eq!(notice.level(), Level::Warn);
    assert_eq!(bench.core.handle(claim("gone"), bench.now).len(), 0);

    bench.wait(Duration::from_secs(59));
    let gw = bench.group();
    let shown = gw.claim.expect("it is not long ago");
    assert_eq!((shown.mac.as_str(), shown.age_seconds, gw.claims), ("02:00:00:00:00:99", 59, 1));
    bench.wait(Duration::from_secs(1));
    assert_eq!((bench.group().claim, bench.group().claims), (None, 1));
}

#[test]
fn only_the_last_changes_are_remembered() {
    let mut bench = Bench::start(&with(&[group("gw")], &[], &[]));
    for _ in 0..20 {
        bench.role("gw", Role::Backup, Role::Master);
        bench.role("gw", Role::Master, Role::Backup);
    }
    let group = bench.group();
    assert_eq!(group.transitions.len(), 10);
    assert_eq!((group.transitions[0].to, group.taken["MASTER"]), (Role::Backup, 20));
}
