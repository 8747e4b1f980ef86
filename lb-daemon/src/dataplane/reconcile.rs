//! Making the maps say what the core desires, with as few changes as possible.
//!
//! The order keeps every moment consistent: what a service will refer to is written before the
//! service, and a service's slots are written to the table that is not in use.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use lb_common::{
    addr::{V4, V6},
    flow::{MAX_TICKS, Timeouts as FlowTimeouts, ticks},
    maps::{
        BALANCE_HASH, BALANCE_LEASTCONN, BALANCE_ROUNDROBIN, BALANCE_SOURCE, Backend, BackendStats,
        MAX_BACKENDS, MAX_SOURCES, NextHop, SLOTS, Service, ServiceKey, SlotTable,
    },
};

use super::{
    family::{Family, join},
    pins::Pins,
};
use crate::{
    config::{Balance, Timeouts},
    core::{Desired, DesiredBackend, DesiredService, Inventory},
};

/// The one writer of the maps in user space.
pub(super) struct Reconciler {
    slots: Array<MapData, SlotTable>,
    timeouts: Array<MapData, FlowTimeouts>,
    next_hops: Array<MapData, NextHop>,
    stats: PerCpuArray<MapData, BackendStats>,
    v4: FamilyMaps<V4>,
    v6: FamilyMaps<V6>,
    /// What the maps say of each service.
    written: BTreeMap<u16, (DesiredService, Service)>,
    backends: BTreeMap<u16, DesiredBackend>,
    inventory: BTreeMap<u16, (u16, SocketAddr)>,
}

struct FamilyMaps<A: Family> {
    services: HashMap<MapData, ServiceKey<A>, Service>,
    virtual_addresses: HashMap<MapData, A, u32>,
    backends: Array<MapData, Backend<A>>,
}

impl Reconciler {
    pub(super) fn open(pins: &Pins) -> Result<(Self, Inventory)> {
        let mut this = Self {
            slots: pins.open("SLOTS")?,
            timeouts: pins.open("TIMEOUTS")?,
            next_hops: pins.open("NEXT_HOPS")?,
            stats: pins.open("BACKEND_STATS")?,
            v4: FamilyMaps::open(pins)?,
            v6: FamilyMaps::open(pins)?,
            written: BTreeMap::new(),
            backends: BTreeMap::new(),
            inventory: BTreeMap::new(),
        };
        let mut inventory = Inventory::default();
        this.v4.take_inventory(&mut inventory)?;
        this.v6.take_inventory(&mut inventory)?;
        this.inventory.clone_from(&inventory.backends);
        Ok((this, inventory))
    }

    pub(super) fn apply(&mut self, desired: &Desired) -> Result<()> {
        for (number, backend) in &desired.backends {
            if self.backends.get(number) != Some(backend) {
                self.write_backend(*number, backend)
                    .with_context(|| format!("backend {}", backend.address))?;
            }
        }
        self.backends.clone_from(&desired.backends);

        for (number, service) in &desired.services {
            if self.written.get(number).is_none_or(|(written, _)| written != service) {
                self.write_service(*number, service)?;
            }
        }
        self.written.retain(|number, _| desired.services.contains_key(number));
        self.v4.remove_others(&desired.services)?;
        self.v6.remove_others(&desired.services)
    }

    fn write_backend(&mut self, number: u16, backend: &DesiredBackend) -> Result<()> {
        self.next_hops.set(number.into(), backend.hop, 0)?;
        let known = self.inventory.insert(number, (backend.service, backend.address));
        if known.is_some_and(|known| known != (backend.service, backend.address)) {
            // The number was another backend's.
            let zero = vec![BackendStats::default(); aya::util::nr_cpus().map_err(|(_, e)| e)?];
            self.stats.set(number.into(), PerCpuValues::try_from(zero)?, 0)?;
        }
        match backend.address.ip() {
            IpAddr::V4(_) => self.v4.write_backend(number, backend),
            IpAddr::V6(_) => self.v6.write_backend(number, backend),
        }
    }

    fn write_service(&mut self, number: u16, service: &DesiredService) -> Result<()> {
        self.timeouts.set(number.into(), flow_timeouts(&service.timeout), 0)?;
        let before = self.written.get(&number);
        let table = match before {
            Some((written, value)) if written.slots == service.slots => value.table,
            // Two tables for each service: the one that is not in use.
            Some((_, value)) => value.table ^ 1,
            // A daemon before us may have left either in use; readers of the other one see at
            // worst a backend of this service that is about to leave.
            None => u32::from(number) * 2,
        };
        if before.is_none_or(|(written, _)| written.slots != service.slots) {
            let mut slots = SlotTable([0; SLOTS]);
            for (slot, backend) in slots.0.iter_mut().zip(service.slots.0.iter()) {
                *slot = *backend;
            }
            self.slots.set(table, slots, 0)?;
        }
        let value = Service {
            id: number.into(),
            balance: match service.balance {
                Balance::RoundRobin => BALANCE_ROUNDROBIN,
                Balance::LeastConn => BALANCE_LEASTCONN,
                Balance::Source => BALANCE_SOURCE,
                Balance::Hash => BALANCE_HASH,
            },
            table,
            slots: u32::try_from(service.slots.0.len().min(SLOTS))?,
        };
        for bind in &service.bind {
            match bind.ip() {
                IpAddr::V4(_) => self.v4.bind(*bind, value)?,
                IpAddr::V6(_) => self.v6.bind(*bind, value)?,
            }
        }
        self.written.insert(number, (service.clone(), value));
        Ok(())
    }
}

impl<A: Family> FamilyMaps<A> {
    fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            services: pins.open(A::SERVICES)?,
            virtual_addresses: pins.open(A::VIRTUAL_ADDRESSES)?,
            backends: pins.open(A::BACKENDS)?,
        })
    }

    fn take_inventory(&mut self, inventory: &mut Inventory) -> Result<()> {
        for entry in &self.services {
            let (key, service) = entry?;
            let number = u16::try_from(service.id)?;
            let binds = inventory.services.entry(number).or_default();
            binds.push(join(key.address, key.port));
        }
        for number in 0..MAX_BACKENDS {
            let backend = self.backends.get(&number, 0)?;
            if backend.source_count != 0 {
                let address = join(backend.address, backend.port);
                inventory.backends.insert(u16::try_from(number)?, (backend.service, address));
            }
        }
        Ok(())
    }

    fn write_backend(&mut self, number: u16, backend: &DesiredBackend) -> Result<()> {
        let (address, port) = A::split(backend.address).context("an address of another family")?;
        let mut sources = [A::default(); MAX_SOURCES];
        let mut count = 0;
        for source in backend.sources.iter().filter_map(|ip| A::from_ip(*ip)).take(MAX_SOURCES) {
            sources[usize::from(count)] = source;
            count += 1;
        }
        let value = Backend {
            address,
            sources,
            port,
            weight: backend.weight.max(1),
            source_count: count,
            service: backend.service,
        };
        self.backends.set(number.into(), value, 0)?;
        Ok(())
    }

    fn bind(&mut self, bind: SocketAddr, service: Service) -> Result<()> {
        let (address, port) = A::split(bind).context("an address of another family")?;
        self.services.insert(ServiceKey { address, port, zero: 0 }, service, 0)?;
        self.virtual_addresses.insert(address, 1, 0)?;
        Ok(())
    }

    /// Removes the services and virtual addresses that are not desired.
    fn remove_others(&mut self, desired: &BTreeMap<u16, DesiredService>) -> Result<()> {
        let binds: Vec<(A, lb_common::addr::Port)> =
            desired.values().flat_map(|s| &s.bind).filter_map(|bind| A::split(*bind)).collect();
        for key in self.services.keys().collect::<Result<Vec<_>, _>>()? {
            if !binds.contains(&(key.address, key.port)) {
                self.services.remove(&key)?;
            }
        }
        for address in self.virtual_addresses.keys().collect::<Result<Vec<_>, _>>()? {
            if !binds.iter().any(|(bound, _)| *bound == address) {
                self.virtual_addresses.remove(&address)?;
            }
        }
        Ok(())
    }
}

fn flow_timeouts(timeouts: &Timeouts) -> FlowTimeouts {
    let convert = |duration: Duration| {
        // Rounded up, so that no timeout is shorter than asked for.
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        ticks(nanoseconds.min(u64::from(MAX_TICKS) << 20)).saturating_add(1).min(MAX_TICKS)
    };
    FlowTimeouts {
        client: convert(timeouts.client),
        server: convert(timeouts.server),
        connect: convert(timeouts.connect),
    }
}
