//! What a new configuration leaves as it was.

use super::*;

/// `db1` is down, `db2` is up.
fn one_down(config: &Arc<Config>) -> Bench {
    let mut bench = Bench::reachable(config);
    bench.fail("db1");
    bench.pass("db2");
    assert_eq!(bench.status_of("db1").state, State::Down);
    bench
}

#[test]
fn a_backend_that_is_added_serves_once_it_is_reachable() {
    let mut bench = one_down(&two());
    let number = bench.number("db2");
    let backends = [("db1", 11, ""), ("new", 13, ""), ("db2", 12, "")];
    bench.reload(&config(&service("db", VIP, "", &backends)));
    assert_eq!(bench.resolve, [ip("10.4.4.13")]);
    assert_eq!(bench.serving("db"), ["db2"]);
    bench.reach("10.4.4.13");
    assert_eq!(bench.serving("db"), ["new", "db2"]);
    assert_eq!(bench.number("db2"), number);
    assert_eq!(bench.status().config.generation, 2);
}

#[test]
fn a_backend_that_is_removed_serves_no_more_and_its_probe_is_forgotten() {
    let mut bench = Bench::reachable(&two());
    let number = bench.number("db1");
    let probe = bench.probes.pop().expect("db1 is probed first");
    bench.reload(&config(&service("db", VIP, "", &[("db2", 12, "")])));
    assert_eq!(bench.serving("db"), ["db2"]);
    assert!(!bench.desired.backends.contains_key(&number));
    bench.answer(&probe, Reason::L4Timeout);
    assert_eq!(bench.said(), "");
    bench.event(Event::RoutesChanged);
    assert_eq!(bench.resolve, [ip("10.4.4.12")]);
}

#[test]
fn a_backend_with_another_name_is_still_the_same_server() {
    let mut bench = one_down(&two());
    let number = bench.number("db1");
    bench.reload(&config(&service("db", VIP, "", &[("a", 11, ""), ("b", 12, "")])));
    assert_eq!(bench.number("a"), number);
    assert_eq!(bench.status_of("a").state, State::Down);
    assert_eq!(bench.serving("db"), ["b"]);
}

#[test]
fn a_backend_at_another_address_is_another_server() {
    let mut bench = one_down(&two());
    let number = bench.number("db1");
    bench.reload(&config(&service("db", VIP, "", &[("db1", 21, ""), ("db2", 12, "")])));
    bench.reach("10.4.4.21");
    assert_ne!(bench.number("db1"), number);
    assert_eq!(bench.serving("db"), ["db1", "db2"], "nothing is held against it");
}

#[test]
fn a_service_with_another_name_is_still_the_same_service() {
    let mut bench = one_down(&two());
    let numbers = (bench.number("db1"), bench.number("db2"));
    bench.reload(&config(&service("mysql", VIP, "", &[("db1", 11, ""), ("db2", 12, "")])));
    assert_eq!((bench.number("db1"), bench.number("db2")), numbers);
    assert_eq!(bench.serving("mysql"), ["db2"]);
    assert_eq!(bench.said(), "", "nothing happened to it");
}

#[test]
fn a_service_keeps_its_number_whatever_addresses_are_added_and_removed() {
    let backends = [("db1", 11, ""), ("db2", 12, "")];
    let bound = |binds: &str| config(&service("db", binds, "", &backends));
    let mut bench = one_down(&two());
    let numbers = (bench.number("db1"), bench.number("db2"));
    for binds in ["['10.2.2.3:80', '10.2.2.4:3306']", "['10.2.2.4:3306', '10.2.2.5:80']"] {
        bench.reload(&bound(binds));
        assert_eq!((bench.number("db1"), bench.number("db2")), numbers, "{binds}");
        assert_eq!(bench.desired.services[&0].bind.len(), 2);
    }
    // Nothing is left that the data plane knew: another service, of the same health.
    bench.reload(&bound("'10.2.2.5:80'"));
    assert_ne!(bench.number("db1"), numbers.0);
    assert_eq!(bench.serving("db"), ["db2"]);
}

#[test]
fn a_service_that_is_removed_is_gone() {
    let mut bench = one_down(&two());
    bench.reload(&config(&service("other", "'10.2.2.9:80'", "", &[("x", 12, "")])));
    let binds: Vec<_> = bench.desired.services.values().flat_map(|s| &s.bind).collect();
    assert_eq!(binds, [&address("10.2.2.9:80")]);
    assert_eq!(bench.serving("other"), ["x"], "the way there was known");
}

#[test]
fn weights_and_roles_take_effect_and_change_no_health() {
    let mut bench = one_down(&two());
    let backends = [("db1", 11, "weight = 5"), ("db2", 12, "role = 'backup'")];
    bench.reload(&config(&service("db", VIP, "", &backends)));
    assert_eq!(bench.serving("db"), ["db2"], "the backup, for db1 is down");
    assert_eq!(bench.desired.backends[&bench.number("db1")].weight, 5);
    bench.pass("db1");
    bench.pass("db1");
    assert_eq!(bench.serving("db"), ["db1"]);
}

#[test]
fn timeouts_and_algorithm_take_effect() {
    let mut bench = Bench::reachable(&two());
    let keys = "balance = 'leastconn'\ntimeout = { client = '7s' }";
    bench.reload(&config(&service("db", VIP, keys, &[("db1", 11, ""), ("db2", 12, "")])));
    let service = &bench.desired.services[&0];
    assert_eq!(service.balance, config::Balance::LeastConn);
    assert_eq!(service.timeout.client, Duration::from_secs(7));
}
