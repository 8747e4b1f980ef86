//! Who of a service's backends serves: roles, weights, algorithms.

use super::*;

const BACKUPS: &[(&str, u8, &str)] =
    &[("db1", 11, ""), ("db2", 12, "role = 'backup'"), ("db3", 13, "role = 'backup'")];

#[test]
fn the_first_backup_serves_while_no_active_backend_can() {
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", BACKUPS)));
    assert_eq!(bench.serving("db"), ["db1"]);
    assert_eq!(bench.status_of("db2").why.unwrap(), "backup, not needed");
    bench.fail("db1");
    assert_eq!(bench.serving("db"), ["db2"]);
    assert!(bench.said().contains("0 active and 2 backup left"), "{}", bench.said());
    assert!(!bench.said().contains("service"), "it is up all the time: {}", bench.said());
    bench.pass("db1");
    bench.pass("db1");
    assert_eq!(bench.serving("db"), ["db1"], "connections go back to it");
}

#[test]
fn all_backups_serve_together_if_so_configured() {
    let mut bench = Bench::reachable(&config(&service("db", VIP, "allbackups = true", BACKUPS)));
    assert_eq!(bench.serving("db"), ["db1"]);
    bench.fail("db1");
    assert_eq!(bench.serving("db"), ["db2", "db3"]);
}

#[test]
fn a_reload_that_sets_allbackups_alone_takes_effect() {
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", BACKUPS)));
    bench.fail("db1");
    assert_eq!(bench.serving("db"), ["db2"]);
    bench.reload(&config(&service("db", VIP, "allbackups = true", BACKUPS)));
    assert_eq!(bench.serving("db"), ["db2", "db3"]);
    assert!(bench.status_of("db3").eligible);
}

#[test]
fn weight_zero_drains() {
    let backends = [("db1", 11, ""), ("db2", 12, "weight = 0")];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &backends)));
    assert_eq!(bench.serving("db"), ["db1"]);
    let drained = bench.status_of("db2");
    assert_eq!((drained.state, drained.why.as_deref()), (State::Drain, Some("weight 0")));
    let backend = &bench.desired.backends[&bench.number("db2")];
    assert_eq!(backend.weight, 1, "the program divides by it");
    bench.fail("db1");
    assert_eq!(bench.serving("db"), [""; 0], "not even then");
}

#[test]
fn slots_are_arranged_by_the_algorithm_and_its_weights() {
    let backends = [("db1", 11, "weight = 2"), ("db2", 12, "")];
    let slots = |balance: &str| {
        let keys = format!("balance = '{balance}'");
        let bench = Bench::reachable(&config(&service("db", VIP, &keys, &backends)));
        let slots = bench.desired.services[&0].slots.0.to_vec();
        let first = bench.number("db1");
        (slots.len(), slots.iter().filter(|n| **n == first).count())
    };
    assert_eq!(slots("roundrobin"), (3, 2));
    assert_eq!(slots("leastconn"), (2, 1), "the program knows the weights");
    for balance in ["source", "hash"] {
        let (all, firsts) = slots(balance);
        assert_eq!(all, lb_common::hash::MAGLEV_SIZE as usize);
        assert!((firsts * 3).abs_diff(all * 2) < 10, "{firsts} of {all}");
    }
}

#[test]
fn services_do_not_share_their_backends_health() {
    let mut text = service("one", "'10.2.2.4:80'", "", &[("a", 11, "")]);
    text += &service("two", "'10.2.2.4:81'", "", &[("b", 11, "check = { port = 81 }")]);
    let mut bench = Bench::reachable(&config(&text));
    assert_ne!(bench.number("a"), bench.number("b"));
    while !bench.serving("two").is_empty() {
        bench.tick();
        for request in std::mem::take(&mut bench.probes) {
            let fails = request.check.target.port() == 81;
            bench.answer(&request, if fails { Reason::L4Timeout } else { Reason::L4Ok });
        }
    }
    assert_eq!(bench.serving("one"), ["a"]);
}
