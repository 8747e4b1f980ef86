//! What the program reports of connections.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, RingBuf};
use lb_common::{
    addr::{V4, V6},
    flow::{
        self, CHANGE_ANSWERED, CHANGE_CLOSED, CHANGE_ESTABLISHED, CHANGE_GONE, CHANGE_HALF_CLOSED,
        CHANGE_SILENT, ESTABLISHED, HELD, RELEASED, born, is_shared, state,
    },
    hold::Held,
    maps::TableState,
};

use super::{
    held::HeldFrames,
    tuple::{Keys, connection},
};
use crate::{
    core::sync::{Change, Reported},
    dataplane::{
        family::Family,
        leases::monotonic_now,
        mapped::{Access, Mapped},
        pins::Pins,
        table::FlowTable,
    },
};

/// The reports, the oldest first, and how many could not be made.
pub(super) struct Reports {
    ring: RingBuf<MapData>,
    tables: Mapped<TableState>,
    /// How many were lost when that was last asked.
    lost: u64,
}

impl Reports {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let mut this = Self {
            ring: pins.open("CHANGES")?,
            tables: Mapped::open(pins, "TABLES", Access::Read)?,
            lost: 0,
        };
        // What was lost before is nothing to this reader.
        this.lost = this.lost();
        Ok(this)
    }

    /// Readable when there is something to take.
    pub(super) fn wake(&self) -> Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned().context("no more files can be opened")
    }

    /// Takes up to `limit` reports, and the frames that were handed over with them.
    pub(super) fn take(
        &mut self,
        limit: usize,
        v4: &FlowTable<V4>,
        v6: &FlowTable<V6>,
        held: &mut HeldFrames,
        into: &mut Vec<Reported>,
    ) -> Result<()> {
        let now = monotonic_now();
        for _ in 0..limit {
            let Some(report) = self.ring.next() else { break };
            let reported = match report.len() {
                size if size == size_of::<flow::Change<V4>>() => told(&read(&report), v4, now),
                size if size == size_of::<flow::Change<V6>>() => told(&read(&report), v6, now),
                size if size == size_of::<Held<V4>>() => answer(&report, v4, now, held),
                size if size == size_of::<Held<V6>>() => answer(&report, v6, now, held),
                size => bail!("the program reports a change in {size} bytes"),
            };
            into.extend(reported);
        }
        Ok(())
    }

    /// Whether some were lost since this was last asked.
    pub(super) fn has_lost(&mut self) -> bool {
        let lost = self.lost();
        std::mem::replace(&mut self.lost, lost) != lost
    }

    fn lost(&self) -> u64 {
        let tables = (0..self.tables.len()).filter_map(|table| self.tables.element(table));
        // SAFETY: aligned words of a mapping that lives as long as `self`, which the program too
        // changes atomically.
        let words = tables.map(|it| unsafe {
            AtomicU64::from_ptr(&raw mut (*it.as_ptr()).unreported).load(Ordering::Relaxed)
        });
        words.fold(0, u64::wrapping_add)
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// A report as it lies in the ring: a change, or a frame with one.
fn read<R: Report>(bytes: &[u8]) -> R {
    assert_eq!(bytes.len(), size_of::<R>(), "asked by who calls this");
    // SAFETY: plain words of which every bit pattern is valid, as many bytes as there are.
    unsafe { bytes.as_ptr().cast::<R>().read_unaligned() }
}

/// What lies in the ring.
trait Report: Copy {}
impl<A: Family> Report for flow::Change<A> {}
impl<A: Family> Report for Held<A> {}

/// What the peer is to be told of a connection whose backend has answered, while the answer is held.
/// Nothing, and nothing is held, if that connection is over already.
fn answer<A: Family>(
    report: &[u8],
    flows: &FlowTable<A>,
    now: u64,
    held: &mut HeldFrames,
) -> Option<Reported> {
    let frame: Held<A> = read(report);
    let answered = told(&frame.change, flows, now)?;
    held.push(&frame);
    Some(answered)
}

/// What the peer is to be told, with its age at the time `now`.
fn told<A: Family>(report: &flow::Change<A>, flows: &FlowTable<A>, now: u64) -> Option<Reported> {
    let age = Duration::from_nanos(now.saturating_sub(report.at));
    let is_silence = report.what == CHANGE_SILENT;
    let was_answered =
        report.what != CHANGE_ANSWERED && state(report.life) & (HELD | RELEASED) != 0;
    Some(Reported { change: change(report, flows)?, age, is_silence, was_answered })
}

fn change<A: Family>(report: &flow::Change<A>, flows: &FlowTable<A>) -> Option<Change> {
    let keys = Keys { forward: report.key, reverse: report.reverse };
    if matches!(report.what, CHANGE_GONE | CHANGE_SILENT) {
        return Some(Change::Gone(keys.tuple()));
    }
    let entry = flows.entry(report.place).filter(|flow| {
        let is_same = born(flow.life) == born(report.life) && Keys::of(flow) == keys;
        flow.is_forward() && is_same
    });
    match entry {
        Some(flow) if report.what == CHANGE_ANSWERED => Some(Change::Answered(connection(&flow))),
        // Both sides close within a moment, as a rule, and that is reported next.
        Some(flow) if report.what == CHANGE_HALF_CLOSED && !is_shared(state(flow.life)) => None,
        // It was refused before it was established.
        Some(flow) if report.what == CHANGE_CLOSED && state(flow.life) & ESTABLISHED == 0 => {
            Some(Change::Gone(keys.tuple()))
        }
        // It may have come further meanwhile. That is reported too, and does no harm twice.
        Some(flow) => Some(Change::Is(connection(&flow))),
        // Its end is reported next.
        None if matches!(
            report.what,
            CHANGE_ANSWERED | CHANGE_ESTABLISHED | CHANGE_HALF_CLOSED
        ) =>
        {
            None
        }
        // Closed, and its place is free already or another one's.
        None => Some(Change::Gone(keys.tuple())),
    }
}
