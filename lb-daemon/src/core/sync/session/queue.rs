//! Changes on their way to the peer.

use std::{collections::VecDeque, time::Instant};

use super::{super::Change, limits::Limits};

/// Changes of one message.
#[derive(Debug)]
pub(super) struct Batch {
    /// When the first of them was read.
    pub(super) read: Instant,
    /// The changes, in their order.
    pub(super) changes: Vec<Change>,
}

/// Changes that are not sent yet, in their order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    changes: usize,
}

impl Queue {
    /// Adds what was read just now.
    ///
    /// # Errors
    ///
    /// If it is too much: the queue is empty then.
    pub(super) fn push(
        &mut self,
        changes: &[Change],
        limits: Limits,
        now: Instant,
    ) -> Result<(), Overflow> {
        self.changes += changes.len();
        if self.changes > limits.queue {
            *self = Self::default();
            return Err(Overflow);
        }
        for &change in changes {
            match self.batches.back_mut() {
                Some(batch) if batch.changes.len() < limits.batch => batch.changes.push(change),
                _ => self.batches.push_back(Batch { read: now, changes: vec![change] }),
            }
        }
        Ok(())
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.changes -= batch.changes.len();
        Some(batch)
    }

    /// All of them, the oldest first.
    pub(super) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.batches.iter().flat_map(|batch| &batch.changes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
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
