//! A tracked script over time: when it is run, and what its results add up to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Spread,
    condition::Condition,
    effect::RunRequest,
    event::{RunId, RunOutcome},
    standing::Fact,
};
use crate::config::Script;

/// First runs are spread over the interval, but over no more than this: groups wait for them.
const SPREAD: Duration = Duration::from_secs(1);

/// A script of the configuration in force.
///
/// It is not known how it is until it has run once; that first result decides alone, in either
/// direction, and further ones by `rise` and `fall`. So keepalived has it. One run follows the other
/// after the interval, counted from start to start, and there are never two under way.
#[derive(Debug)]
pub(super) struct ScriptState {
    pub(super) config: Arc<Script>,
    /// Nothing before the first result.
    condition: Option<Condition>,
    phase: Phase,
    /// Why it is failed, if it is: of the result that decided it, so that it does not change with
    /// every run.
    failure: String,
}

/// Where in its rhythm a script is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next run starts then.
    Waiting { due: Instant },
    /// A run is under way.
    Running { run: RunId, started: Instant },
    /// A run is under way of a command that nobody wants to know about any more.
    Outdated { run: RunId },
}

impl ScriptState {
    /// The script of a new configuration, with the state of `old`, the script of that name before.
    ///
    /// If that ran the same command as the same user, its results still count. If not, it is taken
    /// for what it was until the first result of the new one, which decides alone.
    pub(super) fn new(
        config: Arc<Script>,
        old: Option<Self>,
        now: Instant,
        spread: &mut Spread,
    ) -> Self {
        let first = now + spread.next(config.interval.min(SPREAD));
        let Some(mut this) = old else {
            let phase = Phase::Waiting { due: first };
            return Self { config, condition: None, phase, failure: String::new() };
        };
        let is_same = this.config.command == config.command && this.config.user == config.user;
        if is_same {
            if let Phase::Waiting { due } = &mut this.phase {
                *due = (*due).min(now + config.interval);
            }
        } else {
            this.condition = this.condition.map(|c| Condition::Unproven { up: c.is_up() });
            this.phase = match this.phase {
                Phase::Waiting { .. } => Phase::Waiting { due: first },
                Phase::Running { run, .. } | Phase::Outdated { run } => Phase::Outdated { run },
            };
        }
        this.config = config;
        this
    }

    /// When the next run is to start; none while one is under way.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { due } => Some(due),
            Phase::Running { .. } | Phase::Outdated { .. } => None,
        }
    }

    /// The next run, under the name `id`, if it is due.
    pub(super) fn start(&mut self, id: RunId, now: Instant) -> Option<RunRequest> {
        let is_due = self.next_deadline().is_some_and(|due| due <= now);
        is_due.then(|| {
            self.phase = Phase::Running { run: id, started: now };
            RunRequest { id, script: self.config.clone() }
        })
    }

    /// Takes in how a run ended, if it was one of this script.
    pub(super) fn finish(&mut self, ended: RunId, outcome: &RunOutcome, now: Instant) {
        match self.phase {
            Phase::Running { run, started } if run == ended => {
                let before = self.condition;
                let condition = before.unwrap_or(Condition::Unproven { up: true });
                let after = condition.after(outcome.passed, self.config.rise, self.config.fall);
                if !after.is_up() && before.is_none_or(Condition::is_up) {
                    self.failure.clone_from(&outcome.detail);
                }
                self.condition = Some(after);
                self.phase = Phase::Waiting { due: now.max(started + self.config.interval) };
            }
            Phase::Outdated { run } if run == ended => self.phase = Phase::Waiting { due: now },
            _ => {}
        }
    }

    /// How it is.
    pub(super) fn fact(&self) -> Fact {
        match self.condition {
            None => Fact::Unknown,
            Some(condition) if condition.is_up() => Fact::Well,
            Some(_) => Fact::Failed(self.failure.clone()),
        }
    }
}
