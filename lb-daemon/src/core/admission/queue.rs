//! Who waits for one service.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    Frame, QueueView, Rules,
    line::{Line, Waiting},
};

/// The lines of one service, and what has become of those that were in them.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) rules: Rules,
    /// By the only backend that its SYNs may go to; none if that may be any.
    lines: BTreeMap<Option<u16>, Line>,
    /// How many wait, in all lines.
    length: usize,
    /// Most that ever waited at once.
    most: usize,
    queued: u64,
    timed_out: u64,
    pub(super) refused: u64,
}

impl Queue {
    pub(super) const fn new(rules: Rules) -> Self {
        let lines = BTreeMap::new();
        Self { rules, lines, length: 0, most: 0, queued: 0, timed_out: 0, refused: 0 }
    }

    /// Takes in one that has just come.
    pub(super) fn join(&mut self, bound: Option<u16>, one: Waiting) {
        self.queued += 1;
        self.enter(bound, one);
    }

    /// Takes one in at the place that its ticket gives it.
    pub(super) fn enter(&mut self, bound: Option<u16>, one: Waiting) {
        self.lines.entry(bound).or_default().enter(one);
        self.length += 1;
        self.most = self.most.max(self.length);
    }

    /// Whoever has this ticket waits with this frame from now on, and keeps the place.
    pub(super) fn replace(&mut self, bound: Option<u16>, ticket: u64, frame: Frame) {
        if let Some(line) = self.lines.get_mut(&bound) {
            line.replace(ticket, frame);
        }
    }

    pub(super) fn first(&self, bound: Option<u16>) -> Option<&Waiting> {
        self.lines.get(&bound)?.first()
    }

    pub(super) fn take_first(&mut self, bound: Option<u16>) -> Option<Waiting> {
        let first = self.lines.get_mut(&bound)?.take_first()?;
        self.length -= 1;
        Some(first)
    }

    /// Takes all that have waited for as long as one may, and tells whom each was bound to. `take` says whether
    /// they have waited in vain.
    pub(super) fn take_late(
        &mut self,
        now: Instant,
        mut take: impl FnMut(Option<u16>, Waiting) -> bool,
    ) {
        for (bound, line) in &mut self.lines {
            while let Some(late) = line.take_late(self.rules.timeout, now) {
                self.length -= 1;
                self.timed_out += u64::from(take(*bound, late));
            }
        }
    }

    /// Takes everybody.
    pub(super) fn take_all(&mut self, mut take: impl FnMut(Option<u16>, Waiting)) {
        for (bound, line) in &mut self.lines {
            while let Some(one) = line.take_first() {
                self.length -= 1;
                take(*bound, one);
            }
        }
    }

    /// Forgets the lines where nobody waits, of numbers that no backend has any more: they may be given to
    /// others.
    pub(super) fn tidy(&mut self) {
        let members = &self.rules.members;
        let is_member = |bound: &Option<u16>| bound.is_none_or(|number| members.contains(&number));
        self.lines.retain(|bound, line| line.len() != 0 || is_member(bound));
    }

    /// The lines where somebody waits, each with the ticket of its first.
    pub(super) fn heads(&self) -> impl Iterator<Item = (u64, Option<u16>)> {
        self.lines.iter().filter_map(|(bound, line)| Some((line.first()?.ticket, *bound)))
    }

    /// How many wait, in all lines.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// How many wait in this line.
    pub(super) fn len_of(&self, bound: Option<u16>) -> usize {
        self.lines.get(&bound).map_or(0, Line::len)
    }

    /// Whether as many are in this line as may be.
    pub(super) fn is_full(&self, bound: Option<u16>) -> bool {
        let room = match bound {
            Some(backend) => self.rules.rooms.get(&backend).copied(),
            None => self.rules.room,
        };
        room.is_some_and(|room| self.len_of(bound) >= room)
    }

    /// Since when somebody waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lines.values().filter_map(|line| Some(line.first()?.since)).min()
    }

    pub(super) fn view(&self, now: Instant) -> QueueView {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let bound = self
            .lines
            .iter()
            .filter_map(|(bound, line)| Some(((*bound)?, (count(line.len()), count(line.most())))));
        let oldest = self.oldest().map(|since| now.saturating_duration_since(since));
        QueueView {
            waiting: count(self.length),
            most: count(self.most),
            bound: bound.collect(),
            queued: self.queued,
            timed_out: self.timed_out,
            refused: self.refused,
            oldest: oldest.unwrap_or(Duration::ZERO),
        }
    }
}
