//! Ending expired connections.
//!
//! User space walks the flow table and picks candidates; the kernel decides each of them again by
//! the same rule (`lb_common::flow::is_expired`) and removes it atomically. A sweep blocks, so it
//! runs on a thread of its own.
//!
//! A sweep also removes what no connection can make sense of: a reverse entry without its owner, and
//! a connection that somebody began to remove and never finished. Neither can come about by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    flow::{
        DEAD, Flow, Silence, Terms, age, born, created, heard, heard_group, is_expired,
        is_handed_over, limits, state, ticks,
    },
    maps::{
        Lease, MAX_BACKENDS, MAX_HOPS, MAX_SERVICES, REAP_BATCH, REAP_HEADER, REAP_STUCK, Settings,
    },
};
use nix::time::{ClockId, clock_gettime};

use super::{
    client_hops::{ClientHops, Turn},
    family::Family,
    pins::Pins,
    recount::{Counts, Drift},
    table::FlowTable,
};

/// Walks the flow tables.
pub struct Reaper {
    ebpf: Ebpf,
    v4: Table<V4>,
    v6: Table<V6>,
    terms: Array<MapData, Terms>,
    leases: Array<MapData, Lease>,
    settings: Array<MapData, Settings>,
    hops: ClientHops,
    counts: Counts,
}

/// What one walk found.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Connections that had expired and are gone.
    pub reaped: u64,
    /// Entries without their owner, and connections that were left half removed, that are gone.
    pub healed: u64,
    /// Entries of the tables, two a connection.
    pub entries: u64,
    /// Numbers of the backends that connections remain for, closed ones included.
    pub backends: BTreeSet<u16>,
    /// Numbers of the services that connections remain for.
    pub services: BTreeSet<u16>,
    /// How long the walk took.
    pub took: Duration,
    /// How long it had a processor for that.
    pub processor: Duration,
}

struct Table<A: Family> {
    flows: FlowTable<A>,
    /// Whether all reverse entries have been asked for their owners. Later on that is worth the
    /// time only for those that are silent.
    looked_through: bool,
    /// Connections that were being removed at the last walk: their places and life words.
    dying: BTreeMap<u32, u64>,
}

/// What a walk found to be ended, by the numbers of places.
#[derive(Default)]
struct Candidates {
    expired: Vec<u32>,
    broken: Vec<u32>,
}

/// What a service's connections are judged by during one walk.
#[derive(Clone, Copy)]
struct Rules {
    terms: Terms,
    /// For how long this host has heard its clients and backends, in ticks.
    heard: u32,
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

    pub(super) fn open(pins: &Pins, ebpf: Ebpf, turn: Turn) -> Result<Self> {
        Ok(Self {
            ebpf,
            v4: Table::open(pins)?,
            v6: Table::open(pins)?,
            terms: pins.open("TERMS")?,
            leases: pins.open("LEASES")?,
            settings: pins.open("SETTINGS")?,
            hops: ClientHops::open(pins, turn)?,
            counts: Counts::open(pins)?,
        })
    }

    /// Corrects the program's counts by what is in the tables, and says what was wrong.
    pub fn recount(&self) -> Drift {
        self.counts.correct(&self.v4.flows, &self.v6.flows)
    }

    /// Walks both tables once.
    pub fn sweep(&mut self) -> Result<Sweep> {
        let (start, processor) = (Instant::now(), processor()?);
        let now = monotonic()?;
        let settings = self.settings.get(&0, 0)?;
        let rules = (0..MAX_SERVICES).map(|n| self.rules(n, &settings, now));
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        let mut seen = Seen {
            entries: 0,
            backends: Marks::new(MAX_BACKENDS),
            services: Marks::new(MAX_SERVICES),
            hops: Marks::new(MAX_HOPS),
        };
        let v4 = self.v4.sweep(&self.ebpf, &rules, &mut seen)?;
        let v6 = self.v6.sweep(&self.ebpf, &rules, &mut seen)?;
        self.hops.walked(&seen.hops)?;
        Ok(Sweep {
            reaped: v4.0 + v6.0,
            healed: v4.1 + v6.1,
            entries: seen.entries,
            backends: seen.backends.numbers(),
            services: seen.services.numbers(),
            took: start.elapsed(),
            processor: self::processor()?.saturating_sub(processor),
        })
    }

    /// What the connections of a service are judged by at the time `now`. A takeover meanwhile changes
    /// what the program finds, and it is the program that decides.
    fn rules(&self, service: u32, settings: &Settings, now: u64) -> Result<Rules> {
        let terms = self.terms.get(&service, 0)?;
        let group = heard_group(settings, &terms);
        let lease = self.leases.get(&group, 0)?;
        Ok(Rules { terms, heard: heard(group, &lease, now) })
    }
}

impl<A: Family> Table<A> {
    fn open(pins: &Pins) -> Result<Self> {
        let flows = FlowTable::open(pins, A::FLOWS)?;
        Ok(Self { flows, looked_through: false, dying: BTreeMap::new() })
    }

    /// Returns how many connections had expired, and how much was broken.
    fn sweep(&mut self, ebpf: &Ebpf, rules: &[Rules], seen: &mut Seen) -> Result<(u64, u64)> {
        let now = ticks(monotonic()?);
        let mut candidates = Candidates::default();
        let mut dying = BTreeMap::new();
        for (number, flow) in self.flows.entries() {
            seen.entries += 1;
            seen.backends.mark(flow.backend.into());
            seen.services.mark(flow.service.into());
            seen.hops.mark(flow.hop.into());
            let Some(rules) = rules.get(usize::from(flow.service)) else { continue };
            if !flow.is_forward() {
                self.look_at_reverse(number, &flow, now, rules, &mut candidates);
            } else if state(flow.life) & DEAD != 0 {
                if self.dying.get(&number) == Some(&flow.life) {
                    candidates.broken.push(number | REAP_STUCK);
                }
                dying.insert(number, flow.life);
            } else if may_have_expired(&flow, now, rules) {
                candidates.expired.push(number);
            }
        }
        self.dying = dying;
        self.looked_through = true;
        let program: &Xdp = ebpf.program(A::REAP).context("no reap program")?.try_into()?;
        Ok((reap(program, &candidates.expired)?, reap(program, &candidates.broken)?))
    }

    fn look_at_reverse(
        &self,
        number: u32,
        flow: &Flow<A>,
        now: u32,
        rules: &Rules,
        candidates: &mut Candidates,
    ) {
        let Rules { terms, heard } = rules;
        let silent = age(now, flow.last_seen).min(*heard);
        // The state, which says which of the two it is, is in the other entry.
        if silent <= terms.server.min(terms.server_fin) && self.looked_through {
            return;
        }
        let life = self.flows.life(flow.pair);
        if born(life) != born(flow.life) {
            candidates.broken.push(number);
        } else if silent > limits(state(life), terms).server {
            candidates.expired.push(flow.pair);
        }
    }
}

/// Whether the connection with this forward entry has expired as far as that tells: the other side's
/// silence is judged at its own entry.
fn may_have_expired<A>(flow: &Flow<A>, now: u32, rules: &Rules) -> bool {
    let Rules { terms, heard } = rules;
    let client = Silence { idle: age(now, flow.last_seen), renew: flow.renew };
    let state = state(flow.life);
    let idle = if is_handed_over(state) { 0 } else { client.idle.min(limits(state, terms).server) };
    let server = Silence { idle, ..client };
    is_expired(state, age(now, created(flow.life)), client, server, terms, *heard)
}

/// Has a reap program decide on the entries at these places. Returns how many it ended.
pub(super) fn reap(program: &Xdp, places: &[u32]) -> Result<u64> {
    let mut reaped = 0;
    for places in places.chunks(REAP_BATCH) {
        let mut input = vec![0; REAP_HEADER];
        input.extend(places.iter().flat_map(|number| number.to_ne_bytes()));
        let options = TestRunOptions { data_in: Some(&input), ..TestRunOptions::default() };
        let run = program.test_run(options).context("cannot run the reap program")?;
        reaped += u64::from(run.return_value);
    }
    Ok(reaped)
}

/// For how long the calling thread has had a processor.
fn processor() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// The program's clock, in nanoseconds.
fn monotonic() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let (seconds, nanoseconds) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
    Ok(seconds * 1_000_000_000 + nanoseconds)
}
