//! What comes of failed handshakes of clients.

use super::*;

const MARK_DOWN: &str = "observe = 'layer4'\non_error = 'mark-down'\nerror_limit = 7";

fn observing() -> Arc<Config> {
    config(&service("db", VIP, "", &[("db1", 11, MARK_DOWN), ("db2", 12, "")]))
}

impl Bench {
    /// The data plane tells of one alarm of these backends.
    fn alarm(&mut self, names: &[&str]) {
        let alarms = names.iter().map(|name| (self.number(name), 1)).collect();
        self.event(Event::Observed(alarms));
    }
}

#[test]
fn the_data_plane_is_told_how_many_in_a_row_are_too_many() {
    let bench = Bench::reachable(&observing());
    let (db1, db2) = (bench.number("db1"), bench.number("db2"));
    assert_eq!(bench.desired.backends[&db1].error_limit, Some(7));
    assert_eq!(bench.desired.backends[&db2].error_limit, None);
    assert_eq!(bench.core.observed().collect::<Vec<_>>(), [db1]);
}

#[test]
fn a_backend_that_refuses_clients_gets_no_new_ones_though_its_check_passes() {
    let mut bench = Bench::reachable(&observing());
    bench.pass("db1");
    bench.alarm(&["db1"]);
    assert_eq!(bench.serving("db"), ["db2"]);
    assert_eq!(
        bench.said(),
        "Warn: backend db/db1 is DOWN: HANA 7 handshakes of clients in a row failed; \
         1 active and 0 backup left\n"
    );
    let status = bench.status_of("db1");
    assert_eq!(status.state, State::Down);
    let observe = status.observe.expect("it is observed");
    assert_eq!(
        (observe.error_limit, observe.on_error.as_str(), observe.alarms),
        (7, "mark-down", 1)
    );

    bench.pass("db1");
    bench.pass("db1");
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn an_alarm_of_a_backend_that_is_not_observed_changes_nothing() {
    let mut bench = Bench::reachable(&observing());
    bench.pass("db2");
    bench.alarm(&["db2"]);
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    assert_eq!(bench.status_of("db2").observe, None);
    assert_eq!(bench.said(), "");
}

#[test]
fn backends_that_fail_together_are_told_of_one_by_one() {
    let both = config(&service("db", VIP, "", &[("db1", 11, MARK_DOWN), ("db2", 12, MARK_DOWN)]));
    let mut bench = Bench::reachable(&both);
    bench.alarm(&["db1", "db2"]);
    assert!(bench.serving("db").is_empty());
    let said = bench.said();
    assert!(said.contains("db/db1 is DOWN") && said.contains("db/db2 is DOWN"), "{said}");
}

#[test]
fn the_connections_of_a_backend_that_refuses_clients_are_ended_if_that_is_set() {
    let keys = format!("{MARK_DOWN}\non_marked_down = 'shutdown-sessions'");
    let ends = config(&service("db", VIP, "", &[("db1", 11, &keys), ("db2", 12, "")]));
    let mut bench = Bench::reachable(&ends);
    bench.alarm(&["db1"]);
    assert_eq!(bench.ended, ["db/db1"]);
}

#[test]
fn a_reload_changes_what_comes_of_errors() {
    let mut bench = Bench::reachable(&observing());
    bench.reload(&two());
    let db1 = bench.number("db1");
    assert_eq!(bench.desired.backends[&db1].error_limit, None);
    bench.alarm(&["db1"]);
    assert_eq!(bench.serving("db"), ["db1", "db2"], "it came too late");
    bench.reload(&observing());
    assert_eq!(bench.desired.backends[&db1].error_limit, Some(7));
}
