//! A tracked process over time: whether enough of it run, and for long enough.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::standing::Fact;
use crate::config::Process;

/// A process of the configuration in force.
///
/// The first count decides at once. From then on a change has to last for the delay before it
/// counts, in either direction; one that is undone meanwhile never was.
#[derive(Debug)]
pub(super) struct ProcessState {
    pub(super) config: Arc<Process>,
    /// Whether it is taken for well; nothing before the first count.
    is_well: Option<bool>,
    /// Since when the count says otherwise.
    turning: Option<Instant>,
}

impl ProcessState {
    /// The process of a new configuration, with the state of `old`, the process of that name before,
    /// if that watched the same command.
    pub(super) fn new(config: Arc<Process>, old: Option<Self>) -> Self {
        match old {
            Some(old) if old.config.process == config.process => Self { config, ..old },
            _ => Self { config, is_well: None, turning: None },
        }
    }

    /// Takes in how many of each command run, if its own is among them.
    pub(super) fn counted(&mut self, counts: &BTreeMap<String, u32>, now: Instant) {
        let Some(count) = counts.get(&self.config.process) else { return };
        let has_enough = *count >= self.config.quorum;
        let is_well = *self.is_well.get_or_insert(has_enough);
        self.turning = (has_enough != is_well).then(|| self.turning.unwrap_or(now));
        self.tick(now);
    }

    /// Lets a change count that has lasted for long enough.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.next_deadline().is_some_and(|due| due <= now) {
            self.is_well = self.is_well.map(|well| !well);
            self.turning = None;
        }
    }

    /// When a change will have lasted for long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.turning.map(|since| since + self.config.delay)
    }

    /// How it is.
    pub(super) fn fact(&self) -> Fact {
        match self.is_well {
            None => Fact::Unknown,
            Some(true) => Fact::Well,
            Some(false) => Fact::Failed(match self.config.quorum {
                1 => format!("no {} is running", self.config.process),
                quorum => format!("fewer than {quorum} {} are running", self.config.process),
            }),
        }
    }
}
