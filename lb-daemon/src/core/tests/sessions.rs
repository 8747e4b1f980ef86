//! When the connections of a backend are ended.

use super::{
    group::{Role, Transition},
    *,
};

const END: &str = "on_marked_down = 'shutdown-sessions'";

/// One service of two backends, of which the first has connections that end with it.
fn one_of_two() -> Arc<Config> {
    config(&service("db", VIP, "", &[("db1", 11, END), ("db2", 12, "")]))
}

/// The same, of a group.
fn of_a_group(keys: &str) -> Arc<Config> {
    let group = "[[group]]\nname = 'g'\ninterface = 'eth0'\nvirtual_router_id = 1\n\
                 virtual_ipaddress = '10.2.2.4/24'\n";
    config(&(group.to_owned() + &service("db", VIP, "", &[("db1", 11, keys), ("db2", 12, "")])))
}

fn go_down(bench: &mut Bench, backend: &str) {
    for _ in 0..3 {
        assert!(bench.ended.is_empty(), "too early");
        bench.fail(backend);
    }
}

fn take(bench: &mut Bench, from: Role, to: Role) {
    let why = "test".to_owned();
    let transition = Transition { from, to, priority: 100, why, carries_on: false };
    bench.event(Event::Group { name: "g".to_owned(), transition });
}

#[test]
fn the_connections_of_a_backend_that_goes_down_are_ended_once_if_that_is_set() {
    let mut bench = Bench::reachable(&one_of_two());
    bench.pass("db1");
    go_down(&mut bench, "db1");
    assert_eq!(bench.ended, ["db/db1"]);
    bench.fail("db1");
    assert!(bench.ended.is_empty(), "it is still down");

    bench.pass("db1");
    bench.pass("db1");
    assert!(bench.ended.is_empty(), "it is up");
    go_down(&mut bench, "db1");
    assert_eq!(bench.ended, ["db/db1"], "down again");

    bench.pass("db2");
    go_down(&mut bench, "db2");
    assert!(!bench.serving("db").contains(&"db2".to_owned()));
    assert!(bench.ended.is_empty(), "it is not set for this one");
}

#[test]
fn a_backend_that_is_down_at_its_first_check_has_its_connections_ended() {
    let mut bench = Bench::reachable(&one_of_two());
    bench.fail("db1");
    assert_eq!(bench.ended, ["db/db1"]);
}

#[test]
fn a_reload_ends_no_connections() {
    let mut bench = Bench::reachable(&one_of_two());
    bench.pass("db1");
    for keys in ["weight = 0", "check = { enabled = false }"] {
        let keys = format!("{END}\n{keys}");
        bench.reload(&config(&service("db", VIP, "", &[("db1", 11, &keys), ("db2", 12, "")])));
        assert!(bench.ended.is_empty(), "{keys}");
    }
    bench.reload(&config(&service("db", VIP, "", &[("db2", 12, "")])));
    assert!(bench.ended.is_empty(), "removed");
}

#[test]
fn a_backend_that_is_down_already_when_it_is_set_keeps_its_connections() {
    let mut bench = Bench::reachable(&two());
    bench.pass("db1");
    go_down(&mut bench, "db1");
    bench.reload(&one_of_two());
    bench.fail("db1");
    assert!(bench.ended.is_empty());
}

#[test]
fn only_the_host_that_serves_the_group_ends_connections() {
    let mut bench = Bench::reachable(&of_a_group(END));
    bench.pass("db1");
    go_down(&mut bench, "db1");
    assert!(bench.ended.is_empty(), "the other host knows better");
    take(&mut bench, Role::Init, Role::Backup);
    assert!(bench.ended.is_empty());
    take(&mut bench, Role::Backup, Role::Master);
    assert_eq!(bench.ended, ["db/db1"], "it serves, and the backend is down");
    take(&mut bench, Role::Master, Role::Backup);
    take(&mut bench, Role::Backup, Role::Master);
    assert!(bench.ended.is_empty(), "it went down once");
}

#[test]
fn a_backend_that_is_up_again_or_kept_its_connections_by_then_is_left_alone_by_a_takeover() {
    let mut bench = Bench::reachable(&of_a_group(END));
    bench.pass("db1");
    go_down(&mut bench, "db1");
    bench.pass("db1");
    bench.pass("db1");
    take(&mut bench, Role::Backup, Role::Master);
    assert!(bench.ended.is_empty());

    let mut bench = Bench::reachable(&of_a_group(END));
    bench.pass("db1");
    go_down(&mut bench, "db1");
    bench.reload(&of_a_group(""));
    take(&mut bench, Role::Backup, Role::Master);
    assert!(bench.ended.is_empty());
}
