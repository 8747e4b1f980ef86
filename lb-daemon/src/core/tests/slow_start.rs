//! How a backend that has recovered gets its share of new connections little by little.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Two backends that climb for a minute.
fn climbing(keys: &str) -> Arc<Config> {
    let slow = "slowstart = '60s'";
    config(&service("db", VIP, keys, &[("db1", 11, slow), ("db2", 12, slow)]))
}

/// `db1` was down and has just come up.
fn recovered(config: &Arc<Config>) -> Bench {
    let mut bench = Bench::reachable(config);
    bench.fail("db1");
    bench.pass("db1");
    bench.pass("db1");
    assert_eq!(bench.status_of("db1").state, State::Up);
    bench
}

/// What the data plane weighs the two by.
fn weights(bench: &Bench) -> [u16; 2] {
    ["db1", "db2"].map(|name| bench.desired.backends[&bench.number(name)].weight)
}

#[test]
fn after_a_recovery_the_weight_climbs_and_is_about_half_after_half_of_the_time() {
    let mut bench = recovered(&climbing("balance = 'leastconn'"));
    assert_eq!(weights(&bench), [1, 100]);
    let mut line = Vec::new();
    for _ in 0..60 {
        bench.pass_all_for(SECOND);
        let [climbs, full] = weights(&bench);
        line.push(climbs * 100 / full);
        let shown = bench.status_of("db1").slow_start.map_or(100, |climb| climb.percent);
        assert_eq!(shown, climbs * 100 / full);
    }
    assert_eq!((line[0], line[2], line[29], line[58]), (1, 5, 50, 95));
    assert!(line.is_sorted(), "{line:?}");
    assert_eq!(weights(&bench), [1, 1], "whole weights again");
    assert_eq!(bench.status_of("db1").slow_start, None);
}

#[test]
fn turns_and_hashes_follow_the_climb() {
    for (balance, slots) in [("roundrobin", 3), ("source", 65_537), ("hash", 65_537)] {
        let mut bench = recovered(&climbing(&format!("balance = '{balance}'")));
        bench.pass_all_for(30 * SECOND);
        let number = bench.number("db1");
        let table = &bench.desired.services[&0].slots.0;
        let of_db1 = table.iter().filter(|slot| **slot == number).count();
        assert!(table.len() == slots || balance != "roundrobin", "{}", table.len());
        let share = of_db1 * 100 / table.len();
        assert!((32..=34).contains(&share), "{balance}: {share} %, a third is due");
    }
}

#[test]
fn there_is_no_slow_start_at_the_start_nor_after_a_drain() {
    let mut bench = Bench::reachable(&climbing(""));
    bench.pass("db1");
    bench.pass("db2");
    assert_eq!(weights(&bench), [1, 1]);
    for order in [Order::State(AdminState::Drain), Order::State(AdminState::Ready)] {
        bench.say("db/db1", order).unwrap();
    }
    assert_eq!(weights(&bench), [1, 1]);
    bench.fail("db1");
    bench.pass("db1");
    assert_eq!(weights(&bench), [1, 1], "it was not down");
}

#[test]
fn the_end_of_maintenance_is_a_recovery() {
    let mut bench = Bench::reachable(&climbing(""));
    bench.pass("db1");
    bench.say("db/db1", Order::State(AdminState::Maint)).unwrap();
    bench.say("db/db1", Order::State(AdminState::Ready)).unwrap();
    assert_eq!(weights(&bench), [1, 100]);
    bench.fail("db1");
    assert_eq!(bench.serving("db"), ["db2"]);
    assert_eq!(bench.status_of("db1").slow_start, None, "down again");
}

#[test]
fn a_backend_that_an_earlier_daemon_found_down_recovers() {
    let owner = |host| (0, address(&format!("10.4.4.{host}:3306")));
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(0, owner(11)), (1, owner(12))].into(),
        serving: [1].into(),
        ..Inventory::default()
    };
    let mut bench = Bench::restart(&inventory, &climbing(""));
    bench.reach_all();
    bench.pass("db1");
    assert_eq!(weights(&bench), [1, 100]);
}

#[test]
fn a_backup_that_had_nothing_to_do_before_a_restart_does_not_recover() {
    let slow = "slowstart = '60s'";
    let backup = format!("{slow}\nrole = 'backup'");
    let both = [("db1", 11, backup.as_str()), ("db2", 12, slow)];
    let owner = |host| (0, address(&format!("10.4.4.{host}:3306")));
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(0, owner(11)), (1, owner(12))].into(),
        serving: [1].into(),
        ..Inventory::default()
    };
    let mut bench = Bench::restart(&inventory, &config(&service("db", VIP, "", &both)));
    bench.reach_all();
    bench.pass("db1");
    assert_eq!(bench.status_of("db1").state, State::Up);
    assert_eq!(bench.status_of("db1").slow_start, None);
}

#[test]
fn the_climb_is_of_the_weight_in_force_and_weight_zero_stays_zero() {
    let mut bench = recovered(&climbing(""));
    bench.pass_all_for(30 * SECOND);
    bench.say("db/db1", Order::Weight(RuntimeWeight::Absolute(10))).unwrap();
    assert_eq!(weights(&bench), [5, 1], "half of ten");
    bench.say("db/db1", Order::Weight(RuntimeWeight::Absolute(0))).unwrap();
    assert_eq!(bench.serving("db"), ["db2"]);
}

#[test]
fn a_reload_goes_on_with_a_climb_and_may_end_it() {
    let mut bench = recovered(&climbing(""));
    bench.pass_all_for(30 * SECOND);
    bench.reload(&climbing("balance = 'leastconn'"));
    assert_eq!(weights(&bench), [50, 100]);
    bench.reload(&two());
    assert_eq!(weights(&bench), [1, 1]);
}
