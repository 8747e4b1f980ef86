//! Changes on their way to the peer.

use std::{collections::VecDeque, time::Instant};

use super::{
    super::{Change, Reported},
    ended::End,
    held::Held,
    limits::Limits,
};

/// Changes of one message.
#[derive(Debug)]
pub(super) struct Batch {
    /// When the first of them was reported.
    pub(super) since: Instant,
    /// The changes, in their order.
    pub(super) changes: Vec<Change>,
    /// What they have ended.
    pub(super) ended: Vec<End>,
    /// [End](Held::end) of the SYN-ACKs that wait for these changes or earlier ones.
    pub(super) held: u64,
}

/// Changes that are not sent yet, in their order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    changes: usize,
}

impl Queue {
    /// Adds what was read just now, and has the SYN-ACKs among it wait.
    ///
    /// # Errors
    ///
    /// If it is too much: the queue is empty then.
    pub(super) fn push(
        &mut self,
        changes: &[Reported],
        held: &mut Held,
        limits: Limits,
        now: Instant,
    ) -> Result<(), Overflow> {
        self.changes += changes.len();
        for reported in changes {
            let since = now.checked_sub(reported.age).unwrap_or(now);
            if matches!(reported.change, Change::Answered(_)) {
                held.push(since);
            }
            let batch = self.last(limits, since);
            batch.changes.push(reported.change);
            batch.ended.extend(End::of(reported));
            batch.held = held.end();
        }
        if self.changes > limits.queue {
            *self = Self::default();
            return Err(Overflow);
        }
        Ok(())
    }

    /// The batch that the next change goes into, which was reported then.
    fn last(&mut self, limits: Limits, since: Instant) -> &mut Batch {
        let has_room = |batch: &Batch| batch.changes.len() < limits.batch;
        if !self.batches.back().is_some_and(has_room) {
            let (changes, ended) = (Vec::new(), Vec::new());
            self.batches.push_back(Batch { since, changes, ended, held: 0 });
        }
        self.batches.back_mut().expect("one was pushed if there was none")
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.changes -= batch.changes.len();
        Some(batch)
    }

    /// What all of them have ended.
    pub(super) fn ended(&self) -> impl Iterator<Item = End> + '_ {
        self.batches.iter().flat_map(|batch| batch.ended.iter().copied())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// When the oldest change was reported.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.since)
    }

    /// How many changes there are.
    pub(super) const fn len(&self) -> usize {
        self.changes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// There was no room for all changes.
#[derive(Debug)]
pub(super) struct Overflow;
