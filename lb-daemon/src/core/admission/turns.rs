//! In which order the lines of a service have their turn.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use super::queue::Queue;

/// The lines that are still to be asked, the one first whose first has waited for longest.
#[derive(Debug)]
pub(super) struct Turns {
    /// By the tickets of their firsts.
    heads: BinaryHeap<Reverse<(u64, Option<u16>)>>,
    /// Those that have had their turn, whoever has joined them since.
    over: BTreeSet<Option<u16>>,
}

impl Turns {
    /// All lines of a queue.
    pub(super) fn of(queue: &Queue) -> Self {
        Self { heads: queue.heads().map(Reverse).collect(), over: BTreeSet::new() }
    }

    /// The first of this line has left it: those behind have their turn, too.
    pub(super) fn keep(&mut self, bound: Option<u16>, queue: &Queue) {
        if let Some(first) = queue.first(bound) {
            self.heads.push(Reverse((first.ticket, bound)));
        }
    }

    /// This line has no turn any more.
    pub(super) fn end(&mut self, bound: Option<u16>) {
        self.over.insert(bound);
    }
}

impl Iterator for Turns {
    type Item = Option<u16>;

    /// The next line, which has no other turn unless it is [kept](Self::keep).
    fn next(&mut self) -> Option<Self::Item> {
        while let Some(Reverse((_, bound))) = self.heads.pop() {
            if !self.over.contains(&bound) {
                return Some(bound);
            }
        }
        None
    }
}
