//! What the peer tells the program, and what the program tells for the peer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData, RingBuf};
use lb_common::{
    addr::{Address, Port, V4, V6},
    flow::{ADOPT, Adoption, Change, ESTABLISHED, Flow, FlowKey, NO_HOP, SYN_ACK, state},
    maps::{
        ADOPT_HEADER, Lease, MAX_GROUPS, REAP_HEADER, Settings, TABLE_V4, TABLE_V6, TableState,
    },
};
use lb_daemon::dataplane::Program;
use nix::time::{ClockId, clock_gettime};
use tests::lab::Family;

use crate::{
    net::Net,
    table::{Mapping, pinned},
    world::World,
};

/// A connection of the peer's, and what is to become of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// Client and virtual address.
    pub(crate) key: (SocketAddr, SocketAddr),
    /// Backend and source address.
    pub(crate) reverse: (SocketAddr, SocketAddr),
    pub(crate) timestamp: u32,
    pub(crate) backend: u16,
    pub(crate) service: u16,
    pub(crate) hop: u16,
    pub(crate) state: u8,
    /// To adopt it, whether or not the peer knows better, or to forget it.
    pub(crate) what: u8,
}

impl Net {
    /// The connection that the client has, if the peer opened it with this translation port.
    pub(crate) fn adoption(&self, port: u16) -> Order {
        Order {
            key: (self.client, self.vip),
            reverse: (self.backend, (self.source.ip(), port).into()),
            timestamp: 0,
            backend: self.number,
            service: 0,
            hop: NO_HOP,
            state: SYN_ACK | ESTABLISHED,
            what: ADOPT,
        }
    }
}

/// A change that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) what: u32,
    pub(crate) state: u8,
    pub(crate) place: u32,
    pub(crate) key: (SocketAddr, SocketAddr),
    pub(crate) reverse: (SocketAddr, SocketAddr),
}

/// What is asked of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    pub(crate) state: u8,
    pub(crate) hop: u16,
    pub(crate) flags: u16,
    pub(crate) is_forward: bool,
}

/// The programs and maps of replication, of one family.
pub(crate) struct Replica {
    family: Family,
    adopt: Program,
    reap: Program,
    changes: RingBuf<MapData>,
    settings: Array<MapData, Settings>,
}

impl Replica {
    pub(crate) fn open(world: &World, family: Family) -> Result<Self> {
        let (adopt, reap) = match family {
            Family::V4 => ("adopt_v4", "reap_v4"),
            Family::V6 => ("adopt_v6", "reap_v6"),
        };
        let map = |name| anyhow::Ok(Map::from_map_data(pinned(name)?)?);
        Ok(Self {
            family,
            adopt: world.program(adopt)?,
            reap: world.program(reap)?,
            changes: map("CHANGES")?.try_into()?,
            settings: map("SETTINGS")?.try_into()?,
        })
    }

    /// Has changes reported, or not.
    pub(crate) fn report(&mut self, report: bool) -> Result<()> {
        let settings = self.settings.get(&0, 0)?;
        Ok(self.settings.set(0, Settings { report: report.into(), ..settings }, 0)?)
    }

    /// Has the program look at these; returns the outcomes, and the places of the forward entries.
    pub(crate) fn adopt(&self, orders: &[Order]) -> Result<Vec<(u8, u32)>> {
        match self.family {
            Family::V4 => adopt::<V4>(&self.adopt, orders),
            Family::V6 => adopt::<V6>(&self.adopt, orders),
        }
    }

    /// The same of one.
    pub(crate) fn adopt_one(&self, order: Order) -> Result<(u8, u32)> {
        self.adopt(&[order])?.pop().context("no outcome")
    }

    /// Has the reap program look at places, with their marks; returns how many connections it ended.
    pub(crate) fn reap(&self, places: &[u32]) -> Result<u32> {
        let mut input = vec![0; REAP_HEADER];
        input.extend(places.iter().flat_map(|place| place.to_ne_bytes()));
        self.reap.run(&mut input)
    }

    /// What was reported since this was last asked.
    pub(crate) fn told(&mut self) -> Result<Vec<Told>> {
        let mut told = Vec::new();
        while let Some(record) = self.changes.next() {
            told.push(match self.family {
                Family::V4 => read::<V4>(&record)?,
                Family::V6 => read::<V6>(&record)?,
            });
        }
        Ok(told)
    }

    /// Every entry of the table, with its place.
    pub(crate) fn entries(&self, world: &World) -> Result<Vec<(u32, Looked)>> {
        Ok(match self.family {
            Family::V4 => world.dataplane.flows_v4()?.entries().map(look).collect(),
            Family::V6 => world.dataplane.flows_v6()?.entries().map(look).collect(),
        })
    }
}

/// The times of a group's lease: since when it is held, and until when there is grace, both given as
/// seconds from now.
pub(crate) fn lease_times(group: u16, since: i64, grace: i64) -> Result<()> {
    let leases = Mapping::<Lease>::open("LEASES", MAX_GROUPS as usize)?;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let at = |seconds: i64| {
        let seconds = (now.tv_sec() + seconds).max(0).cast_unsigned();
        seconds * 1_000_000_000 + now.tv_nsec().cast_unsigned()
    };
    let group = usize::from(group);
    leases.word(group, |lease| &raw mut lease.since).store(at(since), Ordering::SeqCst);
    leases.word(group, |lease| &raw mut lease.grace).store(at(grace), Ordering::SeqCst);
    Ok(())
}

/// How many reports there was no room for.
pub(crate) fn unreported(family: Family) -> Result<u64> {
    let tables = Mapping::<TableState>::open("TABLES", 2)?;
    let index = match family {
        Family::V4 => TABLE_V4,
        Family::V6 => TABLE_V6,
    };
    let word = tables.word(index as usize, |table| &raw mut table.unreported);
    Ok(word.load(Ordering::SeqCst))
}

fn adopt<A: Address>(program: &Program, orders: &[Order]) -> Result<Vec<(u8, u32)>> {
    const { assert!(align_of::<Adoption<A>>() == 4) };
    let size = size_of::<Adoption<A>>();
    let mut input = vec![0; ADOPT_HEADER];
    for order in orders {
        let record = record::<A>(order)?;
        // SAFETY: plain fields without padding.
        input.extend(unsafe { std::slice::from_raw_parts((&raw const record).cast(), size) });
    }
    let seen = program.run(&mut input)?;
    ensure!(seen as usize == orders.len(), "looked at {seen} of {}", orders.len());
    let records = input[ADOPT_HEADER..].chunks_exact(size).map(|bytes| {
        // SAFETY: as long as a record, of which every bit pattern is valid.
        unsafe { bytes.as_ptr().cast::<Adoption<A>>().read_unaligned() }
    });
    Ok(records.map(|record| (record.order, record.place)).collect())
}

fn record<A: Address>(order: &Order) -> Result<Adoption<A>> {
    Ok(Adoption {
        key: key(order.key)?,
        reverse: key(order.reverse)?,
        timestamp: order.timestamp,
        place: 0,
        backend: order.backend,
        service: order.service,
        hop: order.hop,
        state: order.state,
        order: order.what,
    })
}

fn key<A: Address>((from, to): (SocketAddr, SocketAddr)) -> Result<FlowKey<A>> {
    let ip = |ip: IpAddr| A::from_ip(ip).context("an address of the other family");
    Ok(FlowKey {
        src: ip(from.ip())?,
        dst: ip(to.ip())?,
        sport: Port::new(from.port()),
        dport: Port::new(to.port()),
    })
}

fn read<A: Address>(record: &[u8]) -> Result<Told> {
    ensure!(record.len() == size_of::<Change<A>>(), "a report of {} bytes", record.len());
    // SAFETY: as long as a report, of which every bit pattern is valid.
    let change = unsafe { record.as_ptr().cast::<Change<A>>().read_unaligned() };
    let addresses = |key: FlowKey<A>| {
        ((key.src.to_ip(), key.sport.get()).into(), (key.dst.to_ip(), key.dport.get()).into())
    };
    Ok(Told {
        what: change.what,
        state: state(change.life),
        place: change.place,
        key: addresses(change.key),
        reverse: addresses(change.reverse),
    })
}

fn look<A: Address>((place, flow): (u32, Flow<A>)) -> (u32, Looked) {
    let (hop, flags, is_forward) = (flow.hop, flow.flags, flow.is_forward());
    (place, Looked { state: state(flow.life), hop, flags, is_forward })
}
