//! Reading what the program has counted.

use std::collections::BTreeMap;

use anyhow::Result;
use aya::maps::{Array, MapData, PerCpuArray};
use lb_common::{
    addr::{V4, V6},
    hold::Hold,
    maps::{BackendState, BackendStats, ServiceState, Settings, TableState},
    verdict::Verdict,
};

use super::{family::Family, handshakes::HandshakeCounts, mapped::Access, pins::Pins};
use crate::core::{Counters, TableStatus, Traffic};

/// Reads the counters. Each number is exact; numbers read together are not of one moment.
pub struct CounterReader {
    state: Array<MapData, BackendState>,
    services: Array<MapData, ServiceState>,
    stats: PerCpuArray<MapData, BackendStats>,
    handshakes: HandshakeCounts,
    tables: Array<MapData, TableState>,
    verdicts: PerCpuArray<MapData, u64>,
    hold: Array<MapData, Hold>,
    capacity: u64,
    half_open_capacity: [u64; 2],
}

impl CounterReader {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let capacity = |name| pins.capacity(name).map(u64::from);
        let settings: Array<_, Settings> = pins.open("SETTINGS")?;
        Ok(Self {
            state: pins.open("BACKEND_STATE")?,
            services: pins.open("SERVICE_STATE")?,
            stats: pins.open("BACKEND_STATS")?,
            handshakes: HandshakeCounts::open(pins, Access::Read)?,
            tables: pins.open("TABLES")?,
            verdicts: pins.open("VERDICTS")?,
            hold: pins.open("HOLD")?,
            capacity: settings.get(&0, 0)?.connections.into(),
            half_open_capacity: [capacity(V4::HALF_OPEN)?, capacity(V6::HALF_OPEN)?],
        })
    }

    /// Reads everything, and the traffic of these backends.
    pub fn read(&self, backends: impl IntoIterator<Item = u16>) -> Result<Counters> {
        let mut counters = Counters::default();
        for number in backends {
            counters.backends.insert(number, self.traffic(number)?);
        }
        counters.tables.push(self.table::<V4>()?);
        counters.tables.push(self.table::<V6>()?);
        for verdict in Verdict::ALL {
            let packets = self.verdicts.get(&(*verdict as u32), 0)?.iter().sum();
            counters.verdicts.insert(verdict.label().to_owned(), packets);
        }
        counters.unheld = self.hold.get(&0, 0)?.unheld;
        Ok(counters)
    }

    /// How many connections each of these services has that are not closed: what its limit is held against.
    /// Those with backends that are gone are among them.
    pub fn active(&self, services: impl IntoIterator<Item = u16>) -> Result<BTreeMap<u16, u64>> {
        let count = |number: u16| Ok((number, self.services.get(&number.into(), 0)?.active));
        services.into_iter().map(count).collect()
    }

    fn traffic(&self, number: u16) -> Result<Traffic> {
        let state = self.state.get(&number.into(), 0)?;
        let mut traffic = Traffic {
            active: state.active,
            connection_errors: self.handshakes.failed(number),
            ..Traffic::default()
        };
        for cpu in self.stats.get(&number.into(), 0)?.iter() {
            traffic.connections += cpu.connections;
            traffic.packets_in += cpu.packets_in;
            traffic.bytes_in += cpu.bytes_in;
            traffic.packets_out += cpu.packets_out;
            traffic.bytes_out += cpu.bytes_out;
        }
        Ok(traffic)
    }

    fn table<A: Family>(&self) -> Result<TableStatus> {
        let table = self.tables.get(&A::TABLE, 0)?;
        Ok(TableStatus {
            family: A::NAME.to_owned(),
            connections: table.connections,
            capacity: self.capacity,
            half_open: table.half_open,
            half_open_capacity: self.half_open_capacity[A::TABLE as usize],
            evicted: table.evicted,
        })
    }
}
