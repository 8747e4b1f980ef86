//! The groups' leases, where the program reads them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

use super::{
    mapped::{Access, Mapped},
    pins::Pins,
};

/// Writes leases. A store to memory, so that nothing can hold it up.
pub struct Leases(Mapped<u64>);

impl Leases {
    /// Maps them, and ends all that an earlier daemon may have left: whoever had them is gone.
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let mut this = Self(Mapped::open(pins, "LEASES", Access::Change)?);
        for group in 0..this.0.len() {
            this.set(u16::try_from(group)?, None).context("no room for a lease")?;
        }
        Ok(this)
    }

    /// Sets until when the group with this number is served, or that it no longer is. Returns
    /// nothing if no group can have this number.
    pub fn set(&mut self, group: u16, until: Option<Instant>) -> Option<()> {
        let element = self.0.element(group.into())?;
        // SAFETY: an aligned word of a live mapping, only ever accessed atomically.
        let word = unsafe { AtomicU64::from_ptr(element.as_ptr()) };
        word.store(until.map_or(0, monotonic), Ordering::SeqCst);
        Some(())
    }
}

/// The time on the clock that the program reads, in nanoseconds.
fn monotonic(when: Instant) -> u64 {
    let left = when.saturating_duration_since(Instant::now());
    // Never fails with this clock.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from((now + left).as_nanos()).unwrap_or(u64::MAX)
}
