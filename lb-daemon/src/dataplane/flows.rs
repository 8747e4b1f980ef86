//! The connections of both flow tables, one by one, for whoever wants to see them.

use std::{ops::ControlFlow, time::Duration};

use anyhow::Result;
use lb_common::{
    addr::{V4, V6},
    flow::{self, ADOPTED, DEAD, age, born, ticks},
};
use nix::time::{ClockId, clock_gettime};

use super::{
    family::{Family, join},
    pins::Pins,
    table::FlowTable,
};
use crate::core::Flow;

/// Where the flow tables are; opened anew for each walk, as mapping a large one takes a while.
#[derive(Clone, Debug)]
pub struct Flows {
    pins: Pins,
}

impl Flows {
    pub(super) fn new(pins: Pins) -> Self {
        Self { pins }
    }

    /// Shows every connection to `visit`, IPv4 first, until that has seen enough. Those that begin or
    /// end meanwhile may or may not be among them. It takes a while, and blocks.
    ///
    /// # Errors
    ///
    /// If the tables cannot be opened.
    pub fn walk(&self, visit: &mut dyn FnMut(Flow) -> ControlFlow<()>) -> Result<()> {
        if self.walk_family::<V4>(visit)?.is_continue() {
            let _ = self.walk_family::<V6>(visit)?;
        }
        Ok(())
    }

    fn walk_family<A: Family>(
        &self,
        visit: &mut dyn FnMut(Flow) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let table = FlowTable::<A>::open(&self.pins, A::FLOWS)?;
        // A walk may take longer than a connection lives, so each is as old as it is now.
        for (_, forward) in table.entries() {
            if !forward.is_forward() || flow::state(forward.life) & DEAD != 0 {
                continue;
            }
            let reverse = table.entry(forward.pair);
            let reverse = reverse.filter(|reverse| born(reverse.life) == born(forward.life));
            // One that is just being opened has no other direction yet.
            let Some(reverse) = reverse else { continue };
            let now = now()?;
            let idle = |last_seen| duration(age(ticks(now), last_seen));
            let seen = Flow {
                client: join(forward.key.src, forward.key.sport),
                bind: join(forward.key.dst, forward.key.dport),
                source: join(forward.to.src, forward.to.sport),
                server: join(forward.to.dst, forward.to.dport),
                service: forward.service,
                backend: forward.backend,
                state: flow::state(forward.life),
                client_idle: idle(forward.last_seen),
                server_idle: idle(reverse.last_seen),
                age: Duration::from_nanos(now.saturating_sub(born(forward.life))),
                adopted: forward.flags & ADOPTED != 0,
            };
            if visit(seen).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The program's clock, in nanoseconds.
fn now() -> Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(now.as_nanos())?)
}

/// So many ticks, as time.
fn duration(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) << 20)
}
