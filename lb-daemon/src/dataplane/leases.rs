//! The groups' leases, where the program reads them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_common::maps::Lease;
use nix::time::{ClockId, clock_gettime};

use super::{
    mapped::{Access, Mapped},
    pins::Pins,
};
use crate::config::Peer;

/// Writes leases. A store to memory, so that nothing can hold it up.
pub struct Leases {
    words: Mapped<Lease>,
    grace: Arc<Grace>,
}

/// How long packets without a flow are dropped rather than answered after a takeover. Shared between
/// those who configure it and those who take over.
#[derive(Debug, Default)]
pub(super) struct Grace(AtomicU64);

impl Grace {
    /// What a peer makes it; none without one, for then nothing is to come.
    pub(super) fn of(peer: Option<&Peer>) -> Self {
        let this = Self::default();
        this.set(peer);
        this
    }

    /// The same from now on, for takeovers to come.
    pub(super) fn set(&self, peer: Option<&Peer>) {
        let grace = peer.map_or(Duration::ZERO, |peer| peer.grace);
        self.0.store(u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Leases {
    /// Maps them, and ends all that an earlier daemon may have left: whoever had them is gone.
    pub(super) fn open(pins: &Pins, grace: Arc<Grace>) -> Result<Self> {
        let mut this = Self { words: Mapped::open(pins, "LEASES", Access::Change)?, grace };
        for group in 0..this.words.len() {
            this.set(u16::try_from(group)?, None).context("no room for a lease")?;
        }
        Ok(this)
    }

    /// Sets until when the group with this number is served, or that it no longer is. Returns
    /// nothing if no group can have this number.
    ///
    /// Where a lease begins that had ended, so do its other times. They are written before its end:
    /// whoever finds it held finds them too.
    pub fn set(&mut self, group: u16, until: Option<Instant>) -> Option<()> {
        let lease = Words::of(&self.words, group)?;
        let end = until.map_or(0, monotonic);
        let now = monotonic_now();
        if end > now && lease.end.load(Ordering::SeqCst) <= now {
            let grace = self.grace.get();
            lease.since.store(now, Ordering::SeqCst);
            let until = if grace == 0 { 0 } else { now.saturating_add(grace) };
            lease.grace.store(until, Ordering::SeqCst);
        }
        lease.end.store(end, Ordering::SeqCst);
        Some(())
    }
}

/// The leases as the one who keeps the flows up to date with the peer's sees them.
pub(super) struct Held(Mapped<Lease>);

impl Held {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self(Mapped::open(pins, "LEASES", Access::Change)?))
    }

    /// Whether the group with this number is served now.
    pub(super) fn is_held(&self, group: u16) -> bool {
        let end = Words::of(&self.0, group).map_or(0, |lease| lease.end.load(Ordering::SeqCst));
        end > monotonic_now()
    }

    /// Has packets without a flow for this group answered from now on.
    pub(super) fn end_grace(&self, group: u16) {
        if let Some(lease) = Words::of(&self.0, group) {
            lease.grace.store(0, Ordering::SeqCst);
        }
    }
}

/// A lease in memory. `end` and `since` have one writer, the election; it begins a `grace` too, which
/// the thread that talks to the peer ends.
struct Words<'a> {
    end: &'a AtomicU64,
    since: &'a AtomicU64,
    grace: &'a AtomicU64,
}

impl<'a> Words<'a> {
    fn of(leases: &'a Mapped<Lease>, group: u16) -> Option<Self> {
        let lease = leases.element(group.into())?.as_ptr();
        // SAFETY: aligned words of a mapping that lives as long as the result, only ever accessed
        // atomically.
        unsafe {
            Some(Self {
                end: AtomicU64::from_ptr(&raw mut (*lease).end),
                since: AtomicU64::from_ptr(&raw mut (*lease).since),
                grace: AtomicU64::from_ptr(&raw mut (*lease).grace),
            })
        }
    }
}

/// Now, on the clock that the program reads, in nanoseconds.
pub(super) fn monotonic_now() -> u64 {
    monotonic(Instant::now())
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
