//! What became of sessions.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};

/// What became of sessions up to now.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many there were in all.
    pub sessions: usize,
    /// How many ended although nobody had closed them, by the kind of the error and that of the
    /// session, such as `ConnectionReset (idle)`; `Silent` are those on which nothing more came.
    pub lost: BTreeMap<String, usize>,
    /// Bytes that came and were others than those sent.
    pub corrupted: u64,
    /// The longest time that each active session waited for the echo of a record since this was last
    /// asked for, those that were lost not among them; the shortest first.
    pub stalls: Vec<Duration>,
}

impl Outcome {
    /// How many were lost.
    pub fn lost(&self) -> usize {
        self.lost.values().sum()
    }

    /// Fails unless all are well.
    pub fn none_lost(&self) -> Result<()> {
        let Self { sessions, lost, corrupted, .. } = self;
        ensure!(lost.is_empty(), "of {sessions} sessions {} were lost: {lost:?}", self.lost());
        ensure!(*corrupted == 0, "{corrupted} bytes are not those that were sent");
        Ok(())
    }

    /// The stall in the middle of all; none if there were no active sessions.
    pub fn median_stall(&self) -> Option<Duration> {
        self.stalls.get(self.stalls.len() / 2).copied()
    }

    /// The longest stall.
    pub fn longest_stall(&self) -> Option<Duration> {
        self.stalls.last().copied()
    }
}
