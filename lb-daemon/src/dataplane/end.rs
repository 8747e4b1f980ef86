//! Ending connections before their time.

use anyhow::{Context as _, Result};
use aya::{Ebpf, programs::Xdp};
use lb_common::{
    addr::{V4, V6},
    flow::{DEAD, state},
    maps::REAP_ANYWAY,
};

use super::{family::Family, pins::Pins, reap::reap, table::FlowTable};

/// Ends connections that have not expired. The peer, if there is one, is told.
pub struct Ender {
    ebpf: Ebpf,
    v4: FlowTable<V4>,
    v6: FlowTable<V6>,
}

impl Ender {
    pub(super) const PROGRAMS: [&'static str; 2] = [V4::REAP, V6::REAP];

    pub(super) fn open(pins: &Pins, ebpf: Ebpf) -> Result<Self> {
        let (v4, v6) = (FlowTable::open(pins, V4::FLOWS)?, FlowTable::open(pins, V6::FLOWS)?);
        Ok(Self { ebpf, v4, v6 })
    }

    /// Ends all connections of the backend with this number, half-open ones included; returns how
    /// many those were. Neither side is told: what comes next is answered as any packet without a
    /// connection is. Walks both tables, so it takes a while.
    ///
    /// # Errors
    ///
    /// If the program that does it cannot be run.
    pub fn end_backend(&self, number: u16) -> Result<u64> {
        Ok(self.end(&self.v4, number)? + self.end(&self.v6, number)?)
    }

    fn end<A: Family>(&self, flows: &FlowTable<A>, backend: u16) -> Result<u64> {
        let places: Vec<u32> = flows
            .entries()
            .filter(|(_, flow)| flow.is_forward() && flow.backend == backend)
            .filter(|(_, flow)| state(flow.life) & DEAD == 0)
            .map(|(place, _)| place | REAP_ANYWAY)
            .collect();
        let program: &Xdp = self.ebpf.program(A::REAP).context("no reap program")?.try_into()?;
        reap(program, &places)
    }
}
