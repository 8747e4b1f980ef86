//! Ending expired connections.
//!
//! User space walks the flow table and picks candidates; the kernel decides each of them again by
//! the same rule (`lb_common::flow::is_expired`) and removes it atomically. A sweep blocks, so it
//! runs on a thread of its own.

use std::{
    collections::BTreeSet,
    marker::PhantomData,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{TestRun, TestRunOptions, Xdp},
};
use lb_common::{
    addr::{V4, V6},
    flow::{FORWARD, Flow, FlowKey, Silence, Timeouts, age, created, is_expired, state, ticks},
    maps::{MAX_BACKENDS, MAX_HOPS, MAX_SERVICES, REAP_BATCH, REAP_HEADER},
};
use nix::time::{ClockId, clock_gettime};

use super::{batch, client_hops::ClientHops, family::Family, pins::Pins};

/// Walks the flow tables.
pub struct Reaper {
    ebpf: Ebpf,
    v4: Table<V4>,
    v6: Table<V6>,
    timeouts: Array<MapData, Timeouts>,
    hops: ClientHops,
}

/// What one walk found.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Connections that had expired and are gone.
    pub reaped: u64,
    /// Entries of the tables, two a connection.
    pub entries: u64,
    /// Numbers of the backends that connections remain for, closed ones included.
    pub backends: BTreeSet<u16>,
    /// Numbers of the services that connections remain for.
    pub services: BTreeSet<u16>,
    /// How long the walk took.
    pub took: Duration,
}

struct Table<A: Family> {
    flows: MapData,
    family: PhantomData<A>,
}

/// The numbers that entries of the flow tables refer to.
struct Seen {
    entries: u64,
    backends: Marks,
    services: Marks,
    hops: Marks,
}

/// A set of numbers below a limit, cheap to add to: millions of entries name few of them.
pub(super) struct Marks(Vec<bool>);

impl Marks {
    fn new(limit: u32) -> Self {
        Self(vec![false; limit as usize])
    }

    fn mark(&mut self, number: u32) {
        if let Some(mark) = self.0.get_mut(number as usize) {
            *mark = true;
        }
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.0.get(number as usize).is_some_and(|mark| *mark)
    }

    /// Those that are marked and fit; the limits make all of them fit.
    fn numbers(&self) -> BTreeSet<u16> {
        (0..=u16::MAX).zip(&self.0).filter(|(_, mark)| **mark).map(|(number, _)| number).collect()
    }
}

impl Reaper {
    pub(super) const PROGRAM_V4: &'static str = V4::REAP;
    pub(super) const PROGRAM_V6: &'static str = V6::REAP;

    pub(super) fn open(pins: &Pins, ebpf: Ebpf) -> Result<Self> {
        Ok(Self {
            ebpf,
            v4: Table::open(pins)?,
            v6: Table::open(pins)?,
            timeouts: pins.open("TIMEOUTS")?,
            hops: ClientHops::open(pins)?,
        })
    }

    /// Walks both tables once.
    pub fn sweep(&mut self) -> Result<Sweep> {
        let start = Instant::now();
        let timeouts =
            (0..MAX_SERVICES).map(|n| self.timeouts.get(&n, 0)).collect::<Result<Vec<_>, _>>()?;
        let mut seen = Seen {
            entries: 0,
            backends: Marks::new(MAX_BACKENDS),
            services: Marks::new(MAX_SERVICES),
            hops: Marks::new(MAX_HOPS),
        };
        let reaped = self.v4.sweep(&self.ebpf, &timeouts, &mut seen)?
            + self.v6.sweep(&self.ebpf, &timeouts, &mut seen)?;
        self.hops.walked(&seen.hops)?;
        Ok(Sweep {
            reaped,
            entries: seen.entries,
            backends: seen.backends.numbers(),
            services: seen.services.numbers(),
            took: start.elapsed(),
        })
    }
}

impl<A: Family> Table<A> {
    fn open(pins: &Pins) -> Result<Self> {
        Ok(Self { flows: pins.data(A::FLOWS)?, family: PhantomData })
    }

    fn sweep(&self, ebpf: &Ebpf, timeouts: &[Timeouts], seen: &mut Seen) -> Result<u64> {
        let now = now()?;
        let mut candidates = Vec::new();
        batch::walk(self.flows.fd(), |key: FlowKey<A>, flow: Flow<A>| {
            seen.entries += 1;
            seen.backends.mark(flow.to.backend.into());
            seen.services.mark(flow.to.service.into());
            seen.hops.mark(flow.to.hop);
            let Some(timeouts) = timeouts.get(usize::from(flow.to.service)) else { return };
            let idle = age(now, flow.last_seen);
            if flow.direction == FORWARD {
                let age = age(now, created(flow.life));
                let client = Silence { idle, renew: flow.renew };
                // The other side's silence is judged at its own entry.
                let server = Silence { idle: idle.min(timeouts.server), ..client };
                if is_expired(state(flow.life), age, client, server, timeouts) {
                    candidates.push(key);
                }
            } else if idle > timeouts.server {
                candidates.push(flow.to.pair_key());
            }
        })
        .context("cannot walk the flow table")?;
        let program: &Xdp = ebpf.program(A::REAP).context("no reap program")?.try_into()?;
        let mut reaped = 0;
        for keys in candidates.chunks(REAP_BATCH) {
            let input = reap_input(keys);
            let options = TestRunOptions { data_in: Some(&input), ..TestRunOptions::default() };
            let run = program.test_run(options).context("cannot run the reap program")?;
            reaped += u64::from(run.return_value);
        }
        Ok(reaped)
    }
}

/// The frame that hands `keys` to a reap program.
fn reap_input<A: Family>(keys: &[FlowKey<A>]) -> Vec<u8> {
    let mut input = vec![0; REAP_HEADER];
    for key in keys {
        // SAFETY: `FlowKey` is `Pod`: no padding, so all its bytes are initialised.
        input.extend_from_slice(unsafe {
            std::slice::from_raw_parts(
                std::ptr::from_ref(key).cast::<u8>(),
                size_of::<FlowKey<A>>(),
            )
        });
    }
    input
}

/// The program's clock, in ticks.
fn now() -> Result<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let (seconds, nanoseconds) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
    Ok(ticks(seconds * 1_000_000_000 + nanoseconds))
}
