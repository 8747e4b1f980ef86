//! How the handshakes with backends end: what the program counts of them, and by what limit it raises
//! an alarm.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use lb_common::maps::Handshakes;

use super::{
    mapped::{Access, Mapped},
    pins::Pins,
};

/// The program's counts, where it keeps them.
pub(super) struct HandshakeCounts(Mapped<Handshakes>);

/// Those of one backend.
struct Words<'a> {
    failed: &'a AtomicU64,
    in_a_row: &'a AtomicU64,
    limit: &'a AtomicU64,
    alarms: &'a AtomicU64,
}

impl HandshakeCounts {
    pub(super) fn open(pins: &Pins, access: Access) -> Result<Self> {
        Ok(Self(Mapped::open(pins, "HANDSHAKES", access)?))
    }

    /// How many have failed.
    pub(super) fn failed(&self, backend: u16) -> u64 {
        self.words(backend).map_or(0, |words| words.failed.load(Ordering::Relaxed))
    }

    /// Sets how many in a row are an alarm, if any number is. Only with [`Access::Change`].
    pub(super) fn set_limit(&self, backend: u16, limit: Option<u32>) {
        if let Some(words) = self.words(backend) {
            words.limit.store(limit.unwrap_or(0).into(), Ordering::Relaxed);
        }
    }

    /// Begins anew, for another backend of the same number. Only with [`Access::Change`].
    pub(super) fn reset(&self, backend: u16) {
        if let Some(words) = self.words(backend) {
            words.failed.store(0, Ordering::Relaxed);
            words.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    fn words(&self, backend: u16) -> Option<Words<'_>> {
        let counts = self.0.element(backend.into())?.as_ptr();
        // SAFETY: aligned words within a mapping that is there as long as `self`, and that the
        // program changes atomically.
        unsafe {
            Some(Words {
                failed: AtomicU64::from_ptr(&raw mut (*counts).failed),
                in_a_row: AtomicU64::from_ptr(&raw mut (*counts).in_a_row),
                limit: AtomicU64::from_ptr(&raw mut (*counts).limit),
                alarms: AtomicU64::from_ptr(&raw mut (*counts).alarms),
            })
        }
    }
}

/// Sees the program's alarms. A look at a backend is one read from memory.
pub struct Alarms {
    counts: HandshakeCounts,
    /// How many there had been at the last look, by the backend's number.
    seen: BTreeMap<u16, u64>,
}

impl Alarms {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self { counts: HandshakeCounts::open(pins, Access::Read)?, seen: BTreeMap::new() })
    }

    /// How many alarms there were of each of these backends since the last look; those with none are
    /// left out. What was before the first look at a backend is nobody's business any more.
    pub fn look(&mut self, backends: impl IntoIterator<Item = u16>) -> BTreeMap<u16, u64> {
        let before = std::mem::take(&mut self.seen);
        let mut news = BTreeMap::new();
        for number in backends {
            let Some(words) = self.counts.words(number) else { continue };
            let alarms = words.alarms.load(Ordering::Relaxed);
            self.seen.insert(number, alarms);
            let more = before.get(&number).map_or(0, |before| alarms.wrapping_sub(*before));
            if more != 0 {
                news.insert(number, more);
            }
        }
        news
    }
}
