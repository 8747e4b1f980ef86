//! Making the program's counts right again, should they have gone wrong: they follow every change,
//! so an error that once got into them would stay for good.
//!
//! The table is walked while packets change it, so what a walk finds and what is counted differ a
//! little, now to one side and now to the other. An error stays. So it is walked several times, and
//! a count is corrected by what it was off by in all of them. That is once, at the start: a second
//! walk is needed only if the first finds a difference at all.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use lb_common::{
    addr::{V4, V6},
    flow::{DEAD, is_closed, is_half_open, state},
    maps::{BackendState, MAX_BACKENDS, MAX_SERVICES, ServiceState, TableState},
};

use super::{
    family::Family,
    mapped::{Access, Mapped},
    pins::Pins,
    table::FlowTable,
};

/// How many walks must find a difference to the same side. By chance that happens to a busy count
/// once in tens of thousands of starts.
const WALKS: u32 = 16;

/// A count that the program keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// Connections in a family's table, by its index in `TABLES`.
    Connections(u32),
    /// Half-open connections of a family.
    HalfOpen(u32),
    /// Connections of the backend with this number that are not closed.
    Active(u16),
    /// Connections of the service with this number that are not closed.
    ActiveOfService(u16),
}

/// Counts that were wrong, and by how much each was too high.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift(pub BTreeMap<Count, i64>);

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (count, by)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            match count {
                Count::Connections(table) => write!(f, "{separator}connections of table {table}")?,
                Count::HalfOpen(table) => write!(f, "{separator}half open of table {table}")?,
                Count::Active(number) => write!(f, "{separator}active of backend {number}")?,
                Count::ActiveOfService(number) => {
                    write!(f, "{separator}active of service {number}")?;
                }
            }
            write!(f, " by {by:+}")?;
        }
        Ok(())
    }
}

/// The counts, where the program keeps them.
pub(super) struct Counts {
    tables: Mapped<TableState>,
    backends: Mapped<BackendState>,
    services: Mapped<ServiceState>,
}

impl Counts {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            tables: Mapped::open(pins, "TABLES", Access::Change)?,
            backends: Mapped::open(pins, "BACKEND_STATE", Access::Change)?,
            services: Mapped::open(pins, "SERVICE_STATE", Access::Change)?,
        })
    }

    /// Compares the counts with the tables and corrects them; says what was wrong.
    pub(super) fn correct(&self, v4: &FlowTable<V4>, v6: &FlowTable<V6>) -> Drift {
        let mut drift = Drift(self.differences(v4, v6));
        for _ in 1..WALKS {
            if drift.0.is_empty() {
                return drift;
            }
            let now = self.differences(v4, v6);
            drift.0.retain(|count, by| {
                let now = now.get(count).copied().unwrap_or(0);
                let same_side = now.signum() == by.signum();
                if now.abs() < by.abs() {
                    *by = now;
                }
                same_side
            });
        }
        for (count, by) in &drift.0 {
            if let Some(word) = self.word(*count) {
                word.fetch_sub(by.cast_unsigned(), Ordering::SeqCst);
            }
        }
        drift
    }

    /// By how much each count is higher than what a walk finds.
    fn differences(&self, v4: &FlowTable<V4>, v6: &FlowTable<V6>) -> BTreeMap<Count, i64> {
        let before = self.read();
        let mut found = BTreeMap::new();
        tally(v4, &mut found);
        tally(v6, &mut found);
        let after = self.read();
        let mut differences = BTreeMap::new();
        for (count, before) in before {
            let (low, high) = (before.min(after[&count]), before.max(after[&count]));
            let found = found.get(&count).copied().unwrap_or(0);
            // What changed during the walk may or may not have been seen by it.
            let difference = found.clamp(low, high) - found;
            if difference != 0 {
                differences.insert(count, difference);
            }
        }
        differences
    }

    fn read(&self) -> BTreeMap<Count, i64> {
        let tables = [V4::TABLE, V6::TABLE].into_iter();
        let backends = (0..=u16::MAX).take(MAX_BACKENDS as usize).map(Count::Active);
        let services = (0..=u16::MAX).take(MAX_SERVICES as usize).map(Count::ActiveOfService);
        tables
            .flat_map(|table| [Count::Connections(table), Count::HalfOpen(table)])
            .chain(backends)
            .chain(services)
            .filter_map(|count| {
                Some((count, self.word(count)?.load(Ordering::SeqCst).cast_signed()))
            })
            .collect()
    }

    fn word(&self, count: Count) -> Option<&AtomicU64> {
        // SAFETY: aligned words within mappings that are there as long as `self`, and that the
        // program changes atomically.
        unsafe {
            let word = match count {
                Count::Connections(table) => {
                    &raw mut (*self.tables.element(table as usize)?.as_ptr()).connections
                }
                Count::HalfOpen(table) => {
                    &raw mut (*self.tables.element(table as usize)?.as_ptr()).half_open
                }
                Count::Active(number) => {
                    &raw mut (*self.backends.element(number.into())?.as_ptr()).active
                }
                Count::ActiveOfService(number) => {
                    &raw mut (*self.services.element(number.into())?.as_ptr()).active
                }
            };
            Some(AtomicU64::from_ptr(word))
        }
    }
}

/// Counts the connections of a table.
fn tally<A: Family>(table: &FlowTable<A>, found: &mut BTreeMap<Count, i64>) {
    let mut add = |count| *found.entry(count).or_default() += 1;
    for (_, flow) in table.entries().filter(|(_, flow)| flow.is_forward()) {
        let state = state(flow.life);
        // One that is dead has left the other counts, but is there until its place is free.
        add(Count::Connections(A::TABLE));
        if state & DEAD == 0 && is_half_open(state) {
            add(Count::HalfOpen(A::TABLE));
        }
        if state & DEAD == 0 && !is_closed(state) {
            add(Count::Active(flow.backend));
            add(Count::ActiveOfService(flow.service));
        }
    }
}
