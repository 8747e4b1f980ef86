//! When the election begins, with which groups by which numbers, and who may hand over.

use std::collections::BTreeMap;

use super::*;

/// The numbers that the election was told, by name.
fn told_numbers(bench: &Bench) -> BTreeMap<&str, u16> {
    let [Command::Configure(groups)] = bench.commands.as_slice() else {
        panic!("{:?}", bench.commands)
    };
    groups.iter().map(|one| (one.config.name.as_str(), one.number)).collect()
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
