//! What operators say of backends at run time.

use super::*;

const DRAIN: Order = Order::State(AdminState::Drain);
const MAINT: Order = Order::State(AdminState::Maint);
const READY: Order = Order::State(AdminState::Ready);

fn weight(text: &str) -> Order {
    Order::Weight(text.parse().unwrap())
}

fn says(bench: &Bench, backend: &str) -> Vec<String> {
    let overrides = bench.status_of(backend).overrides;
    overrides.into_iter().map(|said| format!("{} by {}", said.what, said.by)).collect()
}

#[test]
fn a_drained_backend_is_checked_and_gets_no_new_connections() {
    let mut bench = Bench::reachable(&two());
    bench.pass("db1");
    bench.say("db/db1", DRAIN).unwrap();
    assert_eq!(bench.said(), "Info: backend db/db1: drain, by operator\n");
    assert_eq!(bench.serving("db"), ["db2"]);
    let status = bench.status_of("db1");
    assert_eq!((status.state, status.eligible), (State::Drain, false));
    assert_eq!(says(&bench, "db1"), ["drain by operator"]);

    for _ in 0..3 {
        bench.fail("db1");
    }
    assert_eq!(bench.status_of("db1").state, State::Down, "it is still checked");
    bench.pass("db1");
    bench.pass("db1");
    assert_eq!(bench.status_of("db1").state, State::Drain);

    bench.say("db/db1", READY).unwrap();
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    assert_eq!(says(&bench, "db1"), [""; 0]);
}

#[test]
fn a_backend_in_maintenance_is_not_checked_and_is_checked_at_once_when_it_is_ready() {
    let mut bench = Bench::reachable(&two());
    bench.pass("db1");
    bench.fail("db2");
    assert_eq!(bench.serving("db"), ["db1"]);
    bench.say("db/db2", MAINT).unwrap();
    assert_eq!(bench.status_of("db2").state, State::Maint, "whatever its health was");
    bench.probes.clear();
    for _ in 0..20 {
        bench.tick();
        let requests: Vec<_> = bench.probes.drain(..).collect();
        for request in requests {
            assert_eq!(bench.backend_of(&request), "db1");
            bench.answer(&request, Reason::L4Ok);
        }
    }

    bench.say("db/db2", READY).unwrap();
    let [probe] = bench.probes.as_slice() else { panic!("one check, at once") };
    assert_eq!(bench.backend_of(probe), "db2");
    assert_eq!(bench.serving("db"), ["db1", "db2"], "taken for up, as after a start");
    let probe = bench.probes.remove(0);
    bench.answer(&probe, Reason::L4Connection);
    assert_eq!(bench.serving("db"), ["db1"], "the first check decides alone");
}

#[test]
fn a_check_that_was_under_way_when_maintenance_began_changes_nothing() {
    let mut bench = Bench::reachable(&two());
    let probe = bench.probes.pop().expect("db1 is checked first");
    bench.say("db/db1", MAINT).unwrap();
    bench.answer(&probe, Reason::L4Connection);
    assert_eq!(bench.said(), "");
    bench.say("db/db1", READY).unwrap();
    assert_eq!(bench.status_of("db1").state, State::Up);
    let check = bench.status_of("db1").check;
    assert!(check.is_none(), "{check:?}");
}

#[test]
fn maintenance_ends_connections_where_going_down_does() {
    let end = "on_marked_down = 'shutdown-sessions'";
    let both = [("db1", 11, end), ("db2", 12, "")];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &both)));
    bench.say("db/db1", DRAIN).unwrap();
    assert!(bench.ended.is_empty(), "a drained backend keeps them");
    bench.say("db/db1", MAINT).unwrap();
    assert_eq!(bench.ended, ["db/db1"]);
    bench.say("db/db2", MAINT).unwrap();
    assert!(bench.ended.is_empty(), "it is not set for this one");
}

#[test]
fn backups_serve_when_all_active_backends_are_drained_or_of_weight_zero() {
    let three = [("db1", 11, ""), ("db2", 12, ""), ("db3", 13, "role = 'backup'")];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &three)));
    bench.say("db/db1", DRAIN).unwrap();
    assert_eq!(bench.serving("db"), ["db2"]);
    bench.say("db/db2", weight("0")).unwrap();
    assert_eq!(bench.serving("db"), ["db3"]);
    bench.say("db/db3", MAINT).unwrap();
    assert_eq!(bench.serving("db"), [""; 0]);
    assert!(bench.said().contains("service db is DOWN"), "{}", bench.said());
    bench.say("db/db2", weight("configured")).unwrap();
    assert_eq!(bench.serving("db"), ["db2"]);
}

#[test]
fn weights_are_told_to_the_data_plane_in_one_unit() {
    let heavy = [("db1", 11, "weight = 100"), ("db2", 12, "weight = 2")];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &heavy)));
    let weights = |bench: &Bench| {
        ["db1", "db2"].map(|name| bench.desired.backends[&bench.number(name)].weight)
    };
    assert_eq!(weights(&bench), [100, 2]);
    bench.say("db/db1", weight("50%")).unwrap();
    assert_eq!(weights(&bench), [50, 2]);
    bench.say("db/db2", weight("25%")).unwrap();
    assert_eq!(weights(&bench), [5000, 50], "a half is no whole number");
    assert!((bench.status_of("db2").effective_weight - 0.5).abs() < f64::EPSILON);
    assert_eq!(bench.status_of("db2").weight, 2, "that is what is configured");
    bench.say("db/db2", weight("256")).unwrap();
    assert_eq!(weights(&bench), [50, 256]);
    bench.say("db/db2", weight("100%")).unwrap();
    assert_eq!(says(&bench, "db2"), [""; 0]);
}

#[test]
fn a_name_that_does_not_exist_is_answered_with_a_near_one() {
    let mut bench = Bench::reachable(&two());
    let error = |bench: &mut Bench, name: &str| bench.say(name, DRAIN).unwrap_err();
    assert_eq!(error(&mut bench, "db/db11"), "there is no backend db/db11: did you mean db/db1?");
    assert_eq!(
        error(&mut bench, "mysql/primary"),
        "there is no backend mysql/primary; there are: db/db1, db/db2"
    );
}

#[test]
fn what_is_said_is_kept_once_and_found_again_by_the_next_daemon() {
    let mut bench = Bench::reachable(&two());
    bench.say("db/db1", MAINT).unwrap();
    bench.wait(Duration::from_secs(60));
    bench.say("db/db2", weight("50%")).unwrap();
    let kept = bench.kept.clone().expect("it has changed");
    bench.say("db/db2", weight("50%")).unwrap();
    assert_eq!(bench.kept, None, "nothing new");
    assert_eq!(bench.said(), "");
    bench.event(Event::Tick);
    assert_eq!(bench.kept, None);

    let mut next = Bench::restart_with(&Inventory::default(), kept, &two());
    next.reach_all();
    assert_eq!(next.serving("db"), ["db2"]);
    assert_eq!(says(&next, "db1"), ["maint by operator"]);
    assert_eq!(says(&next, "db2"), ["weight 50% by operator"]);
    let probed: Vec<_> = next.probes.iter().map(|p| next.backend_of(p)).collect();
    assert!(!probed.contains(&"db1".to_owned()), "it is in maintenance");
    next.say("db/db1", READY).unwrap();
    assert_eq!(next.kept.as_ref().map(Vec::len), Some(1));
}

#[test]
fn a_backend_that_an_earlier_daemon_found_down_stays_in_maintenance() {
    let mut bench = Bench::reachable(&two());
    bench.say("db/db1", MAINT).unwrap();
    let kept = bench.kept.clone().unwrap();
    let binds = vec![address("10.2.2.4:3306")];
    let owner = |host| (0, address(&format!("10.4.4.{host}:3306")));
    let inventory = Inventory {
        services: [(0, binds)].into(),
        backends: [(0, owner(11)), (1, owner(12))].into(),
        serving: [1].into(),
        ..Inventory::default()
    };
    let mut next = Bench::restart_with(&inventory, kept, &two());
    next.reach_all();
    next.wait(Duration::from_secs(2));
    next.event(Event::Tick);
    assert_eq!(next.status_of("db1").state, State::Maint);
    assert_eq!(next.serving("db"), ["db2"]);
    next.probes.clear();
    next.say("db/db1", READY).unwrap();
    assert_eq!(next.probes.len(), 1, "checked at once");
}

#[test]
fn what_was_said_stays_over_reloads_and_goes_by_the_name() {
    let mut bench = Bench::reachable(&two());
    bench.say("db/db1", DRAIN).unwrap();
    bench.say("db/db1", weight("50%")).unwrap();
    let heavy = [("db1", 11, "weight = 10"), ("db2", 12, "")];
    bench.reload(&config(&service("db", VIP, "", &heavy)));
    assert_eq!(bench.serving("db"), ["db2"]);
    assert!((bench.status_of("db1").effective_weight - 5.0).abs() < f64::EPSILON);
    // Another server of the name is drained, too; the same one by another name is not.
    let moved = [("db1", 21, ""), ("db9", 11, "")];
    bench.reload(&config(&service("db", VIP, "", &moved)));
    bench.reach("10.4.4.21");
    assert_eq!(bench.serving("db"), ["db9"]);
}

#[test]
fn a_server_in_maintenance_that_gets_another_name_is_checked_again() {
    let mut bench = Bench::reachable(&two());
    bench.say("db/db1", MAINT).unwrap();
    bench.probes.clear();
    bench.reload(&config(&service("db", VIP, "", &[("a", 11, ""), ("b", 12, "")])));
    let probed: Vec<_> = bench.probes.iter().map(|p| bench.backend_of(p)).collect();
    assert_eq!(probed, ["a"]);
    assert_eq!(bench.serving("db"), ["a", "b"]);
}

#[test]
fn what_was_said_of_a_backend_that_is_removed_is_shown_until_it_is_forgotten() {
    let mut bench = Bench::reachable(&two());
    bench.say("db/db1", DRAIN).unwrap();
    bench.reload(&config(&service("db", VIP, "", &[("db2", 12, "")])));
    let orphans = bench.status().orphans;
    let [orphan] = orphans.as_slice() else { panic!("{orphans:?}") };
    assert_eq!((orphan.service.as_str(), orphan.backend.as_str()), ("db", "db1"));
    assert_eq!(bench.kept, None, "the file says so already");

    // It comes back with the next reload, and with what was said of it.
    bench.reload(&two());
    assert!(bench.status().orphans.is_empty());
    assert_eq!(says(&bench, "db1"), ["drain by operator"]);

    bench.reload(&config(&service("db", VIP, "", &[("db2", 12, "")])));
    assert!(bench.say("db/db1", MAINT).is_err(), "there is no such backend");
    bench.say("db/db1", READY).unwrap();
    assert!(bench.status().orphans.is_empty());
    assert_eq!(bench.kept, Some(Vec::new()));
}

#[test]
fn what_was_said_of_backends_that_are_gone_is_bounded() {
    let name = |n: usize| BackendName { service: "db".to_owned(), backend: format!("old{n}") };
    let now = Instant::now();
    let overrides = (0..2000).map(|n| {
        let since = now.checked_sub(Duration::from_secs(n)).unwrap();
        Override {
            backend: name(usize::try_from(n).unwrap()),
            state: Some((AdminState::Maint, since)),
            weight: None,
            maxconn: None,
        }
    });
    let bench = Bench::restart_with(&Inventory::default(), overrides.collect(), &two());
    let orphans = bench.status().orphans;
    assert_eq!(orphans.len(), 1024);
    assert!(orphans.iter().any(|orphan| orphan.backend == "old0"), "the latest stay");
    assert!(bench.said().contains("976 backends"), "{}", bench.said());
    assert_eq!(bench.kept.map(|kept| kept.len()), Some(1024));
}
