//! How many connections the data plane is told to allow, and who may wait.

use std::num::NonZeroU32;

use super::*;
use crate::core::admission::rules;

/// The limit in force.
fn limit(bench: &Bench, backend: &str) -> Option<u32> {
    bench.desired.backends[&bench.number(backend)].limits.maxconn.map(NonZeroU32::get)
}

fn maxconn(text: &str) -> Order {
    Order::Maxconn(text.parse().unwrap())
}

#[test]
fn the_limit_climbs_with_the_weight_but_is_never_none() {
    let keys = "maxconn = 50\nslowstart = '60s'";
    let both = [("db1", 11, keys), ("db2", 12, "maxconn = 0")];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "maxconn = 80", &both)));
    assert_eq!(bench.desired.services[&0].maxconn, NonZeroU32::new(80));
    bench.fail("db1");
    bench.pass("db1");
    bench.pass("db1");
    assert_eq!((limit(&bench, "db1"), limit(&bench, "db2")), (Some(1), None));
    bench.pass_all_for(Duration::from_secs(30));
    assert_eq!(limit(&bench, "db1"), Some(25));
    bench.pass_all_for(Duration::from_secs(31));
    assert_eq!(limit(&bench, "db1"), Some(50));
    assert_eq!(bench.status_of("db1").limit, Some(50));
}

#[test]
fn an_operators_limit_counts_instead_of_the_configured_one_and_climbs_as_that() {
    let say = |bench: &mut Bench, text: &str| bench.say("db/db1", maxconn(text)).unwrap();
    let keys = "maxconn = 50\nslowstart = '60s'";
    let both = config(&service("db", VIP, "", &[("db1", 11, keys), ("db2", 12, "")]));
    let mut bench = Bench::reachable(&both);
    say(&mut bench, "200");
    assert_eq!(bench.said(), "Info: backend db/db1: maxconn 200, by operator\n");
    let status = bench.status_of("db1");
    assert_eq!((status.configured_limit, status.limit), (Some(50), Some(200)));
    assert_eq!(limit(&bench, "db1"), Some(200));
    bench.fail("db1");
    bench.pass("db1");
    bench.pass("db1");
    assert_eq!(limit(&bench, "db1"), Some(2), "a hundredth, after a recovery");
    bench.pass_all_for(Duration::from_secs(61));
    bench.reload(&both);
    assert_eq!(limit(&bench, "db1"), Some(200));
    say(&mut bench, "0");
    assert_eq!(limit(&bench, "db1"), None);

    let kept = bench.kept.clone().expect("it has changed");
    let mut next = Bench::restart_with(&Inventory::default(), kept, &both);
    next.reach_all();
    assert_eq!(limit(&next, "db1"), None, "also with the next daemon");
    say(&mut next, "configured");
    assert_eq!((limit(&next, "db1"), next.kept), (Some(50), Some(Vec::new())));
}

#[test]
fn who_may_wait_follows_from_the_backends_that_serve() {
    let some = |bench: &Bench| rules(&bench.desired).get(&0).map(|rules| rules.room);
    let keys = "maxconn = 300\nmaxqueue = 128";
    let both = [("db1", 11, keys), ("db2", 12, keys)];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &both)));
    assert_eq!(some(&bench), Some(Some(256)));
    bench.fail("db1");
    assert_eq!(some(&bench), Some(Some(128)), "those of the other one");
    assert_eq!(rules(&bench.desired)[&0].members.len(), 2, "its line is kept until it comes back");

    let one = [("db1", 11, keys), ("db2", 12, "maxconn = 300")];
    let bench = Bench::reachable(&config(&service("db", VIP, "", &one)));
    assert_eq!(some(&bench), Some(None), "one takes any number");
    let none = [("db1", 11, ""), ("db2", 12, "")];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &none)));
    assert_eq!(some(&bench), None, "nobody has to");
    bench.say("db/db1", maxconn("7")).unwrap();
    assert_eq!(some(&bench), Some(None), "an operator wants it");
    bench.say("db/db1", maxconn("configured")).unwrap();
    assert_eq!(some(&bench), None);
    let timeout = "maxconn = 9\ntimeout = { connect = '7s' }";
    let bench = Bench::reachable(&config(&service("db", VIP, timeout, &none)));
    assert_eq!(rules(&bench.desired)[&0].timeout, Duration::from_secs(7), "as `connect`");
}

#[test]
fn the_queue_of_a_limited_service_outlives_an_outage_and_a_limit_that_is_lifted() {
    let is_there = |bench: &Bench| rules(&bench.desired).contains_key(&0);
    let both = [("db1", 11, "maxconn = 300"), ("db2", 12, "")];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &both)));
    bench.fail("db1");
    assert!(bench.serving("db") == ["db2"] && is_there(&bench), "only the unlimited one is left");
    bench.fail("db2");
    assert!(bench.serving("db").is_empty() && is_there(&bench), "all are down");
    for target in ["10.4.4.11", "10.4.4.12"] {
        bench.event(Event::Routed { target: ip(target), route: None });
    }
    assert!(bench.desired.backends.is_empty() && is_there(&bench), "there is no way to them");
    bench.reach_all();
    bench.pass_all_for(Duration::from_secs(30));
    bench.say("db/db1", maxconn("0")).unwrap();
    assert!(limit(&bench, "db1").is_none() && is_there(&bench), "it may be back soon");
    bench.reload(&two());
    assert!(!is_there(&bench), "nobody has to wait any more");
}
