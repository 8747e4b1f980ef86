//! What is tracked: interfaces, scripts, processes, services.

use super::*;

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
