//! Failed handshakes of clients as a sign of a backend's health.

use super::*;

const OBSERVE: Observe = Observe { error_limit: 10, on_error: OnError::FailCheck };

fn on_error(on_error: OnError) -> Observe {
    Observe { on_error, ..OBSERVE }
}

impl Bench {
    fn observed(&mut self, observe: Observe, alarms: u64) -> Option<Transition> {
        self.health.observed(observe, alarms, self.now)
    }

    fn status(&self) -> CheckStatus {
        self.health.status(self.now).expect("something ended")
    }
}

/// What HAProxy makes of its counter when too many errors have come in a row.
fn haproxy(on_error: OnError, health: u32, rise: u32) -> u32 {
    let failed_check = |health: u32| match health {
        health if health < rise => health,
        health if health - 1 < rise => 0,
        health => health - 1,
    };
    match on_error {
        OnError::FastInter => health,
        OnError::FailCheck => failed_check(health),
        OnError::SuddenDeath => failed_check(health.min(rise + 1)),
        OnError::MarkDown => failed_check(rise),
    }
}

#[test]
fn too_many_errors_move_haproxys_counter_as_haproxy_does() {
    for (rise, fall) in (1..=5).flat_map(|rise| (1..=5).map(move |fall| (rise, fall))) {
        let check = check(rise, fall);
        for health in 0..rise + fall {
            for (condition, on_error) in conditions(health, &check)
                .into_iter()
                .flat_map(|condition| OnError::ALL.map(|on_error| (condition, on_error)))
            {
                let after = counter(condition.after_errors(on_error, fall), &check);
                let expected = haproxy(on_error, health, rise);
                let row = format!("rise {rise} fall {fall} health {health}: {condition:?}");
                assert_eq!(after, expected, "{row}, {on_error:?}");
            }
        }
    }
}

#[test]
fn a_backend_is_marked_down_at_once_and_comes_back_by_its_check() {
    let mut bench = Bench::new(2, 3);
    bench.pass();
    let down = bench.observed(on_error(OnError::MarkDown), 1);
    assert_eq!(down, Some(Transition::Down));
    assert_eq!(bench.health.since(), bench.now);
    let status = bench.status();
    assert_eq!(status.reason, Reason::Observed);
    assert_eq!(status.detail, "10 handshakes of clients in a row failed");
    assert_eq!((status.passed, status.failed, status.failing, status.downs), (1, 1, 1, 1));
    assert_eq!([bench.pass(), bench.pass()], [None, Some(Transition::Up)]);
    assert_eq!(bench.health.last_reason(), Some(Reason::L4Ok));
}

#[test]
fn errors_void_what_has_passed_of_a_backend_that_is_down_only_if_they_mark_it_down() {
    for (how, comes_up) in [
        (OnError::FastInter, true),
        (OnError::FailCheck, true),
        (OnError::SuddenDeath, true),
        (OnError::MarkDown, false),
    ] {
        let mut bench = Bench::new(2, 3);
        bench.fail();
        bench.pass();
        assert_eq!(bench.observed(on_error(how), 1), None, "it is down already");
        assert_eq!(bench.health.last_reason(), Some(Reason::L4Ok), "{how:?}");
        assert_eq!(bench.pass().is_some(), comes_up, "{how:?}");
    }
}

#[test]
fn each_time_is_a_failed_check_of_its_own() {
    let mut bench = Bench::new(2, 3);
    bench.pass();
    assert_eq!([bench.observed(OBSERVE, 1), bench.observed(OBSERVE, 1)], [None; 2]);
    assert_eq!(bench.fail(), Some(Transition::Down), "the third in a row");

    let mut bench = Bench::new(2, 3);
    bench.pass();
    assert_eq!(bench.observed(OBSERVE, 3), Some(Transition::Down), "all at once");

    let mut bench = Bench::new(2, 3);
    bench.pass();
    assert_eq!(bench.observed(OBSERVE, u64::MAX), Some(Transition::Down), "as many as may be");
    assert_eq!(bench.status().failed, 3, "no more than that took it down");
}

#[test]
fn a_check_that_passes_forgives_the_errors() {
    let mut bench = Bench::new(2, 3);
    bench.pass();
    assert_eq!([bench.observed(OBSERVE, 2), bench.pass(), bench.observed(OBSERVE, 2)], [None; 3]);
}

#[test]
fn sudden_death_leaves_one_failed_check() {
    let mut bench = Bench::new(2, 5);
    bench.pass();
    assert_eq!(bench.observed(on_error(OnError::SuddenDeath), 1), None);
    assert_eq!(bench.fail(), Some(Transition::Down));
}

#[test]
fn the_next_check_comes_after_fastinter_at_the_latest() {
    for how in OnError::ALL {
        let mut bench = Bench::new(2, 3);
        bench.pass();
        assert_eq!(bench.wait(), INTER);
        bench.observed(on_error(how), 1);
        assert_eq!(bench.wait(), FASTINTER, "{how:?}");
        bench.now += FASTINTER / 2;
        bench.observed(on_error(how), 1);
        assert_eq!(bench.wait(), FASTINTER / 2, "{how:?} puts nothing off");
    }
}

#[test]
fn fastinter_alone_changes_nothing_else() {
    let mut bench = Bench::new(2, 3);
    bench.pass();
    assert_eq!(bench.observed(on_error(OnError::FastInter), 7), None);
    let status = bench.status();
    assert_eq!((status.reason, status.failed, status.failing), (Reason::L4Ok, 0, 0));
    assert_eq!(bench.health.alarms(), 7);
}

#[test]
fn a_check_under_way_takes_its_course() {
    let mut bench = Bench::new(2, 3);
    bench.pass();
    bench.now += INTER;
    assert!(bench.health.start(bench.now));
    assert_eq!(bench.observed(on_error(OnError::SuddenDeath), 1), None);
    assert_eq!(bench.health.next_deadline(), None, "one at a time");
    assert_eq!(bench.health.finish(&failed(), bench.now), Some(Transition::Down));
}

#[test]
fn a_backend_in_maintenance_is_not_judged() {
    let mut bench = Bench::new(2, 3);
    bench.health.pause();
    assert_eq!(bench.observed(on_error(OnError::MarkDown), 1), None);
    assert!(bench.health.is_up());
    assert_eq!(bench.health.alarms(), 0);
}
