//! The groups' leases, where the program reads them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_common::maps::Lease;
use nix::time::{ClockId, clock_gettime};

use super::{
    mapped::{Access, Mapped},
    pins::Pins,
};

/// Writes leases. A store to memory, so that nothing can hold it up.
pub struct Leases(Mapped<Lease>);

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
        // SAFETY: aligned words of a live mapping, only ever accessed atomically.
        let word = unsafe { AtomicU64::from_ptr(&raw mut (*element.as_ptr()).end) };
        word.store(until.map_or(0, monotonic), Ordering::SeqCst);
        Some(())
    }
}

/// A time on the clock that the program reads, in nanoseconds.
fn monotonic(when: Instant) -> u64 {
    // Never fails with this clock.
    on_clock(when, || {
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
    })
}

/// The clock is read before the time that is left: who is held up between the two makes the lease
/// shorter by that, never longer.
fn on_clock(when: Instant, read: impl FnOnce() -> Duration) -> u64 {
    let now = read();
    let left = when.saturating_duration_since(Instant::now());
    u64::try_from((now + left).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_held_up_while_a_lease_is_written_does_not_prolong_it() {
        let held_up = Duration::from_millis(50);
        let until = Instant::now() + Duration::from_secs(1);
        // Not before its time on that clock, in whatever way these two lines are held up.
        let left = until.saturating_duration_since(Instant::now());
        let clock = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        let most = u64::try_from((left + clock()).as_nanos()).unwrap();
        let end = on_clock(until, || {
            std::thread::sleep(held_up);
            clock()
        });
        assert!(end <= most, "ends {} ns later", end - most);
    }
}
