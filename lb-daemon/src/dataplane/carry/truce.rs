//! Nobody is told that a connection does not exist while some are still on their way here.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use lb_common::maps::Lease;

use crate::dataplane::{
    leases::monotonic_now,
    mapped::{Access, Mapped},
    pins::Pins,
};

/// How long it lasts at most, in nanoseconds, should this process die meanwhile.
const AT_MOST: u64 = 3_000_000_000;

/// A time of grace for every group, and for what this host shares with nobody. It ends when this is
/// dropped.
pub(super) struct Truce {
    leases: Mapped<Lease>,
    /// What was there before and what was written, by number of the group; nothing where it lasts longer
    /// anyway.
    times: Vec<Option<(u64, u64)>>,
}

impl Truce {
    pub(super) fn begin(pins: &Pins) -> Result<Self> {
        let leases = Mapped::open(pins, "LEASES", Access::Change)?;
        let mut this = Self { leases, times: Vec::new() };
        let until = monotonic_now().saturating_add(AT_MOST);
        this.times = (0..this.leases.len())
            .map(|group| {
                let word = this.word(group)?;
                let before = word.fetch_max(until, Ordering::SeqCst);
                (before < until).then_some((before, until))
            })
            .collect();
        Ok(this)
    }

    fn word(&self, group: usize) -> Option<&AtomicU64> {
        let lease = self.leases.element(group)?.as_ptr();
        // SAFETY: an aligned word of a mapping that lives as long as `self`, only ever accessed
        // atomically.
        Some(unsafe { AtomicU64::from_ptr(&raw mut (*lease).grace) })
    }
}

impl Drop for Truce {
    fn drop(&mut self) {
        for (group, times) in self.times.iter().enumerate() {
            if let (Some(word), Some((before, until))) = (self.word(group), *times) {
                // Unless another grace has begun meanwhile.
                let _ = word.compare_exchange(until, before, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
    }
}
