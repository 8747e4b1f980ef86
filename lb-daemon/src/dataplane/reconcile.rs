//! Making the maps say what the core desires, with as few changes as possible.
//!
//! The order keeps every moment consistent: what a service will refer to is written before the
//! service, and a service's slots are written to the table that is not in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use lb_common::{
    addr::{Mac, V4, V6},
    flow::{MAX_TICKS, Terms, ticks},
    maps::{
        BALANCE_HASH, BALANCE_LEASTCONN, BALANCE_ROUNDROBIN, BALANCE_SOURCE, Backend, BackendStats,
        HopKey, MAX_BACKENDS, MAX_SOURCES, NextHop, SLOTS, Service, ServiceKey, SlotTable, Tags,
        VirtualAddress,
    },
};

use super::{
    family::{Family, join},
    handshakes::HandshakeCounts,
    limits::Places,
    mapped::Access,
    pins::Pins,
    replica::{Names, SharedNames},
};
use crate::{
    config::Balance,
    core::{Desired, DesiredBackend, DesiredService, Inventory},
};

/// `BPF_NOEXIST` of the kernel.
const NO_EXIST: u64 = 1;

/// The one writer of the maps in user space.
pub(super) struct Reconciler {
    slots: Array<MapData, SlotTable>,
    terms: Array<MapData, Terms>,
    next_hops: Array<MapData, NextHop>,
    client_hops: HashMap<MapData, HopKey, u32>,
    stats: PerCpuArray<MapData, BackendStats>,
    handshakes: HandshakeCounts,
    places: Places,
    v4: FamilyMaps<V4>,
    v6: FamilyMaps<V6>,
    /// What was written of each service.
    services: BTreeMap<u16, DesiredService>,
    /// The slot table that each service has in use, an earlier daemon's services included.
    tables: BTreeMap<u16, u32>,
    /// What was written of each backend.
    backends: BTreeMap<u16, DesiredBackend>,
    /// Whose statistics are under each number.
    owners: BTreeMap<u16, (u16, SocketAddr)>,
    /// What was written, for those who know it by name.
    names: SharedNames,
}

struct FamilyMaps<A: Family> {
    services: HashMap<MapData, ServiceKey<A>, Service>,
    virtual_addresses: HashMap<MapData, A, VirtualAddress>,
    backends: Array<MapData, Backend<A>>,
}

impl Reconciler {
    pub(super) fn open(pins: &Pins) -> Result<(Self, Inventory)> {
        let mut this = Self {
            slots: pins.open("SLOTS")?,
            terms: pins.open("TERMS")?,
            next_hops: pins.open("NEXT_HOPS")?,
            client_hops: pins.open("CLIENT_HOPS")?,
            stats: pins.open("BACKEND_STATS")?,
            handshakes: HandshakeCounts::open(pins, Access::Change)?,
            places: Places::open(pins)?,
            v4: FamilyMaps::open(pins)?,
            v6: FamilyMaps::open(pins)?,
            services: BTreeMap::new(),
            tables: BTreeMap::new(),
            backends: BTreeMap::new(),
            owners: BTreeMap::new(),
            names: SharedNames::default(),
        };
        let mut inventory = Inventory::default();
        this.v4.take_inventory(&mut inventory, &mut this.tables)?;
        this.v6.take_inventory(&mut inventory, &mut this.tables)?;
        this.owners.clone_from(&inventory.backends);
        inventory.serving = this.serving()?;
        inventory.limits = this.limits(&inventory);
        Ok((this, inventory))
    }

    /// The backends in the slot tables in use.
    fn serving(&self) -> Result<BTreeSet<u16>> {
        let mut serving = BTreeSet::new();
        let services = self.v4.services.iter().map(|entry| entry.map(|(_, service)| service));
        let services = services.chain(self.v6.services.iter().map(|entry| entry.map(|(_, s)| s)));
        for service in services {
            let service = service?;
            let table = self.slots.get(&service.table, 0)?;
            serving.extend(table.0.iter().take(service.slots as usize));
        }
        Ok(serving)
    }

    /// The limits in force of the backends that were found.
    fn limits(&self, found: &Inventory) -> BTreeMap<u16, NonZeroU32> {
        let limit = |number: &u16| Some((*number, self.places.backend(*number)?.limit()?));
        found.backends.keys().filter_map(limit).collect()
    }

    pub(super) fn apply(&mut self, desired: &Desired) -> Result<()> {
        for (number, backend) in &desired.backends {
            if self.backends.get(number) != Some(backend) {
                self.write_backend(*number, backend)
                    .with_context(|| format!("backend {}", backend.address))?;
            }
        }
        self.backends.clone_from(&desired.backends);

        let addresses = virtual_addresses(desired);
        self.v4.write_addresses(&addresses)?;
        self.v6.write_addresses(&addresses)?;
        for (number, service) in &desired.services {
            if self.services.get(number) != Some(service) {
                self.write_service(*number, service)?;
            }
        }
        self.services.retain(|number, _| desired.services.contains_key(number));
        self.tables.retain(|number, _| desired.services.contains_key(number));
        self.v4.remove_other_services(&desired.services)?;
        self.v6.remove_other_services(&desired.services)?;
        self.names.publish(Names::from(desired));
        Ok(())
    }

    /// What the numbers in the maps mean, as of the last [`apply`](Self::apply).
    pub(super) fn names(&self) -> SharedNames {
        self.names.clone()
    }

    /// Redirects the client-side hops by the neighbour `from` to `to`. New frames from `from`, if
    /// any come, are somebody else's and get a hop of their own.
    pub(super) fn neighbour_moved(
        &mut self,
        links: &BTreeSet<(u32, Tags)>,
        from: Mac,
        to: Mac,
    ) -> Result<()> {
        let entries: Vec<(HopKey, u32)> = self.client_hops.iter().collect::<Result<_, _>>()?;
        for (key, hop) in entries {
            if key.theirs != from || !links.contains(&(key.ifindex, key.tags)) {
                continue;
            }
            let next = self.next_hops.get(&hop, 0)?;
            self.next_hops.set(hop, NextHop { dst: to, ..next }, 0)?;
            self.client_hops.remove(&key)?;
            // If frames from the new address came before we knew, they have a hop already; then
            // the reaper gives this one back when its last connection has ended.
            let _ = self.client_hops.insert(HopKey { theirs: to, ..key }, hop, NO_EXIST);
        }
        Ok(())
    }

    fn write_backend(&mut self, number: u16, backend: &DesiredBackend) -> Result<()> {
        self.places.limit_backend(number, backend.limits);
        self.next_hops.set(number.into(), backend.hop, 0)?;
        let owner = (backend.service, backend.address);
        if self.owners.get(&number).is_some_and(|before| *before != owner) {
            let zero = vec![BackendStats::default(); aya::util::nr_cpus().map_err(|(_, e)| e)?];
            self.stats.set(number.into(), PerCpuValues::try_from(zero)?, 0)?;
            self.handshakes.reset(number);
        }
        self.handshakes.set_limit(number, backend.error_limit);
        self.owners.insert(number, owner);
        match backend.address.ip() {
            IpAddr::V4(_) => self.v4.write_backend(number, backend),
            IpAddr::V6(_) => self.v6.write_backend(number, backend),
        }
    }

    fn write_service(&mut self, number: u16, service: &DesiredService) -> Result<()> {
        self.places.limit_service(number, service.maxconn);
        self.terms.set(number.into(), terms(service), 0)?;
        let before = self.services.get(&number);
        let slots_stay = before.is_some_and(|before| before.slots == service.slots);
        let table = match self.tables.get(&number) {
            Some(table) if slots_stay => *table,
            // Two tables for each service: the one that is not in use.
            Some(table) => table ^ 1,
            None => u32::from(number) * 2,
        };
        if !slots_stay {
            self.slots.set(table, slot_table(&service.slots.0), 0)?;
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
        self.tables.insert(number, table);
        self.services.insert(number, service.clone());
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

    fn take_inventory(
        &self,
        inventory: &mut Inventory,
        tables: &mut BTreeMap<u16, u32>,
    ) -> Result<()> {
        for entry in &self.services {
            let (key, service) = entry?;
            let number = u16::try_from(service.id)?;
            let binds = inventory.services.entry(number).or_default();
            binds.push(join(key.address, key.port));
            tables.insert(number, service.table);
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
        Ok(())
    }

    /// Removes the services that are not desired.
    fn remove_other_services(&mut self, desired: &BTreeMap<u16, DesiredService>) -> Result<()> {
        let binds: Vec<(A, lb_common::addr::Port)> =
            desired.values().flat_map(|s| &s.bind).filter_map(|bind| A::split(*bind)).collect();
        for key in self.services.keys().collect::<Result<Vec<_>, _>>()? {
            if !binds.contains(&(key.address, key.port)) {
                self.services.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Makes the virtual addresses of this family those of a list.
    fn write_addresses(&mut self, all: &BTreeMap<IpAddr, VirtualAddress>) -> Result<()> {
        let wanted: Vec<(A, VirtualAddress)> =
            all.iter().filter_map(|(ip, value)| Some((A::from_ip(*ip)?, *value))).collect();
        let found: Vec<(A, VirtualAddress)> =
            self.virtual_addresses.iter().collect::<Result<_, _>>()?;
        for (address, _) in &found {
            if !wanted.iter().any(|(other, _)| other == address) {
                self.virtual_addresses.remove(address)?;
            }
        }
        for entry @ (address, value) in &wanted {
            if !found.contains(entry) {
                self.virtual_addresses.insert(address, value, 0)?;
            }
        }
        Ok(())
    }
}

/// Every address that a service is bound to or a group has.
fn virtual_addresses(desired: &Desired) -> BTreeMap<IpAddr, VirtualAddress> {
    let mut addresses: BTreeMap<IpAddr, VirtualAddress> = desired
        .shared
        .iter()
        .map(|(ip, group)| (*ip, VirtualAddress { group: *group, bound: 0 }))
        .collect();
    for bind in desired.services.values().flat_map(|service| &service.bind) {
        addresses.entry(bind.ip()).or_default().bound = 1;
    }
    addresses
}

/// The table is filled to its end, round and round: a packet that is between reading the service
/// and reading the slot may look beyond the new end, and must find a backend of this service.
fn slot_table(slots: &[u16]) -> SlotTable {
    let mut table = SlotTable([0; SLOTS]);
    for (slot, backend) in table.0.iter_mut().zip(slots.iter().cycle()) {
        *slot = *backend;
    }
    table
}

fn terms(service: &DesiredService) -> Terms {
    let convert = |duration: Duration| {
        // Rounded up, so that no timeout is shorter than asked for.
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        ticks(nanoseconds.min(u64::from(MAX_TICKS) << 20)).saturating_add(1).min(MAX_TICKS)
    };
    Terms {
        client: convert(service.timeout.client),
        server: convert(service.timeout.server),
        client_fin: convert(service.timeout.client_fin),
        server_fin: convert(service.timeout.server_fin),
        connect: convert(service.timeout.connect),
        group: service.group.into(),
        synchronous: service.synchronous.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Timeouts, core::Slots};

    #[test]
    fn a_slot_table_holds_nobody_elses_backend_up_to_its_end() {
        let table = slot_table(&[5, 7, 7]);
        assert_eq!(table.0[..4], [5, 7, 7, 5]);
        assert!(table.0.iter().all(|number| [5, 7].contains(number)));
        assert!(slot_table(&[]).0.iter().all(|number| *number == 0));
    }

    #[test]
    fn timeouts_are_rounded_up_and_bounded() {
        let of = |client| {
            let other = Duration::from_secs(1);
            let timeout = Timeouts {
                connect: other,
                queue: other,
                client,
                server: other,
                client_fin: other,
                server_fin: other,
            };
            let service = DesiredService {
                bind: Vec::new(),
                balance: Balance::RoundRobin,
                slots: Slots::default(),
                maxconn: None,
                timeout,
                group: 0,
                synchronous: false,
            };
            terms(&service).client
        };
        for millis in [1, 10, 1_000, 10_800_000] {
            let ticks = of(Duration::from_millis(millis));
            let nanoseconds = u64::from(ticks) << 20;
            assert!(nanoseconds >= millis * 1_000_000, "{millis} ms");
            assert!(nanoseconds <= millis * 1_000_000 + (1 << 20), "{millis} ms");
        }
        assert_eq!(of(Duration::MAX), MAX_TICKS);
    }
}
