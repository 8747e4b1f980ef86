mod observed;

use proptest::prelude::*;

use super::*;
use crate::config::CheckKind;

const INTER: Duration = Duration::from_secs(10);
const FASTINTER: Duration = Duration::from_secs(2);
const DOWNINTER: Duration = Duration::from_secs(30);

/// HAProxy's counter, next to ours: for every value of it and either result, the value after.
#[test]
fn every_result_moves_haproxys_counter_as_haproxy_does() {
    for rise in 1..=5 {
        for fall in 1..=5 {
            let check = check(rise, fall);
            let top = rise + fall - 1;
            for health in 0..=top {
                let passed = if health == top || health + 1 >= rise { top } else { health + 1 };
                let failed = if health > rise { health - 1 } else { 0 };
                for condition in conditions(health, &check) {
                    let row = format!("rise {rise} fall {fall} health {health}: {condition:?}");
                    assert_eq!(
                        counter(condition.after(true, check.rise, check.fall), &check),
                        passed,
                        "{row}"
                    );
                    assert_eq!(
                        counter(condition.after(false, check.rise, check.fall), &check),
                        failed,
                        "{row}"
                    );
                }
            }
        }
    }
}

/// The table of `rise 2`, `fall 3`, spelt out.
#[test]
fn every_transition_of_rise_2_fall_3() {
    use Condition::{Down, Unproven, Up};
    let check = check(2, 3);
    #[rustfmt::skip]
    let table = [
        // before                  after a pass         after a failure
        (Unproven { up: true },    Up { failed: 0 },    Down { passed: 0 }),
        (Unproven { up: false },   Up { failed: 0 },    Down { passed: 0 }),
        (Up { failed: 0 },         Up { failed: 0 },    Up { failed: 1 }),
        (Up { failed: 1 },         Up { failed: 0 },    Up { failed: 2 }),
        (Up { failed: 2 },         Up { failed: 0 },    Down { passed: 0 }),
        (Down { passed: 0 },       Down { passed: 1 },  Down { passed: 0 }),
        (Down { passed: 1 },       Up { failed: 0 },    Down { passed: 0 }),
    ];
    for (before, after_pass, after_failure) in table {
        assert_eq!(before.after(true, check.rise, check.fall), after_pass, "{before:?}");
        assert_eq!(before.after(false, check.rise, check.fall), after_failure, "{before:?}");
    }
}

#[test]
fn a_new_backend_is_up_until_the_first_failure() {
    let mut bench = Bench::new(2, 3);
    assert!(bench.health.is_up());
    assert_eq!(bench.health.last_reason(), None);
    assert_eq!(bench.fail(), Some(Transition::Down));
    assert_eq!(bench.pass(), None);
    assert_eq!(bench.pass(), Some(Transition::Up));
}

#[test]
fn a_proven_backend_survives_fall_minus_one_failures() {
    let mut bench = Bench::new(2, 3);
    assert_eq!(bench.pass(), None, "it was up already");
    assert_eq!([bench.fail(), bench.fail(), bench.pass()], [None; 3]);
    assert_eq!([bench.fail(), bench.fail()], [None; 2]);
    assert_eq!(bench.fail(), Some(Transition::Down));
}

#[test]
fn the_interval_follows_the_condition() {
    let mut bench = Bench::new(2, 2);
    bench.pass();
    assert_eq!(bench.wait(), INTER);
    bench.fail();
    assert_eq!(bench.wait(), FASTINTER, "one failure of two");
    bench.fail();
    assert_eq!(bench.wait(), DOWNINTER);
    bench.pass();
    assert_eq!(bench.wait(), FASTINTER, "one pass of two");
    bench.pass();
    assert_eq!(bench.wait(), INTER);
}

#[test]
fn the_first_check_is_due_after_the_offset_and_not_before() {
    let now = Instant::now();
    let offset = Duration::from_millis(700);
    let mut health = Health::new(check(2, 3), now, offset);
    assert_eq!(health.next_deadline(), Some(now + offset));
    assert!(!health.start(now + Duration::from_millis(699)));
    assert!(health.start(now + offset));
}

#[test]
fn intervals_count_from_start_to_start() {
    let mut bench = Bench::new(2, 3);
    let started = bench.now;
    assert!(bench.health.start(bench.now));
    bench.now += Duration::from_secs(4);
    bench.health.finish(&passed(), bench.now);
    assert_eq!(bench.health.next_deadline(), Some(started + INTER));
}

#[test]
fn a_check_that_starts_late_does_not_move_the_next() {
    for (late, next) in [(1, 10), (5, 10), (6, 20), (15, 20), (16, 30), (1_000_000, 1_000_010)] {
        let mut bench = Bench::new(2, 3);
        let due = bench.now;
        bench.now += Duration::from_secs(late);
        assert!(bench.health.start(bench.now));
        bench.health.finish(&passed(), bench.now);
        let next = due + Duration::from_secs(next);
        assert_eq!(bench.health.next_deadline(), Some(next), "{late} s late");
    }
}

#[test]
fn a_check_that_outlasts_its_interval_is_followed_at_once_by_the_next() {
    let mut bench = Bench::new(2, 3);
    assert!(bench.health.start(bench.now));
    bench.now += INTER * 3;
    bench.health.finish(&passed(), bench.now);
    assert_eq!(bench.health.next_deadline(), Some(bench.now));
}

#[test]
fn two_checks_are_never_under_way_at_once() {
    let mut bench = Bench::new(2, 3);
    assert!(bench.health.start(bench.now));
    assert_eq!(bench.health.next_deadline(), None);
    assert!(!bench.health.start(bench.now + INTER * 100));
}

#[test]
fn an_answer_nobody_waits_for_changes_nothing() {
    let mut bench = Bench::new(2, 3);
    assert_eq!(bench.health.finish(&failed(), bench.now), None);
    assert!(bench.health.is_up());
    assert!(bench.health.status(bench.now).is_none());
    assert_eq!(bench.health.next_deadline(), Some(bench.now));
}

#[test]
fn the_status_tells_the_last_check_and_the_totals() {
    let mut bench = Bench::new(1, 1);
    let born = bench.now;
    assert_eq!(bench.health.since(), born);
    bench.pass();
    bench.fail();
    bench.pass();
    bench.fail();
    let down_since = bench.now;
    bench.fail();
    assert_eq!(bench.health.since(), down_since);
    assert_eq!(bench.health.last_reason(), Some(Reason::L4Connection));

    let status = bench.health.status(bench.now + Duration::from_millis(1500)).unwrap();
    assert_eq!(status.reason, Reason::L4Connection);
    assert_eq!(status.detail, "connection refused");
    assert_eq!((status.took_ms, status.age_ms), (3, 1500));
    assert_eq!((status.passed, status.failed, status.downs), (2, 3, 2));
}

#[test]
fn reloading_the_same_check_keeps_state_and_rhythm() {
    let mut bench = Bench::new(2, 3);
    bench.pass();
    bench.fail();
    let due = bench.health.next_deadline();
    bench.health.reconfigure(check(2, 3), bench.now, Duration::ZERO);
    assert_eq!(bench.health.next_deadline(), due);
    assert_eq!(bench.health.condition, Condition::Up { failed: 1 });
}

#[test]
fn a_lower_fall_takes_a_backend_down_with_the_next_failure_not_by_itself() {
    let mut bench = Bench::new(2, 5);
    bench.pass();
    assert_eq!([bench.fail(), bench.fail(), bench.fail()], [None; 3]);
    bench.health.reconfigure(check(2, 2), bench.now, Duration::ZERO);
    assert!(bench.health.is_up());
    assert_eq!(bench.fail(), Some(Transition::Down));
}

#[test]
fn a_higher_fall_keeps_the_failures_already_counted() {
    let mut bench = Bench::new(2, 2);
    bench.pass();
    bench.fail();
    bench.health.reconfigure(check(2, 3), bench.now, Duration::ZERO);
    assert_eq!(bench.fail(), None);
    assert_eq!(bench.fail(), Some(Transition::Down));
}

#[test]
fn a_lower_rise_brings_a_backend_up_with_the_next_pass_not_by_itself() {
    let mut bench = Bench::new(5, 2);
    bench.fail();
    assert_eq!([bench.pass(), bench.pass(), bench.pass()], [None; 3]);
    bench.health.reconfigure(check(2, 2), bench.now, Duration::ZERO);
    assert!(!bench.health.is_up());
    assert_eq!(bench.pass(), Some(Transition::Up));
}

#[test]
fn a_shorter_interval_takes_effect_before_the_long_one_has_passed() {
    let mut bench = Bench::new(2, 3);
    bench.pass();
    assert_eq!(bench.wait(), INTER);
    let faster = Check { inter: Duration::from_secs(1), ..Check::clone(&check(2, 3)) };
    bench.health.reconfigure(Arc::new(faster), bench.now, Duration::ZERO);
    assert_eq!(bench.wait(), Duration::from_secs(1));
}

#[test]
fn another_question_keeps_the_state_until_its_first_answer_decides() {
    let soon = Duration::from_millis(300);

    let mut down = Bench::new(3, 3);
    down.fail();
    down.health.reconfigure(other_question(3, 3), down.now, soon);
    assert!(!down.health.is_up());
    assert_eq!(down.wait(), soon);
    assert_eq!(down.pass(), Some(Transition::Up));

    let mut up = Bench::new(3, 3);
    up.pass();
    up.health.reconfigure(other_question(3, 3), up.now, soon);
    assert!(up.health.is_up());
    assert_eq!(up.fail(), Some(Transition::Down));
}

#[test]
fn the_answer_to_an_outdated_question_is_not_counted_and_the_new_one_follows() {
    let mut bench = Bench::new(1, 1);
    bench.pass();
    bench.now = bench.health.next_deadline().unwrap();
    assert!(bench.health.start(bench.now));
    bench.health.reconfigure(other_question(1, 1), bench.now, INTER);
    assert_eq!(bench.health.next_deadline(), None, "the old check is still under way");
    bench.health.reconfigure(check(1, 1), bench.now, INTER);

    bench.now += Duration::from_secs(1);
    assert_eq!(bench.health.finish(&failed(), bench.now), None);
    assert!(bench.health.is_up());
    assert_eq!(bench.health.last_reason(), Some(Reason::L4Ok));
    assert_eq!(bench.health.next_deadline(), Some(bench.now));
}

proptest! {
    /// Whatever came before, the state is what the last decisive run of results says.
    #[test]
    fn the_state_is_what_the_last_decisive_run_says(
        rise in 1u32..=6,
        fall in 1u32..=6,
        results in prop::collection::vec(any::<bool>(), 0..80),
    ) {
        let mut bench = Bench::new(rise, fall);
        for end in 0..results.len() {
            let before = bench.health.is_up();
            let transition = if results[end] { bench.pass() } else { bench.fail() };
            let up = naive_is_up(&results[..=end], rise, fall);
            prop_assert_eq!(bench.health.is_up(), up);
            let expected = (before != up).then_some(if up { Transition::Up } else { Transition::Down });
            prop_assert_eq!(transition, expected);
        }
    }

    /// Checks never overlap, never stop, and never start early, however long they take.
    #[test]
    fn the_rhythm_holds_however_long_checks_take(
        checks in prop::collection::vec((any::<bool>(), 0u64..60_000), 1..40),
    ) {
        let mut bench = Bench::new(2, 3);
        let mut earliest = bench.now;
        for (pass, took) in checks {
            let due = bench.health.next_deadline().expect("a check is always planned");
            prop_assert!(due >= earliest);
            prop_assert!(bench.health.start(due));
            let ended = due + Duration::from_millis(took);
            bench.health.finish(&if pass { passed() } else { failed() }, ended);
            earliest = ended.max(due + FASTINTER);
            prop_assert!(bench.health.next_deadline() <= Some(ended.max(due + DOWNINTER)));
        }
    }
}

/// Reads the whole history backwards for a run that decides: `rise` passes, `fall` failures, or
/// the very first result.
fn naive_is_up(results: &[bool], rise: u32, fall: u32) -> bool {
    for end in (1..=results.len()).rev() {
        let run = |result: bool, length: u32| {
            let length = length as usize;
            end >= length && results[end - length..end].iter().all(|&r| r == result)
        };
        if run(true, rise) {
            return true;
        }
        if run(false, fall) {
            return false;
        }
    }
    results[0]
}

/// A backend and its clock.
struct Bench {
    health: Health,
    now: Instant,
}

impl Bench {
    fn new(rise: u32, fall: u32) -> Self {
        let now = Instant::now();
        Self { health: Health::new(check(rise, fall), now, Duration::ZERO), now }
    }

    fn pass(&mut self) -> Option<Transition> {
        self.probe(&passed())
    }

    fn fail(&mut self) -> Option<Transition> {
        self.probe(&failed())
    }

    /// Waits for the next check and lets it end at once.
    fn probe(&mut self, outcome: &Outcome) -> Option<Transition> {
        self.now = self.health.next_deadline().expect("no check is under way");
        assert!(self.health.start(self.now));
        self.health.finish(outcome, self.now)
    }

    fn wait(&self) -> Duration {
        self.health.next_deadline().expect("no check is under way") - self.now
    }
}

fn check(rise: u32, fall: u32) -> Arc<Check> {
    Arc::new(Check {
        target: "192.0.2.1:3306".parse().unwrap(),
        inter: INTER,
        fastinter: FASTINTER,
        downinter: DOWNINTER,
        rise,
        fall,
        timeout: Duration::from_secs(5),
        source: None,
        ssl: false,
        tls: None,
        kind: CheckKind::Connect,
    })
}

fn other_question(rise: u32, fall: u32) -> Arc<Check> {
    let kind = CheckKind::Tcp(Vec::new());
    Arc::new(Check { kind, ..Check::clone(&check(rise, fall)) })
}

fn passed() -> Outcome {
    Outcome { reason: Reason::L4Ok, detail: String::new(), took: Duration::from_millis(1) }
}

fn failed() -> Outcome {
    Outcome {
        reason: Reason::L4Connection,
        detail: "connection refused".to_owned(),
        took: Duration::from_millis(3),
    }
}

/// Our conditions that stand for this value of HAProxy's counter.
fn conditions(health: u32, check: &Check) -> Vec<Condition> {
    let top = check.rise + check.fall - 1;
    if health < check.rise {
        return vec![Condition::Down { passed: health }];
    }
    let mut conditions = vec![Condition::Up { failed: top - health }];
    if health == check.rise {
        conditions.push(Condition::Unproven { up: true });
    }
    conditions
}

fn counter(condition: Condition, check: &Check) -> u32 {
    match condition {
        Condition::Unproven { .. } => check.rise,
        Condition::Up { failed } => check.rise + check.fall - 1 - failed,
        Condition::Down { passed } => passed,
    }
}
