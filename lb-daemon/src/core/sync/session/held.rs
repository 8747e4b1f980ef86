//! SYN-ACKs that wait until the peer knows of their connections.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::limits::Limits;

/// After one was held, changes are in a hurry for this long: a client waits for each.
const HURRY: Duration = Duration::from_secs(1);

/// The SYN-ACKs that the tables hold back, in the order in which they were read. They are numbered from
/// zero on, through all conversations.
///
/// Whoever is released is told to the tables by how many it are: always the oldest.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Since when each is held.
    waiting: VecDeque<Instant>,
    /// Number of the oldest.
    first: u64,
    /// Nobody will acknowledge those before this number.
    lapsed: u64,
    /// Since when the last one is held.
    last: Option<Instant>,
    /// Whether the program is to hold any.
    is_on: bool,
}

impl Held {
    /// Another one was read, which is held since then.
    pub(super) fn push(&mut self, since: Instant) {
        self.waiting.push_back(since);
        self.last = Some(since);
    }

    /// The number that the next one gets. Whoever has told the peer of all that were read has told of
    /// those before it.
    pub(super) fn end(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// Takes those before this number. Returns how many those were.
    pub(super) fn take_before(&mut self, end: u64) -> usize {
        let count = usize::try_from(end.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.take(count)
    }

    /// The conversation has ended: nobody will acknowledge those that wait.
    pub(super) fn lapse(&mut self) {
        self.lapsed = self.end();
    }

    /// Takes those that wait in vain, that have waited for as long as one may, or for which there is no
    /// room.
    pub(super) fn take_late(&mut self, limits: Limits, now: Instant) -> usize {
        let is_late = |since: &&Instant| now.saturating_duration_since(**since) >= limits.hold;
        let late = self.waiting.iter().take_while(is_late).count();
        let lapsed = usize::try_from(self.lapsed.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.take(late.max(lapsed).max(self.waiting.len().saturating_sub(limits.held)))
    }

    /// Takes all.
    pub(super) fn take_all(&mut self) -> usize {
        self.take(self.waiting.len())
    }

    fn take(&mut self, count: usize) -> usize {
        let count = count.min(self.waiting.len());
        self.waiting.drain(..count);
        self.first += count as u64;
        count
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether any are to be held from now on, given how long the oldest change has been waiting that the
    /// peer has not acknowledged; nothing if nobody is told of changes. A peer for which one had to wait
    /// for too long has to catch up before any wait for it again.
    pub(super) fn decide(&mut self, behind: Option<Duration>, limits: Limits) -> bool {
        self.is_on = match behind {
            Some(behind) if self.is_on => behind < limits.hold,
            Some(behind) => behind < limits.hold / 4,
            None => false,
        };
        self.is_on
    }

    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether changes are to be told at once rather than many in a message.
    pub(super) fn is_in_a_hurry(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) < HURRY)
    }

    /// When the oldest has waited for as long as it may.
    pub(super) fn next_deadline(&self, limits: Limits) -> Option<Instant> {
        let patience = if self.lapsed > self.first { Duration::ZERO } else { limits.hold };
        self.waiting.front().map(|&since| since + patience)
    }
}
