//! Ending expired connections.
//!
//! User space walks the flow table and picks candidates; the kernel decides each of them again by
//! the same rule (`lb_common::flow::is_expired`) and removes it atomically. A sweep blocks, so it
//! runs on a thread of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, Queue},
    programs::{TestRun, TestRunOptions, Xdp},
};
use lb_common::{
    addr::{V4, V6},
    flow::{FORWARD, Flow, FlowKey, Timeouts, age, created, is_expired, state, ticks},
    maps::{HopKey, MAX_SERVICES, REAP_BATCH, REAP_HEADER},
};
use nix::time::{ClockId, clock_gettime};

use super::{family::Family, pins::Pins};

/// Walks the flow tables.
pub struct Reaper {
    ebpf: Ebpf,
    v4: Table<V4>,
    v6: Table<V6>,
    timeouts: Array<MapData, Timeouts>,
    hops: Hops,
}

/// What one walk found.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Connections that had expired and are gone.
    pub reaped: u64,
    /// Whether every connection was seen. If not, a number that was not seen may still be in use.
    pub complete: bool,
    /// Numbers of the backends that connections remain for, closed ones included.
    pub backends: BTreeSet<u16>,
    /// Numbers of the services that connections remain for.
    pub services: BTreeSet<u16>,
    /// How long the walk took.
    pub took: Duration,
}

struct Table<A: Family> {
    flows: HashMap<MapData, FlowKey<A>, Flow<A>>,
    capacity: usize,
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
            hops: Hops::open(pins)?,
        })
    }

    /// Walks both tables once.
    pub fn sweep(&mut self) -> Result<Sweep> {
        let start = Instant::now();
        let timeouts =
            (0..MAX_SERVICES).map(|n| self.timeouts.get(&n, 0)).collect::<Result<Vec<_>, _>>()?;
        let mut sweep = Sweep { complete: true, ..Sweep::default() };
        let mut hops = BTreeSet::new();
        self.v4.sweep(&self.ebpf, &timeouts, &mut sweep, &mut hops)?;
        self.v6.sweep(&self.ebpf, &timeouts, &mut sweep, &mut hops)?;
        if sweep.complete {
            self.hops.collect(&hops)?;
        }
        sweep.took = start.elapsed();
        Ok(sweep)
    }
}

impl<A: Family> Table<A> {
    fn open(pins: &Pins) -> Result<Self> {
        Ok(Self { flows: pins.open(A::FLOWS)?, capacity: pins.capacity(A::FLOWS)? as usize })
    }

    fn sweep(
        &self,
        ebpf: &Ebpf,
        timeouts: &[Timeouts],
        sweep: &mut Sweep,
        hops: &mut BTreeSet<u32>,
    ) -> Result<()> {
        let now = now()?;
        let mut candidates = Vec::new();
        // The kernel begins again from the start when the key it stands at is removed meanwhile;
        // the bound keeps a busy table from holding the walk forever, but may end it too early.
        let mut left = self.capacity;
        for entry in &self.flows {
            if left == 0 {
                sweep.complete = false;
                break;
            }
            left -= 1;
            let (key, flow) = entry.context("cannot read the flow table")?;
            sweep.backends.insert(flow.to.backend);
            sweep.services.insert(flow.to.service);
            hops.insert(flow.to.hop);
            let Some(timeouts) = timeouts.get(usize::from(flow.to.service)) else {
                continue;
            };
            let idle = age(now, flow.last_seen);
            if flow.direction == FORWARD {
                let age = age(now, created(flow.life));
                // The other side's silence is judged at its own entry.
                if is_expired(state(flow.life), age, idle, idle.min(timeouts.server), timeouts) {
                    candidates.push(key);
                }
            } else if idle > timeouts.server {
                candidates.push(flow.to.pair_key());
            }
        }
        let program: &Xdp = ebpf.program(A::REAP).context("no reap program")?.try_into()?;
        for keys in candidates.chunks(REAP_BATCH) {
            let input = reap_input(keys);
            let options = TestRunOptions { data_in: Some(&input), ..TestRunOptions::default() };
            let run = program.test_run(options).context("cannot run the reap program")?;
            sweep.reaped += u64::from(run.return_value);
        }
        Ok(())
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

/// Gives the numbers of client-side next hops back that no connection uses any more.
struct Hops {
    known: HashMap<MapData, HopKey, u32>,
    free: Queue<MapData, u32>,
    /// Hops that were unused at the last sweep.
    idle: BTreeSet<u32>,
    /// Hops that no new connection can find; free once a sweep has found no old one either.
    limbo: BTreeSet<u32>,
}

impl Hops {
    fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            known: pins.open("CLIENT_HOPS")?,
            free: pins.open("FREE_HOPS")?,
            idle: BTreeSet::new(),
            limbo: BTreeSet::new(),
        })
    }

    fn collect(&mut self, used: &BTreeSet<u32>) -> Result<()> {
        for hop in std::mem::take(&mut self.limbo) {
            if used.contains(&hop) {
                self.limbo.insert(hop);
            } else {
                self.free.push(hop, 0)?;
            }
        }
        let known: BTreeMap<u32, HopKey> =
            self.known.iter().flatten().map(|(key, hop)| (hop, key)).collect();
        let unused: BTreeSet<u32> =
            known.keys().copied().filter(|hop| !used.contains(hop)).collect();
        for hop in unused.intersection(&self.idle) {
            self.known.remove(&known[hop])?;
            self.limbo.insert(*hop);
        }
        self.idle = unused;
        Ok(())
    }
}

/// The program's clock, in ticks.
fn now() -> Result<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let (seconds, nanoseconds) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
    Ok(ticks(seconds * 1_000_000_000 + nanoseconds))
}
