//! How long this host has been without the peer's connections.

use std::time::{Duration, Instant};

/// Since when the tables have not been whole. Of no meaning while they are.
#[derive(Debug)]
pub(super) struct Readiness {
    since: Instant,
    /// Whether they were whole when the last conversation ended.
    was_whole: bool,
}

impl Readiness {
    /// A daemon starts.
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, was_whole: false }
    }

    /// A conversation has ended. One in which the tables never were whole changes nothing, so that the
    /// wait is bounded however often the peer comes and goes.
    pub(super) const fn ends(&mut self, is_whole: bool, now: Instant) {
        self.was_whole = is_whole;
        if is_whole {
            self.since = now;
        }
    }

    /// The tables of a conversation are whole no longer.
    pub(super) const fn breaks(&mut self, now: Instant) {
        self.since = now;
    }

    pub(super) const fn was_whole(&self) -> bool {
        self.was_whole
    }

    pub(super) fn has_waited(&self, wait: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= wait
    }

    /// How much of the wait is left.
    pub(super) fn left(&self, wait: Duration, now: Instant) -> Duration {
        wait.saturating_sub(now.saturating_duration_since(self.since))
    }
}
