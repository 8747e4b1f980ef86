//! Changes on their way to the peer.

use std::{collections::VecDeque, time::Instant};

use super::{super::Change, held::Held, limits::Limits};

/// Changes of one message.
#[derive(Debug)]
pub(super) struct Batch {
    /// When the first of them was read.
    pub(super) read: Instant,
    /// The changes, in their order.
    pub(super) changes: Vec<Change>,
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
        changes: &[Change],
        held: &mut Held,
        limits: Limits,
        now: Instant,
    ) -> Result<(), Overflow> {
        self.changes += changes.len();
        for &change in changes {
            if matches!(change, Change::Answered(_)) {
                held.push(now);
            }
            match self.batches.back_mut() {
                Some(batch) if batch.changes.len() < limits.batch => {
                    batch.changes.push(change);
                    batch.held = held.end();
                }
                _ => {
                    let (changes, held) = (vec![change], held.end());
                    self.batches.push_back(Batch { read: now, changes, held });
                }
            }
        }
        if self.changes > limits.queue {
            *self = Self::default();
            return Err(Overflow);
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

    /// When the oldest change was read.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.read)
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
