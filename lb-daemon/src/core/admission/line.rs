//! One line of those that wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Caller, Frame};

/// A SYN that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its place among all that ever waited: the lowest has waited for longest.
    pub(super) ticket: u64,
    pub(super) caller: Caller,
    pub(super) frame: Frame,
    pub(super) since: Instant,
}

/// Those that wait for the same, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<Waiting>,
    /// Most that ever waited at once.
    most: usize,
}

impl Line {
    /// Takes one in, at the place that its ticket gives it.
    pub(super) fn enter(&mut self, one: Waiting) {
        let place = self.place(one.ticket);
        self.waiting.insert(place, one);
        self.most = self.most.max(self.waiting.len());
    }

    /// Whoever has this ticket waits with this frame from now on, and keeps the place.
    pub(super) fn replace(&mut self, ticket: u64, frame: Frame) {
        let place = self.place(ticket);
        if let Some(one) = self.waiting.get_mut(place).filter(|one| one.ticket == ticket) {
            one.frame = frame;
        }
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<&Waiting> {
        self.waiting.front()
    }

    pub(super) fn take_first(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    /// Takes the first if it has waited for as long as one may.
    pub(super) fn take_late(&mut self, timeout: Duration, now: Instant) -> Option<Waiting> {
        let is_late = now.saturating_duration_since(self.first()?.since) >= timeout;
        if is_late { self.take_first() } else { None }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) const fn most(&self) -> usize {
        self.most
    }

    fn place(&self, ticket: u64) -> usize {
        self.waiting.partition_point(|other| other.ticket < ticket)
    }
}
