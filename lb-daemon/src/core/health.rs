//! The health of one backend: when it is checked, and what the results add up to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    condition::Condition,
    event::{Outcome, Reason},
    view::CheckStatus,
};
use crate::config::{Check, Observe, OnError};

#[cfg(test)]
mod tests;

/// A backend's health check over time.
///
/// ```text
///         ┌────────────────┐  pass   ┌─────────────────┐ ◄─┐ pass: failed = 0
///  new ─► │ Unproven (up)  │ ──────► │  Up { failed }  │   │ fail: failed + 1
///         └───────┬────────┘         └──┬───────────▲──┘ ──┘
///                 │ fail                │ `fall`    │ `rise`
///                 │                     │ failures  │ passes
///                 │                     ▼ in a row  │ in a row
///                 │                  ┌─────────────────┐ ◄─┐ pass: passed + 1
///                 └────────────────► │ Down { passed } │   │ fail: passed = 0
///                                    └─────────────────┘ ──┘
/// ```
///
/// This is HAProxy's rule. It keeps one counter, `health`, from 0 to `rise + fall - 1`; a backend
/// is up from `rise` on. A pass adds one and, once that reaches `rise`, jumps to the top: a single
/// pass forgives all failures of a backend that is up. A failure takes one away and, once that
/// falls below `rise`, drops to 0: a single failure voids all passes of a backend that is down.
/// The counter starts at `rise`: up without proof, and one failure is enough to disprove it. In
/// our words: `Up { failed }` is `rise + fall - 1 - failed`, `Down { passed }` is `passed`, and
/// `Unproven` is `rise`.
///
/// One check follows the other after `inter` while the backend is surely up, `downinter` while it
/// is surely down, and `fastinter` while a run of results is under way that may change its state.
/// The time is counted from start to start (HAProxy counts from the end of a check, so that slow
/// answers delay the next question); a check that outlasts it is followed by the next at once.
/// There is never more than one check of a backend under way.
///
/// A check that starts late, because this host was busy, does not move those that follow: else all
/// that were late at the same moment would be checked at the same moment from then on.
#[derive(Clone, Debug)]
pub struct Health {
    check: Arc<Check>,
    condition: Condition,
    phase: Phase,
    /// When the backend was first known here, or last went up or down.
    since: Instant,
    last: Option<Last>,
    passed: u64,
    failed: u64,
    /// Failures since the last pass.
    failing: u64,
    downs: u64,
    /// How many times too many handshakes of clients have failed in a row.
    alarms: u64,
}

/// Where in its rhythm the check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next check starts at `due`.
    Waiting { due: Instant },
    /// A check is under way, which was `due` then and `started` some time later.
    Running { due: Instant, started: Instant },
    /// A check is under way that asks what nobody wants to know any more.
    Outdated,
    /// There are no checks.
    Paused,
}

/// The last check that ended.
#[derive(Clone, Debug)]
struct Last {
    outcome: Outcome,
    ended: Instant,
}

/// A change of state, to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The backend may get connections again.
    Up,
    /// The backend must get no more connections.
    Down,
}

impl Health {
    /// A backend that is up until the first check, which is due after `first`, says otherwise.
    ///
    /// The caller gives each of many backends another `first`, so that they are not all checked
    /// at the same moment.
    pub fn new(check: Arc<Check>, now: Instant, first: Duration) -> Self {
        Self {
            check,
            condition: Condition::Unproven { up: true },
            phase: Phase::Waiting { due: now + first },
            since: now,
            last: None,
            passed: 0,
            failed: 0,
            failing: 0,
            downs: 0,
            alarms: 0,
        }
    }

    /// Takes a backend that was never checked here for down rather than up, and checks it at once:
    /// an earlier daemon had a reason to keep connections from it.
    pub fn distrust(&mut self, now: Instant) {
        if self.condition == (Condition::Unproven { up: true }) {
            self.condition = Condition::Unproven { up: false };
            if self.phase != Phase::Paused {
                self.phase = Phase::Waiting { due: now };
            }
        }
    }

    /// Ends all checks until [`resume`](Self::resume). The answer of one that is under way changes
    /// nothing.
    pub fn pause(&mut self) {
        self.phase = Phase::Paused;
    }

    /// Begins to check again after a [`pause`](Self::pause): as after a start, the backend is taken
    /// for up, and checked at once.
    pub fn resume(&mut self, now: Instant) {
        if self.phase == Phase::Paused {
            self.condition = Condition::Unproven { up: true };
            self.phase = Phase::Waiting { due: now };
            self.since = now;
        }
    }

    /// When the next check is to start; none while one is under way, or in a pause.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { due } => Some(due),
            Phase::Running { .. } | Phase::Outdated | Phase::Paused => None,
        }
    }

    /// Starts the next check if it is due, and says whether it did: then the caller sends the
    /// probe, and owes [`finish`](Self::finish) its outcome.
    #[must_use = "a check that is started but not probed never ends"]
    pub fn start(&mut self, now: Instant) -> bool {
        let Some(due) = self.next_deadline().filter(|due| *due <= now) else { return false };
        self.phase = Phase::Running { due, started: now };
        true
    }

    /// Takes in how the check that was under way ended.
    ///
    /// Answers nobody waits for, or no longer, change nothing.
    pub fn finish(&mut self, outcome: &Outcome, now: Instant) -> Option<Transition> {
        let (due, started) = match self.phase {
            Phase::Waiting { .. } | Phase::Paused => return None,
            Phase::Outdated => {
                self.phase = Phase::Waiting { due: now };
                return None;
            }
            Phase::Running { due, started } => (due, started),
        };

        let passed = outcome.reason.passed();
        if passed {
            self.passed += 1;
            self.failing = 0;
        } else {
            self.failed += 1;
            self.failing += 1;
        }
        self.last = Some(Last { outcome: outcome.clone(), ended: now });

        let was_up = self.is_up();
        self.condition = self.condition.after(passed, self.check.rise, self.check.fall);
        self.phase = Phase::Waiting { due: now.max(turn_after(due, started, self.interval())) };
        self.turned(was_up, now)
    }

    /// Takes in that `alarms` times so many handshakes of clients have failed in a row that it counts.
    ///
    /// As in HAProxy, each time may be one more failed check or end the backend at once, and the next
    /// check comes after `fastinter` at the latest. One that is under way takes its course.
    pub fn observed(&mut self, observe: Observe, alarms: u64, now: Instant) -> Option<Transition> {
        if self.phase == Phase::Paused {
            return None;
        }
        self.alarms += alarms;
        if let Phase::Waiting { due } = self.phase {
            self.phase = Phase::Waiting { due: due.min(now + self.check.fastinter) };
        }
        let was_up = self.is_up();
        if was_up && observe.on_error != OnError::FastInter {
            self.last = Some(Last { outcome: too_many_errors(observe), ended: now });
        }
        // No more than `fall` of them make a difference.
        for _ in 0..alarms.min(self.check.fall.into()) {
            if self.is_up() && observe.on_error != OnError::FastInter {
                self.failed += 1;
                self.failing += 1;
            }
            self.condition = self.condition.after_errors(observe.on_error, self.check.fall);
        }
        self.turned(was_up, now)
    }

    /// Acts on it if the state has changed, and tells how.
    fn turned(&mut self, was_up: bool, now: Instant) -> Option<Transition> {
        let transition = match (was_up, self.is_up()) {
            (false, true) => Transition::Up,
            (true, false) => Transition::Down,
            _ => return None,
        };
        self.since = now;
        if transition == Transition::Down {
            self.downs += 1;
        }
        Some(transition)
    }

    /// Puts another version of the check in force, after a reload. Never changes the state by
    /// itself: only results do.
    ///
    /// - The same check: nothing happens, not even to its rhythm.
    /// - The same question with another `rise`, `fall`, timeout or interval: the results counted
    ///   so far still count, though it takes another to change the state even if they would now
    ///   be enough; the next check is due within one new interval.
    /// - Another question (target or kind): the state is kept, but the first answer decides
    ///   alone, as after a start. It is asked after `first`, or, if an old check is under way,
    ///   as soon as that has ended; the old check's answer is not counted.
    pub fn reconfigure(&mut self, check: Arc<Check>, now: Instant, first: Duration) {
        if self.check == check {
            return;
        }
        let same_question = self.check.asks_the_same_as(&check);
        self.check = check;

        if same_question {
            if let Phase::Waiting { due } = self.phase {
                self.phase = Phase::Waiting { due: due.min(now + self.interval()) };
            }
        } else {
            self.condition = Condition::Unproven { up: self.is_up() };
            self.phase = match self.phase {
                Phase::Waiting { .. } => Phase::Waiting { due: now + first },
                Phase::Running { .. } | Phase::Outdated => Phase::Outdated,
                Phase::Paused => Phase::Paused,
            };
        }
    }

    /// Whether the backend is healthy, as far as is known.
    pub const fn is_up(&self) -> bool {
        self.condition.is_up()
    }

    /// When it went up or down for the last time, or was first known.
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// The check in force.
    pub const fn check(&self) -> &Arc<Check> {
        &self.check
    }

    /// Why the last check that counted passed or failed; none before the first has ended.
    pub fn last_reason(&self) -> Option<Reason> {
        self.last_outcome().map(|outcome| outcome.reason)
    }

    /// The same, with all that is known of it.
    pub fn last_outcome(&self) -> Option<&Outcome> {
        self.last.as_ref().map(|last| &last.outcome)
    }

    /// How many times too many handshakes of clients have failed in a row.
    pub const fn alarms(&self) -> u64 {
        self.alarms
    }

    /// What an operator sees of it; none before the first check has ended.
    pub fn status(&self, now: Instant) -> Option<CheckStatus> {
        let Last { outcome, ended } = self.last.as_ref()?;
        Some(CheckStatus {
            reason: outcome.reason,
            detail: outcome.detail.clone(),
            took_ms: millis(outcome.took),
            age_ms: millis(now.saturating_duration_since(*ended)),
            passed: self.passed,
            failed: self.failed,
            failing: self.failing,
            downs: self.downs,
        })
    }

    /// Time from the start of a check that led to the present condition to the next.
    fn interval(&self) -> Duration {
        match self.condition {
            Condition::Up { failed: 0 } => self.check.inter,
            Condition::Down { passed: 0 } => self.check.downinter,
            Condition::Unproven { .. } | Condition::Up { .. } | Condition::Down { .. } => {
                self.check.fastinter
            }
        }
    }
}

/// When it is the turn of the check after one that was `due` then and `started` later: a whole
/// number of intervals after its turn, and at least half of one after its start.
fn turn_after(due: Instant, started: Instant, interval: Duration) -> Instant {
    let least = started.saturating_duration_since(due) + interval / 2;
    let intervals = least.as_nanos().div_ceil(interval.as_nanos().max(1)).max(1);
    due + interval * u32::try_from(intervals).unwrap_or(u32::MAX)
}

/// What an operator is told of as the last check, though it was none.
fn too_many_errors(observe: Observe) -> Outcome {
    Outcome {
        reason: Reason::Observed,
        detail: format!("{} handshakes of clients in a row failed", observe.error_limit),
        took: Duration::ZERO,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
