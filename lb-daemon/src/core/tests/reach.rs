//! How backends become reachable, and what the data plane is told of the way.

use super::*;

#[test]
fn a_configuration_has_the_kernel_asked_for_every_backend() {
    let bench = Bench::start(&two());
    assert_eq!(bench.resolve, [ip("10.4.4.11"), ip("10.4.4.12")]);
    assert!(bench.applied, "the service is known, though nobody serves it yet");
    assert!(bench.desired.backends.is_empty());
    assert_eq!(bench.serving("db"), [""; 0]);
}

#[test]
fn a_backend_serves_once_route_and_neighbour_are_known() {
    let mut bench = Bench::start(&two());
    bench.route("10.4.4.11", "10.4.4.1");
    assert!(!bench.applied);
    bench.neighbour("10.4.4.1", THEIRS);
    assert!(bench.applied);
    assert_eq!(bench.serving("db"), ["db1"]);
    assert_eq!(bench.said(), "Info: service db is UP\n");

    let service = &bench.desired.services[&0];
    assert_eq!(service.bind, [address("10.2.2.4:3306")]);
    let backend = &bench.desired.backends[&bench.number("db1")];
    assert_eq!(backend.address, address("10.4.4.11:3306"));
    assert_eq!(backend.sources, [SOURCE], "the route's own");
    assert_eq!(
        backend.hop,
        NextHop { ifindex: IFINDEX, src: OURS, dst: THEIRS, ..NextHop::default() }
    );

    bench.reach("10.4.4.12");
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    assert_eq!(bench.said(), "");
}

#[test]
fn the_sources_of_the_configuration_go_before_the_routes() {
    let sources = "source = ['10.4.4.242', '10.4.4.243']";
    let bench = Bench::reachable(&config(&service("db", VIP, sources, &[("db1", 11, "")])));
    let backend = &bench.desired.backends[&bench.number("db1")];
    assert_eq!(backend.sources, [ip("10.4.4.242"), ip("10.4.4.243")]);
}

#[test]
fn the_data_plane_is_told_only_what_is_new() {
    let mut bench = Bench::reachable(&two());
    bench.reach_all();
    assert!(!bench.applied);
    bench.event(Event::Neighbour { ifindex: IFINDEX, address: ip("10.4.4.11"), mac: None });
    assert!(!bench.applied, "the last address known is the best there is");
    bench.neighbour("10.9.9.9", OURS);
    assert!(!bench.applied, "nobody of ours");
    bench.neighbour("10.4.4.11", OURS);
    assert!(bench.applied, "it moved");
    bench.reload(&two());
    assert!(!bench.applied);
    bench.tick();
    assert!(!bench.applied);
}

#[test]
fn changed_routes_have_the_kernel_asked_again_and_are_followed() {
    let mut bench = Bench::reachable(&two());
    bench.event(Event::RoutesChanged);
    assert_eq!(bench.resolve, [ip("10.4.4.11"), ip("10.4.4.12")]);
    assert!(!bench.applied, "what was true may still be");

    bench.event(Event::Routed { target: ip("10.4.4.11"), route: None });
    assert_eq!(bench.serving("db"), ["db2"]);
    bench.event(Event::Routed { target: ip("10.4.4.12"), route: None });
    assert_eq!(bench.serving("db"), [""; 0]);
    assert!(bench.said().starts_with("Error: service db is DOWN"), "{}", bench.said());

    bench.reach("10.4.4.12");
    assert_eq!(bench.serving("db"), ["db2"]);
    assert_eq!(bench.said(), "Info: service db is UP\n");
}

#[test]
fn a_backend_that_cannot_be_reached_says_why_and_is_asked_about_again() {
    let mut bench = Bench::start(&two());
    let why = bench.status_of("db1").why.unwrap();
    assert_eq!(why, "the link-layer address on the way to 10.4.4.11 is not resolved");
    bench.event(Event::Routed { target: ip("10.4.4.11"), route: None });
    assert_eq!(bench.status_of("db1").why.unwrap(), "this host has no route to 10.4.4.11");
    bench.reach("10.4.4.12");
    assert_eq!(bench.status_of("db2").why, None);

    bench.wait(SETTLE);
    bench.event(Event::Tick);
    assert_eq!(bench.resolve, [ip("10.4.4.11")]);
    bench.event(Event::Tick);
    assert!(bench.resolve.is_empty(), "not before another second");
    bench.wait(SETTLE);
    bench.event(Event::Tick);
    assert_eq!(bench.resolve, [ip("10.4.4.11")]);
}

#[test]
fn a_service_that_does_not_come_up_is_reported_after_a_second() {
    let mut bench = Bench::start(&two());
    assert_eq!(bench.said(), "", "its backends are only being looked for");
    let due = bench.now + SETTLE;
    bench.wait(Duration::from_millis(999));
    bench.event(Event::Tick);
    assert_eq!(bench.said(), "");
    assert!(bench.core.next_deadline().unwrap() <= due);
    bench.now = due;
    bench.event(Event::Tick);
    assert!(bench.said().starts_with("Error: service db is DOWN"), "{}", bench.said());
    bench.wait(SETTLE);
    bench.event(Event::Tick);
    assert_eq!(bench.said(), "", "once is enough");
}

#[test]
fn a_neighbour_that_moves_takes_the_clients_behind_it_along() {
    let mut bench = Bench::start(&two());
    bench.neighbour("10.2.2.254", OURS);
    assert!(bench.moved.is_empty(), "known for the first time");
    bench.neighbour("10.2.2.254", THEIRS);
    assert_eq!(bench.moved, [(OURS, THEIRS)]);
}
