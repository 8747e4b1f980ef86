//! When a master's addresses are announced to the neighbours once more.

use std::time::{Duration, Instant};

use crate::config::Announce;

/// The announcements that a master still owes.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// When they were last made.
    last: Option<Instant>,
    /// When all are repeated: some time after taking over, or since another host announced them.
    repeat: Option<Instant>,
    /// When they are refreshed.
    refresh: Option<Instant>,
}

impl Announcements {
    /// Says how often each address is announced now, and plans what follows
    /// (`garp_master_repeat`, `garp_master_delay`, `garp_master_refresh`).
    pub(super) fn begin(&mut self, config: &Announce, now: Instant) -> u32 {
        let soon = (!config.delay.is_zero()).then(|| now + config.delay);
        *self = Self { last: Some(now), repeat: soon, refresh: next_refresh(config, now) };
        config.repeat
    }

    /// Has everything announced again as soon as that was not done within `pause`: someone else
    /// announced the addresses, and may do so with every advert.
    pub(super) fn hurry(&mut self, pause: Duration, now: Instant) {
        let at = self.last.map_or(now, |last| now.max(last + pause));
        self.repeat = Some(self.repeat.map_or(at, |planned| planned.min(at)));
    }

    /// How often each address is to be announced, if that is due.
    pub(super) fn due(&mut self, config: &Announce, now: Instant) -> Option<u32> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let times = match (is_due(self.repeat), is_due(self.refresh)) {
            (true, _) => config.repeat,
            (false, true) => config.refresh_repeat,
            (false, false) => return None,
        };
        if is_due(self.repeat) {
            self.repeat = None;
        }
        self.last = Some(now);
        self.refresh = next_refresh(config, now);
        Some(times)
    }

    /// Puts another configuration in force.
    pub(super) fn reconfigure(&mut self, config: &Announce, now: Instant) {
        self.refresh = next_refresh(config, self.last.unwrap_or(now));
    }

    /// When [`due`](Self::due) is to be asked next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.repeat.into_iter().chain(self.refresh).min()
    }
}

fn next_refresh(config: &Announce, from: Instant) -> Option<Instant> {
    (!config.refresh.is_zero()).then(|| from + config.refresh)
}
